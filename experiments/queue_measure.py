"""
One run seen as a queue: what its customers waited, how many there were, how many gave up.

A customer is a job, its arrival the cut of its utterance; it begins service when a node starts it
and leaves when the node is done, when its patience ends or at once when it is refused. Customers
are counted by their arrival in the window, and the run goes on until they have left, so nobody is
censored; averages over time are exact integrals of the jobs' own times over the same window.

Names are those of `queueing.Exact`, so that a number and its exact value meet by name; times are
in seconds. A control's expectation is known (`known_controls`): what it is off by explains much of
what the rest is off by. This module knows no formula of a queue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from simsched.experiments.intervals import quantile
from simsched.experiments.runs import Window
from simsched.models.arrivals import Poisson, RecordedArrivals, Renewal
from simsched.models.distributions import Distribution
from simsched.models.empirical import Recorded
from simsched.models.record import RESOURCE_LOCK
from simsched.models.world import SETTLE_NS, RunResult, Scenario
from simsched.steps import SESSION_RUNTIME
from simsched.units import SECOND

Column = npt.NDArray[np.int64]

PREFIX: Final = "queue:"
CONTROL: Final = "queue_control:"
PERCENTS: Final = (50, 95, 99)
REFUSED: Final = "QUEUE_FULL"
GAVE_UP: Final = "PENDING_TIMEOUT"

HALVES_MIN: Final = 1_000
"""Fewer customers have no tail whose bias could be told from noise."""

RUSH_FACTOR: Final = 1.4
"""
A stretch of so many times (ca2 + cs2) / (1 - load)^2 customers explains most of the mean wait.

