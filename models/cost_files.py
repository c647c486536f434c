"""
The text of a cost model: read, laid over the model that it builds on, and overridden by a study.

Everything here works on nested tables as TOML gives them; `models.prices` says what they mean.
An entry that prices a step anew replaces all of `cost`, `per_n` and `nodes_range` of the entry
below it, and keeps what it does not mention: the server's side of a Redis price above all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from simsched.errors import ConfigError
from simsched.models.fields import UNITS_NS, meant
from simsched.steps import COST_KEYS, LOCKS

PACKAGED: Final = ("report", "reference", "zero")
"""The cost models that come along."""

BASES_MAX: Final = 8
"""How many files may build on one another; more is a circle."""

Table = dict[str, Any]

_REPLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "cost": ("cost", "per_n", "nodes_range"),
    "nodes_range": ("cost", "per_n", "nodes_range"),
}


def read_model(name_or_path: str, depth: int = 0) -> tuple[str, Table]:
    """
    A model's whole table, its bases included, and how to name it in errors.

    Raises:
        ConfigError: unknown name, unreadable file, no TOML, or a circle of bases.

    """
    where, table = _read(name_or_path)
    costs = _inner(table, "costs", where)
    for key, entry in costs.items():
        if isinstance(entry, Mapping):
            costs[key] = {"priced_by": table.get("name", where), **entry}
    base = table.pop("base", None)
    if base is None:
        return where, table
    if not isinstance(base, str):
        raise ConfigError(where, "base", f"must be the name of a cost model, not {base!r}")
    if depth == BASES_MAX:
        raise ConfigError(where, "base", f"more than {BASES_MAX} models deep: a circle?")
    _, below = read_model(base, depth + 1)
    merged = below | table
    merged["costs"] = _inner(below, "costs", where)
    for key, entry in costs.items():
        merged["costs"][key] = _laid_over(merged["costs"].get(key, {}), entry)
    merged["locks"] = _inner(below, "locks", where) | _inner(table, "locks", where)
    return where, merged


def override(table: Table, key: str, value: object, where: str) -> None:
    """
    Put one setting of a study into a model's table.

    `key` is dotted: `nodes_high`, `locks.NAME.scope`, `costs.KEY` (its price) or
    `costs.KEY.FIELD`; a table as value sets all that is in it.

    Raises:
        ConfigError: no such lock, cost key or setting.

    """
    room, _, rest = key.partition(".")
    if room in ("locks", "costs") and not rest:
        _each(table, key, value, where)
    elif room == "locks":
        lock, _, field = rest.partition(".")
        if lock not in LOCKS:
            raise ConfigError(where, key, f"unknown lock; {meant(lock, LOCKS)}")
        entry = {field: value} if field else value
        if not isinstance(entry, Mapping):
            raise ConfigError(where, key, f"must be a table such as {{scope = ...}}, not {value!r}")
        table["locks"][lock] = {**table["locks"].get(lock, {}), **entry}
    elif room == "costs":
        _override_price(table, key, rest, value, where)
    else:
        table[key] = value


def _override_price(table: Table, key: str, rest: str, value: object, where: str) -> None:
    known = [name for name in COST_KEYS if rest == name or rest.startswith(f"{name}.")]
    if not known:
        if isinstance(value, Mapping) and any(name.startswith(f"{rest}.") for name in COST_KEYS):
            _each(table, key, value, where)
            return
        raise ConfigError(where, key, f"unknown cost key; {meant(rest, COST_KEYS)}")
    name = max(known, key=len)
    field = rest[len(name) + 1 :]
    if field:
        entry = {field: value}
    elif isinstance(value, Mapping) and "kind" not in value:
        entry = dict(value)
    else:
        entry = {"cost": value}
    mark = {"source": "set by the study", "priced_by": "override"}
    table["costs"][name] = _laid_over(table["costs"].get(name, {}), mark | entry)


def _each(table: Table, key: str, value: object, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(where, key, f"must be a table, not {value!r}")
    for name, inner in value.items():
        override(table, f"{key}.{name}", inner, where)


def _laid_over(below: object, entry: object) -> object:
    """The entry with what it does not mention taken from the one below."""
    if not isinstance(below, Mapping) or not isinstance(entry, Mapping):
        return entry
    stems = [_stem(name) for name in entry]
    gone = {stem for name in stems for stem in _REPLACES.get(name, (name,))}
    return {name: value for name, value in below.items() if _stem(name) not in gone} | dict(entry)


def _stem(name: str) -> str:
    """A key without its unit."""
    stem, _, unit = name.rpartition("_")
    return stem if stem and unit in UNITS_NS else name


def _inner(table: Table, name: str, where: str) -> Table:
    """A table inside, made where it is absent."""
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict):
        raise ConfigError(where, name, f"must be a table, not {inner!r}")
    return inner


def _read(name_or_path: str) -> tuple[str, Table]:
    if name_or_path in PACKAGED:
        packaged = resources.files("simsched") / "models" / "costs" / f"{name_or_path}.toml"
        where, text = f"costs/{name_or_path}.toml", packaged.read_text(encoding="utf-8")
    elif not name_or_path.endswith(".toml"):
        known = meant(name_or_path, PACKAGED)
        raise ConfigError("cost model", name_or_path, f"unknown; {known}, or the path of a .toml")
    else:
        where = name_or_path
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cost model", name_or_path, f"cannot be read: {error}") from None
    try:
        return where, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(where, "", f"is not TOML: {error}") from None
