"""
Steady state: what to cut from a run's beginning, and whether there is a steady state at all.

Rules: the cut is chosen by MSER-5 on the average over replications, never run by run; it never
goes beyond half of the run; whoever reports a mean reports the cut. A run whose number in system
grows has no steady state: its growth is reported instead of a mean.

This module does not know what the series describe; positions are counts, times whole nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from simsched.experiments.intervals import (
    LEVEL,
    Estimate,
    Values,
    finite_floats,
    mean,
    t_interval,
)
from simsched.units import SECOND

# White's batch size: it smooths the statistic enough that its minimum stops jumping about.
MSER_BATCH: Final = 5
# Below this many batches the minimum of MSER is an accident of the last few values.
_MSER_BATCHES_MIN: Final = 10
# A growth is reported when it is certain at this level ...
GROWTH_LEVEL: Final = 0.99
# ... and, even at its low end, adds this share of the mean number in system over the run. A run
# that starts empty under overload adds 2, one cut at its middle adds 2/3, a stationary one about 0.
GROWTH_SHARE_MIN: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """
    How much was cut: the first `cut` of `length` observations, and how that was decided.

    `settled` is false when MSER-5 found its minimum at the limit of half the run, or the run is
    too short for it: then the run should be longer, and the report should say so.
    """

    cut: int
    length: int
    method: str
    settled: bool

    @property
    def share(self) -> float:
        """The part of the run that was cut, 0 to 1/2 unless overridden."""
        return self.cut / self.length

    def kept(self, series: NDArray[Any]) -> NDArray[Any]:
        """What remains of a series after the cut."""
        return series[self.cut :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """There is no steady state: the number in system grows by `rate` per second."""

    rate: Estimate
    mean_number: float


def mser5(series: Values) -> int:
    """
    Observations to cut from a series, by MSER-5 (White, Simulation 69:6, 1997).

    The cut minimises the variance of the remaining batch means (of 5) divided by their number:
    it trades the bias of the start against the loss of data. A multiple of 5, at most half.
    """
    return _minimum(_batches([finite_floats(series, "MSER-5")])) * MSER_BATCH


def cut_warmup(replications: Sequence[Values], override: int | None = None) -> Warmup:
    """
    Choose one cut for all replications: MSER-5 on their average, or the user's `override`.

    Replications of unequal length are averaged over the shortest.

    Raises:
        ValueError: if there is no replication, or the override leaves nothing.
    """
    series = [finite_floats(values, "warm-up") for values in replications]
    if not series:
        raise ValueError("warm-up: no replications")
    length = min(len(values) for values in series)
    if override is not None:
        if not 0 <= override < length:
            raise ValueError(f"warm-up: {override}: must lie between 0 and {length - 1}")
        return Warmup(cut=override, length=length, method="given", settled=True)
    batches = _batches(series)
    best = _minimum(batches)
    settled = len(batches) >= _MSER_BATCHES_MIN and best < len(batches) // 2
    return Warmup(cut=best * MSER_BATCH, length=length, method="MSER-5", settled=settled)


def _batches(series: Sequence[Sequence[float]]) -> list[float]:
    """Means of 5 successive observations, over all replications at once."""
    length = min(len(values) for values in series)
    size = MSER_BATCH * len(series)
    return [
        math.fsum(value for values in series for value in values[start : start + MSER_BATCH]) / size
        for start in range(0, length - MSER_BATCH + 1, MSER_BATCH)
    ]


def _minimum(batches: Sequence[float]) -> int:
    """How many batches to cut: the earliest minimum of MSER within the first half."""
    count = len(batches)
    if count < _MSER_BATCHES_MIN:
        return 0
    # Shifted by one of the values, so that a constant series is exactly zero everywhere.
    shift = batches[-1]
    total = square = 0.0
    best, best_score = 0, math.inf
    for start in range(count - 1, -1, -1):
        shifted = batches[start] - shift
        total += shifted
        square += shifted * shifted
        remaining = count - start
        score = (square - total * total / remaining) / remaining**2
        if start <= count // 2 and score <= best_score:
            best, best_score = start, score
    return best


def batch_means(
    series: Values, batches: int = 20, level: float = LEVEL, *, unit: str = ""
) -> Estimate:
    """
    Interval from one long run: means of `batches` successive parts, treated as independent.

    Only as good as the batches are long: 20 batches of M/M/1 at utilisation 0.8 cover 82, 89 and
    95.5 % for runs of 2,000, 10,000 and 100,000 customers. What does not divide evenly is left
    out at the start, where the run is least settled.
    """
    numbers = finite_floats(series, "batch means")
    if batches < 2 or len(numbers) < batches:
        raise ValueError(f"batch means: {batches} batches of {len(numbers)} values")
    size = len(numbers) // batches
    first = len(numbers) - size * batches
    means = [mean(numbers[at : at + size]) for at in range(first, len(numbers), size)]
    return t_interval(means, level, unit=unit, method=f"{batches} batch means of one run")


def overload(
    times_ns: Values, number_in_system: Sequence[Values], *, level: float = LEVEL
) -> Growth | None:
    """
    Whether the number in system drifts upwards: its growth rate, or None when it is steady.

    Args:
        times_ns: when the number was read, the same moments in every replication.
        number_in_system: one series of counts per replication, after the warm-up cut.
        level: of the reported interval; the decision itself is taken at 99 %.

    Returns:
        Growth per second, from one least-squares slope per replication, when even the low end of
        its 99 % interval adds a quarter of the mean number over the run. None otherwise, and
        always None for a single replication, which has no interval to decide by.
    """
    times = [time / SECOND for time in finite_floats(times_ns, "overload: times")]
    counts = [finite_floats(values, "overload: numbers") for values in number_in_system]
    if any(len(values) != len(times) for values in counts):
        raise ValueError("overload: every replication needs one number per time")
    if len(counts) < 2 or len(times) < 2 or times[0] == times[-1]:
        return None
    slopes = [_slope(times, values) for values in counts]
    mean_number = mean([mean(values) for values in counts])
    certain = t_interval(slopes, GROWTH_LEVEL)
    added_at_least = certain.low * (times[-1] - times[0])
    if added_at_least <= 0 or added_at_least < GROWTH_SHARE_MIN * mean_number:
        return None
    rate = t_interval(slopes, level, unit="1/s", method="slope per replication, t across")
    return Growth(rate=rate, mean_number=mean_number)


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Least-squares slope of ys over xs."""
    x_mean, y_mean = mean(xs), mean(ys)
    products = ((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return math.fsum(products) / math.fsum((x - x_mean) ** 2 for x in xs)
