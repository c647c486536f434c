"""
The report's appendices, recomputed: calls, locks and Redis operations, and what it does not price.

What was called, held and waited for under `published`, beside the appendix's own figures. Nothing
here judges: `report_verdicts` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from simsched.experiments.figures import Range, figures
from simsched.experiments.report_tables import DASH, NS_PER_MS, Table, headed, span
from simsched.experiments.report_verdicts import BASE, jobs_of, name_of, phases
from simsched.experiments.runs import StudyRun, VariantRun
from simsched.experiments.wording import Wording
from simsched.models.prices import CostModel
from simsched.models.record import RESOURCE_LOCK, RESOURCE_REDIS, CallTotals
from simsched.models.world import StepRow
from simsched.steps import CATALOGUE
from simsched.telemetry import OpKind

KINDS: Final = {
    "create_job": OpKind.CREATE_JOB,
    "job_result": OpKind.JOB_RESULT,
    "audio_chunk": OpKind.AUDIO_CHUNK,
}


def calls(run: StudyRun, say: Wording) -> Table:
    """Appendix A: how often each method is called, fewest to most per operation."""
    title, columns = headed(
        say, "calls", "section", "method", "operation", "stated1", "seen1", "stated2", "seen2",
        "followed",
    )  # fmt: skip
    rows = []
    for row in figures().call:
        cells: list[str] = []
        for phase in (1, 2):
            seen = _calls_seen(run, row.operation, row.method, phase)
            cells += [span(row.of_phase(phase), ""), DASH if seen is None else span(seen, "")]
        why = say(f"followed.{row.method}.{row.operation}", "followed.appendix")
        rows.append((row.section, row.method, say(f"operation.{row.operation}"), *cells, why))
    return Table(
        id="calls", section="A", title=title, columns=columns, rows=tuple(rows),
        note=say("calls.note"),
    )  # fmt: skip


def _calls_seen(run: StudyRun, operation: str, method: str, phase: int) -> Range | None:
    """Fewest and most calls of a method, over all replications of `published`."""
    if phase not in phases(run):
        return None
    steps = [step.index for step in CATALOGUE if step.method == method]
    low: list[int] = []
    high: list[int] = []
    for replication in run.variants[name_of(phase, BASE)].replications:
        kind = int(KINDS[operation])
        counted = replication.calls.get((kind, phase)) or replication.calls.get((kind, 0)) or {}
        mine = [counted[step] for step in steps if step in counted]
        low.append(sum(totals.fewest for totals in mine))
        high.append(sum(totals.most for totals in mine))
    return float(min(low)), float(max(high))


def locks(run: StudyRun, say: Wording) -> Table:
    """Appendix B: holds, waits and contention of each lock under `published`."""
    title, columns = headed(
        say, "locks", "lock", "phase", "stated_mean", "seen_mean", "stated_max", "seen_max",
        "wait_mean", "wait_max", "stated_contention", "seen_contention",
    )  # fmt: skip
    rows = []
    for lock in figures().lock:
        for phase in phases(run):
            mine = [
                row
                for row in _steps(run.variants[name_of(phase, BASE)])
                if row.lock == lock.name and row.resource == RESOURCE_LOCK
            ]
            rows.append(
                (lock.name, str(phase), span(lock.mean), *_lock_cells(mine, lock.most, say),
                 say(f"level.{lock.contention}"), _share(mine))
            )  # fmt: skip
    return Table(
        id="locks", section="B.1", title=title, columns=columns, rows=tuple(rows),
        note=say("locks.note"),
    )  # fmt: skip


def _lock_cells(rows: Sequence[StepRow], most: Range, _say: Wording) -> tuple[str, ...]:
    count = max(1, sum(row.count for row in rows))
    return (
        _ms(sum(row.hold_ns for row in rows) / count),
        span(most),
        _ms(max((row.hold_ns_max for row in rows), default=0)),
        _ms(sum(row.wait_ns for row in rows) / count),
        _ms(max((row.wait_ns_max for row in rows), default=0)),
    )


def _share(rows: Sequence[StepRow]) -> str:
    count = sum(row.count for row in rows)
    return f"{100 * sum(row.contended for row in rows) / count:.1f} %" if count else DASH


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / NS_PER_MS:.2f} ms"


def _steps(variant: VariantRun) -> Iterable[StepRow]:
    return (row for replication in variant.replications for row in replication.steps)


def redis(run: StudyRun, say: Wording) -> Table:
    """Appendix C: Redis operations of a phase-2 creation; what it leaves out comes below."""
    title, columns = headed(
        say, "redis", "redis_operation", "stated_calls", "seen_calls", "stated_each",
        "seen_each", "stated_total", "seen_total",
    )  # fmt: skip
    stated = figures().redis
    rows: list[tuple[str, ...]] = []
    if 2 in phases(run):
        base = run.variants[name_of(2, BASE)]
        seen = _redis_seen(base)
        known = {row.step for row in stated}
        for row in stated:
            cells = _redis_cells(seen, [row.step])
            rows.append(
                (row.operation, str(row.calls), cells[0], span(row.each), cells[1],
                 span(row.total), cells[2])
            )  # fmt: skip
        total = figures().redis_total
        listed = _redis_cells(seen, [row.step for row in stated])
        rows.append(
            (say("redis.listed"), str(total.calls), listed[0], DASH, listed[1],
             span(total.total), listed[2])
        )  # fmt: skip
        others = [step for step in seen if step not in known]
        for step in others:
            cells = _redis_cells(seen, [step])
            rows.append((step, DASH, cells[0], DASH, cells[1], DASH, cells[2]))
        whole = _redis_cells(seen, list(seen))
        rows.append((say("redis.whole"), DASH, whole[0], DASH, whole[1], DASH, whole[2]))
    return Table(
        id="redis", section="C.1", title=title, columns=columns, rows=tuple(rows),
        note=say("redis.note"),
    )  # fmt: skip


def _redis_seen(base: VariantRun) -> dict[str, tuple[float, float]]:
    """Redis steps of a creation and of its dispatch: calls and ms per job, by step."""
    jobs = max(1, jobs_of(base))
    counted: dict[str, list[int]] = {}
    for row in _steps(base):
        if row.resource == RESOURCE_REDIS and row.kind in (OpKind.CREATE_JOB, OpKind.DISPATCH):
            name = row.step if row.kind == OpKind.CREATE_JOB else f"{row.step} (dispatch)"
            entry = counted.setdefault(name, [0, 0])
            entry[0] += row.count
            entry[1] += row.hold_ns + row.wait_ns
    return {name: (count / jobs, ns / NS_PER_MS / jobs) for name, (count, ns) in counted.items()}


def _redis_cells(
    seen: dict[str, tuple[float, float]], names: Sequence[str]
) -> tuple[str, str, str]:
    number = math.fsum(seen.get(name, (0.0, 0.0))[0] for name in names)
    total = math.fsum(seen.get(name, (0.0, 0.0))[1] for name in names)
    each = f"{total / number:.2f} ms" if number else DASH
    return f"{number:.2f}", each, f"{total:.2f} ms"


def unpriced(_run: StudyRun, say: Wording) -> Table:
    """Steps whose cost the report does not state: their figures and where they come from."""
    title, columns = headed(say, "unpriced", "cost_key", "source")
    model = CostModel.load("report")
    rows = tuple(
        (key, " ".join(model.prices[key].source.split())) for key in model.not_priced_by_report()
    )
    return Table(
        id="unpriced", section=DASH, title=title, columns=columns, rows=rows,
        note=say("unpriced.note"),
    )  # fmt: skip


def call_totals(run: StudyRun, variant: str, kind: OpKind, phase: int, step: str) -> CallTotals:
    """One step's calls over all replications of a variant."""
    whole = CallTotals()
    index = next(entry.index for entry in CATALOGUE if entry.name == step)
    for replication in run.variants[variant].replications:
        totals = replication.calls.get((int(kind), phase), {}).get(index)
        if totals is not None:
            whole.calls += totals.calls
            whole.operations_with += totals.operations_with
            whole.most = max(whole.most, totals.most)
    return whole


def hold_per_call_ms(run: StudyRun, variant: str, step: str) -> float:
    """Mean service time of a step over all replications of a variant."""
    rows = [row for row in _steps(run.variants[variant]) if row.step == step]
    count = sum(row.count for row in rows)
    return sum(row.hold_ns for row in rows) / count / NS_PER_MS if count else 0.0
