"""A session goes on at another instance: whose it is, what follows it, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect

from simsched.live.client import Client
from simsched.live.redis_connection import RedisConnection
from simsched.live.settings import ServerSettings, StoreSettings, TimeoutsSettings
from simsched.messages import MissingResult, TranslationResult, Utterance
from tests.live.live_world import INIT, LIMIT_S, Peer, World, run, settings_with, until, world
from tests.live.served import Served, serving
from tests.live.valkey import Valkey, valkey

SESSIONS, BUSY = 50, 20


def asked(index: int) -> Utterance:
    return Utterance(
        session_id="s", utterance_index=index, manual_cut=True, src_lang="zh", tgt_lang="en",
        audio=b"\0\0", audio_format="pcm16", sample_rate=16_000,
    )  # fmt: skip


@asynccontextmanager
async def socket_at(server: Served, path: str) -> AsyncIterator[Peer]:
    socket = await connect(server.url + path, compression=None, proxy=None, max_size=None)
    peer = Peer(socket)
    try:
        yield peer
    finally:
        await socket.close()


@asynccontextmanager
async def node_at(server: Served, name: str) -> AsyncIterator[Peer]:
    async with socket_at(server, "/ws/node") as peer:
        await peer.register(name, slots=100)
        await peer.beat()
        await peer.hear_type("node_status")
        yield peer


async def next_answer(client: Client) -> int:
    """The utterance that the next final answer is for."""
    async with asyncio.timeout(LIMIT_S):
        async for event in client:
            if isinstance(event, TranslationResult | MissingResult):
                assert isinstance(event, TranslationResult), event
                return event.utterance_index
    raise AssertionError("the session ended")


async def rest(client: Client) -> list[int]:
    """All further answers, until the session is closed."""
    await client.finish()
    answers = []
    async with asyncio.timeout(LIMIT_S):
        async for event in client:
            if isinstance(event, TranslationResult | MissingResult):
                assert isinstance(event, TranslationResult), event
                answers.append(event.utterance_index)
    return answers


async def answer_all(node: Peer) -> None:
    """Answer every job that comes, at once."""
    while True:
        job = await node.hear()
        if job["type"] == "job_assign":
            await node.answer(job, f"words {job['utterance_index']}")


def test_who_loses_its_instance_goes_on_at_another() -> None:
    """
    Fifty sessions, twenty of them with utterances in progress, and their instance is killed.

    Each is answered once and in order, in the session that it had.
    """

    async def main(first: Served, second: Served) -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(node_at(second, "n"))
            await asyncio.sleep(0.5)  # the announcement of the node reaches the other instance
            clients = [
                await stack.enter_async_context(
                    Client([first.url, second.url], src="zh", tgt="en", binary=False)
                )
                for _ in range(SESSIONS)
            ]
            names = [client.session_id for client in clients]
            for client in clients:
                await client.send(asked(0))
                await node.answer(await node.hear_type("job_assign"), "early")
                assert await next_answer(client) == 0
            held = []
            for client in clients[:BUSY]:
                await client.send(asked(1))
                held.append(await node.hear_type("job_assign"))
            first.kill()
            await until(lambda: all(client.reconnects == 1 for client in clients))
            for job in reversed(held):
                await node.answer(job, "in progress")
            working = asyncio.create_task(answer_all(node))
            for client in clients:
                await client.send(asked(2))
            got = await asyncio.gather(*(rest(client) for client in clients))
            assert got == [[1, 2]] * BUSY + [[2]] * (SESSIONS - BUSY)
            assert [client.session_id for client in clients] == names
            working.cancel()

    with valkey() as store, serving(store.url, "a", "b") as (first, second):
        run(main(first, second))


def test_an_unchanged_client_gets_a_new_session_and_asks_again() -> None:
    """
    Its socket breaks without a word; what it had not been answered is lost with its session.

    Asked again under the new session it is answered, and the late answer of the old one reaches
    nobody.
    """

    async def main(first: Served, second: Served) -> None:
        async with node_at(second, "n") as node, socket_at(first, "/ws/session") as client:
            await asyncio.sleep(0.5)
            await hello(client)
            assert "resume_token" not in client.ack
            await client.utterance(0)
            lost = await node.hear_type("job_assign")
            first.kill()
            assert await client.closed() == (1006, "")
            async with socket_at(second, "/ws/session") as again:
                await hello(again)
                assert again.name != client.name
                await again.utterance(0)
                job = await node.hear_type("job_assign")
                assert job["job_id"] != lost["job_id"]
                await node.answer(lost, "too late")
                await node.answer(job, "anew")
                assert (await again.hear_type("translation_result"))["text_asr"] == "anew"
                await again.utterance(1)
                await node.answer(await node.hear_type("job_assign"), "next")
                assert (await again.hear_type("translation_result"))["text_asr"] == "next"

    with valkey() as store, serving(store.url, "a", "b") as (first, second):
        run(main(first, second))


def test_a_session_of_a_dead_instance_can_be_resumed_for_a_while() -> None:
    """Then its record has run out, and the client is told so with the code that means it."""

    async def main(store: Valkey, first: Served, second: Served) -> None:
        async with socket_at(first, "/ws/session") as client:
            await hello(client, accept_resume=True)
            connection = await RedisConnection.open(store.url)
            record = "{cell}:resume:" + client.name
            while not await connection.call("EXISTS", record):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
            first.kill()
            while await connection.call("EXISTS", record):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.05)
            await connection.close()
        async with socket_at(second, "/ws/session") as back:
            await back.say({**INIT, **key_of(client)})
            assert (await back.hear())["code"] == "SESSION_CLOSED"

    brief = {"server__resume_s": 0.5, "timeouts__heartbeat_s": 0.5}
    with valkey() as store, serving(store.url, "a", "b", **brief) as (first, second):
        run(main(store, first, second))


def test_an_instance_that_leaves_hands_its_clients_on() -> None:
    """A rolling restart: the client ends up at the other instance, everything answered once."""

    async def main(first: Served, second: Served) -> None:
        async with (
            node_at(second, "n") as node,
            Client([first.url, second.url], src="zh", tgt="en", binary=False) as client,
        ):
            await asyncio.sleep(0.5)
            working = asyncio.create_task(answer_all(node))
            answers = []
            for index in range(30):
                await client.send(asked(index))
                if index == 10:
                    first.leave()
                answers.append(await next_answer(client))
            assert answers == list(range(30))
            assert (client.reconnects, client.duplicates) == (1, 0)
            assert await rest(client) == []
            working.cancel()

    with valkey() as store, serving(store.url, "a", "b") as (first, second):
        run(main(first, second))


# Both instances in this process: what happens between them can be seen


async def hello(client: Peer, **init: Any) -> None:
    await client.say({**INIT, **init})
    client.ack = await client.hear()
    assert client.ack["type"] == "session_init_ack", client.ack
    client.name = client.ack["session_id"]


def key_of(client: Peer) -> dict[str, Any]:
    return {"resume_session_id": client.name, "resume_token": client.ack["resume_token"]}


@asynccontextmanager
async def two(
    store: Valkey, *, presence_s: float = 45.0, **server: Any
) -> AsyncIterator[tuple[World, World]]:
    """Two instances; `server` are settings of both."""
    shared = StoreSettings(
        redis_url=store.url, timeout_ms=10_000, inbox_block_ms=50, presence_s=presence_s
    )
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(
                world(
                    settings_with(
                        store=shared,
                        server=ServerSettings(instance_id=name, **server),
                        timeouts=TimeoutsSettings(remote_refresh_ms=0),
                    )
                )
            )
            for name in ("a", "b")
        ]
        yield worlds[0], worlds[1]


async def known(w: World, node: str) -> None:
    """The node has been announced at this instance."""
    await until(lambda: bool(w.instance.scheduler.state.cluster.home_of(node)))


async def recorded(w: World, client: Peer, *, is_there: bool = True) -> None:
    """The session's record is in the store, or is not."""
    name = "{cell}:resume:" + client.name
    while bool(await w.instance.connection.call("EXISTS", name)) is not is_there:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@asynccontextmanager
