"""
What instances say to each other: an inbox per instance, and announcements to all, as streams.

An inbox is a stream with one reader. Its entries are deleted once they are handled, so what is in
it is what nobody has handled: the cursor of a restarted instance is the beginning, kept by the
store itself. Rules:

- at least once: an entry is handled, then deleted; handlers are idempotent. An instance that
  comes back under its name within `ttl_s` goes on where it was;
- the stream expires `ttl_s` after its instance has renewed it last, and appending never makes
  one, so "no such instance" and "appended" are told apart atomically, in one round trip. It
  outlives its instance long enough for others to read what is for sessions that moved to them;
- bounded: the oldest entries of a full inbox are dropped;
- an entry that cannot be decoded, or whose handling fails, is counted and deleted;
- announcements go to one stream that everybody reads from shortly before its own start; losing
  one is harmless, and one's own are skipped.

Events travel as MessagePack. The reader blocks, so it has a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

import msgspec

from simsched.errors import StoreUnavailable
from simsched.inbox import (
    DispatchToNode,
    ForwardResult,
    InboxEvent,
    NodeSeen,
    SendToSession,
    SessionMoved,
)
from simsched.live.redis_connection import RedisConnection, RedisFailure
from simsched.live.redis_wire import Word
from simsched.live.sinks import Sink
from simsched.live.store import RedisStore
from simsched.ports import Reply
from simsched.presence import session_of
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import MS, SECOND

ENTRIES_MAX: Final = 10_000
"""About that many entries may wait in one inbox."""

ANNOUNCEMENTS_MAX: Final = 5_000
BACKLOG_NS: Final = 15 * SECOND
"""How far back a new instance reads announcements: every node is heard of once per heartbeat."""

READ_COUNT: Final = 200
"""Entries per read: what is handled before the loop may do something else."""

BLOCK_MS: Final = 1_000
TTL_S: Final = 120.0
"""How long the inbox of an instance that renews nothing is kept."""

_RETRY_S: Final = 0.1

_KINDS: Final[dict[bytes, type]] = {
    b"dispatch": DispatchToNode,
    b"result": ForwardResult,
    b"client": SendToSession,
    b"moved": SessionMoved,
    b"node": NodeSeen,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_HELLO: Final = b"hello"
"""The entry that makes a stream; it says nothing."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decoders: Final[dict[bytes, msgspec.msgpack.Decoder[Any]]] = {
    name: msgspec.msgpack.Decoder(kind) for name, kind in _KINDS.items()
}


def encode_event(event: object) -> tuple[bytes, bytes]:
    """The kind and the body of an event."""
    return _NAMES[type(event)], _encode(event)


def decode_event(kind: bytes, body: bytes) -> InboxEvent:
    """
    The event of a kind and a body.

    Raises:
        msgspec.DecodeError, KeyError: it is none.

    """
    return cast("InboxEvent", _decoders[kind].decode(body))


