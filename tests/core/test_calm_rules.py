"""What must hold where the world says what it breaks: breaches, each beside an honest history."""

from __future__ import annotations

import pytest

from simsched import telemetry as t
from simsched.invariants import Checker, CheckSettings
from simsched.units import SECOND
from tests.core.test_invariants import ANSWERED, ENDED, LATER, MADE, breaches, fact

GIVEN = [MADE, fact(t.SlotTaken, expires_ns=LATER), fact(t.JobDispatched)]
"""A job whose first attempt is on its node."""

NEXT = fact(t.JobAssigned, SECOND, node="m", attempt=2)
LINED_UP = fact(t.JobQueued, SECOND, reason="RETRY")
FREED = fact(t.SlotFreed, SECOND)
HELD = fact(t.SlotsCounted, 5 * SECOND, held=("j:1",))
RUNS = fact(t.NodeRunning, SECOND)
HEARD = fact(t.ResultReceived, SECOND)
GIVEN_UP = fact(t.JobAssigned, 4 * SECOND, attempt=2)
LOST = fact(t.NodeOffline, SECOND)
SPOKEN = fact(t.UtteranceCut, SECOND)
REFUSED = fact(t.Delivered, SECOND, outcome="error", reason="JOB_TIMEOUT")


def broken(kind: str, target: str) -> t.Event:
    """A fault at 1 s whose consequences may show until 4 s."""
    return fact(t.Disturbed, SECOND, until_ns=4 * SECOND, kind=kind, target=target)


CRASH = broken("node_crash", "n-0")
AWAY = broken("partition", "a/redis")
FORGOT = broken("clock_jump", "redis")
EMPTY = broken("redis_restart", "redis")
OTHER = [fact(t.SlotTaken, job="k"), fact(t.JobCreated, job="k", request="k", utterance=1)]

BROKEN: dict[str, tuple[str, list[t.Event]]] = {
    "the store holds more leases than slots": (
        "I2", [*GIVEN, *OTHER, fact(t.SlotsCounted, held=("j:1", "k:1"), slots=1)],
    ),
    "an attempt runs whose lease is gone": ("I2", [*GIVEN, RUNS, fact(t.SlotsCounted, 5 * SECOND)]),
    "a slot that was lost in a fault is never taken again": (
        "I2", [*GIVEN, RUNS, FORGOT, fact(t.SlotsCounted, 6 * SECOND)],
    ),
    "a slot is not said again to a store that has come back": (
        "I2", [*GIVEN, RUNS, EMPTY, fact(t.SlotsCounted, 5 * SECOND)],
    ),
    "a result came and its attempt timed out": ("I4", [CRASH, *GIVEN, HEARD, GIVEN_UP]),
    "a result came and its job failed": (
        "I4", [*GIVEN, HEARD, FREED,
               fact(t.JobEnded, 4 * SECOND, status="failed", reason="JOB_TIMEOUT")],
    ),
    "a broken node excuses nobody who has its result": (
        "I4", [*GIVEN, HEARD, broken("node_hang", "n-0"), broken("link_slow", "n-0/instance"),
               GIVEN_UP],
    ),
    "the store takes the end of an older attempt": ("I4", [fact(t.EndAccepted, current_attempt=2)]),
    "the store takes two ends": ("I12", [fact(t.EndAccepted), fact(t.EndAccepted, first=False)]),
    "a claim that came again is answered otherwise": ("I11", [fact(t.ClaimRepeated, same=False)]),
    "a result lies with a dead instance": (
        "I4", [fact(t.LetterLies), fact(t.LetterLies, 3 * SECOND), fact(t.LetterLies, 4 * SECOND)],
    ),
    "the store keeps the slot of a job that ended": (
        "I5", [*GIVEN, FREED, fact(t.JobEnded, SECOND), ANSWERED, HELD],
    ),
    "the store keeps the slot of an earlier attempt": (
        "I5", [CRASH, *GIVEN, FREED, NEXT, HELD, HELD],
    ),
    "the store keeps the slot of a job in line": ("I5", [*GIVEN, FREED, LINED_UP, HELD]),
    "a slot cannot be had at the end": ("I5", [fact(t.SlotsTried, given=1)]),
    "a slot too many can be had at the end": ("I2", [fact(t.SlotsTried, given=2, held=1)]),
    "the store gives a slot of a node that is gone": ("I10", [fact(t.NodeGranted, gone=True)]),
    "a job stays with a node that is gone": ("I10", [*GIVEN, LOST]),
    "a second attempt when all is whole": ("I16", [*GIVEN, FREED, NEXT]),
    "who speaks when all is whole hears of an error": ("I16", [SPOKEN, REFUSED]),
    "an answer is given up when all is whole": (
        "I16",
        [SPOKEN, fact(t.Delivered, SECOND, outcome="missing_result", reason="gap_timeout")],
    ),
}  # fmt: skip

