"""What the checker promises: every breach is found, and no honest history is blamed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched import telemetry as t
from simsched.errors import ConfigError
from simsched.findings import CONSERVATION, INVARIANTS, REMEMBERED_MAX, VIOLATIONS_MAX
from simsched.invariants import Checker, CheckSettings, compare_cuts, same_cuts
from simsched.units import MS, SECOND

LATER = 1_000 * SECOND
"""Beyond every bound."""

SETTINGS = CheckSettings(
    nodes_alike=True,
)

DEFAULTS: dict[type[t.Event], dict[str, Any]] = {
    t.SessionOpened: {"session": "s"},
    t.SessionClosed: {"session": "s", "audio_bytes_in": 100, "audio_bytes_cut": 100},
    t.UtteranceCut: {
        "session": "s", "utterance": 0, "reason": "IsFinal", "audio_bytes": 100, "audio_ms": 1,
        "first_audio_ns": 0, "last_audio_ns": 0, "silence_ns": 0, "gap_ns": 0, "hangover_ns": 0,
    },
    t.JobCreated: {
        "job": "j", "request": "r", "session": "s", "utterance": 0, "target": "en",
        "node": "n", "attempt": 1, "phase": 1,
    },
    t.JobRepeated: {"job": "j", "request": "r", "session": "s", "utterance": 0, "target": "en"},
    t.JobRefused: {
        "request": "r", "session": "s", "utterance": 0, "target": "en", "reason": "QUEUE_FULL",
    },
    t.JobQueued: {"job": "j", "session": "s", "deadline_ns": 10 * SECOND, "reason": "x"},
    t.JobAdopted: {
        "job": "j", "session": "s", "utterance": 0, "target": "en", "node": "n", "attempt": 1,
    },
    t.JobAssigned: {"job": "j", "node": "n", "attempt": 1},
    t.JobDispatched: {"job": "j", "session": "s", "node": "n", "attempt": 1},
    t.JobEnded: {
        "job": "j", "session": "s", "utterance": 0, "target": "en", "node": "n", "attempt": 1,
        "status": "completed", "reason": "",
    },
    t.ResultReceived: {"job": "j", "session": "s", "node": "n", "attempt": 1, "success": True},
    t.ResultAccepted: {"job": "j", "session": "s", "attempt": 1, "current_attempt": 1},
    t.ResultSuppressed: {
        "job": "j", "session": "s", "attempt": 1, "current_attempt": 0, "reason": "duplicate",
    },
    t.Disturbed: {"until_ns": 0},
    t.SlotsCounted: {"node": "n", "held": (), "slots": 2},
    t.EndAccepted: {"job": "j", "attempt": 1, "current_attempt": 1, "first": True},
    t.ClaimRepeated: {"job": "j", "attempt": 1, "same": True},
    t.NodeGranted: {"node": "n", "job": "j", "attempt": 1, "gone": False},
    t.LetterLies: {"inbox": "i-9", "session": "s", "limit_ns": SECOND},
    t.SlotsTried: {"node": "n", "given": 2, "held": 0, "slots": 2, "refusal": "FULL"},
    t.Delivered: {
        "session": "s", "target": "s", "utterance": 0, "language": "en", "job": "j",
        "outcome": "translation_result", "reason": "", "gap": False,
    },
    t.SlotTaken: {"node": "n", "job": "j", "attempt": 1, "live": 1, "slots": 2, "expires_ns": 0},
    t.SlotFreed: {"node": "n", "job": "j", "attempt": 1},
    t.SlotsForgotten: {"node": "n", "reserved": 0},
    t.NodeRegistered: {"node": "n", "slots": 2},
    t.NodeOffline: {"node": "n", "reason": "socket_closed"},
    t.NodeRunning: {
        "node": "n", "job": "j", "attempt": 1, "running": 1, "slots": 2, "started": True,
    },
    t.RequestLock: {"request": "r", "owner": "a", "taken": False, "released_by_owner": True},
}  # fmt: skip


def fact(kind: type[t.Event], at_ns: int = 0, /, **fields: Any) -> t.Event:
    values: dict[str, Any] = {"at_ns": at_ns, "instance": "a"} | DEFAULTS[kind] | fields
    return kind(**values)


def check(events: Iterable[t.Event], *, end_ns: int = 0) -> Checker:
    checker = Checker(SETTINGS)
    for event in events:
        checker.observe(event)
    checker.finish(end_ns)
    return checker


def breaches(checker: Checker) -> dict[str, int]:
    return {name: count for name, count in checker.counts.items() if count}


CUT, MADE, ENDED = fact(t.UtteranceCut), fact(t.JobCreated), fact(t.JobEnded)
ANSWERED = fact(t.Delivered)
FAILED = fact(t.JobEnded, status="failed")
OPENED = fact(t.SessionOpened)


def silence(reason: str, gap_ms: int, *, first_ms: int = 0, late_ms: int = 0) -> t.Event:
    """A cut at 20 s by silence: `gap_ms` before a pause's chunk, or before a timeout."""
    pause = reason == "Pause"
    last_ns = 20 * SECOND if pause else (20_000 - gap_ms) * MS
    return fact(
        t.UtteranceCut,
        20 * SECOND + 150 * MS + late_ms * MS,
        reason=reason,
        first_audio_ns=first_ms * MS,
        last_audio_ns=last_ns,
        silence_ns=0 if reason == "SessionClose" else 3 * SECOND,
        gap_ns=gap_ms * MS if pause else 0,
        hangover_ns=150 * MS,
    )


