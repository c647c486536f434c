"""
Slots of jobs that run: renewed while somebody here waits for them, let go when the client has left.

A job may run longer than its lease. Whose client has gone to another instance is that one's to
renew, to time out and to cancel: here it is forgotten without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.jobs import Job
from simsched.state import InstanceState
from simsched.telemetry import Operation, OpKind, SlotTaken
from simsched.units import MS

if TYPE_CHECKING:
    from simsched.dispatch import JobDispatcher


class Leases:
    """The leases that one instance holds for its jobs."""

    def __init__(self, state: InstanceState, dispatcher: JobDispatcher) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store
        self._entity = key_of("leases", state.runtime.instance_id)

    async def has_left(self, job: Job) -> bool:
        """Whether the client of a job is at another instance, which goes on with it."""
        session_id, state = job.request.session_id, self._state
        may = state.settings.shared and self._policy.job_scheme == "claim"
        if not may or job.request.targets or self._runtime.links.has_client(session_id):
            return False
        op = self._runtime.begin(OpKind.BACKGROUND, self._entity, self._runtime.now())
        try:
            owner = await self._store.owner_of(op, "session", session_id, site=4)
        except StoreUnavailable:
            owner = ""
        self._runtime.end(op)
        is_back = self._runtime.links.has_client(session_id)
        return not is_back and owner not in ("", self._runtime.instance_id)

    async def renew(self, op: Operation) -> None:
        """Renew what has used half of its life."""
        if self._policy.slots != "lease":
            return
        for node_id, jobs in (await self._due()).items():
            attempts = [job.attempt for job in jobs]
            members = [f"{job.job_id}:{job.attempt}" for job in jobs]
            try:
                lost = await self._store.renew(op, node_id, self._policy.lease_ms, members)
            except StoreUnavailable:
                self._runtime.telemetry.count("store_unavailable")
                return
            for job, attempt, member in zip(jobs, attempts, members, strict=True):
                if member in lost:
                    self._runtime.telemetry.count("leases_lost")
                    if not await self._lost(op, job, attempt):
                        return
                elif job.reserved and job.attempt == attempt:  # else it has ended meanwhile
                    self._renewed(node_id, job)

    async def _lost(self, op: Operation, job: Job, attempt: int) -> bool:
        """The store does not know a slot that is held here; False if it is away."""
        if not job.reserved or job.attempt != attempt:
            return True
        try:
            if job.followed:
                # Its owner has given it up, or will find out that it has lost it.
                await self._dispatcher.retry(job, "LEASE_LOST")
            else:
                await self.say_again(op, job)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
            return False
        return True

    async def say_again(self, op: Operation, job: Job) -> None:
        """
        Take the slot of an attempt that runs again, from a store that may have forgotten it.

        An attempt that somebody else has taken meanwhile, because the store did not know of it,
        is theirs.

        Raises:
            StoreUnavailable: no answer.

        """
        node_id, attempt = job.node_id, job.attempt
        known = await self._store.restore(
            op, job.job_id, attempt=attempt, node=node_id, status="",
            lease_ms=self._policy.lease_ms,
        )  # fmt: skip
        if not (job.reserved and (job.node_id, job.attempt) == (node_id, attempt)):
            await self._store.release_lease(op, job.job_id, attempt, node_id)
        elif known == "LOST":
            await self._dispatcher.retry(job, "STORE_LOST")

    async def _due(self) -> dict[str, list[Job]]:
        """By node, the jobs whose lease is half over."""
        now, half_ns = self._runtime.now(), self._policy.lease_ms * MS // 2
        aged = [
            job
            for job in self._state.book.jobs.values()
            if job.reserved and now - job.leased_ns >= half_ns
        ]
        due: dict[str, list[Job]] = {}
        for job in aged:
            if await self.has_left(job):
                self._dispatcher.yield_to_other(job)
            elif job.reserved:
                due.setdefault(job.node_id, []).append(job)
        return due

    def _renewed(self, node_id: str, job: Job) -> None:
        now = self._runtime.now()
        job.leased_ns = now
        # `live` and `slots` are not known to a renewal: 0.
        self._state.emit(
            SlotTaken(
                at_ns=now, instance=self._runtime.instance_id, node=node_id, job=job.job_id,
                attempt=job.attempt, live=0, slots=0,
                expires_ns=now + self._policy.lease_ms * MS,
            )
        )  # fmt: skip
