"""
What tasks wait for besides time: scopes, mailboxes, movable timers, limits.

The contracts are asyncio's (`TaskGroup`, `Queue`, `timeout`), so that the core behaves alike in
both worlds. Everything here belongs to a group of tasks (`simsched.models.wakes.Group`) and is
held back or parked with it. This file does not know locks, costs or instances.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappush
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from simsched.models.wakes import NORMAL, SUSPEND, Cancelled, Group, SimTask, Wake

if TYPE_CHECKING:
    from simsched.models.tasks import Kernel

T = TypeVar("T")


class SimScope:
    """
    Owns its tasks: leaves when all have ended; the first failure cancels the rest and the body.

    Errors of the body and of the tasks come out together in an `ExceptionGroup`; a cancellation
    from outside cancels the tasks, waits for their clean-up and goes on outwards.
    """

    name = "the end of a scope"

    def __init__(self, kernel: Kernel, group: Group | None = None) -> None:
        self._kernel = kernel
        self._group = group
        self._errors: list[BaseException] = []
        self._tasks: dict[int, SimTask[Any]] = {}
        self._in_body = False
        self._aborting = False

    async def __aenter__(self) -> Self:
        self._parent = self._kernel.current()
        self._in_body = True
        return self

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> SimTask[T]:
        """
        Start a task in the scope.

        Raises:
            RuntimeError: the scope is not open, or is being cancelled.

        """
        if self._aborting or not (self._in_body or self._tasks):
            coro.close()
            raise RuntimeError(f"cannot spawn {name}: the scope is not open")
        task = self._kernel.start(coro, name, self._group)
        self._tasks[task.number] = task
        task.watch(self._task_ended)
        return task

    def _task_ended(self, task: SimTask[Any]) -> None:
        del self._tasks[task.number]
        if task.error is not None and not isinstance(task.error, Cancelled):
            self._errors.append(task.error)
            if not self._aborting:
                self._abort()
                if self._in_body:
                    self._parent.interrupt()
        if not self._tasks and self._parent.owner is self:
            self._parent.arm(self._kernel.now)

    def _abort(self) -> None:
        self._aborting = True
        for task in list(self._tasks.values()):
            task.cancel()

    def withdraw(self, task: SimTask[Any]) -> None:
        """The parent is cancelled while it waits for the tasks; nothing is queued for it."""

    async def __aexit__(self, _type: Any, error: BaseException | None, _traceback: Any) -> bool:
        self._in_body = False
        cancelled = isinstance(error, Cancelled)
        if error is not None and not self._aborting:
            self._abort()
        while self._tasks:
            self._parent.owner = self
            try:
                await SUSPEND
            except Cancelled:
                if not self._aborting:
                    cancelled = True
                    self._abort()
        errors, self._errors = self._errors, []
        if error is not None and not isinstance(error, Cancelled):
            if not isinstance(error, Exception):
                return False
            errors.append(error)
        if errors:
            raise BaseExceptionGroup("unhandled errors in a scope", errors)
        if cancelled and error is None:
            raise Cancelled
        return False


class SimMailbox(Generic[T]):
    """An unbounded first-in first-out queue with one consumer."""

    name = "a mailbox"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._items: deque[T] = deque()
        self._consumer: SimTask[Any] | None = None

    def put(self, item: T) -> None:
        """Append; wakes the consumer at this instant."""
        self._items.append(item)
        consumer = self._consumer
        if consumer is not None:
            self._consumer = None
            consumer.arm(self._kernel.now)

    async def get(self) -> T:
        """Take the oldest item, waiting for one; a cancelled consumer takes none."""
        while not self._items:
            assert self._consumer is None, "a mailbox has one consumer"
            self._consumer = consumer = self._kernel.current()
            consumer.owner = self
            await SUSPEND
        return self._items.popleft()

    def withdraw(self, task: SimTask[Any]) -> None:
        """The consumer is cancelled."""
        self._consumer = None

    def __len__(self) -> int:
        return len(self._items)


class SimTimer(Wake):
    """
    One movable deadline with at most one entry in the heap.

    Moving the deadline later, which a session does with every chunk of audio, only notes it: the
    entry that comes up too early puts itself back. The note has a serial number of its own, so
    that simultaneous timers fire in the order in which they were set.
    """

    __slots__ = ("_callback", "_deadline", "_kernel", "_pending", "_wanted")

    def __init__(
        self, kernel: Kernel, callback: Callable[[], None], group: Group | None = None
    ) -> None:
        self._kernel = kernel
        self.group = group or kernel.root
        self._callback = callback
        self._deadline: int | None = None
        self._pending: int | None = None
        self._wanted = 0

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns` (now, if that has passed) instead of at any earlier choice."""
        self._deadline = at_ns
        self._wanted = self._kernel.next_serial()
        pending = self._pending
        if pending is None:
            self._push(at_ns)
        elif at_ns < pending:
            self._kernel.note_stale()
            self._push(at_ns)

    def cancel(self) -> None:
        """Do not fire; the timer can be set again."""
        self._deadline = None

    def _push(self, at_ns: int) -> None:
        self._pending = at_ns = max(at_ns, self._kernel.now)
        self.serial = self._wanted
        heappush(self._kernel.queue, (at_ns, NORMAL, self.serial, self))

    def fire(self) -> None:
        self._pending = None
        deadline = self._deadline
        if deadline is None:
            return
        if self.serial != self._wanted:
            self._push(deadline)  # it was moved in the meantime
            return
        self._deadline = None
        self._callback()


async def within(kernel: Kernel, limit_ns: int, coro: Coroutine[Any, Any, T]) -> T:
    """
    Run `coro` in this task for at most `limit_ns`.

    Raises:
        TimeoutError: the limit passed; `coro` was cancelled and its clean-up has ended.

    """
    task = kernel.current()
    cancels_before = task.cancels
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    deadline = kernel.call_at(kernel.now + limit_ns, expire, task.group)
    try:
        return await coro
    except Cancelled:
        if expired and task.cancels == cancels_before + 1:
            raise TimeoutError(f"not done within {limit_ns} ns") from None
        raise
    finally:
        deadline.cancel()
        if expired:
            task.cancels -= 1
