"""
Tasks, scopes, timers and mailboxes of `simsched.ports` on asyncio.

Each is as thin as its promise allows; the promises are stated and checked in
`tests/conformance/`. They know neither the scheduler nor what is measured.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from simsched.units import MS, SECOND, US

T = TypeVar("T")

_TICK_NS: Final = MS
"""uvloop rounds timers to whole milliseconds, so they may be half a millisecond early."""

_ROUNDING_NS: Final = US
"""A rest below this is the rounding of a float, not of a coarse timer."""


def again_s(rest_ns: int) -> float:
    """How many seconds to wait again, `rest_ns` before a deadline, without spinning till then."""
    return (rest_ns if rest_ns <= _ROUNDING_NS else max(rest_ns, _TICK_NS)) / SECOND


class LiveTask(Generic[T]):
    """A running coroutine."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Ask it to stop at its next wait."""
        self._task.cancel()

    async def join(self) -> T:
        """Wait for its end; `await task` would pass our own cancellation on to it."""
        if not self._task.done():
            await asyncio.wait((self._task,))
        return self._task.result()


class LiveScope(asyncio.TaskGroup):
    """Owns the tasks spawned in it."""

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> LiveTask[T]:
        """Start a task that ends before the scope does."""
        return LiveTask(self.create_task(coro, name=name))


class LiveTimer:
    """One movable deadline of the runtime's clock; it is never early by that clock."""

    __slots__ = ("_at_ns", "_callback", "_handle", "_loop", "_now")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], int],
        callback: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._now = now
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._at_ns = 0

    def set(self, at_ns: int) -> None:
        """Fire at this time, or as soon as possible if it has passed."""
        self.cancel()
        self._at_ns = at_ns
        self._arm()

    def cancel(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        rest_ns = max(0, self._at_ns - self._now())
        self._handle = self._loop.call_later(rest_ns / SECOND, self._fire)

    def _fire(self) -> None:
        self._handle = None
        early_ns = self._at_ns - self._now()
        if early_ns > 0:
            self._handle = self._loop.call_later(again_s(early_ns), self._fire)
        else:
            self._callback()


class LiveMailbox(Generic[T]):
    """An unbounded queue with one consumer; a cancelled consumer takes no item."""

    __slots__ = ("_items", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Add an item; never waits."""
        self._items.append(item)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def get(self) -> T:
        """The oldest item, once there is one."""
        while not self._items:
            assert self._waiter is None, "a mailbox has one consumer"
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)
