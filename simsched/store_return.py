"""
What an instance does when its store answers again: it may have come back empty.

Nobody but the instance knows then which of its nodes are here, which sessions it owns and which
slots its running jobs hold. It says so again, leases first: a node must not be offered to others
before the store knows how busy it is. If the store forgot nothing, this changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from simsched.errors import StoreUnavailable
from simsched.node_desk import NodeDesk
from simsched.recovery import Recovery
from simsched.state import InstanceState
from simsched.telemetry import Operation

Own = Callable[[str], Awaitable[None]]


async def store_returned(
    state: InstanceState, op: Operation, *, nodes: NodeDesk, recovery: Recovery, own: Own | None
) -> None:
    """Say again what is here, then serve who waits; `own` writes who owns a session."""
    try:
        if state.policy.slots == "lease":
            await _hold_leases(state, op)
        await nodes.store_again(op)
    except StoreUnavailable:
        # It is away again: its next return, or the next heartbeats, bring us back here.
        state.runtime.telemetry.count("store_unavailable")
        return
    if own is not None:
        for session_id in list(state.sessions):
            await own(session_id)
    await recovery.pump()


async def _hold_leases(state: InstanceState, op: Operation) -> None:
    """Take the slots of running jobs again; a job that ended meanwhile gives its slot back."""
    held = [job for job in state.book.jobs.values() if job.reserved and not job.ended]
    by_node: dict[str, list[str]] = {}
    for job in held:
        by_node.setdefault(job.node_id, []).append(f"{job.job_id}:{job.attempt}")
    before = {job.job_id: (job.node_id, job.attempt) for job in held}
    for node_id, members in by_node.items():
        await state.store.hold_leases(op, node_id, state.policy.lease_ms, members)
    for job in held:
        node_id, attempt = before[job.job_id]
        if not job.reserved or (job.node_id, job.attempt) != (node_id, attempt):
            await state.store.release_lease(op, job.job_id, attempt, node_id)
