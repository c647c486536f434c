"""
What lies in the event queue, and the task: a coroutine that is its own wake.

Rules:

- a wake has at most one live entry in the heap, the one whose serial it carries: to move or to
  withdraw it is to change the serial, the stale entry is skipped when it comes up;
- every wait ends in `await SUSPEND`: whoever suspends a task has first armed it or left word with
  `task.owner`, which takes the task out again when it is cancelled;
- outcomes travel as values: SimPy rebuilds errors from their arguments, so it never sees ours.

This file does not know the run loop (`simsched.models.tasks`), locks, costs or the core.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from heapq import heappush
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from simsched.models.tasks import Kernel

T = TypeVar("T")

NORMAL: Final = 1
"""SimPy's priority of ordinary events; its urgent ones (process start, interrupt) have 0."""

WITHDRAWN: Final = -1
"""The serial of a wake that no entry of the heap stands for."""

KILL_ATTEMPTS_MAX: Final = 100
"""How often a task that is left over at the end of a run may wait again in its clean-up."""


class Cancelled(BaseException):
    """The task was asked to stop. Not an `Exception`, so that no broad `except` swallows it."""


class Trap(tuple[object, ...]):
    """An awaitable without a Python frame: awaiting it yields its items to the driver."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, None]: ...
    else:
        __await__ = tuple.__iter__


# The states of a task: STARTED is the one that the hot path knows, those above are being stopped.
_NEW: Final = 0
_STARTED: Final = 1
_INTERRUPTED: Final = 2
_CANCELLED_UNSTARTED: Final = 3

_SUSPENDED: Final = object()

SUSPEND: Final = Trap((_SUSPENDED,))
"""`await SUSPEND` stops the running task until its wake fires: the only trap that there is."""

DONE: Final = Trap()
"""`await DONE` goes on at once."""


class Owner(Protocol):
    """What a suspended task waits for."""

    @property
    def name(self) -> str:
        """For the message about a deadlock."""
        ...

    def withdraw(self, task: SimTask[Any]) -> None:
        """The task is cancelled and waits no longer."""


class Group:
    """The tasks and timers of one instance, which can be paused or abandoned as a whole."""

    __slots__ = ("_kernel", "abandoned", "held", "name")

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self.name = name
        self.abandoned = False
        self.held: deque[tuple[Wake, int]] | None = None

    def freeze(self) -> None:
        """Hold back every resumption and timer from now on; time goes on without the group."""
        if self.held is None:
            self.held = deque()

    def resume(self) -> None:
        """Deliver now, in order, what was held back since `freeze`."""
        if self.abandoned or self.held is None:
            return
        held, self.held = self.held, None
        for wake, serial in held:
            if wake.serial == serial:
                self._kernel.push(wake, self._kernel.now)

    def abandon(self) -> None:
        """Never run anything of the group again; its coroutines stay parked until the run ends."""
        self.abandoned = True
        self.held = deque(maxlen=0)


class Wake:
    """
    An entry of SimPy's heap that calls `fire` when its time has come.

    It is no `simpy.Event`, whose `__dict__` would double the price of a task; the run loop tells
    the two apart by `callbacks`, which a scheduled SimPy event always has.
    """

    __slots__ = ("group", "serial")

    callbacks: Final = None
    group: Group
    serial: int

    def fire(self) -> None:
        """Do what was due; only called while the group runs."""
        raise NotImplementedError


class Call(Wake):
    """A plain function, called once."""

    __slots__ = ("_callback", "_kernel")

    def __init__(self, kernel: Kernel, group: Group, callback: Callable[[], None]) -> None:
        self._kernel = kernel
        self.group = group
        self._callback = callback

    def fire(self) -> None:
        self.serial = WITHDRAWN
        self._callback()

    def cancel(self) -> None:
        """Do not call it any more; harmless if it was called already."""
        if self.serial != WITHDRAWN:
            self.serial = WITHDRAWN
            self._kernel.note_stale()


class SimTask(Wake, Generic[T]):
    """One coroutine and its outcome; also the event that resumes it."""

    __slots__ = (
        "_context", "_coro", "_kernel", "_observers", "_send", "_state", "_value",
        "cancels", "ended", "error", "name", "number", "owner",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, group: Group, coro: Coroutine[Any, Any, T], name: str, number: int
    ) -> None:
        self._kernel = kernel
        self.group = group
        self.name = name
        self.number = self.serial = number
        self._coro = coro
        self._send = coro.send
        self._context = contextvars.copy_context()
        self._state = _NEW
        self._observers: tuple[Callable[[SimTask[Any]], None], ...] = ()
        self.cancels = 0
        self.ended = False
        self.error: BaseException | None = None
        self.owner: Owner | None = None

    def arm(self, at_ns: int) -> None:
        """Resume at `at_ns` and at no other time; whoever owned the wait no longer does."""
        self.owner = None
        kernel = self._kernel
        self.serial = serial = kernel.next_serial()
        heappush(kernel.queue, (at_ns, NORMAL, serial, self))

    def fire(self) -> None:
        """Run the coroutine up to its next wait."""
        kernel = self._kernel
        kernel.running = self
        try:
            if self._state == _STARTED:
                trap = self._context.run(self._send, None)
            else:
                trap = self._begin_or_interrupt()
            while trap is not _SUSPENDED:
                problem = f"task {self.name} awaited {trap!r}, which belongs to no port"
                trap = self._context.run(self._coro.throw, RuntimeError(problem))
        except StopIteration as stop:
            self._end(stop.value, None)
        except (Exception, Cancelled) as error:
            self._end(None, error)
        finally:
            kernel.running = None

    def _begin_or_interrupt(self) -> object:
        state, self._state = self._state, _STARTED
        if state == _NEW:
            return self._context.run(self._send, None)
        if state == _CANCELLED_UNSTARTED:
            self._coro.close()
            raise Cancelled
        return self._context.run(self._coro.throw, Cancelled())

    def _end(self, value: Any, error: BaseException | None) -> None:
        self.ended = True
        self.serial = WITHDRAWN
        self.owner = None
        self._value = value
        self._kernel.forget(self.number)
        observers = self._observers
        if error is not None:
            # A traceback refers to frames that refer to this task: a cancelled task would be a
            # cycle, and long runs work with the cycle collector off.
            cancelled = isinstance(error, Cancelled)
            self.error = error.with_traceback(None) if cancelled else error
            if not observers and not cancelled:
                self._kernel.failed(self, error)
        if observers:
            self._observers = ()
            for observer in observers:
                observer(self)

    def watch(self, observer: Callable[[SimTask[T]], None]) -> None:
        """Call `observer` at the moment the task ends; it then answers for the task's failure."""
        self._observers += (observer,)

    def cancel(self) -> None:
        """
        Ask it to stop: `Cancelled` is raised where it waits, at this instant.

        A task that cancels itself meets it at its next wait, as in asyncio.
        """
        if self.ended:
            return
        self.cancels += 1
        self.interrupt()

    def interrupt(self) -> None:
        """Raise `Cancelled` in the task without counting it as a request from outside."""
        if self.ended or self._state > _STARTED:
            return
        if self._kernel.running is self:
            self._kernel.call_at(self._kernel.now, self.interrupt)
            return
        if self.owner is not None:
            self.owner.withdraw(self)
        self._state = _INTERRUPTED if self._state == _STARTED else _CANCELLED_UNSTARTED
        self.arm(self._kernel.now)

    async def join(self) -> T:
        """
        Wait for the end, then return its value or raise its error.

        Cancelling the waiter leaves the task running.
        """
        if not self.ended:
            waiter = self._kernel.current()
            self._observers += (waiter.join_ended,)
            waiter.owner = self
            await SUSPEND
        return self.result()

    def join_ended(self, _joined: SimTask[Any]) -> None:
        """The task that this one waits for has ended."""
        self.arm(self._kernel.now)

    def withdraw(self, task: SimTask[Any]) -> None:
        mine = task.join_ended
        self._observers = tuple(other for other in self._observers if other != mine)

    def result(self) -> T:
        """The value of an ended task; raises its error."""
        assert self.ended, f"task {self.name} still runs"
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[no-any-return]

    def kill(self) -> None:
        """End it here and now, after the run: every further wait of its clean-up is cancelled."""
        kernel = self._kernel
        kernel.running = self
        try:
            if self._state in (_NEW, _CANCELLED_UNSTARTED):
                self._coro.close()
                return
            for _ in range(KILL_ATTEMPTS_MAX):
                self._context.run(self._coro.throw, Cancelled())
        except BaseException:
            return  # ended, one way or the other: the outcome of the run stands already
        finally:
            kernel.running = None
            if not self.ended:
                self._end(None, Cancelled())
