"""
`simsched canary DIR`: whether the canary's sessions fared otherwise than the others.

The unit of evidence is the session: its utterances share a speaker, a node pool and a mood of the
machine, so each session gives one mean per metric, and means are compared by Welch's t, which asks
for no equal variances (Welch, Biometrika 34, 1947). With several metrics the level of each interval
is raised (Bonferroni), so that the whole table errs once in twenty at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simsched.canary import BASE, CANARY
from simsched.errors import SimschedError
from simsched.experiments.intervals import LEVEL, bonferroni, mean, t_quantile, variance
from simsched.experiments.loading import load_run
from simsched.experiments.recorded import is_recording

if TYPE_CHECKING:
    import pandas as pd

SESSIONS_MIN: Final = 5
"""With fewer sessions on a side its interval says nothing."""

OPERATIONS: Final = ("create_job", "dispatch", "job_result", "audio_chunk", "finalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """
    One metric: mean over sessions on both sides, and canary minus base with its half width.

    `verdict` is better, worse, no difference shown, or too few sessions.
    """

    metric: str
    unit: str
    base: float
    canary: float
    sessions: tuple[int, int]
    difference: float
    half_width: float
    verdict: str


def welch(base: Sequence[float], canary: Sequence[float], level: float) -> tuple[float, float]:
    """The difference of two means (canary - base) and the half width of its interval."""
    difference = mean(canary) - mean(base)
    shares = [variance(base) / len(base), variance(canary) / len(canary)]
    total = math.fsum(shares)
    if total == 0.0:
        return difference, 0.0
    parts = (
        share * share / (len(side) - 1) for share, side in zip(shares, (base, canary), strict=True)
    )
    degrees = max(1, math.floor(total * total / math.fsum(parts)))
    return difference, t_quantile(level, degrees) * math.sqrt(total)


def compare(path: str | Path) -> list[Difference]:
    """
    Base against canary, every metric that both sides have.

    Raises:
        SimschedError: no recording, or one without a canary.

    """
    folder = Path(path)
    if not is_recording(folder):
        raise SimschedError(f"{folder}: is no recording: simsched serve --record DIR makes one")
    run = load_run(folder)
    if run.manifest["recording"]["canary"] is None:
        raise SimschedError(f"{folder}: was recorded without a canary: nothing to compare")
    metrics = _per_session(run.jobs, run.operations)
    level = bonferroni(LEVEL, len(metrics)) if metrics else LEVEL
    return [_difference(name, *entry, level) for name, entry in metrics.items()]


def _per_session(
    jobs: pd.DataFrame, operations: pd.DataFrame
) -> dict[str, tuple[str, list[float], list[float]]]:
    """Metric -> unit and the sessions' means on both sides; smaller is better in all of them."""
    found: dict[str, tuple[str, list[float], list[float]]] = {}
    answered = jobs[jobs["delivered_ns"].notna()]
    waits = (answered["delivered_ns"] - answered["cut_ns"]).astype("float64") / 1e6
    found["end_to_end"] = ("ms", *_sides(answered, waits))
    failed = (jobs["status"] == "failed").astype("float64")
    found["failed_share"] = ("1", *_sides(jobs, failed))
    queued = jobs["queued_ns"].notna().astype("float64")
    found["waited_share"] = ("1", *_sides(jobs, queued))
    for kind in OPERATIONS:
        rows = operations[(operations["kind"] == kind) & (operations["session"] != "")]
        found[kind] = ("ms", *_sides(rows, rows["latency_ns"].astype("float64") / 1e6))
    return {name: entry for name, entry in found.items() if entry[1] and entry[2]}


def _sides(rows: Any, values: Any) -> tuple[list[float], list[float]]:
    means = values.groupby([rows["policy"].astype(str), rows["session"].astype(str)]).mean()
    sides = []
    for policy in (BASE, CANARY):
        here = means.index.get_level_values(0) == policy
        sides.append([float(value) for value in means[here]])
    return sides[0], sides[1]


def _difference(
    metric: str, unit: str, base: list[float], canary: list[float], level: float
) -> Difference:
    sessions = (len(base), len(canary))
    if min(sessions) < SESSIONS_MIN:
        verdict, half, difference = "too few sessions", math.inf, mean(canary) - mean(base)
    else:
        difference, half = welch(base, canary, level)
        if abs(difference) <= half:
            verdict = "no difference shown"
        else:
            verdict = "better" if difference < 0 else "worse"
    return Difference(
        metric=metric, unit=unit, base=mean(base), canary=mean(canary), sessions=sessions,
        difference=difference, half_width=half, verdict=verdict,
    )  # fmt: skip


def overall(differences: Sequence[Difference]) -> str:
    """One line for people in a hurry: a single metric that got worse is enough to stop."""
    by_verdict: dict[str, list[str]] = {}
    for difference in differences:
        by_verdict.setdefault(difference.verdict, []).append(difference.metric)
    if "worse" in by_verdict:
        return f"stop: the canary is worse in {', '.join(by_verdict['worse'])}"
    if not differences or "too few sessions" in by_verdict:
        return f"wait: fewer than {SESSIONS_MIN} sessions on a side"
    if "better" in by_verdict:
        return f"go: better in {', '.join(by_verdict['better'])}, worse in nothing"
    return "no difference shown: neither better nor worse by more than the intervals"


def table(differences: Sequence[Difference]) -> list[list[str]]:
    """Rows for people: metric, both sides, canary - base with its interval, verdict."""
    return [
        [
            f"{row.metric} ({row.unit})",
            f"{row.base:.4g} (n={row.sessions[0]})",
            f"{row.canary:.4g} (n={row.sessions[1]})",
            f"{row.difference:+.4g} +- {row.half_width:.2g}",
            row.verdict,
        ]
        for row in differences
    ]
