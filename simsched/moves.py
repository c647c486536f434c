"""
What becomes of results while their sessions, or their jobs, change hands.

A client that has just come from another instance asks again for what it lacks; the result may be
quicker than its question, or belong to an attempt that the other instance has made meanwhile. And
a result may find nobody who knows its job any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simsched import births
from simsched.errors import StoreUnavailable
from simsched.jobs import Job
from simsched.messages import JobResult
from simsched.state import InstanceState
from simsched.telemetry import Operation, SlotFreed

if TYPE_CHECKING:
    from simsched.dispatch import JobDispatcher

EARLY_MAX: Final = 16
"""Results that one session keeps of jobs that its client may be about to ask for."""


class Moves:
    """Results of one instance that come before their question, or after their job."""

    def __init__(self, state: InstanceState, dispatcher: JobDispatcher) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._runtime = state.runtime
        self._store = state.store

    async def catch_up(self, op: Operation, result: JobResult) -> None:
        """Another instance has tried a job of a session that is here now again: follow that."""
        job = self._state.book.get(result.job_id)
        if job is None or not self._is_behind(job, result):
            return
        node, attempt, done = await self._store.claim_of(op, result.job_id)
        known = bool(attempt)  # else the store has forgotten it, and the session is ours
        if done or (known and (node, attempt) != (result.node_id, result.attempt_id)):
            return
        if self._is_behind(job, result):
            self._state.pending.remove(job.request.pair, job)
            self._dispatcher.forget_node(job)
            births.followed(self._state, job, result.node_id, result.attempt_id)

    def _is_behind(self, job: Job, result: JobResult) -> bool:
        """Whether a job has not come as far here as elsewhere."""
        here = self._state.answers_here(result.session_id)
        alive = job.announced and not job.is_over
        return here and alive and job.attempt < result.attempt_id

    def keep_early(self, result: JobResult) -> None:
        """The result of a job that the client, who has just moved here, may be about to ask for."""
        session = self._state.sessions.get(result.session_id)
        if session is None or not self._state.answers_here(result.session_id):
            return
        session.early[result.job_id] = result
        if len(session.early) > EARLY_MAX:
            del session.early[next(iter(session.early))]

    def early_result(self, job: Job) -> JobResult | None:
        """What has come already of an attempt of another instance that is followed from now on."""
        session = self._state.sessions.get(job.request.session_id)
        result = session.early.pop(job.job_id, None) if session is not None else None
        if result is None or (result.node_id, result.attempt_id) != (job.node_id, job.attempt):
            return None
        return result

    async def free_slot(self, op: Operation, result: JobResult) -> bool:
        """An attempt is over that nobody here knows: its slot need not wait for its lease."""
        if self._state.policy.slots != "lease":
            return False
        try:
            await self._dispatcher.releases.release(
                op, result.job_id, result.attempt_id, result.node_id
            )
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
            return False
        self._dispatcher.releases.freed(result.job_id, result.attempt_id, result.node_id)
        self._state.emit(
            SlotFreed(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                node=result.node_id, job=result.job_id, attempt=result.attempt_id,
            )
        )  # fmt: skip
        return True
