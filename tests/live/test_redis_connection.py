"""The connection keeps replies with their callers, its bounds, and itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.errors import ConfigError, StoreUnavailable
from simsched.live.redis_address import parse_address
from simsched.live.redis_connection import (
    CallTimeout,
    ConnectionLost,
    NotConnected,
    RedisConnection,
    ReplyError,
    TooManyInFlight,
)
from tests.live.valkey import play, until, valkey


@asynccontextmanager
async def connected(url: str, **how: Any) -> AsyncIterator[RedisConnection]:
    connection = await RedisConnection.open(url, **{"timeout_s": 5.0, **how})
    try:
        yield connection
    finally:
        await connection.close()


class Server:
    """A server of ours that answers a request's last word, when it is told to."""

    def __init__(self) -> None:
        self.held: asyncio.Event = asyncio.Event()
        self.held.set()
        self.asked: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.greeting = b"+PONG\r\n"
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"redis://127.0.0.1:{self.port}"
        finally:
            server.close()
            for writer in self.writers:
                writer.close()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                count = int((await reader.readline())[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                await self._answer(words, writer)
        except (ValueError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, words: list[bytes], writer: asyncio.StreamWriter) -> None:
        if words[0] in (b"CLIENT", b"AUTH", b"SELECT", b"PING"):
            writer.write(self.greeting if words[0] == b"PING" else b"+OK\r\n")
            self.asked.append(words[0])
            return
        await self.held.wait()
        self.asked.append(words[-1])
        if words[-1] != b"never":
            writer.write(b"$%d\r\n%s\r\n" % (len(words[-1]), words[-1]))


def test_replies_reach_their_callers_whoever_gives_up() -> None:
    """10,000 calls, a third of them cancelled at any moment: no reply goes to another caller."""

    async def main() -> int:
        async with connected(server.url, in_flight_max=20_000) as connection:
            got = 0

            async def ask(number: int) -> None:
                nonlocal got
                assert await connection.call("ECHO", number) == b"%d" % number
                got += 1

            tasks = []
            for number in range(10_000):
                tasks.append(asyncio.create_task(ask(number)))
                if number % 100 == 99:
                    await asyncio.sleep(0)
                    for victim in tasks[number - 99 : number + 1 : 3]:
                        victim.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [r for r in results if isinstance(r, Exception)]
            assert connection.in_flight == 0
            return got

    with valkey() as server:
        assert 6_000 < play(main) < 10_000


def test_calls_of_one_tick_leave_in_one_write() -> None:
    """All but the first, which finds the wire idle, wait for the end of the tick together."""

    async def main() -> None:
        async with connected(server.url) as connection:
            assert connection._wire is not None
            transport = connection._wire._transport
            writes: list[int] = []

            class Counting:
                def write(self, data: bytes) -> None:
                    writes.append(len(data))
                    assert transport is not None
                    transport.write(data)

                def abort(self) -> None:
                    assert transport is not None
                    transport.abort()

            connection._wire._transport = Counting()  # type: ignore[assignment]
            calls = [connection.send("ECHO", number) for number in range(50)]
            assert [await call for call in calls] == [b"%d" % number for number in range(50)]
            assert len(writes) == 2

    with valkey() as server:
        play(main)


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_kind_of_reply_has_resp2s_shape(protocol: int) -> None:
    """Maps, sets, doubles and nulls of RESP3 too; refusals raise and know their code."""

    async def main() -> None:
        async with connected(server.url, protocol=protocol) as connection:
            call = connection.call
            assert await call("HSET", "h", "a", 1) == 1
            assert await call("HGETALL", "h") == [b"a", b"1"]
            assert await call("SADD", "s", "x") == 1
            assert await call("SMEMBERS", "s") == [b"x"]
            assert await call("ZADD", "z", 2.5, b"m\r\n") == 1
            assert await call("ZSCORE", "z", b"m\r\n") == b"2.5"
            assert await call("GET", "nothing") is None
            with pytest.raises(ReplyError) as caught:
                await call("INCR", "h")
            assert caught.value.code == "WRONGTYPE"
            assert not caught.value.unknown
            replies = await connection.send_all([("GET", "h"), ("EXISTS", "h")])
            assert isinstance(replies[0], ReplyError)
            assert replies[1] == 1

    with valkey() as server:
        play(main)


def test_a_late_reply_is_discarded_in_its_place() -> None:
    """A call that timed out keeps its place in line; the next one gets its own reply."""

    async def main() -> None:
        server = Server()
        async with server.serving() as url, connected(url, timeout_s=0.3) as connection:
            server.held.clear()
            first = connection.send("ECHO", "late")
            with pytest.raises(CallTimeout) as caught:
                await first
            assert caught.value.unknown
            second = connection.send("ECHO", "second")
            server.held.set()
            assert await second == b"second"
            assert connection.losses == 0

    play(main)


def test_more_than_the_bound_fails_at_once_and_sends_nothing() -> None:
    """Callers that gave up count as long as the server owes their replies."""

    async def main() -> None:
        server = Server()
        async with server.serving() as url, connected(url, in_flight_max=3) as connection:
            server.held.clear()
            calls = [connection.send("ECHO", number) for number in range(3)]
            calls[0].future.cancel()
            with pytest.raises(TooManyInFlight) as caught:
                _ = connection.send("ECHO", "too much")
            assert not caught.value.unknown
            server.held.set()
            assert [await call for call in calls[1:]] == [b"1", b"2"]
            assert await connection.call("ECHO", "again") == b"again"
            assert b"too much" not in server.asked

    play(main)


def test_a_lost_connection_fails_all_calls_at_once_and_comes_back() -> None:
    """Long before their limit; then calls are refused at once until it stands again."""
    ups: list[str] = []

    async def main() -> None:
        async with connected(server.url, timeout_s=15.0) as connection:
            connection.on_up.append(lambda: ups.append("up"))
            connection.on_down.append(lambda: ups.append("down"))
            blocked = [connection.send("BLPOP", "nothing", 0) for _ in range(10)]
            await asyncio.sleep(0.05)
            before = time.monotonic()
            server.kill()
            for call in blocked:
                with pytest.raises(ConnectionLost) as caught:
                    await call
                assert caught.value.unknown
            assert time.monotonic() - before < 5.0
            assert not connection.is_up
            with pytest.raises(NotConnected):
                _ = connection.send("PING")
            assert not await connection.wait_up(10.0)
            assert ups == ["down"]
            server.start()
            await until(lambda: connection.is_up)
            assert await connection.call("PING") == b"PONG"
            assert ups == ["down", "up"]

    with valkey() as server:
        play(main)


def test_a_killed_connection_is_replaced_at_once() -> None:
    """While the server lives, whoever waits for a new connection gets it."""

    async def main() -> None:
        async with (
            connected(server.url) as connection,
            connected(server.url, name="other") as other,
        ):
            await other.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda: connection.losses == 1)
            assert await connection.wait_up(10.0)
            assert await connection.call("PING") == b"PONG"

    with valkey() as server:
        play(main)


def test_a_server_that_froze_is_noticed_while_nobody_asks() -> None:
    """The idle wire is pinged; calls fail at once instead of running into their limit."""

    async def main() -> None:
        async with connected(server.url, timeout_s=0.2) as connection:
            server.freeze()
            await until(lambda: not connection.is_up)
            with pytest.raises(NotConnected):
                _ = connection.send("PING")
            server.thaw()
            await until(lambda: connection.is_up)
            assert await connection.call("PING") == b"PONG"

    with valkey() as server:
        play(main)


def test_a_server_that_talks_out_of_turn_is_left() -> None:
    """A reply that nobody asked for, or no RESP at all, ends the connection, not the process."""

    async def main(word: bytes) -> None:
        server = Server()
        async with server.serving() as url, connected(url) as connection:
            server.writers[0].write(word)
            await until(lambda: connection.losses == 1)
            await until(lambda: connection.is_up)
            assert await connection.call("ECHO", "x") == b"x"

    for word in (b":1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        play(lambda word=word: main(word))  # type: ignore[misc]


def test_nothing_hangs_when_the_connection_is_closed() -> None:
    """Calls under way fail, and so do those that come later."""

    async def main() -> None:
        connection = await RedisConnection.open(server.url, timeout_s=15.0)
        blocked = connection.send("BLPOP", "nothing", 0)
        await connection.close()
        with pytest.raises(ConnectionLost):
            await blocked
        with pytest.raises(NotConnected):
            _ = connection.send("PING")
        await connection.close()

    with valkey() as server:
        play(main)


def test_password_user_and_database_of_the_url_are_used() -> None:
    """And a wrong password is said in one line that does not repeat it."""

    async def main() -> None:
        async with connected(server.url) as admin:
            words = ("ACL", "SETUSER", "ann", "on", ">s3cret", "~*", "&*", "+@all")
            assert await admin.call(*words) == b"OK"
        for protocol in (2, 3):
            url = server.url.replace("unix://", "unix://ann:s3cret@") + "?db=3"
            async with connected(url, protocol=protocol) as connection:
                assert await connection.call("ACL", "WHOAMI") == b"ann"
                info = await connection.call("CLIENT", "INFO")
                assert isinstance(info, bytes)
                assert b"db=3" in info
                assert b"name=simsched" in info
        with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
            await RedisConnection.open(server.url.replace("unix://", "unix://ann:wr0ng@"))
        assert "wr0ng" not in str(caught.value)

    with valkey() as server:
        play(main)


def test_a_server_that_is_not_there_is_named() -> None:
    """One line with its address; or no error, and the connection goes on trying."""

    async def main() -> None:
        with pytest.raises(StoreUnavailable, match=r"unix:///nowhere/v\.sock"):
            await RedisConnection.open("unix:///nowhere/v.sock")
        async with connected("unix:///nowhere/v.sock", must_connect=False) as connection:
            assert not connection.is_up
            assert connection.last_error
            with pytest.raises(NotConnected):
                await connection.call("PING")

    play(main)


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:6379", "redis://h:port/0", "", "rediss://h/0?ssl_ca_certs=/no"]
)  # fmt: skip
def test_a_wrong_url_is_a_wrong_setting(url: str) -> None:
    """It names the key and the right form."""
    with pytest.raises(ConfigError, match="redis_url: want redis://"):
        parse_address(url)


def test_an_address_prints_no_password() -> None:
    """TLS is asked for by the scheme."""
    address = parse_address("rediss://ann:s%20cret@example.org:7000/2")
    assert (address.host, address.port, address.db) == ("example.org", 7000, 2)
    assert (address.username, address.password) == ("ann", "s cret")
    assert address.text == "rediss://example.org:7000"
    assert address.tls is not None
    assert address.tls.check_hostname
    assert parse_address("redis://h").tls is None


Action = tuple[str, int]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["call", "cancel", "tick", "hold", "release"]), st.integers(0, 9)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_any_mix_of_calls_and_cancellations_keeps_the_order(actions: list[Action]) -> None:
    """Whatever is cancelled when: every call that still waits gets the reply to its own words."""

    async def main() -> None:
        server = Server()
        async with server.serving() as url, connected(url) as connection:
            calls: list[tuple[bytes, Callable[[], Any], Any]] = []
            for number, (what, which) in enumerate(actions):
                if what == "call":
                    word = b"w%d" % number
                    call = connection.send("ECHO", word)
                    calls.append((word, call.future.cancel, call))
                elif what == "cancel" and calls:
                    calls[which % len(calls)][1]()
                elif what == "tick":
                    await asyncio.sleep(0)
                elif what == "hold":
                    server.held.clear()
                elif what == "release":
                    server.held.set()
            server.held.set()
            for word, _, call in calls:
                if not call.future.cancelled():
                    assert await call == word

    play(main)
