"""
The tables of one replication as a trace needs them: jobs at once, operations and steps in batches.

A run has hundreds of steps for each job: jobs are kept, steps and operations only pass by. What
cannot be shown is said in one line that names what would be right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simsched.errors import ConfigError, SimschedError
from simsched.experiments.loading import Run
from simsched.models.fields import meant
from simsched.models.journal import TIMES

BATCH_ROWS: Final = 1 << 13
"""Rows read at a time."""

EXAMPLES: Final = 5
"""Jobs that an error names."""


class StepRow(NamedTuple):
    """One executed step: it waited, then held what it contended for."""

    operation: int
    start_ns: int
    wait_ns: int
    hold_ns: int
    kind: str
    step: str
    site: int
    n: int
    resource: str
    instance: int

    @property
    def end_ns(self) -> int:
        """When it was over."""
        return self.start_ns + self.hold_ns


class OperationRow(NamedTuple):
    """One operation; only recordings know its session."""

    operation: int
    kind: str
    phase: int
    start_ns: int
    latency_ns: int
    outcome: str
    session: str

    @property
    def end_ns(self) -> int:
        """When it was over."""
        return self.start_ns + self.latency_ns


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job; a moment that never came is -1. `number` is its place in the table, from 1."""

    number: int
    job: str
    session: str
    utterance: int
    target: str
    node: str
    attempts: int
    status: str
    reason: str
    cut_ns: int
    created_ns: int
    queued_ns: int
    dispatched_ns: int
    started_ns: int
    finished_ns: int
    ended_ns: int
    delivered_ns: int

    @property
    def last_ns(self) -> int:
        """Its last known moment."""
        return max(int(getattr(self, name)) for name in TIMES)

    @property
    def is_over(self) -> bool:
        """Whether it has ended and its answer has left."""
        return self.ended_ns >= 0 and self.delivered_ns >= 0


class Tables:
    """The tables of one variant's replication."""

    def __init__(self, run: Run, variant: str, replication: int) -> None:
        self.run = run
        self.variant = variant
        self.replication = replication

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    def jobs(self) -> list[JobRow]:
        """Every job, in the order of the table."""
        columns = JobRow.__slots__[1:]
        rows = self._rows("jobs", columns)
        return [JobRow(number, *row) for number, row in enumerate(rows, 1)]

    def operations(self) -> Iterator[OperationRow]:
        """Every operation, in the order of their ends."""
        file = self._file("operations")
        known = "session" in file.schema_arrow.names
        columns = OperationRow._fields if known else OperationRow._fields[:-1]
        session = () if known else ("",)
        for row in self._rows("operations", columns):
            yield OperationRow(*row, *session)

    def steps(self) -> Iterator[StepRow]:
        """Every step, in the order of their ends."""
        for row in self._rows("steps", StepRow._fields):
            yield StepRow(*row)

    def extra(self, name: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        """A table that only recordings have; nothing if it is not there."""
        path = self.path / f"{name}.parquet"
        if path.exists():
            for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=list(columns)):
                yield from zip(*(batch.column(c).to_pylist() for c in columns), strict=True)

    def require_steps(self) -> None:
        """
        See to it that there is something to draw.

        Raises:
            SimschedError: the run kept no steps, or none of this replication.

        """
        for name in ("steps", "operations"):
            if not (self.path / f"{name}.parquet").exists():
                raise SimschedError(
                    f"{self.path}: the run kept no steps, which a trace is made of: run it again "
                    "with keep_steps = true in the study, or with --set keep_steps=true"
                )
        if self.replication != 0:
            raise SimschedError(
                f"{self.path}: of replication {self.replication} no steps were kept: "
                "only --replication 0 has them"
            )

    def _file(self, name: str) -> Any:
        path = self.path / f"{name}.parquet"
        try:
            return pq.ParquetFile(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SimschedError(f"{path}: cannot be read: {error}") from None

    def _rows(self, name: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        if not (self.path / f"{name}.parquet").exists():
            return
        file = self._file(name)
        for batch in file.iter_batches(
            BATCH_ROWS, columns=list(dict.fromkeys(("variant", "replication", *columns)))
        ):
            mine = pc.and_(
                pc.equal(batch.column("variant").cast(pa.string()), self.variant),
                pc.equal(batch.column("replication"), self.replication),
            )
            if pc.any(mine).as_py():
                kept = batch.filter(mine)
                yield from zip(*(kept.column(c).to_pylist() for c in columns), strict=True)


def variants_of(run: Run) -> list[str]:
    """The names of the run's variants, in the study's order."""
    return [entry["name"] for entry in run.manifest["study"]["variants"]]


def tables_for(run: Run, variant: str | None, replication: int, job: str | None) -> Tables:
    """
    What was asked for: a variant, or the first one; with a job, the first one that has it.

    Raises:
        ConfigError: there is no such variant, replication or job.
        SimschedError: it kept no steps.

    """
    known = variants_of(run)
    where = f"trace {run.path}"
    if variant is not None and variant not in known:
        raise ConfigError(where, "--variant", f"{variant!r} is no variant; {meant(variant, known)}")
    first = known[0] if variant is None else variant
    own = run.manifest["replications"][first]["own"]
    if not 0 <= replication < own:
        raise ConfigError(
            where, "--replication", f"must be 0 to {own - 1} in {first!r}, not {replication}"
        )
    candidates = known if variant is None and job is not None else [first]
    named = [Tables(run, name, replication) for name in candidates]
    named[0].require_steps()
    if job is None:
        return named[0]
    for tables in named:
        if any(row.job == job for row in tables.jobs()):
            return tables
    raise ConfigError(where, "--job", _no_such_job(named, job))


def _no_such_job(searched: list[Tables], job: str) -> str:
    names = list(dict.fromkeys(row.job for tables in searched for row in tables.jobs()))
    variants = " or ".join(repr(tables.variant) for tables in searched)
    if not names:
        return f"{job!r} is no job: {variants} has none at all"
    listed = ", ".join(names[:EXAMPLES])
    return f"{job!r} is no job of {variants}; there are {len(names)}: {listed}, ..."
