"""
In which order the results of one session leave (W16; domain 9.2).

Every utterance is announced with `expect` when it is cut; `put` hands in what became of it;
`sweep` gives what may leave now; `add` is both. Three disciplines:

- `fcfs`: what is present leaves, lowest index first; a late lower index leaves later, and one
  that is later than the acknowledge timeout is lost (the reference's later version);
- `gap_timeout`: strict order; a hole is given up when a later result has waited for it too long;
- `outcome`: strict order; every announced index leaves with its explicit outcome (result, missing,
  error, whatever `item` the caller puts), so there are no holes; a backstop keeps the promise
  should an outcome ever fail to come.

Room results: under `by_language` each target label is a lane with an order of its own, so that a
slow language delays nobody else; each listener sees utterance order because it listens to one
lane. A caller that wants the order per listener names listeners instead of languages. Under
`overwrite` all languages share one lane and one place per index: one that waits is overwritten
by the next, and one that comes after its index has left is dropped (B13).

The queue does not know what a result is, nor whom it goes to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

from simsched.units import SECOND

T = TypeVar("T")

PENDING_MAX: Final = 200
"""Most results that wait (fcfs), or utterances open in one lane (strict): domain 9.2."""

GAP_NS: Final = 10 * SECOND
"""When `gap_timeout` gives a hole up: 5 s, later 10 s (domain 9.2, older design)."""

ACK_TIMEOUT_NS: Final = 30 * SECOND
"""When `fcfs` discards a result as too late: 10 s in [C], 30 s in [S] and [F] (domain 9.2)."""

BACKSTOP_NS: Final = 150 * SECOND
"""
When `outcome` gives an index up: beyond the longest life of a job, which is 10 s pending and four
attempts of 30 s, each with one scan of 1 s (domain 8.5, I3): 135 s.
"""

LANES_MAX: Final = 64
"""Lanes remembered; the oldest one in which nothing is open is forgotten first."""


class Discipline(StrEnum):
    """How results are ordered."""

    FCFS = "fcfs"
    GAP_TIMEOUT = "gap_timeout"
    OUTCOME = "outcome"


class RoomResults(StrEnum):
    """What tells the results of one utterance apart."""

    OVERWRITE = "overwrite"
    BY_LANGUAGE = "by_language"


class Reason(StrEnum):
    """Why an index left without an item: the reasons of `missing_result`."""

    NONE = ""
    GAP_TIMEOUT = "gap_timeout"
    PENDING_OVERFLOW = "pending_overflow_evict"
    SESSION_CLOSED = "session_closed"


@dataclass(frozen=True, slots=True)
class Released(Generic[T]):
    """
    What leaves.

    `item` is None for an index that was given up for `reason`. `gap`: this index, or the one right
    before it in its lane, was given up.
    """

    index: int
    language: str
    item: T | None
    gap: bool
    reason: Reason


class ResultQueue(ABC, Generic[T]):
    """
    The results of one session.

    `late` counts results dropped because their index had left, `repeated` those dropped or
    overwritten because their place was taken, `given_up` the indices that left without an item.
    """

    __slots__ = ("given_up", "late", "repeated")

    def __init__(self) -> None:
        self.late = 0
        self.repeated = 0
        self.given_up = 0

    @abstractmethod
    def expect(self, index: int, targets: Sequence[str], now_ns: int) -> bool:
        """Announce a cut utterance; False if a target's order has passed it already."""

    @abstractmethod
    def put(self, index: int, language: str, item: T, now_ns: int) -> None:
        """Hand in a result without releasing anything."""

    @abstractmethod
    def sweep(self, now_ns: int) -> list[Released[T]]:
        """Take out what may leave now."""

    @abstractmethod
    def next_deadline_ns(self) -> int | None:
        """When a sweep will release something, if nothing else happens; None: never."""

    def wait_until(self, index: int, language: str, until_ns: int) -> None:
        """An announced index need not be waited for any longer than until then."""

    @abstractmethod
    def drain(self) -> list[Released[T]]:
        """The session is over: take out everything, in order."""

    def add(self, index: int, language: str, item: T, now_ns: int) -> list[Released[T]]:
        """`put`, then `sweep`."""
        self.put(index, language, item, now_ns)
        return self.sweep(now_ns)


