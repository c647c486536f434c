"""
Tasks in modelled time: a SimPy environment and the loop that runs coroutines in it.

A task is not a SimPy process: it is itself what lies in SimPy's heap, in SimPy's own tuple layout
(time, priority, serial, event), and is resumed by one call when its entry comes up. Ordinary
SimPy events and processes live in the same environment and can be waited for.

Rules:

- time is a whole number of nanoseconds; ties go by serial number, first come first served, or
  shuffled on purpose;
- a wait is not queued if nothing else is due before or at its end: the clock moves on;
- errors come out of a run as the objects that were raised;
- the run ends with its main task, not with an empty queue; what is left over is ended then.

This file does not know locks, costs, instances or the core.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final, Literal, TypeVar, cast

import simpy

from simsched.chance import mix
from simsched.errors import Deadlock
from simsched.models.waits import SimMailbox, SimScope, SimTimer, within
from simsched.models.wakes import NORMAL, SUSPEND, Call, Cancelled, Group, SimTask, Wake

__all__ = [
    "Call", "Cancelled", "Group", "Kernel", "SimMailbox", "SimScope", "SimTask", "SimTimer",
    "Ties", "within",
]  # fmt: skip

T = TypeVar("T")

Ties = Literal["fifo", "shuffle"]
"""How simultaneous events are ordered; `shuffle` brings hidden reliance on the order to light."""

FOREVER_NS: Final = 1 << 62
NEVER_NS: Final = -1
"""How far a run goes that ends with its main task, and how far the clock goes outside of a run."""

STALE_MIN: Final = 4096
"""Below this many stale entries the heap is not worth cleaning."""


class Kernel:
    """
    A SimPy environment, the tasks in it, and the loop that runs them.

    Args:
        ties: `fifo` runs simultaneous events in the order of their making; `shuffle` permutes
            them by a keyed hash of their number (urgent ones still go first).
        seed: of that permutation.

    """

    def __init__(self, *, ties: Ties = "fifo", seed: int = 0) -> None:
        self.env = simpy.Environment(0)
        self.now = 0
        """Nanoseconds since the start of the run."""
        serials: Iterator[int] = count()
        if ties == "shuffle":
            serials = (mix(seed, number) for number in count())
        self.env._eid = serials  # type: ignore[assignment]  # SimPy's own events draw from it too
        self.next_serial: Final = serials.__next__
        self.queue: Final = cast("list[tuple[int, int, int, Any]]", self.env._queue)
        self.running: SimTask[Any] | None = None
        self.root: Final = Group(self, "root")
        self._live: dict[int, SimTask[Any]] = {}
        self.forget: Final = self._live.__delitem__
        self._until_ns = NEVER_NS
        self._stale = 0
        self._failure: BaseException | None = None
        self.lets_others_go: Callable[[str], bool] | None = None
        """Asked by name of a task that is due with others: whether it goes behind them."""

    def current(self) -> SimTask[Any]:
        """The task that runs at this moment."""
        assert self.running is not None, "no task is running"
        return self.running

    def push(self, wake: Wake, at_ns: int) -> None:
        """Let `wake` fire at `at_ns` and at no other time."""
        wake.serial = serial = self.next_serial()
        heappush(self.queue, (at_ns, NORMAL, serial, wake))

    def call_at(self, at_ns: int, callback: Callable[[], None], group: Group | None = None) -> Call:
        """Call `callback` at `at_ns` (now, if that has passed)."""
        call = Call(self, group or self.root, callback)
        call.serial = serial = self.next_serial()
        now = self.now
        heappush(self.queue, (at_ns if at_ns > now else now, NORMAL, serial, call))
        return call

    def start(
        self, coro: Coroutine[Any, Any, T], name: str, group: Group | None = None
    ) -> SimTask[T]:
        """Start a task; its body begins at this instant, after what is already due."""
        number = self.next_serial()
        task = SimTask(self, group or self.root, coro, name, number)
        self._live[number] = task
        heappush(self.queue, (self.now, NORMAL, number, task))
        return task

    def skip_to(self, at_ns: int) -> bool:
        """
        Move the clock, if nothing at all is due until then and at that instant.

        For a task that would wait until `at_ns`: it would be the next to run, so it may as well
        go on. False: it has to wait like everybody.
        """
        queue = self.queue
        if (queue and queue[0][0] <= at_ns) or at_ns > self._until_ns:
            return False
        if self.running.group.held is not None:  # type: ignore[union-attr]  # a task asks this
            return False
        self.next_serial()  # the number that its wait would have had, so that others keep theirs
        self.env._now = self.now = at_ns
        return True

    async def sleep(self, delay_ns: int) -> None:
        """Wait; a delay of 0 or less lets others go first."""
        at_ns = self.now + delay_ns if delay_ns > 0 else self.now
        if self.skip_to(at_ns):
            return
        task = self.running
        task.owner = None  # type: ignore[union-attr]  # only a running task can await this
        task.serial = serial = self.next_serial()  # type: ignore[union-attr]
        heappush(self.queue, (at_ns, NORMAL, serial, task))
        await SUSPEND

    async def wait(self, event: simpy.Event) -> Any:
        """
        Wait for an event of SimPy's own: a timeout, a process, a request.

        Returns:
            The event's value.

        Raises:
            Exception: what the event failed with, the very object.

        """
        if event.callbacks is not None:
            task = self.current()
            waiting = _EventWait(task, event)
            event.callbacks.append(waiting)
            task.owner = waiting
            await SUSPEND
        if not event.ok:
            event.defused = True
            raise cast(BaseException, event.value)
        return event.value

    def failed(self, task: SimTask[Any], error: BaseException) -> None:
        """A task failed and nobody watches it: the run ends with its error."""
        if self._failure is None:
            error.add_note(f"in task {task.name} at t={self.now} ns")
            self._failure = error

    def note_stale(self) -> None:
        """One more entry of the heap stands for nothing; cleans the heap when most do."""
        self._stale += 1
        if self._stale > STALE_MIN and 2 * self._stale > len(self.queue):
            self.queue[:] = [
                entry
                for entry in self.queue
                if not isinstance(entry[3], Wake) or entry[3].serial == entry[2]
            ]
            heapify(self.queue)
            self._stale = 0

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """
        Run until `main` ends, whatever else is still scheduled, then end what is left over.

        Raises:
            Deadlock: nothing is scheduled any more, yet `main` waits; names who waits on what.
            BaseException: what `main`, or a task that nobody watches, failed with; errors that
                are no `Exception` (KeyboardInterrupt, a test's control flow) come out at once.

        """
        task = self.start(main, "main")
        task.watch(lambda _: None)
        try:
            if self.lets_others_go is not None:
                self._loop_out_of_turn(task)
            self._loop(task)
            if self._failure is not None:
                raise self._failure
            return task.result()
        finally:
            self.close()

    def _loop(self, main: SimTask[Any]) -> None:
        # `_deliver`, inlined: this loop is the price of every event of a run.
        env, queue = self.env, self.queue
        self._until_ns = FOREVER_NS
        while not main.ended and self._failure is None:
            try:
                at_ns, _, serial, event = heappop(queue)
            except IndexError:
                raise Deadlock(self._who_waits()) from None
            if event.callbacks is not None:
                env._now = self.now = at_ns
                _process(event)
            elif event.serial == serial:
                env._now = self.now = at_ns
                held = event.group.held
                if held is None:
                    event.fire()
                else:
                    held.append((event, serial))

    def _loop_out_of_turn(self, main: SimTask[Any]) -> None:
        """
        `_loop`, but a task may have to go behind what else is due at the same instant.

        Only tasks: what travels on a link must not overtake what was sent before it. Until nobody
        is asked any more.
        """
        queue = self.queue
        self._until_ns = FOREVER_NS
        while not main.ended and self._failure is None:
            goes_behind = self.lets_others_go
            if goes_behind is None:
                return
            try:
                at_ns, _, serial, event = heappop(queue)
            except IndexError:
                raise Deadlock(self._who_waits()) from None
            if (
                queue
                and queue[0][0] == at_ns
                and isinstance(event, SimTask)
                and event.serial == serial
                and goes_behind(event.name)
            ):
                event.serial = serial = self.next_serial()
                heappush(queue, (at_ns, NORMAL, serial, event))
                continue
            self._deliver(at_ns, serial, event)

    def _deliver(self, at_ns: int, serial: int, event: Any) -> None:
        """What the loop does with one entry."""
        if event.callbacks is not None:
            self.env._now = self.now = at_ns
            _process(event)
        elif event.serial == serial:
            self.env._now = self.now = at_ns
            if event.group.held is None:
                event.fire()
            else:
                event.group.held.append((event, serial))

    def run_until(self, until_ns: int) -> None:
        """Run everything that is due up to and including `until_ns`; leaves the clock there."""
        env, queue = self.env, self.queue
        self._until_ns = until_ns
        while queue and queue[0][0] <= until_ns and self._failure is None:
            at_ns, _, serial, event = heappop(queue)
            self._deliver(at_ns, serial, event)
        self._until_ns = NEVER_NS
        if self._failure is not None:
            raise self._failure
        env._now = self.now = max(self.now, until_ns)

    def close(self) -> None:
        """End the tasks that are left over, abandoned ones last; nothing runs afterwards."""
        self._until_ns = NEVER_NS
        for abandoned in (False, True):
            # The youngest first: a scope's tasks are younger than the one that waits for them.
            for task in reversed(list(self._live.values())):
                if task.group.abandoned is abandoned:
                    task.kill()
        for task in list(self._live.values()):
            task.kill()  # started by the clean-up of others
        self._live.clear()
        self.queue.clear()

    def _who_waits(self) -> str:
        waits = [
            f"{task.name} on {task.owner.name if task.owner is not None else 'a frozen group'}"
            for task in self._live.values()
            if not task.group.abandoned
        ]
        return f"t={self.now} ns, nothing is scheduled and still waiting: {', '.join(waits)}"


class _EventWait:
    """A task that waits for an event of SimPy's own."""

    __slots__ = ("_event", "_task")

    def __init__(self, task: SimTask[Any], event: simpy.Event) -> None:
        self._task = task
        self._event = event

    @property
    def name(self) -> str:
        return repr(self._event)

    def __call__(self, event: simpy.Event) -> None:
        if not event.ok:
            event.defused = True
        self._task.arm(self._task._kernel.now)

    def withdraw(self, _task: SimTask[Any]) -> None:
        if self._event.callbacks is not None:
            self._event.callbacks.remove(self)


def _process(event: simpy.Event) -> None:
    """What SimPy's own loop does with an event, but its error comes out as it is."""
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
    for callback in callbacks:
        callback(event)
    if not event.ok and not event.defused:
        raise cast(BaseException, event.value)
