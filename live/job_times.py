"""
The moments of jobs that are open, and the stages between them.

Fed by the core's events, in their order. A job is remembered until it has ended and its answer has
left, and in bounded numbers: whoever is forgotten for room is only not measured. Slots are followed
too: one that is still taken a moment after its job ended is leaked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from simsched.telemetry import (
    Delivered,
    Event,
    JobAccepted,
    JobAssigned,
    JobCreated,
    JobDispatched,
    JobEnded,
    JobQueued,
    NodeOffline,
    ResultReceived,
    SlotFreed,
    SlotTaken,
    UtteranceCut,
)
from simsched.units import SECOND

OPEN_MAX: Final = 20_000
"""Jobs, cuts and slots remembered at once."""

LEAKED_AFTER_NS: Final = 5 * SECOND
"""A slot that is taken for so long after its job's end is leaked: a result takes milliseconds."""

Stage = Callable[[str, str, int], None]
"""Takes (session, stage, duration in ns)."""


class _Job:
    """What is known of one open job's moments; 0: not yet."""

    __slots__ = (
        "answered_ns", "assigned_ns", "created_ns", "cut_ns", "delivered", "ended", "queued_ns",
        "sent_ns", "session",
    )  # fmt: skip

    def __init__(self, session: str, created_ns: int, cut_ns: int) -> None:
        self.session = session
        self.created_ns = created_ns
        self.cut_ns = cut_ns
        self.assigned_ns = 0
        self.queued_ns = 0
        self.sent_ns = 0
        self.answered_ns = 0
        self.ended = False
        self.delivered = False


class JobTimes:
    """Follows jobs and slots; `stage` is told of every stage that ended."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._jobs: dict[str, _Job] = {}
        self._cuts: dict[tuple[str, int], int] = {}
        self._slots: dict[tuple[str, int], str] = {}
        self._ended_slots: dict[tuple[str, int], int] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            UtteranceCut: self._cut,
            JobCreated: self._created,
            JobQueued: self._queued,
            JobAssigned: self._assigned,
            JobDispatched: self._dispatched,
            JobAccepted: self._accepted,
            ResultReceived: self._received,
            JobEnded: self._ended,
            Delivered: self._delivered,
            SlotTaken: self._slot_taken,
            SlotFreed: self._slot_freed,
            NodeOffline: self._node_offline,
        }

    def take(self, event: Event) -> None:
        """One fact."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def leaked(self, now_ns: int) -> dict[str, int]:
        """Slots by node that are still taken although their job ended some time ago."""
        counts: dict[str, int] = {}
        for slot, ended_ns in self._ended_slots.items():
            if now_ns - ended_ns > LEAKED_AFTER_NS:
                node = self._slots.get(slot, "")
                counts[node] = counts.get(node, 0) + 1
        return counts

    def __len__(self) -> int:
        return len(self._jobs)

    def _cut(self, event: UtteranceCut) -> None:
        _keep(self._cuts, (event.session, event.utterance), event.at_ns)

    def _created(self, event: JobCreated) -> None:
        cut_ns = self._cuts.get((event.session, event.utterance), event.at_ns)
        job = _Job(event.session, event.at_ns, cut_ns)
        _keep(self._jobs, event.job, job)
        self._stage(event.session, "created", event.at_ns - cut_ns)
        if event.node:
            job.assigned_ns = event.at_ns
            self._stage(event.session, "assigned", 0)

    def _queued(self, event: JobQueued) -> None:
        job = self._jobs.get(event.job)
        if job is not None:
            job.queued_ns = event.at_ns

    def _assigned(self, event: JobAssigned) -> None:
        job = self._jobs.get(event.job)
        if job is not None:
            self._leave_queue(job, event.at_ns)
            job.assigned_ns = event.at_ns
            if not job.sent_ns:
                self._stage(job.session, "assigned", event.at_ns - job.created_ns)

    def _leave_queue(self, job: _Job, at_ns: int) -> None:
        if job.queued_ns:
            self._stage(job.session, "queue_wait", at_ns - job.queued_ns)
            job.queued_ns = 0

    def _dispatched(self, event: JobDispatched) -> None:
        job = self._jobs.get(event.job)
        if job is None:
            return
        if job.assigned_ns:
            self._stage(job.session, "sent", event.at_ns - job.assigned_ns)
        if not job.sent_ns:
            self._stage(job.session, "dispatch", event.at_ns - job.cut_ns)
        job.sent_ns = event.at_ns

    def _accepted(self, event: JobAccepted) -> None:
        job = self._jobs.get(event.job)
        if job is not None and job.sent_ns:
            self._stage(job.session, "acked", event.at_ns - job.sent_ns)

    def _received(self, event: ResultReceived) -> None:
        job = self._jobs.get(event.job)
        if job is not None and job.sent_ns:
            self._stage(job.session, "result", event.at_ns - job.sent_ns)
            job.answered_ns = event.at_ns

    def _ended(self, event: JobEnded) -> None:
        slot = (event.job, event.attempt)
        if slot in self._slots:
            self._ended_slots[slot] = event.at_ns
        job = self._jobs.get(event.job)
        if job is None:
            return
        self._leave_queue(job, event.at_ns)
        job.ended = True
        self._close(event.job, job)

    def _delivered(self, event: Delivered) -> None:
        job = self._jobs.get(event.job)
        if job is None or job.delivered:
            return
        self._stage(job.session, "end_to_end", event.at_ns - job.cut_ns)
        if job.answered_ns:
            self._stage(job.session, "delivered", event.at_ns - job.answered_ns)
        job.delivered = True
        self._close(event.job, job)

    def _close(self, name: str, job: _Job) -> None:
        if job.ended and job.delivered:
            del self._jobs[name]

    def _slot_taken(self, event: SlotTaken) -> None:
        _keep(self._slots, (event.job, event.attempt), event.node)

    def _slot_freed(self, event: SlotFreed) -> None:
        self._forget_slot((event.job, event.attempt))

    def _forget_slot(self, slot: tuple[str, int]) -> None:
        self._slots.pop(slot, None)
        self._ended_slots.pop(slot, None)

    def _node_offline(self, event: NodeOffline) -> None:
        for slot in [slot for slot, node in self._slots.items() if node == event.node]:
            self._forget_slot(slot)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember one thing more, and the oldest no longer if there are too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > OPEN_MAX:
        del kept[next(iter(kept))]
