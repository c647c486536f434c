"""Twenty thousand frames that nobody should send, and a bystander who notices nothing."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.live.live_world import INIT, REGISTER, World, run, world

FRAMES = 20_000
BURST = 25
PEERS = 8
SEED = 20_241_219

ODD_IDS = (
    "{a}:b",
    "a\nb",
    "a:b:c",
    "",
    "x" * 5_000,
    "\x00",
    "{",
    "}:lease:*",
    "💥",
    "../../etc",
    "*",
)
TYPES = (
    "session_init", "audio_chunk", "utterance", "client_heartbeat", "session_close", "room_create",
    "room_join", "room_leave", "webrtc_offer", "webrtc_answer", "webrtc_ice", "tts_started",
    "tts_play_ended", "node_register", "node_heartbeat", "job_ack", "job_started", "job_result",
    "asr_partial", "node_error", "job_assign", "no_such_type", "",
)  # fmt: skip
FIELDS = (
    "session_id", "seq", "is_final", "payload", "utterance_index", "manual_cut", "src_lang",
    "tgt_lang", "audio", "audio_format", "sample_rate", "room_code", "node_id", "job_id",
    "attempt_id", "success", "timestamp", "resource_usage", "hardware", "slots", "group_id",
    "capability_by_type", "installed_services", "language_capabilities", "trace_id", "error",
)  # fmt: skip
CODES_MAX = 4_999


def odd_value(chance: random.Random, depth: int = 0) -> Any:
    """Something of a type that nobody expects there."""
    kinds: list[Callable[[], Any]] = [
        lambda: chance.choice(ODD_IDS),
        lambda: chance.choice([0, -1, 2**63, 2**200, 1e308, True, False, None]),
        lambda: "A" * chance.choice([0, 1, 3, 1_000]),
        lambda: chance.choice(["zh", "en", "no-such-language", "utterance"]),
    ]
    if depth < 3:
        kinds.append(lambda: [odd_value(chance, depth + 1) for _ in range(chance.randrange(4))])
        kinds.append(lambda: {chance.choice(FIELDS): odd_value(chance, depth + 1)})
    return chance.choice(kinds)()


def message(chance: random.Random, known: str) -> str:
    """A message with fields of the wrong kind, sometimes a sound one with one fault."""
    if chance.random() < 0.3:
        base = dict(INIT if chance.random() < 0.5 else REGISTER)
    else:
        base = {"type": chance.choice(TYPES), "session_id": known}
    for _ in range(chance.randrange(1, 5)):
        base[chance.choice(FIELDS)] = odd_value(chance)
    return json.dumps(base)


def frame(chance: random.Random, known: str) -> str | bytes:
    """One frame that should not be."""
    pick = chance.random()
    if pick < 0.55:
        return message(chance, known)
    if pick < 0.70:
        return chance.randbytes(chance.randrange(0, 400))
    if pick < 0.80:
        return "".join(chr(chance.randrange(32, 0x2FFF)) for _ in range(chance.randrange(0, 300)))
    if pick < 0.88:
        depth = chance.choice([50, 2_000, 20_000])
        return "[" * depth + "]" * chance.choice([0, depth])
    if pick < 0.96:
        text = message(chance, known)
        return text[: chance.randrange(len(text) + 1)]
    return '{"type": "audio_chunk", "payload": "' + "A" * 200_000 + '"}'


class Attacker:
    """A peer that only sends rubbish; it keeps what it was answered."""

    def __init__(self, live: World, path: str, chance: random.Random, seen: Counter[str]) -> None:
        self._live = live
        self._path = path
        self._chance = chance
        self._seen = seen
        self.sent = 0

    async def attack(self, frames: int) -> None:
        """Send so many frames, on as many sockets as it takes."""
        while self.sent < frames:
            try:
                async with connect(
                    self._live.url(self._path), compression=None, proxy=None, max_size=None,
                    open_timeout=30,
                ) as socket:  # fmt: skip
                    await self._on_one_socket(socket, frames)
            except (ConnectionClosed, InvalidHandshake, OSError) as error:
                self._note_close(error)

    async def _on_one_socket(self, socket: ClientConnection, frames: int) -> None:
        known = ""
        if self._chance.random() < 0.7:
            hello = INIT if "session" in self._path else REGISTER
            await socket.send(json.dumps(hello))
            answer = json.loads(await socket.recv())
            known = answer.get("session_id") or answer.get("node_id") or ""
        while self.sent < frames:
            for _ in range(BURST):
                await socket.send(frame(self._chance, known))
                self.sent += 1
            await self._listen(socket)

    async def _listen(self, socket: ClientConnection) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                while True:
                    self._note(json.loads(await socket.recv()))

    def _note(self, answer: dict[str, Any]) -> None:
        if answer["type"] == "error":
            assert answer["code"], answer
            self._seen[answer["code"]] += 1

    def _note_close(self, error: Exception) -> None:
        if isinstance(error, ConnectionClosed) and error.rcvd is not None:
            assert 1000 <= error.rcvd.code <= CODES_MAX
            self._seen[f"close {error.rcvd.code}"] += 1


@asynccontextmanager
async def half_open(live: World, count: int) -> AsyncIterator[None]:
    """Connections that begin a handshake and say nothing more."""
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
        writer.write(b"GET /ws/session HTTP/1.1\r\nHost: x\r\nUpgrade: webso")
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def bystander(live: World, stop: asyncio.Event) -> int:
    """A client and its node, in the middle of it all: each utterance is answered, in order."""
    async with live.node("bystander") as node, live.client() as client:
        number = 0
        while not stop.is_set():
            await client.utterance(number)
            job = await node.hear_type("job_assign")
            assert (job["session_id"], job["utterance_index"]) == (client.name, number)
            await node.answer(job)
            result = await client.hear_type("translation_result", "missing_result")
            assert (result["type"], result["utterance_index"]) == ("translation_result", number)
            number += 1
            await asyncio.sleep(0.02)
            if number % 20 == 0:
                await node.beat()
        return number


@pytest.mark.timeout(240)
def test_rubbish_is_refused_with_a_code_and_nobody_else_notices() -> None:
    """Both sockets, all sorts of frames, half-open connections: the server stays as it was."""
    seen: Counter[str] = Counter()

    async def main() -> tuple[int, int]:
        async with world() as live:
            stop = asyncio.Event()
            standing_by = asyncio.create_task(bystander(live, stop))
            attackers = [
                Attacker(
                    live, ("/ws/session", "/ws/node")[number % 2],
                    random.Random(SEED + number), seen,
                )
                for number in range(PEERS)
            ]  # fmt: skip
            async with half_open(live, 10):
                await asyncio.gather(*(one.attack(FRAMES // PEERS) for one in attackers))
            stop.set()
            answered = await standing_by
            assert live.instance.is_ready
            assert not live.instance.scheduler.state.book.active()
            return sum(one.sent for one in attackers), answered

    sent, answered = run(main(), limit_s=200)
    assert sent >= FRAMES
    assert answered >= 10
    assert seen["INVALID_MESSAGE"] > 100, seen
    assert any(name.startswith("close") for name in seen), seen
