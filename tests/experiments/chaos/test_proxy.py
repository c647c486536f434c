"""A link that can break: what passes, what waits, what is lost, and that its ends notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from simsched.experiments.chaos.proxy import HELD_BYTES_MAX, Proxy, Streams, tcp, unix

LIMIT_S = 20.0
"""For every wait; none comes near it unless something is wrong."""

A_WHILE_S = 0.1
"""Long enough for bytes that were going to come."""


class Echo:
    """A server that says everything back, and remembers how its connections ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.opened = 0
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    proxy = Proxy(tcp(server.sockets[0].getsockname()[1]))
    await proxy.start()
    try:
        yield proxy, echo
    finally:
        for writer in _DIALLED:
            writer.transport.abort()
        _DIALLED.clear()
        await proxy.close()
        server.close()
        await until(lambda: echo.ended == echo.opened)
        await asyncio.sleep(0)


_DIALLED: list[asyncio.StreamWriter] = []
"""Sockets of a test, closed at its end."""


async def dial(proxy: Proxy) -> Streams:
    streams = await asyncio.open_connection("127.0.0.1", proxy.port)
    _DIALLED.append(streams[1])
    return streams


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():  # noqa: ASYNC110  # what is waited for raises no event
            await asyncio.sleep(0.005)


async def nothing_comes(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(A_WHILE_S):
            await reader.read(1)


def play(scene: Callable[[Proxy, Echo], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), linked() as (proxy, echo):
            await scene(proxy, echo)

    asyncio.run(main())


async def said(streams: Streams, text: bytes) -> bytes:
    """What comes back for it."""
    streams[1].write(text)
    return await streams[0].readexactly(len(text))


def test_a_whole_link_passes_everything_on() -> None:
    """Bytes there and back, and the close."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        streams = await dial(proxy)
        assert await said(streams, b"x" * 300_000) == b"x" * 300_000
        assert (proxy.connections, proxy.accepted) == (1, 1)
        streams[1].close()
        await until(lambda: echo.ended == 1 and proxy.connections == 0)

    play(scene)


def test_a_cut_closes_both_ends_and_lets_the_next_one_through() -> None:
    """Loss of a connection is seen at once on both sides."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        streams = await dial(proxy)
        await said(streams, b"hello")
        proxy.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await streams[0].readexactly(1)
        await until(lambda: echo.ended == 1)
        assert await said(await dial(proxy), b"again") == b"again"

    play(scene)


def test_a_link_that_refuses_hangs_up_until_it_heals() -> None:
    """Who tries meanwhile gets no further, and the server hears nothing of it."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        await said(await dial(proxy), b"hello")
        proxy.refuse()
        reader, writer = await dial(proxy)
        writer.write(b"let me in")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert echo.opened == 1
        proxy.heal()
        assert await said(await dial(proxy), b"again") == b"again"
        assert echo.opened == 2

    play(scene)


def test_what_is_held_arrives_in_its_order_when_the_link_heals() -> None:
    """A partition loses nothing: bytes wait, connections stay, a new one is taken."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        old = await dial(proxy)
        await said(old, b"before;")
        proxy.hold()
        old[1].write(b"one;")
        old[1].write(b"two;")
        new = await dial(proxy)
        new[1].write(b"new")
        await nothing_comes(old[0])
        assert echo.heard == b"before;"
        proxy.heal()
        assert await old[0].readexactly(8) == b"one;two;"
        assert await new[0].readexactly(3) == b"new"

    play(scene)


def test_a_close_is_held_as_well() -> None:
    """The far end of a partition does not learn that somebody has gone."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        streams = await dial(proxy)
        await said(streams, b"hello")
        proxy.hold()
        streams[1].close()
        await asyncio.sleep(A_WHILE_S)
        assert echo.ended == 0
        proxy.heal()
        await until(lambda: echo.ended == 1)

    play(scene)


def test_a_held_link_can_be_cut_and_then_nothing_arrives() -> None:
    """What was held back is lost with its connection."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        streams = await dial(proxy)
        await said(streams, b"kept;")
        proxy.hold()
        streams[1].write(b"lost")
        await asyncio.sleep(A_WHILE_S)
        proxy.cut()
        await until(lambda: echo.ended == 1)
        proxy.heal()
        assert echo.heard == b"kept;"

    play(scene)


def test_what_is_held_is_bounded() -> None:
    """A sender that does not get through has to wait: nothing grows without end."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        _, writer = await dial(proxy)
        proxy.hold()
        writer.write(bytes(64 * HELD_BYTES_MAX))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(A_WHILE_S):
                await writer.drain()
        proxy.cut()

    play(scene)


def test_a_slow_link_takes_its_time_each_way() -> None:
    """A round trip takes at least twice the delay, and the order stays."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        streams = await dial(proxy)
        await said(streams, b"fast")
        proxy.slow_down(0.05)
        loop = asyncio.get_running_loop()
        began = loop.time()
        streams[1].write(b"a")
        await asyncio.sleep(0.01)
        streams[1].write(b"b")
        assert await streams[0].readexactly(1) == b"a"
        assert loop.time() - began >= 0.1
        assert await streams[0].readexactly(1) == b"b"
        proxy.slow_down(0)
        assert await said(streams, b"fast") == b"fast"

    play(scene)


def test_a_link_follows_a_server_that_moves() -> None:
    """Where a connection leads is asked for each one; nobody there is a hang-up."""

    async def scene(proxy: Proxy, echo: Echo) -> None:
        other = Echo()
        server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
        await said(await dial(proxy), b"first")
        proxy.upstream = tcp(server.sockets[0].getsockname()[1])
        await said(await dial(proxy), b"second")
        assert (echo.heard, other.heard) == (b"first", b"second")
        server.close()
        proxy.upstream = unix("no-such-socket")
        reader, _ = await dial(proxy)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)

    play(scene)
