"""Runs of a study as a test wants them: metrics, violations and cuts by variant, no simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from simsched.experiments.runs import Replication, StudyRun, VariantRun
from simsched.models.journal import Cuts
from simsched.models.record import RESOURCE_LOCK, RESOURCE_REDIS, CallTotals
from simsched.models.world import StepRow
from simsched.steps import BY_NAME
from simsched.telemetry import OpKind

MS = 1_000_000
BASE_MS = {
    "create_job_ms": 100.0,
    "audio_chunk_ms": 16.0,
    "job_result_ms": 11.0,
    "end_to_end_ms": 1400.0,
    "snapshot_read_ms": 50.0,
    "node_selection_ms": 80.0,
    "session_lock_wait_ms": 0.5,
}


def cuts_of(sizes: Sequence[int]) -> Cuts:
    return Cuts(
        ["s-1"] * len(sizes),
        np.arange(len(sizes)),
        np.array(sizes, np.int64),
        ["Pause"] * len(sizes),
        np.zeros(len(sizes), np.int64),
    )


def step_row(
    step: str, kind: OpKind, resource: int, *, phase: int = 0, count: int = 100, hold_ms: float = 2
) -> StepRow:
    hold = round(hold_ms * MS)
    return StepRow(
        step, int(kind), phase, resource, BY_NAME[step].lock, False, count, count // 4,
        count * MS // 10, count * hold, MS, 3 * hold, 0, 0, 0, hold, hold, hold, hold,
    )  # fmt: skip


def steps_of(phase: int) -> list[StepRow]:
    create = OpKind.CREATE_JOB
    return [
        step_row("jobs.read", create, RESOURCE_LOCK, phase=phase),
        step_row("session_runtime.lock", create, RESOURCE_LOCK, phase=phase),
        step_row("snapshot.read", create, RESOURCE_LOCK, phase=phase, hold_ms=26),
        step_row("redis.get_binding", create, RESOURCE_REDIS, phase=phase, count=300, hold_ms=3),
        step_row("redis.set_binding", create, RESOURCE_REDIS, phase=phase, hold_ms=1),
        step_row("redis.fsm", OpKind.DISPATCH, RESOURCE_REDIS, hold_ms=1),
    ]


def calls_of(phase: int) -> dict[tuple[int, int], dict[int, CallTotals]]:
    bindings = 3 if phase == 2 else 0
    created = {
        BY_NAME["snapshot.read"].index: CallTotals(200, 100, 2, 2),
        BY_NAME["redis.get_binding"].index: CallTotals(100 * bindings, 100, bindings, bindings),
    }
    chunk = {BY_NAME["audio_buffer.get_last_chunk_at_ms"].index: CallTotals(300, 100, 3, 3)}
    return {(int(OpKind.CREATE_JOB), phase): created, (int(OpKind.AUDIO_CHUNK), 0): chunk}


def variant(
    name: str,
    base: str | None,
    saves: Mapping[str, Sequence[float]] | None = None,
    *,
    violations: Sequence[Mapping[str, int]] = ({}, {}, {}),
    sizes: Sequence[int] = (10, 20, 30),
    jobs: int = 100,
) -> VariantRun:
    """Three replications; `saves` is taken off the base's metrics, one figure each."""
    phase = 1 if name.startswith("phase1/") else 2
    replications = []
    for number in range(3):
        metrics = {metric: value + number for metric, value in BASE_MS.items()}
        for metric, figures in (saves or {}).items():
            metrics[metric] -= figures[number]
        for metric in ("create_job_ms", "audio_chunk_ms", "job_result_ms"):
            for percent in (50, 95, 99):
                metrics[f"{metric}_p{percent}"] = metrics[metric]
        replications.append(
            Replication(
                name, number, f"digest-{name}-{number}", metrics, steps_of(phase),
                calls_of(phase), dict(violations[number]), {}, [], {}, {}, cuts_of(sizes), jobs,
                10, 60_000 * MS,
            )
        )  # fmt: skip
    return VariantRun(name, base, replications)


def study_run(*variants: VariantRun) -> StudyRun:
    """A study of these, with `published` of both phases before them where they have none."""
    run = StudyRun("report", 1, {})
    for phase in (1, 2):
        name = f"phase{phase}/published"
        run.variants[name] = variant(name, None)
    for one in variants:
        run.variants[one.name] = one
    return run
