"""
A distribution as a table of whole numbers: what one draw of a step's cost has to be, fast.

The body has 1,024 equal shares of probability; the last of them is divided again into 64, the last
of those again, and once more, so that the tail is followed up to 1 - 2^-28 with the same relative
care. Between two points the value is interpolated in integer arithmetic: a draw is the same whole
number on every machine. Draws never fall as the bits grow.

A law with a flat left end is drawn linearly below its 1/1024 quantile, and nothing is ever drawn
beyond the top of the table; both move the mean by less than a thousandth (tested).
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Final

from simsched.models.distributions import Constant, Distribution, Uniform, in_ms

_BODY_BITS: Final = 10
_TAIL_BITS: Final = 6
_TAILS: Final = 3
_BODY: Final = 1 << _BODY_BITS
_TAIL: Final = 1 << _TAIL_BITS
_LAST: Final = _BODY - 1
_TAIL_LAST: Final = _TAIL - 1
_BODY_SHIFT: Final = 64 - _BODY_BITS
_FRACTION_SHIFT: Final = _BODY_SHIFT - 32
_FRACTION: Final = (1 << 32) - 1


class QuantileTable(Distribution):
    """The compiled form of `law`."""

    __slots__ = ("_body", "_law", "_mean_ns", "_rise", "_scv", "_tails")

    def __init__(self, law: Distribution) -> None:
        self._law = law
        edges = [law.quantile(i / _BODY) for i in range(_BODY)]
        self._body = tuple(round(x) for x in edges)
        self._rise = tuple(b - a for a, b in pairwise(self._body))
        self._tails = tuple(self._tail(level) for level in range(_TAILS))
        self._mean_ns, self._scv = self._moments()

    @property
    def mean_ns(self) -> float:
        """Mean of what the table draws, not of the law that it stands for."""
        return self._mean_ns

    @property
    def scv(self) -> float:
        return self._scv

    def ns(self, bits: int) -> int:
        i = bits >> _BODY_SHIFT
        if i < _LAST:
            fraction = (bits >> _FRACTION_SHIFT) & _FRACTION
            return self._body[i] + ((fraction * self._rise[i]) >> 32)
        level, shift = 0, _BODY_SHIFT - _TAIL_BITS
        i = (bits >> shift) & _TAIL_LAST
        while i == _TAIL_LAST and level < _TAILS - 1:
            level, shift = level + 1, shift - _TAIL_BITS
            i = (bits >> shift) & _TAIL_LAST
        points = self._tails[level]
        fraction = (bits >> (shift - 32)) & _FRACTION
        return points[i] + ((fraction * (points[i + 1] - points[i])) >> 32)

    def quantile(self, p: float) -> float:
        return float(self.ns(min(int(p * 2.0**64), (1 << 64) - 1)))

    def describe(self) -> str:
        return f"{self._law.describe()} (table of {in_ms(self._mean_ns)} mean)"

    def _tail(self, level: int) -> tuple[int, ...]:
        """The 65 edges of tail `level`, which covers the last 2^-(10 + 6 level) of probability."""
        share = 2.0 ** -(_BODY_BITS + _TAIL_BITS * level)
        inner = [round(self._law.quantile(1 - share * (1 - i / _TAIL))) for i in range(_TAIL)]
        beyond = round(self._law.quantile(1 - share / _TAIL / 2))
        return (*inner, beyond)

    def _moments(self) -> tuple[float, float]:
        pieces = [(1 / _BODY, a, b) for a, b in pairwise(self._body)]
        for level, points in enumerate(self._tails):
            share = 2.0 ** -(_BODY_BITS + _TAIL_BITS * (level + 1))
            cells = list(pairwise(points))
            kept = cells if level == _TAILS - 1 else cells[:-1]
            pieces.extend((share, a, b) for a, b in kept)
        mean = math.fsum(w * (a + b) / 2 for w, a, b in pieces)
        second = math.fsum(w * (a * a + a * b + b * b) / 3 for w, a, b in pieces)
        return mean, (second - mean * mean) / (mean * mean) if mean else 0.0


@functools.lru_cache(maxsize=256)
def compiled(law: Distribution) -> Distribution:
    """
    The fastest form of a law: itself where it is whole-number arithmetic already, else its table.

    Laws are values, so equal ones share one table (about 100 kB).
    """
    return law if isinstance(law, Constant | Uniform | QuantileTable) else QuantileTable(law)
