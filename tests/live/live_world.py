"""An instance with its port on an embedded store, and peers that speak to it by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from simsched.live.instance import Instance
from simsched.live.runtime import new_event_loop
from simsched.live.server import Server
from simsched.live.settings import LimitsSettings, ServerSettings, Settings, StoreSettings
from simsched.live.sinks import NullSink

T = TypeVar("T")

LIMIT_S = 20.0
"""For every wait of a test; none comes near it unless something is wrong."""

INIT: dict[str, Any] = {
    "type": "session_init", "client_version": "1", "platform": "test-client",
    "src_lang": "zh", "tgt_lang": "en", "dialect": None, "features": {}, "pairing_code": None,
    "tenant_id": None, "trace_id": "t-1",
}  # fmt: skip
REGISTER: dict[str, Any] = {
    "type": "node_register", "node_id": None, "version": "2.0.0",
    "capability_schema_version": "2.0", "platform": "linux",
    "hardware": {"cpu_cores": 8, "memory_gb": 32, "gpus": [{"name": "GPU", "memory_gb": 8}]},
    "installed_models": [],
    "installed_services": [
        {"service_id": f"{kind}-1", "type": kind, "device": "gpu", "status": "running"}
        for kind in ("asr", "nmt", "tts")
    ],
    "capability_by_type": [{"type": kind, "ready": True} for kind in ("asr", "nmt", "tts")],
    "features_supported": {}, "accept_public_jobs": True,
    "language_capabilities": {
        "asr_languages": ["zh", "en"], "tts_languages": ["zh", "en"],
        "semantic_languages": ["zh", "en"],
        "supported_language_pairs": [{"src": "zh", "tgt": "en"}, {"src": "en", "tgt": "zh"}],
    },
}  # fmt: skip


class CountingSink(NullSink):
    """Keeps what the tests ask for."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.connections: list[tuple[str, str, str, str]] = []

    def count(self, name: str, amount: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        self.connections.append((kind, name, what, detail))


def run(main: Coroutine[Any, Any, T], *, limit_s: float = 3 * LIMIT_S) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(limit_s):
            return await main

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(bounded())


def settings_with(**sections: Any) -> Settings:
    """The defaults on any free port, patient with a store on a busy machine; some changed."""
    sections.setdefault("store", StoreSettings(timeout_ms=10_000))
    server = msgspec.structs.replace(sections.pop("server", ServerSettings()), port=0)
    return Settings(server=server, **sections)


def limits(**values: Any) -> LimitsSettings:
    return LimitsSettings(**values)


class World:
    """A running server."""

    def __init__(self, instance: Instance, server: Server, sink: CountingSink) -> None:
        self.instance = instance
        self.server = server
        self.sink = sink

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.server.port}{path}"

    @asynccontextmanager
    async def socket(self, path: str, **options: Any) -> AsyncIterator[Peer]:
        socket = await connect(
            self.url(path), compression=None, proxy=None, max_size=None, **options
        )
        peer = Peer(socket)
        try:
            yield peer
        finally:
            await socket.close()

    @asynccontextmanager
    async def client(self, **init: Any) -> AsyncIterator[Peer]:
        async with self.socket("/ws/session") as peer:
            await peer.say({**INIT, **init})
            ack = await peer.hear()
            assert ack["type"] == "session_init_ack", ack
            peer.name = ack["session_id"]
            peer.ack = ack
            yield peer

    @asynccontextmanager
    async def node(self, node_id: str | None = None, **register: Any) -> AsyncIterator[Peer]:
        async with self.socket("/ws/node") as peer:
            await peer.register(node_id, **register)
            await peer.beat()
            await peer.hear_type("node_status")
            yield peer


@asynccontextmanager
async def world(
    settings: Settings | None = None, *, resume_s: float | None = None
) -> AsyncIterator[World]:
    sink = CountingSink()
    settings = settings or settings_with()
    if resume_s is not None:
        server_part = msgspec.structs.replace(settings.server, resume_s=resume_s)
        settings = msgspec.structs.replace(settings, server=server_part)
    async with Instance(settings, sinks=[sink]) as instance:
        server = Server(instance)
        await server.start()
        try:
            yield World(instance, server, sink)
        finally:
            await server.close()


class Peer:
    """A client or a node, by hand: every frame is seen."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.name = ""
        self.ack: dict[str, Any] = {}
        self.seen: list[dict[str, Any]] = []

    async def say(self, message: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT_S):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        self.seen.append(message)
        return message

    async def hear_type(self, *kinds: str) -> dict[str, Any]:
        while True:
            message = await self.hear()
            if message["type"] in kinds:
                return message

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the server's close; its code and reason."""
        async with asyncio.timeout(LIMIT_S):
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason

    # A client

    async def chunk(self, payload: str = "", *, final: bool = False, **fields: Any) -> None:
        await self.say(
            {
                "type": "audio_chunk", "session_id": self.name, "seq": 0, "is_final": final,
                "payload": payload, **fields,
            }
        )  # fmt: skip

    async def utterance(self, index: int, audio: str = "AAAA") -> None:
        await self.say(
            {
                "type": "utterance", "session_id": self.name, "utterance_index": index,
                "manual_cut": True, "src_lang": "zh", "tgt_lang": "en", "audio": audio,
                "audio_format": "pcm16", "sample_rate": 16_000,
            }
        )  # fmt: skip

    # A node

    async def register(self, node_id: str | None = None, **fields: Any) -> None:
        await self.say({**REGISTER, "node_id": node_id, **fields})
        ack = await self.hear()
        assert ack["type"] == "node_register_ack", ack
        assert ack["status"] == "registering"
        self.name = ack["node_id"]

    async def beat(self, running: int = 0) -> None:
        await self.say(
            {
                "type": "node_heartbeat", "node_id": self.name, "timestamp": 1,
                "resource_usage": {
                    "cpu_percent": 1.0, "gpu_percent": 1.0, "mem_percent": 1.0,
                    "running_jobs": running,
                },
                "installed_services": REGISTER["installed_services"],
                "capability_by_type": REGISTER["capability_by_type"],
            }
        )  # fmt: skip

    async def answer(self, job: dict[str, Any], text: str = "hello", **fields: Any) -> None:
        await self.say(
            {
                "type": "job_result", "job_id": job["job_id"], "attempt_id": job["attempt_id"],
                "node_id": self.name, "session_id": job["session_id"],
                "utterance_index": job["utterance_index"], "success": True, "trace_id": "t",
                "text_asr": text, "text_translated": text.upper(), **fields,
            }
        )  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no message tells."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.005)
