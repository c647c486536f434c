"""
Which queue a scenario is, and its exact value where theory has one.

A scenario is read as a queue by its laws: how customers arrive, how long service takes, how long
they wait at most, how many servers there are and how many may be in line. Figures are named as in
`queueing.Exact`; times in seconds. `None` means that no exact value is known here, not that the
scenario is wrong. This module knows no run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from simsched.experiments.queue_measure import is_queue, lock_is_server, plain_service
from simsched.experiments.queueing import (
    Exact,
    closed,
    lindley_waits,
    mmc,
    mmc_impatient,
    mmck,
)
from simsched.experiments.queueing_general import (
    batch_mm1,
    dm1,
    gm1,
    md1,
    mdc,
    mg1,
    mmc_deadline,
)
from simsched.experiments.queueing_modulated import mmpp_mmc
from simsched.models.arrivals import Batches, Closed, Mmpp, Poisson, RecordedArrivals, Renewal
from simsched.models.counts import ConstantCount, Count, GeometricCount, WeightedCount
from simsched.models.distributions import (
    Constant,
    Distribution,
    Erlang,
    Exponential,
    Hyperexponential,
)
from simsched.models.empirical import Recorded
from simsched.models.world import Scenario
from simsched.steps import SESSION_RUNTIME
from simsched.units import MS, SECOND

ENDLESS: Final = 1_000
"""A line of so many places, or a patience of so many services, is as good as without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An exact case: its name, where the formula stands, its figures."""

    model: str
    source: str
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Queue:
    """What a formula needs; times in seconds, `places` in line and `patience` None for no end."""

    service: Distribution
    mean_s: float
    servers: int
    places: int | None
    patience: Distribution | None

    @property
    def rate(self) -> float:
        return 1 / self.mean_s

    @property
    def plain(self) -> bool:
        return self.places is None and self.patience is None


def known_case(scenario: Scenario) -> Known | None:
    """The exact case that a scenario is, if it is one."""
    if not is_queue(scenario):
        return None
    if lock_is_server(scenario):
        return _lock(scenario)
    service = plain_service(scenario)
    if service is None or service.mean_ns <= 0 or not _free(scenario):
        return None
    queue = _queue(scenario, service)
    arrivals = scenario.workload.arrivals
    if isinstance(arrivals, RecordedArrivals):
        return _recorded(scenario, arrivals, queue)
    try:
        exact = _FORMULAS[type(arrivals)](arrivals, queue) if type(arrivals) in _FORMULAS else None
    except ValueError:
        return None  # no steady state, or out of the formula's range
    return None if exact is None else _known(exact)


def _known(exact: Exact) -> Known:
    figures = exact.figures()
    if exact.blocking and exact.utilisation and exact.mean_wait == 0:
        figures = {name: x for name, x in figures.items() if not name.startswith("wait_p")}
    return Known(model=exact.model, source=exact.source, figures=figures)


def _free(scenario: Scenario) -> bool:
    """Whether nothing but the queue itself takes time."""
    return all(charge.mean_ns(scenario.nodes) == 0 for charge in scenario.costs.charges())


def bounds(scenario: Scenario) -> tuple[int | None, Distribution | None]:
    """Places in line and patience, the policy's own included; None for no end."""
    policy, patience = scenario.policy, scenario.workload.patience
    longest = policy.pending_ms * MS
    if patience is None and longest < ENDLESS * scenario.service.mean_ns(0):
        patience = Constant(longest)
    return None if policy.pending_max >= ENDLESS else policy.pending_max, patience


def _queue(scenario: Scenario, service: Distribution) -> _Queue:
    places, patience = bounds(scenario)
    return _Queue(
        service=service,
        mean_s=service.mean_ns / SECOND,
        servers=scenario.nodes * scenario.slots,
        places=places,
        patience=patience,
    )


def _lock(scenario: Scenario) -> Known | None:
    """A population that thinks, queues for one lock and is answered at once."""
    arrivals, hold = scenario.workload.arrivals, lock_law(scenario)
    if not isinstance(arrivals, Closed) or not isinstance(hold, Exponential):
        return None
    if not isinstance(arrivals.think, Exponential):
        return None
    think_rate, rate = SECOND / arrivals.think.mean_ns, SECOND / hold.mean_ns
    exact = closed(arrivals.population, think_rate, rate)
    hidden = ("mean_wait", "mean_wait_served", "wait_probability")
    figures = {
        name: value
        for name, value in exact.figures().items()
        if name not in hidden and not name.startswith("wait_p")
    }
    return Known(model=f"{exact.model}, a lock", source=exact.source, figures=figures)


