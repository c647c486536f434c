"""
What an instance does when its store answers again: it may have come back empty.

Nobody but the instance knows then which of its nodes are here, which sessions it owns and which
slots its running jobs hold. It says so again, leases first: a node must not be offered to others
before the store knows how busy it is. If the store forgot nothing, this changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from simsched.errors import StoreUnavailable
from simsched.node_desk import NodeDesk
from simsched.recovery import Recovery
from simsched.state import DEDUP_WINDOW_NS, InstanceState
from simsched.telemetry import Operation
from simsched.units import SECOND

RETRY_NS: Final = SECOND

Own = Callable[[], Awaitable[None]]


async def store_returned(
    state: InstanceState, op: Operation, *, nodes: NodeDesk, recovery: Recovery, own: Own | None
) -> None:
    """Say again what is here, then serve who waits; `own` writes which sessions are ours."""
    recovery.releases.store_returned()
    while not await _said_again(state, op, nodes, recovery):
        await state.runtime.sleep(RETRY_NS)
    if own is not None:
        await own()
    await recovery.pump()


async def _said_again(
    state: InstanceState, op: Operation, nodes: NodeDesk, recovery: Recovery
) -> bool:
    """Whether the store has taken it all in; if it is away again, all must be said once more."""
    try:
        if state.policy.slots == "lease":
            await _restore_jobs(state, op, recovery)
        await nodes.store_again(op)
        await recovery.releases.say_again(op)
    except StoreUnavailable:
        state.runtime.telemetry.count("store_unavailable")
        return False
    return True


async def _restore_jobs(state: InstanceState, op: Operation, recovery: Recovery) -> None:
    """
    Say again what has ended lately and what runs.

    Ends first: another instance may be about to do again what has been answered. Attempts that are
    followed here are another one's to say, and jobs whose client has gone are those of whoever has
    their session.
    """
    lease_ms = state.policy.lease_ms
    for end in list(state.ended):
        if state.runtime.now() - end.at_ns <= DEDUP_WINDOW_NS:
            await state.store.restore(
                op, end.job_id, attempt=end.attempt, node=end.node_id, status=end.status,
                lease_ms=lease_ms,
            )  # fmt: skip
    jobs = state.book.jobs.values()
    for job in [job for job in jobs if job.reserved and not job.ended and not job.followed]:
        if job.reserved and not job.is_over and not await recovery.leases.leave_if_moved(job):
            await recovery.leases.say_again(op, job)
