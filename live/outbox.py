"""
What waits to be sent on one connection: bounded by bytes and by age, and in order.

Rules:

- `put` never waits. While the peer reads, a message goes to the transport at once; once the
  transport holds more than `TRANSPORT_BYTES`, later ones line up here and a writer task follows;
- in order, always: nothing overtakes. So a session's results keep the order of the core;
- a peer that lets more than `bytes_max` wait, or one message longer than `age_ns_max`, is a slow
  consumer: `on_slow` is called once, and nothing more is taken in. Others notice nothing;
- what the transport did not get rid of, as far as we know, is given back by `close`, so that
  nothing is lost unseen.

Bytes that the operating system took are sent, as far as can be known here: a peer that dies with
them unread is found out by its pings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from simsched.units import SECOND

TRANSPORT_BYTES: Final = 64 * 1024
"""Bytes in the transport's own buffer from which on messages wait here."""


class Wire(Protocol):
    """The sending side of a socket."""

    def push(self, frame: bytes) -> None:
        """Hand a frame to the transport, which takes it in any case."""

    async def send(self, frame: bytes) -> None:
        """
        Push a frame, then wait until the transport's buffer is low again.

        Raises:
            ConnectionError: the connection is gone.

        """

    def buffered(self) -> int:
        """Bytes that the transport has taken and not yet got rid of."""
        ...


class Outbox:
    """
    The bounded queue in front of one wire.

    Args:
        wire: where frames go.
        now: the clock, in nanoseconds.
        bytes_max: most bytes that may wait, the transport's included.
        age_ns_max: longest wait of a message.
        on_slow: called once, when either is passed; says which.

    """

    __slots__ = (
        "_age_ns_max", "_bytes_max", "_closed", "_now", "_on_slow", "_slow", "_stuck_ns", "_timer",
        "_waiting", "_waiting_bytes", "_wire", "_writer", "sent",
    )  # fmt: skip

    def __init__(
        self,
        wire: Wire,
        now: Callable[[], int],
        *,
        bytes_max: int,
        age_ns_max: int,
        on_slow: Callable[[str], None],
    ) -> None:
        self._wire = wire
        self._now = now
        self._bytes_max = bytes_max
        self._age_ns_max = age_ns_max
        self._on_slow = on_slow
        self._waiting: deque[tuple[int, bytes, object]] = deque()
        self._waiting_bytes = 0
        self._stuck_ns = 0
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._slow = False
        self._closed = False
        self.sent = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait here, without the transport's."""
        return self._waiting_bytes

    def put(self, frame: bytes, message: object = None) -> bool:
        """
        Line a frame up, or send it at once; False if it was not taken: closed, or too slow.

        `message` is what `close` gives back for a frame that was never handed over.
        """
        if self._closed or self._slow:
            return False
        buffered = self._wire.buffered()
        if self._writer is None and buffered <= TRANSPORT_BYTES:
            self._wire.push(frame)
            self.sent += 1
            if self._wire.buffered() > TRANSPORT_BYTES:
                self._stuck_ns = self._now()
                self._watch(self._age_ns_max)
            return True
        if buffered + self._waiting_bytes + len(frame) > self._bytes_max:
            self._too_slow("bytes")
            return False
        self._waiting.append((self._now(), frame, message))
        self._waiting_bytes += len(frame)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="outbox")
            self._watch(self._age_ns_max)
        return True

    def close(self) -> list[object]:
        """Take nothing more; returns the messages that are known not to have left."""
        self._closed = True
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None
        self._stop_timer()
        left = [message for _, _, message in self._waiting]
        self._waiting.clear()
        self._waiting_bytes = 0
        return left

    async def flushed(self) -> None:
        """Wait until nothing waits here; bound the wait yourself."""
        if self._writer is not None:
            await asyncio.wait((self._writer,))

    async def _write(self) -> None:
        try:
            while self._waiting:
                entry = self._waiting.popleft()
                self._waiting_bytes -= len(entry[1])
                try:
                    await self._wire.send(entry[1])
                except ConnectionError:
                    # The transport had not got rid of it when the connection broke.
                    self._waiting.appendleft(entry)
                    raise
                self.sent += 1
                self._stuck_ns = self._now()
        except ConnectionError:
            self._closed = True  # what waits stays for `close` to give back
        self._writer = None

    def _watch(self, delay_ns: int) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0, delay_ns) / SECOND, self._look_at_age)

    def _look_at_age(self) -> None:
        """Whether the oldest has waited too long: in the transport, or here."""
        self._timer = None
        if self._closed or (not self._waiting and self._wire.buffered() <= TRANSPORT_BYTES):
            return
        oldest_ns = min(self._stuck_ns, self._waiting[0][0]) if self._waiting else self._stuck_ns
        left_ns = oldest_ns + self._age_ns_max - self._now()
        if left_ns > 0:
            self._watch(left_ns)
        else:
            self._too_slow("age")

    def _too_slow(self, which: str) -> None:
        if not self._slow:
            self._slow = True
            self._stop_timer()
            self._on_slow(which)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