def lock_law(scenario: Scenario) -> Distribution | None:
    """
    The session lock's hold, if there is one lock for all and its hold is exponential.

    A charge keeps a table of its law, whose mean is up to 0.1 % off: three digits are read from it.
    """
    charge = scenario.costs.prices[SESSION_RUNTIME.cost].charge
    mean = round(float(f"{charge.mean_ns(0):.2e}"))
    if scenario.costs.scopes[SESSION_RUNTIME.lock] != "global" or not mean or not charge.is_drawn:
        return None
    law = Exponential(mean)
    probes = [(2 * k + 1) << 59 for k in range(16)]
    near = all(abs(charge.ns(bits, 0) - law.ns(bits)) <= mean // 100 for bits in probes)
    return law if near else None


def _poisson(arrivals: Poisson, queue: _Queue) -> Exact | None:
    rate, service, servers = arrivals.rate, queue.service, queue.servers
    if queue.places == 0 and queue.patience is None:
        return _loss(rate, queue)
    if isinstance(service, Exponential):
        return _markov(rate, queue)
    if not queue.plain:
        return None
    if isinstance(service, Constant):
        return md1(rate, queue.mean_s) if servers == 1 else mdc(rate, queue.mean_s, servers)
    return mg1(rate, queue.mean_s, service.scv) if servers == 1 else None


def _loss(rate: float, queue: _Queue) -> Exact:
    """Without a line the law of service does not matter, but for the law of the sojourn."""
    exact = mmck(rate, queue.rate, queue.servers, queue.servers)
    return Exact(
        model=f"M/G/{queue.servers}/{queue.servers}",
        source="Erlang 1917; Kleinrock, Queueing Systems 1, 3.6",
        throughput=exact.throughput,
        utilisation=exact.utilisation,
        mean_wait=0.0,
        mean_wait_served=0.0,
        mean_sojourn=queue.mean_s,
        mean_queue=0.0,
        mean_number=exact.mean_number,
        wait_probability=0.0,
        blocking=exact.blocking,
    )


def _markov(rate: float, queue: _Queue) -> Exact | None:
    servers, patience = queue.servers, queue.patience
    if queue.places is not None:
        return mmck(rate, queue.rate, servers, servers + queue.places) if not patience else None
    if patience is None:
        return mmc(rate, queue.rate, servers)
    if isinstance(patience, Exponential):
        return mmc_impatient(rate, queue.rate, servers, SECOND / patience.mean_ns)
    if isinstance(patience, Constant):
        return mmc_deadline(rate, queue.rate, servers, patience.mean_ns / SECOND)
    return None


def _batches(arrivals: Batches, queue: _Queue) -> Exact | None:
    square = _mean_square(arrivals.size)
    if square is None or not _markov_server(queue):
        return None
    return batch_mm1(arrivals.rate, arrivals.size.mean, square, queue.rate)


def _mean_square(size: Count) -> float | None:
    if isinstance(size, ConstantCount):
        return float(size.count**2)
    if isinstance(size, GeometricCount):
        return size.average * (2 * size.average - 1)
    if isinstance(size, WeightedCount):
        return math.fsum(v * v * w for v, w in zip(size.values, size.weights, strict=True))
    return None


def _markov_server(queue: _Queue) -> bool:
    return queue.plain and queue.servers == 1 and isinstance(queue.service, Exponential)


def _mmpp(arrivals: Mmpp, queue: _Queue) -> Exact | None:
    if not queue.plain or not isinstance(queue.service, Exponential):
        return None
    return mmpp_mmc(arrivals.rates, arrivals.leaves, queue.rate, queue.servers)


def _renewal(arrivals: Renewal, queue: _Queue) -> Exact | None:
    if not _markov_server(queue):
        return None
    gap = arrivals.gap
    if isinstance(gap, Constant):
        return dm1(arrivals.rate_per_s, queue.rate)
    transform = _transform(gap, arrivals.stretch)
    return None if transform is None else gm1(transform, arrivals.rate_per_s, queue.rate)


def _transform(gap: Distribution, stretch: float) -> Callable[[float], float] | None:
    """The Laplace transform of a law of gaps."""
    if isinstance(gap, Exponential):
        mean = gap.mean * stretch / SECOND
        return lambda s: 1 / (1 + mean * s)
    if isinstance(gap, Erlang):
        phase = gap.mean * stretch / (gap.k * SECOND)
        return lambda s: float((1 + phase * s) ** -gap.k)
    if isinstance(gap, Hyperexponential):
        means = [mean * stretch / SECOND for mean in gap.means]
        return lambda s: math.fsum(
            w / (1 + mean * s) for w, mean in zip(gap.weights, means, strict=True)
        )
    return None


def _closed(arrivals: Closed, queue: _Queue) -> Exact | None:
    if not queue.plain or not isinstance(queue.service, Exponential):
        return None
    if not isinstance(arrivals.think, Exponential):
        return None
    return closed(arrivals.population, SECOND / arrivals.think.mean_ns, queue.rate, queue.servers)


def _recorded(scenario: Scenario, arrivals: RecordedArrivals, queue: _Queue) -> Known | None:
    """Recorded times of one server, by Lindley's recursion."""
    if not queue.plain or queue.servers != 1 or not isinstance(queue.service, Recorded | Constant):
        return None
    times = list(islice(arrivals.moments(0), scenario.sessions))
    services = [queue.service.at(k, 0) for k in range(len(times))]
    waits = lindley_waits(times, services)
    sojourns = [wait + service for wait, service in zip(waits, services, strict=True)]
    number = len(times) * SECOND
    return Known(
        model="recorded times",
        source="Lindley 1952",
        figures={
            "mean_wait": sum(waits) / number,
            "mean_sojourn": sum(sojourns) / number,
            "wait_probability": sum(wait > 0 for wait in waits) / len(waits),
            "blocking": 0.0,
            "abandonment": 0.0,
        },
    )


_FORMULAS: Final[dict[type, Callable[..., Exact | None]]] = {
    Poisson: _poisson,
    Batches: _batches,
    Mmpp: _mmpp,
    Renewal: _renewal,
    Closed: _closed,
}
