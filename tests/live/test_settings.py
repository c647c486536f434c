"""Settings: what is given holds, in its order, and what is wrong is said in one line."""

from __future__ import annotations

import json
import math
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.errors import ConfigError
from simsched.live import config_commands
from simsched.live.settings import (
    AuthSettings,
    CanarySettings,
    HealthSettings,
    LimitsSettings,
    ServerSettings,
    Settings,
    TlsSettings,
)
from simsched.live.settings_catalogue import CATALOGUE, Setting
from simsched.live.settings_files import (
    COMMAND_LINE,
    DEFAULT,
    load,
    load_with_sources,
    read_table,
    settings_of,
)
from simsched.live.settings_rules import is_loopback
from simsched.live.settings_text import MASK, as_toml, masked, values_of
from simsched.policy import FIELDS, PER_CELL
from simsched.presets import parse_policy
from simsched.state import CoreSettings
from simsched.units import MS, SECOND

KEYS = sorted(CATALOGUE)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "simsched.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(
    tmp_path: Path,
    text: str = "",
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), env or {}, flags)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_flags_come_before_the_environment_before_the_file_before_defaults(tmp_path: Path) -> None:
    """Each place gives way to the one before it, and the settings know where they came from."""
    path = written(
        tmp_path, "[server]\nport = 1\ndrain_s = 1\nping_s = 1\n[log]\nlevel = 'error'\n"
    )
    env = {"SIMSCHED__SERVER__PORT": "2", "SIMSCHED__SERVER__DRAIN_S": "2", "PATH": "/bin"}
    loaded = load_with_sources(path, env, {"server.port": 3, "log.level": None})
    server = loaded.settings.server
    assert (server.port, server.drain_s, server.ping_s) == (3, 2.0, 1.0)
    assert loaded.settings.log.level == "error"
    assert loaded.sources["server.port"] == COMMAND_LINE
    assert loaded.sources["server.drain_s"] == "SIMSCHED__SERVER__DRAIN_S"
    assert loaded.sources["server.ping_s"] == str(path)
    assert loaded.sources["server.host"] == DEFAULT
    assert load(None, {}) == Settings()


def test_what_concerns_the_core_reaches_it() -> None:
    """The bound of a session's queue and the demand for a GPU are the operator's."""
    given = Settings(
        limits=LimitsSettings(session_queue_max=7), health=HealthSettings(require_gpu=False)
    )
    core = given.core_settings(shared=False)
    assert (core.session_queue_max, core.health.needs_gpu) == (7, False)
    plain = Settings().core_settings(shared=False)
    assert plain.session_queue_max == CoreSettings().session_queue_max
    assert plain.health == CoreSettings().health


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_says_what_it_is(key: str) -> None:
    """A default within its own bounds, one line of help, and a name that fits its variable."""
    setting = CATALOGUE[key]
    assert setting.doc
    assert "\n" not in setting.doc
    if setting.kind not in ("tables", "mapping"):
        assert setting.variable == "SIMSCHED__" + key.replace(".", "__").upper()
        assert setting.read(setting.default, "here") == setting.default


