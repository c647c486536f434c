"""The store that comes along: found in order, private, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simsched.errors import ConfigError
from simsched.live import embedded
from simsched.live.embedded import StoreServer, open_store_server
from simsched.live.redis_connection import RedisConnection, RedisFailure, ReplyError
from tests.conformance.redis_server import NO_SERVER, server_path
from tests.live.valkey import LIMIT_S, play

needs_server = pytest.mark.skipif(server_path() is None, reason=NO_SERVER)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def gone(server: StoreServer) -> bool:
    return not is_alive(server.pid) and not Path(server.url.removeprefix("unix://")).parent.exists()


async def config_of(connection: RedisConnection, name: str) -> bytes:
    reply = await connection.call("CONFIG", "GET", name)
    assert isinstance(reply, list)
    assert isinstance(reply[1], bytes)
    return reply[1]


@needs_server
def test_a_server_of_our_own_is_private_and_gone_afterwards() -> None:
    """A socket in a folder only we may enter, no port, nothing on disk, no eviction."""

    async def main() -> StoreServer:
        async with open_store_server(None, None) as server:
            assert (server.kind, server.warning) == ("valkey", "")
            path = Path(server.url.removeprefix("unix://"))
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            connection = await RedisConnection.open(server.url, timeout_s=10.0)
            wanted = {"port": b"0", "save": b"", "appendonly": b"no"}
            wanted["maxmemory-policy"] = b"noeviction"
            for name, value in wanted.items():
                assert await config_of(connection, name) == value
            await connection.close()
            assert is_alive(server.pid)
        return server

    assert gone(play(main))


@needs_server
def test_a_server_of_our_own_is_gone_after_an_error() -> None:
    """Whatever ends the block."""
    seen: list[StoreServer] = []

    async def main() -> None:
        async with open_store_server(None, None) as server:
            seen.append(server)
            raise KeyError("x")

    with pytest.raises(KeyError):
        play(main)
    assert gone(seen[0])


CHILD = """
import asyncio
from simsched.live.embedded import open_store_server

async def main():
    async with open_store_server(None, None) as server:
        print(server.url, server.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@needs_server
def test_a_server_ends_with_us_even_when_we_are_killed() -> None:
    """SIGKILL leaves no time to clean up: the guard sees the pipe close."""
    words = [sys.executable, "-c", CHILD]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url, pid = child.stdout.readline().split()
        server = StoreServer(url=url, kind="valkey", pid=int(pid))
        assert is_alive(server.pid)
        child.send_signal(signal.SIGKILL)
    end = time.monotonic() + LIMIT_S
    while not gone(server):
        assert time.monotonic() < end
        time.sleep(0.01)


@needs_server
def test_a_server_outlives_the_signals_that_end_us() -> None:
    """It serves until our own drain is done: Ctrl-C goes to another session than its."""

    async def main() -> None:
        async with open_store_server(None, None) as server:
            assert os.getsid(server.pid) != os.getsid(0)

    play(main)


def test_a_url_is_taken_as_it_is() -> None:
    """Nothing is started."""

    async def main() -> None:
        async with open_store_server("redis://example.org", "/no/such") as server:
            assert server == StoreServer(url="redis://example.org", kind="redis")

    play(main)


@pytest.mark.parametrize("path", ["/no/such/server", "/bin/true", "/etc/passwd"])
def test_a_configured_path_that_does_not_start_is_a_wrong_setting(path: str) -> None:
    """It is not passed over in silence."""

    async def main() -> None:
        async with open_store_server(None, path):
            pass

    with pytest.raises(ConfigError, match="valkey_path") as caught:
        play(main)
    assert path in str(caught.value)


def test_without_any_server_fakeredis_serves_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was tried and failed is in the warning; the same connection talks to it."""
    monkeypatch.setattr(embedded, "server_programs", lambda: iter(["/bin/false"]))

    async def main() -> None:
        async with open_store_server(None, None) as server:
            assert server.kind == "fakeredis"
            assert "/bin/false did not start" in server.warning
            assert "fakeredis" in server.warning
            connection = await RedisConnection.open(server.url, timeout_s=10.0)
            assert await connection.call("SET", "a", b"\r\n\x00") == b"OK"
            assert await connection.call("GET", "a") == b"\r\n\x00"
            with pytest.raises(ReplyError) as caught:
                await connection.call("EVALSHA", "0" * 40, 0)
            assert caught.value.code == "NOSCRIPT"
            assert connection.losses == 0
            await connection.close()

    play(main)


@needs_server
def test_several_servers_live_side_by_side() -> None:
    """Two instances on one machine do not share a store by accident."""

    async def main() -> None:
        async with open_store_server(None, None) as one, open_store_server(None, None) as two:
            assert one.url != two.url
            first = await RedisConnection.open(one.url, timeout_s=10.0)
            second = await RedisConnection.open(two.url, timeout_s=10.0)
            await first.call("SET", "a", 1)
            assert await second.call("GET", "a") is None
            await asyncio.gather(first.close(), second.close())

    play(main)


@needs_server
def test_a_server_that_dies_is_started_again_at_the_same_place() -> None:
    """Who is connected to it only sees it come back empty; nothing is left in the end."""

    async def main() -> None:
        async with open_store_server(None, None) as server:
            connection = await RedisConnection.open(server.url, timeout_s=10.0)
            await connection.call("SET", "k", "v")
            os.kill(server.pid, signal.SIGKILL)
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        if await connection.call("GET", "k") is None:
                            break
                    except RedisFailure:
                        await asyncio.sleep(0.05)
            await connection.close()
        assert not Path(server.url.removeprefix("unix://")).parent.exists()

    play(main)