async def resumed(w: World, client: Peer) -> AsyncIterator[Peer]:
    """The client, back with its key."""
    async with w.socket("/ws/session") as back:
        await hello(back, **key_of(client))
        assert back.name == client.name
        assert back.ack["resume_token"] == client.ack["resume_token"]
        yield back


async def ask_again(client: Peer, index: int) -> None:
    """An utterance that was asked for on a connection before this one."""
    await client.say(
        {
            "type": "utterance", "session_id": client.name, "utterance_index": index,
            "manual_cut": True, "src_lang": "zh", "tgt_lang": "en", "audio": "AAAA",
            "audio_format": "pcm16", "sample_rate": 16_000, "again": True,
        }
    )  # fmt: skip


def test_what_waited_where_a_client_was_is_done_where_it_is() -> None:
    """Its socket was cut, its instance has the answer: asked again, it is done here, once."""

    async def main(store: Valkey) -> None:
        async with two(store) as (a, b), b.node("n") as node:
            await known(a, "n")
            async with a.client(accept_resume=True) as client:
                await client.utterance(0)
                job = await node.hear_type("job_assign")
                await recorded(a, client)
            await until(lambda: a.instance.sessions.waiting == 1)
            await node.answer(job, "while you were away")
            kept = a.instance.links
            await until(lambda: any(_is_result(m) for m in kept.kept_for(client.name)))
            async with resumed(b, client) as back:
                await ask_again(back, 0)
                await node.answer(await node.hear_type("job_assign"), "here")
                assert (await back.hear_type("translation_result"))["text_asr"] == "here"
                await ask_again(back, 0)  # it has it by now: nothing comes of that
                await back.utterance(1)
                job = await node.hear_type("job_assign")
                assert job["utterance_index"] == 1
                await node.answer(job)
                assert (await back.hear_type("translation_result"))["utterance_index"] == 1
            await until(lambda: not a.instance.scheduler.state.sessions)

    with valkey() as store:
        run(main(store))


