"""
The verdict: the checker over what was recorded, and the same promises seen from the outside.

The rules of the outside know nothing of the scheduler: every turn of a client is answered exactly
once or refused with a reason, in whichever of its sessions; nobody hangs; no slot is held when
everything is over. Order is the checker's: it is told what clients asked and heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from simsched.experiments.chaos.merged import unseen
from simsched.experiments.chaos.speakers import ERROR, Notes, Seen
from simsched.invariants import Checker, CheckSettings, Violation
from simsched.telemetry import Event

CLIENT: Final = "client"
"""Who noticed, where it was not an instance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a run came to.

    Attributes:
        violations: what broke, in the order of time; those of the outside first.
        checked: how often each invariant was put to the test.
        jobs: by what became of them.
        utterances: the same by the clients' own books.
        lost_on_the_way: answers that left an instance and did not arrive.

    """

    violations: list[Violation]
    checked: dict[str, int]
    jobs: dict[str, int]
    utterances: dict[str, int]
    lost_on_the_way: int


def judge(
    events: Sequence[Event],
    notes: Notes,
    settings: CheckSettings,
    now_ns: int,
    *,
    leases: Mapping[str, int],
    running: Mapping[str, int],
) -> Verdict:
    """
    Look at a run from the inside and from the outside.

    Args:
        events: the merged stream.
        notes: what the clients saw.
        settings: the bounds.
        now_ns: the end of the run.
        leases: slots still held in the store, by node.
        running: jobs still at work, by node, as the nodes say.

    """
    checker = Checker(settings)
    for event in events:
        checker.observe(event)
    checker.finish(now_ns)
    lost, strange = unseen(events, notes)
    outside = [*answers(notes, strange, now_ns), *slots(leases, running, now_ns)]
    return Verdict(
        violations=outside + checker.violations, checked=checker.checked,
        jobs=checker.conservation(), utterances=_utterances(notes), lost_on_the_way=lost,
    )  # fmt: skip


def answers(notes: Notes, strange: Iterable[Seen], now_ns: int) -> list[Violation]:
    """Exactly one answer to everything."""
    found = [
        Violation("I3", now_ns, f"c-{client}", f"turn {turn} was never answered", CLIENT)
        for client, turn in notes.unanswered
    ]
    found += _twice(notes)
    found += [
        Violation(
            "I3", one.at_ns, one.session,
            f"{one.outcome} for utterance {one.utterance} came from nowhere", CLIENT,
        )
        for one in strange
    ]  # fmt: skip
    found += [
        Violation("I3", now_ns, session, "its close was never acknowledged", CLIENT)
        for session in notes.not_closed
    ]
    return found


def _twice(notes: Notes) -> Iterable[Violation]:
    """A turn has one final answer, in whichever of its client's sessions it came."""
    turns = {(one.session, one.utterance): (one.client, one.turn) for one in notes.asked}
    first: dict[tuple[int, int], str] = {}
    for one in notes.seen:
        turn = turns.get((one.session, one.utterance))
        if turn is None:
            text = f"{one.outcome} for utterance {one.utterance}, which nobody asked for"
            yield Violation("I3", one.at_ns, one.session, text, CLIENT)
        elif one.outcome != ERROR:
            before = first.setdefault(turn, "")
            if before:
                text = f"turn {turn[1]} of c-{turn[0]} was answered again ({one.outcome}, {before})"
                yield Violation("I3", one.at_ns, one.session, text, CLIENT)
            first[turn] = one.outcome


def slots(leases: Mapping[str, int], running: Mapping[str, int], now_ns: int) -> list[Violation]:
    """When everything is over, nobody holds a slot or works."""
    found = [
        Violation("I5", now_ns, node, f"{count} slots are still leased", CLIENT)
        for node, count in sorted(leases.items())
    ]
    found += [
        Violation("I5", now_ns, node, f"{count} jobs still run", CLIENT)
        for node, count in sorted(running.items()) if count
    ]  # fmt: skip
    return found


def _utterances(notes: Notes) -> dict[str, int]:
    """What became of what was asked, by the clients' own books."""
    turns = {(one.client, one.turn) for one in notes.asked}
    asked_again = len(notes.asked) - len(turns)
    names = {(one.session, one.utterance): (one.client, one.turn) for one in notes.asked}
    ends: dict[tuple[int, int], str] = {}
    for one in notes.seen:
        turn = names.get((one.session, one.utterance))
        if turn is not None and ends.get(turn, ERROR) == ERROR:
            ends[turn] = one.outcome
    counts = {"asked": len(turns), "asked_again": asked_again}
    for outcome in ends.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    counts["never"] = len(notes.unanswered)
    return counts


def told(violations: Sequence[Violation], start_ns: int, most: int) -> list[str]:
    """Lines for people, as the hunt prints them."""
    lines = [
        f"{one.invariant} at {(one.at_ns - start_ns) / 1e6:.1f} ms: {one.subject}: {one.text}"
        + (f" ({one.instance})" if one.instance else "")
        for one in violations[:most]
    ]
    if len(violations) > most:
        lines.append(f"... and {len(violations) - most} more")
    return lines
