"""What `simsched.ports.Runtime` promises, stated once and checked in both worlds."""

from __future__ import annotations

import contextvars
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from simsched import steps
from simsched.ports import Runtime
from simsched.units import MS
from tests.conformance.worlds import CANCELLED, World, operation

LONG = 10_000 * MS


class OddError(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, first: str, *, second: int) -> None:
        super().__init__(f"{first}{second}")
        self.second = second


class StopEverything(BaseException):
    """Control flow of a test framework, say."""


# Time


def test_time_is_whole_nanoseconds_and_sleep_takes_its_time(world: World, runtime: Runtime) -> None:
    """After a sleep exactly that much time has passed."""

    async def main() -> tuple[int, int]:
        before = runtime.now()
        await runtime.sleep(7 * MS)
        return before, runtime.now()

    before, after = world.run(main())

    assert isinstance(after, int)
    assert after - before == 7 * MS


def test_a_sleep_of_zero_lets_others_go_first(world: World, runtime: Runtime) -> None:
    """Even no delay gives way."""
    log = []

    async def other() -> None:
        log.append("other")

    async def main() -> None:
        async with runtime.scope() as scope:
            scope.spawn(other(), name="other")
            for _ in range(3):
                await runtime.sleep(0)
            log.append("main")

    world.run(main())

    assert sorted(log) == ["main", "other"]


# Errors


def test_errors_keep_their_identity_and_their_frames(world: World, runtime: Runtime) -> None:
    """What comes out of a scope is the very object that was raised, with its traceback."""
    boom = OddError("x", second=1)

    async def culprit() -> None:
        await runtime.sleep(MS)
        raise boom

    async def main() -> None:
        async with runtime.scope() as scope:
            scope.spawn(culprit(), name="culprit")

    with pytest.raises(ExceptionGroup) as caught:
        world.run(main())

    assert caught.value.exceptions == (boom,)
    frames, traceback = [], boom.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "culprit" in frames


def test_errors_pass_through_within_with_their_attributes(world: World, runtime: Runtime) -> None:
    """An error below a limit is not changed."""

    async def culprit() -> None:
        await runtime.sleep(MS)
        raise OddError("x", second=4)

    async def main() -> None:
        await runtime.within(LONG, culprit())

    with pytest.raises(OddError) as caught:
        world.run(main())

    assert caught.value.second == 4


def test_errors_that_are_no_exception_come_out(world: World, runtime: Runtime) -> None:
    """Control flow of the outside world is not swallowed by a scope."""
    stop = StopEverything()

    async def child() -> None:
        await runtime.sleep(MS)
        raise stop

    async def main() -> None:
        async with runtime.scope() as scope:
            scope.spawn(child(), name="child")

    with pytest.raises(BaseException) as caught:  # noqa: PT011  # asyncio wraps it in a group
        world.run(main())

    error = caught.value
    assert error is stop or (isinstance(error, BaseExceptionGroup) and error.exceptions == (stop,))


def test_a_failing_started_task_is_a_failure_of_the_instance(
    world: World, runtime: Runtime
) -> None:
    """Nobody joins it, yet its error ends the run."""

    async def culprit() -> None:
        await runtime.sleep(MS)
        raise OddError("x", second=1)

    async def main() -> int:
        runtime.start(culprit(), name="culprit")
        await runtime.sleep(LONG)
        return runtime.now()

    with pytest.raises(OddError):
        world.run(main())


# Scopes


def test_a_scope_leaves_only_when_all_its_tasks_have_ended(world: World, runtime: Runtime) -> None:
    """Also those that its tasks spawn in it."""
    log = []

    async def grandchild() -> None:
        await runtime.sleep(2 * MS)
        log.append("grandchild")

    async def main() -> None:
        async with runtime.scope() as scope:

            async def child() -> None:
                await runtime.sleep(MS)
                scope.spawn(grandchild(), name="grandchild")

            scope.spawn(child(), name="child")
        log.append(f"left at {runtime.now() // MS}")

    world.run(main())

    assert log == ["grandchild", "left at 3"]


