"""
Tables laid over tables: what a study says, then its variant, then `--set`.

Everything here works on nested tables as TOML gives them. A key replaces the key below it that
means the same in another unit (`horizon_s` replaces `horizon_ms`); a table is merged key by key,
unless it says which `kind` it is: then it stands for itself. What the keys mean is not known here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from simsched.errors import ConfigError
from simsched.models.fields import UNITS_NS, meant

Table = dict[str, Any]

WHERE_SET: Final = "--set"


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Table:
    """The table `below` with everything that `above` says put in its place."""
    merged: Table = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        for twin in [name for name in merged if name != key and stem(name) == stem(key)]:
            del merged[twin]
        if isinstance(value, Mapping) and isinstance(under, Mapping) and "kind" not in value:
            merged[key] = laid_over(under, value)
        else:
            merged[key] = copied(value)
    return merged


def copied(value: Any) -> Any:
    """A copy that shares no table and no list with the original."""
    if isinstance(value, Mapping):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def stem(key: str) -> str:
    """A key without its unit: `horizon` of `horizon_ms`, `rate` of `rate_per_s`."""
    name, _, unit = key.rpartition("_")
    return name.removesuffix("_per") if name and unit in UNITS_NS else key


def setting(text: str) -> tuple[str, Any]:
    """
    `key=value` of a command line; the value as TOML says it, else as plain text.

    Raises:
        ConfigError: there is no `=`, or no key before it.

    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(WHERE_SET, text, "is written key=value, e.g. scenario.nodes=200")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def apply_settings(
    table: Table, settings: Mapping[str, Any], top: Iterable[str], scenario: Iterable[str]
) -> Table:
    """
    The study's table with dotted settings put in.

    A key's first word is one of the study's (`top`), or one of `[scenario]`'s, which may be left
    out; `variant.NAME.KEY` reaches one variant.

    Raises:
        ConfigError: no such key or variant.

    """
    top, scenario = list(top), list(scenario)
    for key, value in settings.items():
        first, _, rest = key.partition(".")
        if first == "variant":
            _set_variant(table, key, rest, value)
        elif first in top or stem(first) in top:
            table = laid_over(table, _nested(key, value))
        elif first in scenario or stem(first) in scenario:
            table = laid_over(table, _nested(f"scenario.{key}", value))
        else:
            known = [*top, "variant.NAME.KEY", *scenario]
            raise ConfigError(WHERE_SET, key, f"unknown key; {meant(first, known)}")
    return table


def _set_variant(table: Table, key: str, rest: str, value: Any) -> None:
    entries = table.get("variant", [])
    names = [str(entry.get("name", "")) for entry in entries if isinstance(entry, Mapping)]
    found = [name for name in names if rest.startswith(f"{name}.")]
    if not found:
        want = f"unknown variant; {meant(rest.partition('.')[0], names)}"
        raise ConfigError(WHERE_SET, key, want)
    name = max(found, key=len)
    place = names.index(name)
    table["variant"] = [
        laid_over(entry, _nested(rest[len(name) + 1 :], value)) if i == place else entry
        for i, entry in enumerate(entries)
    ]


def _nested(key: str, value: Any) -> Table:
    """The table that says `value` at a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    table: Table = value
    return table
