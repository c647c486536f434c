"""
Make a failing case small: fewer faults, turns and departures, then simpler ones.

Every candidate is played; it counts if it breaks the same invariant for the same cause. First
halves and quarters are taken away, then single things, until nothing can go; so the result is
minimal: without any one of its events it does not fail. The number of plays is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

from msgspec import structs

from simsched.cases import Case
from simsched.experiments.hunting.causes import Cause, cause_of
from simsched.models.hunted import Played, play

T = TypeVar("T")

PLAYS_MAX: Final = 1_500
"""How many candidates are played at most."""


class Player(Protocol):
    """Plays a case with its own tape."""

    def __call__(self, case: Case, /) -> Played: ...


class Shrinker:
    """One case on its way down."""

    def __init__(self, case: Case, cause: Cause, player: Player, plays_max: int) -> None:
        self.case = case
        self._cause = cause
        self._play = player
        self._left = plays_max

    def fails(self, case: Case) -> bool:
        """Whether it still breaks the same for the same cause."""
        self._left -= 1
        return any(cause_of(violation) == self._cause for violation in self._play(case).violations)

    def run(self) -> Case:
        """Take away until nothing can go."""
        passes = (self._fewer_departures, self._fewer_faults, self._fewer_turns, self._no_repeats)
        changed = True
        while changed and self._left > 0:
            changed = False
            for step in passes:
                before = self.case
                step()
                changed = changed or self.case != before
        self._shorter_faults()
        return self.case

    def _keep(self, candidate: Case) -> bool:
        if self._left > 0 and self.fails(candidate):
            self.case = candidate
            return True
        return False

    def _fewer(self, items: list[T], built: Callable[[list[T]], Case]) -> None:
        size = len(items)
        while size >= 1:
            start = 0
            while start < len(items):
                rest = items[:start] + items[start + size :]
                if self._keep(built(rest)):
                    items = rest
                else:
                    start += size
            size //= 2

    def _fewer_departures(self) -> None:
        tape = self.case.tape
        self._fewer(
            sorted(tape), lambda rest: structs.replace(self.case, tape={k: tape[k] for k in rest})
        )

    def _fewer_faults(self) -> None:
        self._fewer(
            list(self.case.faults), lambda rest: structs.replace(self.case, faults=tuple(rest))
        )

    def _fewer_turns(self) -> None:
        self._fewer(
            list(self.case.turns), lambda rest: structs.replace(self.case, turns=tuple(rest))
        )

    def _no_repeats(self) -> None:
        for number, turn in enumerate(self.case.turns):
            if turn.repeat_after_ms >= 0:
                turns = list(self.case.turns)
                turns[number] = structs.replace(turn, repeat_after_ms=-1)
                self._keep(structs.replace(self.case, turns=tuple(turns)))

    def _shorter_faults(self) -> None:
        for number in range(len(self.case.faults)):
            for shorter in _halves(self.case.faults[number].for_ms):
                faults = list(self.case.faults)
                faults[number] = structs.replace(faults[number], for_ms=shorter)
                if not self._keep(structs.replace(self.case, faults=tuple(faults))):
                    break


def _halves(for_ms: int) -> Iterator[int]:
    while for_ms >= 200:
        for_ms //= 2
        yield for_ms


def shrink(case: Case, cause: Cause, *, player: Player = play, plays_max: int = PLAYS_MAX) -> Case:
    """The smallest case found that breaks for the same cause; `case` itself if it does not."""
    shrinker = Shrinker(case, cause, player, plays_max)
    if not shrinker.fails(case):
        return case
    return structs.replace(shrinker.run(), invariant=cause.invariant, about=cause.words)
