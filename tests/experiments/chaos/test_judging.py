"""
The verdict over recordings: a good one passes, and each way to doctor it is seen.

The recordings are written by the live server's own recorder, of two instances that started at
different moments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from simsched.errors import SimschedError
from simsched.experiments.chaos import recovery_times
from simsched.experiments.chaos.breaking import Hit
from simsched.experiments.chaos.judging import Verdict, judge, told
from simsched.experiments.chaos.merged import (
    in_order,
    read_recordings,
    settings_of,
    truths,
)
from simsched.experiments.chaos.speakers import ERROR, RESULT, Asked, Moved, Notes, Seen
from simsched.experiments.chaos.system import Death
from simsched.faults import Fault
from simsched.live.record import Recorder, policy_fields
from simsched.presets import parse_policy
from simsched.telemetry import (
    Delivered,
    Event,
    JobCreated,
    JobDispatched,
    JobEnded,
    ResultAccepted,
    ResultReceived,
    SessionClosed,
    SessionOpened,
    SessionResumed,
    SlotFreed,
    SlotTaken,
    UtteranceCut,
)
from simsched.units import MS, SECOND

ORIGINS = {"i-0": 1_000 * SECOND, "i-1": 1_003 * SECOND}
"""When each instance started, on the machine's clock."""

END_NS = 2_000 * SECOND


def opened(session: str, instance: str = "i-0") -> list[Event]:
    return [SessionOpened(at_ns=5 * SECOND, instance=instance, session=session)]


def closed(session: str, instance: str = "i-0") -> list[Event]:
    return [
        SessionClosed(
            at_ns=400 * SECOND, instance=instance, session=session, audio_bytes_in=0,
            audio_bytes_cut=0,
        )
    ]  # fmt: skip


def asked_for(
    session: str, utterance: int, at_ns: int, instance: str = "i-0", attempt: int = 1
) -> list[Event]:
    """An utterance until its job has been sent to a node."""
    job = f"{session}:{utterance}:en"
    near: dict[str, Any] = {"at_ns": at_ns, "instance": instance}
    return [
        UtteranceCut(
            **near, session=session, utterance=utterance, reason="Utterance", audio_bytes=0,
            audio_ms=0, first_audio_ns=at_ns, last_audio_ns=at_ns, silence_ns=0, gap_ns=0,
            hangover_ns=0,
        ),
        SlotTaken(**near, node="n-0", job=job, attempt=attempt, live=1, slots=2,
                  expires_ns=at_ns + 5 * SECOND),
        JobCreated(**near, job=job, request=job, session=session, utterance=utterance,
                   target="en", node="n-0", attempt=attempt, phase=2),
        JobDispatched(**near, job=job, session=session, node="n-0", attempt=attempt),
    ]  # fmt: skip


def done(
    session: str, utterance: int, at_ns: int, instance: str = "i-0", attempt: int = 1
) -> list[Event]:
    """Its result, its end, its slot."""
    job = f"{session}:{utterance}:en"
    near: dict[str, Any] = {"at_ns": at_ns, "instance": instance}
    return [
        ResultReceived(**near, job=job, session=session, node="n-0", attempt=attempt, success=True),
        ResultAccepted(**near, job=job, session=session, attempt=attempt, current_attempt=attempt),
        JobEnded(**near, job=job, session=session, utterance=utterance, target="en", node="n-0",
                 attempt=attempt, status="completed", reason=""),
        SlotFreed(**near, node="n-0", job=job, attempt=attempt),
    ]  # fmt: skip


def delivered(
    session: str, utterance: int, at_ns: int, instance: str = "i-0", *, gap: bool = False
) -> list[Event]:
    return [
        Delivered(
            at_ns=at_ns, instance=instance, session=session, target=session, utterance=utterance,
            language="en", job=f"{session}:{utterance}:en", outcome=RESULT, reason="", gap=gap,
        )
    ]  # fmt: skip


def whole(session: str, utterances: Sequence[int], instance: str = "i-0") -> list[Event]:
    """A session as it should be."""
    events = opened(session, instance)
    for utterance in utterances:
        at_ns = (10 + utterance) * SECOND
        events += asked_for(session, utterance, at_ns, instance)
        events += done(session, utterance, at_ns + 300 * MS, instance)
        events += delivered(session, utterance, at_ns + 300 * MS, instance)
    return events + closed(session, instance)