COUNTED = [
    MADE,
    fact(t.JobCreated, job="k", request="k", utterance=1),
    fact(t.JobCreated, job="l", request="l", utterance=2),
    fact(t.SlotTaken, live=0),
    fact(t.SlotTaken, job="k", live=0),
]
"""Three jobs, and the two slots of their node are taken as far as a counter knows."""


BROKEN: dict[str, tuple[str, list[t.Event], int]] = {
    "a second job while the first lives": (
        "I1", [MADE, fact(t.JobCreated, job="k", request="q")], 0,
    ),
    "a second job after the first was completed": (
        "I1", [MADE, ENDED, fact(t.JobCreated, job="k", request="q", instance="b")], 0,
    ),
    "the store counts too many": ("I2", [fact(t.SlotTaken, live=3), fact(t.SlotFreed)], 0),
    "a counter forgot who still runs": (
        "I2", [*COUNTED, fact(t.SlotsForgotten), fact(t.SlotTaken, job="l", live=0)], 0,
    ),
    "a node runs too many": ("I2", [fact(t.NodeRunning, running=3)], 0),
    "slots are known from registration": (
        "I2", [fact(t.NodeRegistered), fact(t.NodeRunning, running=3, slots=0)], 0,
    ),
    "two answers to one target": ("I3", [CUT, ANSWERED, ANSWERED], 0),
    "two answers from two instances": (
        "I3", [CUT, ANSWERED, fact(t.Delivered, instance="b", outcome="error", gap=True)], 0,
    ),
    "a repeat that forgot its language": (
        "I3", [MADE, ANSWERED, fact(t.Delivered, language="")], 0,
    ),
    "no answer at all": ("I3", [CUT], LATER),
    "no answer in one of two languages": (
        "I3", [CUT, MADE, ENDED, fact(t.JobCreated, job="k", request="q", target="fr"),
               fact(t.JobEnded, job="k", target="fr"), ANSWERED], LATER,
    ),
    "a closed session whose job ended silently": (
        "I3", [OPENED, CUT, MADE, ENDED, fact(t.SessionClosed)], 0,
    ),
    "an old attempt is accepted": ("I4", [MADE, fact(t.ResultAccepted, current_attempt=2)], 0),
    "the retry's result is swallowed": (
        "I4", [MADE, fact(t.ResultReceived), fact(t.JobAssigned, attempt=2),
               fact(t.ResultReceived, attempt=2), fact(t.ResultSuppressed, attempt=2)], 0,
    ),
    "an older result ended the job of a newer attempt": (
        "I4", [MADE, fact(t.ResultAccepted), fact(t.JobAssigned, attempt=2), ENDED,
               fact(t.ResultSuppressed, attempt=2, reason="terminal")], 0,
    ),
    "a slot is never freed": ("I5", [MADE, fact(t.SlotTaken), ENDED, ANSWERED], LATER),
    "a heartbeat forgets a leak": (
        "I5", [MADE, fact(t.SlotTaken), ENDED, ANSWERED, fact(t.SlotsForgotten, 2 * SECOND)], LATER,
    ),
    "an answer overtakes": (
        "I6", [CUT, fact(t.UtteranceCut, utterance=1), fact(t.Delivered, utterance=1), ANSWERED], 0,
    ),
    "an index is left out": ("I7", [OPENED, CUT, fact(t.UtteranceCut, utterance=2)], 0),
    "an index comes twice": ("I7", [OPENED, CUT, CUT], 0),
    "audio is lost": ("I7", [OPENED, fact(t.SessionClosed, audio_bytes_cut=60)], 0),
    "audio is lost although the session recovered from a failure": (
        "I7", [OPENED, CUT, FAILED, fact(t.UtteranceCut, utterance=1),
               fact(t.SessionClosed, audio_bytes_cut=60)], 0,
    ),
    "a session is wedged": (
        "I8", [OPENED, CUT, fact(t.Delivered, job="", outcome="error"),
               fact(t.SessionClosed, audio_bytes_cut=60)], 0,
    ),
    "a job fails and nothing is cut any more": (
        "I8", [OPENED, CUT, MADE, FAILED, fact(t.Delivered, outcome="error"),
               fact(t.SessionClosed, audio_bytes_cut=60)], 0,
    ),
    "a stranger gives the lock back": ("I9", [fact(t.RequestLock, released_by_owner=False)], 0),
    "a job goes to a node that is gone": (
        "I10", [fact(t.NodeRegistered), fact(t.NodeOffline), fact(t.JobDispatched)], 0,
    ),
    "another instance never hears that a node is gone": (
        "I10", [fact(t.NodeOffline), fact(t.JobDispatched, 2 * SECOND, instance="b")], 0,
    ),
    "a repeated request gets another job": ("I11", [MADE, fact(t.JobRepeated, job="k")], 0),
    "a result is accepted twice": (
        "I12", [MADE, fact(t.ResultAccepted), fact(t.ResultAccepted, instance="b")], 0,
    ),
    "a job gives up although a slot is free": (
        "I15", [fact(t.NodeRegistered), fact(t.JobCreated, node=""), fact(t.JobQueued),
                fact(t.JobEnded, 3 * SECOND, status="failed", reason="PENDING_TIMEOUT"),
                fact(t.Delivered, 3 * SECOND, outcome="error")], 0,
    ),
    "a pause cuts too early": ("I13", [silence("Pause", 2_999)], 0),
    "a pause cuts what its timeout should have": ("I13", [silence("Pause", 9_000)], 0),
    "a timeout comes too early": ("I13", [silence("Timeout", 2_999)], 0),
    "a timeout comes too late": ("I13", [silence("Timeout", 3_000, late_ms=1_201)], 0),
    "a session's end finds what silence should have cut": (
        "I13", [silence("SessionClose", 9_000)], 0,
    ),
    "a job ends twice": (CONSERVATION, [MADE, FAILED, ENDED], 0),
    "a job is lost": (CONSERVATION, [MADE, ANSWERED], LATER),
    "a job stays in line": (
        CONSERVATION, [fact(t.JobCreated, node=""), fact(t.JobQueued)], 13 * SECOND,
    ),
}  # fmt: skip