def test_the_first_failure_cancels_the_rest_and_waits_for_their_cleanup(
    world: World, runtime: Runtime
) -> None:
    """Siblings stop when one fails, not when they would have been done."""
    log = []

    async def culprit() -> None:
        await runtime.sleep(2 * MS)
        raise ValueError

    async def sibling() -> None:
        try:
            await runtime.sleep(LONG)
        finally:
            await runtime.sleep(MS)
            log.append("cleaned")

    async def main() -> int:
        with pytest.raises(ExceptionGroup):  # noqa: PT012
            async with runtime.scope() as scope:
                scope.spawn(sibling(), name="sibling")
                scope.spawn(culprit(), name="culprit")
        return runtime.now()

    assert world.run(main()) == 3 * MS
    assert log == ["cleaned"]


def test_two_failures_are_both_reported(world: World, runtime: Runtime) -> None:
    """A second failure during the clean-up is not lost."""

    async def culprit(number: int) -> None:
        try:
            await runtime.sleep(3 * MS)
        finally:
            raise ValueError(number)

    async def main() -> None:
        async with runtime.scope() as scope:
            for number in (1, 2):
                scope.spawn(culprit(number), name=str(number))

    with pytest.raises(ExceptionGroup) as caught:
        world.run(main())

    assert sorted(str(error) for error in caught.value.exceptions) == ["1", "2"]


def test_the_body_is_cancelled_when_a_task_fails(world: World, runtime: Runtime) -> None:
    """The body of a scope is one of its tasks in this respect."""
    log = []

    async def culprit() -> None:
        await runtime.sleep(MS)
        raise ValueError

    async def main() -> int:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with runtime.scope() as scope:
                scope.spawn(culprit(), name="culprit")
                try:
                    await runtime.sleep(LONG)
                except CANCELLED:
                    log.append("cancelled")
                    raise
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        return runtime.now()

    assert world.run(main()) == MS
    assert log == ["cancelled"]


def test_an_error_in_the_body_joins_the_group(world: World, runtime: Runtime) -> None:
    """It cancels the tasks and comes out with their errors."""

    async def main() -> int:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with runtime.scope() as scope:
                scope.spawn(runtime.sleep(LONG), name="child")
                await runtime.sleep(MS)
                raise KeyError("body")
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        return runtime.now()

    assert world.run(main()) == MS


def test_errors_bubble_through_nested_scopes(world: World, runtime: Runtime) -> None:
    """A failure deep inside ends the outermost scope."""

    async def culprit() -> None:
        await runtime.sleep(MS)
        raise OddError("x", second=1)

    async def inner() -> None:
        async with runtime.scope() as scope:
            scope.spawn(culprit(), name="culprit")
            scope.spawn(runtime.sleep(LONG), name="sleeper")

    async def main() -> int:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with runtime.scope() as scope:
                scope.spawn(inner(), name="inner")
                scope.spawn(runtime.sleep(LONG), name="sleeper")
        assert caught.value.subgroup(OddError) is not None
        return runtime.now()

    assert world.run(main()) == MS


def test_a_cancellation_from_outside_reaches_the_tasks_and_goes_on(
    world: World, runtime: Runtime
) -> None:
    """Leaves first, then the scope, and nothing after it."""
    log = []

    async def leaf() -> None:
        try:
            await runtime.sleep(LONG)
        finally:
            log.append("leaf cleaned")

    async def middle() -> None:
        try:
            async with runtime.scope() as scope:
                for _ in range(2):
                    scope.spawn(leaf(), name="leaf")
        except CANCELLED:
            log.append("middle cancelled")
            raise
        log.append("not reached")

    async def main() -> None:
        async with runtime.scope() as scope:
            task = scope.spawn(middle(), name="middle")
            await runtime.sleep(2 * MS)
            task.cancel()
        log.append(f"left at {runtime.now() // MS}")

    world.run(main())

    assert log == ["leaf cleaned", "leaf cleaned", "middle cancelled", "left at 2"]


# Cancellation


def test_a_broad_except_does_not_swallow_a_cancellation(world: World, runtime: Runtime) -> None:
    """A retry loop that catches everything can be stopped."""
    log = []

    async def stubborn() -> None:
        while True:
            try:
                await runtime.sleep(5 * MS)
            except Exception:
                log.append("swallowed")

    async def main() -> None:
        async with runtime.scope() as scope:
            task = scope.spawn(stubborn(), name="stubborn")
            await runtime.sleep(7 * MS)
            task.cancel()
        log.append(f"left at {runtime.now() // MS}")

    world.run(main())

    assert log == ["left at 7"]


