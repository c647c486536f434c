"""What a hunt says to people: progress, the table of findings, a case as a story."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import structs

from simsched.cases import Case
from simsched.experiments.hunting.causes import Cause, cause_of
from simsched.experiments.hunting.coverage import covered
from simsched.experiments.hunting.search import Tally
from simsched.findings import Violation
from simsched.models.hunted import play
from simsched.models.story import Line
from simsched.units import MS

QUIET: Final = ("redis.heartbeat", "redis.presence", "registers")
"""Lines that say nothing about a case."""

ROUTINE: Final = {
    "redis.set_owner": "goes on with session",
    "resets the reservations": "takes a slot",
}
"""Lines that every heartbeat brings, and what must have been told for them to matter."""

ASKED: Final = "asks Redis: "
PROMPT_NS: Final = 5 * MS
"""A call that is answered so soon is told by its answer alone."""

STORY_MAX: Final = 60
"""Of longer stories so many lines are told."""

EDGE: Final = 5
"""Lines at the beginning, and after the breach."""

EVENTS: Final = ("FAULT", "DEPARTS", "goes on", "is dead", " asks for utterance ")
"""Words of lines that tell of an event of the case."""


def progress(tally: Tally, schedules: int, seconds: float, policy: str) -> str:
    """How far it is, in one line that fits a terminal of 80 columns."""
    rate = tally.schedules / max(seconds, 1e-9)
    pairs, of = covered(tally.hits, policy)
    faults = sum(tally.hits.values())
    return (
        f"{tally.schedules}/{schedules} schedules, {rate:.0f}/s, {faults} faults, "
        f"{pairs}/{of} fault x step, {len(tally.found)} findings"
    )


def findings(tally: Tally) -> list[str]:
    """One line per cause, the most frequent first."""
    rows = sorted(tally.found.items(), key=lambda row: (-row[1].count, row[0]))
    return [
        f"{found.count:6d}  {cause.invariant:12s}  {cause.words}  (first: schedule {found.number})"
        for cause, found in rows
    ]


def story(case: Case, *, whole: bool = False) -> list[str]:
    """
    The run of a case, line by line: when, who, what, with which result.

    Unless the whole of it is asked for, a long one is told around its faults and its first breach.
    """
    lines: list[Line] = []
    played = play(case, tell=lines.append)
    kept = [one for one in played.violations if case.invariant in ("", one.invariant)]
    if whole:
        told = [line for line in lines if not any(word in line.what for word in QUIET)]
    else:
        told = _worth_telling(lines, kept or played.violations)
    broken = [f"{'broken':>10}  {v.invariant}: {v.text}" for v in played.violations[:5]]
    if whole or len(told) <= STORY_MAX:
        return [*map(_line, told), *broken]
    return [*_around(told, kept[0].at_ns if kept else None), *broken]


def _around(told: list[Line], broke_ns: int | None) -> list[str]:
    """The lines at the beginning, at a fault and before the breach; how many are left out."""
    end = len(told)
    if broke_ns is not None:
        end = next((n for n, line in enumerate(told) if line.at_ns > broke_ns), end)
    shown = {*range(EDGE), *range(max(end - STORY_MAX // 2, 0), min(end + EDGE, len(told)))}
    for number, line in enumerate(told):
        if any(word in line.what for word in EVENTS) and len(shown) < STORY_MAX:
            shown |= set(range(number, min(number + 2, len(told))))
    lines, last = [], -1
    for number in sorted(shown):
        if number > last + 1:
            lines.append(f"{'':>10}  ... {number - last - 1} lines ...")
        lines.append(_line(told[number]))
        last = number
    if last + 1 < len(told):
        lines.append(f"{'':>10}  ... {len(told) - last - 1} lines ...")
    return lines


def _worth_telling(lines: list[Line], violations: Sequence[Violation]) -> list[Line]:
    """What a reader needs: until the last breach, without routine, calls by their answers."""
    until_ns = max((violation.at_ns for violation in violations), default=lines[-1].at_ns)
    said = {word: any(before in line.what for line in lines) for word, before in ROUTINE.items()}
    quiet = (*QUIET, *(word for word, matters in said.items() if not matters))
    heard = [
        line
        for line in lines
        if line.at_ns <= until_ns and not any(word in line.what for word in quiet)
    ]
    while heard and any(word in heard[-1].what for word in ROUTINE):
        heard.pop()
    return [line for at, line in enumerate(heard) if not _is_answered_soon(line, heard[at + 1 :])]


def _is_answered_soon(line: Line, rest: list[Line]) -> bool:
    if not line.what.startswith(ASKED):
        return False
    answer = f"{line.what.removeprefix(ASKED)} answered"
    for later in rest:
        if later.at_ns > line.at_ns + PROMPT_NS:
            return False
        if (later.who, later.what) == (line.who, answer):
            return True
    return False


def _line(line: Line) -> str:
    return f"{line.at_ns / 1e6:10.1f}  {line.who:7s} {line.what:52s} {line.result}".rstrip()


def parting(case: Case, cause: Cause) -> list[str]:
    """
    Where the case parts from the nearest run that passes.

    Looked at are the runs with one event less; the nearest is the one that goes along the longest.
    """
    ours = _lines(case)[0]
    nearest: tuple[int, str, list[Line]] | None = None
    for name, less in _without_one(case):
        theirs, causes = _lines(less)
        if cause in causes:
            continue
        pairs = enumerate(zip(ours, theirs, strict=False))
        along = next((n for n, (one, two) in pairs if one != two), min(len(ours), len(theirs)))
        if nearest is None or along > nearest[0]:
            nearest = (along, name, theirs)
    if nearest is None:
        return ["every run with one event less breaks the same"]
    along, name, theirs = nearest
    shown = [(ours, "fails: "), (theirs, "passes:")]
    ends = [
        f"  {word} {_line(lines[along]) if along < len(lines) else 'is over'}"
        for lines, word in shown
    ]
    return [f"without {name} it passes; after {along} lines that are the same:", *ends]


def _lines(case: Case) -> tuple[list[Line], set[Cause]]:
    lines: list[Line] = []
    played = play(case, tell=lines.append)
    return lines, {cause_of(violation) for violation in played.violations}


def _without_one(case: Case) -> list[tuple[str, Case]]:
    less = []
    for number, fault in enumerate(case.faults):
        faults = case.faults[:number] + case.faults[number + 1 :]
        less.append((f"{fault.kind} of {fault.target}", structs.replace(case, faults=faults)))
    for label in sorted(case.tape):
        tape = {name: value for name, value in case.tape.items() if name != label}
        less.append((f"the departure '{label}'", structs.replace(case, tape=tape)))
    for number, turn in enumerate(case.turns):
        rest = case.turns[:number] + case.turns[number + 1 :]
        less.append((f"c-{turn.client} at {turn.at_ms} ms", structs.replace(case, turns=rest)))
        if turn.repeat_after_ms >= 0:
            turns = list(case.turns)
            turns[number] = structs.replace(turn, repeat_after_ms=-1)
            name = f"the repeat of c-{turn.client} at {turn.at_ms} ms"
            less.append((name, structs.replace(case, turns=tuple(turns))))
    return less


def replay_command(file: Path) -> str:
    """What shows the same failure every time."""
    return shlex.join(["simsched", "hunt", "replay", str(file)])