HONEST: dict[str, tuple[str, list[t.Event], int]] = {
    "a second job after the first failed": (
        "I1", [MADE, FAILED, fact(t.JobCreated, job="k", request="q")], 0,
    ),
    "one job in each of two languages": (
        "I1", [MADE, fact(t.JobCreated, job="k", request="q", target="fr")], 0,
    ),
    "a repeat is the same job": ("I11", [MADE, fact(t.JobRepeated), fact(t.JobCreated)], 0),
    "a binding has lapsed": (
        "I1", [MADE, FAILED, fact(t.JobCreated, 91 * SECOND, job="k")], 91 * SECOND,
    ),
    "a node is full": ("I2", [fact(t.SlotTaken, live=2), fact(t.NodeRunning, running=2)], 0),
    "who was forgotten gave its slot back": (
        "I2", [*COUNTED, fact(t.SlotsForgotten), fact(t.SlotFreed, job="k"),
               fact(t.SlotTaken, job="l", live=0)], 0,
    ),
    "a lease ran out before the next was given": (
        "I2", [*COUNTED, fact(t.SlotTaken, job="l", expires_ns=SECOND)], 0,
    ),
    "each listener gets its answer": (
        "I3", [CUT, MADE, fact(t.Delivered, target="x"), fact(t.Delivered, target="y"), ENDED],
        LATER,
    ),
    "a miss is an answer": ("I3", [CUT, fact(t.Delivered, outcome="missing_result")], LATER),
    "the last answer is still within its bound": ("I1", [CUT, MADE], 100 * SECOND),
    "a repeat is dropped while the first is taken in": (
        "I4", [MADE, fact(t.ResultReceived), fact(t.ResultReceived), fact(t.ResultSuppressed),
               fact(t.ResultAccepted), ENDED], 0,
    ),
    "an old attempt is dropped": (
        "I4", [MADE, fact(t.JobAssigned, attempt=2), fact(t.ResultSuppressed),
               fact(t.ResultAccepted, attempt=2, current_attempt=2)], 0,
    ),
    "a failed attempt is accepted and then the next": (
        "I12", [MADE, fact(t.ResultAccepted), fact(t.JobAssigned, attempt=2),
                fact(t.ResultAccepted, attempt=2, current_attempt=2), ENDED], 0,
    ),
    "an older attempt is accepted late by who is alone": (
        "I4", [MADE, fact(t.JobAssigned, attempt=2),
               fact(t.ResultAccepted, attempt=2, current_attempt=2), ENDED,
               fact(t.ResultAccepted, instance="b"),
               fact(t.ResultSuppressed, attempt=2, reason="terminal")], 0,
    ),
    "a result comes after its job was given up": (
        "I4", [MADE, FAILED, fact(t.ResultSuppressed, reason="terminal")], 0,
    ),
    "a slot is freed": ("I5", [MADE, fact(t.SlotTaken), fact(t.SlotFreed), ENDED, ANSWERED], LATER),
    "a lease runs out": (
        "I5", [MADE, fact(t.SlotTaken, expires_ns=90 * SECOND), ENDED, ANSWERED], LATER,
    ),
    "a slot goes with its node": (
        "I5", [MADE, fact(t.SlotTaken), fact(t.NodeOffline), ENDED, ANSWERED], LATER,
    ),
    "a slot is taken before its job is announced": (
        "I5", [fact(t.SlotTaken), fact(t.SlotsForgotten, 2 * SECOND),
               fact(t.JobCreated, 3 * SECOND)], 5 * SECOND,
    ),
    "a running job holds its slot": ("I5", [MADE, fact(t.SlotTaken)], 5 * SECOND),
    "an answer follows a gap": (
        "I6", [fact(t.Delivered, utterance=1, outcome="error", gap=True), ANSWERED,
               fact(t.Delivered, utterance=2)], 0,
    ),
    "a client numbers its utterances": (
        "I7", [OPENED, CUT, fact(t.UtteranceCut, utterance=7, reason="Utterance"),
               fact(t.UtteranceCut, utterance=1), fact(t.SessionClosed)], 0,
    ),
    "the session cuts again after a failure": (
        "I8", [OPENED, CUT, FAILED, fact(t.UtteranceCut, utterance=1), fact(t.SessionClosed)], 0,
    ),
    "the owner gives its lock back": ("I9", [fact(t.RequestLock)], 0),
    "a node came back": (
        "I10", [fact(t.NodeOffline), fact(t.NodeRegistered), fact(t.JobDispatched)], 0,
    ),
    "the news of a loss is on its way": (
        "I10", [fact(t.NodeOffline), fact(t.JobDispatched, SECOND // 2, instance="b")], 0,
    ),
    "a job gives up while every slot is taken": (
        "I15", [fact(t.NodeRegistered), fact(t.SlotTaken, job="l", live=1),
                fact(t.SlotTaken, job="m", live=2),
                fact(t.JobCreated, node=""), fact(t.JobQueued),
                fact(t.JobEnded, 3 * SECOND, status="failed", reason="PENDING_TIMEOUT"),
                fact(t.Delivered, 3 * SECOND, outcome="error")], 0,
    ),
    "a job gives up while something is broken": (
        "I15", [fact(t.NodeRegistered), fact(t.JobCreated, node=""), fact(t.JobQueued),
                fact(t.Disturbed, until_ns=2 * SECOND),
                fact(t.JobEnded, 3 * SECOND, status="failed", reason="PENDING_TIMEOUT"),
                fact(t.Delivered, 3 * SECOND, outcome="error")], 0,
    ),
    "a pause cuts in time": ("I13", [silence("Pause", 3_100)], 0),
    "a first chunk after a long silence cuts itself": (
        "I13", [silence("Pause", 9_000, first_ms=20_000)], 0,
    ),
    "a timeout cuts in time": ("I13", [silence("Timeout", 3_000, late_ms=1_100)], 0),
    "the end of a session cuts what was said just now": ("I13", [silence("SessionClose", 100)], 0),
    "a refused job is an end of its own": (
        CONSERVATION, [fact(t.JobCreated, node=""), fact(t.JobRefused), FAILED, ANSWERED], LATER,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_every_breach_is_found(name: str) -> None:
    """A minimal history that breaks one promise is blamed for that promise and no other."""
    promise, events, end_ns = BROKEN[name]

    checker = check(events, end_ns=end_ns)

    assert breaches(checker) == {promise: 1}
    assert checker.violations[0].invariant == promise
    assert checker.checked[promise] >= 1


@pytest.mark.parametrize("name", HONEST)
def test_what_is_right_is_not_blamed(name: str) -> None:
    """The history next to a breach keeps every promise, and counts as a test of it."""
    promise, events, end_ns = HONEST[name]

    checker = check(events, end_ns=end_ns)

    assert checker.violations == []
    assert checker.checked[promise] >= 1


def test_every_invariant_but_the_comparison_has_a_breach_and_an_honest_twin() -> None:
    names = {invariant.name for invariant in INVARIANTS} - {"I14", "I16"}

    assert {promise for promise, _, _ in BROKEN.values()} == names
    assert {promise for promise, _, _ in HONEST.values()} == names


def test_each_promise_can_be_read_in_two_languages() -> None:
    assert [i.name for i in INVARIANTS] == [*(f"I{n}" for n in range(1, 17)), CONSERVATION]
    assert all(i.english and i.chinese for i in INVARIANTS)
    assert check([]).counts == {i.name: 0 for i in INVARIANTS}


def test_a_missing_answer_is_reported_when_its_bound_passes_not_only_at_the_end() -> None:
    """The next utterance after the bound brings the breach to light, and only once."""
    bound_ns = SETTINGS.answer_bound_ns
    checker = Checker(SETTINGS)
    checker.observe(fact(t.UtteranceCut))

    checker.observe(fact(t.UtteranceCut, bound_ns, utterance=1))
    before = checker.counts["I3"]
    checker.observe(fact(t.UtteranceCut, bound_ns + 1, utterance=2))

    assert (before, checker.counts["I3"]) == (0, 1)
    checker.finish(bound_ns + 2)
    assert checker.counts["I3"] == 1


def test_the_accounts_add_up() -> None:
    """Created is the sum of what became of the jobs, a lost one and a refused one included."""
    ends = {"done": "completed", "failed": "failed", "dropped": "cancelled", "refused": "failed"}
    events = [
        fact(t.JobCreated, LATER, job=name, utterance=n, request=name, node="" if n == 5 else "n")
        for n, name in enumerate((*ends, "runs", "waits"))
    ]
    lost = fact(t.JobCreated, job="lost", utterance=9, request="lost")
    refused = fact(t.JobRefused, LATER, utterance=3, request="refused")
    ended = [fact(t.JobEnded, LATER, job=name, status=status) for name, status in ends.items()]

    account = check([lost, *events, refused, *ended], end_ns=LATER).conservation()

    assert account.pop("created") == sum(account.values()) == 7
    assert set(account.values()) == {1}


def test_violations_are_kept_up_to_a_limit_and_counted_beyond_it() -> None:
    checker = check(fact(t.RequestLock, released_by_owner=False) for _ in range(VIOLATIONS_MAX + 5))

    assert len(checker.violations) == VIOLATIONS_MAX
    assert checker.counts["I9"] == checker.checked["I9"] == VIOLATIONS_MAX + 5


def test_cuts_of_two_runs_are_compared_by_session_and_order() -> None:
    """I14: a cut that differs or is missing counts; when it was made does not."""
    base = [fact(t.UtteranceCut, session=s, utterance=n) for n in range(3) for s in "ab"]
    cuts = [cut for cut in base if isinstance(cut, t.UtteranceCut)]
    slower = [fact(t.UtteranceCut, 5, session=s, utterance=n) for s in "ba" for n in range(3)]
    other = [cut for cut in slower if isinstance(cut, t.UtteranceCut)]

    assert compare_cuts(cuts, other) == (0, 6)
    assert same_cuts(cuts, other[:-1]) == 1
    other[0].audio_bytes += 1
    other[1].reason = "Timeout"
    assert compare_cuts(cuts, other) == (2, 6)


def test_negative_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="gap_ns"):
        CheckSettings(gap_ns=-1)


def utterance(
    session: str, index: int, at_ns: int, *, kind: str = "done", tries: int = 1
) -> list[t.Event]:
    """An honest utterance: waits, fails over, and ends as `kind` says."""
    job, node = f"{session}:{index}:en", f"n{index % 3}"
    who = {"session": session, "utterance": index}
    events = [
        fact(t.UtteranceCut, at_ns, **who, first_audio_ns=at_ns, last_audio_ns=at_ns),
        fact(t.JobCreated, at_ns, **who, job=job, request=job, node="", attempt=0),
    ]
    gone = {"job": job, "attempt": tries, "node": node, **who}
    if kind == "refused":
        return [
            *events,
            fact(t.JobRefused, at_ns, **who, request=job),
            fact(t.JobEnded, at_ns, **gone, status="failed"),
            fact(t.Delivered, at_ns, **who, target=session, job=job, outcome="error"),
        ]
    events.append(fact(t.JobQueued, at_ns, job=job, session=session, deadline_ns=at_ns + SECOND))
    for attempt in range(1, tries + 1):
        at = {"job": job, "node": node, "attempt": attempt}
        result = {"job": job, "session": session, "attempt": attempt}
        taken = [
            fact(t.SlotTaken, at_ns, **at, slots=1_000),
            fact(t.JobAssigned, at_ns, **at),
            fact(t.JobDispatched, at_ns, **at, session=session),
            fact(t.NodeRunning, at_ns, **at),
        ]
        answer = [
            fact(t.ResultReceived, at_ns, **result, node=node, success=attempt == tries),
            fact(t.SlotFreed, at_ns, **at),
            fact(t.ResultAccepted, at_ns, **result, current_attempt=attempt),
        ]
        events += taken + answer
    last = {"job": job, "session": session, "attempt": tries, "reason": "terminal"}
    return [
        *events,
        fact(t.Delivered, at_ns, **who, target=session, job=job),
        fact(t.JobEnded, at_ns, **gone),
        fact(t.ResultSuppressed, at_ns, **last),
    ]


LIVES = st.lists(
    st.lists(st.tuples(st.sampled_from(("done", "refused")), st.integers(1, 4)), max_size=5),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(lives=LIVES, data=st.data())
def test_no_honest_history_is_blamed(
    lives: list[list[tuple[str, int]]], data: st.DataObject
) -> None:
    """However sessions interleave and wherever the run stops, no promise was broken."""
    lines: list[list[t.Event]] = []
    for number, life in enumerate(lives):
        session, spoken = f"s{number}", 100 * len(life)
        lines.append([fact(t.SessionOpened, session=session)])
        for index, (kind, tries) in enumerate(life):
            lines[-1] += utterance(session, index, 0, kind=kind, tries=tries)
        closed = fact(
            t.SessionClosed, session=session, audio_bytes_in=spoken, audio_bytes_cut=spoken
        )
        lines[-1].append(closed)
    checker, now_ns = Checker(SETTINGS), 0
    for _ in range(data.draw(st.integers(0, sum(map(len, lines))), label="events until the end")):
        open_lines = [line for line in lines if line]
        line = open_lines[data.draw(st.integers(0, len(open_lines) - 1))]
        event = line.pop(0)
        now_ns += 10 * MS
        event.at_ns = now_ns
        if isinstance(event, t.JobQueued):
            event.deadline_ns = now_ns + 10 * SECOND
        checker.observe(event)
    checker.finish(now_ns)

    assert checker.violations == []
    account = checker.conservation()
    assert account.pop("created") == sum(account.values())


def test_memory_stays_flat_over_100_000_jobs() -> None:
    """Sessions, jobs and answers are forgotten; what is left is the bounded tails."""
    checker, peak = Checker(SETTINGS), 0
    for number in range(20_000):
        session, at_ns = f"s{number}", number * 10 * MS
        checker.observe(fact(t.SessionOpened, at_ns, session=session))
        for index in range(5):
            made: dict[str, Any] = {
                "at_ns": at_ns, "session": session, "utterance": index,
            }  # fmt: skip
            job = f"{session}:{index}"
            checker.observe(fact(t.UtteranceCut, **made))
            checker.observe(fact(t.JobCreated, **made, job=job, request=job))
            checker.observe(fact(t.SlotTaken, at_ns, job=job))
            checker.observe(fact(t.Delivered, **made, target=session, job=job))
            checker.observe(fact(t.JobEnded, **made, job=job))
            checker.observe(fact(t.SlotFreed, at_ns, job=job))
        checker.observe(fact(t.SessionClosed, at_ns, session=session))
        if number % 1_000 == 0:
            peak = max(peak, *checker.sizes().values())
    checker.finish(20_000 * 10 * MS)

    assert checker.violations == []
    assert checker.conservation()["finished"] == 100_000
    assert peak <= REMEMBERED_MAX + 10
    assert checker.sizes()["jobs_due"] <= 10


def test_a_leak_of_the_checked_scheduler_is_no_leak_of_the_checker() -> None:
    """Slots that are never freed are judged and let go, as are jobs that never end."""
    checker = Checker(SETTINGS)
    for number in range(5_000):
        at_ns = number * SECOND
        made = {"job": f"j{number}", "request": f"r{number}", "utterance": number}
        checker.observe(fact(t.JobCreated, at_ns, **made))
        checker.observe(fact(t.SlotTaken, at_ns, job=f"j{number}"))

    assert checker.sizes()["slots_held"] <= 1_024
    assert checker.sizes()["jobs_due"] <= 200
    assert checker.counts["I5"] > 0
    assert checker.conservation()["lost"] == checker.counts[CONSERVATION] > 4_000


@pytest.mark.parametrize(
    "news",
    [
        t.InstanceDown(at_ns=0, instance="a"),
        t.SessionResumed(at_ns=0, instance="a", session="s"),
        t.ClientGone(at_ns=0, instance="", session="s"),
    ],
)
def test_news_that_settles_more_than_is_remembered_is_taken_in(news: t.Event) -> None:
    """What falls off the end of the memory while all of a session is settled upsets nobody."""
    checker = Checker(SETTINGS)
    for number in range(REMEMBERED_MAX + 2):
        checker.observe(fact(t.UtteranceCut, session="s", utterance=number, reason="Utterance"))
    checker.observe(news)
    checker.finish(SECOND)
    assert checker.sizes()["answered"] == REMEMBERED_MAX
    assert checker.violations == []


def test_who_had_a_session_before_is_not_judged_by_what_it_says_into_a_dead_socket() -> None:
    """A session goes on elsewhere, where it is opened anew; its old instance answers late."""
    events = [
        fact(t.SessionOpened, session="s", instance="a"),
        t.SessionResumed(at_ns=1, instance="b", session="s"),
        fact(t.SessionOpened, 1, session="s", instance="b"),
        fact(t.Delivered, 2, session="s", target="s", utterance=6, instance="b"),
        fact(t.Delivered, 3, session="s", target="s", utterance=5, instance="a"),
    ]
    assert breaches(check(events)) == {}
    events[-1] = fact(t.Delivered, 3, session="s", target="s", utterance=5, instance="b")
    assert breaches(check(events)) == {"I6": 1}
