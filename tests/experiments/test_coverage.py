"""
Do our own 95 % intervals cover the truth 95 times in 100? Measured, not believed.

1,000 experiments of 10 replications each on M/M/1 at utilisation 0.8, customer by customer with
Lindley's recursion, begun in the exact stationary law, so that nothing but the interval is judged.
A coverage measured on 1,000 experiments has itself a standard error of 0.7 points.

How long a replication has to be, measured with this file's functions and ten other seeds of 100
experiments each (coverage in percent; the wait's relaxation time is about 90 customers):

    customers   mean   control variates   paired   p50    p95    p99
        2,000   93.0         93.0          91.8   94.7   92.7   69.5
        5,000   95.0         93.2          93.9   95.2   94.3   87.2
       10,000   95.3         95.2          95.6   96.5   95.0   92.7
       20,000   95.1         95.5          93.9   95.2   95.3   94.0

The means are judged at 20,000: at 5,000 and 10,000 the true coverage lies so near the lower edge
that this file's own seed gave 92.8-92.9 for some of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from simsched.experiments.queueing import Exact, mm1
from simsched.experiments.statistics import (
    Estimate,
    batch_means,
    control_variates,
    paired,
    quantile_across,
    t_interval,
    z_quantile,
)

EXPERIMENTS = 1_000
REPLICATIONS = 10
CUSTOMERS = 20_000
CUSTOMERS_KEPT = 5_000
ARRIVAL_RATE = 0.8
SEED = 20_260_101
BASE = mm1(ARRIVAL_RATE, 1.0)
FASTER = mm1(ARRIVAL_RATE, 1 / 0.95)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Means by replication, and the first waits by (experiment, replication, customer)."""

    waits: NDArray[np.float32]
    means: Floats
    faster: Floats
    gaps: Floats
    services: Floats


def stationary_wait(law: Exact, chance: Floats) -> Floats:
    """The wait at which the exact law reaches `chance`: zero first, then exponential."""
    spare = law.throughput * (1 / law.utilisation - 1)
    waits: Floats = np.log(np.maximum(law.utilisation / (1 - chance), 1.0)) / spare
    return waits


def stationary_sample(shape: tuple[int, int], customers: int, kept: int, seed: int) -> Sample:
    """Exact stationary waits of a queue and, on the same draws, of one served 5 % faster."""
    draws = np.random.Generator(np.random.Philox(key=seed))
    waits = np.empty((kept, *shape), dtype=np.float32)
    first = draws.random(shape)
    wait, quick = stationary_wait(BASE, first), stationary_wait(FASTER, first)
    means, faster, gaps, services = (np.zeros(shape) for _ in range(4))
    for customer in range(customers):
        if customer < kept:
            waits[customer] = wait
        service = draws.standard_exponential(shape)
        gap = draws.standard_exponential(shape) / ARRIVAL_RATE
        means += wait
        faster += quick
        services += service
        gaps += gap
        wait = np.maximum(wait + service - gap, 0.0)
        quick = np.maximum(quick + 0.95 * service - gap, 0.0)
    return Sample(
        waits=np.ascontiguousarray(np.moveaxis(waits, 0, 2)),
        means=means / customers,
        faster=faster / customers,
        gaps=gaps / customers,
        services=services / customers,
    )


@pytest.fixture(scope="module")
def sample() -> Sample:
    return stationary_sample((EXPERIMENTS, REPLICATIONS), CUSTOMERS, CUSTOMERS_KEPT, SEED)


def coverage(truth: float, interval: Callable[[int], Estimate]) -> float:
    """Share of the experiments whose interval holds the truth."""
    hits = [interval(experiment).contains(truth) for experiment in range(EXPERIMENTS)]
    return hits.count(True) / EXPERIMENTS


def controlled(sample: Sample, experiment: int) -> Estimate:
    """Mean wait, given that the mean gap and the mean service time are known."""
    controls = np.stack([sample.gaps[experiment], sample.services[experiment]], axis=1)
    known = (1 / ARRIVAL_RATE, 1.0)
    return control_variates(sample.means[experiment], list(controls), known).estimate


def naive(waits: NDArray[np.float32]) -> Estimate:
    """The sin: customers of one run taken for independent."""
    values = waits.astype(np.float64)
    return Estimate(
        estimate=float(values.mean()),
        half_width=z_quantile(0.95) * float(values.std()) / math.sqrt(values.size),
        replications=1,
        method="customers of one run",
    )


def test_the_sample_has_the_law_it_claims(sample: Sample) -> None:
    """Over all replications the mean wait is exact, at the last customer as at the first."""
    assert sample.means.mean() == pytest.approx(BASE.mean_wait, rel=0.01)
    assert sample.faster.mean() == pytest.approx(FASTER.mean_wait, rel=0.01)
    assert sample.waits[:, :, 0].mean() == pytest.approx(BASE.mean_wait, rel=0.05)
    assert sample.waits[:, :, -1].mean() == pytest.approx(BASE.mean_wait, rel=0.05)


def test_a_mean_over_replications_is_covered(sample: Sample) -> None:
    """The t interval over 10 replications covers the exact mean wait in 93-97 %."""
    share = coverage(BASE.mean_wait, lambda e: t_interval(sample.means[e]))

    assert 0.93 <= share <= 0.97


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_a_quantile_across_replications_is_covered(sample: Sample, q: float) -> None:
    """Median and p95 of 5,000 customers a replication are covered in 93-97 %."""
    exact = BASE.wait_quantile(q)
    assert exact is not None

    share = coverage(exact, lambda e: quantile_across(sample.waits[e], q))

    assert 0.93 <= share <= 0.97


def test_a_p99_needs_longer_replications(sample: Sample) -> None:
    """The p99 of 5,000 correlated customers is biased low: its interval covers too little.

    A known limit, kept in sight: the docstring of `quantile_across` says how long is long enough.
    """
    exact = BASE.wait_quantile(0.99)
    assert exact is not None

    share = coverage(exact, lambda e: quantile_across(sample.waits[e], 0.99))

    assert 0.80 <= share <= 0.92


def test_control_variates_cover_and_narrow(sample: Sample) -> None:
    """With gap and service as controls: still 93-97 %, and clearly narrower than without."""
    share = coverage(BASE.mean_wait, lambda e: controlled(sample, e))
    ratios = [
        controlled(sample, e).half_width / t_interval(sample.means[e]).half_width
        for e in range(EXPERIMENTS)
    ]

    assert 0.93 <= share <= 0.97
    assert float(np.median(ratios)) < 0.9


def test_a_paired_saving_is_covered_and_cheap(sample: Sample) -> None:
    """What 5 % faster service saves is covered in 93-97 %, with a fraction of the variance."""
    pairs = [paired(sample.means[e], sample.faster[e]) for e in range(EXPERIMENTS)]
    reductions = [pair.variance_reduction for pair in pairs]

    share = coverage(BASE.mean_wait - FASTER.mean_wait, lambda e: pairs[e].saving)

    assert 0.93 <= share <= 0.97
    assert float(np.median([r for r in reductions if r is not None])) > 5


def test_customers_of_one_run_are_not_independent(sample: Sample) -> None:
    """The planted sin: the interval over the customers of one run covers less than 30 %."""
    assert coverage(BASE.mean_wait, lambda e: naive(sample.waits[e, 0])) < 0.30


def test_batch_means_of_a_short_run_cover_too_little(sample: Sample) -> None:
    """20 batches of 250 customers are not independent yet: better than naive, below 93 %."""
    share = coverage(BASE.mean_wait, lambda e: batch_means(sample.waits[e, 0]))

    assert 0.80 <= share < 0.93
