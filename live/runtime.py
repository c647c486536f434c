"""
The core's handle to the real world: `simsched.ports.Runtime` on asyncio.

A body costs here what it costs; a step is timed, not charged. Rules:

- time is the host's monotonic clock, whole nanoseconds since the runtime was made; stamps for the
  wire derive from it, so that a host clock that is set while we run moves nothing;
- one thread: a LEAF step waits for nothing inside, so nobody can see its lock held and it takes
  none. It only stays out while a SPANNING step holds the same lock;
- a SPANNING lock step takes a real lock, one per key, in the mode that the catalogue says;
- waiting for a lock and the work under it are measured apart.

It knows neither Redis nor sockets: `store` and `links` are put in by whoever wires an instance.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any, Final, TypeVar

from simsched import chance as draws
from simsched.live.locks import FairLock
from simsched.live.sinks import Sink, SinkTelemetry
from simsched.live.tasks import LiveMailbox, LiveScope, LiveTask, LiveTimer, again_s
from simsched.ports import Chance, Links, StepGuard, Store, Telemetry
from simsched.steps import CATALOGUE, Kind, Mode, Shape, Step
from simsched.telemetry import Operation
from simsched.units import MS, SECOND

T = TypeVar("T")

LAG_PERIOD_NS: Final = 100 * MS
"""How often the event loop is asked how late it is."""

_SPANNED_LOCKS: Final = frozenset(
    step.lock for step in CATALOGUE if step.kind is Kind.LOCK and step.shape is Shape.SPANNING
)
"""The locks that somebody may hold across a wait; on all others no step ever waits."""


class LiveChance:
    """
    Choices left to chance, from the operating system's randomness.

    A secret is drawn once; every choice is a keyed hash of its labels (BLAKE2b, a pseudo-random
    function). So the same labels give the same answer, as in the simulator, another process gives
    another one, and nobody who sees some of them can guess the next.
    """

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        self._secret = os.urandom(32)

    def below(self, bound: int, *labels: str | int) -> int:
        """A whole number in [0, bound)."""
        return draws.below(int.from_bytes(self._digest(8, labels), "little"), bound)

    def hex_id(self, prefix: str, digits: int, *labels: str | int) -> str:
        """`prefix` and `digits` upper-case hexadecimal digits, 128 at most."""
        return prefix + self._digest((digits + 1) // 2, labels).hex().upper()[:digits]

    def _digest(self, size: int, labels: tuple[str | int, ...]) -> bytes:
        text = "\x1f".join(map(str, labels))
        return blake2b(text.encode(), digest_size=size, key=self._secret).digest()


class _Timed:
    """A step that takes no lock: leaves, CPU work, waits."""

    __slots__ = ("_n", "_op", "_runtime", "_site", "_start_ns", "_step")

    def __init__(self, runtime: LiveRuntime, step: Step, op: Operation, site: int, n: int) -> None:
        self._runtime = runtime
        self._step = step
        self._op = op
        self._site = site
        self._n = n

    async def __aenter__(self) -> None:
        self._start_ns = self._runtime.now()

    async def __aexit__(self, *error: object) -> None:
        start_ns, runtime = self._start_ns, self._runtime
        runtime.sink.step(
            self._step, self._op, start_ns, 0, runtime.now() - start_ns, self._n, self._site
        )


class _Locked:
    """A step under a lock that others may hold across waits."""

    __slots__ = ("_got_ns", "_lock", "_n", "_op", "_runtime", "_shared", "_site", "_start_ns",
                 "_step")  # fmt: skip

    def __init__(
        self, runtime: LiveRuntime, lock: FairLock, step: Step, op: Operation, site: int, n: int
    ) -> None:
        self._runtime = runtime
        self._lock = lock
        self._step = step
        self._op = op
        self._site = site
        self._n = n
        self._shared = step.mode is Mode.SHARED

    async def __aenter__(self) -> None:
        runtime = self._runtime
        self._start_ns = self._got_ns = runtime.now()
        if not self._lock.try_acquire(shared=self._shared):
            await self._lock.acquire(shared=self._shared)
            self._got_ns = runtime.now()

    async def __aexit__(self, *error: object) -> None:
        self._lock.release(shared=self._shared)
        start_ns, got_ns, runtime = self._start_ns, self._got_ns, self._runtime
        runtime.sink.step(
            self._step, self._op, start_ns, got_ns - start_ns, runtime.now() - got_ns, self._n,
            self._site,
        )  # fmt: skip


class LiveRuntime:
    """
    One scheduler instance on one event loop.

    Args:
        instance_id: its name among the instances of a cell.
        sink: where steps, operations and telemetry go.
        loop: the event loop; by default the one that runs now.
        clock_ns: a clock that never goes back; the host's monotonic one by default.
        epoch_ms: Unix milliseconds of `now() == 0`; by default what the host says now.

    Attributes:
        origin_ns: `clock_ns()` of `now() == 0`: what instances of one machine have in common.

    """

    store: Store
    links: Links
    chance: Chance
    telemetry: Telemetry

    def __init__(
        self,
        instance_id: str,
        sink: Sink,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        epoch_ms: int | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.sink = sink
        self.telemetry = SinkTelemetry(sink)
        self.chance = LiveChance()
        self.on_failure: Callable[[str, BaseException], None] = self._tell_loop
        self.epoch_ms = time.time_ns() // MS if epoch_ms is None else epoch_ms
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._clock_ns = clock_ns
        self.origin_ns = clock_ns()
        self._operations = 0
        self._locks: dict[tuple[str, str], FairLock] = {}
        self._started: dict[asyncio.Task[Any], None] = {}

    # Time

    def now(self) -> int:
        """Nanoseconds since the runtime was made."""
        return self._clock_ns() - self.origin_ns

    def now_ms(self) -> int:
        """Unix milliseconds, for stamps on the wire."""
        return self.epoch_ms + self.now() // MS

    async def sleep(self, delay_ns: int) -> None:
        """Wait for at least so long by our clock; an event loop may count more coarsely."""
        until_ns = self.now() + delay_ns
        await asyncio.sleep(max(0, delay_ns) / SECOND)
        while (rest_ns := until_ns - self.now()) > 0:  # noqa: ASYNC110  # time is no event
            await asyncio.sleep(again_s(rest_ns))

    def timer(self, callback: Callable[[], None]) -> LiveTimer:
        """A movable deadline."""
        return LiveTimer(self._loop, self.now, callback)

    # Steps

    def begin(self, kind: int, entity: int, index: int, session_id: str = "") -> Operation:
        """Open an operation; ids are unique within the instance."""
        self._operations += 1
        return Operation(kind, draws.mix(entity, index), self._operations, session_id, self.now())

    def end(self, op: Operation, outcome: int = 0) -> None:
        """Close it."""
        self.sink.operation(op, self.now(), outcome)

    def step(
        self, step: Step, op: Operation, *, site: int = 0, n: int = 0, key: str = ""
    ) -> StepGuard:
        """One named piece of work, timed; see `ports.Runtime.step`."""
        if step.lock in _SPANNED_LOCKS:
            lock = self._locks.get((step.lock, key))
            if step.shape is Shape.SPANNING:
                if lock is None:
                    lock = self._locks[step.lock, key] = FairLock(self._loop)
                return _Locked(self, lock, step, op, site, n)
            if lock is not None and not lock.admits(shared=step.mode is Mode.SHARED):
                return _Locked(self, lock, step, op, site, n)
        return _Timed(self, step, op, site, n)

    def point(self, _name: str) -> bool:
        """No rare path is taken on purpose."""
        return False

    def forget(self, key: str) -> None:
        """The locks of `key` will not be used again."""
        for name in _SPANNED_LOCKS:
            self._locks.pop((name, key), None)

    # Tasks

    def scope(self) -> LiveScope:
        """A group of tasks that ends together."""
        return LiveScope()

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> LiveTask[T]:
        """Start a task of the instance; if it fails, `on_failure` hears of it."""
        task = self._loop.create_task(coro, name=name)
        self._started[task] = None  # the loop itself holds tasks weakly
        task.add_done_callback(self._ended)
        return LiveTask(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._started[task]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.sink.count("task_failures", 1)
            self.on_failure(task.get_name(), error)

    def _tell_loop(self, name: str, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {"message": f"task {name!r} of instance {self.instance_id} failed", "exception": error}
        )

    @property
    def tasks(self) -> int:
        """How many started tasks have not ended."""
        return len(self._started)

    async def stop(self) -> None:
        """Cancel every task that `start` began, and wait for their cleanup."""
        while self._started:
            tasks = list(self._started)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def within(self, limit_ns: int, coro: Coroutine[Any, Any, T]) -> T:
        """Run `coro` for at most `limit_ns`, else cancel it and raise TimeoutError."""
        async with asyncio.timeout(limit_ns / SECOND):
            return await coro

    def mailbox(self) -> LiveMailbox[Any]:
        """A queue with one consumer."""
        return LiveMailbox(self._loop)

    async def watch_lag(self, period_ns: int = LAG_PERIOD_NS) -> None:
        """Measure how late the loop's timers are, for as long as the task lives."""
        while True:
            before_ns = self.now()
            await asyncio.sleep(period_ns / SECOND)
            now_ns = self.now()
            self.sink.lag(now_ns, max(0, now_ns - before_ns - period_ns))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's main coroutine to its end on the fastest loop there is."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