WRONG: Mapping[str, tuple[object, ...]] = {
    "text": (5, True, ["a"]),
    "texts": ("a", [1], 5),
    "switch": ("maybe", 1, 0.0),
    "integer": ("five", 1.5, True, -1),
    "number": ("five", True, math.nan, math.inf, -1.0, 1e9),
    "share": ("five", True, 1.5, -0.1, "101%", "-1%", "x%", math.nan),
    "choice": ("nonsense", 5),
    "mapping": (5, {"a": 5}),
    "tables": ("a", [5], [{}], [{"pool_id": 5}], [{"pool_id": "a", "pool": 1}]),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_names_file_key_and_the_right_form(key: str, tmp_path: Path) -> None:
    """Whatever a setting does not take is refused with its name and what would be right."""
    setting = CATALOGUE[key]
    for value in WRONG[setting.kind]:
        with pytest.raises(ConfigError) as caught:
            setting.read(value, "file.toml")
        assert str(caught.value).startswith(f"file.toml: {key}")
        assert len(str(caught.value)) > len(f"file.toml: {key}: ")


@pytest.mark.parametrize("key", [key for key in KEYS if CATALOGUE[key].variable])
def test_a_wrong_variable_is_named(key: str) -> None:
    """A value that the setting does not take is laid at the variable's door."""
    setting = CATALOGUE[key]
    text = {"text": None, "texts": None}.get(setting.kind, "no such word")
    if text is not None:
        with pytest.raises(ConfigError, match=setting.variable) as caught:
            load(None, {setting.variable: text})
        assert key in str(caught.value)


def some_value(setting: Setting) -> st.SearchStrategy[Any]:
    """Values that the setting takes by itself; what two settings must agree on is left alone."""
    least = setting.least or 0
    most = min(setting.most or 1e9, 1e6)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "switch": st.booleans(),
        "integer": st.integers(int(least), int(most)),
        "number": st.floats(least, most, exclude_min=setting.above, allow_subnormal=False),
        "share": st.floats(0, 1),
        "choice": st.sampled_from(setting.choices or ("",)),
        "text": st.just(setting.default),
        "texts": st.just(list(setting.default) if setting.kind == "texts" else []),
        "mapping": st.just({}),
        "tables": st.lists(
            st.from_regex(r"[a-z]{1,5}", fullmatch=True), unique=True, max_size=3
        ).map(lambda ids: [{"pool_id": one, "required_services": ["asr"]} for one in ids]),
    }
    return kinds[setting.kind]


