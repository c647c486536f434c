"""
Recordings of a live server (`simsched serve --record DIR`), turned into run directories.

The raw files say what happened; here they become the tables, metrics and checks of a simulated
run, written beside them: `simsched.load(DIR)` does it when needed. There is one variant, `live`;
jobs and operations say in the column `policy` whether their session ran the base or the canary.

Besides the tables of every run a recording has three more: `connections.parquet` (at_ns, kind,
name, what, detail), `lag.parquet` (at_ns, lag_ns: how late the event loop was) and
`decisions.parquet` (at_ns, session, utterance, source, target, chosen, excluded, nodes_known).

A killed server leaves the last line or record half written: what is not whole is left out.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simsched.canary import BASE, Canary
from simsched.errors import SimschedError
from simsched.experiments import results
from simsched.experiments.measure import basic_metrics, replication_of
from simsched.experiments.replicate import PARQUET, StepFile, job_file, operation_file
from simsched.experiments.runs import Replication, StudyRun, VariantRun, Window
from simsched.invariants import Checker, CheckSettings
from simsched.models.journal import Journal
from simsched.models.record import (
    CHUNK_RECORDS,
    RESOURCE_CORE,
    RESOURCE_REDIS,
    STEP_DTYPE,
    OperationRecorder,
    StepRecorder,
)
from simsched.models.world import RunResult, step_rows
from simsched.policy import Policy
from simsched.steps import BY_NAME
from simsched.telemetry import AnyEvent, Event, JobAccepted, OpKind, ResultReceived, SessionOpened
from simsched.units import MS

HEADER: Final = "recording.json"
RAW_FORMAT: Final = 1
VARIANT: Final = "live"
EXTRA_TABLES: Final = ("connections", "lag", "decisions")

OPERATION_DTYPE: Final = np.dtype(
    [
        ("op", "<i8"),
        ("start_ns", "<i8"),
        ("latency_ns", "<i8"),
        ("session", "<u4"),  # line of sessions.txt
        ("kind_phase", "u1"),
        ("outcome", "u1"),
        ("unused", "<u2"),
    ]
)
LAG_DTYPE: Final = np.dtype([("at_ns", "<i8"), ("lag_ns", "<i8")])
EXAMPLES_MAX: Final = 20

Chunk = npt.NDArray[np.void]


def is_recording(path: Path) -> bool:
    """Whether a live server recorded into this folder."""
    return (path / HEADER).is_file()


def refresh(path: Path) -> None:
    """
    Make the run directory of a recording, unless it is there and nothing was added since.

    Raises:
        SimschedError: the recording cannot be read.

    """
    size = _raw_bytes(path)
    try:
        known = json.loads((path / results.MANIFEST).read_bytes())["recording"]["raw_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        known = -1
    if known != size:
        _Recording(path, size).convert()


def _raw_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _raw_files(path))


def _raw_files(path: Path) -> list[Path]:
    suffixes = (".bin", ".jsonl", ".txt")
    return sorted(file for file in path.iterdir() if file.suffix in suffixes)


def header_of(path: Path) -> dict[str, Any]:
    """
    What a recording says of itself.

    Raises:
        SimschedError: it cannot be read, or is of another format.

    """
    try:
        header = json.loads((path / HEADER).read_bytes())
    except (OSError, ValueError) as error:
        raise SimschedError(f"{path / HEADER}: cannot be read: {error}") from None
    if not isinstance(header, dict) or header.get("format") != RAW_FORMAT:
        raise SimschedError(f"{path}: is a recording of another format than {RAW_FORMAT}")
    return header


def canary_of_recording(header: Mapping[str, Any]) -> Canary | None:
    """The canary that the server ran, if it did."""
    canary = header["canary"]
    if canary is None:
        return None
    return Canary(policy=Policy(**canary["policy"]), share_ppm=canary["share_ppm"])


def check_settings(header: Mapping[str, Any]) -> CheckSettings:
    """The bounds that hold for all sessions, whichever policy they ran."""
    policies = [Policy(**header["policy"])]
    canary = canary_of_recording(header)
    if canary is not None:
        policies.append(canary.policy)
    return CheckSettings(
        **header["check"],
        pending_ns=max(policy.pending_ms for policy in policies) * MS,
        job_timeout_ns=max(policy.job_timeout_ms for policy in policies) * MS,
        failover_max=max(policy.failover_max for policy in policies),
        gap_ns=max(policy.gap_ms for policy in policies) * MS,
    )


class _Recording:
    """One conversion."""

    def __init__(self, path: Path, raw_bytes: int) -> None:
        self._path = path
        self._raw_bytes = raw_bytes
        self._header = header_of(path)
        self._canary = canary_of_recording(self._header)
        self._named = SimpleNamespace(variant=VARIANT, replication=0)
        self._recorder_operations = OperationRecorder()
        self._step_file = StepFile(self._named)
        self._recorder = StepRecorder(
            sink=self._step_file.add, operations=self._recorder_operations
        )
        self._checker = Checker(check_settings(self._header))
        self._last_ns = 0
        self._journal = Journal(self._recorder, self._checker, lambda: self._last_ns)
        self._accepted: dict[str, int] = {}
        self._answered: dict[str, int] = {}
        self._sessions_opened = 0

    def convert(self) -> None:
        """Write tables, summary and manifest."""
        operations = self._array("operations.bin", OPERATION_DTYPE)
        self._take_steps(operations)
        self._take_events()
        self._take_counts()
        ends = operations["start_ns"] + operations["latency_ns"]
        self._last_ns = max(self._last_ns, int(ends.max()) if len(ends) else 0)
        self._checker.finish(self._last_ns)
        result = self._result()
        run, replication = self._run(result)
        with results.replaced(self._path) as out:
            self._write_tables(out, run, replication, result, operations)
            (out / results.SUMMARY).write_bytes(results.as_json(results.summary(run, [])))
            (out / results.MANIFEST).write_bytes(results.as_json(self._manifest(run, result)))

    # Reading

    def _array(self, name: str, dtype: np.dtype[Any]) -> Chunk:
        """A binary file's whole records."""
        file = self._path / name
        whole = file.stat().st_size // dtype.itemsize if file.exists() else 0
        if not whole:
            return np.zeros(0, dtype)
        return np.memmap(file, dtype, "r", shape=(whole,))

    def _lines(self, name: str) -> Iterator[bytes]:
        """A text file's whole lines."""
        file = self._path / name
        if not file.exists():
            return
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def _take_steps(self, operations: Chunk) -> None:
        """All steps, and every operation as soon as all its steps are in."""
        books = self._recorder_operations
        last_op = int(operations["op"].max()) if len(operations) else 0
        for _ in range(last_op):
            books.begin()
        steps = self._array("steps.bin", STEP_DTYPE)
        number = _renumbered(self._header["steps"])
        ends = operations["start_ns"] + operations["latency_ns"]
        ended = 0
        for first in range(0, len(steps), CHUNK_RECORDS):
            chunk = np.array(steps[first : first + CHUNK_RECORDS])
            chunk["step"] = number[chunk["step"]]
            is_last = first + CHUNK_RECORDS >= len(steps)
            until = chunk["start_ns"][-1] + chunk["hold_ns"][-1]
            upto = len(ends) if is_last else int(np.searchsorted(ends, until, "right"))
            self._end_operations(operations[ended:upto], ends[ended:upto])
            ended = max(ended, upto)
            self._recorder.add_chunk(chunk)
        self._end_operations(operations[ended:], ends[ended:])

    def _end_operations(self, operations: Chunk, ends: npt.NDArray[np.int64]) -> None:
        for row, end in zip(operations.tolist(), ends.tolist(), strict=True):
            number, start, _, _, kind_phase, outcome, _ = row
            op = SimpleNamespace(
                id=number, started_ns=start, kind=kind_phase >> 2, phase=kind_phase & 3
            )
            self._recorder_operations.end(op, end, outcome)

    def _take_events(self) -> None:
        decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(AnyEvent)
        for number, line in enumerate(self._lines("events.jsonl"), 1):
            try:
                event = decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise SimschedError(f"{self._path}/events.jsonl: line {number}: {error}") from None
            self._last_ns = max(self._last_ns, event.at_ns)
            self._journal.event(event)
            if isinstance(event, JobAccepted):
                self._accepted.setdefault(event.job, event.at_ns)
            elif isinstance(event, ResultReceived):
                self._answered[event.job] = event.at_ns
            elif isinstance(event, SessionOpened):
                self._sessions_opened += 1

    def _take_counts(self) -> None:
        for line in self._lines("counts.jsonl"):
            name, amount = json.loads(line)
            self._journal.count(name, amount)

    # The run

    def _result(self) -> RunResult:
        books, checker = self._recorder_operations, self._checker
        rows = step_rows(self._recorder)
        jobs = self._journal.jobs()
        self._nodes_part(jobs)
        return RunResult(
            replication=0,
            digest=self._recorder.digest(),
            ended_ns=self._last_ns,
            warm_ns=0,
            operations=books.columns(),
            jobs=jobs,
            steps=rows,
            calls={
                (kind, phase): books.calls(kind, phase) for kind in OpKind for phase in (0, 1, 2)
            },
            violations=dict(checker.counts),
            checked=dict(checker.checked),
            examples=[(v.invariant, v.at_ns, v.text) for v in checker.violations[:EXAMPLES_MAX]],
            conservation=checker.conservation(),
            cuts=self._journal.cuts(),
            counters=self._journal.counters,
            redis_busy_ns=sum(row.hold_ns for row in rows if row.resource == RESOURCE_REDIS),
            node_busy_ns=0,
            steps_recorded=self._recorder.recorded,
            chunks=books.ended(OpKind.AUDIO_CHUNK),
            sessions=self._sessions_opened,
        )

    def _nodes_part(self, jobs: dict[str, Any]) -> None:
        """A server knows only what nodes say: started is acknowledged, finished is answered."""
        names = jobs["job"]
        for column, moments in (("started_ns", self._accepted), ("finished_ns", self._answered)):
            jobs[column] = np.array([moments.get(name, -1) for name in names], np.int64)

    def _run(self, result: RunResult) -> tuple[StudyRun, Replication]:
        window = Window(0, None)
        busy = sum(row.hold_ns for row in result.steps if row.resource == RESOURCE_CORE)
        shares = {"cores": busy / max(1, result.ended_ns)}
        metrics = basic_metrics(result, window) | {"busy:cores": shares["cores"]}
        replication = replication_of(result, VARIANT, metrics, shares)
        variant = VariantRun(VARIANT, None, [replication])
        run = StudyRun("recording", 0, {VARIANT: variant}, {VARIANT: window})
        return run, replication

    # Writing

    def _write_tables(
        self,
        out: Path,
        run: StudyRun,
        replication: Replication,
        result: RunResult,
        operations: Chunk,
    ) -> None:
        sessions = [line.decode() for line in self._lines("sessions.txt")]
        whose = {int(op): int(line) for op, line in zip(operations["op"], operations["session"],
                                                        strict=True)}  # fmt: skip
        lines = [whose.get(int(op), -1) for op in result.operations["op"]]
        names = [sessions[line] if 0 <= line < len(sessions) else "" for line in lines]
        finished = SimpleNamespace(
            jobs=self._with_policy(job_file(self._named, result), None),
            operations=self._with_policy(operation_file(self._named, result), names),
            steps=self._step_file.close(),
        )
        folder: Any = SimpleNamespace(read=lambda _variant, _replication: finished)
        results.write_tables(out, run, folder)
        self._write_extra(out)

    def _with_policy(self, file: bytes, sessions: list[str] | None) -> bytes:
        """The same table with the sessions, if given, and which policy each ran."""
        table = pq.read_table(io.BytesIO(file))
        if sessions is None:
            sessions = table.column("session").to_pylist()
        else:
            table = table.append_column("session", pa.array(sessions, pa.string()))
        variant = self._canary.variant if self._canary else lambda _session: BASE
        policies = pa.array([variant(name) for name in sessions], pa.string())
        table = table.append_column("policy", policies.dictionary_encode())
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **PARQUET)
        return buffer.getvalue()

    def _write_extra(self, out: Path) -> None:
        lag = self._array("lag.bin", LAG_DTYPE)
        tables = {
            "lag": {name: np.ascontiguousarray(lag[name]) for name in ("at_ns", "lag_ns")},
            "connections": self._columns(
                "connections.jsonl", ("at_ns", "kind", "name", "what", "detail")
            ),
            "decisions": self._columns(
                "decisions.jsonl",
                ("at_ns", "session", "utterance", "source", "target", "chosen", "excluded",
                 "nodes_known"),
            ),
        }  # fmt: skip
        for name, columns in tables.items():
            table = pa.table(columns)
            pq.write_table(table, out / f"{name}.parquet", compression="zstd")

    def _columns(self, name: str, columns: tuple[str, ...]) -> dict[str, list[Any]]:
        rows = [json.loads(line) for line in self._lines(name)]
        return {column: [row[place] for row in rows] for place, column in enumerate(columns)}

    def _manifest(self, run: StudyRun, result: RunResult) -> dict[str, Any]:
        header = self._header
        packages = {name: version(name) for name in results.PACKAGES}
        return {
            "format": results.FORMAT,
            "command": "simsched serve --record DIR",
            "digest": results.study_digest(run),
            "seed": 0,
            "study": {
                "name": "recording",
                "question": "What did the server do?",
                "variants": [
                    {"name": VARIANT, "base": None, "policy": header["settings"]["policy"],
                     "metric": "create_job_ms", "scenario": {}}
                ],
            },
            "versions": {
                "simsched": header["version"], "python": platform.python_version(), **packages
            },
            "warmup": {},
            "pilots": {},
            "replications": {VARIANT: {"own": 1, "run": 1, "pairs": None}},
            "recording": {
                "raw_bytes": self._raw_bytes,
                "length_ns": result.ended_ns,
                "instance": header["instance"],
                "epoch_ms": header["epoch_ms"],
                "store": header["store"],
                "settings": header["settings"],
                "policy": header["policy"],
                "canary": header["canary"],
                "counters": dict(sorted(result.counters.items())),
                "checked": result.checked,
                "conservation": result.conservation,
                "violations": [
                    {"invariant": name, "at_ns": at, "text": text}
                    for name, at, text in result.examples
                ],
            },
        }  # fmt: skip


def _renumbered(names: list[str]) -> npt.NDArray[np.uint16]:
    """Today's number of each step of the recording; steps are added between versions."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise SimschedError(f"recording: step {unknown[0]!r} is not known to this simsched")
    return np.array([BY_NAME[name].index for name in names], np.uint16)
