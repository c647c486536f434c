"""
Slots given back, until the store has heard of it.

A store that is away when an attempt is over would keep its slot until the lease has run out, and
longer if its clock is put back meanwhile. So what got no answer is said again: at every scan, and
as soon as the store is back. Giving back what is free already changes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from simsched.errors import StoreUnavailable
from simsched.state import InstanceState
from simsched.telemetry import Operation

UNHEARD_MAX: Final = 4096
"""Releases without an answer that an instance remembers; the leases of older ones run out."""


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

    async def say_again(self, op: Operation) -> list[str]:
        """
        Give back what the store has not heard of; the nodes that have a slot more.

        What runs here again, because its session has come back to this instance, is kept.

        Raises:
            StoreUnavailable: no answer; the rest will be said again.

        """
        freed: list[str] = []
        for one in list(self._unheard):
            if not self._runs(one):
                await self._state.store.release_lease(op, one.job_id, one.attempt, one.node_id)
                freed.append(one.node_id)
            self._unheard.pop(one, None)
        return freed

    def _runs(self, one: Release) -> bool:
        job = self._state.book.get(one.job_id)
        return job is not None and job.reserved and (job.attempt, job.node_id) == one[1:]
