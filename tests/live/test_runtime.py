"""The live runtime: what only it promises, on real loops and real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched import steps
from simsched.live.locks import FairLock
from simsched.live.runtime import LiveChance, LiveRuntime, new_event_loop, run
from simsched.live.sinks import Fanout, NullSink, SinkTelemetry
from simsched.telemetry import Event, Operation, OpKind, Outcome
from simsched.units import MS
from tests.live.valkey import Kept, operation, play, until

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
]


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_no_sleep_and_no_timer_is_early(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Also where the loop counts in milliseconds: by our clock the time has passed."""

    async def main() -> None:
        runtime = LiveRuntime("a", NullSink())
        fired: list[tuple[int, int]] = []
        for delay_ns in (0, 1, 300_000, 1_400_000, 2_499_999, 7_300_001):
            before = runtime.now()
            await runtime.sleep(delay_ns)
            assert runtime.now() - before >= delay_ns
            at_ns = runtime.now() + delay_ns
            runtime.timer(lambda at_ns=at_ns: fired.append((at_ns, runtime.now()))).set(at_ns)  # type: ignore[misc]
        await until(lambda: len(fired) == 6)
        assert all(at_ns <= now_ns for at_ns, now_ns in fired)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_stamps_follow_the_clock_of_the_runtime() -> None:
    """A host clock that is set back moves nothing; the epoch is where `now` was 0."""
    ticks = [5_000 * MS]

    async def main() -> None:
        runtime = LiveRuntime("a", NullSink(), clock_ns=lambda: ticks[0], epoch_ms=1_000)
        assert (runtime.now(), runtime.now_ms()) == (0, 1_000)
        ticks[0] += 7 * MS
        assert (runtime.now(), runtime.now_ms()) == (7 * MS, 1_007)
        real = LiveRuntime("b", NullSink())
        assert abs(real.epoch_ms - time.time_ns() // MS) < 60_000

    play(main)


def test_waiting_for_a_lock_and_work_under_it_are_recorded_apart() -> None:
    """The second of two spanning steps waits for the whole first one, and works for its own."""
    sink = Kept()
    ticks = [0]

    async def main() -> None:
        runtime = LiveRuntime("a", sink, clock_ns=lambda: ticks[0])
        op = operation()
        goes_on = asyncio.Event()

        async def first() -> None:
            async with runtime.step(steps.SESSION_RUNTIME, op, site=1, n=4, key="s"):
                await goes_on.wait()

        async def second() -> None:
            async with runtime.step(steps.SESSION_RUNTIME, op, site=2, key="s"):
                ticks[0] += 5

        tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
        await asyncio.sleep(0)
        ticks[0] += 70
        goes_on.set()
        await asyncio.gather(*tasks)

    play(main)
    name = steps.SESSION_RUNTIME.name
    assert sink.steps == [(name, 0, 0, 70, 4, 1), (name, 0, 70, 5, 0, 2)]


def test_locks_of_different_keys_know_nothing_of_each_other() -> None:
    """Two sessions hold "their" lock at once; forgotten keys leave nothing behind."""

    async def main() -> None:
        runtime = LiveRuntime("a", NullSink())
        op = operation()
        async with (
            runtime.step(steps.SESSION_RUNTIME, op, key="s1"),
            runtime.step(steps.SESSION_RUNTIME, op, key="s2"),
        ):
            pass
        runtime.forget("s1")
        runtime.forget("s2")
        assert not runtime._locks

    play(main)


def test_a_leaf_stays_out_while_a_spanning_step_holds_its_lock() -> None:
    """And is timed as waiting; without one it is in at once, whatever else goes on."""
    log: list[str] = []

    async def main() -> None:
        runtime = LiveRuntime("a", NullSink())
        op = operation()
        goes_on = asyncio.Event()

        async def holder() -> None:
            async with runtime.step(steps.JOBS_WRITE_HELD, op):
                log.append("held")
                await goes_on.wait()
                log.append("left")

        async def leaf(step: steps.Step) -> None:
            async with runtime.step(step, op):
                log.append(step.name)

        task = asyncio.create_task(holder())
        await asyncio.sleep(0)
        leaves = [asyncio.create_task(leaf(s)) for s in (steps.JOBS_READ, steps.ADD_CHUNK)]
        await asyncio.sleep(0.01)
        goes_on.set()
        await asyncio.gather(task, *leaves)

    play(main)
    assert log == ["held", steps.ADD_CHUNK.name, "left", steps.JOBS_READ.name]


LOCK_ACTIONS = st.lists(
    st.tuples(st.sampled_from(["read", "write", "leave", "cancel", "tick"]), st.integers(0, 9)),
    max_size=50,
)


@settings(max_examples=150, deadline=None)
@given(LOCK_ACTIONS)
def test_the_lock_is_fair_and_exclusive_whatever_is_cancelled(
    actions: list[tuple[str, int]],
) -> None:
    """A writer is alone, nobody overtakes, and once all have left the lock is idle."""

    async def main() -> None:
        lock = FairLock(asyncio.get_running_loop())
        inside: list[tuple[int, bool]] = []
        entered: list[int] = []
        leave: dict[int, asyncio.Event] = {}
        tasks: dict[int, asyncio.Task[None]] = {}

        async def customer(number: int, shared: bool) -> None:
            await lock.acquire(shared=shared)
            try:
                inside.append((number, shared))
                entered.append(number)
                assert shared or len(inside) == 1
                assert all(other for _, other in inside) or len(inside) == 1
                await leave[number].wait()
            finally:
                inside.remove((number, shared))
                lock.release(shared=shared)

        for number, (what, which) in enumerate(actions):
            if what in ("read", "write"):
                leave[number] = asyncio.Event()
                tasks[number] = asyncio.create_task(customer(number, what == "read"))
            elif what == "leave" and inside:
                leave[inside[which % len(inside)][0]].set()
            elif what == "cancel" and tasks:
                list(tasks.values())[which % len(tasks)].cancel()
            elif what == "tick":
                for _ in range(3):
                    await asyncio.sleep(0)
        for event in leave.values():
            event.set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert entered == sorted(entered)
        assert not [t for t in tasks.values() if not t.cancelled() and t.exception()]
        assert lock.idle

    play(main)


def test_a_waiter_that_is_granted_and_cancelled_in_one_instant_gives_the_lock_on() -> None:
    """Nobody else could: it is the only one who knows that it had it."""

    async def main() -> None:
        lock = FairLock(asyncio.get_running_loop())
        assert lock.try_acquire(shared=False)
        waiters = [asyncio.create_task(lock.acquire(shared=False)) for _ in range(2)]
        await asyncio.sleep(0)
        lock.release(shared=False)
        waiters[0].cancel()
        await waiters[1]
        assert waiters[0].cancelled()
        lock.release(shared=False)
        assert lock.idle

    play(main)


def test_operations_are_recorded_with_their_outcome_and_unique_ids() -> None:
    """Latency is the end minus the start, by the runtime's clock."""
    sink = Kept()

    async def main() -> None:
        runtime = LiveRuntime("a", sink)
        first = runtime.begin(OpKind.FINALIZE, 1, 1, "s")
        second = runtime.begin(OpKind.FINALIZE, 1, 1, "s")
        runtime.end(second, Outcome.FAILED)
        runtime.end(first)
        assert first.session_id == "s"

    play(main)
    assert sink.operations == [(2, Outcome.FAILED), (1, Outcome.DONE)]


def test_a_failing_task_is_told_and_does_not_stop_the_others() -> None:
    """`on_failure` gets its name and the very error; it is counted."""
    sink = Kept()
    failures: list[tuple[str, BaseException]] = []
    boom = KeyError("x")

    async def main() -> None:
        runtime = LiveRuntime("a", sink)
        runtime.on_failure = lambda name, error: failures.append((name, error))

        async def fails() -> None:
            raise boom

        async def lasts() -> int:
            await asyncio.sleep(0.01)
            return 7

        runtime.start(fails(), name="bad")
        assert await runtime.start(lasts(), name="good").join() == 7
        assert runtime.tasks == 0

    play(main)
    assert failures == [("bad", boom)]
    assert sink.counts == {"task_failures": 1}


def test_stopping_cancels_what_was_started_and_waits_for_its_cleanup() -> None:
    """Also what the cleanup itself starts."""
    log: list[str] = []

    async def main() -> None:
        runtime = LiveRuntime("a", NullSink())

        async def late() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                log.append("late")

        async def task() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                await asyncio.sleep(0.01)
                log.append("cleaned")
                runtime.start(late(), name="late")
                await asyncio.sleep(0)

        runtime.start(task(), name="task")
        await asyncio.sleep(0)
        await runtime.stop()
        assert runtime.tasks == 0

    play(main)
    assert log == ["cleaned", "late"]


def test_chance_differs_between_processes_and_is_even() -> None:
    """The same labels repeat within one; ids are upper-case hexadecimal of the asked length."""
    one, other = LiveChance(), LiveChance()
    assert one.hex_id("s-", 8, "a", 1) == one.hex_id("s-", 8, "a", 1)
    assert one.hex_id("s-", 8, "a", 1) != other.hex_id("s-", 8, "a", 1)
    assert one.hex_id("s-", 8, "a", 1) != one.hex_id("s-", 8, "a", 2)
    text = one.hex_id("s-", 7, "x")
    assert len(text) == 9
    assert set(text[2:]) <= set("0123456789ABCDEF")
    hits = [0] * 5
    for number in range(5_000):
        hits[one.below(5, "k", number)] += 1
    assert all(800 < hit < 1_200 for hit in hits)


class Broken(NullSink):
    def count(self, name: str, amount: int) -> None:
        raise ValueError(name)

    def event(self, event: Event) -> None:
        raise ValueError

    def step(
        self, step: steps.Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int,
        site: int,
    ) -> None:  # fmt: skip
        raise ValueError

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        raise ValueError

    def lag(self, at_ns: int, lag_ns: int) -> None:
        raise ValueError

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        raise ValueError


def test_a_failing_sink_harms_nobody_else() -> None:
    """Others still hear everything, in order; failures are counted."""
    kept, broken = Kept(), Broken()
    fanout = Fanout([broken, kept])
    event = Event(at_ns=1, instance="a")
    SinkTelemetry(fanout).event(event)
    SinkTelemetry(fanout).count("x")
    fanout.step(steps.CLAIM, operation(), 1, 2, 3, 4, 5)
    fanout.operation(operation(), 1, 2)
    fanout.lag(1, 2)
    fanout.connection(1, "client", "s", "opened", "")
    assert (kept.events, kept.counts, kept.lags) == ([event], {"x": 1}, [2])
    assert kept.steps == [(steps.CLAIM.name, 1, 2, 3, 4, 5)]
    assert kept.operations == [(1, 2)]
    assert fanout.failures == 6
    assert isinstance(fanout.last_failure, ValueError)


def test_the_lag_of_a_blocked_loop_is_measured() -> None:
    """Somebody holds the loop for 60 ms: the probe says so."""
    sink = Kept()

    async def main() -> None:
        runtime = LiveRuntime("a", sink)
        task = asyncio.create_task(runtime.watch_lag(5 * MS))
        await asyncio.sleep(0)
        time.sleep(0.06)  # noqa: ASYNC251  # this is what is measured
        await until(lambda: len(sink.lags) > 0)
        task.cancel()

    play(main)
    assert max(sink.lags) >= 50 * MS


def test_run_takes_uvloop_where_it_is() -> None:
    """And returns what the main coroutine returns."""

    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(main()) == "uvloop"
    new_event_loop().close()