def test_cancelled_right_after_spawn_a_body_never_starts(world: World, runtime: Runtime) -> None:
    """And nobody complains about a coroutine that was never awaited."""
    log = []

    async def body() -> None:
        log.append("started")

    async def main() -> None:
        async with runtime.scope() as scope:
            scope.spawn(body(), name="body").cancel()

    world.run(main())
    gc.collect()

    assert log == []


def test_cancelling_the_joiner_leaves_the_task_running(world: World, runtime: Runtime) -> None:
    """A waiter is not an owner."""
    log = []

    async def work() -> None:
        await runtime.sleep(5 * MS)
        log.append("done")

    async def join(task: Any) -> None:
        await task.join()
        log.append("joined")

    async def main() -> None:
        async with runtime.scope() as scope:
            task = scope.spawn(work(), name="work")
            joiner = scope.spawn(join(task), name="joiner")
            await runtime.sleep(MS)
            joiner.cancel()

    world.run(main())

    assert log == ["done"]


def test_join_gives_the_value_to_everyone_who_asks(world: World, runtime: Runtime) -> None:
    """Before the end and after it."""

    async def work() -> int:
        await runtime.sleep(MS)
        return 7

    async def main() -> list[int]:
        async with runtime.scope() as scope:
            task = scope.spawn(work(), name="work")
            first = await task.join()
        return [first, await task.join()]

    assert world.run(main()) == [7, 7]


def test_cleanup_of_a_cancelled_task_may_wait(world: World, runtime: Runtime) -> None:
    """`finally` runs to its end, also when it awaits."""

    async def work() -> None:
        try:
            await runtime.sleep(LONG)
        finally:
            await runtime.sleep(3 * MS)

    async def main() -> int:
        async with runtime.scope() as scope:
            task = scope.spawn(work(), name="work")
            await runtime.sleep(MS)
            task.cancel()
        return runtime.now()

    assert world.run(main()) == 4 * MS


def test_tasks_left_over_at_the_end_are_cleaned_up_without_a_warning(
    world: World, runtime: Runtime
) -> None:
    """Sleeping ones run their `finally`, and nobody misses those that hardly started."""
    log = []

    async def sleeper() -> None:
        try:
            await runtime.sleep(LONG)
        finally:
            log.append("cleaned")

    async def main() -> None:
        runtime.start(sleeper(), name="sleeper")
        await runtime.sleep(MS)
        runtime.start(runtime.sleep(LONG), name="hardly started")

    world.run(main())
    gc.collect()

    assert log == ["cleaned"]


# Limits


def test_within_raises_at_the_limit_after_the_cleanup(world: World, runtime: Runtime) -> None:
    """The limit cancels; the clean-up may take its time."""
    log = []

    async def slow() -> None:
        try:
            await runtime.sleep(LONG)
        finally:
            await runtime.sleep(MS)
            log.append("cleaned")

    async def main() -> int:
        with pytest.raises(TimeoutError):
            await runtime.within(5 * MS, slow())
        return runtime.now()

    assert world.run(main()) == 6 * MS
    assert log == ["cleaned"]


def test_within_returns_the_value_and_leaves_no_limit_behind(
    world: World, runtime: Runtime
) -> None:
    """A limit that was kept never strikes later."""

    async def quick() -> int:
        await runtime.sleep(MS)
        return 7

    async def main() -> int:
        value = await runtime.within(5 * MS, quick())
        await runtime.sleep(LONG)
        return value

    assert world.run(main()) == 7


def test_a_cancellation_from_outside_is_no_timeout(world: World, runtime: Runtime) -> None:
    """`within` turns only its own cancellation into a TimeoutError."""
    log = []

    async def limited() -> None:
        try:
            await runtime.within(LONG, runtime.sleep(LONG))
        except TimeoutError:
            log.append("timeout")

    async def main() -> None:
        async with runtime.scope() as scope:
            task = scope.spawn(limited(), name="limited")
            await runtime.sleep(MS)
            task.cancel()

    world.run(main())

    assert log == []


