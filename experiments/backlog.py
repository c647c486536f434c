"""
Whether work piles up in a run: how many jobs waited, and how fast their number grew.

Read at evenly spaced moments of the window, from when utterances were cut to when a node began
with them (or the job had ended): what is being worked on is no backlog, however many nodes fill
up. A replication gives a slope; whether the slopes of all together prove an overload is for
`grows` to say, by the same rule as `warmup.overload`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from simsched.experiments.intervals import Estimate, mean, t_interval
from simsched.experiments.runs import Replication, Window
from simsched.experiments.warmup import GROWTH_LEVEL, GROWTH_SHARE_MIN
from simsched.models.world import RunResult
from simsched.units import SECOND

READINGS: Final = 40
"""Moments at which the number waiting is read."""

JOBS_MIN: Final = 1.0
"""What adds less than a job is no growth, however certain."""


def backlog(result: RunResult, window: Window) -> dict[str, float]:
    """
    Metrics of one run: mean number waiting, its growth per second, the window's length in s.

    `dispatch_*` counts from the cut to the dispatch alone: what waits for the scheduler itself.
    """
    cut, ended = (np.asarray(result.jobs[f"{name}_ns"]) for name in ("cut", "ended"))
    end = result.ended_ns if window.end_ns is None else min(window.end_ns, result.ended_ns)
    # Arrivals may stop before the horizon does; from then on everything only falls.
    end = min(end, int(cut.max())) if len(cut) else end
    if end <= window.start_ns:
        return {}
    length = end - window.start_ns
    moments = np.array([window.start_ns + length * (i + 1) // READINGS for i in range(READINGS)])
    metrics = {"window_s": length / SECOND}
    entered = np.sort(cut[cut >= 0])
    for name, moment in (("system", "started"), ("dispatch", "dispatched")):
        left = np.asarray(result.jobs[f"{moment}_ns"])
        left = np.where(left >= 0, left, ended)
        gone = np.sort(left[left >= 0])
        inside = np.searchsorted(entered, moments, "right") - np.searchsorted(
            gone, moments, "right"
        )
        metrics[f"{name}_backlog"] = int(inside.sum()) / READINGS
        metrics[f"{name}_growth_per_s"] = _slope(inside.tolist()) * READINGS / metrics["window_s"]
    return metrics


def _slope(numbers: Sequence[int]) -> float:
    """Least-squares growth from one number to the next; whole numbers up to the one division."""
    count = len(numbers)
    weighted = sum((2 * place - count + 1) * number for place, number in enumerate(numbers))
    return 6 * weighted / (count * (count * count - 1))


def grows(replications: Sequence[Replication], name: str) -> Estimate | None:
    """
    The growth per second of `system` or `dispatch`; None where it is steady, or cannot be told.

    A growth is certain when even the low end of its 99 % interval adds a quarter of the mean
    number waiting over the window, and a job at least.
    """
    slopes = [r.metrics[f"{name}_growth_per_s"] for r in replications if "window_s" in r.metrics]
    if len(slopes) < 2:
        return None
    numbers = [r.metrics[f"{name}_backlog"] for r in replications if "window_s" in r.metrics]
    length = mean([r.metrics["window_s"] for r in replications if "window_s" in r.metrics])
    added = t_interval(slopes, GROWTH_LEVEL).low * length
    if added < max(JOBS_MIN, GROWTH_SHARE_MIN * mean(numbers)):
        return None
    return t_interval(slopes, unit="1/s", method="slope per replication, t across")


def steady(replications: Sequence[Replication], name: str) -> bool:
    """
    Whether it is certain that the backlog does not grow; False as long as it cannot be told.

    Certain when even the high end of the slope's 95 % interval adds at most the mean number over
    the window (one that grows from nothing adds twice that), or two jobs.
    """
    measured = [r.metrics for r in replications if "window_s" in r.metrics]
    if len(measured) < 2:
        return False
    added = t_interval([m[f"{name}_growth_per_s"] for m in measured]).high
    added *= mean([m["window_s"] for m in measured])
    return added <= max(2 * JOBS_MIN, mean([m[f"{name}_backlog"] for m in measured]))
