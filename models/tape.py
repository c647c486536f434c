"""
The tape: every choice of schedule, as labelled draws that can be replayed, edited and shrunk.

A draw says how far a run departs from first come, first served at one place; 0 is no departure.
Values hang on labels and not on positions: taking one departure back leaves the others where they
are. A label is `group who what k`: the k-th time that this choice came up for this pair.

    redis i-0 CLAIM 2       that call is late on its way (odd values) or its reply is (even ones)
    node n-1 3              the third message to or from that node is late
    client c-0 4            a message to or from that client is late
    inbox i-1 1             an entry is read late
    announce i-0 1          an announcement is lost
    tie result 17           a task that is due goes behind what else is due at the same instant
    point i-0 pool_full 1   a fault point of the core: a rare path is taken

Searching draws from a seed and the label alone, so the same schedule meets the same departures
whatever the policy; replaying reads them from a case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from simsched.chance import key_of, mix
from simsched.errors import ConfigError

GROUPS: Final = {
    "redis": "a call of the store, or its reply, is late",
    "node": "a message to or from a node is late",
    "client": "a message to or from a client is late",
    "inbox": "an entry of an instance's inbox is read late",
    "announce": "an announcement to other instances is lost",
    "tie": "the order of events that are due at the same instant",
    "point": "a fault point of the core: a rare path is taken",
}
"""What departures there are; the first word of a label."""

_SCALE: Final = 1 << 32
_FRACTION: Final = _SCALE - 1


_label_key = lru_cache(maxsize=1 << 14)(key_of.__wrapped__)
"""Schedules meet the same labels again and again."""


def check_tape(values: Mapping[str, int], where: str) -> None:
    """
    See that a tape says departures.

    Raises:
        ConfigError: a label of no known group or without its number, or a value below 1.

    """
    for label, value in values.items():
        group, _, rest = label.partition(" ")
        if group not in GROUPS or not rest.rpartition(" ")[2].isdigit():
            want = f"a label begins with one of {', '.join(GROUPS)} and ends with a number"
            raise ConfigError(where, label, want)
        if value < 1:
            raise ConfigError(where, label, f"must be 1 or more, not {value}")


class Tape:
    """
    Where one run departs from first come, first served.

    Args:
        values: the departures, by label; what is not named is 0.

    Raises:
        ConfigError: see `check_tape`.

    """

    __slots__ = ("_chances", "_counts", "_key", "_values", "on_departure", "taken")

    def __init__(self, values: Mapping[str, int]) -> None:
        check_tape(values, "tape")
        self._values: Mapping[str, int] | None = values
        self._key = 0
        self._chances = dict.fromkeys((label.partition(" ")[0] for label in values), _SCALE)
        self._counts: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.on_departure: Callable[[str, int], None] = lambda _label, _value: None
        """Told of every departure: its label and how far it goes."""

    @classmethod
    def drawing(cls, seed: int, rates: Mapping[str, float]) -> Tape:
        """A tape that departs at random: in each group with the given probability per draw."""
        tape = cls({})
        tape._values = None
        tape._key = key_of("tape", seed)
        chances = {group: round(rate * _SCALE) for group, rate in rates.items()}
        tape._chances = {group: chance for group, chance in chances.items() if chance}
        return tape

    def is_idle(self, group: str) -> bool:
        """Whether no draw of the group can depart, so that nobody need ask."""
        return group not in self._chances

    def rest(self) -> None:
        """Draw no further departures."""
        self._chances = {}

    def next(self, what: str, bound: int) -> int:
        """The draw at the next occurrence of `what` (a label without its number)."""
        chance = self._chances.get(what.partition(" ")[0])
        if chance is None:
            return 0
        self._counts[what] = number = self._counts.get(what, 0) + 1
        label = f"{what} {number}"
        if self._values is None:
            bits = mix(self._key ^ _label_key(label))
            value = 0 if bits & _FRACTION >= chance else 1 + (bits >> 32) % (bound - 1)
        else:
            value = min(self._values.get(label, 0), bound - 1)
        if value:
            self.taken[label] = value
            self.on_departure(label, value)
        return value