AGREEING = (
    "canary.", "auth.allow_anonymous", "limits.outbox", "limits.node_frame", "server.ping",
    "health.silence", "health.node_scan", "segmentation.max_bytes",
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: some_value(setting)
            for key, setting in CATALOGUE.items()
            if not key.startswith(AGREEING)
        },
    )
)
def test_what_is_written_reads_back_as_it_was(values: dict[str, Any]) -> None:
    """A configuration file that we write has the values that it was written from."""
    read = read_table(tomllib.loads(as_toml(values, dict.fromkeys(values, "a\nnote"))), "file")
    settings = settings_of(read)
    assert settings == settings_of(values | read)
    shown = values_of(settings)
    for key, value in values.items():
        assert json.loads(json.dumps(shown[key])) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[serve]\n", "serve: unknown key or section; did you mean server?"),
        ("[server]\nprot = 1", "server.prot: unknown key; did you mean port?"),
        ("port = 1", "port: unknown key; port belongs in [server]"),
        ("[limits]\npause_ms = 1", "limits.pause_ms: unknown key; pause_ms belongs in"),
        ("server = 5", "server: a section: write [server]"),
        ("[server]\nport = '5010'", "server.port: a whole number from 0 to 65535, not '5010'"),
        ("[server]\nport = 70000", "server.port: a whole number from 0 to 65535, not 70000"),
        ("[server]\nping_s = 0", "server.ping_s: a number above 0 to 86400, not 0"),
        ("[log]\nlevel = 'inf'", "log.level: unknown value 'inf'; did you mean info?"),
        ("[server]\nport = ", "not TOML"),
        ("policy = 'save'", "policy: save: no such policy; did you mean safe?"),
        ("policy = 'safe,lease_ms=-1'", "policy: lease_ms: a whole number"),
        ("[canary]\nshare = 0.5", "canary.policy: is missing, as canary.share is 0.5"),
        ("[canary]\npolicy = 'safe'\nshare = 0.5", "canary.policy: differs in nothing"),
        ("[tls]\ncert = 'a.pem'", "tls.key: is missing, as tls.cert is given"),
        ("[server]\norigins = ['app.example']", "server.origins: an origin is a scheme"),
        ("[server]\norigins = ['https://a.example/page']", "server.origins: an origin is"),
        ("[server]\nhost = ''", "server.host: an address such as"),
        ("[store]\ncell = 'a b'", "store.cell: a text of the form"),
        ("[store]\ncell = '{x}'", "store.cell: a text of the form"),
        ("[store]\nredis_url = 'http://h'", "store.redis_url: an address that begins with"),
        ("[[pools.pools]]\npool_id = 'a'\n[[pools.pools]]\npool_id = 'a'", "pools.pools: ids"),
        ("[pools]\ntenant_overrides = {t = 'x'}", "pools.tenant_overrides: tenant t"),
        ("[server]\nping_s = 5", "server.ping_timeout_s: at least server.ping_s (5)"),
        ("[limits]\noutbox_bytes_max = 1000", "limits.outbox_bytes_max: at least"),
        ("[segmentation]\nmax_bytes = 100000000", "limits.outbox_bytes_max: at least"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, line: str, tmp_path: Path) -> None:
    """The line names the file, the setting and the right form."""
    said = refused(tmp_path, text)
    assert line in said
    assert said.startswith(str(tmp_path / "simsched.toml"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No such file, a folder, no text, nonsense too deep: one line each."""
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})
    path = tmp_path / "binary.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(path, {})
    path.write_bytes(b"a = " + b"[" * 100_000)
    with pytest.raises(ConfigError, match="not TOML"):
        load(path, {})


def test_unknown_variables_and_flags_are_refused(tmp_path: Path) -> None:
    """A slip in a name is no silent default; tables can only stand in a file."""
    assert "did you mean SIMSCHED__SERVER__PORT" in refused(
        tmp_path, env={"SIMSCHED__SERVER__POR": "1"}
    )
    assert "only be set in a file" in refused(tmp_path, env={"SIMSCHED__POOLS__POOLS": "[]"})
    assert "did you mean port" in refused(tmp_path, flags={"server.prt": 1})


def test_variables_that_platforms_make_up_do_no_harm() -> None:
    """A service called simsched-server sets SIMSCHED_SERVER_PORT: a warning, no more."""
    loaded = load_with_sources(None, {"SIMSCHED_SERVER_PORT": "tcp://10.0.0.1:80"}, {})
    assert loaded.settings == Settings()
    assert "SIMSCHED__SERVER__PORT" in loaded.warnings[0]


def test_texts_of_the_environment_are_understood() -> None:
    """Switches by word, lists by comma, shares as a share or a percentage."""
    settings = load(
        None,
        {
            "SIMSCHED__AUTH__ALLOW_ANONYMOUS": "Yes",
            "SIMSCHED__SERVER__ORIGINS": "https://a.example, https://b.example:444",
            "SIMSCHED__CANARY__SHARE": "20%",
            "SIMSCHED__CANARY__POLICY": "safe,group_updates=separate",
            "SIMSCHED__LIMITS__BACKPRESSURE_AT": "0.5",
        },
        {"server.host": "0.0.0.0"},
    )
    assert settings.auth.allow_anonymous
    assert settings.server.origins == ("https://a.example", "https://b.example:444")
    assert settings.canary.share == 0.2
    assert settings.limits.backpressure_at == 0.5


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    """The server may be started from anywhere; flags are relative to where that is."""
    text = "[tls]\ncert = 'a.pem'\nkey = '/etc/k.pem'\n"
    settings = load(written(tmp_path, text), {}, {"record.dir": "out"})
    assert settings.tls == TlsSettings(cert=str(tmp_path / "a.pem"), key="/etc/k.pem")
    assert settings.record.dir == "out"


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False),
    ],
)  # fmt: skip
def test_beyond_the_loopback_tokens_are_asked_for(host: str, is_local: bool) -> None:
    """Both kinds of token, or a word that says that nobody needs one."""
    assert is_loopback(host) is is_local
    server = ServerSettings(host=host)
    if is_local:
        Settings(server=server)
        return
    for auth in (AuthSettings(), AuthSettings(client_tokens_file="a")):
        with pytest.raises(ConfigError, match="tokens_file"):
            Settings(server=server, auth=auth)
    Settings(server=server, auth=AuthSettings(allow_anonymous=True))
    Settings(server=server, auth=AuthSettings(client_tokens_file="a", node_tokens_file="b"))


def test_a_contradiction_is_laid_at_who_gave_the_value(tmp_path: Path) -> None:
    """A variable that does not get along with the rest is named, not the file."""
    text = refused(tmp_path, env={"SIMSCHED__CANARY__POLICY": "safe,lease_ms=1"})
    assert text.startswith("SIMSCHED__CANARY__POLICY: canary.policy: lease_ms")


@pytest.mark.parametrize("name", PER_CELL)
def test_a_canary_differs_in_fields_per_session_only(name: str) -> None:
    """A field that the whole cell has in common is named in one line."""
    choices = FIELDS[name].metadata["choices"]
    default = getattr(parse_policy("safe"), name)
    values = [default + 1] if choices is int else [one for one in choices if one != default]
    for value in values:
        with pytest.raises(ConfigError) as caught:
            Settings(canary=CanarySettings(policy=f"safe,{name}={value}", share=0.1))
        assert "canary" in str(caught.value)


def test_core_settings_carry_every_value_over() -> None:
    """What is not a default here is not one in the core."""
    settings = load(
        None,
        {},
        {
            "store.cell": "x", "segmentation.pause_ms": 1, "segmentation.padding_auto_ms": 2,
            "pools.enabled": True, "pools.pool_count": 3, "health.warmup_s": 4,
            "health.silence_s": 6.5, "health.failures_max": 7, "health.healthy_needed": 8,
            "health.node_scan_s": 0.5, "timeouts.scan_ms": 9, "timeouts.heartbeat_s": 10,
            "timeouts.room_scan_s": 11, "timeouts.remote_refresh_ms": 12,
            "canary.policy": "safe,group_updates=separate", "canary.share": 0.25,
        },
    )  # fmt: skip
    core = settings.core_settings(True)
    assert (core.shared, core.cell) == (True, "x")
    assert (core.segmentation.pause_ms, core.segmentation.padding_auto_ms) == (1, 2)
    assert (core.pools.enabled, core.pools.pool_count) == (True, 3)
    assert core.health.warmup_ns == 4 * SECOND
    assert core.health.silence_ns == 6_500 * MS
    assert (core.health.failures_max, core.health.healthy_needed) == (7, 8)
    assert core.node_scan_ns == 500 * MS
    assert (core.scan_ns, core.heartbeat_ns) == (9 * MS, 10 * SECOND)
    assert (core.room_scan_ns, core.remote_refresh_ns) == (11 * SECOND, 12 * MS)
    assert core.canary is not None
    assert core.canary.policy == parse_policy("safe,group_updates=separate")
    assert core.canary.share_ppm == 250_000


def test_defaults_are_those_of_the_core() -> None:
    """Where nothing is set the core has its own defaults, save for a quicker look at nodes."""
    ours, core = Settings().core_settings(False), CoreSettings()
    assert ours.segmentation == core.segmentation
    assert ours.pools == core.pools
    assert ours.health == core.health
    assert (ours.scan_ns, ours.heartbeat_ns) == (core.scan_ns, core.heartbeat_ns)
    assert (ours.room_scan_ns, ours.canary) == (core.room_scan_ns, None)
    assert Settings().core_policy() == parse_policy("safe")


def test_settings_are_frozen_and_closed() -> None:
    """Nobody changes them while a server runs, and none are made up."""
    with pytest.raises(AttributeError):
        Settings().policy = "x"  # type: ignore[misc]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"limits": {"x": 1}}, Settings)
    assert LimitsSettings() == Settings().limits


# The commands


def test_show_names_sources_and_masks_passwords(tmp_path: Path) -> None:
    """What is shown reads back, says where it came from and keeps secrets."""
    path = written(tmp_path, "[store]\nredis_url = 'redis://me:s3cret@h:1/2?password=s3cret'\n")
    loaded = load_with_sources(path, {}, {"server.port": 7})
    text = config_commands.show(loaded)
    assert "s3cret" not in text
    assert f'redis_url = "redis://{MASK}@h:1/2?{MASK}"  # {path}' in text
    assert "port = 7  # command line" in text
    assert set(tomllib.loads(text)["limits"]) == {
        setting.name for setting in CATALOGUE.values() if setting.section == "limits"
    }
    short = config_commands.show(loaded, all_of_them=False)
    assert set(tomllib.loads(short)) == {"server", "store"}


@pytest.mark.parametrize("url", ["redis://:s3cret@h", "unix://s3cret@x", "s3cret", "redis://["])
def test_no_form_of_address_shows_its_password(url: str) -> None:
    """Also one that is no address at all."""
    assert "s3cret" not in str(masked(CATALOGUE["store.redis_url"], url))


def test_an_error_never_quotes_a_secret(tmp_path: Path) -> None:
    """A password in the wrong place stays where it is."""
    for text in ("['s3cret']", "'s3cret'", "'http://u:s3cret@h'"):
        assert "s3cret" not in refused(tmp_path, f"[store]\nredis_url = {text}\n")


def test_check_looks_at_the_files_that_are_named(tmp_path: Path) -> None:
    """Tokens that others can read or guess are warned about, missing files are refused."""
    tokens = tmp_path / "a.tokens"
    tokens.write_text("# people\nanna:short\nb b:" + "x" * 40 + "\nc:not/for/browsers/at/all\n")
    tokens.chmod(0o644)
    path = written(tmp_path, "[auth]\nclient_tokens_file = 'a.tokens'\n")
    lines = config_commands.check(path, {}, {})
    assert lines[0] == f"{path}: all right, 1 of {len(CATALOGUE)} settings given"
    assert [word for word in ("others can read", "guessed", "name", "browser")
            if not any(word in line for line in lines[1:])] == []  # fmt: skip
    tokens.chmod(0o600)
    tokens.write_text(config_commands.new_token_line("anna") + "\n")
    assert len(config_commands.check(path, {}, {})) == 1
    tokens.unlink()
    with pytest.raises(ConfigError, match=r"a\.tokens"):
        config_commands.check(path, {}, {})
    with pytest.raises(ConfigError, match=r"tls\.cert"):
        config_commands.check(None, {}, {"tls.cert": "/nowhere/a", "tls.key": "/nowhere/b"})
    with pytest.raises(ConfigError, match="valkey_path"):
        config_commands.check(None, {}, {"store.valkey_path": "/nowhere/valkey"})


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    """TLS files are opened by `config check`, not first by the server."""
    for name in ("cert", "key"):
        (tmp_path / name).write_text("nonsense")
    flags = {"tls.cert": str(tmp_path / "cert"), "tls.key": str(tmp_path / "key")}
    with pytest.raises(ConfigError, match=r"tls\.cert: a PEM certificate"):
        config_commands.check(None, {}, flags)


def test_new_tokens_differ_and_suit_a_browser() -> None:
    """A token is long, random and made of characters that a subprotocol may have."""
    lines = {config_commands.new_token_line("anna") for _ in range(100)}
    assert len(lines) == 100
    for line in lines:
        name, _, token = line.partition(":")
        assert name == "anna"
        assert len(token) >= 40
        assert set(token) <= config_commands.TOKEN_CHARACTERS
    for wrong in ("", "a:b", "a b", "ä"):
        with pytest.raises(ConfigError):
            config_commands.new_token_line(wrong)


def test_an_import_never_overwrites(tmp_path: Path) -> None:
    """The file is written once, for its owner alone."""
    theirs, ours = tmp_path / "config.toml", tmp_path / "simsched.toml"
    theirs.write_text("[server]\nport = 5011\n")
    _, place = config_commands.take_over(theirs, ours)
    assert place == str(ours)
    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    assert load(ours, {}).server.port == 5011
    with pytest.raises(ConfigError, match="exists already"):
        config_commands.take_over(theirs, ours)
    with pytest.raises(ConfigError, match="cannot be written"):
        config_commands.take_over(theirs, tmp_path / "none" / "x.toml")
