"""
The protocol as documents: the tables of docs/protocol.md and docs/protocol.schema.json.

Both are made from `simsched.messages`; only the page's introduction is written by hand, above the
mark. `python -m simsched.live.protocol_page docs` writes them anew; a test holds them against the
code.
"""

from __future__ import annotations

import inspect as python_inspect
import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from msgspec import inspect

from simsched import messages
from simsched.live.protocol_fields import meaning
from simsched.live.refusals import TABLE

PAGE: Final = "protocol.md"
SCHEMA: Final = "protocol.schema.json"
MARK: Final = "<!-- All below is written by `python -m simsched.live.protocol_page docs`. -->\n"

DIRECTIONS: Final[Sequence[tuple[str, str, Any]]] = (
    ("Client to scheduler", "ClientMessage", messages.ClientMessage),
    ("Scheduler to client", "ServerToClient", messages.ServerToClient),
    ("Node to scheduler", "NodeMessage", messages.NodeMessage),
    ("Scheduler to node", "ServerToNode", messages.ServerToNode),
)
"""Heading, name in the schema, and the messages of each direction."""

CODES: Final[Sequence[tuple[str, type[StrEnum]]]] = (
    ("Error codes", messages.ErrorCode),
    ("Room error codes", messages.RoomErrorCode),
    ("Events", messages.UiEventType),
    ("Reasons for a missing result", messages.MissReason),
    ("What `backpressure` asks for", messages.BackpressureAction),
    ("States of a node", messages.NodeState),
    ("Rules of language pairs", messages.PairRule),
)

WORDS_SHOWN: Final = 5
"""Closed lists up to this length stand in the table itself."""


def tables() -> str:
    """The generated part of the page."""
    parts: list[str] = []
    values: dict[str, type] = {}
    for heading, name, union in DIRECTIONS:
        parts.append(f"\n## {heading}\n")
        for kind in get_args(union):
            tag = kind.__struct_config__.tag
            parts += _table(f"### `{tag}`", kind, values, is_ours=name.startswith("Server"))
    parts.append("\n## Values inside messages\n")
    done: set[str] = set()
    while len(done) < len(values):
        for name in [name for name in values if name not in done]:
            done.add(name)
            parts += _table(f"### {name}", values[name], values)
    for heading, words in CODES:
        parts.append(f"\n## {heading}\n")
        parts.append(f"{_line(words.__doc__)}\n")
        parts.append(" ".join(f"`{word.value}`" for word in words) + "\n")
    parts += _refusals()
    return "\n".join(parts)


def _table(
    heading: str, kind: type, values: dict[str, type], *, is_ours: bool = False
) -> list[str]:
    """One struct; `is_ours`: the server sends it, so that some defaults are always written."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    lines = [f"{heading}\n", f"{_line(kind.__doc__)}\n"]
    if not info.fields:
        return lines
    lines += ["| field | type | | meaning |", "|---|---|---|---|"]
    for field in info.fields:
        always = is_ours and field.default_factory is not msgspec.NODEFAULT
        word = "required" if field.required else "always sent" if always else "optional"
        about = meaning(kind.__name__, field.encode_name)
        lines.append(f"| `{field.encode_name}` | {_type(field.type, values)} | {word} | {about} |")
    return [*lines, ""]


def _line(text: str | None) -> str:
    """A docstring as one paragraph; what stands under its own heading there is left out."""
    return " ".join(python_inspect.cleandoc(text or "").split())


_SIMPLE: Final[dict[type[inspect.Type], str]] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "whole number",
    inspect.FloatType: "number",
    inspect.BytesType: "base64",
    inspect.AnyType: "anything",
}


def _type(kind: inspect.Type, values: dict[str, type]) -> str:
    """A type in words; the structs met are noted in `values`."""
    if isinstance(kind, inspect.Metadata):
        return _type(kind.type, values)
    if isinstance(kind, inspect.UnionType):
        some = [_type(one, values) for one in kind.types if not isinstance(one, inspect.NoneType)]
        return " or ".join(dict.fromkeys(some)).replace("whole number or number", "number")
    if isinstance(kind, inspect.StructType):
        values[kind.cls.__name__] = kind.cls
        return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
    if isinstance(kind, inspect.VarTupleType):
        return f"list of {_type(kind.item_type, values)}"
    if isinstance(kind, inspect.DictType):
        return f"table of {_type(kind.value_type, values)}"
    if isinstance(kind, inspect.EnumType):
        words = [f"`{word.value}`" for word in kind.cls]
        return ", ".join(words) if len(words) <= WORDS_SHOWN else "word"
    if isinstance(kind, inspect.StrType) and kind.pattern:
        return "id" if "+" in kind.pattern else "id or empty"
    return _SIMPLE[type(kind)]


def _refusals() -> Iterator[str]:
    """The ways in which a server says no."""
    yield "\n## Refusals and close codes\n"
    yield (
        "An empty code means that the socket is closed without an `error`; no close code, that it "
        "stays open. At the opening handshake the answer is an HTTP status with "
        '`{"code": ..., "message": ...}`.\n'
    )
    yield "| code | closes with | HTTP | what it says |"
    yield "|---|---|---|---|"
    rows = {(one.code, one.close, one.status, one.text): None for one in TABLE.values()}
    for code, close, status, text in sorted(rows, key=lambda row: (row[1], row[0], row[3])):
        yield f"| {f'`{code}`' if code else ''} | {close or ''} | {status or ''} | {text} |"
    yield ""


def schema() -> dict[str, Any]:
    """JSON Schema of every message; `$defs` has one union for each direction."""
    unions = [union for _, _, union in DIRECTIONS]
    made, parts = msgspec.json.schema_components(unions, ref_template="#/$defs/{name}")
    named = {name: one for (_, name, _), one in zip(DIRECTIONS, made, strict=True)}
    for part in parts.values():
        if "description" in part:
            part["description"] = _line(part["description"])
    for name, part in parts.items():
        for field, about in part.get("properties", {}).items():
            if field != "type" or "enum" not in about:
                about["description"] = meaning(name, field)
    tree = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The protocol of simsched",
        "description": "One JSON text frame is one message; unknown fields are ignored.",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in named],
        "$defs": {**named, **parts},
    }
    checked: dict[str, Any] = _with_portable_patterns(tree)
    return checked


def _with_portable_patterns(part: Any) -> Any:
    r"""Python's `\A` and `\Z` are `^` and `$` in the regular expressions of JSON Schema."""
    if isinstance(part, dict):
        return {
            key: value.replace("\\A", "^").replace("\\Z", "$")
            if key == "pattern" and isinstance(value, str)
            else _with_portable_patterns(value)
            for key, value in part.items()
        }
    if isinstance(part, list):
        return [_with_portable_patterns(item) for item in part]
    return part


def schema_text() -> str:
    """The schema as it stands in its file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def page(old: str) -> str:
    """The page with its introduction kept and its tables made anew."""
    introduction, mark, _ = old.partition(MARK)
    assert mark, f"the page has no line {MARK.strip()}"
    return introduction + MARK + tables()


def write(folder: Path) -> None:
    """Write the page and the schema of a folder anew."""
    path = folder / PAGE
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / SCHEMA).write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
