"""What the kernel promises beyond the core's ports: coexistence, pauses, named failures."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Generator
from typing import Any

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.errors import Deadlock
from simsched.models.tasks import Cancelled, Group, Kernel, SimMailbox, SimScope, SimTimer


class Refused(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


# SimPy beside us


def test_simpy_processes_and_tasks_share_one_clock() -> None:
    """Both run in one environment, in the order of their times."""
    kernel = Kernel()
    log: list[tuple[str, int]] = []

    def process() -> Generator[simpy.Event, None, str]:
        for _ in range(2):
            yield kernel.env.timeout(10)
            log.append(("process", kernel.now))
        return "done"

    async def main() -> str:
        running = kernel.env.process(process())
        await kernel.sleep(15)
        log.append(("task", kernel.now))
        return str(await kernel.wait(running))

    assert kernel.run(main()) == "done"
    assert log == [("process", 10), ("task", 15), ("process", 20)]


def test_a_failed_simpy_event_raises_the_very_error() -> None:
    """Identity and attributes survive."""
    kernel = Kernel()
    error = Refused(code=5)

    async def main() -> None:
        event = kernel.env.event()
        event.fail(error)
        with pytest.raises(Refused) as caught:
            await kernel.wait(event)
        assert caught.value is error

    kernel.run(main())


def test_a_cancelled_waiter_leaves_a_simpy_event_alone() -> None:
    """The event comes up later and resumes nobody."""
    kernel = Kernel()
    log = []

    async def wait(event: simpy.Event) -> None:
        try:
            await kernel.wait(event)
        except Cancelled:
            log.append(kernel.now)
            await kernel.sleep(50)
            log.append(kernel.now)

    async def main() -> None:
        task = kernel.start(wait(kernel.env.timeout(20)), "waiter")
        await kernel.sleep(5)
        task.cancel()
        await task.join()

    kernel.run(main())

    assert log == [5, 55]


# Failures


def test_a_foreign_awaitable_is_named_where_it_is_awaited() -> None:
    """asyncio in the core fails at the await, with the name of the task."""
    kernel = Kernel()

    async def main() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="task main awaited None, which belongs to no port"):
        kernel.run(main())


def test_a_deadlock_names_who_waits_on_what() -> None:
    """Nothing is scheduled, yet tasks wait."""
    kernel = Kernel()
    box: SimMailbox[int] = SimMailbox(kernel)

    async def main() -> None:
        task = kernel.start(box.get(), "reader")
        await task.join()

    with pytest.raises(Deadlock, match="main on reader, reader on a mailbox"):
        kernel.run(main())


def test_errors_that_are_no_exception_end_the_run_at_once() -> None:
    """A KeyboardInterrupt in any task comes out bare, the rest is cleaned up."""
    kernel = Kernel()
    stop = KeyboardInterrupt()
    log = []

    async def child() -> None:
        await kernel.sleep(3)
        raise stop

    async def main() -> None:
        try:
            async with SimScope(kernel) as scope:
                scope.spawn(child(), name="child")
        finally:
            log.append(kernel.now)

    with pytest.raises(KeyboardInterrupt) as caught:
        kernel.run(main())

    assert caught.value is stop
    assert log == [3]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_hypothesis_may_draw_inside_tasks(data: st.DataObject) -> None:
    """Its control flow comes through untouched."""
    kernel = Kernel()
    rounds = data.draw(st.integers(0, 20))

    async def child() -> None:
        for _ in range(rounds):
            data.draw(st.binary(min_size=60, max_size=100))
            await kernel.sleep(1)

    async def main() -> None:
        async with SimScope(kernel) as scope:
            scope.spawn(child(), name="child")

    kernel.run(main())


def test_a_stubborn_leftover_is_ended_without_a_warning() -> None:
    """Also one whose clean-up waits again and again."""
    kernel = Kernel()
    log = []

    async def stubborn() -> None:
        try:
            await kernel.sleep(1000)
        finally:
            try:
                await kernel.sleep(1000)
            finally:
                await kernel.sleep(0)
                log.append("not reached")

    async def main() -> None:
        kernel.start(stubborn(), "stubborn")
        await kernel.sleep(1)

    kernel.run(main())
    gc.collect()

    assert log == []


def test_ended_tasks_are_freed_without_the_cycle_collector() -> None:
    """Long runs work with the collector off: neither ended nor cancelled tasks may pile up."""
    kernel = Kernel()
    gc.disable()
    try:

        async def body() -> None:
            await kernel.sleep(5)

        async def main() -> list[weakref.ref[Any]]:
            kept = []
            for cancel in (False, True):
                coro = body()
                kept.append(weakref.ref(coro))
                task = kernel.start(coro, "body")
                del coro
                await kernel.sleep(1)
                if cancel:
                    task.cancel()
                await kernel.sleep(10)
                del task
            return kept

        assert [ref() for ref in kernel.run(main())] == [None, None]
    finally:
        gc.enable()


# Timers and calls


def test_a_timer_that_moves_later_adds_nothing_to_the_heap() -> None:
    """At most one entry, however often it is set."""
    kernel = Kernel()
    fired = []

    async def main() -> int:
        timer = SimTimer(kernel, lambda: fired.append(kernel.now))
        for k in range(1000):
            timer.set(1000 + k)
        entries = len(kernel.queue)
        await kernel.sleep(5000)
        return entries

    assert kernel.run(main()) == 1
    assert fired == [1999]


def test_simultaneous_timers_fire_in_the_order_of_their_setting() -> None:
    """Also the one that was moved and put itself back."""
    kernel = Kernel()
    fired = []

    async def main() -> None:
        moved = SimTimer(kernel, lambda: fired.append("moved"))
        other = SimTimer(kernel, lambda: fired.append("other"))
        moved.set(10)
        moved.set(20)
        other.set(20)
        await kernel.sleep(50)

    kernel.run(main())

    assert fired == ["moved", "other"]


def test_cancelled_calls_do_not_pile_up() -> None:
    """Limits that were kept are cleaned out of the heap long before they would strike."""
    kernel = Kernel()

    async def main() -> int:
        for _ in range(20_000):
            kernel.call_at(10**12, lambda: None).cancel()
        return len(kernel.queue)

    assert kernel.run(main()) < 10_000


def test_run_until_leaves_the_clock_there() -> None:
    """A world can be stepped from outside."""
    kernel = Kernel()
    calls: list[int] = []
    for at_ns in (5, 10, 11):
        kernel.call_at(at_ns, lambda: calls.append(kernel.now))

    kernel.run_until(10)

    assert (calls, kernel.now) == ([5, 10], 10)


# Groups


def ticking(kernel: Kernel, group: Group, log: list[tuple[str, int]]) -> SimTimer:
    """A task and a timer of the group that note when they run."""

    async def tick() -> None:
        try:
            for _ in range(3):
                await kernel.sleep(10)
                log.append(("task", kernel.now))
        finally:
            log.append(("end", kernel.now))

    kernel.start(tick(), "ticker", group)
    timer = SimTimer(kernel, lambda: log.append(("timer", kernel.now)), group)
    timer.set(15)
    return timer


def test_a_frozen_group_gets_everything_in_order_when_it_resumes() -> None:
    """What fell due meanwhile happens at that instant, then life goes on."""
    kernel = Kernel()
    group = Group(kernel, "instance")
    log: list[tuple[str, int]] = []

    async def main() -> None:
        ticking(kernel, group, log)
        await kernel.sleep(5)
        group.freeze()
        await kernel.sleep(95)
        assert log == []
        group.resume()
        await kernel.sleep(100)

    kernel.run(main())

    assert log == [("task", 100), ("timer", 100), ("task", 110), ("task", 120), ("end", 120)]


def test_a_task_cancelled_while_frozen_is_cancelled_once_when_it_resumes() -> None:
    """The wake that was held back before is void."""
    kernel = Kernel()
    group = Group(kernel, "instance")
    log: list[tuple[str, int]] = []

    async def sleeper() -> None:
        try:
            await kernel.sleep(10)
            log.append(("slept", kernel.now))
        except Cancelled:
            log.append(("cancelled", kernel.now))
            raise

    async def main() -> None:
        task = kernel.start(sleeper(), "sleeper", group)
        await kernel.sleep(5)
        group.freeze()
        await kernel.sleep(10)
        task.cancel()
        await kernel.sleep(10)
        group.resume()
        await kernel.sleep(10)
        assert isinstance(task.error, Cancelled)

    kernel.run(main())

    assert log == [("cancelled", 25)]


def test_an_abandoned_group_never_runs_again_not_even_its_cleanup() -> None:
    """Until the run is over: only then are its coroutines let go."""
    kernel = Kernel()
    group = Group(kernel, "instance")
    log: list[tuple[str, int]] = []

    async def main() -> None:
        ticking(kernel, group, log)
        await kernel.sleep(12)
        group.abandon()
        group.resume()
        gc.collect()
        await kernel.sleep(100)
        assert log == [("task", 10)]

    kernel.run(main())

    assert log == [("task", 10), ("end", 112)]


# Waits that nobody can see


def test_a_wait_before_anything_else_is_due_costs_no_event() -> None:
    """The clock moves on and the task goes on; what is due at that very instant goes first."""
    kernel = Kernel()
    log: list[tuple[str, int]] = []

    async def main() -> None:
        kernel.call_at(100, lambda: log.append(("call", kernel.now)))
        await kernel.sleep(99)
        log.append(("skipped", len(kernel.queue)))
        await kernel.sleep(1)
        log.append(("waited", kernel.now))

    kernel.run(main())
    assert log == [("skipped", 1), ("call", 100), ("waited", 100)]


def test_a_wait_is_not_skipped_beyond_the_end_of_the_run() -> None:
    """Nor by what is ended after it: the clock stays where the run left it."""
    kernel = Kernel()
    log: list[int] = []

    async def walker() -> None:
        try:
            for _ in range(10):
                await kernel.sleep(10)
                log.append(kernel.now)
        finally:
            await kernel.sleep(1_000)

    kernel.start(walker(), "walker")
    kernel.run_until(35)
    assert (kernel.now, log) == (35, [10, 20, 30])
    kernel.run_until(40)
    assert (kernel.now, log) == (40, [10, 20, 30, 40])
    kernel.close()
    assert kernel.now == 40


def test_a_frozen_task_does_not_skip() -> None:
    """A task that freezes its own group goes on only when that resumes."""
    kernel = Kernel()
    group = Group(kernel, "instance")
    log: list[int] = []

    async def sleeper() -> None:
        group.freeze()
        await kernel.sleep(10)
        log.append(kernel.now)

    async def main() -> None:
        kernel.start(sleeper(), "sleeper", group)
        await kernel.sleep(50)
        group.resume()
        await kernel.sleep(1)

    kernel.run(main())
    assert log == [50]


# Ties


def order_of_ties(kernel: Kernel) -> list[int]:
    """In which order ten simultaneous sleepers and SimPy processes come up."""
    log: list[int] = []

    async def sleeper(number: int) -> None:
        await kernel.sleep(100 - number)
        await kernel.sleep(number)
        log.append(number)

    def process(number: int) -> Generator[simpy.Event, None, None]:
        yield kernel.env.timeout(100)
        log.append(number)

    async def main() -> None:
        for number in range(5):
            kernel.start(sleeper(number), str(number))
            kernel.env.process(process(number + 5))
        await kernel.sleep(200)

    kernel.run(main())
    return log


def test_ties_are_first_come_first_served_or_shuffled_by_a_seed() -> None:
    """A shuffle is another order, the same one for the same seed, and loses nobody."""
    fifo = order_of_ties(Kernel())
    shuffled = [order_of_ties(Kernel(ties="shuffle", seed=seed)) for seed in (1, 1, 2)]

    assert fifo == [5, 6, 7, 8, 9, 4, 3, 2, 1, 0]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert all(sorted(order) == list(range(10)) for order in shuffled)
    assert fifo not in shuffled