It is 0.7 of the time in which M/M/1 forgets, in services. Over 400 runs of 24,000 customers at
load 0.8, arrivals and service alone left 5.3 % of the mean wait unexplained, with it 3.5 %.
"""

RUSH_STRETCHES_MIN: Final = 25
"""A run holds at least so many stretches that do not overlap."""


@dataclass(frozen=True, slots=True)
class _Rush:
    """Work that came less time that passed, over `customers` of them: its mean square, in s2."""

    customers: int
    servers: int
    mean_square: float


@dataclass(frozen=True, slots=True)
class _Customers:
    """Columns of all jobs of a run, in the order of their arrival."""

    arrived: Column
    started: Column
    left: Column
    served: npt.NDArray[np.bool_]
    refused: npt.NDArray[np.bool_]
    gave_up: npt.NDArray[np.bool_]

    def to_service(self) -> Column:
        """When the wait ended: by service, by leaving, or not before the end of the run."""
        return np.where(self.started >= 0, self.started, self.left)


def is_queue(scenario: Scenario) -> bool:
    """Whether a run is one queue: whole utterances of one language pair on one instance."""
    workload = scenario.workload
    return (
        workload.mode == "utterance"
        and scenario.instances == 1
        and len(workload.languages) == 1
        and (workload.is_closed or workload.utterances.mean == 1)
    )


def lock_is_server(scenario: Scenario) -> bool:
    """Whether nodes take no time, so that what customers queue for is the modelled lock."""
    return scenario.service.mean_ns(0) == 0


def plain_service(scenario: Scenario) -> Distribution | None:
    """The law of service where it is one; None if it has stages or grows with the audio."""
    model = scenario.service
    rest = (model.asr.per_audio_s, model.nmt.own, model.tts.own, model.tts.per_audio_s)
    if any(law.mean_ns for law in (*rest, model.nmt.per_audio_s)):
        return None
    return model.asr.own


def measure_queue(result: RunResult, scenario: Scenario, window: Window) -> dict[str, float]:
    """All figures of one run as a queue, each under `queue:NAME`; {} if nobody came."""
    customers = _customers(result.jobs)
    if not len(customers.arrived):
        return {}
    start, end = _bounds(customers, scenario, window)
    inside = (customers.arrived >= start) & (customers.arrived < end)
    inside &= customers.left >= 0
    length = end - start
    if not inside.any() or length <= 0:
        return {}
    figures = _shares(customers, inside) | _times(customers, inside, scenario)
    figures |= _over_time(customers, start, end, scenario, result)
    measured = {PREFIX + name: value for name, value in figures.items()}
    measured[PREFIX + "customers"] = float(int(inside.sum()))
    return measured | _controls(customers, inside, length, scenario, window)


def _customers(jobs: Mapping[str, Any]) -> _Customers:
    arrived = np.asarray(jobs["cut_ns"], np.int64)
    order = np.argsort(arrived, kind="stable")
    finished = np.asarray(jobs["finished_ns"], np.int64)[order]
    ended = np.asarray(jobs["ended_ns"], np.int64)[order]
    reasons = [jobs["reason"][place] for place in order.tolist()]
    return _Customers(
        arrived=arrived[order],
        started=np.asarray(jobs["started_ns"], np.int64)[order],
        left=np.where(finished >= 0, finished, ended),
        served=finished >= 0,
        refused=np.array([reason == REFUSED for reason in reasons], bool),
        gave_up=np.array([reason == GAVE_UP for reason in reasons], bool),
    )


def _bounds(customers: _Customers, scenario: Scenario, window: Window) -> tuple[int, int]:
    """The window; a recorded list is counted as a whole, from its first moment to the last end."""
    if isinstance(scenario.workload.arrivals, RecordedArrivals):
        return SETTLE_NS, int(customers.left.max()) + 1
    if window.end_ns is not None:
        return window.start_ns, window.end_ns
    return window.start_ns, int(customers.arrived.max()) + 1


def _shares(customers: _Customers, inside: npt.NDArray[np.bool_]) -> dict[str, float]:
    joined = inside & ~customers.refused
    number = int(inside.sum())
    entered = max(1, int(joined.sum()))
    waited = joined & (customers.to_service() > customers.arrived)
    return {
        "wait_probability": int(waited.sum()) / entered,
        "blocking": int((inside & customers.refused).sum()) / number,
        "abandonment": int((joined & customers.gave_up).sum()) / entered,
    }


def _times(
    customers: _Customers, inside: npt.NDArray[np.bool_], scenario: Scenario
) -> dict[str, float]:
    served = inside & customers.served
    joined = inside & ~customers.refused
    sojourns = (customers.left - customers.arrived)[served]
    figures = _spread("sojourn", sojourns, "mean_sojourn")
    if lock_is_server(scenario):
        return figures
    waits = (customers.to_service() - customers.arrived)[joined]
    if len(waits):
        figures["mean_wait"] = _seconds(waits)
    return figures | _spread("wait", (customers.started - customers.arrived)[served],
                             "mean_wait_served")  # fmt: skip


def _spread(stem: str, values: Column, mean_name: str) -> dict[str, float]:
    if not len(values):
        return {}
    figures = {mean_name: _seconds(values)}
    for percent in PERCENTS:
        figures[f"{stem}_p{percent}"] = tail_quantile(values, percent / 100) / SECOND
    return figures


def _seconds(values: Column) -> float:
    return int(values.sum()) / (len(values) * SECOND)


def tail_quantile(values: Column, share: float) -> float:
    """
    A quantile of dependent values, without the first-order bias of a finite run.

    Customers of a busy queue come in few independent stretches, and a quantile of few is too low
    (at utilisation 0.95 by 15 % with 20,000 customers). Twice the whole's quantile less the mean
    of its halves' cancels the term in 1/n (Quenouille 1956, grouped jackknife).
    """
    whole = quantile(values, share)
    if len(values) < HALVES_MIN:
        return whole
    middle = len(values) // 2
    halves = quantile(values[:middle], share) + quantile(values[middle:], share)
    return max(0.0, 2 * whole - halves / 2)


def _over_time(
    customers: _Customers, start: int, end: int, scenario: Scenario, result: RunResult
) -> dict[str, float]:
    length = end - start
    joined = ~customers.refused
    gone = np.where(customers.left >= 0, customers.left, end)
    departed = customers.served & (customers.left >= start) & (customers.left < end)
    figures = {
        "throughput": int(departed.sum()) * SECOND / length,
        "mean_number": _inside(customers.arrived, gone, joined, start, end) / length,
    }
    if lock_is_server(scenario):
        figures["utilisation"] = _lock_busy(result)
        figures["mean_queue"] = figures["mean_number"] - figures["utilisation"]
        return figures
    to_service = np.where(customers.started >= 0, customers.started, gone)
    begun = customers.started >= 0
    servers = scenario.nodes * scenario.slots
    busy = _inside(customers.started, gone, begun, start, end)
    figures["mean_queue"] = _inside(customers.arrived, to_service, joined, start, end) / length
    figures["utilisation"] = busy / (length * servers)
    return figures


def _inside(entered: Column, left: Column, who: npt.NDArray[np.bool_], start: int, end: int) -> int:
    """Nanoseconds that they together spent inside between two moments."""
    spent = np.minimum(left[who], end) - np.maximum(entered[who], start)
    return int(np.maximum(spent, 0).sum())


def _lock_busy(result: RunResult) -> float:
    """Share of the run that the session lock was held; its start is a vanishing part of it."""
    held = sum(
        row.hold_ns
        for row in result.steps
        if row.resource == RESOURCE_LOCK and row.step == SESSION_RUNTIME.name
    )
    return held / (result.ended_ns - result.warm_ns)


def _controls(
    customers: _Customers,
    inside: npt.NDArray[np.bool_],
    length: int,
    scenario: Scenario,
    window: Window,
) -> dict[str, float]:
    """What came and how much work it brought; see `known_controls`."""
    controls = {}
    if window.end_ns is not None and not scenario.workload.is_closed:
        controls["arrivals"] = int(inside.sum()) * SECOND / length
    served = inside & customers.served
    if not lock_is_server(scenario) and served.any():
        times = (customers.left - customers.started)[served] / SECOND
        controls["service"] = math.fsum(times) / len(times)
    rush = _rush(scenario)
    if rush is not None and (served == inside).all():
        controls["rush"] = _mean_square(customers, inside, rush)
    return {CONTROL + name: value for name, value in controls.items()}


def known_controls(scenario: Scenario) -> dict[str, float]:
    """The expectations of the controls that vary: arrivals per second, service, rush."""
    arrivals, law = scenario.workload.arrivals, plain_service(scenario)
    known = {}
    if not scenario.workload.is_closed and not isinstance(arrivals, RecordedArrivals):
        known["arrivals"] = arrivals.rate_per_s
    if law is not None and law.scv > 0:
        known["service"] = law.mean_ns / SECOND
    rush = _rush(scenario)
    if rush is not None:
        known["rush"] = rush.mean_square
    return {CONTROL + name: value for name, value in known.items()}


def _rush(scenario: Scenario) -> _Rush | None:
    """
    The stretch by which rushes are told, and what its mean square is by the laws alone.

    Only where gaps and services are independent draws and everybody is served: with u customers'
    work less their gaps it is u x variance + (u x mean)^2, whatever the queue makes of it.
    """
    law, gap = plain_service(scenario), _gap(scenario)
    if law is None or gap is None or scenario.workload.patience is not None:
        return None
    if isinstance(law, Recorded) or not math.isfinite(law.scv + gap[1]):
        return None
    mean_gap, gap_scv = gap
    servers = scenario.nodes * scenario.slots
    work = law.mean_ns / (SECOND * servers)
    load = work / mean_gap
    if not 0 < load < 1:
        return None
    number = round(RUSH_FACTOR * (law.scv + gap_scv) / (1 - load) ** 2)
    most = int((scenario.horizon_ns or 0) / (SECOND * mean_gap * RUSH_STRETCHES_MIN))
    number = max(1, min(number, most))
    variance = law.scv * work**2 + gap_scv * mean_gap**2
    return _Rush(number, servers, number * variance + (number * (work - mean_gap)) ** 2)


def _gap(scenario: Scenario) -> tuple[float, float] | None:
    """Mean (s) and scv of independent gaps between customers; None if they are not."""
    arrivals = scenario.workload.arrivals
    if isinstance(arrivals, Poisson):
        return 1 / arrivals.rate_per_s, 1.0
    if isinstance(arrivals, Renewal) and not isinstance(arrivals.gap, Recorded):
        return 1 / arrivals.rate_per_s, arrivals.gap.scv
    return None


def _mean_square(customers: _Customers, inside: npt.NDArray[np.bool_], rush: _Rush) -> float:
    """Over all stretches that lie inside, overlapping ones too; 0 if the run is too short."""
    arrived = customers.arrived[inside]
    services = (customers.left - customers.started)[inside]
    before = np.cumsum(services) - services
    level = before / rush.servers - arrived
    net = (level[rush.customers :] - level[: -rush.customers]) / SECOND
    return math.fsum(net * net) / len(net) if len(net) else 0.0
