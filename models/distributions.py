"""
Distributions of time: a whole number of nanoseconds from 64 random bits.

One draw takes one key: `ns(bits)` is a pure function of the bits, and a kind that needs more
randomness (Erlang, hyperexponential) derives it from them with `simsched.chance.mix`. All other
kinds are the inverse transform of their bits and so never fall as the bits grow: common random
numbers then move every variant the same way. `compiled` turns any kind into a table of whole
numbers whose draws are integer arithmetic only (`models.quantiles`).

Means and squared coefficients of variation (scv, variance / mean squared) are exact. Laws made of
data or of another law are in `models.empirical`.

This module knows no simulator and no workload; `models.distribution_fields` reads one from a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from simsched.chance import below, mix
from simsched.units import ms_from_ns

TWO64: Final = 1 << 64
_MASK52: Final = (1 << 52) - 1
_UNIT52: Final = 2.0**-52
_inverse_normal: Final = NormalDist().inv_cdf
_normal: Final = NormalDist().cdf


def unit(bits: int) -> float:
    """A number in (0, 1), never 0 or 1: exact, in steps of 2^-52 offset by half a step."""
    return ((bits >> 12) + 0.5) * _UNIT52


def survival(bits: int) -> float:
    """1 - `unit(bits)`, exact: falls as the bits grow, so that -log of it rises."""
    return (((bits >> 12) ^ _MASK52) + 0.5) * _UNIT52


class Distribution:
    """
    A law of a time.

    `mean_ns` and `scv` are of the law itself, before rounding to whole nanoseconds.
    """

    __slots__ = ()

    @property
    def mean_ns(self) -> float:
        """Expected value in nanoseconds."""
        raise NotImplementedError

    @property
    def scv(self) -> float:
        """Variance over squared mean; infinite where the variance is, 0 where the mean is 0."""
        raise NotImplementedError

    def ns(self, bits: int) -> int:
        """The value that 64 random bits stand for."""
        raise NotImplementedError

    def at(self, k: int, bits: int) -> int:
        """Value number `k` of a sequence: only a recorded list looks at `k`."""
        return self.ns(bits)

    def quantile(self, p: float) -> float:
        """The time that a share `p` (0 <= p < 1) of the values stays below, in nanoseconds."""
        raise NotImplementedError

    def describe(self) -> str:
        """A few words for a table, in milliseconds."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Constant(Distribution):
    """Always the same."""

    value_ns: int

    @property
    def mean_ns(self) -> float:
        return float(self.value_ns)

    @property
    def scv(self) -> float:
        return 0.0

    def ns(self, bits: int) -> int:
        return self.value_ns

    def quantile(self, p: float) -> float:
        return float(self.value_ns)

    def describe(self) -> str:
        return f"{in_ms(self.value_ns)} constant"


@dataclass(frozen=True, slots=True)
class Uniform(Distribution):
    """Every whole nanosecond from `low_ns` to `high_ns`, both included, alike."""

    low_ns: int
    high_ns: int

    @property
    def mean_ns(self) -> float:
        return (self.low_ns + self.high_ns) / 2

    @property
    def scv(self) -> float:
        width = self.high_ns - self.low_ns
        return scv_of(self.mean_ns, width * width / 12)

    def ns(self, bits: int) -> int:
        return self.low_ns + below(bits, self.high_ns - self.low_ns + 1)

    def quantile(self, p: float) -> float:
        return self.low_ns + p * (self.high_ns - self.low_ns)

    def describe(self) -> str:
        return f"uniform {in_ms(self.low_ns)} to {in_ms(self.high_ns)}"


@dataclass(frozen=True, slots=True)
class Exponential(Distribution):
    """Memoryless with a mean."""

    mean: int

    @property
    def mean_ns(self) -> float:
        return float(self.mean)

    @property
    def scv(self) -> float:
        return 1.0 if self.mean else 0.0

    def ns(self, bits: int) -> int:
        return round(-self.mean * math.log((((bits >> 12) ^ _MASK52) + 0.5) * _UNIT52))

    def quantile(self, p: float) -> float:
        return -self.mean * math.log1p(-p)

    def describe(self) -> str:
        return f"exponential, mean {in_ms(self.mean)}"


@dataclass(frozen=True, slots=True)
class Erlang(Distribution):
    """The sum of `k` exponentials; `mean` is that of the sum."""

    k: int
    mean: int

    @property
    def mean_ns(self) -> float:
        return float(self.mean)

    @property
    def scv(self) -> float:
        return 1 / self.k if self.mean else 0.0

    def ns(self, bits: int) -> int:
        log, product = 0.0, 1.0
        for i in range(self.k):
            product *= survival(mix(bits, i))
            # 16 uniforms of at least 2^-53 stay above the least positive float (2^-1022).
            if i & 15 == 15:
                log += math.log(product)
                product = 1.0
        return round(-self.mean / self.k * (log + math.log(product)))

    def quantile(self, p: float) -> float:
        return invert(self._above, p, self.mean_ns)

    def _above(self, x_ns: float) -> float:
        """P(more than x): fewer than k events of a Poisson process; log form for a large k."""
        if x_ns <= 0:
            return 1.0
        rate = x_ns * self.k / self.mean
        log_rate = math.log(rate)
        return math.fsum(math.exp(i * log_rate - rate - math.lgamma(i + 1)) for i in range(self.k))

    def describe(self) -> str:
        return f"Erlang-{self.k}, mean {in_ms(self.mean)}"


