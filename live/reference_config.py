"""
Takes over a configuration file of the reference system.

Every setting of that file ends in a value of ours or in a line that says why it has no meaning
here; nothing is dropped without a word (`reference_table` holds the rules). The result is checked
as any other configuration is, and reads back as written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from simsched.errors import ConfigError
from simsched.live.reference_table import RENAMED, RULES, Rule
from simsched.live.settings_catalogue import CATALOGUE, meant
from simsched.live.settings_files import parsed, settings_of
from simsched.live.settings_rules import is_loopback
from simsched.live.settings_text import as_toml
from simsched.policy import Policy, check_value

POOL_KEYS: Final = ("pool_id", "required_services", "name", "language_requirements")
OVERRIDE_KEYS: Final = ("tenant_id", "pool_id")
_ALIKE: Final = 0.8
"""How alike two of the reference's long names must be to take one for the other misspelt."""

AUTOMATIC_ID: Final = "auto"
"""The instance id that asks the reference to make one up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """
    A file of the reference, taken over.

    Attributes:
        values: our settings that it sets, by dotted name.
        text: the configuration file that holds them.
        notes: one line for each setting of the reference, and what else there is to know.

    """

    values: Mapping[str, Any]
    text: str
    notes: tuple[str, ...]


def import_reference(path: str | Path) -> Imported:
    """
    Read the reference's config.toml as settings of ours.

    Raises:
        ConfigError: not TOML, a value of another type than the reference takes, or one that ours
            does not.

    """
    place = Path(path)
    taken = _Taken(str(path))
    for key, value in _flat(parsed(place), ""):
        taken.take(key, value)
    taken.settle()
    _check_together(taken)
    head = (
        f"# Taken over from {place.name}: `simsched config import` says what became of the rest.\n"
    )
    text = head + as_toml(taken.values, {key: f"was {name}" for key, name in taken.names.items()})
    return Imported(values=taken.values, text=text, notes=tuple(taken.notes))


def _check_together(taken: _Taken) -> None:
    """The values have to get along; a contradiction is laid at the reference's key."""
    try:
        settings_of(taken.values)
    except ConfigError as error:
        key = taken.names.get(error.key, error.key)
        want = error.want if key == error.key else f"{error.want} (as {error.key})"
        raise ConfigError(taken.where, key, want) from None


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value that is not a table, by dotted name, in the order of the file."""
    for name, value in table.items():
        if isinstance(value, Mapping) and prefix + name not in RULES:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


class _Taken:
    """What has been taken over so far."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.notes: list[str] = []
        self._policy: dict[str, int] = {}
        self._shared = True

    def take(self, key: str, value: Any) -> None:
        """One setting of the reference."""
        name = _canonical(key)
        rule = RULES.get(name)
        if rule is None:
            near = get_close_matches(name, RULES, 1, _ALIKE)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.notes.append(f"{key}: not a setting of the reference, so not taken over{hint}")
            return
        _check_kind(rule, value, self.where, key)
        if name == "scheduler.phase2.enabled":
            self._shared = value
        special = _SPECIAL.get(name)
        if special is not None:
            special(self, key, value)
        elif not rule.to:
            self.notes.append(f"{key} = {_shown(value)}: no meaning here, because {rule.because}")
        elif rule.to.startswith("policy:"):
            self._take_policy(rule, key, value)
        else:
            self._set(rule.to, key, value * rule.factor if rule.factor != 1 else value)
            if rule.because:
                self.notes.append(f"{key}: {rule.because}")

    def settle(self) -> None:
        """What depends on several settings of the reference at once."""
        url = self.values.get("store.redis_url")
        if url and not self._shared:
            self._forget(
                "store.redis_url", "phase 2 is off there: the server starts a store of its own"
            )
        self._settle_host()
        changes = [
            f"{name}={value}"
            for name, value in self._policy.items()
            if value != getattr(Policy(), name)
        ]
        if changes:
            self.values["policy"] = ",".join(["safe", *changes])
        self.notes.append(
            "policy: 'safe' decides without the reference's known faults; 'shipped' decides as "
            "its code does, faults included (simsched policy compare safe shipped)"
        )

    def _settle_host(self) -> None:
        host = self.values.get("server.host")
        if host is None:
            self.notes.append(
                "server.host: not given; the reference listened on all addresses, this server "
                "listens on 127.0.0.1 unless told otherwise"
            )
        elif not is_loopback(host):
            self.values["auth.allow_anonymous"] = True
            self.notes.append(
                "auth.allow_anonymous = true: the reference asks for no tokens; name token files "
                "under [auth] and take this away"
            )

    def _take_policy(self, rule: Rule, key: str, value: float) -> None:
        field = rule.to.removeprefix("policy:")
        number = round(value * rule.factor)
        try:
            check_value(field, number, self.where)
        except ConfigError as error:
            raise ConfigError(self.where, key, error.want) from None
        self._policy[field] = number
        self.notes.append(f"{key} = {_shown(value)} -> policy field {field} = {number}")

    def _set(self, ours: str, key: str, value: Any) -> None:
        """Give our setting the value; what it does not take is laid at the reference's key."""
        try:
            self.values[ours] = CATALOGUE[ours].read(value, self.where)
        except ConfigError as error:
            raise ConfigError(self.where, key, f"{error.want} (as {error.key})") from None
        self.names[ours] = key
        shown = "..." if CATALOGUE[ours].secret else _shown(value)
        self.notes.append(f"{key} = {shown} -> {ours}")

    def _forget(self, ours: str, because: str) -> None:
        del self.values[ours]
        key = self.names.pop(ours)
        self.notes = [line for line in self.notes if not line.endswith(f"-> {ours}")]
        self.notes.append(f"{key}: no meaning here, because {because}")

    def take_instance_id(self, key: str, value: str) -> None:
        if value == AUTOMATIC_ID:
            self.notes.append(f"{key} = 'auto': as it is here without the setting")
        else:
            self._set("server.instance_id", key, value)

    def take_prefix(self, key: str, value: str) -> None:
        """A cell's name is part of every key, so its characters are limited."""
        pattern = CATALOGUE["store.cell"].pattern
        if re.search(pattern, value):
            self._set("store.cell", key, value)
        else:
            self.notes.append(
                f"{key} = {_shown(value)}: not taken over, as store.cell is a text of the form "
                f"{pattern.strip('^$')}; keys begin with '{CATALOGUE['store.cell'].default}'"
            )

    def take_pools(self, key: str, value: list[Any]) -> None:
        pools = []
        for position, table in enumerate(value):
            place = f"{key}[{position}]"
            self._check_table(place, table, POOL_KEYS)
            if "pool_id" not in table:
                raise ConfigError(self.where, f"{place}.pool_id", "is missing")
            pools.append(
                {
                    "pool_id": str(table["pool_id"]),
                    "required_services": table.get("required_services", []),
                }
            )
            for name, because in (
                ("name", "a pool is known by its id"),
                ("language_requirements", "nodes are found by the language pairs they offer"),
            ):
                if name in table:
                    self.notes.append(f"{place}.{name}: no meaning here, because {because}")
        self._set("pools.pools", key, pools)

    def take_overrides(self, key: str, value: list[Any]) -> None:
        found: dict[str, str] = {}
        for position, table in enumerate(value):
            place = f"{key}[{position}]"
            self._check_table(place, table, OVERRIDE_KEYS)
            for name in OVERRIDE_KEYS:
                if name not in table:
                    raise ConfigError(self.where, f"{place}.{name}", "is missing")
            if table["tenant_id"] in found:
                raise ConfigError(self.where, f"{place}.tenant_id", "is given twice")
            found[str(table["tenant_id"])] = str(table["pool_id"])
        self._set("pools.tenant_overrides", key, found)

    def _check_table(self, place: str, table: Any, known: tuple[str, ...]) -> None:
        if not isinstance(table, Mapping):
            raise ConfigError(self.where, place, f"a table, not {table!r}")
        for name in table:
            if name not in known:
                self.notes.append(
                    f"{place}.{name}: not a setting of the reference; {meant(name, known)}"
                )


