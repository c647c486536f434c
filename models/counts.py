"""
Distributions of whole numbers: utterances of a session, sessions of a batch, people in a room.

Like times, a count is a pure function of 64 bits. Written as a number (`5`), a list of equally
likely numbers (`[1, 1, 4]`), or a table: `{ kind = "geometric", mean = 5 }`,
`{ kind = "weighted", values = [1, 2], weights = [9, 1] }`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from simsched.errors import ConfigError
from simsched.models.distributions import survival, unit
from simsched.models.fields import Fields

KINDS: Final = ("constant", "geometric", "weighted")


class Count:
    """A law of a whole number of at least 1."""

    __slots__ = ()

    @property
    def mean(self) -> float:
        raise NotImplementedError

    def value(self, bits: int) -> int:
        """The number that 64 random bits stand for."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ConstantCount(Count):
    """Always the same."""

    count: int

    @property
    def mean(self) -> float:
        return float(self.count)

    def value(self, bits: int) -> int:
        return self.count


@dataclass(frozen=True, slots=True)
class GeometricCount(Count):
    """One, and one more as long as a coin says so: memoryless, from 1 up."""

    average: float

    @property
    def mean(self) -> float:
        return self.average

    def value(self, bits: int) -> int:
        if self.average == 1:
            return 1
        return 1 + int(math.log(survival(bits)) / math.log1p(-1 / self.average))


@dataclass(frozen=True, slots=True)
class WeightedCount(Count):
    """One of several numbers; the weights add up to 1."""

    values: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(v * w for v, w in zip(self.values, self.weights, strict=True))

    def value(self, bits: int) -> int:
        return self.values[chosen(self.weights, bits)]


def chosen(weights: Sequence[float], bits: int) -> int:
    """Index into weights that add up to 1, by 64 random bits."""
    level, last = unit(bits), len(weights) - 1
    for index in range(last):
        level -= weights[index]
        if level < 0:
            return index
    return last


def normalised(weights: Sequence[float], where: str, key: str) -> tuple[float, ...]:
    """Weights scaled to add up to 1."""
    total = math.fsum(weights)
    if total <= 0:
        raise ConfigError(where, key, "must not all be 0")
    return tuple(weight / total for weight in weights)


def count(fields: Fields, name: str, default: Count | None = None) -> Count:
    """
    The count under a key of a table.

    Raises:
        ConfigError: not a whole number of at least 1, unknown kind or key.

    """
    value = fields.raw(name)
    if value is None and default is not None:
        return default
    if isinstance(value, Mapping):
        return _parse(Fields(value, f"{fields.where}.{name}"))
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        numbers = tuple(_whole(item, fields.where, name) for item in value)
        return WeightedCount(numbers, (1 / len(numbers),) * len(numbers))
    return ConstantCount(_whole(value, fields.where, name))


def _parse(fields: Fields) -> Count:
    kind = fields.choice("kind", KINDS)
    law: Count
    if kind == "constant":
        law = ConstantCount(fields.integer("value", least=1))
    elif kind == "geometric":
        law = GeometricCount(fields.number("mean", least=1))
    else:
        values = tuple(int(value) for value in fields.numbers("values", least=1))
        weights = normalised(fields.numbers("weights"), fields.where, "weights")
        if len(values) != len(weights):
            raise fields.fail("weights", f"needs one for each of the {len(values)} values")
        law = WeightedCount(values, weights)
    fields.close()
    return law


def _whole(value: object, where: str, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(where, key, f"must be a whole number of at least 1, not {value!r}")
    return value
