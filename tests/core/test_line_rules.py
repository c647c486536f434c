"""Who is served when, how often a job is tried, and whose a session is: breaches beside honesty."""

from __future__ import annotations

import pytest

from simsched import telemetry as t
from simsched.invariants import Checker, CheckSettings
from simsched.owner_rules import GrantedFor, OwnerStored
from simsched.units import SECOND
from tests.core.test_invariants import breaches, fact

TELLS = CheckSettings(nodes_alike=True, told=True, retries_failures=True)


def waits(job: str, at_ns: int, *, number: int, **more: object) -> list[t.Event]:
    """A job that is spoken, made and put in line."""
    where = {"job": job, "utterance": number}
    return [
        fact(t.UtteranceCut, at_ns, utterance=number),
        fact(t.JobCreated, at_ns, **where, request=job, node="", attempt=0),
        fact(t.JobQueued, at_ns, job=job, **more),
    ]


def served(job: str, at_ns: int) -> t.Event:
    return fact(t.JobAssigned, at_ns, job=job)


LINE = [*waits("j", 0, number=0), *waits("k", SECOND, number=1)]
NEW = [
    fact(t.UtteranceCut, 2 * SECOND, utterance=2),
    fact(t.JobCreated, 2 * SECOND, job="l", request="l", utterance=2),
]
TRIES = [fact(t.JobAssigned, attempt=attempt) for attempt in range(2, 5)]
BACK = [fact(t.SlotTaken), fact(t.SlotFreed, SECOND)]
"""Another job's slot is given back."""

MADE = fact(t.JobCreated)
FAILED = fact(t.Delivered, outcome="error", reason="PROCESSING_ERROR")
GRANTED = {"job": "j", "what": "claim", "asker": "a", "owner": "a"}


def granted(owner: str) -> t.Event:
    return GrantedFor(at_ns=0, instance="", **GRANTED | {"owner": owner})


def stored(at_ns: int, owner: str) -> t.Event:
    return OwnerStored(at_ns=at_ns, instance="a", session="s", owner=owner)


BROKEN: dict[str, tuple[str, list[t.Event]]] = {
    "the last in line is served first": ("I15", [*LINE, served("k", 2 * SECOND)]),
    "who comes now is served before who waits": ("I15", [*LINE, *NEW]),
    "a fifth try": ("I15", [MADE, *TRIES, fact(t.JobAssigned, attempt=5)]),
    "a slot is given back and nobody looks at the line": (
        "I15", [*LINE, *BACK, served("j", 2 * SECOND)],
    ),
    "another instance gives a slot back and nobody looks": (
        "I15", [*LINE, fact(t.SlotTaken, instance="b"), fact(t.SlotFreed, SECOND, instance="b"),
                served("j", 3 * SECOND)],
    ),
    "a node's failure is told although there are tries left": ("I15", [MADE, *TRIES[:2], FAILED]),
    "a slot for a session that is elsewhere": ("I12", [granted("b")]),
    "a session has moved and the store does not know": (
        "I12", [stored(0, "b"), stored(SECOND, "b")],
    ),
}  # fmt: skip