HONEST: dict[str, tuple[str, list[t.Event]]] = {
    "a node is full": ("I5", [*GIVEN, fact(t.SlotsCounted, held=("j:1",), slots=1)]),
    "an attempt runs and holds its slot": ("I2", [*GIVEN, RUNS, HELD]),
    "a lease is lost while the store is broken": (
        "I2", [*GIVEN, RUNS, EMPTY, fact(t.SlotsCounted, 4 * SECOND)],
    ),
    "a slot that was lost in a fault is taken again in time": (
        "I2", [*GIVEN, RUNS, FORGOT, fact(t.SlotsCounted, 5 * SECOND),
               fact(t.SlotsCounted, 9 * SECOND, held=("j:1",))],
    ),
    "another has got the slot that was lost in a fault": (
        "I2", [*GIVEN, RUNS, FORGOT, fact(t.SlotTaken, 5 * SECOND, job="k"),
               fact(t.JobCreated, 5 * SECOND, job="k", request="k", utterance=1),
               fact(t.SlotsCounted, 6 * SECOND, held=("j:1", "k:1"), slots=1)],
    ),
    "the node of an attempt was lost and goes on": (
        "I5", [*GIVEN, RUNS, LOST, LINED_UP, fact(t.SlotsCounted, 5 * SECOND)],
    ),
    "a result came and its attempt was taken": (
        "I4", [*GIVEN, HEARD, fact(t.ResultAccepted, SECOND), FREED, ENDED],
    ),
    "a result came and the store was away": ("I4", [*GIVEN, HEARD, AWAY, GIVEN_UP]),
    "the store takes the end of a later attempt": (
        "I4", [fact(t.EndAccepted), fact(t.EndAccepted, attempt=2, current_attempt=2)],
    ),
    "a claim that came again is answered alike": ("I11", [fact(t.ClaimRepeated)]),
    "a result with a dead instance is read in time": (
        "I4", [fact(t.LetterLies), fact(t.LetterLies, SECOND)],
    ),
    "a slot that was given up is back": (
        "I5", [CRASH, *GIVEN, FREED, NEXT, fact(t.SlotsCounted, 5 * SECOND, held=("j:2",))],
    ),
    "a claim is told in a moment": (
        "I5", [fact(t.SlotsCounted, held=("j:1",)), *GIVEN, HELD],
    ),
    "all slots can be had at the end but for one": (
        "I5", [fact(t.SlotsTried, given=1, held=1)],
    ),
    "a lease outlives its owner": (
        "I5", [MADE, fact(t.SlotTaken, expires_ns=3 * SECOND), fact(t.JobDispatched),
               t.InstanceDown(at_ns=0, instance="a"),
               fact(t.SlotsCounted, 2 * SECOND, held=("j:1",))],
    ),
    "another instance waits beside the one that has it": (
        "I5", [*GIVEN, fact(t.JobQueued, SECOND, instance="b"), HELD],
    ),
    "the store gives a slot of a node that is back": ("I10", [fact(t.NodeGranted)]),
    "a job leaves a node that is gone": ("I10", [CRASH, *GIVEN, LOST, NEXT]),
    "a job is in line again": ("I10", [*GIVEN, LOST, LINED_UP]),
    "who speaks while something is broken hears of an error": (
        "I16", [broken("node_hang", "n-0"), SPOKEN, REFUSED,
                fact(t.UtteranceCut, 5 * SECOND, utterance=1),
                fact(t.Delivered, 5 * SECOND, utterance=1)],
    ),
    "there is no room even when all is whole": (
        "I16", [SPOKEN, fact(t.Delivered, SECOND, outcome="error", reason="QUEUE_FULL")],
    ),
}  # fmt: skip


def check(events: list[t.Event], *, told: bool = True) -> Checker:
    checker = Checker(CheckSettings(told=told, lease_ns=4 * SECOND))
    for event in events:
        checker.observe(event)
    checker.finish(5 * SECOND)
    return checker


@pytest.mark.parametrize("name", BROKEN)
def test_every_breach_is_found_once(name: str) -> None:
    """For its own promise and no other, and only where the world tells what it breaks."""
    promise, events = BROKEN[name]
    assert breaches(check(events)) == {promise: 1}
    assert breaches(check(events, told=False)) == {}


@pytest.mark.parametrize("name", HONEST)
def test_what_is_right_is_not_blamed(name: str) -> None:
    """The history next to a breach keeps every promise, and counts as a test of it."""
    promise, events = HONEST[name]
    checker = check(events)
    assert checker.violations == []
    assert checker.checked[promise] >= 1
