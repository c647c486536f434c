"""The store goes and comes back: refused fast, sessions stay, all recovers by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from simsched.live.redis_connection import RedisConnection
from simsched.live.runtime import LiveRuntime
from simsched.live.store import RedisStore
from simsched.messages import (
    ClientHeartbeat,
    JobAssign,
    JobResult,
    NodeHeartbeat,
    ResourceUsage,
    ServerHeartbeat,
    SessionInit,
    TranslationResult,
    UiEvent,
    Utterance,
)
from simsched.models.workers import CAPABILITIES, SERVICES, WorkerSpec
from simsched.pools import PoolConfig
from simsched.presets import parse_policy
from simsched.scheduler import Scheduler
from simsched.state import CoreSettings
from simsched.steps import Step
from simsched.telemetry import Operation
from tests.live.valkey import Kept, Valkey, play, until, valkey

DOWN = "SCHEDULER_DEPENDENCY_DOWN"
SESSION = "s-1"


class Links:
    """One client and one node that only listen."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.given: list[Any] = []

    def to_client(self, session_id: str, message: object) -> bool:
        self.heard.append(message)
        return True

    def has_client(self, session_id: str) -> bool:
        return True

    def to_node(self, node_id: str, message: object) -> bool:
        self.given.append(message)
        return True

    def broadcast(self, event: object) -> None:
        pass

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        return False

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[Any]:
        return []

    def refused(self) -> list[int]:
        """Utterances that the client was told are refused because the store is away."""
        events = [message for message in self.heard if isinstance(message, UiEvent)]
        return [event.utterance_index for event in events if event.error_code == DOWN]

    def assigned(self) -> list[JobAssign]:
        return [message for message in self.given if isinstance(message, JobAssign)]

    def results(self) -> list[str]:
        return [m.text_translated for m in self.heard if isinstance(m, TranslationResult)]


class One:
    """A whole core on the live runtime and a real store."""

    def __init__(self, runtime: LiveRuntime, links: Links, scheduler: Scheduler) -> None:
        self.runtime = runtime
        self.links = links
        self.scheduler = scheduler

    def beat(self, running: int = 0) -> None:
        usage = ResourceUsage(
            cpu_percent=1.0, gpu_percent=1.0, mem_percent=1.0, running_jobs=running
        )
        beat = NodeHeartbeat(
            node_id="n1", timestamp=self.runtime.now_ms(), resource_usage=usage,
            installed_services=SERVICES, capability_by_type=CAPABILITIES,
        )  # fmt: skip
        self.scheduler.from_node("n1", beat)

    def utter(self, index: int) -> None:
        message = Utterance(
            session_id=SESSION, utterance_index=index, manual_cut=True, src_lang="en",
            tgt_lang="zh", audio=bytes(3_200), audio_format="pcm16", sample_rate=16_000,
            trace_id=None,
        )  # fmt: skip
        assert self.scheduler.from_client(SESSION, message)

    def answer(self, job: JobAssign, text: str) -> None:
        result = JobResult(
            job_id=job.job_id, attempt_id=job.attempt_id, node_id="n1", session_id=SESSION,
            utterance_index=job.utterance_index, trace_id=job.trace_id, success=True,
            text_asr=text, text_translated=text,
        )  # fmt: skip
        self.scheduler.from_node("n1", result)


@asynccontextmanager
async def one_instance(server: Valkey, *, slots: int, timeout_s: float = 5.0) -> AsyncIterator[One]:
    connection = await RedisConnection.open(server.url, timeout_s=timeout_s)
    sink = Kept()
    runtime = LiveRuntime("i1", sink)
    runtime.store = RedisStore(connection, sink, runtime.now)
    runtime.links = links = Links()
    pools = PoolConfig(enabled=True, auto_generate_language_pools=True)
    scheduler = Scheduler(runtime, parse_policy("safe"), CoreSettings(pools=pools))
    connection.on_up.append(lambda: runtime.start(scheduler.store_returned(), name="returned"))
    spec = WorkerSpec(node_id="n1", slots=slots, languages=("en", "zh"), home=0)
    scheduler.register_node(spec.record())
    runtime.start(scheduler.run(), name="background")
    one = One(runtime, links, scheduler)
    one.beat()
    hello = SessionInit(client_version="1", platform="web", src_lang="en", tgt_lang="zh")
    scheduler.open_session(hello, session_id=SESSION)
    await connection.call("PING")
    try:
        yield one
    finally:
        await runtime.stop()
        await connection.close()


def test_with_the_store_down_utterances_are_refused_fast_and_all_recovers() -> None:
    """The session stays open and answers; the next utterance after the return is translated."""

    async def main() -> None:
        async with one_instance(server, slots=4) as one:
            links = one.links
            one.utter(0)
            await until(lambda: len(links.assigned()) == 1)
            one.answer(links.assigned()[0], "zero")
            await until(lambda: links.results() == ["zero"])

            server.kill()
            before = time.monotonic()
            for index in (1, 2, 3):
                one.utter(index)
            await until(lambda: set(links.refused()) == {1, 2, 3})
            assert time.monotonic() - before < 2.0
            one.scheduler.from_client(SESSION, ClientHeartbeat(session_id=SESSION, timestamp=1))
            assert isinstance(links.heard[-1], ServerHeartbeat)
            assert SESSION in one.scheduler.state.sessions

            server.start()  # empty: it knows no node, and the next heartbeat is far
            came_back = time.monotonic()
            store = one.runtime.store
            assert isinstance(store, RedisStore)
            await until(lambda: store.connection.is_up)
            one.utter(4)
            await until(lambda: len(links.assigned()) == 2)
            assert time.monotonic() - came_back < 5.0
            one.answer(links.assigned()[1], "four")
            await until(lambda: links.results() == ["zero", "four"])

    with valkey() as server:
        play(main)


def test_a_store_that_comes_back_empty_learns_who_holds_slots() -> None:
    """A node with two running jobs and two slots gets no third one from it."""

    async def main() -> None:
        async with one_instance(server, slots=2) as one:
            links = one.links
            one.utter(0)
            one.utter(1)
            await until(lambda: len(links.assigned()) == 2)
            server.kill()
            server.start()
            store = one.runtime.store
            assert isinstance(store, RedisStore)
            await until(lambda: store.connection.is_up)
            one.utter(2)
            await asyncio.sleep(0.3)
            assert len(links.assigned()) == 2
            assert await store.connection.call("ZCARD", "{cell}:leases:n1") == 2
            one.answer(links.assigned()[0], "zero")
            await until(lambda: len(links.assigned()) == 3)
            assert links.results() == ["zero"]

    with valkey() as server:
        play(main)


def test_a_claim_without_an_answer_gives_its_slot_back() -> None:
    """The server did it after the caller had gone: the refused utterance holds no slot."""

    async def main() -> None:
        async with one_instance(server, slots=1, timeout_s=0.2) as one:
            links = one.links
            store = one.runtime.store
            assert isinstance(store, RedisStore)
            server.freeze()
            one.utter(0)
            await until(lambda: links.refused() == [0])
            server.thaw()
            await until(lambda: store.connection.is_up)
            counts = one.runtime.sink
            assert isinstance(counts, Kept)
            await until(lambda: counts.counts.get("claims_given_up") == 1)
            one.utter(1)
            await until(lambda: len(links.assigned()) == 1)
            assert links.assigned()[0].utterance_index == 1

    with valkey() as server:
        play(main)