def recorded(folder: Path, streams: dict[str, list[Event]]) -> Path:
    """Each instance's recording, below one folder."""
    policy = parse_policy("safe,job_timeout_ms=8000,pending_ms=5000")
    for name, events in streams.items():
        recorder = Recorder(folder / name, at_once=True)
        recorder.begin(
            {
                "instance": name,
                "origin_ns": ORIGINS[name],
                "policy": policy_fields(policy),
                "canary": None,
                "check": {"pause_ns": 0, "hangover_ns": 0, "scan_ns": SECOND},
            }
        )
        for event in events:
            recorder.event(event)
        recorder.close()
    return folder


def saw(
    notes: Notes, client: int, session: str, utterances: Sequence[int], instance: str = "i-0"
) -> Notes:
    """A client asked for these, and saw an answer to each."""
    for turn, utterance in enumerate(utterances):
        at_ns = ORIGINS["i-0"] + (10 + utterance) * SECOND
        notes.asked.append(Asked(at_ns, client, turn, session, utterance, 1))
        notes.seen.append(Seen(at_ns + SECOND, client, instance, session, utterance, 1, RESULT, ""))
    return notes


def verdict(
    folder: Path,
    notes: Notes,
    deaths: Sequence[Death] = (),
    *,
    leases: dict[str, int] | None = None,
    running: dict[str, int] | None = None,
) -> Verdict:
    recordings = read_recordings(folder)
    events = in_order(truths(deaths, (), (), notes), *(one.events for one in recordings))
    return judge(
        events, notes, settings_of(recordings), END_NS, leases=leases or {}, running=running or {}
    )


def words(found: Verdict) -> list[str]:
    return [line.split(": ", 1)[1] for line in told(found.violations, ORIGINS["i-0"], 10)]


def test_a_run_in_which_nothing_broke_passes(tmp_path: Path) -> None:
    """Two instances, two clients, every answer in its place; and that was put to the test."""
    streams = {"i-0": whole("s-0", range(5)), "i-1": whole("s-1", range(3), "i-1")}
    notes = saw(saw(Notes(), 0, "s-0", range(5)), 1, "s-1", range(3), "i-1")
    found = verdict(recorded(tmp_path, streams), notes)
    assert words(found) == []
    assert (found.lost_on_the_way, found.checked["I3"], found.jobs["finished"]) == (0, 8, 8)
    assert found.utterances == {"asked": 8, "asked_again": 0, RESULT: 8, "never": 0}


def test_instances_are_merged_on_the_clock_that_they_share(tmp_path: Path) -> None:
    """The later start of an instance is added to what it says; the order is the true one."""
    streams = {"i-0": opened("s-0") + closed("s-0"), "i-1": opened("s-1", "i-1")}
    recordings = read_recordings(recorded(tmp_path, streams))
    events = in_order(*(one.events for one in recordings))
    starts = [event.at_ns for event in events]
    assert starts == [1_005 * SECOND, 1_008 * SECOND, 1_400 * SECOND]
    slot = recorded(tmp_path / "slots", {"i-0": asked_for("s-0", 0, 10 * SECOND)})
    taken = next(event for event in read_recordings(slot)[0].events if isinstance(event, SlotTaken))
    assert taken.expires_ns == 1_015 * SECOND


def test_an_answer_that_is_seen_again_is_a_violation(tmp_path: Path) -> None:
    """Whether an instance says that it sent it twice, or not even that."""
    events = whole("s-0", range(3))
    again = events[:-1] + delivered("s-0", 1, 20 * SECOND, gap=True) + events[-1:]
    notes = saw(Notes(), 0, "s-0", range(3))
    notes.seen.append(Seen(ORIGINS["i-0"] + 20 * SECOND, 0, "i-0", "s-0", 1, 1, RESULT, ""))
    told_by_both = words(verdict(recorded(tmp_path / "a", {"i-0": again}), notes))
    assert any("turn 1 of c-0 was answered again" in line for line in told_by_both)
    assert any("I3 twice: the client heard utterance 1 again" in line for line in told_by_both)
    assert not any("came from nowhere" in line for line in told_by_both)
    by_client = words(verdict(recorded(tmp_path / "b", {"i-0": events}), notes))
    assert any("utterance 1 came from nowhere" in line for line in by_client)


