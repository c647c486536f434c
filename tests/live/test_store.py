"""The store on a real Redis: scripts, repeats only where they are safe, failures at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.live.redis_connection import RedisConnection
from simsched.live.store import REPEATABLE, RedisStore, script_names
from simsched.store import CellStore, Claim
from tests.live.valkey import Kept, Valkey, operation, play, until, valkey


class Cell:
    """A store and what it recorded."""

    def __init__(self, connection: RedisConnection) -> None:
        self.connection = connection
        self.sink = Kept()
        self.store = RedisStore(connection, self.sink, time.monotonic_ns)
        self.cell = CellStore(self.store, "i1")

    async def beat(self, node: str = "n1", slots: int = 4) -> None:
        await self.cell.heartbeat(
            operation(),
            node,
            slots=slots,
            running=0,
            health="ready",
            since_ns=0,
            counters=False,
        )

    async def claim(self, job: str) -> Claim:
        return await self.cell.claim(
            operation(), job, job, expected=0, token="i1:1", lease_ms=60_000,
            binding_ttl_ms=60_000, nodes=["n1"],
        )  # fmt: skip


@asynccontextmanager
async def cell(url: str, **how: Any) -> AsyncIterator[Cell]:
    connection = await RedisConnection.open(url, **{"timeout_s": 10.0, **how})
    try:
        yield Cell(connection)
    finally:
        await connection.close()


class Proxy:
    """Stands before a server; breaks a connection instead of passing its next reply on."""

    def __init__(self, server: Valkey, url: str) -> None:
        self._path = server.url.removeprefix("unix://")
        self.url = url
        self.breaks = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_unix_server(self._serve, self.url.removeprefix("unix://"))
        try:
            yield self.url
        finally:
            server.close()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, down = await asyncio.open_unix_connection(self._path)

        async def back() -> None:
            while data := await upstream.read(65_536):
                if self.breaks:
                    self.breaks -= 1
                    break
                writer.write(data)
            writer.close()

        task = asyncio.create_task(back())
        while data := await reader.read(65_536):
            down.write(data)
        down.close()
        await task


def test_scripts_are_there_before_anybody_calls_and_come_back_when_forgotten() -> None:
    """The first call finds its script; SCRIPT FLUSH costs a reload and no error."""

    async def main() -> None:
        async with cell(server.url) as one:
            await one.beat()
            assert (await one.claim("j1")).verdict == "CLAIMED"
            assert "store_scripts_reloaded" not in one.sink.counts
            await one.connection.call("SCRIPT", "FLUSH")
            claims = await asyncio.gather(*(one.claim(f"k{n}") for n in range(3)))
            assert [claim.live for claim in claims] == [2, 3, 4]
            assert one.sink.counts["store_scripts_reloaded"] == 3

    with valkey() as server:
        play(main)


def test_calls_are_recorded_with_waiting_apart() -> None:
    """Name, site, keys; both times are there and none is negative."""

    async def main() -> None:
        async with cell(server.url) as one:
            before = time.monotonic_ns()
            await one.beat()
            await asyncio.gather(*(one.claim(f"j{number}") for number in range(8)))
            await one.store.pipeline(steps.CAPABILITY_READ, operation(), [["GET", "a"]] * 3)
            assert await one.store.pipeline(steps.CAPABILITY_READ, operation(), []) == []
            after = time.monotonic_ns()
            names = [entry[0] for entry in one.sink.steps]
            assert names == [steps.HEARTBEAT_STORE.name, *[steps.CLAIM.name] * 8,
                             steps.CAPABILITY_READ.name]  # fmt: skip
            assert [entry[4] for entry in one.sink.steps] == [1, *[4] * 8, 2]
            for _, start, wait, own, _, _ in one.sink.steps:
                assert before <= start
                assert wait >= 0
                assert own > 0
                assert start + wait + own <= after
            assert any(entry[2] > 0 for entry in one.sink.steps)

    with valkey() as server:
        play(main)


def test_a_claim_whose_answer_got_lost_is_asked_again_and_counts_once() -> None:
    """The connection broke after the server had done it: same answer, one slot."""

    async def main() -> None:
        proxy = Proxy(server, server.url + ".proxy")
        async with proxy.serving() as url, cell(url) as one:
            await one.beat()
            proxy.breaks = 1
            claim = await one.claim("j1")
            assert (claim.verdict, claim.node_id, claim.live) == ("CLAIMED", "n1", 1)
            assert one.sink.counts["store_calls_repeated"] == 1
            assert await one.connection.call("ZCARD", "{cell}:leases:n1") == 1

    with valkey() as server:
        play(main)


def test_what_is_not_idempotent_is_never_repeated() -> None:
    """A plain command, and the reference's counters: unknown outcome, said at once."""

    async def main() -> None:
        proxy = Proxy(server, server.url + ".proxy")
        async with proxy.serving() as url, cell(url) as one:
            await one.cell.heartbeat(
                operation(), "n1", slots=4, running=0, health="ready", since_ns=0, counters=True,
                resets=True,
            )  # fmt: skip
            proxy.breaks = 1
            with pytest.raises(StoreUnavailable, match="lost"):
                await one.cell.reserve(operation(), "j1", 1, "n1")
            await until(lambda: one.connection.is_up)
            assert await one.connection.call("HGET", "{cell}:cap:n1", "reserved") == b"1"
            proxy.breaks = 1
            with pytest.raises(StoreUnavailable, match="lost"):
                await one.store.command(steps.JOB_KEY, operation(), "INCR", "a")
            await until(lambda: one.connection.is_up)
            assert await one.connection.call("GET", "a") == b"1"
            assert one.sink.counts["store_connection_lost"] == 2
            assert "store_calls_repeated" not in one.sink.counts

    with valkey() as server:
        play(main)


