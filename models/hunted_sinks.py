"""
Where everything goes that a hunted world says of itself.

Events go to the checker, into the digest and to who listens; steps and operations go nowhere, since
a hunt measures nothing.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from simsched.invariants import Checker
from simsched.models.story import Story, line_of
from simsched.models.wakes import Group
from simsched.telemetry import Event, Operation, UtteranceCut


class Operations:
    """Counts operations and keeps none of them."""

    def __init__(self) -> None:
        self._count = 0

    def begin(self) -> int:
        self._count += 1
        return self._count

    def end(self, _op: Operation, _now_ns: int, _outcome: int) -> None:
        return


class Journal:
    """
    What all instances and nodes say: to the checker, the digest, and who listens.

    `cut` has the utterances of each session; a client that streams takes those off that it has
    heard an answer to.
    """

    def __init__(self, checker: Checker, story: Story | None, *, hashed: bool) -> None:
        self.checker = checker
        self._story = story
        self._encode = msgspec.json.Encoder().encode
        self._hash = sha256() if hashed else None
        self.events = 0
        self.cut: dict[str, dict[int, None]] = {}

    def event(self, event: Event) -> None:
        self.events += 1
        if self._hash is not None:
            self._hash.update(self._encode(event))
        self.checker.observe(event)
        if type(event) is UtteranceCut:
            self.cut.setdefault(event.session, {})[event.utterance] = None
        if self._story is not None:
            line = line_of(event)
            if line is not None:
                self._story(line)

    def digest(self) -> str:
        return self._hash.hexdigest() if self._hash is not None else ""


class Voice:
    """One instance's telemetry; the dead are silent."""

    def __init__(self, journal: Journal, group: Group) -> None:
        self._journal = journal
        self._group = group

    def event(self, event: Event) -> None:
        if not self._group.abandoned:
            self._journal.event(event)

    def count(self, _name: str, _amount: int = 1) -> None:
        return
