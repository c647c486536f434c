"""A Redis and its replica: what a failover loses, a restart forgets, and who holds a slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from simsched.experiments.chaos.children import Children
from simsched.experiments.chaos.redis_pair import RedisPair
from simsched.live.embedded import server_programs
from simsched.live.redis_connection import RedisConnection

LIMIT_S = 60.0

pytestmark = pytest.mark.skipif(
    next(server_programs(), "") == "", reason="no Redis server on this machine"
)


def play(folder: Path, scene: Callable[[RedisPair], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), Children(folder) as children:
            pair = RedisPair(children)
            try:
                await pair.start()
                await scene(pair)
            finally:
                await pair.close()

    asyncio.run(main())


@asynccontextmanager
async def connected(pair: RedisPair) -> AsyncIterator[RedisConnection]:
    connection = await RedisConnection.open(pair.url)
    try:
        yield connection
    finally:
        await connection.close()


async def replicated(redis: RedisConnection) -> None:
    """What was written on this connection is on the replica too."""
    while await redis.call("WAIT", 1, 100) != 1:
        pass


def test_a_replica_that_takes_over_lacks_the_last_writes_and_no_others(tmp_path: Path) -> None:
    """What was in step before stays; at least as many changes are lost as were to be."""

    async def scene(pair: RedisPair) -> None:
        async with connected(pair) as redis:
            await redis.call("SET", "before", "1")
            await replicated(redis)

            async def write() -> None:
                for number in range(100_000):
                    await redis.call("SET", f"late:{number}", "1")

            writing = asyncio.create_task(write())
            await pair.fail_over(5, 0.0)
            writing.cancel()
            await asyncio.wait({writing})
        async with connected(pair) as redis:
            assert await redis.call("GET", "before") == b"1"
            assert await redis.call("GET", "chaos:last-write") is None
            await redis.call("SET", "after", "1")
            await replicated(redis)  # the new primary has a replica again
        assert pair.failures == []
        assert pair.losses[0] >= 5
        assert (len(pair.forgot), len(pair.outages)) == (1, 1)

    play(tmp_path, scene)


def test_a_failover_that_is_to_lose_nothing_loses_nothing(tmp_path: Path) -> None:
    """`lost = 0`: the replica was in step."""

    async def scene(pair: RedisPair) -> None:
        async with connected(pair) as redis:
            await redis.call("SET", "key", "1")
            await replicated(redis)
        await pair.fail_over(0, 0.0)
        async with connected(pair) as redis:
            assert await redis.call("GET", "key") == b"1"
        assert pair.losses == []

    play(tmp_path, scene)


def test_a_restart_forgets_everything(tmp_path: Path) -> None:
    """Also what its replica has copied to a file; nobody gets a connection while it is away."""

    async def scene(pair: RedisPair) -> None:
        await pair.restart(0.0)
        async with connected(pair) as redis:
            await redis.call("SET", "key", "1")
            await replicated(redis)  # all of it, as the new primary is none that it knows
        restarting = asyncio.create_task(pair.restart(0.2))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await pair.connect()
        await restarting
        async with connected(pair) as redis:
            assert await redis.call("DBSIZE") == 0

    play(tmp_path, scene)


def test_leases_that_have_not_run_out_are_counted_by_node(tmp_path: Path) -> None:
    """A lease that has run out holds no slot; a node without one is not named."""

    async def scene(pair: RedisPair) -> None:
        async with connected(pair) as redis:
            await redis.call("ZADD", "{cell}:leases:n-1", 1, "a:1", 9_000_000_000_000_000, "b:1")
            await redis.call("ZADD", "{cell}:leases:n-2", 1, "c:1")
        assert await pair.live_leases() == {"n-1": 1}

    play(tmp_path, scene)