@pytest.mark.parametrize(
    "name", ["try_reserve", "release", "commit", "dec_running", "heartbeat_reset", "fsm", "unlock"]
)
def test_the_references_scripts_are_never_repeated(name: str) -> None:
    """And every name in the table is a script."""
    assert name not in REPEATABLE
    assert set(script_names()) >= REPEATABLE


def test_answers_slower_than_the_limit_apply_each_claim_at_most_once() -> None:
    """The caller hears of an unknown outcome, asks again by the same job, and gets the same."""

    async def main() -> None:
        async with cell(server.url, timeout_s=0.2) as one:
            await one.beat()
            server.freeze()
            before = time.monotonic()
            with pytest.raises(StoreUnavailable, match="200 ms"):
                await one.claim("j1")
            assert 0.15 < time.monotonic() - before < 5.0
            server.thaw()
            await until(lambda: one.connection.is_up)
            claim = await one.claim("j1")
            assert (claim.verdict, claim.live) == ("CLAIMED", 1)
            assert one.sink.counts["store_timeouts"] == 1

    with valkey() as server:
        play(main)


def test_while_the_server_is_down_calls_fail_at_once_and_then_work_again() -> None:
    """A thousand calls take less than one would have waited; scripts are loaded anew."""

    async def main() -> None:
        async with cell(server.url) as one:
            await one.beat()
            assert await one.store.ping()
            server.kill()
            await until(lambda: not one.connection.is_up)
            before = time.monotonic()
            for number in range(1_000):
                with pytest.raises(StoreUnavailable):
                    await one.claim(f"j{number}")
            assert time.monotonic() - before < 5.0
            assert not await one.store.ping()
            assert one.sink.counts["store_not_connected"] >= 999
            server.start()
            await until(lambda: one.connection.is_up)
            await one.beat()
            assert (await one.claim("j")).verdict == "CLAIMED"
            assert "store_scripts_reloaded" not in one.sink.counts

    with valkey() as server:
        play(main)


def test_refusals_of_the_server_are_named_and_counted() -> None:
    """Wrong type, out of memory, a replica: all StoreUnavailable, with what to do about it."""

    async def main() -> None:
        async with cell(server.url) as one:
            await one.beat()
            await one.connection.call("SET", "{cell}:leases:n1", "x")
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                await one.claim("j1")
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                await one.store.pipeline(
                    steps.CAPABILITY_READ,
                    operation(),
                    [["GET", "a"], ["HGETALL", "{cell}:leases:n1"]],
                )  # fmt: skip
            await one.connection.call("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="out of memory"):
                await one.store.command(steps.JOB_KEY, operation(), "SET", "a", "b")
            await one.connection.call("CONFIG", "SET", "maxmemory", 0)
            await one.connection.call("REPLICAOF", "127.0.0.1", 1)
            with pytest.raises(StoreUnavailable, match="replica"):
                await one.store.command(steps.JOB_KEY, operation(), "SET", "a", "b")
            await until(lambda: one.connection.losses == 1)
            counts = one.sink.counts
            assert counts["store_refused_wrongtype"] == 2
            assert counts["store_refused_oom"] == 1
            assert counts["store_refused_readonly"] == 1

    with valkey() as server:
        play(main)


def test_more_calls_than_the_bound_fail_at_once() -> None:
    """They are counted as such, and those within the bound are served."""

    async def main() -> None:
        async with cell(server.url, in_flight_max=50) as one:
            await one.beat(slots=1_000)
            results = await asyncio.gather(
                *(one.claim(f"j{number}") for number in range(80)), return_exceptions=True
            )
            refused = [result for result in results if isinstance(result, StoreUnavailable)]
            assert len(refused) == 30
            assert one.sink.counts["store_too_many_in_flight"] == 30
            assert await one.connection.call("ZCARD", "{cell}:leases:n1") == 50

    with valkey() as server:
        play(main)
