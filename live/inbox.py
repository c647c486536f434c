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
- an entry is written in a version that everybody in the cell speaks, and one that comes twice is
  handled once (`letters`). One that is newer than we are goes back to its writer, who writes it
  again in an older version; if that one is gone, it is put aside until somebody under our name can
  read it;
- an entry that is broken, or whose handling fails, is counted and deleted;
- announcements go to one stream that everybody reads from shortly before its own start; losing
  one is harmless, and one's own are skipped.

The reader blocks, so it has a connection of its own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from simsched.errors import StoreUnavailable
from simsched.inbox import InboxEvent
from simsched.letters import (
    NEWER,
    NEWEST,
    OLDEST,
    REPEATED,
    Letters,
    common_version,
    encode_event,
    version_of,
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

_HELLO: Final = b"hello"
"""The entry that makes a stream; it says nothing."""

_RETURNED_BY: Final = b"returned_by"
_RETURNED_SPEAKS: Final = b"returned_speaks"

log = logging.getLogger("simsched.live")


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
        letters: how we write and read.
        versions: what everybody in the cell reads, as far as it is known.

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
        letters: Letters | None = None,
        versions: Callable[[], Mapping[str, int]] = dict,
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
        self._letters = letters or Letters(instance_id, secrets.token_hex(4))
        self._versions = versions
        self._older: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._returns: dict[bytes, asyncio.Task[None]] = {}
        self._ttl_s = ttl_s
        self._block_ms = block_ms
        self._entries_max = entries_max
        self._stream = self._inbox_of(instance_id)
        self._board = "{" + cell + "}:announcements"
        self._board_cursor = b"0-0"
        self.tasks: list[asyncio.Task[None]] = []

    def _inbox_of(self, instance_id: str) -> str:
        return "{" + self._cell + "}:inbox:" + instance_id

    def _aside_of(self, instance_id: str) -> str:
        return "{" + self._cell + "}:aside:" + instance_id

    # Sending

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        """
        Append an event to another instance's inbox; False if there is no such instance now.

        Raises:
            StoreUnavailable: it is not known whether it was appended.

        """
        version = await self._version_for(step, op, instance_id)
        fields = self._letters.write(event, instance_id, version)
        if fields is None:
            self._sink.count("inbox_not_in_their_version", 1)
            return False
        reply = await self._store.command(step, op, *self._append(instance_id, fields))
        return reply is not None

    async def _version_for(self, step: Step, op: Operation, instance_id: str) -> int:
        """The version to write in; of one that has only just come the store is asked."""
        said = dict(self._versions())
        if instance_id in said:
            self._asked.pop(instance_id, None)
        elif instance_id in self._asked:
            said[instance_id] = self._asked[instance_id]
        else:
            key = "{" + self._cell + "}:versions"
            found = await self._store.command(step, op, "HGET", key, instance_id, site=2)
            if isinstance(found, bytes) and found.isdigit():
                said[instance_id] = self._asked[instance_id] = max(OLDEST, int(found))
        return min(common_version(said, instance_id), self._older.get(instance_id, NEWEST))

    def _append(self, instance_id: str, fields: Mapping[bytes, bytes]) -> list[str | int | bytes]:
        return [
            "XADD", self._inbox_of(instance_id), "NOMKSTREAM", "MAXLEN", "~", self._entries_max,
            "*", *(word for pair in fields.items() for word in pair),
        ]  # fmt: skip

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
            event, _ = self._letters.peek(_fields(entry))
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
            await self._take_up()
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
        open_tasks = [*self.tasks, *self._returns.values()]
        for task in open_tasks:
            task.cancel()
        if open_tasks:
            await asyncio.wait(open_tasks)
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
        done = [entry[0] for entry in entries if self._take_letter(entry[0], _fields(entry))]
        try:
            # Ahead of the next read on the same wire: where one fails, the other does.
            if done:
                _ = self._reader.send("XDEL", self._stream, *done)
        except RedisFailure:
            self._sink.count("inbox_entries_left", len(done))  # they will be read once more
        return cast("bytes", entries[-1][0])

    def _take_letter(self, entry_id: bytes, fields: dict[bytes, bytes]) -> bool:
        """Handle one entry of ours; False if it must stay for now."""
        if _RETURNED_BY in fields:
            self._later(entry_id, self._write_again(fields))
            return False
        event, why_not = self._letters.read(fields)
        if event is not None:
            self._handle(event)
        elif why_not == NEWER:
            self._later(entry_id, self._give_back(fields))
            return False
        elif why_not == REPEATED:
            self._sink.count("inbox_repeated", 1)
        elif fields.get(b"kind") != _HELLO:
            self._sink.count("inbox_undecodable", 1)
        return True

    # Entries that their reader cannot read

    def _later(self, entry_id: bytes, work: Coroutine[Any, Any, None]) -> None:
        """The entry stays until that is done: whatever happens meanwhile, it is not lost."""
        if entry_id in self._returns:
            work.close()
            return
        task = asyncio.create_task(self._delete_after(entry_id, work), name="inbox returns")
        self._returns[entry_id] = task

    async def _delete_after(self, entry_id: bytes, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            await self._store.connection.call("XDEL", self._stream, entry_id)
        except RedisFailure:
            self._sink.count("inbox_entries_left", 1)  # read once more after the next connection
        finally:
            self._returns.pop(entry_id, None)

    async def _give_back(self, fields: dict[bytes, bytes]) -> None:
        """To its writer; if that one is gone, aside, until we can read it."""
        writer = fields.get(b"from", b"").decode("utf-8", "replace")
        self._sink.count("inbox_too_new", 1)
        log.error(
            "an entry of the inbox is of version %d, we speak %d: back to %s",
            version_of(fields), self._letters.version, writer or "nobody",
        )  # fmt: skip
        speaks = b"%d" % self._letters.version
        back = {**fields, _RETURNED_BY: self._instance, _RETURNED_SPEAKS: speaks}
        if not writer or await self._store.connection.call(*self._append(writer, back)) is None:
            await self._put_aside(self._instance.decode(), fields)

    async def _write_again(self, fields: dict[bytes, bytes]) -> None:
        """A reader could not read what we wrote: once more, in its version."""
        reader = fields[_RETURNED_BY].decode("utf-8", "replace")
        speaks = fields.get(_RETURNED_SPEAKS, b"")
        event, _ = self._letters.peek(fields)
        if event is None or not speaks.isdigit():
            self._sink.count("inbox_undecodable", 1)
            return
        self._older[reader] = int(speaks)
        older = self._letters.write(event, reader, int(speaks))
        if older is None:
            self._sink.count("inbox_not_in_their_version", 1)
            log.error("%s has no word for a %s", reader, type(event).__name__)
        elif await self._store.connection.call(*self._append(reader, older)) is None:
            await self._put_aside(reader, older)

    async def _put_aside(self, instance_id: str, fields: Mapping[bytes, bytes]) -> None:
        words = (word for pair in fields.items() for word in pair)
        await self._store.connection.call(
            "XADD", self._aside_of(instance_id), "MAXLEN", "~", self._entries_max, "*", *words
        )
        self._sink.count("inbox_put_aside", 1)

    async def _take_up(self) -> None:
        """What somebody under our name had to put aside may be readable now."""
        call = self._store.connection.call
        me, aside = self._instance.decode(), self._aside_of(self._instance.decode())
        for entry in cast("list[Any]", await call("XRANGE", aside, "-", "+") or []):
            fields = _fields(entry)
            if version_of(fields) <= self._letters.version:
                await call(*self._append(me, fields))
                await call("XDEL", aside, entry[0])

    def _take_announcements(self, entries: list[Any]) -> None:
        self._board_cursor = entries[-1][0]
        for entry in entries:
            fields = _fields(entry)
            if fields.get(b"from") != self._instance:
                event, why_not = self._letters.peek(fields)
                if event is not None:
                    self._handle(event)
                elif why_not:
                    self._sink.count("inbox_undecodable", 1)

    def _handle(self, event: InboxEvent) -> None:
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
