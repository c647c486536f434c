"""A server with everything that watches it, nodes that answer by themselves, and plain GETs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from simsched.live.instance import Instance
from simsched.live.observing import Observers
from simsched.live.server import Server
from simsched.live.settings import Settings
from tests.live.live_world import CountingSink, Peer, World, settings_with


class ObservedWorld(World):
    """A running server and its observers."""

    def __init__(
        self, instance: Instance, server: Server, sink: CountingSink, observers: Observers
    ) -> None:
        super().__init__(instance, server, sink)
        self.observers = observers
        self.api = observers.attach(instance)

    async def get(self, target: str, **headers: str) -> tuple[int, str, bytes]:
        """Status, content type and body, over a socket of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status, *fields = head.decode().splitlines()
        found = dict(line.lower().split(": ", 1) for line in fields if ": " in line)
        body = await reader.readexactly(int(found["content-length"]))
        writer.close()
        await writer.wait_closed()
        return int(status.split()[1]), found["content-type"], body

    async def json(self, target: str) -> Any:
        status, kind, body = await self.get(target)
        assert (status, kind) == (200, "application/json"), body
        return json.loads(body)

    @asynccontextmanager
    async def working_node(self, name: str, *, delay_s: float = 0.0) -> AsyncIterator[Peer]:
        """A node that acknowledges and answers every job."""
        async with self.node(name) as peer:
            work = asyncio.create_task(_work(peer, delay_s))
            try:
                yield peer
            finally:
                work.cancel()
                await asyncio.wait({work})

    async def converse(self, utterances: int, **init: Any) -> str:
        """One client says so many utterances, hears every answer and closes."""
        async with self.client(**init) as client:
            for index in range(utterances):
                await client.utterance(index)
                await client.hear_type("translation_result", "missing_result", "error")
            await client.say({"type": "session_close", "session_id": client.name, "reason": "end"})
            await client.hear_type("session_close_ack")
            return client.name


async def _work(peer: Peer, delay_s: float) -> None:
    while True:
        job = json.loads(await peer.socket.recv())
        if job["type"] != "job_assign":
            continue
        await peer.say(
            {"type": "job_ack", "job_id": job["job_id"], "attempt_id": job["attempt_id"],
             "node_id": peer.name, "session_id": job["session_id"], "trace_id": "t"}
        )  # fmt: skip
        if delay_s:
            await asyncio.sleep(delay_s)
        await peer.answer(job)


@asynccontextmanager
async def observed(settings: Settings | None = None) -> AsyncIterator[ObservedWorld]:
    chosen = settings or settings_with()
    observers, sink = Observers(chosen), CountingSink()
    try:
        async with Instance(chosen, sinks=[*observers.sinks, sink]) as instance:
            server = Server(
                instance, lambda path, query, headers: made.api.answer(path, query, headers)
            )
            made = ObservedWorld(instance, server, sink, observers)
            await server.start()
            try:
                yield made
            finally:
                await server.close()
    finally:
        observers.close()
