"""
The books of a load: every utterance ends in exactly one line.

    answered   one final answer came, a result
    twice      a second final answer came, of whatever kind
    missed     the one final answer says that there will be no result, and why
    refused    no final answer, but an error with a code
    lost       nothing of all that

Orthogonal to these: `out_of_order`, a final answer that came after one of a later utterance of its
session; and `unforeseen`, an utterance that nobody expected (the server cuts by other numbers).
The facts of a session may come in any order (an answer before its cut is booked): the line depends
on what came, not on when it was booked. Only the order of final answers among each other matters.

Pure: it knows no sockets and no clock. Times are nanoseconds since the start; -1 is never.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

NEVER: Final = -1


class Line(StrEnum):
    """How an utterance ended."""

    ANSWERED = "answered"
    TWICE = "twice"
    MISSED = "missed"
    REFUSED = "refused"
    LOST = "lost"


class Entry(NamedTuple):
    """
    One utterance, when its session is over.

    `reason` is why it was missed, the code with which it was refused, else "".
    """

    session: str
    utterance: int
    target: str
    job: str
    line: Line
    reason: str
    cut_ns: int
    first_event_ns: int
    answered_ns: int
    out_of_order: bool
    unforeseen: bool


class _Facts:
    """What is known of one utterance."""

    __slots__ = (
        "answered_ns",
        "answers",
        "code",
        "cut_ns",
        "first_event_ns",
        "foreseen",
        "job",
        "late",
        "missed",
        "result",
    )  # fmt: skip

    def __init__(self) -> None:
        self.cut_ns = self.first_event_ns = self.answered_ns = NEVER
        self.foreseen = self.late = self.result = False
        self.answers = 0
        self.job = self.missed = self.code = ""


class SessionTally:
    """The books of one session, until `entries` closes them."""

    __slots__ = ("_facts", "_highest", "_refusal", "session", "target")

    def __init__(self, session: str, target: str) -> None:
        self.session = session
        self.target = target
        self._facts: dict[int, _Facts] = {}
        self._highest = -1
        self._refusal = ""

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def settled(self) -> int:
        """Utterances that have a final answer or an error."""
        return sum(1 for facts in self._facts.values() if facts.answers or facts.code)

    def expect(self, utterance: int, cut_ns: int) -> None:
        """An utterance is due: its audio was cut, or is cut, at that moment."""
        facts = self._of(utterance)
        facts.foreseen, facts.cut_ns = True, cut_ns

    def event(self, utterance: int, at_ns: int, job: str = "") -> None:
        """A sign of life: the server said something of this utterance."""
        facts = self._of(utterance)
        facts.job = facts.job or job
        if facts.first_event_ns == NEVER or at_ns < facts.first_event_ns:
            facts.first_event_ns = at_ns

    def result(self, utterance: int, at_ns: int, job: str = "") -> None:
        """A final answer: text, translation, speech."""
        self._final(utterance, at_ns, job).result = True

    def missed(self, utterance: int, at_ns: int, reason: str) -> None:
        """A final answer: there will be no result."""
        facts = self._final(utterance, at_ns, "")
        facts.missed = facts.missed or reason or "no reason"

    def refused(self, utterance: int, at_ns: int, code: str) -> None:
        """An error that names this utterance; a final answer may still follow."""
        self.event(utterance, at_ns)
        facts = self._facts[utterance]
        facts.code = facts.code or code or "no code"

    def refuse_rest(self, code: str) -> None:
        """The server would not have the session: what it does not answer, it refused."""
        self._refusal = self._refusal or code

    def entries(self) -> list[Entry]:
        """Every utterance with its line, in their order."""
        return [self._entry(index, self._facts[index]) for index in sorted(self._facts)]

    def _of(self, utterance: int) -> _Facts:
        facts = self._facts.get(utterance)
        if facts is None:
            self._facts[utterance] = facts = _Facts()
        return facts

    def _final(self, utterance: int, at_ns: int, job: str) -> _Facts:
        self.event(utterance, at_ns, job)
        facts = self._facts[utterance]
        facts.answers += 1
        if facts.answers == 1:
            facts.answered_ns = at_ns
            facts.late = utterance < self._highest
        self._highest = max(self._highest, utterance)
        return facts

    def _entry(self, index: int, facts: _Facts) -> Entry:
        line, reason = self._line(facts)
        return Entry(
            session=self.session,
            utterance=index,
            target=self.target,
            job=facts.job,
            line=line,
            reason=reason,
            cut_ns=facts.cut_ns,
            first_event_ns=facts.first_event_ns,
            answered_ns=facts.answered_ns,
            out_of_order=facts.late,
            unforeseen=not facts.foreseen,
        )

    def _line(self, facts: _Facts) -> tuple[Line, str]:
        if facts.answers > 1:
            return Line.TWICE, facts.missed
        if facts.answers:
            return (Line.ANSWERED, "") if facts.result else (Line.MISSED, facts.missed)
        code = facts.code or self._refusal
        return (Line.REFUSED, code) if code else (Line.LOST, "")


class Quantiles(NamedTuple):
    """Of some times in milliseconds; NaN where there were none."""

    n: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


def quantiles(times_ns: Iterable[int]) -> Quantiles:
    """By nearest rank: every figure is a time that was measured."""
    ordered = sorted(times_ns)
    if not ordered:
        return Quantiles(0, math.nan, math.nan, math.nan, math.nan)
    p50, p95, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 0.99))
    return Quantiles(len(ordered), p50 / 1e6, p95 / 1e6, p99 / 1e6, ordered[-1] / 1e6)


@dataclass(slots=True)
class Tally:
    """The books of all sessions that are over."""

    entries: list[Entry] = field(default_factory=list)
    lines: Counter[Line] = field(default_factory=Counter)
    reasons: Counter[tuple[Line, str]] = field(default_factory=Counter)
    out_of_order: int = 0
    unforeseen: int = 0

    def close(self, session: SessionTally) -> None:
        """Take a session's books in."""
        self.add(session.entries())

    def add(self, entries: Sequence[Entry]) -> None:
        """Take lines in."""
        self.entries.extend(entries)
        for entry in entries:
            self.lines[entry.line] += 1
            if entry.reason:
                self.reasons[entry.line, entry.reason] += 1
            self.out_of_order += entry.out_of_order
            self.unforeseen += entry.unforeseen

    @property
    def utterances(self) -> int:
        """All of them; the lines add up to it."""
        return len(self.entries)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, answered twice or out of order."""
        return not (self.lines[Line.LOST] or self.lines[Line.TWICE] or self.out_of_order)

    def result_times(self) -> list[int]:
        """From the cut to the result, in ns, of what was answered and foreseen."""
        return [
            e.answered_ns - e.cut_ns
            for e in self.entries
            if e.line is Line.ANSWERED and e.cut_ns != NEVER
        ]

    def first_event_times(self) -> list[int]:
        """From the cut to the first word about an utterance, in ns."""
        return [
            e.first_event_ns - e.cut_ns
            for e in self.entries
            if e.first_event_ns != NEVER and e.cut_ns != NEVER
        ]
