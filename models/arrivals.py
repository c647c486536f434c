"""
When sessions begin.

Open processes yield moments for ever (or to the end of a recording), whatever the system does;
the closed one has a population whose members come again after their answer and a time of thought.
Moment k depends on the key and on k alone, so a longer run begins like a shorter one.

    arrivals = { kind = "poisson", rate_per_s = 2 }
    arrivals = { kind = "renewal", gap = { kind = "erlang", k = 4, mean_ms = 500 } }
    arrivals = { kind = "batch", rate_per_s = 1, size = [1, 2, 5] }       # compound Poisson
    arrivals = { kind = "mmpp", rates_per_s = [1, 10], leave_per_s = [0.1, 0.5] }
    arrivals = { kind = "daily", rate_per_s = 2, swing = 0.8, period_h = 24, peak_h = 15 }
    arrivals = { kind = "recorded", times_s = [0, 1, 2, 3, 10] }
    arrivals = { kind = "closed", population = 8, think = { kind = "exponential", mean_s = 10 } }
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count as integers
from itertools import pairwise
from typing import Final

from simsched.chance import mix
from simsched.errors import ConfigError
from simsched.models.counts import Count, count
from simsched.models.distribution_fields import distribution
from simsched.models.distributions import Constant, Distribution, survival, unit
from simsched.models.fields import Fields
from simsched.units import SECOND


class Arrivals:
    """A process of arrivals."""

    __slots__ = ()

    @property
    def rate_per_s(self) -> float:
        """Sessions per second in the long run; 0 for a population, which has no rate of its own."""
        raise NotImplementedError

    def with_rate(self, rate_per_s: float) -> Arrivals:
        """The same process, stretched or squeezed to another rate."""
        raise NotImplementedError

    def moments(self, key: int) -> Iterator[int]:
        """Nanoseconds since the start, never falling, drawn from `key`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Renewal(Arrivals):
    """Independent gaps of one law; a recorded law gives its gaps in order. Covers Poisson."""

    gap: Distribution
    stretch: float = 1.0

    @property
    def rate_per_s(self) -> float:
        return SECOND / (self.gap.mean_ns * self.stretch)

    def with_rate(self, rate_per_s: float) -> Arrivals:
        return replace(self, stretch=self.stretch * self.rate_per_s / rate_per_s)

    def moments(self, key: int) -> Iterator[int]:
        now = 0
        for k in integers():
            gap = self.gap.at(k, mix(key, k))
            now += gap if self.stretch == 1 else round(gap * self.stretch)
            yield now


@dataclass(frozen=True, slots=True)
class Poisson(Arrivals):
    """Exponential gaps."""

    rate: float

    @property
    def rate_per_s(self) -> float:
        return self.rate

    def with_rate(self, rate_per_s: float) -> Arrivals:
        return replace(self, rate=rate_per_s)

    def moments(self, key: int) -> Iterator[int]:
        now = 0
        for k in integers():
            now += _gap_ns(self.rate, mix(key, k))
            yield now


@dataclass(frozen=True, slots=True)
class Batches(Arrivals):
    """Compound Poisson: batches come at a rate, a batch is a number of sessions at one moment."""

    rate: float
    size: Count

    @property
    def rate_per_s(self) -> float:
        return self.rate * self.size.mean

    def with_rate(self, rate_per_s: float) -> Arrivals:
        return replace(self, rate=rate_per_s / self.size.mean)

    def moments(self, key: int) -> Iterator[int]:
        now = 0
        for k in integers():
            now += _gap_ns(self.rate, mix(key, 2 * k))
            for _ in range(self.size.value(mix(key, 2 * k + 1))):
                yield now


@dataclass(frozen=True, slots=True)
class Mmpp(Arrivals):
    """
    Two-phase Markov-modulated Poisson process: a calm and a busy hour, say.

    `rates` are the phases' arrival rates, `leaves` the rates at which they are left. The first
    phase is drawn from the stationary shares, so the process has no warm-up of its own.
    """

    rates: tuple[float, float]
    leaves: tuple[float, float]

    @property
    def rate_per_s(self) -> float:
        first = self._share_of_first()
        return first * self.rates[0] + (1 - first) * self.rates[1]

    def with_rate(self, rate_per_s: float) -> Arrivals:
        factor = rate_per_s / self.rate_per_s
        return replace(self, rates=(self.rates[0] * factor, self.rates[1] * factor))

    def moments(self, key: int) -> Iterator[int]:
        now, phase = 0, int(unit(mix(key, 0)) >= self._share_of_first())
        for k in integers(1):
            rate, leave = self.rates[phase], self.leaves[phase]
            now += _gap_ns(rate + leave, mix(key, 2 * k))
            if unit(mix(key, 2 * k + 1)) * (rate + leave) < leave:
                phase = 1 - phase
            else:
                yield now

    def _share_of_first(self) -> float:
        return self.leaves[1] / (self.leaves[0] + self.leaves[1])