def test_an_answer_in_a_session_of_before_and_in_a_new_one_are_two(tmp_path: Path) -> None:
    """A client that had to begin anew asked for the turn again: it still has one answer."""
    events = whole("s-0", range(1)) + whole("s-9", range(1))
    notes = saw(saw(Notes(), 0, "s-0", range(1)), 0, "s-9", range(1))
    found = words(verdict(recorded(tmp_path, {"i-0": events}), notes))
    assert found == [
        "s-9: turn 0 of c-0 was answered again (translation_result, translation_result) (client)"
    ]


def test_an_answer_that_never_came_is_a_violation(tmp_path: Path) -> None:
    """Seen from the outside, and by the checker, whatever the instances say that they sent."""
    notes = saw(Notes(), 0, "s-0", range(3))
    notes.seen = [one for one in notes.seen if one.utterance != 1]
    notes.unanswered.append((0, 1))
    found = verdict(recorded(tmp_path, {"i-0": whole("s-0", range(3))}), notes)
    assert "c-0: turn 1 was never answered (client)" in words(found)
    assert any("the client got no answer to utterance 1" in line for line in words(found))
    assert found.lost_on_the_way == 1


def test_an_answer_that_got_lost_on_the_way_is_none(tmp_path: Path) -> None:
    """It was sent, nobody saw it, and the client asked another instance: one answer, no fault."""
    first = opened("s-0") + asked_for("s-0", 0, 10 * SECOND) + done("s-0", 0, 11 * SECOND)
    first += delivered("s-0", 0, 11 * SECOND)
    again_ns = 12 * SECOND
    second: list[Event] = [SessionResumed(at_ns=again_ns, instance="i-1", session="s-0")]
    second += asked_for("s-0", 0, again_ns, "i-1", attempt=2)
    second += done("s-0", 0, 13 * SECOND, "i-1", attempt=2)
    second += delivered("s-0", 0, 13 * SECOND, "i-1")
    died_ns = ORIGINS["i-0"] + 11 * SECOND + MS
    deaths = [Death("i-0", died_ns - MS, died_ns, (0,))]
    notes = saw(Notes(), 0, "s-0", [0])
    notes.asked.append(Asked(ORIGINS["i-1"] + again_ns, 0, 0, "s-0", 0, 2))
    notes.seen = [Seen(ORIGINS["i-1"] + 14 * SECOND, 0, "i-1", "s-0", 0, 2, RESULT, "")]
    found = verdict(recorded(tmp_path, {"i-0": first, "i-1": second}), notes, deaths)
    assert found.lost_on_the_way == 1
    assert words(found) == []


def test_what_arrives_when_its_client_has_left_is_owed_to_nobody(tmp_path: Path) -> None:
    """A link held it back; without the client's leaving it would be an answer that never came."""
    events = opened("s-0") + asked_for("s-0", 0, 10 * SECOND) + done("s-0", 0, 11 * SECOND)
    folder, notes = recorded(tmp_path, {"i-0": events + closed("s-0")}), Notes()
    notes.asked.append(Asked(ORIGINS["i-0"] + 8 * SECOND, 0, 0, "s-0", 0, 1))
    assert any("no answer to utterance 0" in line for line in words(verdict(folder, notes)))
    notes.left.append((ORIGINS["i-0"] + 9 * SECOND, "s-0"))
    assert words(verdict(folder, notes)) == []


def test_answers_out_of_order_are_a_violation(tmp_path: Path) -> None:
    """As the client hears them on one connection."""
    notes = saw(Notes(), 0, "s-0", range(3))
    later = notes.seen[0]._replace(at_ns=notes.seen[2].at_ns + MS)
    notes.seen = [*notes.seen[1:], later]
    found = words(verdict(recorded(tmp_path, {"i-0": whole("s-0", range(3))}), notes))
    assert found == ["s-0: the client heard utterance 0 after a later one (i-0)"]


