"""A rolling upgrade under load: instances of two versions together, each replaced in its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from simsched.live.client import Client
from simsched.live.engines import EngineOptions, engine_named
from simsched.live.node import NodeAgent
from simsched.live.node_profile import node_options
from simsched.live.redis_connection import RedisConnection
from simsched.messages import (
    MissingResult,
    TranslationResult,
    UiEvent,
    UiEventType,
    Utterance,
)
from tests.live.live_world import LIMIT_S, run
from tests.live.served import Served, serving
from tests.live.valkey import Valkey, valkey

CLIENTS, NODES = 6, 4


@dataclass
class Speaker:
    """A client that asks and waits for its answer, over and over."""

    client: Client
    asked: int = 0
    answers: list[tuple[str, int]] = field(default_factory=list)

    async def speak(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            await self.client.send(
                Utterance(
                    session_id="", utterance_index=self.asked, manual_cut=True, src_lang="zh",
                    tgt_lang="en", audio=b"\0\0", audio_format="pcm16", sample_rate=16_000,
                )
            )  # fmt: skip
            self.asked += 1
            await self._answer()
            await asyncio.sleep(0.01)

    async def _answer(self) -> None:
        async with asyncio.timeout(2 * LIMIT_S):
            async for event in self.client:
                failed = isinstance(event, UiEvent) and event.event is UiEventType.ERROR
                if failed or isinstance(event, TranslationResult | MissingResult):
                    index: int = event.utterance_index  # type: ignore[union-attr, assignment]
                    self.answers.append((type(event).__name__, index))
                    return


async def node_at(stack: AsyncExitStack, url: str, name: str) -> NodeAgent:
    """An agent, in this process."""
    options = node_options(url, node_id=name, slots=4, languages="zh,en", heartbeat_s=1.0)
    node = NodeAgent(options, engine_named("echo", EngineOptions()))
    stop = asyncio.Event()
    working = asyncio.create_task(node.run(stop))

    async def leave() -> None:
        stop.set()
        await working

    stack.push_async_callback(leave)
    await node.connected.wait()
    return node


async def versions(store: Valkey) -> list[str]:
    """What the instances of the cell say they speak."""
    connection = await RedisConnection.open(store.url)
    here: Any = await connection.call("ZRANGE", "{cell}:instances", 0, -1)
    said = [await connection.call("HGET", "{cell}:versions", name) for name in here]
    await connection.close()
    return sorted(word.decode() for word in said if isinstance(word, bytes))


async def replaced(store: Valkey, old: Served, name: str) -> Served:
    """The old one drains and leaves; the new one listens where it did."""
    old.leave()
    code = await asyncio.to_thread(old.process.wait, 60)
    old.close()
    assert code == 0, "a drain that left nothing"
    return await asyncio.to_thread(
        Served, store.url, name, port=old.port, store__protocol_version=2
    )


def test_three_instances_are_replaced_one_by_one_under_load() -> None:
    """
    From version 1 to version 2, through every mixture: each utterance has one answer, in order.

    Nodes hang on all three instances, so most jobs and answers go through an inbox.
    """

    async def main(store: Valkey, servers: list[Served]) -> None:
        is_over = False
        async with AsyncExitStack() as stack:
            for number in range(NODES):
                await node_at(stack, servers[number % 3].url, f"n-{number}")
            urls = [server.url for server in servers]
            speakers = [
                Speaker(
                    await stack.enter_async_context(
                        Client(urls[number % 3 :] + urls[: number % 3], src="zh", tgt="en")
                    )
                )
                for number in range(CLIENTS)
            ]
            speaking = [asyncio.create_task(one.speak(lambda: is_over)) for one in speakers]
            mixtures = [await versions(store)]
            for number in range(3):
                old = servers[number]
                servers[number] = await replaced(store, old, f"{old.name}2")
                said = [one.asked for one in speakers]
                while any(one.asked < before + 5 for one, before in zip(speakers, said)):  # noqa: B905, ASYNC110
                    await asyncio.sleep(0.05)
                mixtures.append(await versions(store))
            is_over = True
            await asyncio.gather(*speaking)
            for one in speakers:
                expected = [("TranslationResult", index) for index in range(one.asked)]
                assert one.answers == expected
                assert one.client.duplicates == 0
            assert mixtures == [["1", "1", "1"], ["1", "1", "2"], ["1", "2", "2"], ["2", "2", "2"]]

    names = ("a", "b", "c")
    with valkey() as store, serving(store.url, *names, store__protocol_version=1) as servers:
        run(main(store, servers), limit_s=9 * LIMIT_S)