def _is_result(message: object) -> bool:
    return isinstance(message, TranslationResult)


@pytest.mark.parametrize("home", ["same", "other"])
@pytest.mark.parametrize("again", [True, False])
def test_an_answer_that_was_lost_on_its_way_is_given_anew(home: str, again: bool) -> None:
    """
    Who says that it has no answer gets another; the job's next attempt does the work.

    At the same instance a client that merely repeats itself has one job and one answer; who asks
    at another instance is taken to lack it.
    """

    async def main(store: Valkey) -> None:
        async with two(store) as (a, b), b.node("n") as node:
            await known(a, "n")
            async with a.client(accept_resume=True) as client:
                await client.utterance(0)
                first = await node.hear_type("job_assign")
                await node.answer(first, "first")
                await client.hear_type("translation_result")
                await recorded(a, client)
            async with resumed(a if home == "same" else b, client) as back:
                if again or home == "other":
                    await (ask_again(back, 0) if again else back.utterance(0))
                    job = await node.hear_type("job_assign")
                    assert job["job_id"] == first["job_id"]
                    assert job["attempt_id"] == first["attempt_id"] + 1
                    await node.answer(job, "second")
                    assert (await back.hear_type("translation_result"))["text_asr"] == "second"
                else:
                    await back.utterance(0)
                await back.utterance(1)
                job = await node.hear_type("job_assign")
                assert job["utterance_index"] == 1
                await node.answer(job)
                assert (await back.hear_type("translation_result"))["utterance_index"] == 1

    with valkey() as store:
        run(main(store))


def test_a_wrong_key_opens_nothing() -> None:
    """Nor does none, nor any key of a session that never was; the socket stays open."""

    async def main(store: Valkey) -> None:
        async with two(store) as (a, b), a.client(accept_resume=True) as client:
            await recorded(a, client)
            async with b.socket("/ws/session") as thief:
                for shown in (
                    {"resume_session_id": client.name, "resume_token": "0" * 32},
                    {"resume_session_id": client.name},
                    {"resume_session_id": "s-0", "resume_token": client.ack["resume_token"]},
                ):
                    await thief.say({**INIT, **shown})
                    assert (await thief.hear())["code"] == "SESSION_CLOSED"
                await hello(thief)
                assert thief.name != client.name
            await client.say(
                {"type": "client_heartbeat", "session_id": client.name, "timestamp": 1}
            )
            await client.hear_type("server_heartbeat")

    with valkey() as store:
        run(main(store))