@dataclass(frozen=True, slots=True)
class Hyperexponential(Distribution):
    """One of several exponentials, chosen by weight; the weights add up to 1."""

    means: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def mean_ns(self) -> float:
        return math.fsum(w * m for w, m in zip(self.weights, self.means, strict=True))

    @property
    def scv(self) -> float:
        second = math.fsum(2 * w * m * m for w, m in zip(self.weights, self.means, strict=True))
        return scv_of(self.mean_ns, second - self.mean_ns**2)

    def ns(self, bits: int) -> int:
        level = unit(mix(bits, 0))
        phase = 0
        # Rounding may leave a level of 1e-16 beyond the last weight: it belongs to the last phase.
        while phase < len(self.weights) - 1 and level >= self.weights[phase]:
            level -= self.weights[phase]
            phase += 1
        return round(-self.means[phase] * math.log(survival(mix(bits, 1))))

    def quantile(self, p: float) -> float:
        return invert(self._above, p, self.mean_ns)

    def _above(self, x_ns: float) -> float:
        return math.fsum(
            w * (math.exp(-x_ns / m) if m else float(x_ns <= 0))
            for w, m in zip(self.weights, self.means, strict=True)
        )

    def describe(self) -> str:
        parts = ", ".join(
            f"{w:.3g} x {in_ms(m)}" for w, m in zip(self.weights, self.means, strict=True)
        )
        return f"hyperexponential of {parts}"


def balanced_hyperexponential(mean: int, scv: float) -> Hyperexponential:
    """Two phases that carry half of the mean each: the usual fit of a mean and an scv above 1."""
    assert scv >= 1
    p = (1 + math.sqrt((scv - 1) / (scv + 1))) / 2
    return Hyperexponential(
        (round(mean / (2 * p)), round(mean / (2 * (1 - p)))),
        (p, 1 - p),
    )


@dataclass(frozen=True, slots=True)
class Lognormal(Distribution):
    """The exponential of a normal with this median and this sigma (of the logarithm)."""

    median_ns: float
    sigma: float

    @property
    def mean_ns(self) -> float:
        return self.median_ns * math.exp(self.sigma**2 / 2)

    @property
    def scv(self) -> float:
        return math.expm1(self.sigma**2)

    def ns(self, bits: int) -> int:
        z = _inverse_normal(((bits >> 12) + 0.5) * _UNIT52)
        return round(self.median_ns * math.exp(self.sigma * z))

    def quantile(self, p: float) -> float:
        return 0.0 if p <= 0 else self.median_ns * math.exp(self.sigma * _inverse_normal(p))

    def describe(self) -> str:
        return f"lognormal, mean {in_ms(self.mean_ns)}, p99.9 {in_ms(self.quantile(0.999))}"


LOGNORMAL_RATIO_MAX: Final = math.exp(_inverse_normal(0.999) ** 2 / 2)
"""No lognormal has its p99.9 at more than this many times its mean (about 118)."""


def lognormal_from_scv(mean: float, scv: float) -> Lognormal:
    """The lognormal with this mean and this squared coefficient of variation."""
    sigma = math.sqrt(math.log1p(scv))
    return Lognormal(mean * math.exp(-(sigma**2) / 2), sigma)


def lognormal_from_p999(mean: float, p999: float) -> Lognormal:
    """
    The lognormal with this mean and this p99.9: of the two that exist the one that is narrower.

    ln(p999 / mean) = z s - s^2 / 2 at z = 3.09; `p999` must lie between the mean and
    `LOGNORMAL_RATIO_MAX` times the mean.
    """
    z = _inverse_normal(0.999)
    sigma = z - math.sqrt(max(0.0, z * z - 2 * math.log(p999 / mean)))
    return Lognormal(mean * math.exp(-(sigma**2) / 2), sigma)


@dataclass(frozen=True, slots=True)
class Pareto(Distribution):
    """Never below `least_ns`, with a tail that falls like x^-alpha; the mean needs alpha > 1."""

    least_ns: int
    alpha: float

    @property
    def mean_ns(self) -> float:
        return self.least_ns * self.alpha / (self.alpha - 1)

    @property
    def scv(self) -> float:
        return 1 / (self.alpha * (self.alpha - 2)) if self.alpha > 2 else math.inf

    def ns(self, bits: int) -> int:
        return round(self.least_ns * math.pow(survival(bits), -1 / self.alpha))

    def quantile(self, p: float) -> float:
        return self.least_ns * math.pow(1 - p, -1 / self.alpha)

    def describe(self) -> str:
        return f"Pareto from {in_ms(self.least_ns)}, alpha {self.alpha:g}"


def invert(above: Callable[[float], float], p: float, mean_ns: float) -> float:
    """The x at which a falling survival function reaches 1 - p, by bisection."""
    if p <= 0 or mean_ns == 0:
        return 0.0
    low, high = 0.0, mean_ns
    while above(high) > 1 - p:
        low, high = high, high * 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 1 - p else (low, middle)
    return (low + high) / 2


_BISECTIONS: Final = 50
"""Halvings: the bracket is then below a millionth of a nanosecond for times below a second."""


def in_ms(ns: float) -> str:
    """Milliseconds for people, three significant digits."""
    return f"{ms_from_ns(ns):.4g} ms"


def scv_of(mean: float, variance: float) -> float:
    """Squared coefficient of variation; 0 where the mean is 0."""
    return variance / mean**2 if mean else 0.0
