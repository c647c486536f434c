"""
One physical connection to a Redis server: RESP over a socket, pipelined by itself.

Rules:

- calls made in one tick of the loop leave in one write; an idle wire writes at once;
- replies belong to calls in the order in which they were written, whatever became of the callers:
  a cancelled or expired call keeps its place, and its late reply is discarded there;
- all calls have the same limit, so deadlines are in order too and one timer serves them all;
- a lost wire fails every call under way at once: nobody knows whether they were done;
- a wire that was silent for twice the limit while something was asked of it is given up.

It does not reconnect, retry or know what a command means.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, cast

import hiredis

from simsched.errors import SimschedError
from simsched.ports import Reply

SILENCE_LIMITS: Final = 2
"""So many limits without a byte, with calls under way, are a half-open connection."""

_NOTHING_YET: Final = object()

Word = str | bytes | int | float


_packed = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)


class RedisFailure(SimschedError):
    """A call had no good end; `unknown` says that it may have been done all the same."""

    unknown = False


class NotConnected(RedisFailure):
    """There is no connection: nothing was sent."""


class TooManyInFlight(RedisFailure):
    """As many calls are under way as may be: nothing was sent."""


class ConnectionLost(RedisFailure):
    """The connection ended while the call was under way."""

    unknown = True


class CallTimeout(RedisFailure, TimeoutError):
    """No reply within the limit."""

    unknown = True


class ReplyError(RedisFailure):
    """The server refused; `code` is the first word of what it said."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Call:
    """
    Commands under way, one or several that were sent together; await it for the reply or replies.

    Attributes:
        asked_ns, written_ns, ended_ns: host's monotonic clock: made, handed to the socket, over.

    """

    __slots__ = ("asked_ns", "due_ns", "ended_ns", "expects", "future", "replies", "written_ns")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now_ns: int, due_ns: int, expects: int
    ) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self.asked_ns = self.written_ns = self.ended_ns = now_ns
        self.due_ns = due_ns
        self.expects = expects
        self.replies: list[Reply | ReplyError] | None = None if expects == 1 else []

    def __await__(self) -> Generator[Any, None, Any]:
        return self.future.__await__()

    def take(self, reply: Reply | ReplyError) -> bool:
        """One reply came; True if it was the last one."""
        if self.replies is not None:
            self.replies.append(reply)
            if len(self.replies) < self.expects:
                return False
            self._end(self.replies)
        elif isinstance(reply, ReplyError):
            self.fail(reply)
        else:
            self._end(reply)
        return True

    def _end(self, value: object) -> None:
        if not self.future.done():
            self.ended_ns = time.monotonic_ns()
            self.future.set_result(value)

    def fail(self, error: RedisFailure) -> None:
        """It ends with an error, unless it has ended."""
        if not self.future.done():
            self.ended_ns = time.monotonic_ns()
            self.future.set_exception(error)
            self.future.exception()  # a call that nobody awaits fails without a log line


