"""
One replication of one variant, as a worker runs it: simulate, measure, keep the columns.

What a worker sends back is plain data. Columns come as small Parquet files in memory, written while
the run goes on: a run of millions of steps needs no more memory than one of thousands.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simsched.experiments.measure import measure
from simsched.experiments.runs import Replication, Window
from simsched.models.journal import NAMES, STATUSES, WORDS
from simsched.models.record import STEP_DTYPE
from simsched.models.world import RunResult, Scenario, simulate
from simsched.steps import CATALOGUE
from simsched.telemetry import OpKind, Outcome

STEP_NAMES: Final = [step.name for step in CATALOGUE]
KIND_NAMES: Final = [kind.name.lower() for kind in OpKind]
OUTCOME_NAMES: Final = [outcome.name.lower() for outcome in Outcome]
RESOURCE_NAMES: Final = ["none", "lock", "core", "redis", "net"]

_NAME: Final = pa.dictionary(pa.int16(), pa.string())

STEPS_SCHEMA: Final = pa.schema(
    [
        ("variant", _NAME),
        ("replication", pa.int32()),
        ("start_ns", pa.int64()),
        ("wait_ns", pa.int64()),
        ("hold_ns", pa.int64()),
        ("operation", pa.int64()),
        ("kind", _NAME),
        ("phase", pa.int8()),
        ("step", _NAME),
        ("site", pa.int16()),
        ("n", pa.int64()),
        ("resource", _NAME),
        ("instance", pa.int16()),
    ]
)

PARQUET: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["variant", "kind", "step", "resource", "outcome", "session", "target",
                       "node", "reason", "status"],
    "write_statistics": False,
}  # fmt: skip


class Named(Protocol):
    """Says whose columns are written."""

    @property
    def variant(self) -> str: ...
    @property
    def replication(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One replication to be run; without a window it comes back unmeasured."""

    variant: str
    replication: int
    seed: int
    scenario: Scenario
    window: Window | None
    keep_steps: bool


@dataclass(slots=True, kw_only=True)
class Finished:
    """One replication that was run: measured, or raw; and its columns as Parquet files."""

    variant: str
    replication: int
    digest: str
    measured: Replication | None
    raw: RunResult | None
    scenario: Scenario
    jobs: bytes
    operations: bytes
    steps: bytes

    def measured_in(self, window: Window) -> Finished:
        """The same with its metrics, if it has none yet."""
        if self.raw is None:
            return self
        self.measured = measure(self.raw, self.variant, self.scenario, window)
        self.raw = None
        return self


def run_task(task: Task) -> Finished:
    """Play and measure one replication; depends on nothing but the task."""
    try:
        return _run(task)
    except Exception as error:
        error.add_note(
            f"in variant {task.variant!r}, replication {task.replication}, seed {task.seed}"
        )
        raise


def _run(task: Task) -> Finished:
    steps = StepFile(task) if task.keep_steps else None
    sink = None if steps is None else steps.add
    result = simulate(task.scenario, seed=task.seed, replication=task.replication, sink=sink)
    window = task.window
    return Finished(
        variant=task.variant,
        replication=task.replication,
        digest=result.digest,
        measured=None if window is None else measure(result, task.variant, task.scenario, window),
        raw=result if window is None else None,
        scenario=task.scenario,
        jobs=job_file(task, result),
        operations=operation_file(task, result) if task.keep_steps else b"",
        steps=steps.close() if steps is not None else b"",
    )


class StepFile:
    """Every step of a run, written chunk by chunk."""

    def __init__(self, task: Named) -> None:
        self._task = task
        self._buffer = io.BytesIO()
        self._writer = pq.ParquetWriter(self._buffer, STEPS_SCHEMA, **PARQUET)

    def add(self, chunk: npt.NDArray[np.void]) -> None:
        """Write one chunk; its columns are copied."""
        assert chunk.dtype == STEP_DTYPE
        length = len(chunk)
        kind_phase = chunk["kind_phase"]
        columns = [
            constant(self._task.variant, length),
            pa.array(np.full(length, self._task.replication, np.int32)),
            pa.array(np.ascontiguousarray(chunk["start_ns"])),
            pa.array(np.ascontiguousarray(chunk["wait_ns"])),
            pa.array(np.ascontiguousarray(chunk["hold_ns"])),
            pa.array(chunk["op"].astype(np.int64)),
            named(kind_phase >> 2, KIND_NAMES),
            pa.array((kind_phase & 3).astype(np.int8)),
            named(chunk["step"], STEP_NAMES),
            pa.array(chunk["site"].astype(np.int16)),
            pa.array(chunk["n"].astype(np.int64)),
            named(chunk["resource"], RESOURCE_NAMES),
            pa.array(chunk["instance"].astype(np.int16)),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=STEPS_SCHEMA))

    def close(self) -> bytes:
        """The whole file."""
        self._writer.close()
        return self._buffer.getvalue()


def constant(name: str, length: int) -> pa.DictionaryArray:
    """A column that says the same name everywhere."""
    return named(np.zeros(length, np.int16), [name])


def named(indices: npt.NDArray[Any], names: list[str]) -> pa.DictionaryArray:
    """A column of names by their numbers."""
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int16)), pa.array(names))


def job_file(task: Named, result: RunResult) -> bytes:
    """The jobs of a run as a Parquet file."""
    columns: dict[str, Any] = dict(result.jobs)
    status = columns.pop("status")
    table = {
        "variant": constant(task.variant, len(status)),
        "replication": np.full(len(status), task.replication, np.int32),
        **columns,
        **{name: pa.array(columns[name], pa.string()) for name in (*NAMES, *WORDS)},
        "status": named(status, list(STATUSES)),
    }
    return _whole(pa.table(table))


def operation_file(task: Named, result: RunResult) -> bytes:
    """The operations of a run as a Parquet file."""
    columns = result.operations
    length = len(columns["op"])
    table = {
        "variant": constant(task.variant, length),
        "replication": np.full(length, task.replication, np.int32),
        "operation": columns["op"],
        "kind": named(columns["kind"], KIND_NAMES),
        "phase": columns["phase"].astype(np.int8),
        "start_ns": columns["start_ns"],
        "latency_ns": columns["latency_ns"],
        "outcome": named(columns["outcome"], OUTCOME_NAMES),
    }
    return _whole(pa.table(table))


def _whole(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **PARQUET)
    return buffer.getvalue()
