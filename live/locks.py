"""
The locks of steps that span waits: shared or exclusive, strictly first come, first served.

asyncio's own lock is not enough: several steps take one lock in shared mode, and a step that waits
for nothing has to stay out while a spanning one holds the lock. Rules:

- who asks later never overtakes who waits, also not a reader the readers;
- a waiter that is cancelled withdraws; if it was granted the lock in that instant, it gives it on;
- a lock belongs to one event loop and knows neither time nor what it guards.
"""

from __future__ import annotations

import asyncio
from collections import deque


class FairLock:
    """A read-write lock with one line for both kinds."""

    __slots__ = ("_line", "_loop", "_readers", "_writer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers = 0
        self._writer = False
        self._line: deque[tuple[asyncio.Future[None], bool]] = deque()

    @property
    def idle(self) -> bool:
        """Nobody holds it and nobody waits."""
        return not (self._writer or self._readers or self._line)

    def admits(self, *, shared: bool) -> bool:
        """Whether somebody who asks now need not wait."""
        if self._writer or self._line:
            return False
        return shared or not self._readers

    def try_acquire(self, *, shared: bool) -> bool:
        """Take it if that needs no waiting."""
        if not self.admits(shared=shared):
            return False
        self._take(shared)
        return True

    async def acquire(self, *, shared: bool) -> None:
        """Take it, in turn."""
        if self.try_acquire(shared=shared):
            return
        turn = self._loop.create_future()
        place = (turn, shared)
        self._line.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(shared=shared)
            elif place in self._line:
                self._line.remove(place)
                self._admit()
            raise

    def release(self, *, shared: bool) -> None:
        """Give it back; whoever is first in line has it before this returns."""
        if shared:
            assert self._readers > 0
            self._readers -= 1
        else:
            assert self._writer
            self._writer = False
        self._admit()

    def _take(self, shared: bool) -> None:
        if shared:
            self._readers += 1
        else:
            self._writer = True

    def _admit(self) -> None:
        while self._line and not self._writer:
            turn, shared = self._line[0]
            if self._readers and not shared:
                return
            self._line.popleft()
            if not turn.cancelled():
                self._take(shared)
                turn.set_result(None)
