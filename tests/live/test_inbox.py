"""Instances reach each other: at least once, in order, bounded, and know who is there."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.inbox import (
    DispatchToNode,
    ForwardResult,
    InboxEvent,
    NodeSeen,
    SendToSession,
    SessionMoved,
)
from simsched.letters import Letters, decode_event, encode_event
from simsched.live.inbox import Inbox
from simsched.live.redis_connection import RedisConnection
from simsched.live.store import RedisStore
from simsched.messages import Error, ErrorCode, JobAck, JobCancel, JobResult
from simsched.models.workers import WorkerSpec
from simsched.nodes import NodeView
from tests.live.valkey import Kept, Valkey, operation, play, until, valkey


class Instance:
    """What an inbox needs of an instance, and what it got."""

    def __init__(self, name: str, store: RedisStore, reader: RedisConnection, **how: Any) -> None:
        self.name = name
        self.got: list[InboxEvent] = []
        self.sink = Kept()
        self.fails = False
        self.store = store
        self.reader = reader
        self.inbox = Inbox(
            store, reader, name, self._deliver, self.sink, **{"block_ms": 200, **how}
        )

    def _deliver(self, event: InboxEvent) -> None:
        if self.fails:
            raise KeyError("handler")
        self.got.append(event)

    async def tell(self, other: str, event: object) -> bool:
        return await self.inbox.to_instance(steps.INBOX_APPEND, operation(), other, event)

    async def crash(self) -> None:
        """Go without a word: the stream stays until it expires."""
        await self.reader.close()
        await self.store.connection.close()
        await self.inbox.close()


@asynccontextmanager
async def instance(server: Valkey, name: str, **how: Any) -> AsyncIterator[Instance]:
    connection = await RedisConnection.open(server.url, timeout_s=10.0)
    reader = await RedisConnection.open(server.url, timeout_s=11.0)
    store = RedisStore(connection, Kept(), time.monotonic_ns)
    one = Instance(name, store, reader, **how)
    await one.inbox.start()
    try:
        yield one
    finally:
        await one.inbox.close()
        await reader.close()
        await connection.close()


def letter(number: int) -> SendToSession:
    return SendToSession("s-1", Error(code=ErrorCode.INTERNAL_ERROR, message=str(number)))


def seen(node_id: str) -> NodeSeen:
    return NodeSeen(
        "a", WorkerSpec(node_id=node_id, slots=2, languages=("en", "zh"), home=0).record().view()
    )


EVENTS = [
    DispatchToNode("n1", JobCancel(job_id="j", trace_id="t", reason="r")),
    ForwardResult(JobAck(job_id="j", attempt_id=1, node_id="n1", session_id="s", trace_id="t")),
    ForwardResult(
        JobResult(
            job_id="j", attempt_id=2, node_id="n1", session_id="s", utterance_index=3,
            trace_id="t", success=True, text_asr="你好", text_translated="hi",
            tts_audio=bytes(range(256)),
        )
    ),
    letter(1),
    SessionMoved("s-1", "b"),
    seen("n1"),
    NodeSeen("a", NodeView(node_id="n2", ordinal=1, installed=frozenset({"asr", "nmt"}))),
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_survives_the_way(event: InboxEvent) -> None:
    """What comes out is what went in, audio bytes and sets included."""
    assert decode_event(*encode_event(event)) == event


def test_letters_arrive_in_order_and_leave_nothing_behind() -> None:
    """A thousand of them, while the reader reads; handled ones are gone from the store."""

    async def main() -> None:
        async with instance(server, "a") as a, instance(server, "b") as b:
            events = [letter(number) for number in range(1_000)]
            for event in events:
                assert await a.tell("b", event)
            await until(lambda: len(b.got) == 1_000)
            assert b.got == events
            assert a.got == []
            await a.store.ping()
            assert await b.store.connection.call("XLEN", "{cell}:inbox:b") == 0

    with valkey() as server:
        play(main)


def test_who_is_not_there_is_known_at_once() -> None:
    """Never started, gone politely, or crashed and expired: False, and no stream is made."""

    async def main() -> None:
        async with instance(server, "a") as a:
            assert not await a.tell("b", letter(1))
            async with instance(server, "b") as b:
                assert await a.tell("b", letter(2))
                await until(lambda: len(b.got) == 1)
            assert not await a.tell("b", letter(3))
            async with instance(server, "c", ttl_s=0.2) as c:
                await asyncio.sleep(0.5)  # it renews
                assert await a.tell("c", letter(4))
                await c.crash()
                end = asyncio.get_running_loop().time() + 10
                while await a.tell("c", letter(5)):
                    assert asyncio.get_running_loop().time() < end
                    await asyncio.sleep(0.02)
            assert await a.store.connection.call("KEYS", "*inbox*") == [b"{cell}:inbox:a"]

    with valkey() as server:
        play(main)


def test_an_instance_that_comes_back_goes_on_where_it_was() -> None:
    """What was appended while it was away, and not handled, is handled after its return."""

    async def main() -> None:
        async with instance(server, "a") as a:
            async with instance(server, "b") as first:
                await a.tell("b", letter(1))
                await until(lambda: len(first.got) == 1)
                await a.store.ping()
                await first.crash()
            assert await a.tell("b", letter(2))
            async with instance(server, "b") as second:
                await until(lambda: len(second.got) == 1)
                assert await a.tell("b", letter(3))
                await until(lambda: len(second.got) == 2)
                assert second.got == [letter(2), letter(3)]

    with valkey() as server:
        play(main)


def test_what_cannot_be_read_is_counted_and_passed_over() -> None:
    """Unknown kinds, broken bodies, missing fields, other fields, a handler that fails."""

    async def main() -> None:
        async with instance(server, "a") as a, instance(server, "b") as b:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            call, key = a.store.connection.call, "{cell}:inbox:b"
            await call("XADD", key, "*", "kind", "nonsense", "body", b"\xc1")
            await call("XADD", key, "*", "kind", "client", "body", b"\xc1\x00")
            await call("XADD", key, "*", "kind", b"\xff", "body", b"")
            await call("XADD", key, "*", "x", "y")
            await until(lambda: b.sink.counts.get("inbox_undecodable") == 4)
            b.fails = True
            await a.tell("b", letter(1))
            await until(lambda: b.sink.counts.get("inbox_failures") == 1)
            b.fails = False
            await a.tell("b", letter(2))
            await until(lambda: b.got == [letter(2)])

    with valkey() as server:
        play(main)


def in_version(name: str, version: int) -> Letters:
    return Letters(name, secrets.token_hex(4), version)


def test_what_a_reader_cannot_read_is_written_again_in_its_version() -> None:
    """It goes back to its writer, who remembers what the reader speaks; nothing is lost."""

    async def main() -> None:
        async with (
            instance(server, "new", versions=lambda: {"old": 2}) as new,
            instance(server, "old", letters=in_version("old", 1)) as old,
        ):
            events = [letter(number) for number in range(20)]
            for event in events:
                assert await new.tell("old", event)
            await until(lambda: len(old.got) == len(events))
            assert sorted(old.got, key=repr) == sorted(events, key=repr)
            too_new = old.sink.counts["inbox_too_new"]
            assert 1 <= too_new <= len(events)
            assert await new.tell("old", letter(99))
            await until(lambda: letter(99) in old.got)
            assert old.sink.counts["inbox_too_new"] == too_new
            assert not await new.tell("old", SessionMoved("s", "new"))
            assert new.sink.counts["inbox_not_in_their_version"] == 1
            call = new.store.connection.call
            while await call("XLEN", "{cell}:inbox:old"):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)

    with valkey() as server:
        play(main)


def test_what_nobody_can_write_again_waits_for_who_can_read_it() -> None:
    """Its writer is gone: it is put aside, and handled after the upgrade of its reader."""

    async def main() -> None:
        async with instance(server, "old", letters=in_version("old", 1)) as old:
            async with instance(server, "new", versions=lambda: {"old": 2}) as new:
                await new.reader.close()  # it hears nothing more
                assert await new.tell("old", letter(1))
                await until(lambda: old.sink.counts.get("inbox_too_new", 0) == 1)
            assert await old.inbox.to_instance(  # a third, by hand: its writer is not there
                steps.INBOX_APPEND, operation(), "old", letter(2)
            )
            fields = in_version("gone", 2).write(letter(3), "old", 2)
            assert fields is not None
            words = [word for pair in fields.items() for word in pair]
            await old.store.connection.call("XADD", "{cell}:inbox:old", "*", *words)
            await until(lambda: old.sink.counts.get("inbox_put_aside", 0) == 1)
            assert old.got == [letter(2)]
        async with instance(server, "old", letters=in_version("old", 2)) as upgraded:
            await until(lambda: letter(3) in upgraded.got)
            assert await upgraded.store.connection.call("XLEN", "{cell}:aside:old") == 0

    with valkey() as server:
        play(main)


def test_an_entry_that_comes_back_after_a_failover_is_handled_once() -> None:
    """Its deletion was lost with the old master; its number tells."""

    async def main() -> None:
        async with (
            instance(server, "a", versions=lambda: {"b": 2}) as a,
            instance(server, "b") as b,
        ):
            call, kept = a.store.connection.call, in_version("a", 2)
            fields = kept.write(letter(1), "b", 2)
            assert fields is not None
            words = [word for pair in fields.items() for word in pair]
            for _ in range(3):
                await call("XADD", "{cell}:inbox:b", "*", *words)
            await until(lambda: b.sink.counts.get("inbox_repeated") == 2)
            assert b.got == [letter(1)]

    with valkey() as server:
        play(main)


def test_a_full_inbox_drops_its_oldest_letters() -> None:
    """Nobody reads: the stream stays near its bound."""

    async def main() -> None:
        async with instance(server, "a", entries_max=100) as a, instance(server, "b") as b:
            await b.reader.close()
            for number in range(1_000):
                assert await a.tell("b", letter(number))
            length = await a.store.connection.call("XLEN", "{cell}:inbox:b")
            assert isinstance(length, int)
            assert 100 <= length <= 300

    with valkey() as server:
        play(main)


def test_announcements_reach_all_others_and_those_who_come_soon() -> None:
    """Not their sender; a new instance reads those of the last heartbeat."""

    async def main() -> None:
        async with instance(server, "a") as a, instance(server, "b") as b:
            a.inbox.broadcast(seen("n1"))
            b.inbox.broadcast(seen("n2"))
            await until(lambda: len(a.got) == 1 and len(b.got) == 1)
            assert (a.got, b.got) == ([seen("n2")], [seen("n1")])
            async with instance(server, "c") as c:
                await until(lambda: len(c.got) == 2)
                assert sorted(c.got, key=repr) == [seen("n1"), seen("n2")]

    with valkey() as server:
        play(main)


def test_a_server_that_restarts_empty_finds_everybody_again() -> None:
    """Meanwhile telling fails at once; afterwards letters and announcements flow, unaided."""

    async def main() -> None:
        async with instance(server, "a") as a, instance(server, "b") as b:
            server.kill()
            with pytest.raises(StoreUnavailable):
                await a.tell("b", letter(1))
            a.inbox.broadcast(seen("n1"))
            assert a.sink.counts["announcements_lost"] == 1
            server.start()
            for one in (a, b):
                await until(lambda one=one: one.store.connection.is_up and one.reader.is_up)  # type: ignore[misc]
            assert await b.store.ping()  # by then its stream is there again
            assert await a.tell("b", letter(2))
            a.inbox.broadcast(seen("n2"))
            await until(lambda: len(b.got) == 2)
            assert letter(2) in b.got
            assert seen("n2") in b.got

    with valkey() as server:
        play(main)
