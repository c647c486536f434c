"""
Settings as the text of a configuration file, and with their secrets masked.

What is written here reads back as the same values (`settings_files`). Comments say where a value
came from or why it is there. Only what settings consist of is written: no dates, no nested tables
but those that settings have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from simsched.live.settings import Settings
from simsched.live.settings_catalogue import CATALOGUE, Setting

MASK: Final = "********"
"""What stands for a secret."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def values_of(settings: Settings) -> dict[str, Any]:
    """All values by dotted name, as plain lists and tables."""
    tree = msgspec.to_builtins(settings)
    return {
        key: tree[setting.section][setting.name] if setting.section else tree[setting.name]
        for key, setting in CATALOGUE.items()
    }


def masked(setting: Setting, value: Any) -> Any:
    """The value as it may be shown: an address keeps all but its user and password."""
    if not setting.secret or not value:
        return value
    try:
        parts = urlsplit(value)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return MASK
    if not parts.scheme:
        return MASK
    hidden = f"{MASK}@{host}" if "@" in parts.netloc else host
    query = MASK if parts.query else ""
    return parts._replace(netloc=hidden, query=query, fragment="").geturl()


def as_toml(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """
    A configuration file with these values, by dotted name, each with its comment after it.

    Sections stand in the order of the catalogue, whatever the order of `values`.
    """
    notes = comments or {}
    lines: list[str] = []
    tables: list[str] = []
    section = ""
    for key, setting in CATALOGUE.items():
        if key not in values:
            continue
        if setting.section != section:
            lines += [*tables, "", f"[{setting.section}]"]
            section, tables = setting.section, []
        note = f"  # {' '.join(notes[key].split())}" if notes.get(key) else ""
        if setting.kind == "tables" and values[key]:
            for table in values[key]:
                inner = (f"{name} = {_value(item)}" for name, item in table.items())
                tables += ["", f"[[{key}]]{note}", *inner]
        elif setting.kind == "mapping" and values[key]:
            inner = (f"{_key(name)} = {_value(item)}" for name, item in values[key].items())
            tables += ["", f"[{key}]{note}", *inner]
        else:
            lines.append(f"{setting.name} = {_value(values[key])}{note}")
    return "\n".join([*lines, *tables]).lstrip("\n") + "\n"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    """One value in TOML, on one line."""
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + "}"
        )
    if isinstance(value, Iterable):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)