class Inbox:
    """
    One instance's letters, both ways.

    Args:
        store: its connection carries what is sent.
        reader: a connection of our own for blocking reads; its limit must exceed `block_ms`.
        instance_id: whose inbox it is.
        deliver: what an event is handed to; `Scheduler.from_instance`.
        sink: where is counted what was dropped.
        cell: the cell's name, part of all keys.

    Attributes:
        tasks: what runs for as long as we are there; whoever started us watches over them.

    """

    def __init__(
        self,
        store: RedisStore,
        reader: RedisConnection,
        instance_id: str,
        deliver: Callable[[InboxEvent], None],
        sink: Sink,
        *,
        cell: str = "cell",
        ttl_s: float = TTL_S,
        block_ms: int = BLOCK_MS,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        assert reader.timeout_s * 1_000 > block_ms, "a blocking read must end before its limit"
        self._store = store
        self._reader = reader
        self._instance = instance_id.encode()
        self._deliver = deliver
        self._sink = sink
        self._cell = cell
        self._ttl_s = ttl_s
        self._block_ms = block_ms
        self._entries_max = entries_max
        self._stream = self._inbox_of(instance_id)
        self._board = "{" + cell + "}:announcements"
        self._board_cursor = b"0-0"
        self.tasks: list[asyncio.Task[None]] = []

    def _inbox_of(self, instance_id: str) -> str:
        return "{" + self._cell + "}:inbox:" + instance_id

    # Sending

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        """
        Append an event to another instance's inbox; False if there is no such instance now.

        Raises:
            StoreUnavailable: it is not known whether it was appended.

        """
        kind, body = encode_event(event)
        reply = await self._store.command(
            step, op, "XADD", self._inbox_of(instance_id), "NOMKSTREAM", "MAXLEN", "~",
            self._entries_max, "*", "kind", kind, "body", body,
        )  # fmt: skip
        return reply is not None

    def broadcast(self, event: object) -> None:
        """Tell every other instance; it may get lost."""
        kind, body = encode_event(event)
        try:
            _ = self._store.connection.send(
                "XADD", self._board, "MAXLEN", "~", ANNOUNCEMENTS_MAX, "*",
                "kind", kind, "body", body, "from", self._instance,
            )  # fmt: skip
        except RedisFailure:
            self._sink.count("announcements_lost", 1)

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[InboxEvent]:
        """
        Take what is for these sessions out of the inbox of an instance that is gone.

        Raises:
            StoreUnavailable: the store is away; what was not taken is still there.

        """
        stream = self._inbox_of(instance_id)
        reply = await self._store.command(step, op, "XRANGE", stream, "-", "+", site=1)
        events, ids = [], []
        for entry in cast("list[Any]", reply or []):
            event = self._decoded(_fields(entry))
            if event is not None and session_of(event) in sessions:
                events.append(event)
                ids.append(entry[0])
        if ids:
            await self._store.command(step, op, "XDEL", stream, *ids, site=2)
        return events

    # Being there

    async def start(self) -> None:
        """
        Be present and begin to read; returns once others can reach us.

        Raises:
            StoreUnavailable: the store is away.

        """
        try:
            await self._appear()
            seconds, _ = cast("list[bytes]", await self._store.connection.call("TIME"))
        except RedisFailure as error:
            raise StoreUnavailable(f"inbox: {error}") from error
        self._store.connection.on_up.append(self._reappear)
        since_ms = max(0, int(seconds) * 1_000 - BACKLOG_NS // MS)
        self._board_cursor = b"%d-0" % since_ms
        self.tasks = [
            asyncio.create_task(self._stay(), name="inbox presence"),
            asyncio.create_task(self._read(), name="inbox reader"),
        ]

    async def close(self) -> None:
        """Be gone: nobody can append any more, and what was not read is dropped."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.tasks = []
        if self._reappear in self._store.connection.on_up:
            self._store.connection.on_up.remove(self._reappear)
        try:
            await self._store.connection.call("DEL", self._stream)
        except RedisFailure:
            self._sink.count("inbox_presence_left_to_expire", 1)

    async def _appear(self) -> None:
        ttl_ms = round(self._ttl_s * 1_000)
        if not await self._store.connection.call("PEXPIRE", self._stream, ttl_ms):
            await self._store.connection.send_all(self._hello())

    def _hello(self) -> list[tuple[Word, ...]]:
        ttl_ms = round(self._ttl_s * 1_000)
        return [
            ("XADD", self._stream, "*", "kind", _HELLO, "body", b""),
            ("PEXPIRE", self._stream, ttl_ms),
        ]

    def _reappear(self) -> None:
        """At a new connection: a server that restarted empty has lost our stream."""
        try:
            _ = self._store.connection.send_all(self._hello())
        except RedisFailure:
            self._sink.count("inbox_presence_failures", 1)

    async def _stay(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self._appear()
            except RedisFailure:
                self._sink.count("inbox_presence_failures", 1)

    # Reading

    async def _read(self) -> None:
        """Read for ever; a connection that comes back starts over with what is left."""
        cursor = b"0-0"
        while True:
            try:
                reply = await self._reader.call(
                    "XREAD", "COUNT", READ_COUNT, "BLOCK", self._block_ms, "STREAMS",
                    self._stream, self._board, cursor, self._board_cursor,
                )  # fmt: skip
            except RedisFailure:
                self._sink.count("inbox_read_failures", 1)
                cursor = b"0-0"
                await asyncio.sleep(_RETRY_S)
                continue
            for stream, entries in _streams(reply):
                if stream == self._stream.encode():
                    cursor = self._take_letters(entries) or cursor
                else:
                    self._take_announcements(entries)
            await asyncio.sleep(0)  # a full inbox must not keep the loop from others

    def _take_letters(self, entries: list[Any]) -> bytes:
        """Handle what came in and delete it; returns the last id."""
        ids = [entry[0] for entry in entries]
        for entry in entries:
            self._handle(_fields(entry))
        try:
            # Ahead of the next read on the same wire: where one fails, the other does.
            _ = self._reader.send("XDEL", self._stream, *ids)
        except RedisFailure:
            self._sink.count("inbox_entries_left", len(ids))  # they will be handled once more
        return cast("bytes", ids[-1])

    def _take_announcements(self, entries: list[Any]) -> None:
        self._board_cursor = entries[-1][0]
        for entry in entries:
            fields = _fields(entry)
            if fields.get(b"from") != self._instance:
                self._handle(fields)

    def _decoded(self, fields: dict[bytes, bytes]) -> InboxEvent | None:
        kind = fields.get(b"kind", b"")
        if kind == _HELLO:
            return None
        try:
            return decode_event(kind, fields.get(b"body", b""))
        except (msgspec.DecodeError, KeyError):
            self._sink.count("inbox_undecodable", 1)
            return None

    def _handle(self, fields: dict[bytes, bytes]) -> None:
        event = self._decoded(fields)
        if event is None:
            return
        self._sink.count("inbox_received", 1)
        try:
            self._deliver(event)
        except Exception as error:
            self._sink.count("inbox_failures", 1)
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"inbox: handling {type(event).__name__} failed", "exception": error}
            )


def _streams(reply: Reply) -> Iterable[tuple[bytes, list[Any]]]:
    """Stream and entries; RESP2 has pairs, RESP3 taken apart has them in one row."""
    if not isinstance(reply, list):
        return []
    flat: list[Any] = reply
    if flat and isinstance(flat[0], list):
        return [(pair[0], pair[1]) for pair in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _fields(entry: list[Any]) -> dict[bytes, bytes]:
    """An entry's fields; one that was deleted since has none."""
    flat = entry[1] or []
    return dict(zip(flat[::2], flat[1::2], strict=False))
