"""
Locks as arithmetic: when a customer's turn comes is computed, not played out.

A `TimedLock` is a mutex or read-write lock, first come first served: a reader behind a waiting
writer waits. Its customers stand in one explicit queue in the order of their arrival.

- A LEAF customer knows its hold on entry, so its start and end follow from those before it: it
  costs one event, its end, and none at all if the lock is free and the hold is 0.
- A SPANNING customer has an open end. Those behind that it keeps out have no times until it
  leaves; they are then timed forward, up to the next open one.
- A customer that is cancelled is taken out, wherever it stands, and those behind are timed anew.
  Starts only ever move earlier.

This file does not know instances, steps or where a hold comes from.
"""

from __future__ import annotations

from collections import deque
from heapq import heappush
from typing import TYPE_CHECKING, Any, Final

from simsched.models.tasks import Kernel
from simsched.models.wakes import DONE, NORMAL, SUSPEND, SimTask, Trap

OPEN_NS: Final = 1 << 62
"""A time that never comes: the end of a spanning customer while it holds (146 years)."""


class Customer:
    """
    One passage through a lock, as an async context manager.

    Entering waits for the turn and then for `hold_ns`; a LEAF customer's hold is over when its
    body runs, a spanning one holds on until the body ends. `arrived_ns`, `start_ns` and `end_ns`
    tell how it went.
    """

    __slots__ = (
        "arrived_ns", "end_ns", "hold_ns", "lock", "shared", "spanning", "start_ns", "task",
    )  # fmt: skip

    arrived_ns: int
    start_ns: int
    end_ns: int

    def __init__(
        self, lock: TimedLock, hold_ns: int, shared: bool = False, spanning: bool = False
    ) -> None:
        self.lock = lock
        self.hold_ns = hold_ns
        self.shared = shared
        self.spanning = spanning
        self.task: SimTask[Any] | None = None

    @property
    def name(self) -> str:
        """Of the lock, for the message about a deadlock."""
        return f"lock {self.lock.name}"

    def withdraw(self, _task: SimTask[Any]) -> None:
        """The customer's task is cancelled while it waits or holds."""
        self.lock.leave_early(self)

    if TYPE_CHECKING:

        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *exc: object) -> None: ...

    else:

        def __aenter__(self) -> Trap:
            return self.lock.enter(self)

        def __aexit__(self, *exc: object) -> Trap:
            if self.task is not None:
                self.lock.leave(self)
            return DONE


class TimedLock:
    """A first-come-first-served mutex and read-write lock in modelled time."""

    __slots__ = ("_free_ns", "_kernel", "_queue", "_written_ns", "name")

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.name = name
        self._kernel = kernel
        self._queue: deque[Customer] = deque()
        self._free_ns = 0  # when all that stand in the queue will have left
        self._written_ns = 0  # when the last exclusive one among them will have left

    def __len__(self) -> int:
        """How many hold the lock or wait for it."""
        return len(self._queue)

    def customer(self, hold_ns: int, *, shared: bool = False, spanning: bool = False) -> Customer:
        """`async with lock.customer(...)`: one passage."""
        return Customer(self, hold_ns, shared, spanning)

    def enter(self, customer: Customer) -> Trap:
        """Queue up; to be awaited at once. Afterwards `leave` is due, unless the task is None."""
        now = self._kernel.now
        queue = self._queue
        hold = customer.hold_ns
        customer.arrived_ns = start = now
        if queue:
            free = self._written_ns if customer.shared else self._free_ns
            if free > now:
                start = free
        elif not customer.spanning and (not hold or self._kernel.skip_to(now + hold)):
            # Nobody can meet this customer here: it has left before anybody else runs.
            customer.start_ns = now
            customer.end_ns = now + hold
            return DONE
        else:
            self._free_ns = self._written_ns = now
        customer.start_ns = start
        customer.task = task = self._kernel.running
        customer.end_ns = end = start + hold if not customer.spanning else OPEN_NS
        if end > OPEN_NS:
            customer.end_ns = end = OPEN_NS
        queue.append(customer)
        if end > self._free_ns:
            self._free_ns = end
        if not customer.shared:
            self._written_ns = end
        if start < OPEN_NS:
            kernel = self._kernel
            if customer.spanning and start == now and (not hold or kernel.skip_to(now + hold)):
                return DONE
            task.serial = serial = kernel.next_serial()  # type: ignore[union-attr]
            heappush(kernel.queue, (start + hold, NORMAL, serial, task))
        task.owner = customer  # type: ignore[union-attr]
        return SUSPEND

    def leave(self, customer: Customer) -> None:
        """A customer whose time is over leaves; a spanning one lets in those behind it."""
        queue = self._queue
        if queue[0] is customer:
            queue.popleft()
        else:
            queue.remove(customer)
        if customer.spanning:
            customer.end_ns = self._kernel.now
            self._retime()

    def leave_early(self, customer: Customer) -> None:
        """A cancelled customer leaves, from wherever it stands."""
        self._queue.remove(customer)
        customer.end_ns = self._kernel.now
        self._retime()

    def _retime(self) -> None:
        """Time those who have not started yet anew, up to the next open one."""
        now = self._kernel.now
        free = written = now
        for customer in self._queue:
            if customer.start_ns > now:
                start = written if customer.shared else free
                if start < customer.start_ns:
                    self._bring_forward(customer, start)
            end = customer.end_ns
            if end > free:
                free = end
            if not customer.shared:
                written = end
            if written >= OPEN_NS:
                break
        self._free_ns, self._written_ns = free, written

    def _bring_forward(self, customer: Customer, start_ns: int) -> None:
        customer.start_ns = start_ns
        customer.end_ns = OPEN_NS if customer.spanning else start_ns + customer.hold_ns
        task = customer.task
        assert task is not None, "a customer in the queue has a task"
        task.arm(start_ns + customer.hold_ns)
        task.owner = customer
