"""
Reading one table of a study or a cost model, key by key, with errors that a person can mend.

A `Fields` hands out typed values and remembers which keys were asked for; `close` then complains
about every key that nobody asked for and names the key that was probably meant. A quantity says
its unit either in the key (`mean_ms = 5`) or in the text (`mean = "5 ms"`); a bare number has no
unit and is refused. Nothing here knows what the values mean.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from simsched.errors import ConfigError

UNITS_NS: Final[Mapping[str, int]] = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""Nanoseconds per unit of time."""

DURATION_NS_MAX: Final = 10**18
"""About 32 years. A longer time in a study is a slip of the unit, and sums of two stay exact."""

_QUANTITY: Final = re.compile(r"\s*([-+]?[0-9][0-9_]*\.?[0-9]*(?:[eE][-+]?[0-9]+)?)\s*(\S*)\s*")

T = TypeVar("T")


def meant(word: str, known: Iterable[str]) -> str:
    """The known words, and first of all the one that `word` was probably meant to be."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    listed = ", ".join(names) if names else "none"
    return f"did you mean {close[0]!r}? (known: {listed})" if close else f"known are: {listed}"


def duration_from(value: object, where: str, key: str) -> int:
    """
    A text such as '250 ms' as whole nanoseconds.

    Raises:
        ConfigError: not a number with a unit of time, negative, or beyond `DURATION_NS_MAX`.

    """
    if isinstance(value, bool) or not isinstance(value, str):
        raise ConfigError(
            where, key, f"{value!r} has no unit: write {key}_ms = {value} or {key} = '{value} ms'"
        )
    number, unit = _split(value, where, key, example="'250 ms'")
    if unit not in UNITS_NS:
        raise ConfigError(where, key, f"unknown unit in {value!r}: {meant(unit, UNITS_NS)}")
    return _in_ns(number, unit, where, key)


def _split(text: str, where: str, key: str, *, example: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ConfigError(where, key, f"{text!r} is no number with a unit, such as {example}")
    return float(match[1]), match[2]


def _in_ns(number: float, unit: str, where: str, key: str) -> int:
    if not math.isfinite(number) or number < 0:
        raise ConfigError(where, key, f"must be a finite time of at least 0, not {number} {unit}")
    ns = number * UNITS_NS[unit]
    if ns > DURATION_NS_MAX:
        raise ConfigError(where, key, f"{number} {unit} is longer than 30 years: check the unit")
    return round(ns)


class Fields:
    """One table being read. Every reader takes the key's name without its unit."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(where, "", f"must be a table of keys, not {value!r}")
        self.where = where
        self._values: Mapping[str, object] = value
        self._known: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the key is there, under its own name or with a unit of time."""
        return name in self._values or bool(self._suffixed(name))

    def fail(self, key: str, want: str) -> ConfigError:
        """The error that says so about this table's `key`."""
        return ConfigError(self.where, key, want)

    def close(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                raise self.fail(key, f"unknown key; {meant(key, dict.fromkeys(self._known))}")

    def names(self) -> tuple[str, ...]:
        """The table's keys in the order of the file, for a table whose keys are names."""
        return tuple(self._values)

    def raw(self, name: str, default: object = None) -> object:
        """Whatever stands there."""
        self._known.append(name)
        return self._values.get(name, default)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._required(name, default)
        if not isinstance(value, str):
            raise self.fail(name, f"must be a text, not {value!r}")
        return value

    def choice(self, name: str, known: Iterable[str], default: str | None = None) -> str:
        value = self.text(name, default)
        names = list(known)
        if value not in names:
            raise self.fail(name, f"unknown {name} {value!r}; {meant(value, names)}")
        return value

    def number(self, name: str, default: float | None = None, *, least: float = 0.0) -> float:
        value = self._required(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(name, f"must be a number, not {value!r}")
        if not math.isfinite(value) or value < least:
            raise self.fail(name, f"must be a number of at least {least:g}, not {value}")
        return float(value)

    def share(self, name: str, default: float | None = None) -> float:
        """A share of a whole, from 0 to 1."""
        value = self.number(name, default)
        if value > 1:
            raise self.fail(name, f"must be a share from 0 to 1, not {value:g}")
        return value

    def integer(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        value = self._required(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(name, f"must be a whole number, not {value!r}")
        if value < least:
            raise self.fail(name, f"must be at least {least}, not {value}")
        return value

    def numbers(self, name: str, *, least: float = 0.0) -> tuple[float, ...]:
        """A list of at least one number."""
        result = []
        for value in self._list(self._required(name, None), name):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self.fail(name, f"must be a list of numbers, not with {value!r}")
            if not math.isfinite(value) or value < least:
                raise self.fail(name, f"must be numbers of at least {least:g}, not {value}")
            result.append(float(value))
        return tuple(result)

    def duration(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A time in whole nanoseconds, from `NAME_ms = 5` or `NAME = '5 ms'`."""
        key, unit, value = self._quantity(name, default)
        if key == "":
            assert default is not None
            return default
        ns = self._duration(key, unit, value)
        if ns < least:
            raise self.fail(key, f"must be at least {least} ns, not {value}")
        return ns

    def durations(self, name: str) -> tuple[int, ...]:
        """A list of at least one time, from `NAME_ms = [1, 2]` or `NAME = ['1 ms', '2 ms']`."""
        key, unit, value = self._quantity(name, None)
        return tuple(self._duration(key, unit, item) for item in self._list(value, key))

    def rate(self, name: str) -> float:
        """Happenings per second, from `NAME_per_s = 2`, `NAME_per_min = 120` or `NAME = '2/s'`."""
        per = [f"{name}_per_{unit}" for unit in UNITS_NS]
        self._known.extend([name, *per])
        found = [key for key in (name, *per) if key in self._values]
        if len(found) != 1:
            want = "is missing" if not found else f"is given twice ({', '.join(found)})"
            raise self.fail(name, f"{want}: write {name}_per_s = 2 or {name} = '2/s'")
        key, value = found[0], self._values[found[0]]
        if key == name:
            if not isinstance(value, str):
                raise self.fail(name, f"{value!r} has no unit: write {name}_per_s = {value}")
            number, unit = _split(value, self.where, name, example="'2/s'")
            unit = unit.removeprefix("/").strip()
            if unit not in UNITS_NS:
                raise self.fail(name, f"unknown unit in {value!r}: {meant(unit, UNITS_NS)}")
        else:
            number, unit = self._plain_number(key, value), key.rsplit("_", 1)[1]
        if not math.isfinite(number) or number < 0:
            raise self.fail(key, f"must be a finite rate of at least 0, not {value}")
        return number * UNITS_NS["s"] / UNITS_NS[unit]

    def table(self, name: str) -> Fields:
        """A table inside this one; an absent one reads as empty."""
        return Fields(self.raw(name, {}), f"{self.where}.{name}")

    def take_quantity(self, name: str) -> tuple[str, int | None]:
        """The key that holds `name` and, where the key itself names a unit, its nanoseconds."""
        key, unit, value = self._quantity(name, None)
        return key, None if unit == "" else self._duration(key, unit, value)

    def _suffixed(self, name: str) -> list[str]:
        return [f"{name}_{unit}" for unit in UNITS_NS if f"{name}_{unit}" in self._values]

    def _quantity(self, name: str, default: object) -> tuple[str, str, object]:
        self._known.extend([name, *(f"{name}_{unit}" for unit in UNITS_NS)])
        found = [*([name] if name in self._values else []), *self._suffixed(name)]
        if len(found) > 1:
            raise self.fail(name, f"is given twice ({', '.join(found)}): keep one")
        if not found:
            if default is None:
                raise self.fail(name, f"is missing: write {name}_ms = 5 or {name} = '5 ms'")
            return "", "", default
        key = found[0]
        return key, "" if key == name else key.rsplit("_", 1)[1], self._values[key]

    def _duration(self, key: str, unit: str, value: object) -> int:
        if unit == "":
            return duration_from(value, self.where, key)
        return _in_ns(self._plain_number(key, value), unit, self.where, key)

    def _plain_number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"must be a number, as the key names the unit, not {value!r}")
        return float(value)

    def _required(self, name: str, default: object) -> object:
        value = self.raw(name, default)
        if value is None:
            raise self.fail(name, "is missing")
        return value

    def _list(self, value: object, key: str) -> Sequence[object]:
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise self.fail(key, f"must be a list of at least one value, not {value!r}")
        return value