_SPECIAL: Final[Mapping[str, Callable[[_Taken, str, Any], None]]] = {
    "scheduler.phase2.instance_id": _Taken.take_instance_id,
    "scheduler.phase2.redis.key_prefix": _Taken.take_prefix,
    "scheduler.phase3.pools": _Taken.take_pools,
    "scheduler.phase3.tenant_overrides": _Taken.take_overrides,
}
"""Settings that are more than one value for another."""


def _canonical(key: str) -> str:
    for theirs, ours in RENAMED.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


_TYPES: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "count": (int, "a whole number"),
    "seconds": ((int, float), "a number of seconds"),
    "number": ((int, float), "a number"),
    "switch": (bool, "true or false"),
    "text": (str, "a text"),
    "texts": (list, "a list of texts"),
    "tables": (list, "a list of tables"),
}


def _check_kind(rule: Rule, value: Any, where: str, key: str) -> None:
    """The reference is as strict about types as this."""
    kind, noun = _TYPES[rule.kind]
    right = isinstance(value, kind) and (rule.kind == "switch" or not isinstance(value, bool))
    if right and rule.kind == "texts":
        right = all(isinstance(item, str) for item in value)
    if right and isinstance(value, float):
        right = math.isfinite(value)
    if not right:
        raise ConfigError(where, key, f"{noun}, not {value!r}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if not isinstance(value, list | dict) else f"({len(value)} entries)"
