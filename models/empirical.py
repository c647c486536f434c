"""
Laws made of data or of another law: measured quantiles, recorded sequences, clipped ones.

As in `models.distributions`, a value is a pure function of its 64 bits. Means and squared
coefficients of variation are exact, except for a law that is really clipped, where they are
integrated over 4,096 equal shares of probability.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from simsched.chance import below
from simsched.models.distributions import Distribution, in_ms, scv_of, unit

_SHARES: Final = 4096


@dataclass(frozen=True, slots=True)
class Quantiles(Distribution):
    """Measured quantiles, joined by straight lines: from p = 0 up to p = 1, none falling."""

    probabilities: tuple[float, ...]
    values: tuple[int, ...]

    @property
    def mean_ns(self) -> float:
        return math.fsum(width * (a + b) / 2 for width, a, b in self._pieces())

    @property
    def scv(self) -> float:
        second = math.fsum(width * (a * a + a * b + b * b) / 3 for width, a, b in self._pieces())
        return scv_of(self.mean_ns, second - self.mean_ns**2)

    def ns(self, bits: int) -> int:
        return round(self.quantile(unit(bits)))

    def quantile(self, p: float) -> float:
        i = min(bisect_right(self.probabilities, p), len(self.values) - 1)
        low, high = self.probabilities[i - 1], self.probabilities[i]
        a, b = self.values[i - 1], self.values[i]
        return a + (b - a) * ((p - low) / (high - low))

    def describe(self) -> str:
        return f"{len(self.values)} quantiles, median {in_ms(self.quantile(0.5))}"

    def _pieces(self) -> list[tuple[float, int, int]]:
        ends = list(zip(self.probabilities, self.values, strict=True))
        return [(q - p, a, b) for (p, a), (q, b) in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Recorded(Distribution):
    """
    A recorded sequence: value k is the k-th, from the start again after the last.

    Asked without a place (`ns`), it gives any of them alike.
    """

    values: tuple[int, ...]

    @property
    def mean_ns(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def scv(self) -> float:
        mean = self.mean_ns
        return scv_of(mean, math.fsum((v - mean) ** 2 for v in self.values) / len(self.values))

    def ns(self, bits: int) -> int:
        return self.values[below(bits, len(self.values))]

    def at(self, k: int, bits: int) -> int:
        return self.values[k % len(self.values)]

    def quantile(self, p: float) -> float:
        return float(sorted(self.values)[min(int(p * len(self.values)), len(self.values) - 1)])

    def describe(self) -> str:
        return f"{len(self.values)} recorded values, mean {in_ms(self.mean_ns)}"


@dataclass(frozen=True, slots=True)
class Bounded(Distribution):
    """Another distribution, first moved by an offset and then clipped at both ends."""

    inner: Distribution
    offset_ns: int = 0
    least_ns: int = 0
    most_ns: int | None = None

    @property
    def mean_ns(self) -> float:
        return self._moments()[0]

    @property
    def scv(self) -> float:
        return self._moments()[1]

    def ns(self, bits: int) -> int:
        return self._clip(self.inner.ns(bits))

    def at(self, k: int, bits: int) -> int:
        return self._clip(self.inner.at(k, bits))

    def quantile(self, p: float) -> float:
        value = max(self.inner.quantile(p) + self.offset_ns, float(self.least_ns))
        return value if self.most_ns is None else min(value, float(self.most_ns))

    def describe(self) -> str:
        most = "" if self.most_ns is None else f", at most {in_ms(self.most_ns)}"
        least = f", at least {in_ms(self.least_ns)}" if self.least_ns else ""
        offset = f" plus {in_ms(self.offset_ns)}" if self.offset_ns else ""
        return f"{self.inner.describe()}{offset}{least}{most}"

    def _clip(self, value: int) -> int:
        value += self.offset_ns
        if value < self.least_ns:
            return self.least_ns
        return value if self.most_ns is None or value < self.most_ns else self.most_ns

    def _moments(self) -> tuple[float, float]:
        """Mean and scv: exact while nothing is clipped, else over 4,096 equal shares."""
        if self.most_ns is None and self.least_ns <= self.offset_ns:
            mean = self.inner.mean_ns + self.offset_ns
            return mean, scv_of(mean, self.inner.scv * self.inner.mean_ns**2)
        points = [self.quantile((i + 0.5) / _SHARES) for i in range(_SHARES)]
        mean = math.fsum(points) / _SHARES
        return mean, scv_of(mean, math.fsum((x - mean) ** 2 for x in points) / _SHARES)
