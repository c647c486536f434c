"""The core's `Runtime` on asyncio, on a loop whose clock jumps to the next timer when all sleep."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from simsched.chance import mix
from simsched.models.runtime import SimChance
from simsched.ports import Chance, Links, StepGuard, Store, Telemetry
from simsched.steps import Kind, Step
from simsched.telemetry import Operation

T = TypeVar("T")
SECOND = 1_000_000_000


class _JumpingSelector(selectors.DefaultSelector):
    now_ns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.now_ns += max(1, round(timeout * SECOND))
        return ready


class AutojumpLoop(asyncio.SelectorEventLoop):
    """Time passes only while nothing is ready."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_ns / SECOND


class AsyncioTask(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task

    def cancel(self) -> None:
        self.task.cancel()

    async def join(self) -> T:
        await asyncio.wait([self.task])  # `await task` would pass our cancellation on to it
        return self.task.result()


class AsyncioScope(asyncio.TaskGroup):
    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> AsyncioTask[T]:
        return AsyncioTask(self.create_task(coro, name=name))


class AsyncioTimer:
    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        self.cancel()
        self._handle = self._loop.call_at(at_ns / SECOND, self._callback)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class AsyncioMailbox:
    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        self._queue.put_nowait(item)

    async def get(self) -> Any:
        return await self._queue.get()

    def __len__(self) -> int:
        return self._queue.qsize()


class _NoLock:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        pass


class AsyncioRuntime:
    """As `live` will have it: bodies cost what they cost, spanning steps take a real lock."""

    store: Store
    links: Links
    telemetry: Telemetry

    def __init__(self) -> None:
        self.instance_id = "live"
        self.chance: Chance = SimChance(0)
        self._loop = AutojumpLoop()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._operations = 0
        self._main: asyncio.Task[Any] | None = None
        self._failure: BaseException | None = None

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        async def guarded() -> T:
            self._main = asyncio.current_task()
            try:
                return await main
            except asyncio.CancelledError:
                if self._failure is not None:
                    raise self._failure from None
                raise

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            return runner.run(guarded())

    def close(self) -> None:
        self._loop.close()

    def now(self) -> int:
        return self._loop.selector.now_ns

    def now_ms(self) -> int:
        return self.now() // 1_000_000

    async def sleep(self, delay_ns: int) -> None:
        await asyncio.sleep(delay_ns / SECOND)

    def begin(self, kind: int, entity: int, index: int, session_id: str = "") -> Operation:
        self._operations += 1
        return Operation(kind, mix(entity, index), self._operations, session_id, self.now())

    def end(self, op: Operation, outcome: int = 0) -> None:
        pass

    def step(
        self, step: Step, op: Operation, *, site: int = 0, n: int = 0, key: str = ""
    ) -> StepGuard:
        if step.kind is not Kind.LOCK:
            return _NoLock()
        return self._locks.setdefault((step.lock, key), asyncio.Lock())

    def forget(self, key: str) -> None:
        for name in [held for held in self._locks if held[1] == key]:
            del self._locks[name]

    def scope(self) -> AsyncioScope:
        return AsyncioScope()

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> AsyncioTask[T]:
        task = asyncio.get_running_loop().create_task(coro, name=name)
        task.add_done_callback(self._started_ended)
        return AsyncioTask(task)

    def _started_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None and self._main is not None:
            self._failure = task.exception()
            self._main.cancel()

    async def within(self, limit_ns: int, coro: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(limit_ns / SECOND):
            return await coro

    def timer(self, callback: Callable[[], None]) -> AsyncioTimer:
        return AsyncioTimer(self._loop, callback)

    def mailbox(self) -> AsyncioMailbox:
        return AsyncioMailbox()