@dataclass(frozen=True, slots=True)
class Daily(Arrivals):
    """
    A Poisson process whose rate swings around its mean like a cosine with its top at `peak_ns`.

    By thinning (Lewis and Shedler 1979): candidates at the top rate, each kept with the share that
    the moment's rate is of it.
    """

    rate: float
    swing: float
    period_ns: int
    peak_ns: int

    @property
    def rate_per_s(self) -> float:
        return self.rate

    def with_rate(self, rate_per_s: float) -> Arrivals:
        return replace(self, rate=rate_per_s)

    def moments(self, key: int) -> Iterator[int]:
        now, top = 0, self.rate * (1 + self.swing)
        for k in integers():
            now += _gap_ns(top, mix(key, 2 * k))
            angle = 2 * math.pi * ((now - self.peak_ns) % self.period_ns) / self.period_ns
            if unit(mix(key, 2 * k + 1)) * (1 + self.swing) < 1 + self.swing * math.cos(angle):
                yield now


@dataclass(frozen=True, slots=True)
class RecordedArrivals(Arrivals):
    """Moments as they were recorded, once through."""

    times: tuple[int, ...]
    stretch: float = 1.0

    @property
    def rate_per_s(self) -> float:
        """Arrivals over the time that the recording spans."""
        return len(self.times) * SECOND / (max(self.times[-1], 1) * self.stretch)

    def with_rate(self, rate_per_s: float) -> Arrivals:
        return replace(self, stretch=self.stretch * self.rate_per_s / rate_per_s)

    def moments(self, key: int) -> Iterator[int]:
        for at in self.times:
            yield at if self.stretch == 1 else round(at * self.stretch)


@dataclass(frozen=True, slots=True)
class Closed(Arrivals):
    """A fixed number of sessions from the start; each speaks again after its answer and `think`."""

    population: int
    think: Distribution

    @property
    def rate_per_s(self) -> float:
        return 0.0

    def with_rate(self, rate_per_s: float) -> Arrivals:
        raise ConfigError(
            "arrivals", "rate", "a closed workload has no rate: set `population` or `think`"
        )

    def moments(self, key: int) -> Iterator[int]:
        yield from (0 for _ in range(self.population))


def _gap_ns(rate_per_s: float, bits: int) -> int:
    return round(-SECOND / rate_per_s * math.log(survival(bits)))


def parse_arrivals(fields: Fields) -> Arrivals:
    """
    The process that a table says.

    Raises:
        ConfigError: unknown kind or key, a rate of 0 or below, moments that fall.

    """
    process = KINDS[fields.choice("kind", KINDS)](fields)
    fields.close()
    return process


def _rate(fields: Fields) -> float:
    rate = fields.rate("rate")
    if rate <= 0:
        raise fields.fail("rate", f"must be above 0, not {rate:g} per second")
    return rate


def _constant(fields: Fields) -> Arrivals:
    return Renewal(Constant(fields.duration("gap", least=1)))


def _renewal(fields: Fields) -> Arrivals:
    gap = distribution(fields, "gap")
    if gap.mean_ns <= 0:
        raise fields.fail("gap", "must be above 0 on average")
    return Renewal(gap)


def _mmpp(fields: Fields) -> Arrivals:
    rates, leaves = fields.numbers("rates_per_s"), fields.numbers("leave_per_s")
    if len(rates) != 2 or max(rates) <= 0:
        raise fields.fail("rates_per_s", "must be two rates, one of them above 0")
    if len(leaves) != 2 or min(leaves) <= 0:
        raise fields.fail("leave_per_s", "must be two rates above 0: how fast each phase is left")
    return Mmpp((rates[0], rates[1]), (leaves[0], leaves[1]))


def _daily(fields: Fields) -> Arrivals:
    return Daily(
        rate=_rate(fields),
        swing=fields.share("swing"),
        period_ns=fields.duration("period", 86_400 * SECOND, least=1),
        peak_ns=fields.duration("peak", 0),
    )


def _recorded(fields: Fields) -> Arrivals:
    times = fields.durations("times")
    if any(later < earlier for earlier, later in pairwise(times)):
        raise fields.fail("times", "must not fall: they are moments since the start")
    return RecordedArrivals(times)


def _closed(fields: Fields) -> Arrivals:
    return Closed(fields.integer("population", least=1), distribution(fields, "think"))


KINDS: Final[Mapping[str, Callable[[Fields], Arrivals]]] = {
    "poisson": lambda fields: Poisson(_rate(fields)),
    "constant": _constant,
    "renewal": _renewal,
    "batch": lambda fields: Batches(_rate(fields), count(fields, "size")),
    "mmpp": _mmpp,
    "daily": _daily,
    "recorded": _recorded,
    "closed": _closed,
}
"""Every process by its name in a file."""
