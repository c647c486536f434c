"""
The verdict: the checker over what was recorded, and the same promises seen from the outside.

The rules of the outside know nothing of the scheduler: every utterance that a client asked for is
answered exactly once or refused with a reason, in the order of its session unless the server said
that a gap was given up, nobody hangs, and no slot is held when everything is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from simsched.experiments.chaos.merged import Received
from simsched.experiments.chaos.speakers import ERROR, Notes
from simsched.invariants import Checker, CheckSettings, Violation

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

    """

    violations: list[Violation]
    checked: dict[str, int]
    jobs: dict[str, int]
    utterances: dict[str, int] = field(default_factory=dict)


def judge(
    got: Received, notes: Notes, settings: CheckSettings, now_ns: int, *,
    leases: Mapping[str, int], running: Mapping[str, int],
) -> Verdict:  # fmt: skip
    """
    Look at a run from the inside and from the outside.

    Args:
        got: the merged stream, and which answers were seen.
        notes: what the clients saw.
        settings: the bounds.
        now_ns: the end of the run.
        leases: slots still held in the store, by node.
        running: jobs still at work, by node, as the nodes say.

    """
    checker = Checker(settings)
    for event in got.events:
        checker.observe(event)
    checker.finish(now_ns)
    outside = [*answers(notes, got, now_ns), *slots(leases, running, now_ns)]
    return Verdict(
        violations=outside + checker.violations, checked=checker.checked,
        jobs=checker.conservation(), utterances=_utterances(notes),
    )  # fmt: skip


def answers(notes: Notes, got: Received, now_ns: int) -> list[Violation]:
    """Exactly one answer to everything, in its order."""
    found = [
        Violation("I3", now_ns, f"c-{client}", f"turn {turn} was never answered", CLIENT)
        for client, turn in notes.unanswered
    ]
    found += _twice(notes)
    found += _out_of_order(notes, got.gaps)
    found += [
        Violation("I3", now_ns, session, f"{outcome} for utterance {utterance} came from nowhere",
                  CLIENT)
        for outcome, session, utterance in got.strange
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


def _out_of_order(notes: Notes, gaps: Mapping[tuple[str, int], bool]) -> Iterable[Violation]:
    marks: dict[str, int] = {}
    for one in notes.seen:
        if one.outcome == ERROR:
            continue
        mark = marks.get(one.session, -1)
        if one.utterance >= mark:
            marks[one.session] = one.utterance
        elif not gaps.get((one.session, one.utterance), False):
            text = f"utterance {one.utterance} came after {mark}, and no gap was told of"
            yield Violation("I6", one.at_ns, one.session, text, CLIENT)


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
