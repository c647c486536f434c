"""
Where the settings come from: flags before environment before file before defaults.

A file is TOML with one table per section (docs/configuration.md). The environment says
`SIMSCHED__SECTION__NAME`; the two underscores keep clear of the variables that container platforms
make up from the names of services. Flags come as dotted names. What is wrong is said in one line
that names the place, the setting and what would be right. This module knows no server.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from simsched.errors import ConfigError
from simsched.live.settings import PoolEntry, Settings
from simsched.live.settings_catalogue import CATALOGUE, ENVIRONMENT, Setting, meant, sections

DEFAULT: Final = "default"
COMMAND_LINE: Final = "command line"
"""What is said of a value that a flag gave."""

FILE_BYTES_MAX: Final = 1 << 20
"""A configuration file is written by people; anything larger is not one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """
    The settings that hold and how they came about.

    Attributes:
        sources: for every setting `default`, the file, the variable or `command line`.
        warnings: lines about what is probably not meant.

    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def load(
    path: str | Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Settings:
    """
    The settings of one instance; see `load_with_sources`.

    Args:
        path: the configuration file; None: none.
        env: the environment, such as `os.environ`.
        flags: by dotted name, such as `server.port`; None as a value means not given.

    Raises:
        ConfigError: one line about what is wrong, where, and what would be right.

    """
    return load_with_sources(path, env, flags).settings


def load_with_sources(
    path: str | Path | None, env: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Loaded:
    """The settings and where each came from; arguments and errors as in `load`."""
    values: dict[str, Any] = {}
    sources = dict.fromkeys(CATALOGUE, DEFAULT)
    for key, value, source in (
        *(_from_file(Path(path)) if path is not None else ()),
        *_from_environment(env),
        *_from_flags(flags or {}),
    ):
        values[key] = value
        sources[key] = source
    place = str(path) if path is not None else "settings"
    return Loaded(
        settings=_built(values, sources, place),
        sources=sources,
        warnings=tuple(_lookalikes(env)),
    )


def read_table(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """
    The settings that a parsed file gives, by dotted name.

    Raises:
        ConfigError: an unknown section or key, or a value that its setting does not take.

    """
    found: dict[str, Any] = {}
    known = {name: names for name, names in _names().items() if name}
    for name, value in table.items():
        if name in known:
            if not isinstance(value, Mapping):
                want = f"a section: write [{name}] on a line and its settings below"
                raise ConfigError(where, name, f"{want}, not {value!r}")
            for key, item in value.items():
                setting = _known(f"{name}.{key}", where)
                found[setting.key] = setting.read(item, where)
        else:
            setting = _known(name, where)
            found[setting.key] = setting.read(value, where)
    return found


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The settings with these values, by dotted name; raises as `Settings`."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in _names() if name}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tables[section] if section else top)[name] = value
    if "pools" in tables["pools"]:
        tables["pools"]["pools"] = tuple(PoolEntry(**one) for one in tables["pools"]["pools"])
    made = {
        field.name: field.type(**tables[field.name])
        for field in msgspec.structs.fields(Settings)
        if field.name in tables
    }
    return Settings(**top, **made)


def _names() -> dict[str, list[str]]:
    """The names in each section."""
    names: dict[str, list[str]] = {name: [] for name in sections()}
    for setting in CATALOGUE.values():
        names[setting.section].append(setting.name)
    return names


def _known(key: str, where: str) -> Setting:
    """The setting of that name, or the error that says what was probably meant."""
    if key in CATALOGUE:
        return CATALOGUE[key]
    section, _, name = key.rpartition(".")
    elsewhere = [other for other in CATALOGUE.values() if other.name == name]
    if elsewhere:
        home = f"[{elsewhere[0].section}]" if elsewhere[0].section else "the top of the file"
        raise ConfigError(where, key, f"unknown key; {name} belongs in {home}")
    names = _names()
    if section:
        raise ConfigError(where, key, f"unknown key; {meant(name, names[section])}")
    words = [*names[""], *(other for other in names if other)]
    raise ConfigError(where, key, f"unknown key or section; {meant(name, words)}")


def _from_file(path: Path) -> Iterator[tuple[str, Any, str]]:
    for key, value in read_table(parsed(path), str(path)).items():
        if CATALOGUE[key].path and value:
            value = str(path.parent / Path(value).expanduser())
        yield key, value, str(path)


def parsed(path: Path) -> dict[str, Any]:
    """
    A TOML file as it stands.

    Raises:
        ConfigError: it cannot be read, is not UTF-8 or not TOML; names the line where there is one.

    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(str(path), "", "no such file") from None
    except OSError as error:
        raise ConfigError(str(path), "", f"cannot be read: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(str(path), "", f"a file of at most {FILE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        want = f"a text file in UTF-8; byte {error.start} is not"
        raise ConfigError(str(path), "", want) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        text = str(error) or "too deeply nested"
        raise ConfigError(str(path), "", f"not TOML: {text}") from None


def _from_environment(env: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    variables = {setting.variable: setting for setting in CATALOGUE.values() if setting.variable}
    for name, text in env.items():
        if not name.startswith(ENVIRONMENT):
            continue
        setting = variables.get(name)
        if setting is None:
            want = f"no such setting; {meant(name, variables)}"
            if name.removeprefix(ENVIRONMENT).replace("__", ".").lower() in CATALOGUE:
                want = "can only be set in a file, as it is a table"
            raise ConfigError("environment", name, want)
        yield setting.key, setting.read_text(text, f"environment variable {name}"), name


def _lookalikes(env: Mapping[str, str]) -> Iterator[str]:
    """Variables that look as if they were meant for us, but are not read."""
    spelt = {
        setting.variable.replace("__", "_"): setting.variable
        for setting in CATALOGUE.values()
        if setting.variable
    }
    for name in env:
        if name in spelt:
            yield f"environment variable {name} is not read: the name is {spelt[name]}"


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for key, value in flags.items():
        if value is not None:
            setting = _known(key, COMMAND_LINE)
            read = setting.read_text if isinstance(value, str) else setting.read
            yield key, read(value, COMMAND_LINE), COMMAND_LINE


def _built(values: Mapping[str, Any], sources: Mapping[str, str], place: str) -> Settings:
    """The settings; a contradiction is laid at the door of whoever gave the value."""
    try:
        return settings_of(values)
    except ConfigError as error:
        source = sources.get(error.key, DEFAULT)
        where = place if source == DEFAULT else source
        raise ConfigError(where, error.key, error.want) from None
