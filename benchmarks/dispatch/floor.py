"""
The floor: one EVALSHA of the claim over a thin pipelining connection, one WebSocket send, no more.

No scheduler, no session, no policy: what any dispatcher that claims a slot in Redis and tells a
node by WebSocket has to pay. Run by `python -m benchmarks.dispatch`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from importlib.resources import files

import hiredis
import msgspec
import uvloop
from pacing import Arrivals, produce
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

SLOTS = 100_000
AUDIO = "A" * 4_000


class Job(msgspec.Struct, tag="job_assign", tag_field="type"):
    """About as much as a real assignment of a short utterance says."""

    job_id: str
    attempt_id: int
    session_id: str
    asked_ns: int
    audio: str


class Thin(asyncio.Protocol):
    """A connection whose writes of one loop tick leave together; replies come in order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[object]] = deque()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Replies, in the order of the calls."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)

    def call(self, *words: object) -> asyncio.Future[object]:
        """One command."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(words))
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))  # type: ignore[attr-defined]
        self._out.clear()


async def producer(port: int, redis_port: int) -> None:
    """The dispatcher's process."""
    lua = files("simsched.lua")
    script = (lua / "prelude.lua").read_text() + (lua / "claim.lua").read_text()
    _, redis = await asyncio.get_running_loop().create_connection(Thin, "127.0.0.1", redis_port)
    sha = await redis.call("SCRIPT", "LOAD", script)
    await redis.call("HSET", "{floor}:node:n", "slots", SLOTS, "health", "ready")
    nodes: list[ServerConnection] = []
    joined = asyncio.Event()
    encode = msgspec.json.Encoder().encode

    async def node(connection: ServerConnection) -> None:
        nodes.append(connection)
        joined.set()
        await connection.wait_closed()

    async def create(asked_ns: int) -> None:
        job = f"job-{asked_ns}"
        keys = [f"{{floor}}:bind:{job}", "{floor}:leases:n", "{floor}:node:n"]
        words = [job, 0, "floor", "token", 1_000, 1_000, "n"]
        await redis.call("EVALSHA", sha, len(keys), *keys, *words)
        await nodes[0].send(encode(Job(job, 1, "s-1", asked_ns, AUDIO)), text=True)

    async with serve(node, "127.0.0.1", port, compression=None):
        await joined.wait()
        await produce(create)


async def worker(port: int, path: str) -> None:
    """The node's process."""
    arrivals, decode = Arrivals(path), msgspec.json.Decoder(Job).decode
    for _ in range(500):
        try:
            async with connect(f"ws://127.0.0.1:{port}", compression=None) as socket:
                async for frame in socket:
                    arrivals.note(decode(frame).asked_ns)
                return
        except OSError:
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    role, ws_port = sys.argv[1], int(os.environ["BENCH_WS_PORT"])
    if role == "producer":
        uvloop.run(producer(ws_port, int(os.environ["BENCH_REDIS_PORT"])))
    else:
        uvloop.run(worker(ws_port, os.environ["BENCH_ARRIVALS"]))