def test_the_outer_of_two_limits_strikes_through_the_inner(world: World, runtime: Runtime) -> None:
    """The inner limit does not claim what the outer one did."""
    log = []

    async def inner() -> None:
        try:
            await runtime.within(9 * MS, runtime.sleep(LONG))
        except TimeoutError:
            log.append("inner")

    async def main() -> int:
        with pytest.raises(TimeoutError):
            await runtime.within(5 * MS, inner())
        return runtime.now()

    assert world.run(main()) == 5 * MS
    assert log == []


def test_an_inner_limit_that_struck_does_not_spoil_the_outer_one(
    world: World, runtime: Runtime
) -> None:
    """A TimeoutError that was dealt with leaves no trace."""

    async def inner() -> None:
        with pytest.raises(TimeoutError):
            await runtime.within(2 * MS, runtime.sleep(LONG))
        await runtime.sleep(LONG)

    async def main() -> int:
        with pytest.raises(TimeoutError):
            await runtime.within(5 * MS, inner())
        return runtime.now()

    assert world.run(main()) == 5 * MS


def test_a_limit_around_a_scope_cancels_its_tasks(world: World, runtime: Runtime) -> None:
    """And still comes out as a TimeoutError."""

    async def body() -> None:
        async with runtime.scope() as scope:
            scope.spawn(runtime.sleep(LONG), name="sleeper")

    async def main() -> int:
        with pytest.raises(TimeoutError):
            await runtime.within(5 * MS, body())
        return runtime.now()

    assert world.run(main()) == 5 * MS


# Timers