def test_a_session_that_is_over_cannot_be_resumed_anywhere() -> None:
    """Closed by its client, or given up after its grace: the code says so."""

    async def main(store: Valkey) -> None:
        async with two(store, resume_s=0.05) as (a, b):
            async with a.client(accept_resume=True) as closed:
                await recorded(a, closed)
                await closed.say(
                    {"type": "session_close", "session_id": closed.name, "reason": "done"}
                )
                await closed.hear_type("session_close_ack")
            async with a.client(accept_resume=True) as lost:
                await recorded(a, lost)
            for client in (closed, lost):
                await recorded(b, client, is_there=False)
                async with b.socket("/ws/session") as back:
                    await back.say({**INIT, **key_of(client)})
                    assert (await back.hear())["code"] == "SESSION_CLOSED"

    with valkey() as store:
        run(main(store))


def test_a_half_open_socket_is_closed_where_the_session_was() -> None:
    """And a session may come back to where it began: each move takes it over."""

    async def main(store: Valkey) -> None:
        async with two(store) as (a, b), b.node("n") as node, a.client(accept_resume=True) as first:
            await known(a, "n")
            await recorded(a, first)
            async with resumed(b, first) as second:
                assert (await first.closed())[0] == 4409
                await until(lambda: not a.instance.links.knows(first.name))
                async with resumed(a, first) as third:
                    assert (await second.closed())[0] == 4409
                    await third.utterance(0)
                    await node.answer(await node.hear_type("job_assign"), "back")
                    assert (await third.hear_type("translation_result"))["text_asr"] == "back"
            assert a.instance.admission.sessions.keys() <= {first.name}
            await until(lambda: not b.instance.admission.sessions)

    with valkey() as store:
        run(main(store))


def test_a_store_that_comes_back_with_an_old_copy_takes_no_session_away() -> None:
    """The record says where the client was before; the instance that has it knows better."""

    async def main(store: Valkey) -> None:
        async with two(store) as (a, b), b.node("n") as node, a.client(accept_resume=True) as first:
            await recorded(a, first)
            name = "{cell}:resume:" + first.name
            old: Any = await a.instance.connection.call("HGETALL", name)
            async with resumed(b, first) as second:
                await b.instance.connection.call("HSET", name, *old)
                records = b.instance.sessions._records
                assert records is not None
                await records.write_all()
                assert await b.instance.connection.call("HGET", name, "instance") == b"b"
                await second.utterance(0)
                await node.answer(await node.hear_type("job_assign"), "here")
                assert (await second.hear_type("translation_result"))["text_asr"] == "here"

    with valkey() as store:
        run(main(store))


def test_streamed_speech_does_not_move() -> None:
    """Its numbers are its instance's; and a session that has moved takes none."""

    async def main(store: Valkey) -> None:
        async with (
            two(store) as (a, b),
            a.client(accept_resume=True) as streams,
            a.client(accept_resume=True) as asks,
        ):
            await recorded(a, streams)
            await streams.chunk("AAAA")
            await recorded(a, streams, is_there=False)
            async with b.socket("/ws/session") as back:
                await back.say({**INIT, **key_of(streams)})
                assert (await back.hear())["code"] == "SESSION_CLOSED"
            await recorded(a, asks)
            async with resumed(b, asks) as moved:
                await moved.chunk("AAAA")
                error = await moved.hear_type("error")
                assert error["code"] == "INVALID_MESSAGE"
                assert "whole utterances" in error["message"]

    with valkey() as store:
        run(main(store))


