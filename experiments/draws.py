"""Choices of a drawn schedule, one after the other from one key; the same key makes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from simsched.chance import below, mix

T = TypeVar("T")


class Draws:
    """Numbers in the order of asking, from one key."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._asked = 0

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        self._asked += 1
        return below(mix(self._key, self._asked), bound)

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def happens(self, one_in: int) -> bool:
        """Whether it is the one of so many."""
        return self.below(one_in) == 0

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """All of them, in an order of chance."""
        left = list(things)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]