def test_a_timer_fires_once_at_its_last_deadline(world: World, runtime: Runtime) -> None:
    """Moved later, moved earlier, cancelled, and set again after it fired."""
    fired = []

    async def main() -> None:
        timer = runtime.timer(lambda: fired.append(runtime.now() // MS))
        timer.set(10 * MS)
        timer.set(20 * MS)
        await runtime.sleep(30 * MS)
        timer.set(90 * MS)
        timer.set(40 * MS)
        await runtime.sleep(70 * MS)
        timer.set(110 * MS)
        timer.cancel()
        await runtime.sleep(20 * MS)
        timer.set(130 * MS)
        await runtime.sleep(LONG)

    world.run(main())

    assert fired == [20, 40, 130]


def test_a_timer_set_to_the_past_fires_now(world: World, runtime: Runtime) -> None:
    """A passed deadline is not lost."""
    fired = []

    async def main() -> None:
        await runtime.sleep(5 * MS)
        runtime.timer(lambda: fired.append(runtime.now() // MS)).set(MS)
        await runtime.sleep(MS)

    world.run(main())

    assert fired == [5]


# Mailboxes


def test_a_mailbox_is_first_in_first_out(world: World, runtime: Runtime) -> None:
    """Items put before and while the consumer waits come in order."""
    box = runtime.mailbox()

    async def producer() -> None:
        for item in range(3):
            box.put(item)
        await runtime.sleep(MS)
        box.put(3)
        box.put(4)

    async def main() -> list[int]:
        async with runtime.scope() as scope:
            scope.spawn(producer(), name="producer")
            return [await box.get() for _ in range(5)]

    assert world.run(main()) == [0, 1, 2, 3, 4]
    assert len(box) == 0


def test_a_cancelled_consumer_takes_no_item(world: World, runtime: Runtime) -> None:
    """What is put afterwards is there for the next one."""
    box = runtime.mailbox()

    async def main() -> tuple[int, int]:
        with pytest.raises(TimeoutError):
            await runtime.within(MS, box.get())
        box.put(1)
        return len(box), await box.get()

    assert world.run(main()) == (1, 1)


# Steps


def test_spanning_steps_on_one_lock_exclude_each_other_in_order(
    world: World, runtime: Runtime
) -> None:
    """First come, first served, across waits inside the body."""
    log = []
    op = operation(runtime)

    async def user(number: int) -> None:
        await runtime.sleep(number * MS)
        async with runtime.step(steps.SESSION_RUNTIME, op):
            log.append(f"{number} in")
            await runtime.sleep(10 * MS)
            log.append(f"{number} out")

    async def main() -> int:
        async with runtime.scope() as scope:
            for number in (2, 0, 1):
                scope.spawn(user(number), name=str(number))
        return runtime.now()

    assert world.run(main()) == 30 * MS
    assert log == ["0 in", "0 out", "1 in", "1 out", "2 in", "2 out"]


def test_a_cancelled_waiter_is_withdrawn_from_the_lock(world: World, runtime: Runtime) -> None:
    """Those behind it move up."""
    log = []
    op = operation(runtime)

    async def user(name: str, hold_ns: int) -> None:
        async with runtime.step(steps.SESSION_RUNTIME, op):
            log.append(f"{name} at {runtime.now() // MS}")
            await runtime.sleep(hold_ns)

    async def main() -> None:
        async with runtime.scope() as scope:
            scope.spawn(user("holder", 10 * MS), name="holder")
            await runtime.sleep(MS)
            waiter = scope.spawn(user("waiter", 50 * MS), name="waiter")
            await runtime.sleep(MS)
            scope.spawn(user("third", 0), name="third")
            await runtime.sleep(MS)
            waiter.cancel()

    world.run(main())

    assert log == ["holder at 0", "third at 10"]


def test_a_cancelled_holder_lets_the_next_one_in(world: World, runtime: Runtime) -> None:
    """At once, not when it would have left."""
    log = []
    op = operation(runtime)

    async def user(name: str) -> None:
        async with runtime.step(steps.SESSION_RUNTIME, op):
            log.append(f"{name} at {runtime.now() // MS}")
            await runtime.sleep(10 * MS)

    async def main() -> None:
        async with runtime.scope() as scope:
            holder = scope.spawn(user("holder"), name="holder")
            await runtime.sleep(MS)
            scope.spawn(user("next"), name="next")
            await runtime.sleep(MS)
            holder.cancel()

    world.run(main())

    assert log == ["holder at 0", "next at 2"]


def test_a_lock_is_given_back_when_the_body_fails(world: World, runtime: Runtime) -> None:
    """Also by an error."""
    op = operation(runtime)

    async def main() -> None:
        with pytest.raises(KeyError):
            async with runtime.step(steps.SESSION_RUNTIME, op):
                raise KeyError
        async with runtime.step(steps.SESSION_RUNTIME, op):
            await runtime.sleep(MS)

    world.run(main())


def test_every_kind_of_step_runs_its_body_once(world: World, runtime: Runtime) -> None:
    """Lock, CPU and wait, leaf and spanning."""
    log = []
    op = operation(runtime)

    async def main() -> None:
        for step in steps.CATALOGUE:
            if step.kind in (steps.Kind.LOCK, steps.Kind.CPU, steps.Kind.WAIT):
                async with runtime.step(step, op, site=3, n=5, key="s"):
                    log.append(step.name)
        runtime.forget("s")
        runtime.end(op)

    world.run(main())

    assert len(log) == len(set(log)) > 20


# Tasks


def test_contextvars_are_each_tasks_own(world: World, runtime: Runtime) -> None:
    """What one task sets, another does not see; a new task inherits from its starter."""
    var = contextvars.ContextVar("var", default=-1)
    seen = []

    async def job(number: int) -> None:
        inherited = var.get()
        var.set(number)
        await runtime.sleep(MS)
        seen.append((inherited, var.get() == number))

    async def main() -> None:
        var.set(9)
        async with runtime.scope() as scope:
            for number in range(3):
                scope.spawn(job(number), name=str(number))

    world.run(main())

    assert seen == [(9, True)] * 3


def test_an_async_generator_under_aclosing_cleans_up(world: World, runtime: Runtime) -> None:
    """Its `finally` may wait."""
    log = []

    async def ticks() -> AsyncIterator[int]:
        try:
            for number in range(10):
                await runtime.sleep(MS)
                yield number
        finally:
            await runtime.sleep(MS)
            log.append("closed")

    async def main() -> None:
        async with aclosing(ticks()) as source:  # type: ignore[type-var]
            async for number in source:
                if number == 2:
                    break

    world.run(main())

    assert log == ["closed"]


def test_chance_repeats_itself_for_the_same_labels(runtime: Runtime) -> None:
    """And stays within its bounds."""
    chance = runtime.chance

    assert chance.below(1000, "a", 1) == chance.below(1000, "a", 1)
    assert all(0 <= chance.below(7, "k", k) < 7 for k in range(200))
    assert {chance.below(7, "k", k) for k in range(200)} == set(range(7))
    assert len(chance.hex_id("s-", 20, "x")) == 22