HONEST: dict[str, tuple[str, list[t.Event]]] = {
    "first come, first served": ("I15", [*LINE, served("j", SECOND), served("k", 2 * SECOND)]),
    "who has failed may be passed": (
        "I15", [*waits("j", 0, number=0, reason="RETRY"), *waits("k", 0, number=1),
                served("k", SECOND)],
    ),
    "whose time is over is about to be refused": (
        "I15", [*waits("j", 0, number=0, deadline_ns=SECOND), *waits("k", 0, number=1),
                served("k", SECOND)],
    ),
    "whose session is closed is not wanted": (
        "I15", [*LINE, fact(t.SessionClosed), *waits("l", SECOND, number=2),
                served("l", 2 * SECOND)],
    ),
    "another instance has a line of its own": (
        "I15", [*LINE, fact(t.JobAssigned, 2 * SECOND, job="k", instance="b")],
    ),
    "another instance's attempt is followed": (
        "I15", [*LINE, NEW[0],
                fact(t.JobAdopted, 2 * SECOND, job="l", session="s", utterance=2, target="en",
                     node="n", attempt=1),
                NEW[1], served("j", 2 * SECOND)],
    ),
    "a slot is given back and the first in line has it": (
        "I15", [*LINE, *BACK, served("j", SECOND), served("k", 2 * SECOND)],
    ),
    "somebody else has the slot that was given back": (
        "I15", [*LINE, *BACK, fact(t.SlotTaken, SECOND, instance="b", job="l"),
                served("j", 2 * SECOND)],
    ),
    "a slot that another instance has given back before": (
        "I15", [*LINE, fact(t.SlotTaken), fact(t.SlotFreed, SECOND, instance="b"),
                fact(t.SlotFreed, SECOND), served("j", 2 * SECOND)],
    ),
    "a slot of a node that is gone": (
        "I15", [*LINE, *BACK, fact(t.NodeOffline, SECOND),
                served("j", 2 * SECOND)],
    ),
    "a slot is given back while something is broken": (
        "I15", [*LINE, fact(t.Disturbed, until_ns=2 * SECOND), *BACK,
                served("j", 2 * SECOND)],
    ),
    "another instance gives a slot back, and it is soon looked for": (
        "I15", [*LINE, fact(t.SlotTaken, instance="b"), fact(t.SlotFreed, SECOND, instance="b"),
                served("j", SECOND + SECOND // 2), served("k", 3 * SECOND)],
    ),
    "another instance gives a slot back, of one among many nodes": (
        "I15", [*[fact(t.NodeRegistered, node=f"n-{number}") for number in range(5)], *LINE,
                fact(t.SlotTaken, instance="b"), fact(t.SlotFreed, SECOND, instance="b"),
                served("j", 3 * SECOND)],
    ),
    "a node's failure is told after the last try": ("I15", [MADE, *TRIES, FAILED]),
    "four tries": ("I15", [MADE, *TRIES]),
    "another instance tries on its own": (
        "I15", [MADE, *TRIES, fact(t.JobAssigned, attempt=5, instance="b")],
    ),
    "a slot for a session that is here": ("I12", [granted("a")]),
    "a session has moved and is on its way to the store": (
        "I12", [stored(0, "b"), stored(SECOND // 2, "b"), stored(SECOND, "a"),
                stored(2 * SECOND, "b")],
    ),
}  # fmt: skip


def line_of(events: list[t.Event]) -> dict[str, int]:
    """What is broken of the two promises: these histories leave others half told."""
    checker = Checker(TELLS)
    for event in events:
        checker.observe(event)
    return {name: count for name, count in breaches(checker).items() if name in ("I12", "I15")}


@pytest.mark.parametrize("name", BROKEN)
def test_every_breach_is_found_once(name: str) -> None:
    promise, events = BROKEN[name]
    assert line_of(events) == {promise: 1}


@pytest.mark.parametrize("name", HONEST)
def test_what_is_right_is_not_blamed(name: str) -> None:
    assert line_of(HONEST[name][1]) == {}


def test_a_design_that_reports_failures_may_report_them_at_once() -> None:
    checker = Checker(CheckSettings(nodes_alike=True, told=True))
    for event in [MADE, FAILED]:
        checker.observe(event)
    assert "I15" not in {name for name, count in breaches(checker).items() if count}


def test_a_fault_excuses_who_cannot_say_whose_a_session_is() -> None:
    """While its link is cut, and not for ever."""
    away = fact(t.Disturbed, until_ns=9 * SECOND, kind="partition", target="a/redis")
    assert line_of([away, stored(0, "b"), stored(9 * SECOND, "b")]) == {}
    assert line_of([away, stored(0, "b"), stored(10 * SECOND, "b")]) == {"I12": 1}
