"""Slots of nodes whose socket has closed: breaches beside honest histories."""

from __future__ import annotations

import pytest

from simsched import telemetry as t
from simsched.invariants import Checker, CheckSettings
from simsched.units import SECOND
from tests.core.test_invariants import breaches, fact

TELLS = CheckSettings(told=True)
CLOSED = fact(t.NodeOffline, reason="socket_closed")
TAKEN = fact(t.SlotTaken, 2 * SECOND, live=1, instance="b")

HISTORIES: dict[str, tuple[list[t.Event], int]] = {
    "a slot of a node that is gone": ([CLOSED, TAKEN], 1),
    "each time that it goes counts once": ([CLOSED, TAKEN, TAKEN], 1),
    "its instance is about to tell": ([CLOSED, fact(t.SlotTaken, SECOND // 2, live=1)], 0),
    "a slot is only renewed": ([CLOSED, fact(t.SlotTaken, 2 * SECOND, live=0)], 0),
    "it is back": ([CLOSED, fact(t.NodeRegistered, SECOND, instance="b"), TAKEN], 0),
    "an instance that it has left before says so late": (
        [fact(t.NodeRegistered, instance="b"), CLOSED, TAKEN], 0,
    ),
    "it is only silent": ([fact(t.NodeOffline, reason="silent"), TAKEN], 0),
    "the store was away": (
        [fact(t.Disturbed, until_ns=9 * SECOND, kind="partition", target="a/redis"), CLOSED, TAKEN],
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_a_node_that_is_gone_gets_no_more_jobs(name: str) -> None:
    events, broken = HISTORIES[name]
    checker = Checker(TELLS)
    for event in events:
        checker.observe(event)
    assert breaches(checker).get("I10", 0) == broken
