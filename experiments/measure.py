"""
From one run to its numbers.

The window: operations count if they began in it, jobs if their utterance was cut in it; it begins
where the warm-up ends and closes with the last arrivals, so that the drain, when load falls, is
left out. Totals per step, calls, violations and conservation are of the whole run: they are counts
per operation, which the warm-up hardly moves, and a violation counts whenever it happens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simsched.experiments.backlog import backlog
from simsched.experiments.intervals import quantile
from simsched.experiments.metrics import OPERATIONS, PERCENTILES
from simsched.experiments.queue_measure import is_queue, measure_queue
from simsched.experiments.runs import Replication, Window
from simsched.models.journal import STATUSES
from simsched.models.record import RESOURCE_REDIS
from simsched.models.world import RunResult, Scenario, demands
from simsched.telemetry import OpKind
from simsched.units import SECOND, ms_from_ns

IntArray = npt.NDArray[np.int64]

BLOCKED_REASON = "QUEUE_FULL"
ABANDONED_REASON = "PENDING_TIMEOUT"
JOBS_PER_RATE = 100_000
"""Violations are reported for so many jobs."""

JUDGED_ELSEWHERE = ("I14", "I16")
"""Compares the cuts of two runs; needs a world that says what it breaks: not judged in one run."""

_COMPLETED = STATUSES.index("completed")
_FAILED = STATUSES.index("failed")
_BACKGROUND = (OpKind.HEARTBEAT, OpKind.BACKGROUND)
_SELECTION = ("select.",)


def measure(result: RunResult, variant: str, scenario: Scenario, window: Window) -> Replication:
    """All metrics of one run."""
    metrics = basic_metrics(result, window)
    if is_queue(scenario):
        metrics |= measure_queue(result, scenario, window)
    busy = utilisation(result, scenario)
    metrics |= {f"busy:{name}": share for name, share in busy.items()}
    return replication_of(result, variant, metrics, busy)


def basic_metrics(result: RunResult, window: Window) -> dict[str, float]:
    """What is measured of every run, also of one that was not simulated."""
    metrics = _latencies(result, window) | _jobs(result, window) | _per_creation(result)
    return metrics | backlog(result, window)


def replication_of(
    result: RunResult, variant: str, metrics: dict[str, float], busy: dict[str, float]
) -> Replication:
    """A run with its metrics, violations included."""
    jobs = max(1, len(result.jobs["status"]))
    violations = {name: n for name, n in result.violations.items() if name not in JUDGED_ELSEWHERE}
    for invariant, count in violations.items():
        metrics[f"{invariant}_per_100k"] = count * JOBS_PER_RATE / jobs
    return Replication(
        variant=variant,
        replication=result.replication,
        digest=result.digest,
        metrics=metrics,
        steps=result.steps,
        calls=result.calls,
        violations=violations,
        checked=result.checked,
        examples=result.examples,
        conservation=result.conservation,
        counters=result.counters,
        cuts=result.cuts,
        jobs=len(result.jobs["status"]),
        sessions=result.sessions,
        simulated_ns=result.ended_ns,
        busy=busy,
        operations=_counts(result),
    )


def mean_ms(values: IntArray) -> float:
    """Mean of whole nanoseconds, in ms, exact before the one division."""
    return ms_from_ns(int(values.sum()) / len(values))


def _spread(name: str, values: IntArray) -> dict[str, float]:
    """Mean and percentiles of times in ns; nothing if there are none."""
    if not len(values):
        return {}
    metrics = {f"{name}_ms": mean_ms(values)}
    ordered = np.sort(values)
    for percent in PERCENTILES:
        metrics[f"{name}_ms_p{percent}"] = ms_from_ns(quantile(ordered, percent / 100))
    return metrics


def _latencies(result: RunResult, window: Window) -> dict[str, float]:
    columns = result.operations
    counted = window.holds(columns["start_ns"])
    metrics: dict[str, float] = {}
    for name, (kind, _, _) in OPERATIONS.items():
        mine = counted & (columns["kind"] == int(kind))
        metrics |= _spread(name, columns["latency_ns"][mine])
    return metrics


def _jobs(result: RunResult, window: Window) -> dict[str, float]:
    jobs = result.jobs
    cut = _column(jobs, "cut_ns")
    counted = window.holds(cut)
    number = int(counted.sum())
    if not number:
        return {}
    times = {
        name: _column(jobs, f"{name}_ns")
        for name in ("created", "queued", "dispatched", "finished", "ended", "delivered")
    }
    status = _column(jobs, "status")
    completed = counted & (status == _COMPLETED)
    reason = np.array(jobs["reason"], dtype=object)
    queued = times["queued"] >= 0
    left_queue = np.where(times["dispatched"] >= 0, times["dispatched"], times["ended"])
    waits = np.where(queued, left_queue - times["queued"], 0)
    served = counted & (times["dispatched"] >= 0)
    finished = counted & (times["finished"] >= 0)
    delivered = completed & (times["delivered"] >= 0)
    metrics = _spread("end_to_end", (times["delivered"] - cut)[delivered])
    metrics |= _spread("queue_wait", waits[served])
    metrics |= _spread("sojourn", (times["finished"] - times["created"])[finished])
    metrics |= {
        "abandoned_share": int((counted & (reason == ABANDONED_REASON)).sum()) / number,
        "blocked_share": int((counted & (reason == BLOCKED_REASON)).sum()) / number,
        "failed_share": int((counted & (status == _FAILED)).sum()) / number,
        "waited_share": int((counted & (waits > 0)).sum()) / number,
    }
    return metrics | _over_time(result, window, times, left_queue)


def _over_time(
    result: RunResult, window: Window, times: dict[str, IntArray], left_queue: IntArray
) -> dict[str, float]:
    """Time averages over the window, from when jobs entered and left."""
    end = result.ended_ns if window.end_ns is None else min(window.end_ns, result.ended_ns)
    length = end - window.start_ns
    if length <= 0:
        return {}
    gone = np.where(times["finished"] >= 0, times["finished"], times["ended"])
    done = times["finished"]
    inside = int(((done >= window.start_ns) & (done < end)).sum())
    return {
        "number_in_queue": _number(times["queued"], left_queue, window.start_ns, end) / length,
        "number_in_system": _number(times["created"], gone, window.start_ns, end) / length,
        "jobs_per_s": inside * SECOND / length,
    }


def _number(entered: IntArray, left: IntArray, start: int, end: int) -> int:
    """Nanoseconds that all customers together spent inside between two moments."""
    there = entered >= 0
    until = np.where(left[there] >= 0, left[there], end)
    spent = np.minimum(until, end) - np.maximum(entered[there], start)
    return int(np.maximum(spent, 0).sum())


def _per_creation(result: RunResult) -> dict[str, float]:
    """What a job creation spends where; means over the whole run."""
    creations = int((result.operations["kind"] == int(OpKind.CREATE_JOB)).sum())
    if not creations:
        return {}
    rows = [row for row in result.steps if row.kind == OpKind.CREATE_JOB]
    snapshot = _time(rows, ("snapshot.read",))
    if not snapshot:
        # Without a guard the copy is made by itself; inside one it is part of the hold.
        snapshot = _time(rows, ("snapshot.clone",))
    lock_wait = sum(row.wait_ns for row in rows if row.step.startswith("session_runtime."))
    redis = sum(row.count for row in rows if row.resource == RESOURCE_REDIS)
    return {
        "snapshot_read_ms": ms_from_ns(snapshot / creations),
        "node_selection_ms": ms_from_ns(_time(rows, _SELECTION) / creations),
        "session_lock_wait_ms": ms_from_ns(lock_wait / creations),
        "redis_ops_per_create": redis / creations,
    }


def _time(rows: Sequence[Any], prefixes: tuple[str, ...]) -> int:
    """Waiting and working time of the steps whose names begin so."""
    return sum(row.wait_ns + row.hold_ns for row in rows if row.step.startswith(prefixes))


def _counts(result: RunResult) -> dict[tuple[int, int], int]:
    """Ended operations by kind and phase."""
    pairs = result.operations["kind"].astype(np.int64) * 4 + result.operations["phase"]
    counts = np.bincount(pairs)
    return {divmod(int(pair), 4): int(counts[pair]) for pair in np.flatnonzero(counts)}


def _column(jobs: dict[str, Any], name: str) -> IntArray:
    column: IntArray = jobs[name]
    return column


def utilisation(result: RunResult, scenario: Scenario) -> dict[str, float]:
    """Share of the run that every shared resource was busy, the drain included."""
    utterances = max(1, len(result.cuts.session))
    per_utterance = demands(result, scenario)
    return {
        name: busy * utterances / max(1, result.ended_ns) for name, busy in per_utterance.items()
    }


def shared_demands(result: RunResult, scenario: Scenario) -> dict[str, float]:
    """
    Busy nanoseconds per session of every shared resource, without the work that time brings.

    Heartbeats and scans cost the same however few sessions there are; in a pilot at a very low rate
    they would seem to belong to the few utterances.
    """
    own = [row for row in result.steps if row.kind not in _BACKGROUND]
    redis_all = sum(row.count for row in result.steps if row.resource == RESOURCE_REDIS)
    redis_own = sum(row.count for row in own if row.resource == RESOURCE_REDIS)
    share = redis_own / redis_all if redis_all else 0.0
    trimmed = replace(result, steps=own, redis_busy_ns=math.floor(result.redis_busy_ns * share))
    per_session = len(result.cuts.session) / max(1, result.sessions)
    return {name: busy * per_session for name, busy in demands(trimmed, scenario).items()}
