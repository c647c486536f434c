"""
Slots given back, and nodes that are gone, until the store has heard of it.

A store that is away when an attempt is over would keep its slot until the lease has run out, and
longer if its clock is put back meanwhile. So what got no answer is said again: at every scan, and
as soon as the store is back. A store that comes back may have forgotten what it had heard, too: it
is told again what was given back lately. Giving back what is free already changes nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from simsched.errors import StoreUnavailable
from simsched.state import InstanceState
from simsched.store import by_node
from simsched.telemetry import Operation
from simsched.units import MS

UNHEARD_MAX: Final = 4096
"""Releases without an answer that an instance remembers; the leases of older ones run out."""

LATELY_MAX: Final = 1_024
"""The latest releases, which a store that comes back is told again: a failover loses writes."""

RELEASED_AT_ONCE: Final = 500
"""Slots in one call: the store does nothing else meanwhile."""


class Release(NamedTuple):
    """One attempt's slot."""

    job_id: str
    attempt: int
    node_id: str


class Releases:
    """The slots that one instance gives back."""

    def __init__(self, state: InstanceState) -> None:
        self._state = state
        self._unheard: dict[Release, None] = {}
        self._lately: deque[tuple[int, Release]] = deque(maxlen=LATELY_MAX)

    def __len__(self) -> int:
        return len(self._unheard)

    async def release(self, op: Operation, job_id: str, attempt: int, node_id: str) -> None:
        """
        Give a slot back.

        Raises:
            StoreUnavailable: no answer; it will be said again.

        """
        try:
            await self._state.store.release_lease(op, job_id, attempt, node_id)
        except StoreUnavailable:
            self.unheard(job_id, attempt, node_id)
            raise

    def unheard(self, job_id: str, attempt: int, node_id: str) -> None:
        """An attempt is over, and the store has not answered when it was told."""
        self._unheard[Release(job_id, attempt, node_id)] = None
        if len(self._unheard) > UNHEARD_MAX:
            self._state.runtime.telemetry.count("releases_forgotten")
            del self._unheard[next(iter(self._unheard))]

    def freed(self, job_id: str, attempt: int, node_id: str) -> None:
        """An attempt's slot is free, as far as this instance knows."""
        self._lately.append((self._state.runtime.now(), Release(job_id, attempt, node_id)))

    def store_returned(self) -> None:
        """What it may have forgotten is not heard of; older leases have run out."""
        since_ns = self._state.runtime.now() - self._state.policy.lease_ms * MS
        for at_ns, one in self._lately:
            if at_ns >= since_ns:
                self.unheard(*one)

    def is_unheard(self, job_id: str, attempt: int, node_id: str) -> bool:
        """Whether a slot was given back and the store has not heard of it yet."""
        return Release(job_id, attempt, node_id) in self._unheard

    async def say_again(self, op: Operation) -> list[str]:
        """
        Give back what the store has not heard of; the nodes that have slots more.

        What runs here again, because its session has come back to this instance, is kept; what may
        be claimed at this moment waits for the next time.

        Raises:
            StoreUnavailable: no answer; the rest will be said again.

        """
        await self._say_gone(op)
        freed: dict[str, None] = {}
        due = list(self._unheard)
        for first in range(0, len(due), RELEASED_AT_ONCE):
            batch = [
                one
                for one in due[first : first + RELEASED_AT_ONCE]
                if one in self._unheard and not self._is_asked_for(one)
            ]
            over = by_node(
                (one.node_id, f"{one.job_id}:{one.attempt}") for one in batch if not self._runs(one)
            )
            if over:
                await self._state.store.release_leases(op, over)
                freed |= dict.fromkeys(over)
            for one in batch:
                self._unheard.pop(one, None)
        return list(freed)

    async def _say_gone(self, op: Operation) -> None:
        """Nodes whose sockets have closed give back all that they had."""
        state = self._state
        for node_id, since_ns in list(state.gone_unsaid.items()):
            if node_id not in state.cluster.local:
                await state.store.node_gone(op, node_id, since_ns=since_ns)
            state.gone_unsaid.pop(node_id, None)

    def _is_asked_for(self, one: Release) -> bool:
        """Whether a claim of this very attempt is under way, or has got no answer."""
        job = self._state.book.get(one.job_id)
        return job is not None and job.asked_ns > 0 and job.attempt + 1 == one.attempt

    def _runs(self, one: Release) -> bool:
        job = self._state.book.get(one.job_id)
        return job is not None and job.reserved and (job.attempt, job.node_id) == one[1:]
