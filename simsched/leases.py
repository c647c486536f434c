"""
Slots of jobs that run: renewed while somebody here waits for them, let go when the client has left.

A job may run longer than its lease. Whose client has gone to another instance is that one's to
renew, to time out and to cancel: here it is forgotten without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.jobs import Job
from simsched.state import InstanceState
from simsched.store import by_node
from simsched.telemetry import Operation, OpKind, SlotTaken
from simsched.units import MS

if TYPE_CHECKING:
    from simsched.dispatch import JobDispatcher

RENEWALS_PER_LEASE: Final = 3
"""A lease is renewed when one part in this many of it is over: an answer may fail to come."""

RENEWED_AT_ONCE: Final = 500
"""Leases in one call: the store does nothing else meanwhile."""

RENEWAL_TRIES: Final = 2
"""How often in one scan a renewal is asked for that gets no answer."""


class _Held(NamedTuple):
    """An attempt that held its slot when it was to be renewed."""

    job: Job
    node_id: str
    attempt: int

    @property
    def member(self) -> str:
        """What the store calls it."""
        return f"{self.job.job_id}:{self.attempt}"

    @property
    def is_held(self) -> bool:
        """Whether it still holds it."""
        job = self.job
        is_current = (job.node_id, job.attempt) == (self.node_id, self.attempt)
        return job.reserved and is_current and not job.yielded


class Leases:
    """The leases that one instance holds for its jobs."""

    def __init__(self, state: InstanceState, dispatcher: JobDispatcher) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store
        self._entity = key_of("leases", state.runtime.instance_id)

    def _may_have_left(self, job: Job) -> bool:
        """Whether the client of a job may be at another instance: it is not here."""
        request = job.request
        moves = self._state.settings.shared and self._policy.job_scheme == "claim"
        may = moves and not request.targets
        return may and not self._runtime.links.has_client(request.session_id)

    async def has_left(self, job: Job) -> bool:
        """Whether the client of a job is at another instance, which goes on with it."""
        if not self._may_have_left(job):
            return False
        session_id = job.request.session_id
        op = self._runtime.begin(OpKind.BACKGROUND, self._entity, self._runtime.now())
        try:
            owner = await self._store.owner_of(op, "session", session_id, site=4)
        except StoreUnavailable:
            owner = ""
        self._runtime.end(op)
        is_back = self._runtime.links.has_client(session_id)
        return not is_back and owner not in ("", self._runtime.instance_id)

    async def renew(self, op: Operation) -> None:
        """
        Renew what has used a third of its life.

        What may have to be asked about first, because its client is not here, does not delay the
        others.
        """
        if self._policy.slots != "lease":
            return
        now, age_ns = self._runtime.now(), self._policy.lease_ms * MS // RENEWALS_PER_LEASE
        jobs = self._state.book.jobs.values()
        aged = [job for job in jobs if job.reserved and now - job.leased_ns >= age_ns]
        if not aged:
            return
        away = [job for job in aged if self._may_have_left(job)]
        await self._renew(op, [job for job in aged if not self._may_have_left(job)])
        await self._renew(op, [job for job in away if not await self.leave_if_moved(job)])

    async def leave_if_moved(self, job: Job) -> bool:
        """Whether another instance goes on with a job, which is then left to it."""
        if not await self.has_left(job):
            return False
        self._dispatcher.yield_to_other(job)
        return True

    async def _renew(self, op: Operation, jobs: list[Job]) -> None:
        """Renew the leases of jobs, many at a time."""
        for first in range(0, len(jobs), RENEWED_AT_ONCE):
            batch = jobs[first : first + RENEWED_AT_ONCE]
            held = [_Held(job, job.node_id, job.attempt) for job in batch]
            held = [one for one in held if one.is_held]
            if held and not await self._renew_batch(op, held):
                return

    async def _renew_batch(self, op: Operation, held: list[_Held]) -> bool:
        """Renew what is held; what gets no answer is asked for once more. False: it was in vain."""
        for _ in range(RENEWAL_TRIES):
            asked_ns = self._runtime.now()
            members = by_node((one.node_id, one.member) for one in held)
            try:
                lost = await self._store.renew(op, self._policy.lease_ms, members)
            except StoreUnavailable:
                self._runtime.telemetry.count("store_unavailable")
                continue
            for one in held:
                if one.member in lost:
                    self._runtime.telemetry.count("leases_lost")
                    if not await self._lost(op, one):
                        return False
                elif one.is_held:  # else it has ended meanwhile
                    self._renewed(one, asked_ns)
            return True
        return False

    async def _lost(self, op: Operation, one: _Held) -> bool:
        """The store does not know a slot that is held here; False if it is away."""
        job = one.job
        if not one.is_held:
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
        is theirs. One on a node that is gone goes elsewhere, and its slot is being given back.

        Raises:
            StoreUnavailable: no answer.

        """
        node_id, attempt = job.node_id, job.attempt
        if self._state.cluster.is_gone(node_id):
            return
        known = await self._store.restore(
            op, job.job_id, attempt=attempt, node=node_id, status="",
            lease_ms=self._policy.lease_ms,
        )  # fmt: skip
        if not (job.reserved and (job.node_id, job.attempt) == (node_id, attempt)):
            await self._dispatcher.releases.release(op, job.job_id, attempt, node_id)
        elif known == "LOST":
            await self._dispatcher.retry(job, "STORE_LOST")

    def _renewed(self, one: _Held, asked_ns: int) -> None:
        """The store has renewed it between the question and now, so count from the question."""
        one.job.leased_ns = asked_ns
        # `live` and `slots` are not known to a renewal: 0.
        self._state.emit(
            SlotTaken(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id, node=one.node_id,
                job=one.job.job_id, attempt=one.attempt, live=0, slots=0,
                expires_ns=asked_ns + self._policy.lease_ms * MS,
            )
        )  # fmt: skip
