"""
simsched's server: an utterance asked for, its job created, a node chosen, claimed and told.

The producer's process is a whole server (`simsched serve` on the same Redis as everybody) with one
session; utterances enter where a client's socket would hand them over. The worker's process is a
node that decodes each assignment and answers it, so that slots are freed as in real life.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from pacing import Arrivals, produce
from websockets.asyncio.client import ClientConnection, connect

from simsched import messages as m
from simsched.live.instance import Instance
from simsched.live.server import Server
from simsched.live.settings_files import load
from simsched.live.sinks import NullSink
from simsched.nodes import Health
from simsched.telemetry import Event, JobDispatched
from simsched.wire import decode_server_to_node, encode

NODE = "bench-node"
SLOTS = 1_000
HEARTBEAT_S = 5
AUDIO = bytes(3_000)
TYPES = ("asr", "nmt", "tts", "semantic")


class Sent(NullSink):
    """Tells a caller when its job has been handed to the node's socket."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def of(self, utterance: int) -> None:
        """Wait for the job of an utterance."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[utterance] = future
        await future

    def event(self, event: Event) -> None:
        """An assignment has left."""
        if isinstance(event, JobDispatched):
            future = self._waiting.pop(int(event.job.split(":")[1]), None)
            if future is not None and not future.done():
                future.set_result(None)


async def producer(port: int, redis_port: int) -> None:
    """A server with a generator of utterances inside."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    settings = load(None, {}, {"server.port": port, "store.redis_url": url})
    sent = Sent()
    async with Instance(settings, sinks=[sent]) as instance:
        server = Server(instance)
        await server.start()
        scheduler = instance.scheduler
        cluster = scheduler.state.cluster
        while not any(view.health is Health.READY for view in cluster.snapshot.nodes()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        hello = m.SessionInit(client_version="1", platform="bench", src_lang="en", tgt_lang="zh")
        session = scheduler.open_session(hello, audio_format="pcm16").session_id
        number = 0

        async def create(asked_ns: int) -> None:
            nonlocal number
            utterance = m.Utterance(
                session_id=session, utterance_index=number, manual_cut=True, src_lang="en",
                tgt_lang="zh", audio=AUDIO, audio_format="pcm16", sample_rate=16_000,
                trace_id=str(asked_ns),
            )  # fmt: skip
            number += 1
            if not scheduler.from_client(session, utterance):
                raise RuntimeError("the session is gone")
            await sent.of(utterance.utterance_index)

        await produce(create)
        await server.close()


async def worker(port: int, path: str) -> None:
    """A node that answers at once."""
    arrivals = Arrivals(path)
    for _ in range(500):
        try:
            async with connect(f"ws://127.0.0.1:{port}/ws/node", compression=None) as socket:
                await _work(socket, arrivals)
                return
        except OSError:
            await asyncio.sleep(0.02)


async def _work(socket: ClientConnection, arrivals: Arrivals) -> None:
    services = tuple(
        m.InstalledService(service_id=name, type=m.ServiceType(name), device=m.Device.GPU,
                           status=m.ServiceStatus.RUNNING)
        for name in TYPES
    )  # fmt: skip
    capabilities = tuple(m.Capability(type=m.ServiceType(name), ready=True) for name in TYPES)
    languages = m.LanguageCapabilities(
        asr_languages=("en", "zh"), tts_languages=("en", "zh"), semantic_languages=("en", "zh")
    )
    register = m.NodeRegister(
        node_id=NODE, version="1", platform="linux", capability_schema_version="2.0",
        hardware=m.Hardware(cpu_cores=1, memory_gb=1, gpus=(m.Gpu(name="g", memory_gb=1),)),
        installed_models=(), installed_services=services, capability_by_type=capabilities,
        features_supported={}, accept_public_jobs=True, language_capabilities=languages,
        slots=SLOTS,
    )  # fmt: skip
    await socket.send(encode(register), text=True)
    usage = m.ResourceUsage(cpu_percent=1, gpu_percent=1, mem_percent=1, running_jobs=0)
    beat = m.NodeHeartbeat(
        node_id=NODE,
        timestamp=1,
        resource_usage=usage,
        installed_services=services,
        capability_by_type=capabilities,
    )
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(_beat(socket, encode(beat)))
        async for frame in socket:
            message = decode_server_to_node(frame)
            if isinstance(message, m.JobAssign):
                arrivals.note(int(message.trace_id))
                await socket.send(encode(_answer(message)), text=True)
        beating.cancel()


async def _beat(socket: ClientConnection, frame: bytes) -> None:
    while True:
        await socket.send(frame, text=True)
        await asyncio.sleep(HEARTBEAT_S)


def _answer(job: m.JobAssign) -> m.JobResult:
    return m.JobResult(
        job_id=job.job_id, attempt_id=job.attempt_id, node_id=NODE, session_id=job.session_id,
        utterance_index=job.utterance_index, success=True, trace_id=job.trace_id, text_asr="hello",
        text_translated="hello",
    )  # fmt: skip


if __name__ == "__main__":
    role, ws_port = sys.argv[1], int(os.environ["BENCH_WS_PORT"])
    if role == "producer":
        uvloop.run(producer(ws_port, int(os.environ["BENCH_REDIS_PORT"])))
    else:
        uvloop.run(worker(ws_port, os.environ["BENCH_ARRIVALS"]))
