"""The documents of the live world say what the code does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from simsched import messages, wire
from simsched.errors import MessageError
from simsched.live import protocol_fields, protocol_page, settings_page
from simsched.live.refusals import TABLE
from simsched.live.settings import Settings
from simsched.live.settings_catalogue import CATALOGUE
from simsched.live.settings_files import read_table, settings_of
from simsched.messages.values import Value

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
PAGES = (CONFIGURATION, PROTOCOL, OPERATIONS)

DECODERS: dict[str, tuple[Callable[[bytes | str], Any], Any]] = {
    "client": (wire.decode_client, messages.ClientMessage),
    "server-to-client": (wire.decode_server_to_client, messages.ServerToClient),
    "node": (wire.decode_node, messages.NodeMessage),
    "server-to-node": (wire.decode_server_to_node, messages.ServerToNode),
}
"""How the examples under each mark are read."""


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of a page whose first line is this."""
    return re.findall(rf"^```{re.escape(kind)}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def structs() -> list[type[Value]]:
    kinds = [getattr(messages, name) for name in messages.__all__]
    return [
        kind
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Value) and msgspec.structs.fields(kind)
    ]


def examples() -> list[tuple[str, str]]:
    return [
        (kind, line)
        for kind in DECODERS
        for block in blocks(PROTOCOL, f"json {kind}")
        for line in block.splitlines()
    ]


# Configuration


def test_the_configuration_page_is_the_codes() -> None:
    """`python -m simsched.live.settings_page > docs/configuration.md` was run last."""
    assert settings_page.page() == CONFIGURATION


@pytest.mark.parametrize("key", CATALOGUE)
def test_every_setting_is_on_the_page(key: str) -> None:
    """Its name, default and help stand in the table of its section."""
    setting = CATALOGUE[key]
    head = f"## [{setting.section}]\n" if setting.section else "## Outside a section\n"
    section = CONFIGURATION.split(head, 1)[1].split("\n## ", 1)[0]
    assert f"| `{setting.name}` |" in section
    assert setting.doc in section


def test_the_pages_examples_are_configurations() -> None:
    """What the pages show can be copied."""
    found = [block for page in PAGES for block in blocks(page, "toml")]
    assert len(found) >= 2
    for block in found:
        assert settings_of(read_table(tomllib.loads(block), "page")) != Settings()


def test_settings_that_the_pages_name_exist() -> None:
    """Dotted names in code marks, and variables, are those of the catalogue."""
    sections = {setting.section for setting in CATALOGUE.values() if setting.section}
    variables = {setting.variable for setting in CATALOGUE.values()}
    for page in PAGES:
        for section, name in re.findall(r"`([a-z]+)\.([a-z_]+)`", page):
            assert section not in sections or f"{section}.{name}" in CATALOGUE, (section, name)
        for variable in re.findall(r"SIMSCHED__[A-Z_]+[A-Z]", page):
            assert variable in variables


# Protocol


def test_the_protocol_page_is_the_codes() -> None:
    """`python -m simsched.live.protocol_page docs` was run last."""
    assert protocol_page.page(PROTOCOL) == PROTOCOL
    schema = (DOCS / protocol_page.SCHEMA).read_text(encoding="utf-8")
    assert schema == protocol_page.schema_text()


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.__name__)
def test_every_message_and_field_is_documented(kind: type[Value]) -> None:
    """On the page and in the schema, with what it means."""
    tag = kind.__struct_config__.tag
    heading = f"### `{tag}`\n" if tag else f"### {kind.__name__}\n"
    assert heading in PROTOCOL
    described = protocol_page.schema()["$defs"][kind.__name__]
    assert described["description"]
    for field in msgspec.structs.fields(kind):
        assert protocol_fields.meaning(kind.__name__, field.encode_name)
        assert any(
            f"\n| `{field.encode_name}` |" in part.split("\n### ", 1)[0]
            for part in PROTOCOL.split(heading)[1:]
        )
        assert described["properties"][field.encode_name]["description"]


