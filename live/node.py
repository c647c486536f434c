"""
The node agent: offers an engine to a scheduler, runs the jobs that it is given, and answers.

Rules:

- at most `slots` jobs run at once; what comes beyond is refused with NODE_OVERLOADED;
- fences: an attempt older than the last one seen of its job is refused, the same one again is
  passed over, and a newer one cancels an older that still runs. A cancelled job has no answer,
  and what takes its slot waits until the engine has let go of it;
- any other assignment has one answer: what ends while the scheduler is away is kept, bounded, and
  sent when it is back, after the registration that names what still runs;
- the connection comes back by itself, with growing, jittered pauses; a refusal that trying again
  cannot mend ends the agent with one line;
- asked to stop, it says that it is ready for nothing, finishes what runs within a deadline,
  answers NODE_UNAVAILABLE for the rest, and leaves.

It knows no scheduling: which job comes is the scheduler's business, what a job means the engine's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from simsched import wire
from simsched.errors import MessageError, SimschedError
from simsched.live.dialling import Backoff, Refused, check_close, dial, reason_of, refused
from simsched.live.engine_results import EngineFailure
from simsched.live.engines import Engine, answer
from simsched.live.node_answers import done, failed, unix_ms
from simsched.live.node_profile import NodeOptions, capabilities, registration, services
from simsched.live.vitals import Vitals, memory_percent
from simsched.messages import (
    Error,
    ErrorCode,
    JobAck,
    JobAssign,
    JobCancel,
    JobResult,
    JobStarted,
    NodeHeartbeat,
    NodeRegister,
    NodeRegisterAck,
    ResourceUsage,
    RunningJob,
)
from simsched.messages.values import Message

ACK_LIMIT_S: Final = 10.0
KEPT_RESULTS_MAX: Final = 256
"""Answers that wait for the scheduler to come back; the oldest give way."""

FENCES_MAX: Final = 10_000
"""Jobs whose last attempt is remembered."""

FRAME_BYTES_MAX: Final = 64 << 20
"""An assignment holds a whole utterance as base64, and a client's may be long."""

_FATAL: Final = (
    ErrorCode.INVALID_CAPABILITY_SCHEMA, ErrorCode.NO_GPU_AVAILABLE, ErrorCode.INVALID_MESSAGE,
    "UNAUTHENTICATED",
)  # fmt: skip
"""Refusals of a registration that stay refusals; a name in use may become free."""


@dataclass(slots=True)
class _Run:
    """One attempt at work."""

    job: JobAssign
    task: asyncio.Task[None]


