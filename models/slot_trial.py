"""
Trying a node's slots at the end of a run: every one that nobody holds must be there to be had.

The claims are made by the core's own `CellStore`, at once and at no cost, against the key space of
the modelled Redis; the run is over and nothing comes after them. This file knows no rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from simsched.models.faulty_redis import FaultyRedis
from simsched.ports import Reply
from simsched.steps import Step
from simsched.store import CellStore, Claim
from simsched.telemetry import Operation, OpKind

WHO: Final = "world"
LEASE_MS: Final = 1_000


class _AtOnce:
    """A `Store` whose scripts run while they are asked for; there are no plain commands."""

    def __init__(self, redis: FaultyRedis) -> None:
        self._redis = redis

    async def script(
        self, _step: Step, _op: Operation, name: str, keys: Sequence[str],
        args: Sequence[str | int], *, site: int = 0,
    ) -> Reply:  # fmt: skip
        return self._redis.keys.script(self._redis.now_us, name, keys, args)


def try_slots(redis: FaultyRedis, node: str, most: int) -> tuple[int, str]:
    """Claim a node's slots, at most so many: how many there were, and why there are no more."""
    store: Any = _AtOnce(redis)
    cell, op = CellStore(store, WHO), Operation(OpKind.CONTROL, 0, 0, "", 0)
    for given in range(most):
        name = f"{WHO}-{node}-{given}"
        claim = _value_of(
            cell.claim(
                op, name, name, expected=0, token=name, lease_ms=LEASE_MS,
                binding_ttl_ms=LEASE_MS, nodes=(node,),
            )
        )  # fmt: skip
        if claim.verdict != "CLAIMED":
            return given, claim.refusals[0] if claim.refusals else claim.verdict
    return most, ""


def _value_of(coro: Any) -> Claim:
    """Run a coroutine that waits for nothing."""
    try:
        coro.send(None)
    except StopIteration as ended:
        claim: Claim = ended.value
        return claim
    raise AssertionError("a claim at once has waited")