def test_while_the_store_is_away_a_client_is_asked_to_try_again() -> None:
    """Nobody can tell whose session it is: that is no reason to give it up."""

    async def main(store: Valkey) -> None:
        async with two(store) as (a, b), a.client(accept_resume=True) as client:
            await recorded(a, client)
            store.kill()
            await until(lambda: not b.instance.connection.is_up)
            async with b.socket("/ws/session") as back:
                await back.say({**INIT, **key_of(client)})
                assert (await back.hear())["code"] == "SCHEDULER_DEPENDENCY_DOWN"
            store.start()
            await until(lambda: a.instance.connection.is_up and b.instance.connection.is_up)
            await recorded(a, client)  # the empty store is told again whose session it is
            async with resumed(b, client):
                pass

    with valkey() as store:
        run(main(store))


def test_a_store_that_loses_its_memory_behind_a_connection_is_told_again() -> None:
    """As behind a proxy that changes servers: a sign of life finds no trace of the one before."""

    async def main(store: Valkey) -> None:
        async with (
            two(store, presence_s=0.6) as (a, b),
            b.node("n") as node,
            a.client(accept_resume=True) as client,
        ):
            await known(a, "n")
            await recorded(a, client)
            for one in (a, b):
                await until(lambda one=one: len(one.instance.scheduler.state.store.versions) == 2)  # type: ignore[misc]
            call = a.instance.connection.call
            await call("FLUSHALL")
            for key in ("resume:" + client.name, "inbox:a", "inbox:b", "node:n", "node:owner:n"):
                while not await call("EXISTS", "{cell}:" + key):  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(0.01)
            await client.utterance(0)
            await node.answer(await node.hear_type("job_assign"))
            assert (await client.hear_type("translation_result"))["utterance_index"] == 0
            for one in (a, b):
                assert one.sink.counts["store_forgot"] >= 1
                assert one.instance.connection.losses == 0

    with valkey() as store:
        run(main(store))


def test_what_lies_in_the_inbox_of_a_dead_instance_is_answered() -> None:
    """
    Its session's result went there while it hung; then it died, and nobody but the client knows.

    The instance that the client comes to takes it from there.
    """

    async def main(store: Valkey, first: Served, second: Served) -> None:
        async with (
            node_at(second, "n") as node,
            Client([first.url, second.url], src="zh", tgt="en", binary=False) as client,
        ):
            await asyncio.sleep(0.5)
            await client.send(asked(0))
            job = await node.hear_type("job_assign")
            first.freeze()
            await node.answer(job, "found")
            connection = await RedisConnection.open(store.url)
            while not await _has_result(connection, "a"):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
            first.kill()
            assert await next_answer(client) == 0
            assert not await _has_result(connection, "a")
            assert await rest(client) == []
            await connection.close()

    with valkey() as store, serving(store.url, "a", "b") as (first, second):
        run(main(store, first, second))


def test_a_third_instance_that_knows_no_better_does_not_delay_an_answer() -> None:
    """
    Its node's result goes to the inbox of the instance that claimed the job, which is dead.

    Nobody has missed that one yet: the session's new instance looks into its inbox meanwhile.
    """

    async def main(store: Valkey, first: Served, second: Served, third: Served) -> None:
        async with (
            node_at(third, "n") as node,
            Client([first.url, second.url], src="zh", tgt="en", binary=False) as client,
        ):
            await asyncio.sleep(0.5)
            await client.send(asked(0))
            job = await node.hear_type("job_assign")
            first.kill()
            await until(lambda: client.reconnects == 1)
            connection = await RedisConnection.open(store.url)
            owner = "{cell}:session:owner:" + client.session_id
            while not await connection.call("EXISTS", owner):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # its first look into that inbox finds nothing
            await node.answer(job, "by a detour")
            assert await next_answer(client) == 0
            assert await rest(client) == []
            await connection.close()

    with valkey() as store, serving(store.url, "a", "b", "c") as (first, second, third):
        run(main(store, first, second, third))


async def _has_result(connection: RedisConnection, instance: str) -> bool:
    entries: Any = await connection.call("XRANGE", "{cell}:inbox:" + instance, "-", "+")
    return any(b"result" in entry[1] for entry in entries or ())