class FcfsQueue(ResultQueue[T]):
    """First come, first served: order only among results that are present together."""

    __slots__ = (
        "_ack_timeout_ns",
        "_by_language",
        "_marks",
        "_pending",
        "_pending_max",
        "skips",
    )

    def __init__(
        self,
        *,
        room_results: RoomResults = RoomResults.BY_LANGUAGE,
        ack_timeout_ns: int = ACK_TIMEOUT_NS,
        pending_max: int = PENDING_MAX,
    ) -> None:
        assert pending_max >= 1
        super().__init__()
        self._by_language = room_results is RoomResults.BY_LANGUAGE
        self._ack_timeout_ns = ack_timeout_ns
        self._pending_max = pending_max
        self._pending: dict[tuple[int, str], tuple[str, T]] = {}
        # Announced and not released yet -> when a later index overtook it, if one did.
        self._marks: dict[int, int | None] = {}
        self.skips = 0
        """Announced indices that a later one overtook: the reference's result_gap_timeout_total."""

    def expect(self, index: int, targets: Sequence[str], now_ns: int) -> bool:
        """Announce a cut utterance: it can be overtaken, and be late, from now on."""
        self._marks.setdefault(index, None)
        if len(self._marks) > self._pending_max:
            del self._marks[min(self._marks)]
        return True

    def put(self, index: int, language: str, item: T, now_ns: int) -> None:
        marked_ns = self._marks.get(index)
        if marked_ns is not None and now_ns - marked_ns > self._ack_timeout_ns:
            self.late += 1
            return
        for lower, mark in self._marks.items():
            if lower < index and mark is None and not self._waits(lower):
                self._marks[lower] = now_ns
                self.skips += 1
        key = (index, language if self._by_language else "")
        if key in self._pending:
            self.repeated += 1
        self._pending[key] = (language, item)
        if len(self._pending) > self._pending_max:
            # The furthest goes, and silently, as in the reference.
            del self._pending[max(self._pending)]
            self.given_up += 1

    def sweep(self, now_ns: int) -> list[Released[T]]:
        pending = self._pending
        released: list[Released[T]] = []
        for key in sorted(pending):
            language, item = pending[key]
            released.append(Released(key[0], language, item, False, Reason.NONE))
            # Another language of an index that was overtaken may still be late: its mark stays.
            if self._marks.get(key[0], 0) is None:
                del self._marks[key[0]]
        pending.clear()
        return released

    def next_deadline_ns(self) -> int | None:
        """None: nothing here waits for the clock."""
        return None

    def drain(self) -> list[Released[T]]:
        self._marks.clear()
        return self.sweep(0)

    def _waits(self, index: int) -> bool:
        return any(key[0] == index for key in self._pending)


class _Place(Generic[T]):
    """One announced index of a lane: filled, or still open."""

    __slots__ = ("clock_ns", "filled", "item", "language")

    def __init__(self, language: str, clock_ns: int | None) -> None:
        self.language = language
        self.clock_ns = clock_ns
        self.filled = False
        self.item: T | None = None


class _Lane(Generic[T]):
    """The announced indices of one target, ascending, and how far it has come."""

    __slots__ = ("after_gap", "order", "passed", "places")

    def __init__(self, passed: int) -> None:
        self.order: list[int] = []
        self.places: dict[int, _Place[T]] = {}
        self.passed = passed
        self.after_gap = False

    def announce(self, index: int, language: str, clock_ns: int | None) -> bool:
        if index <= self.passed:
            return False
        if index not in self.places:
            insort(self.order, index)
            self.places[index] = _Place(language, clock_ns)
        return True

    def pop(self, reason: Reason) -> Released[T]:
        """Let the head leave: with its item, or given up for `reason`."""
        index = self.order.pop(0)
        place = self.places.pop(index)
        self.passed = index
        given_up = not place.filled
        gap = given_up or self.after_gap
        self.after_gap = given_up
        return Released(index, place.language, place.item, gap, reason if given_up else Reason.NONE)


