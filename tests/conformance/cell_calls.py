"""One or more calls for every method of `CellStore`, in an order that gives each something to do.

Played from top to bottom on an empty store, every script takes its good way at least once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from simsched.store import Binding, CellStore
from simsched.telemetry import Operation, OpKind

Call = Callable[[CellStore, Operation], Awaitable[object]]

BOUND = Binding("j-1", "n1", "i-1", dispatched=True)


def operation() -> Operation:
    return Operation(OpKind.CONTROL, 1, 1, "", 0)


def _claim(
    store: CellStore, op: Operation, *, job: str, nodes: tuple[str, ...]
) -> Awaitable[object]:
    return store.claim(
        op, job, job, expected=0, token=f"{job}:1", lease_ms=60_000, binding_ttl_ms=90_000,
        nodes=nodes,
    )  # fmt: skip


def _complete(store: CellStore, op: Operation, *, job: str, attempt: int) -> Awaitable[object]:
    return store.complete(op, "s-1", job, attempt=attempt, node="n2", status="ok")


def _beat(
    store: CellStore, op: Operation, *, node: str, counters: bool = True, resets: bool = False
) -> Awaitable[object]:
    return store.heartbeat(
        op, node, slots=2, running=0, health="ready", since_ns=0, counters=counters, resets=resets
    )


CALLS: dict[str, list[Call]] = {
    "lock_request": [lambda s, op: s.lock_request(op, "r-1", "i-1", 5_000, site=0)] * 2,
    "set_binding": [lambda s, op: s.set_binding(op, "r-1", BOUND)],
    "set_binding_if_absent": [
        lambda s, op: s.set_binding_if_absent(op, "r-1", BOUND),
        lambda s, op: s.set_binding_if_absent(op, "r-2", BOUND),
    ],
    "get_binding": [
        lambda s, op: s.get_binding(op, "r-1", site=0),
        lambda s, op: s.get_binding(op, "r-9", site=0),
    ],
    "drop_binding": [lambda s, op: s.drop_binding(op, "r-2")],
    "unlock_request": [lambda s, op: s.unlock_request(op, "r-1", "i-1")] * 2,
    "heartbeat": [
        *(partial(_beat, node=node) for node in ("n1", "n2", "n3")),
        partial(_beat, node="n3", counters=False),
        partial(_beat, node="n1", resets=True),
    ],
    "reserve": [lambda s, op: s.reserve(op, "j-0", 1, "n1")] * 2,
    "commit": [lambda s, op: s.commit(op, "j-0", 1, "n1")],
    "dec_running": [lambda s, op: s.dec_running(op, "n1")],
    "release": [lambda s, op: s.release(op, "j-0", 1, "n1")],
    "move_fsm": [
        lambda s, op: s.move_fsm(op, "create", "j-0", "n1", 1, site=0),
        lambda s, op: s.move_fsm(op, "accept", "j-0", "n1", 1, site=0),
    ],
    "read_capabilities": [
        lambda s, op: s.read_capabilities(op, ["n1", "n2", "n3"], types=1, pipelined=True),
        lambda s, op: s.read_capabilities(op, ["n1", "n2"], types=1, pipelined=False),
    ],
    "pool_members": [lambda s, op: s.pool_members(op, "zh-en")],
    "own": [
        lambda s, op: s.own(op, "session", "s-1"),
        lambda s, op: s.own(op, "node", "n1"),
    ],
    "owner_of": [
        lambda s, op: s.owner_of(op, "session", "s-1"),
        lambda s, op: s.owner_of(op, "node", "nobody"),
    ],
    "claim": [
        *(partial(_claim, job=f"j-{job}", nodes=("n2", "n3")) for job in (1, 2, 3, 4, 5)),
        partial(_claim, job="j-1", nodes=("n2", "n3")),
    ],
    "claim_of": [lambda s, op: s.claim_of(op, "j-1"), lambda s, op: s.claim_of(op, "j-9")],
    "claimed_by": [lambda s, op: s.claimed_by(op, "j-1")],
    "renew": [lambda s, op: s.renew(op, 60_000, {"n1": ["j-9:1"], "n2": ["j-1:1", "j-9:1"]})],
    "complete": [
        partial(_complete, job="j-1", attempt=9),
        *[partial(_complete, job="j-1", attempt=1)] * 2,
    ],
    "restore": [
        lambda s, op: s.restore(op, "j-2", attempt=1, node="n2", status="", lease_ms=60_000),
        lambda s, op: s.restore(op, "j-7", attempt=1, node="n2", status="ok", lease_ms=60_000),
    ],
    "release_lease": [lambda s, op: s.release_lease(op, "j-2", 1, "n2")],
    "release_leases": [lambda s, op: s.release_leases(op, {"n1": ["j-7:1"], "n2": ["j-8:1"]})],
    "has_lease": [lambda s, op: s.has_lease(op, "j-1", 1, "n1")],
    "node_gone": [lambda s, op: s.node_gone(op, "n3", since_ns=0)] * 2,
    "be_present": [lambda s, op: s.be_present(op, 15_000)],
    "be_gone": [lambda s, op: s.be_gone(op)],
}
"""Method -> its calls."""
