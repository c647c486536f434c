"""
A link that can break: a TCP proxy in front of whatever a fault may cut off.

What a link can do, alone or together:

- `cut`: every connection that stands is closed, at both ends;
- `refuse`: nobody gets through until `heal`; who tries is hung up on;
- `hold`: nothing passes until `heal`, in neither direction, not even a close; connections stay, new
  ones are taken, and what was sent meanwhile arrives then, in its order;
- `slow_down`: everything takes so much longer, each way, until it is set back to 0.

Where a connection leads is asked anew for each one, so that a link can follow a server that moves.
It listens on loopback alone, on a port of its own. Memory is bounded: whose bytes do not get
through is not read any more, as a full network would do it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Upstream = Callable[[], Awaitable[Streams]]
"""Opens a connection to where the link leads now; OSError if nobody is there."""

CHUNK_BYTES: Final = 1 << 16
HELD_BYTES_MAX: Final = 1 << 20
"""Bytes of one direction of one connection that wait here; then its sender has to wait."""

_END: Final = b""
"""In a direction's queue: its sender has closed."""


def tcp(port: int) -> Upstream:
    """A server on this machine's loopback."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def unix(path: str) -> Upstream:
    """A server behind a unix socket."""
    return lambda: asyncio.open_unix_connection(path)


class Proxy:
    """
    One link.

    Args:
        upstream: where connections lead; may be set anew at any time.

    Attributes:
        port: that it listens on, once it has started.
        accepted: connections that were passed on.

    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.port = 0
        self.accepted = 0
        self._listener: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._delay_s = 0.0
        self._pairs: dict[_Pair, None] = {}

    async def start(self) -> None:
        """Begin to listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and cut what stands."""
        if self._listener is not None:
            self._listener.close()
        self.heal()
        self._refusing = True
        pairs = list(self._pairs)
        self.cut()
        for pair in pairs:
            await pair.ended.wait()

    @property
    def connections(self) -> int:
        """How many stand now."""
        return len(self._pairs)

    # What breaks

    def cut(self) -> None:
        """Close every connection that stands; what was under way is lost."""
        for pair in list(self._pairs):
            pair.cut()

    def refuse(self) -> None:
        """Cut, and let nobody through until `heal`."""
        self._refusing = True
        self.cut()

    def hold(self) -> None:
        """Let nothing pass until `heal`."""
        self._passing.clear()

    def heal(self) -> None:
        """Pass on what was held, and let everybody through again."""
        self._refusing = False
        self._passing.set()

    def slow_down(self, delay_s: float) -> None:
        """Take so much longer each way; 0: as fast as it goes."""
        self._delay_s = delay_s

    # Passing on

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair((reader, writer), self._when, self._passing)
        self._pairs[pair] = None
        try:
            if not self._refusing:
                await self._lead_on(pair)
        finally:
            pair.cut()
            del self._pairs[pair]
            pair.ended.set()

    async def _lead_on(self, pair: _Pair) -> None:
        if not await pair.passable(self._passing):
            return
        try:
            far = await self.upstream()
        except OSError:
            return
        if pair.is_cut or self._refusing:
            far[1].transport.abort()
            return
        self.accepted += 1
        await pair.join(far)

    def _when(self) -> float:
        return asyncio.get_running_loop().time() + self._delay_s


class _Pair:
    """One connection: two sockets and the two directions between them."""

    def __init__(self, near: Streams, when: Callable[[], float], passing: asyncio.Event) -> None:
        self._near = near
        self._far: Streams | None = None
        self._when = when
        self._passing = passing
        self._over = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def is_cut(self) -> bool:
        return self._over.is_set()

    def cut(self) -> None:
        """Both ends are closed at once."""
        self._over.set()
        for streams in (self._near, self._far):
            if streams is not None:
                streams[1].transport.abort()

    async def passable(self, passing: asyncio.Event) -> bool:
        """Wait until something may pass; False if the connection was cut first."""
        await self._first(passing.wait())
        return not self.is_cut

    async def join(self, far: Streams) -> None:
        """Pass on until both directions have ended, or the connection is cut."""
        self._far = far
        there = _Direction(self._near[0], far[1], self._when, self._passing)
        back = _Direction(far[0], self._near[1], self._when, self._passing)
        taking = [asyncio.create_task(one.take()) for one in (there, back)]
        try:
            await self._first(_all(there.give(), back.give()))
        finally:
            await _ended(taking)

    async def _first(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Wait for something, or for the cut."""
        tasks = [asyncio.create_task(waiting), asyncio.create_task(self._over.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _ended(tasks)


async def _all(*coroutines: Coroutine[Any, Any, object]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel and wait."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


class _Direction:
    """Bytes from one socket to another, each piece at its time."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        when: Callable[[], float],
        passing: asyncio.Event,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._when = when
        self._passing = passing
        self._queue: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._moved = asyncio.Event()

    async def take(self) -> None:
        """Read until the sender has closed."""
        data = b"more"
        while data:
            while self._bytes >= HELD_BYTES_MAX:
                await self._changed()
            try:
                data = await self._reader.read(CHUNK_BYTES)
            except OSError:  # reset by its end: what came before it is passed on all the same
                data = _END
            self._queue.append((self._when(), data))
            self._bytes += len(data)
            self._moved.set()

    async def give(self) -> None:
        """Pass on until everything has been, the close too."""
        loop = asyncio.get_running_loop()
        data = b"more"
        while data:
            while not self._queue:
                await self._changed()
            due, data = self._queue[0]
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._passing.wait()
            await self._pass(data)
            self._queue.popleft()
            self._bytes -= len(data)
            self._moved.set()

    async def _changed(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _pass(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        with suppress(OSError):  # its reader has gone: its own close comes the other way
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self._writer.can_write_eof():
                self._writer.write_eof()
