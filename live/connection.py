"""
One socket of a client or a node: its outbox, its pings, and its end.

`Connection` is what the rest of `live` holds of a peer. Sending never waits; closing never waits
either, and happens once: the first reason stands. A peer that neither answers a ping nor sends a
byte within the ping timeout is cut off without a goodbye, so that a hang or a pulled cable is seen
in seconds.

It knows no sessions and no jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from simsched import wire
from simsched.live import refusals
from simsched.live.outbox import TRANSPORT_BYTES, Outbox
from simsched.live.refusals import Refusal
from simsched.live.sinks import Sink

WRITE_LIMIT: Final = TRANSPORT_BYTES // 2
"""The transport is drained to a quarter of this before a waiting frame follows."""

GOODBYE_S: Final = 2.0
"""How long a peer has to answer a close before its connection is cut."""

UNSENDABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding a value may raise that a peer made up: passed on unread, it is not checked."""


class HeardSocket(ServerConnection):
    """A WebSocket that remembers when the last bytes came in, whatever they were."""

    heard_ns = 0

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        self.heard_ns = time.monotonic_ns()
        super().data_received(data)


class SocketWire:
    """The `Wire` over a WebSocket."""

    __slots__ = ("_socket", "_target")

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self._target = (socket,)

    def push(self, frame: bytes) -> None:
        """To the transport, which takes it in any case; nothing happens on a closed socket."""
        broadcast(self._target, frame, text=True)

    async def send(self, frame: bytes) -> None:
        """Push, then wait until the transport's buffer is low again."""
        try:
            await self._socket.send(frame, text=True)
        except ConnectionClosed as error:
            raise ConnectionError("closed") from error

    def buffered(self) -> int:
        """Bytes that the transport has not got rid of."""
        return self._socket.transport.get_write_buffer_size()


class Connection:
    """
    One open socket.

    Args:
        socket: the WebSocket.
        kind: `client` or `node`.
        address: where it comes from.
        client: who is behind it: a token's name, else its address.
        now: the runtime's clock.
        sink: what befalls it goes there.
        bytes_max: most bytes that may wait for it.
        age_ns_max: how long one message may wait.

    Attributes:
        name: the session or node that speaks through it, "" before that is known.
        ended: why it was closed from our side; None while nobody closed it.
        is_gone: set once it is closed and everything about it is settled.

    """

    def __init__(
        self,
        socket: HeardSocket,
        kind: str,
        address: str,
        client: str,
        now: Callable[[], int],
        sink: Sink,
        *,
        bytes_max: int,
        age_ns_max: int,
    ) -> None:
        self.socket = socket
        self.kind = kind
        self.address = address
        self.client = client
        self.name = ""
        self.ended: Refusal | None = None
        self._now = now
        self._sink = sink
        self.is_gone = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._outbox = Outbox(
            SocketWire(socket), now, bytes_max=bytes_max, age_ns_max=age_ns_max,
            on_slow=self._too_slow,
        )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return self.ended is None and self.socket.state is State.OPEN

    @property
    def waiting(self) -> tuple[int, int]:
        """Frames and bytes that wait to be sent."""
        return len(self._outbox), self._outbox.waiting_bytes

    def send(self, message: Any) -> bool:
        """Line a message up; False if it was not taken (closed, too slow, not to be encoded)."""
        if not self.is_open:
            return False
        try:
            frame = wire.encode(message)
        except UNSENDABLE:
            self._sink.count("messages_unsendable", 1)
            return False
        return self._outbox.put(frame, message)

    def opened(self, name: str) -> None:
        """It belongs to this session or node from now on."""
        self.name = name
        self._note("opened", self.client)

    # The end

    def refuse(self, refusal: Refusal, detail: str = "") -> None:
        """Say no: the error message, and then the close if the refusal closes."""
        self._note("refused", refusal.code or refusal.text)
        if refusal.code:
            self.send(refusal.message(detail))
        if refusal.close:
            self.close(refusal)

    def close(self, refusal: Refusal) -> None:
        """Close with its code; the first one stands."""
        if self.ended is not None:
            return
        self.ended = refusal
        goodbye = self._say_goodbye(refusal)
        self._closing = asyncio.get_running_loop().create_task(goodbye, name="goodbye")

    async def _say_goodbye(self, refusal: Refusal) -> None:
        """The closing handshake; a peer that does not answer is cut off."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                if refusal is not refusals.SLOW:
                    await self._outbox.flushed()
                await self.socket.close(refusal.close, refusal.text)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Cut the connection without a word: the peer does not answer any more."""
        self.socket.transport.abort()

    def take_back(self) -> list[Any]:
        """Send nothing more; returns the messages that were never handed to the transport."""
        return self._outbox.close()

    async def gone(self) -> None:
        """The socket is closed: note why, and wait for our own goodbye if we said one."""
        code, reason = self.socket.close_code, self.socket.close_reason or ""
        self._note("closed", f"{code or 1006} {reason}".strip())
        self.ended = self.ended or refusals.NORMAL
        self.take_back()
        if self._closing is not None:
            await asyncio.wait((self._closing,))
        self.is_gone.set()

    def _too_slow(self, which: str) -> None:
        self._sink.count("slow_consumers", 1)
        self._note("slow", which)
        self.close(refusals.SLOW)

    def _note(self, what: str, detail: str) -> None:
        self._sink.connection(self._now(), self.kind, self.name, what, detail)

    # Pings

    async def ping_regularly(self, every_s: float, timeout_s: float) -> None:
        """Ping for as long as the connection lives; a peer that never answers is cut off."""
        while True:
            await asyncio.sleep(every_s)
            if not await self.answers(timeout_s):
                break
        if self.is_open:
            self.ended = refusals.NO_PONG
            self._sink.count("pings_unanswered", 1)
            self._note("hung", "no answer to pings")
            self.abort()

    async def answers(self, timeout_s: float) -> bool:
        """Whether the peer is there: it answers a ping, or sends anything else, in time."""
        asked_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(timeout_s):
                pong = await self.socket.ping()
                await asyncio.shield(pong)
        except ConnectionClosed:
            return False
        except TimeoutError:
            # A long frame on a thin line holds its pong up.
            return self.is_open and self.socket.heard_ns > asked_ns
        return True
