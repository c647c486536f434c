"""
The run's memory of facts: every event goes to the checker, the digest and the table of jobs.

A job's row is closed when the job has ended and its answer has left, and then lives on in compact
columns. Cuts are kept as columns too, so that two variants' cuts can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from simsched.invariants import Checker
from simsched.models.record import StepRecorder
from simsched.models.spool import Lines, Spool
from simsched.telemetry import (
    AnyEvent,
    Delivered,
    Event,
    JobAssigned,
    JobCreated,
    JobDispatched,
    JobEnded,
    JobQueued,
    NodeRunning,
    UtteranceCut,
)

STATUSES: Final = ("open", "completed", "failed")

TIMES: Final = (
    "cut_ns", "created_ns", "queued_ns", "dispatched_ns", "started_ns", "finished_ns", "ended_ns",
    "delivered_ns",
)  # fmt: skip
"""Columns of moments, in nanoseconds since the start; -1 where it did not happen."""

NAMES: Final = ("job", "session")
"""Text columns that are different in every row, or nearly so."""

WORDS: Final = ("target", "node", "reason")
"""Text columns of few different words."""

NUMBERS: Final = (*TIMES, "utterance", "attempts", "phase", "status")

_numbers_of, _words_of, _names_of = (attrgetter(*names) for names in (NUMBERS, WORDS, NAMES))

SPILL_ROWS: Final = 1 << 15
"""Rows kept in memory before they go to disk."""


class _Row:
    """One job that has not ended yet."""

    __slots__ = (*TIMES, *NAMES, *WORDS, "attempts", "phase", "status", "utterance")

    def __init__(self, event: JobCreated, cut_ns: int) -> None:
        self.job = event.job
        self.session = event.session
        self.utterance = event.utterance
        self.target = event.target
        self.node = event.node
        self.phase = event.phase
        self.reason = ""
        self.status = 0
        self.attempts = max(1, event.attempt)
        self.cut_ns = cut_ns
        self.created_ns = event.at_ns
        self.queued_ns = self.dispatched_ns = self.started_ns = -1
        self.finished_ns = self.ended_ns = self.delivered_ns = -1


@dataclass(slots=True)
class Cuts:
    """All cuts of a run, as columns."""

    session: list[str]
    utterance: npt.NDArray[np.int64]
    audio_bytes: npt.NDArray[np.int64]
    reason: list[str]
    at_ns: npt.NDArray[np.int64]

    @property
    def rows(self) -> Iterator[tuple[str, int, int, str, int]]:
        """Session, utterance, bytes, reason, moment of every cut."""
        return zip(
            self.session, self.utterance.tolist(), self.audio_bytes.tolist(), self.reason,
            self.at_ns.tolist(), strict=True,
        )  # fmt: skip


class Journal:
    """The run's `Telemetry`."""

    def __init__(self, recorder: StepRecorder, checker: Checker, now: Callable[[], int]) -> None:
        self._record = recorder.record_event
        self.checker = checker
        self._now = now
        self._encode = msgspec.json.Encoder().encode
        self._open: dict[str, _Row] = {}
        self._cut_at: dict[tuple[str, int], int] = {}
        self._spool = Spool(
            dict.fromkeys((*TIMES, "utterance", "attempts"), "q")
            | dict.fromkeys(("phase", "status"), "b")
            | dict.fromkeys(WORDS, "I")
        )
        self._lines = {name: Lines() for name in NAMES}
        self._words: dict[str, int] = {}
        self._cuts = Spool({"utterance": "q", "audio_bytes": "q", "at_ns": "q", "reason": "I"})
        self._cut_sessions = Lines()
        self.counters: dict[str, int] = {}
        self.listener: Callable[[Event], None] | None = None
        handlers: dict[type[Event], Callable[[Any], None]] = {
            UtteranceCut: self._cut,
            JobCreated: self._created,
            JobQueued: self._queued,
            JobAssigned: self._assigned,
            JobDispatched: self._dispatched,
            NodeRunning: self._running,
            JobEnded: self._ended,
            Delivered: self._delivered,
        }
        self._takers = {kind: checker.rules_of(kind) for kind in get_args(AnyEvent)}
        for kind, handler in handlers.items():
            self._takers[kind] += (handler,)

    def event(self, event: Event) -> None:
        """Record one fact."""
        self._record(self._encode(event))
        for take in self._takers[type(event)]:
            take(event)
        if self.listener is not None:
            self.listener(event)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a named counter."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def _cut(self, event: UtteranceCut) -> None:
        self._cut_at[event.session, event.utterance] = event.at_ns
        recent = self._cuts.recent
        self._cut_sessions.append(event.session)
        recent["utterance"].append(event.utterance)
        recent["audio_bytes"].append(event.audio_bytes)
        recent["at_ns"].append(event.at_ns)
        recent["reason"].append(self._word(event.reason))
        if len(recent["reason"]) >= SPILL_ROWS:
            self._cuts.spill()

    def _created(self, event: JobCreated) -> None:
        cut = self._cut_at.get((event.session, event.utterance), event.at_ns)
        self._open[event.job] = _Row(event, cut)

    def _queued(self, event: JobQueued) -> None:
        row = self._open.get(event.job)
        if row is not None:
            row.queued_ns = event.at_ns

    def _assigned(self, event: JobAssigned) -> None:
        row = self._open.get(event.job)
        if row is not None:
            row.node, row.attempts = event.node, event.attempt

    def _dispatched(self, event: JobDispatched) -> None:
        row = self._open.get(event.job)
        if row is not None and row.dispatched_ns < 0:
            row.dispatched_ns, row.node = event.at_ns, event.node

    def _running(self, event: NodeRunning) -> None:
        row = self._open.get(event.job)
        if row is None:
            return
        if event.started and row.started_ns < 0:
            row.started_ns = event.at_ns
        elif not event.started:
            row.finished_ns = event.at_ns

    def _ended(self, event: JobEnded) -> None:
        row = self._open.get(event.job)
        if row is None:
            return
        row.ended_ns = event.at_ns
        row.status = STATUSES.index(event.status) if event.status in STATUSES else 2
        row.reason = event.reason
        self._cut_at.pop((event.session, event.utterance), None)
        if row.delivered_ns >= 0:
            self._close(row)

    def _delivered(self, event: Delivered) -> None:
        row = self._open.get(event.job)
        if row is None:
            return
        if row.delivered_ns < 0:
            row.delivered_ns = event.at_ns
        if row.ended_ns >= 0:
            self._close(row)

    def _close(self, row: _Row) -> None:
        self._open.pop(row.job, None)
        recent = self._spool.recent
        for name, value in zip(NUMBERS, _numbers_of(row), strict=True):
            recent[name].append(value)
        for name, text in zip(WORDS, _words_of(row), strict=True):
            recent[name].append(self._word(text))
        for name, text in zip(NAMES, _names_of(row), strict=True):
            self._lines[name].append(text)
        if len(recent["status"]) >= SPILL_ROWS:
            self._spool.spill()

    def _word(self, text: str) -> int:
        """Texts repeat: each is kept once, and by number in its column."""
        return self._words.setdefault(text, len(self._words))

    def cuts(self) -> Cuts:
        """All cuts, in their order."""
        columns = self._cuts.columns()
        words = list(self._words)
        return Cuts(
            self._cut_sessions.all(), columns["utterance"], columns["audio_bytes"],
            [words[int(number)] for number in columns["reason"]], columns["at_ns"],
        )  # fmt: skip

    def jobs(self) -> dict[str, npt.NDArray[Any] | list[str]]:
        """All jobs as columns, those that are still open last."""
        for row in list(self._open.values()):
            self._close(row)
        columns: dict[str, npt.NDArray[Any] | list[str]] = dict(self._spool.columns())
        words = list(self._words)
        for name in WORDS:
            columns[name] = [words[int(number)] for number in columns[name]]
        for name, lines in self._lines.items():
            columns[name] = lines.all()
        return columns