def test_a_slot_that_is_still_held_is_a_violation(tmp_path: Path) -> None:
    """In the store's books, on the node itself, and in what was recorded."""
    events = whole("s-0", range(3))
    notes = saw(Notes(), 0, "s-0", range(3))
    found = verdict(
        recorded(tmp_path / "a", {"i-0": events}), notes, leases={"n-4": 2}, running={"n-1": 1}
    )
    assert words(found) == [
        "n-4: 2 slots are still leased (client)",
        "n-1: 1 jobs still run (client)",
    ]
    leaked = [
        one for one in whole("s-0", range(3))
        if not (isinstance(one, SlotFreed) and one.job == "s-0:1:en")
    ]  # fmt: skip
    for event in leaked:
        if isinstance(event, SlotTaken):
            event.expires_ns = END_NS  # a lease that does not run out
    found = verdict(recorded(tmp_path / "b", {"i-0": leaked}), notes)
    assert any("the slot of s-0:1:en attempt 1 was never freed" in one for one in words(found))


def test_an_answer_to_what_nobody_asked_is_a_violation(tmp_path: Path) -> None:
    """A client knows what it said."""
    notes = saw(Notes(), 0, "s-0", range(3))
    notes.seen.append(Seen(END_NS, 0, "i-0", "s-0", 9, 1, ERROR, "NO_NODE"))
    found = words(verdict(recorded(tmp_path, {"i-0": whole("s-0", range(3))}), notes))
    assert "s-0: error for utterance 9, which nobody asked for (client)" in found
    assert "s-0: error for utterance 9 came from nowhere (client)" in found


def test_the_half_line_of_a_killed_instance_is_left_out(tmp_path: Path) -> None:
    """And a whole line that is no event is an error with its place."""
    folder = recorded(tmp_path, {"i-0": opened("s-0")})
    file = folder / "i-0" / "events.jsonl"
    with file.open("ab") as lines:
        lines.write(b'{"event":"session_op')
    assert len(read_recordings(folder)[0].events) == 1
    with file.open("ab") as lines:
        lines.write(os.linesep.encode())
    with pytest.raises(SimschedError, match="line 2"):
        read_recordings(folder)


def test_recovery_times_are_those_of_the_jobs_that_were_hit(tmp_path: Path) -> None:
    """A job on the node that was sent again counts; one that had ended, or elsewhere, does not."""
    events = asked_for("s-0", 0, 10 * SECOND) + done("s-0", 0, 11 * SECOND)
    events += asked_for("s-0", 1, 12 * SECOND)
    events += [
        JobDispatched(at_ns=13 * SECOND + 80 * MS, instance="i-0", job="s-0:1:en", session="s-0",
                      node="n-1", attempt=2),
        JobEnded(at_ns=14 * SECOND, instance="i-0", job="s-0:1:en", session="s-0", utterance=1,
                 target="en", node="n-1", attempt=2, status="completed", reason=""),
    ]  # fmt: skip
    moved = read_recordings(recorded(tmp_path, {"i-0": events}))[0].events
    began_ns = ORIGINS["i-0"] + 13 * SECOND
    hit = Hit(Fault(kind="node_crash", target="n-0", at_ms=1), began_ns, began_ns + SECOND, "n-0")
    lives = recovery_times.attempts(moved)
    assert recovery_times.sent_again(lives, [hit]) == [80 * MS]
    other = Hit(Fault(kind="node_crash", target="n-1", at_ms=1), began_ns, began_ns, "n-1")
    assert recovery_times.sent_again(lives, [other]) == []
    again = [Moved(began_ns + 90 * MS, 4, began_ns + MS, "s-0", "s-0")]
    deaths = [Death("i-0", began_ns, began_ns + MS, (4, 5))]
    assert recovery_times.resumed(deaths, again) == [90 * MS]
    outages = [(ORIGINS["i-0"] + 11 * SECOND, ORIGINS["i-0"] + 11_500 * MS)]
    assert recovery_times.first_claims(moved, outages, since_back=True) == [500 * MS]
    assert recovery_times.first_claims(moved, outages, since_back=False) == [SECOND]
    assert recovery_times.spread_of(range(0, 101 * MS, MS)) == (101, 50.0, 99.0, 100.0)
