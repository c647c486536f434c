"""A timed lock plays the same schedule as one that is played out event by event."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simsched.errors import Deadlock
from simsched.models.locks import TimedLock
from simsched.models.tasks import Cancelled, Kernel


@dataclass(frozen=True)
class Visit:
    """What one customer wants."""

    arrival_ns: int
    hold_ns: int
    body_ns: int  # for a spanning customer
    shared: bool
    spanning: bool
    cancel_ns: int | None


@dataclass
class Stay:
    """What became of it."""

    start_ns: int | None = None
    end_ns: int | None = None
    cancelled: bool = False


@dataclass
class PlayedOut:
    """The straightforward lock: every grant, end and cancellation is an event of its own."""

    visits: list[Visit]
    stays: list[Stay] = field(default_factory=list)
    queue: deque[int] = field(default_factory=deque)
    inside: list[int] = field(default_factory=list)

    def run(self) -> list[Stay]:
        self.stays = [Stay() for _ in self.visits]
        agenda = [(visit.arrival_ns, 2, i) for i, visit in enumerate(self.visits)]
        agenda += [
            (visit.cancel_ns, 1, i)
            for i, visit in enumerate(self.visits)
            if visit.cancel_ns is not None
        ]
        while agenda:
            agenda.sort()
            now, what, i = agenda.pop(0)
            stay = self.stays[i]
            if what == 2:
                self.queue.append(i)
            elif stay.end_ns is not None or stay.cancelled:
                continue
            elif what == 1:
                stay.cancelled = True
                if i in self.inside:
                    self.inside.remove(i)
                    stay.end_ns = now
                elif i in self.queue:
                    self.queue.remove(i)
            else:
                self.inside.remove(i)
                stay.end_ns = now
            for granted in self._grant():
                self.stays[granted].start_ns = now
                visit = self.visits[granted]
                length = visit.hold_ns + (visit.body_ns if visit.spanning else 0)
                agenda.append((now + length, 0, granted))
        return self.stays

    def _grant(self) -> list[int]:
        granted = []
        while self.queue:
            first = self.visits[self.queue[0]]
            readers_only = all(self.visits[i].shared for i in self.inside)
            if self.inside and not (first.shared and readers_only):
                break
            granted.append(self.queue.popleft())
            self.inside.append(granted[-1])
        return granted


def play_timed(visits: list[Visit]) -> list[Stay]:
    """The same visits through the lock under test, checking exclusion on the way."""
    kernel = Kernel()
    lock = TimedLock(kernel, "lock")
    stays = [Stay() for _ in visits]

    async def visit_lock(i: int) -> None:
        visit, stay = visits[i], stays[i]
        await kernel.sleep(visit.arrival_ns)
        customer = lock.customer(visit.hold_ns, shared=visit.shared, spanning=visit.spanning)
        try:
            async with customer:
                if visit.spanning:
                    await kernel.sleep(visit.body_ns)
        except Cancelled:
            stay.cancelled = True
        if not stay.cancelled or customer.start_ns < kernel.now:
            stay.start_ns, stay.end_ns = customer.start_ns, kernel.now

    async def main() -> None:
        tasks = [kernel.start(visit_lock(i), f"visitor {i}") for i in range(len(visits))]
        for cancel_ns, i in sorted(
            (visit.cancel_ns, i) for i, visit in enumerate(visits) if visit.cancel_ns is not None
        ):
            await kernel.sleep(cancel_ns - kernel.now)
            tasks[i].cancel()
        for task in tasks:
            await task.join()

    kernel.run(main())
    assert len(lock) == 0
    return stays


def overlaps(visits: list[Visit], stays: list[Stay]) -> list[tuple[int, int]]:
    """Pairs that were inside together although one of them is exclusive."""
    spans = [
        (stay.start_ns, stay.end_ns, i)
        for i, stay in enumerate(stays)
        if stay.start_ns is not None and stay.end_ns is not None
    ]
    return [
        (i, j)
        for start, end, i in spans
        for other_start, other_end, j in spans
        if i < j
        and max(start, other_start) < min(end, other_end)
        and not (visits[i].shared and visits[j].shared)
    ]


def apart(visits: list[Visit]) -> list[Visit]:
    """In order of arrival, and stretched so that no cancellation is tied with anything else."""
    ordered = sorted(visits, key=lambda visit: visit.arrival_ns)
    return [
        Visit(
            visit.arrival_ns * 32,
            visit.hold_ns * 32,
            visit.body_ns * 32,
            visit.shared,
            visit.spanning,
            None if visit.cancel_ns is None else (visit.arrival_ns + visit.cancel_ns) * 32 + 1 + i,
        )
        for i, visit in enumerate(ordered)
    ]


short = st.integers(0, 30)
visit_lists = st.lists(
    st.builds(Visit, short, short, short, st.booleans(), st.booleans(), st.none() | short),
    max_size=12,
).map(apart)


@settings(max_examples=400, deadline=None)
@given(visit_lists)
@example(
    [
        Visit(0, 10, 0, False, False, 5),  # a leaf holder is cancelled
        Visit(2, 10, 20, True, True, None),
        Visit(2, 10, 0, True, False, None),
        Visit(4, 10, 0, False, False, 7),  # a waiter is cancelled
        Visit(4, 10, 0, True, False, None),
    ]
)
def test_the_schedule_is_that_of_a_lock_played_out_event_by_event(visits: list[Visit]) -> None:
    """Shared, exclusive, leaf, spanning, cancelled while waiting or holding: the same times."""
    timed = play_timed(visits)

    assert timed == PlayedOut(visits).run()
    assert overlaps(visits, timed) == []


def run_visits(*holds_ns: int, shared: bool = False) -> tuple[list[tuple[int, int]], int]:
    """Simultaneous leaf customers: their (order, time) of service and the heap entries made."""
    kernel = Kernel()
    lock = TimedLock(kernel, "lock")
    served: list[tuple[int, int]] = []

    async def customer(i: int, hold_ns: int) -> None:
        async with lock.customer(hold_ns, shared=shared):
            served.append((i, kernel.now))

    async def main() -> int:
        before = kernel.next_serial()
        tasks = [kernel.start(customer(i, hold), f"c{i}") for i, hold in enumerate(holds_ns)]
        await kernel.sleep(1000)
        assert all(task.ended for task in tasks)
        return kernel.next_serial() - before

    return served, kernel.run(main())


def test_simultaneous_customers_are_served_in_order_of_arrival() -> None:
    """First come, first served."""
    served, _ = run_visits(5, 5, 5)

    assert served == [(0, 5), (1, 10), (2, 15)]


def test_readers_share() -> None:
    """Simultaneous readers hold together."""
    served, _ = run_visits(5, 5, 5, shared=True)

    assert served == [(0, 5), (1, 5), (2, 5)]


def test_a_free_lock_and_no_hold_make_no_event() -> None:
    """Beyond the start of its task, a free passage adds nothing to the heap."""
    _, free = run_visits(0, 0, 0)
    _, held = run_visits(5, 5, 5)

    assert held == free + 3


def test_a_lock_taken_twice_by_one_task_is_a_named_deadlock() -> None:
    """The message says who waits for which lock."""
    kernel = Kernel()
    lock = TimedLock(kernel, "ledger")

    async def main() -> None:
        async with lock.customer(0, spanning=True), lock.customer(0, spanning=True):
            pass

    with pytest.raises(Deadlock, match="main on lock ledger"):
        kernel.run(main())