def test_no_meaning_is_left_over() -> None:
    """A field that is gone leaves no line behind."""
    known = {
        name
        for kind in structs()
        for field in msgspec.structs.fields(kind)
        for name in (field.encode_name, f"{kind.__name__}.{field.encode_name}")
    }
    assert set(protocol_fields.FIELDS) <= known


def test_every_refusal_and_code_is_on_the_page() -> None:
    """Whatever the server says no with can be looked up."""
    for refusal in TABLE.values():
        assert refusal.text in PROTOCOL
        assert f"`{refusal.code}`" in PROTOCOL
    for code in messages.ErrorCode:
        assert f"`{code.value}`" in PROTOCOL


def test_the_pages_examples_are_messages() -> None:
    """Every example is read in its direction, keeps its fields, and is written as it was read."""
    seen = set()
    for kind, line in examples():
        decode, union = DECODERS[kind]
        message = decode(line)
        assert isinstance(message, get_args(union))
        assert decode(wire.encode(message)) == message
        seen.add(json.loads(line)["type"])
    assert {"session_init", "audio_chunk", "translation_result", "job_assign"} <= seen


def test_examples_of_one_direction_are_none_of_the_other() -> None:
    """The marks above the examples tell directions apart."""
    for kind, decode in (("client", wire.decode_node), ("node", wire.decode_client)):
        for other, line in examples():
            if other == kind:
                with pytest.raises(MessageError):
                    decode(line)


def test_the_schema_can_be_followed() -> None:
    """Every reference leads somewhere, and patterns are those of JSON Schema."""
    schema = protocol_page.schema()
    text = json.dumps(schema)
    for name in re.findall(r"#/\$defs/(\w+)", text):
        assert name in schema["$defs"]
    assert "\\\\A" not in text
    assert "\\\\Z" not in text
    for _, name, union in protocol_page.DIRECTIONS:
        assert len(schema["$defs"][name]["anyOf"]) == len(get_args(union))


def test_binary_frames_are_as_the_page_draws_them() -> None:
    """Headers of 12 and 10 bytes, little-endian, then the session id."""
    chunk = messages.AudioChunk(session_id="s-1", seq=258, is_final=False, payload=b"ab")
    assert wire.encode_binary_chunk(chunk) == b"\x01\x03\x02\x01\0\0\0\0\0\0\0\0s-1ab"
    final = messages.AudioChunk(session_id="s-1", seq=1, is_final=True)
    assert wire.encode_binary_chunk(final) == b"\x02\x03\x01\0\0\0\0\0\0\0s-1"


# Operations


def test_the_unit_is_a_unit(tmp_path: Path) -> None:
    """systemd itself accepts it, with our program in place of the installed one."""
    (unit,) = blocks(OPERATIONS, "ini")
    assert "ExecStart=/srv/simsched/bin/simsched serve" in unit
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    path = tmp_path / "simsched.service"
    path.write_text(unit.replace("/srv/simsched/bin/simsched", sys.executable))
    done = subprocess.run(
        [program, "verify", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "simsched.service" in line]


def test_the_unit_waits_for_the_drain() -> None:
    """systemd and the container engine give the server longer than it takes to leave."""
    (unit,) = blocks(OPERATIONS, "ini")
    found = re.search(r"TimeoutStopSec=(\d+)", unit)
    assert found
    assert int(found[1]) > Settings().server.drain_s
    stop = re.search(r"--stop-timeout (\d+)", OPERATIONS)
    assert stop
    assert int(stop[1]) > Settings().server.drain_s


def test_the_container_is_made_of_what_is_here() -> None:
    """What the container file copies exists, and its line about versions makes constraints."""
    (text,) = blocks(OPERATIONS, "dockerfile")
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists(), source
    found = re.search(r"sed (-e .*?) /wheels/constraints.txt", text)
    assert found
    done = subprocess.run(
        ["sh", "-c", f"sed {found[1]} requirements.lock"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert "--hash" not in done.stdout
    assert all(re.match(r"[a-z0-9_.-]+==\S+( ;.*)?$", line, re.IGNORECASE) for line in lines)
    assert any(line.startswith("websockets==") for line in lines)


def test_links_lead_somewhere() -> None:
    """Every file that the pages link to is there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page):
            assert (DOCS / target).exists(), target