class Wire(asyncio.Protocol):
    """
    The protocol of one connection.

    Args:
        loop: the event loop.
        limit_ns: how long a call may take.
        in_flight_max: how many commands may be under way.
        on_lost: called once, when the connection has ended.
        on_moved: called when the server says that another one serves what was asked of it.
        resp3: whether replies may be in RESP3's terms.

    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_ns: int,
        in_flight_max: int,
        on_lost: Callable[[Wire], None],
        *,
        on_moved: Callable[[Wire, ReplyError], None] | None = None,
        resp3: bool = False,
    ) -> None:
        self._loop = loop
        self._limit_ns = limit_ns
        self._in_flight_max = in_flight_max
        self._on_lost = on_lost
        self._on_moved = on_moved
        self._reader = hiredis.Reader(
            protocolError=ProtocolBroken, replyError=self._refused, notEnoughData=_NOTHING_YET
        )
        self._resp3 = resp3
        self._transport: asyncio.Transport | None = None
        self._calls: deque[Call] = deque()
        self._batch: list[bytes] = []
        self._unwritten: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._heard_ns = time.monotonic_ns()
        self.in_flight = 0
        self.is_lost = False
        self.ended = loop.create_future()

    # What a caller does

    def send(self, words: tuple[Word, ...]) -> Call:
        """
        Put one command on the wire.

        Raises:
            NotConnected: the wire is lost.
            TooManyInFlight: the bound is reached.

        """
        return self._put(_packed(words), 1)

    def send_all(self, commands: Sequence[Sequence[Word]]) -> Call:
        """Put several commands on the wire as one call; refused commands are among its replies."""
        packed = b"".join(_packed(tuple(words)) for words in commands)
        return self._put(packed, len(commands))

    def _put(self, data: bytes, expects: int) -> Call:
        if self.is_lost:
            raise NotConnected("no connection to the store")
        if self.in_flight + expects > self._in_flight_max:
            raise TooManyInFlight(f"{self.in_flight} calls to the store are under way")
        now_ns = time.monotonic_ns()
        call = Call(self._loop, now_ns, now_ns + self._limit_ns, expects)
        if not self._calls:
            self._heard_ns = now_ns  # it owes us something from now on
        self._calls.append(call)
        self.in_flight += expects
        if self._transport is not None and self.in_flight == expects and not self._paused:
            self._transport.write(data)  # nothing to batch it with
        else:
            if not self._batch:
                self._loop.call_soon(self._flush)
            self._batch.append(data)
            self._unwritten.append(call)
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_ns / 1e9, self._look)
        return call

    def abort(self) -> None:
        """Give the connection up."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._lose()

    # What the event loop does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        """The socket is gone."""
        self._lose()

    def pause_writing(self) -> None:
        """The socket takes no more; calls gather here, bounded by the number under way."""
        self._paused = True

    def resume_writing(self) -> None:
        """It takes more."""
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Bytes came: hand every complete reply to its call."""
        self._heard_ns = time.monotonic_ns()
        reader = self._reader
        reader.feed(data)
        try:
            while True:
                reply: Any = reader.gets()
                if reply is _NOTHING_YET:
                    return
                if not isinstance(reply, hiredis.PushNotification):
                    self._hand_over(reply)
        except ProtocolBroken:
            self.abort()

    def _hand_over(self, reply: Any) -> None:
        if not self._calls:
            raise ProtocolBroken("a reply that nobody asked for")
        if self._resp3:
            reply = _plain(reply)
        self.in_flight -= 1
        if self._calls[0].take(reply):
            del self._calls[0]

    def _refused(self, text: object) -> ReplyError:
        error = _reply_error(text)
        if error.code == "MOVED" and self._on_moved is not None:
            self._on_moved(self, error)
        return error

    def _flush(self) -> None:
        if self._paused or self._transport is None or not self._batch:
            return
        now_ns = time.monotonic_ns()
        for call in self._unwritten:
            call.written_ns = now_ns
        batch, self._batch, self._unwritten = self._batch, [], []
        self._transport.write(b"".join(batch) if len(batch) > 1 else batch[0])

    def _look(self) -> None:
        """Time is up for the oldest call, unless it has ended meanwhile."""
        self._timer = None
        now_ns = time.monotonic_ns()
        waiting = None
        for call in self._calls:
            if call.due_ns > now_ns:
                waiting = call
                break
            call.fail(CallTimeout(f"the store did not answer within {self._limit_ns // 10**6} ms"))
        if not self._calls:
            return
        silent_at_ns = self._heard_ns + SILENCE_LIMITS * self._limit_ns
        if now_ns >= silent_at_ns:
            self.abort()
            return
        next_ns = silent_at_ns if waiting is None else min(waiting.due_ns, silent_at_ns)
        self._timer = self._loop.call_later(max(1e-3, (next_ns - now_ns) / 1e9), self._look)

    def _lose(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        calls, self._calls = self._calls, deque()
        self._batch, self._unwritten, self.in_flight = [], [], 0
        for call in calls:
            call.fail(ConnectionLost("the connection to the store was lost"))
        if not self.ended.done():
            self.ended.set_result(None)
        self._on_lost(self)


class ProtocolBroken(Exception):
    """The server does not speak RESP, or out of turn."""


def _reply_error(text: object) -> ReplyError:
    return ReplyError(text.decode(errors="replace") if isinstance(text, bytes) else str(text))


def _plain(value: Any) -> Reply:
    """A reply in RESP2's terms, as `ports.Reply` has them: RESP3's maps and numbers taken apart."""
    if isinstance(value, dict):
        return [_plain(part) for pair in value.items() for part in pair]
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return b"%d" % value if value.is_integer() else repr(value).encode()
    if isinstance(value, str):
        return value.encode()
    return value  # type: ignore[no-any-return]