class StrictQueue(ResultQueue[T]):
    """
    Utterance order in every lane; each announced index leaves each of its lanes exactly once.

    The disciplines differ in when the patience for an open index begins: under `gap_timeout` when
    a later result first waits behind it, under `outcome` when it is announced.
    """

    __slots__ = (
        "_by_language",
        "_forgotten",
        "_from_start",
        "_lanes",
        "_patience_ns",
        "_pending_max",
    )

    def __init__(
        self,
        discipline: Discipline,
        *,
        room_results: RoomResults = RoomResults.BY_LANGUAGE,
        patience_ns: int,
        pending_max: int = PENDING_MAX,
    ) -> None:
        assert discipline is not Discipline.FCFS
        assert patience_ns >= 0
        assert pending_max >= 1
        super().__init__()
        self._from_start = discipline is Discipline.OUTCOME
        self._by_language = room_results is RoomResults.BY_LANGUAGE
        self._patience_ns = patience_ns
        self._pending_max = pending_max
        self._lanes: dict[str, _Lane[T]] = {}
        self._forgotten = -1

    def expect(self, index: int, targets: Sequence[str], now_ns: int) -> bool:
        """Announce a cut utterance; False if a target's order has passed it already."""
        clock_ns = now_ns if self._from_start else None
        in_time = True
        for language in targets:
            in_time &= self._lane(language).announce(index, language, clock_ns)
        return in_time

    def put(self, index: int, language: str, item: T, now_ns: int) -> None:
        """Hand in a result; one that nobody announced announces itself."""
        lane = self._lane(language)
        if not lane.announce(index, language, now_ns if self._from_start else None):
            self.late += 1
            return
        place = lane.places[index]
        if place.filled:
            self.repeated += 1
            if self._by_language:
                return
        place.filled = True
        place.item = item
        place.language = language
        if self._from_start:
            return
        for lower in lane.order:
            if lower >= index:
                break
            before = lane.places[lower]
            if not before.filled and before.clock_ns is None:
                before.clock_ns = now_ns

    def wait_until(self, index: int, language: str, until_ns: int) -> None:
        place = self._lane(language).places.get(index)
        if place is not None and not place.filled:
            place.clock_ns = until_ns - self._patience_ns

    def sweep(self, now_ns: int) -> list[Released[T]]:
        released: list[Released[T]] = []
        for lane in self._lanes.values():
            while lane.order:
                reason = self._may_leave(lane, now_ns)
                if reason is None:
                    break
                released.append(lane.pop(reason))
                self.given_up += reason is not Reason.NONE
        return released

    def next_deadline_ns(self) -> int | None:
        """When the first head will be given up; None if no patience runs."""
        deadlines: list[int] = []
        for lane in self._lanes.values():
            if not lane.order:
                continue
            head = lane.places[lane.order[0]]
            if len(lane.order) > self._pending_max or head.filled:
                return 0
            if head.clock_ns is not None:
                deadlines.append(head.clock_ns + self._patience_ns)
        return min(deadlines, default=None)

    def drain(self) -> list[Released[T]]:
        """Everything announced leaves; what is still open does so as `session_closed`."""
        released: list[Released[T]] = []
        for lane in self._lanes.values():
            while lane.order:
                released.append(lane.pop(Reason.SESSION_CLOSED))
                self.given_up += released[-1].reason is not Reason.NONE
        return released

    def _may_leave(self, lane: _Lane[T], now_ns: int) -> Reason | None:
        """Why the head may leave now (`NONE`: it has its item); None if it has to wait."""
        head = lane.places[lane.order[0]]
        if head.filled:
            return Reason.NONE
        if len(lane.order) > self._pending_max:
            return Reason.PENDING_OVERFLOW
        if head.clock_ns is not None and now_ns - head.clock_ns >= self._patience_ns:
            return Reason.GAP_TIMEOUT
        return None

    def _lane(self, language: str) -> _Lane[T]:
        key = language if self._by_language else ""
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                self._forget_a_lane()
            self._lanes[key] = lane = _Lane(self._forgotten)
        return lane

    def _forget_a_lane(self) -> None:
        """Forget the oldest lane without open indices; what it let pass stays passed for all."""
        name = next((name for name, lane in self._lanes.items() if not lane.order), None)
        if name is not None:
            self._forgotten = max(self._forgotten, self._lanes.pop(name).passed)


def result_queue(
    discipline: Discipline,
    *,
    room_results: RoomResults = RoomResults.BY_LANGUAGE,
    gap_ns: int = GAP_NS,
    backstop_ns: int = BACKSTOP_NS,
    ack_timeout_ns: int = ACK_TIMEOUT_NS,
    pending_max: int = PENDING_MAX,
) -> ResultQueue[T]:
    """The queue of a discipline; what a discipline does not use is not looked at."""
    if discipline is Discipline.FCFS:
        return FcfsQueue(
            room_results=room_results, ack_timeout_ns=ack_timeout_ns, pending_max=pending_max
        )
    patience_ns = gap_ns if discipline is Discipline.GAP_TIMEOUT else backstop_ns
    return StrictQueue(
        discipline, room_results=room_results, patience_ns=patience_ns, pending_max=pending_max
    )