class NodeAgent:
    """
    One node.

    Args:
        options: what it is and where its scheduler is.
        engine: what it does with a job.
        say: takes one line for a person; nothing is said by default.

    Attributes:
        node_id: its name; "" until the scheduler gave it one.
        connected: set while it is registered.
        done: jobs answered since the start, refusals not counted.

    """

    def __init__(
        self, options: NodeOptions, engine: Engine, *, say: Callable[[str], None] | None = None
    ) -> None:
        self._options = options
        self._engine = engine
        self._say = say or (lambda _line: None)
        self.node_id = options.node_id or ""
        self.connected = asyncio.Event()
        self.done = 0
        self._socket: ClientConnection | None = None
        self._running: dict[str, _Run] = {}
        self._fences: OrderedDict[str, int] = OrderedDict()
        self._kept: deque[JobResult] = deque(maxlen=KEPT_RESULTS_MAX)
        self._stopping = False
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._slots = asyncio.Semaphore(options.slots)
        self._vitals = Vitals()

    @property
    def running(self) -> tuple[RunningJob, ...]:
        """What it works on, oldest first."""
        return tuple(
            RunningJob(job_id=run.job.job_id, attempt_id=run.job.attempt_id)
            for run in self._running.values()
        )

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """
        Work until `stop` is set, then finish what runs and leave.

        Raises:
            Refused: the scheduler will not have this node, and says why.

        """
        stop = stop or asyncio.Event()
        staying = asyncio.create_task(self._stay(), name="node connection")
        stopping = asyncio.create_task(stop.wait(), name="node stop")
        try:
            await asyncio.wait({staying, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await self._finish()
        finally:
            await ended(stopping)
            failure = await ended(staying)
            await self._drop_work()
            await self._close_engine()
        if failure is not None:
            raise failure

    # The connection

    async def _stay(self) -> None:
        """Connect, serve, and connect again."""
        backoff = Backoff(random.random)
        while True:
            try:
                socket = await dial(
                    self._options.url, self._options.token, frame_bytes_max=FRAME_BYTES_MAX
                )
                async with socket:
                    await self._register(socket)
                    backoff.reset()
                    await self._serve(socket)
                reason = f"closed by the scheduler ({socket.close_code})"
            except Refused:
                raise
            except (OSError, TimeoutError, ConnectionClosed, MessageError, _NotYet) as error:
                reason = reason_of(error)
            finally:
                self._socket = None
                self.connected.clear()
            pause_s = backoff.next_s()
            self._say(f"disconnected: {reason}; again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)

    async def _register(self, socket: ClientConnection) -> None:
        hello = registration(self._options, self.node_id, self.running)
        self.node_id = await _introduced(socket, hello)
        self._socket = socket
        await self._send(self._heartbeat())
        for _ in range(len(self._kept)):
            await self._deliver(self._kept.popleft())
        self.connected.set()
        self._say(f"registered as {self.node_id}, {self._options.slots} slots")

    async def _serve(self, socket: ClientConnection) -> None:
        """Take messages until the connection ends."""
        beating = asyncio.create_task(self._beat(), name="node heartbeat")
        try:
            async for frame in socket:
                with suppress(MessageError):  # a newer scheduler may say more than we understand
                    await self._take(wire.decode_server_to_node(frame))
        finally:
            await ended(beating)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat_s)
            await self._send(self._heartbeat())

    async def _send(self, message: Message) -> bool:
        """Hand a message to the socket; False if there is none any more."""
        socket = self._socket
        if socket is None:
            return False
        try:
            await socket.send(wire.encode(message).decode())
        except ConnectionClosed:
            self.connected.clear()
            return False
        return True

    async def _deliver(self, result: JobResult) -> None:
        """Send an answer, or keep it until the scheduler is back."""
        if not await self._send(result):
            self._kept.append(result)

    # Jobs

    async def _take(self, message: object) -> None:
        if isinstance(message, JobAssign):
            await self._assigned(message)
        elif isinstance(message, JobCancel):
            self._cancel(message.job_id)
        elif isinstance(message, Error):
            self._say(f"the scheduler complains: {message.code}: {message.message}"[:300])

    async def _assigned(self, job: JobAssign) -> None:
        seen = self._fences.get(job.job_id, 0)
        if job.attempt_id == seen:
            # Repeated on its way. A refusal would be taken for the answer to the first.
            return
        if job.attempt_id < seen:
            text = f"attempt {job.attempt_id} after attempt {seen}"
            await self._deliver(failed(job, self.node_id, EngineFailure("STALE_ATTEMPT", text)))
            return
        self._fences[job.job_id] = job.attempt_id
        self._fences.move_to_end(job.job_id)
        while len(self._fences) > FENCES_MAX:
            self._fences.popitem(last=False)
        self._cancel(job.job_id)
        if self._stopping:
            failure = EngineFailure(ErrorCode.NODE_UNAVAILABLE, "the node is leaving")
            await self._deliver(failed(job, self.node_id, failure))
        elif len(self._running) >= self._options.slots:
            text = f"all {self._options.slots} slots are taken"
            failure = EngineFailure(ErrorCode.NODE_OVERLOADED, text)
            await self._deliver(failed(job, self.node_id, failure))
        else:
            # In the books before anything waits: the next frame must see the slot taken.
            task = asyncio.create_task(self._work(job), name=f"job {job.job_id}")
            self._running[job.job_id] = _Run(job, task)
            self._tasks[task] = None
            task.add_done_callback(self._tasks.pop)
            await self._announce(job)

    async def _announce(self, job: JobAssign) -> None:
        """The node has the job, and is on it."""
        for kind in (JobAck, JobStarted):
            await self._send(
                kind(
                    job_id=job.job_id,
                    attempt_id=job.attempt_id,
                    node_id=self.node_id,
                    session_id=job.session_id,
                    trace_id=job.trace_id,
                )
            )

    async def _work(self, job: JobAssign) -> None:
        # The slot of a cancelled job is free in the books before its engine has let go.
        async with self._slots:
            started_s = time.monotonic()
            try:
                outcome = await answer(self._engine, job)
            finally:
                self._leave(job)
        if isinstance(outcome, EngineFailure):
            result = failed(job, self.node_id, outcome)
        else:
            took_ms = round((time.monotonic() - started_s) * 1000)
            result = done(job, self.node_id, outcome, took_ms)
        self.done += 1
        await self._deliver(result)

    def _leave(self, job: JobAssign) -> None:
        """Free the slot of this attempt; a newer one of the same job keeps its own."""
        run = self._running.get(job.job_id)
        if run is not None and run.job is job:
            del self._running[job.job_id]

    def _cancel(self, job_id: str) -> None:
        run = self._running.pop(job_id, None)
        if run is not None:
            run.task.cancel()

    def _heartbeat(self) -> NodeHeartbeat:
        usage = ResourceUsage(
            cpu_percent=self._vitals.cpu_percent(),
            mem_percent=memory_percent(),
            gpu_percent=0.0 if self._options.gpu else None,
            running_jobs=len(self._running),
        )
        return NodeHeartbeat(
            node_id=self.node_id,
            timestamp=unix_ms(),
            resource_usage=usage,
            installed_services=services(self._options),
            capability_by_type=capabilities(self._options, ready=not self._stopping),
        )

    # Leaving

    async def _finish(self) -> None:
        """Take nothing new, finish what runs, hand over what could not be finished."""
        self._stopping = True
        self._say(f"leaving: {len(self._running)} jobs to finish")
        await self._send(self._heartbeat())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)
                if self._kept:
                    await self.connected.wait()
        for run in list(self._running.values()):
            self._cancel(run.job.job_id)
            failure = EngineFailure(ErrorCode.NODE_UNAVAILABLE, "the node left before it was done")
            await self._deliver(failed(run.job, self.node_id, failure))

    async def _drop_work(self) -> None:
        """However it ends, no engine is left at work."""
        for task in list(self._tasks):
            await ended(task)
        self._running.clear()

    async def _close_engine(self) -> None:
        close: Callable[[], Coroutine[Any, Any, None]] | None = getattr(self._engine, "close", None)
        if close is not None:
            await close()


class _NotYet(SimschedError):
    """The registration was refused for now."""


async def _introduced(socket: ClientConnection, hello: NodeRegister) -> str:
    """Say hello; the name under which the scheduler took the node in."""
    try:
        await socket.send(wire.encode(hello).decode())
        async with asyncio.timeout(ACK_LIMIT_S):
            while True:
                message = wire.decode_server_to_node(await socket.recv())
                if isinstance(message, NodeRegisterAck):
                    return message.node_id
                if isinstance(message, Error):
                    break
    except ConnectionClosed as closed:
        check_close(closed)
        raise
    if message.code in _FATAL:
        raise refused(message.code, message.message)
    raise _NotYet(f"{message.code}: {message.message}")


async def ended(task: asyncio.Task[Any]) -> BaseException | None:
    """Cancel a task and wait for its end; returns what it failed with, if it had failed."""
    task.cancel()
    await asyncio.wait({task})
    return None if task.cancelled() else task.exception()


async def main(
    options: NodeOptions, engine: Engine, stop: asyncio.Event, say: Callable[[str], None]
) -> None:
    """
    Run one node until `stop` is set.

    Raises:
        Refused: the scheduler will not have it.

    """
    await NodeAgent(options, engine, say=say).run(stop)
