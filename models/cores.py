"""
The CPU of an instance: c cores, one queue, first come first served.

Work on a core is LEAF work: it knows its service time on entry and waits for nothing inside, so
that its start and end follow from those before it and one event serves it. Cancelled work is
taken out, and what waits behind it is timed anew.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Any

from simsched.models.tasks import Kernel
from simsched.models.wakes import DONE, SUSPEND, SimTask, Trap


class Work:
    """One piece of work on a core, as an async context manager: the body runs at its end."""

    __slots__ = ("arrived_ns", "cores", "end_ns", "hold_ns", "start_ns", "task")

    arrived_ns: int
    start_ns: int
    end_ns: int

    def __init__(self, cores: Cores, hold_ns: int) -> None:
        self.cores = cores
        self.hold_ns = hold_ns
        self.task: SimTask[Any] | None = None

    @property
    def name(self) -> str:
        """For the message about a deadlock."""
        return "a core"

    def withdraw(self, _task: SimTask[Any]) -> None:
        """The task of this work is cancelled."""
        self.cores.leave_early(self)

    if TYPE_CHECKING:

        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *exc: object) -> None: ...

    else:

        def __aenter__(self) -> Trap:
            return self.cores.enter(self)

        def __aexit__(self, *exc: object) -> Trap:
            if self.task is not None:
                self.cores.leave(self)
            return DONE


class Cores:
    """`count` cores that share one queue."""

    __slots__ = ("_free", "_kernel", "_queue", "count")

    def __init__(self, kernel: Kernel, count: int) -> None:
        if count < 1:
            raise ValueError(f"an instance needs at least one core, not {count}")
        self.count = count
        self._kernel = kernel
        self._queue: deque[Work] = deque()
        self._free = [0] * count  # a heap: when each core has done all that is given to it

    def __len__(self) -> int:
        """How much work is in service or waiting."""
        return len(self._queue)

    def work(self, hold_ns: int) -> Work:
        """`async with cores.work(...)`: one piece of work."""
        return Work(self, hold_ns)

    def enter(self, work: Work) -> Trap:
        """Queue up; to be awaited at once. Afterwards `leave` is due, unless the task is None."""
        now = self._kernel.now
        hold = work.hold_ns
        work.arrived_ns = start = now
        queue = self._queue
        if not hold and len(queue) < self.count:
            work.start_ns = work.end_ns = now
            return DONE
        if self._free[0] > now:
            start = self._free[0]
        work.start_ns = start
        work.end_ns = end = start + hold
        heapreplace(self._free, end)
        if self._kernel.skip_to(end):
            return DONE
        queue.append(work)
        work.task = task = self._kernel.running
        task.arm(end)  # type: ignore[union-attr]
        task.owner = work  # type: ignore[union-attr]
        return SUSPEND

    def leave(self, work: Work) -> None:
        """Work that is done leaves."""
        if self._queue[0] is work:
            self._queue.popleft()
        else:
            self._queue.remove(work)

    def leave_early(self, work: Work) -> None:
        """Cancelled work leaves its core, or the queue; what waits is timed anew."""
        now = self._kernel.now
        self._queue.remove(work)
        work.end_ns = now
        ends = [other.end_ns for other in self._queue if other.start_ns <= now < other.end_ns]
        self._free = free = ends + [now] * (self.count - len(ends))
        heapify(free)
        for other in self._queue:
            if other.start_ns > now:
                if free[0] < other.start_ns:
                    self._bring_forward(other, free[0])
                heapreplace(free, other.end_ns)

    def _bring_forward(self, work: Work, start_ns: int) -> None:
        work.start_ns = start_ns
        work.end_ns = end = start_ns + work.hold_ns
        task = work.task
        assert task is not None, "work in the queue has a task"
        task.arm(end)
        task.owner = work
