"""A scheduler's far end that does what a test says: accepts sockets, speaks frames, hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from simsched import wire
from simsched.messages.values import Message

T = TypeVar("T")

LIMIT_S = 20.0
"""For every wait of a test; none comes near it unless something is wrong."""


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(3 * LIMIT_S):
            return await main

    return asyncio.run(bounded())


class Socket:
    """One accepted connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        request = connection.request
        assert request is not None
        self.path = request.path
        self.headers = request.headers
        self.said: list[dict[str, Any]] = []

    async def hear_frame(self) -> bytes | str:
        async with asyncio.timeout(LIMIT_S):
            return await self._connection.recv()

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next message, or the next of these kinds."""
        while True:
            message: dict[str, Any] = json.loads(await self.hear_frame())
            self.said.append(message)
            if not kinds or message["type"] in kinds:
                return message

    async def silence(self, seconds: float = 0.15) -> None:
        """Fails if anything but a heartbeat is said in that time."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = json.loads(await self._connection.recv())
                    assert message["type"].endswith("heartbeat"), message
        except TimeoutError:
            return

    async def say(self, message: Message | dict[str, Any] | str | bytes) -> None:
        if isinstance(message, Message):
            message = wire.encode(message).decode()
        await self._connection.send(json.dumps(message) if isinstance(message, dict) else message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)

    def cut(self) -> None:
        """As a cable does it: no word of goodbye."""
        self._connection.transport.abort()


class FakeScheduler:
    """Listens; every connection waits in `sockets` until the test takes it."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(self) -> Socket:
        async with asyncio.timeout(LIMIT_S):
            return await self.sockets.get()


@asynccontextmanager
async def fake_scheduler(**options: Any) -> AsyncIterator[FakeScheduler]:
    fake: FakeScheduler | None = None

    async def handle(connection: ServerConnection) -> None:
        assert fake is not None
        fake.sockets.put_nowait(Socket(connection))
        try:
            await connection.wait_closed()
        except ConnectionClosed:
            return

    async with serve(handle, "127.0.0.1", 0, compression=None, **options) as server:
        fake = FakeScheduler(server.sockets[0].getsockname()[1])
        yield fake
