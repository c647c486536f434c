"""
A few instances of the core on doubles: a store without costs, nodes and clients that only listen.

    core = Core("safe")
    core.node("n1")
    core.play(scenario)          # async def scenario(core): ...

The same scenario runs on SimPy and on asyncio (`world="asyncio"`). Everything that leaves an
instance is kept in order: `core.heard` (clients), `core.given` (nodes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simsched.errors import StoreUnavailable
from simsched.inbox import InboxEvent
from simsched.messages import (
    AudioChunk,
    JobAssign,
    JobCancel,
    JobResult,
    NodeFailure,
    NodeHeartbeat,
    ResourceUsage,
    SessionClose,
    SessionInit,
    TranslationResult,
    UiEvent,
    Utterance,
)
from simsched.models.charges import FixedCharge
from simsched.models.keyspace import LuaKeySpace
from simsched.models.record import OperationRecorder, StepRecorder
from simsched.models.runtime import EPOCH_MS, SimRuntime
from simsched.models.tasks import Kernel
from simsched.models.workers import CAPABILITIES, SERVICES, WorkerSpec
from simsched.pools import PoolConfig
from simsched.ports import Reply, Runtime
from simsched.presets import parse_policy
from simsched.scheduler import Scheduler
from simsched.state import CoreSettings, Session
from simsched.steps import CATALOGUE, Step
from simsched.telemetry import Event, Operation
from simsched.units import MS, SECOND
from tests.conformance.asyncio_runtime import SeededRuntime

Calls = Callable[..., Awaitable[Reply]]

CHUNK = bytes(3_200)
"""100 ms of PCM."""


class Notes:
    """A telemetry port that keeps everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.counts: dict[str, int] = {}

    def event(self, event: Event) -> None:
        self.events.append(event)

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class DoubleStore:
    """
    One key space for all instances; each call may take time or fail.

    `delay_ns(step)` is waited before the call takes effect and again before its answer arrives;
    `down(step)` says that it gets no answer, `deaf(step)` that it is executed and its answer lost.
    """

    def __init__(self, keys: LuaKeySpace, runtime: Runtime) -> None:
        self._keys = keys
        self._runtime = runtime
        self.calls: list[tuple[str, int]] = []
        self.delay_ns: Callable[[Step], int] = lambda _step: 0
        self.down: Callable[[Step], bool] = lambda _step: False
        self.deaf: Callable[[Step], bool] = lambda _step: False

    async def command(self, step: Step, op: Operation, *words: str | int, site: int = 0) -> Reply:
        return await self._call(step, site, lambda now: self._keys.command(now, *words))

    async def script(
        self,
        step: Step,
        op: Operation,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | int],
        *,
        site: int = 0,
    ) -> Reply:
        return await self._call(step, site, lambda now: self._keys.script(now, name, keys, args))

    async def pipeline(
        self, step: Step, op: Operation, commands: Sequence[Sequence[str | int]]
    ) -> list[Reply]:
        reply = await self._call(
            step, 0, lambda now: [self._keys.command(now, *command) for command in commands]
        )
        assert isinstance(reply, list)
        return reply

    async def _call(self, step: Step, site: int, action: Callable[[int], Reply]) -> Reply:
        self.calls.append((step.name, site))
        half = self.delay_ns(step)
        if half:
            await self._runtime.sleep(half)
        if self.down(step):
            raise StoreUnavailable(step.name)
        reply = action(EPOCH_MS * 1_000 + self._runtime.now() // 1_000)
        if half:
            await self._runtime.sleep(half)
        if self.deaf(step):
            raise StoreUnavailable(step.name)
        return reply


class DoubleLinks:
    """Messages out of one instance, noted; nodes and clients hear them at once."""

    def __init__(self, core: Core, number: int) -> None:
        self._core = core
        self._number = number

    def to_client(self, session_id: str, message: object) -> bool:
        core = self._core
        core.heard.append((core.now_ms(), session_id, message))
        return True

    def has_client(self, session_id: str) -> bool:
        return session_id in self._core.schedulers[self._number].state.sessions

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[InboxEvent]:
        return []

    def to_node(self, node_id: str, message: object) -> bool:
        core = self._core
        if core.homes.get(node_id) != self._number:
            return False
        core.given.append((core.now_ms(), node_id, message))
        core.on_given(node_id, message)
        return True

    def broadcast(self, event: object) -> None:
        for number, scheduler in enumerate(self._core.schedulers):
            if number != self._number:
                scheduler.from_instance(event)  # type: ignore[arg-type]

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        for scheduler in self._core.schedulers:
            if scheduler.runtime.instance_id == instance_id:
                store = self._core.stores[self._number]
                await store.command(step, op, "XADD", f"inbox:{instance_id}", "*", "payload", "e")
                scheduler.from_instance(event)  # type: ignore[arg-type]
                return True
        return False


@dataclass
class StepNote:
    """One execution of a step, store calls included."""

    kind: int
    name: str
    site: int
    op: int


class Core:
    """Instances of the core in one of the two worlds."""

    def __init__(
        self,
        policy: str = "safe",
        *,
        instances: int = 1,
        shared: bool | None = None,
        world: str = "sim",
        charge_ns: int = 0,
        **settings: Any,
    ) -> None:
        self.policy = parse_policy(policy)
        self.world = world
        self.notes = Notes()
        self.heard: list[tuple[int, str, Any]] = []
        self.given: list[tuple[int, str, Any]] = []
        self.homes: dict[str, int] = {}
        self.specs: dict[str, WorkerSpec] = {}
        self.on_given: Callable[[str, object], None] = lambda _node, _message: None
        self.steps: list[StepNote] = []
        self._charge_ns = charge_ns
        self._kernel = Kernel() if world == "sim" else None
        self._runtimes: list[Any] = []
        self.stores: list[DoubleStore] = []
        self.schedulers: list[Scheduler] = []
        keys = LuaKeySpace()
        core_settings = CoreSettings(
            shared=instances > 1 if shared is None else shared,
            pools=PoolConfig(enabled=True, auto_generate_language_pools=True),
            remote_refresh_ns=0,
            **settings,
        )
        for number in range(instances):
            runtime = self._runtime(number)
            runtime.store = DoubleStore(keys, runtime)
            runtime.links = DoubleLinks(self, number)
            runtime.telemetry = self.notes
            self._spy(runtime)
            self.stores.append(runtime.store)
            self._runtimes.append(runtime)
            self.schedulers.append(Scheduler(runtime, self.policy, core_settings))

    def _runtime(self, number: int) -> Any:
        if self._kernel is None:
            loop = self._runtimes[0].jumping if number else None
            live = SeededRuntime(f"i-{number}", loop)
            live.now_ms = lambda: EPOCH_MS + live.now() // MS  # type: ignore[method-assign]
            return live
        operations = OperationRecorder()
        return SimRuntime(
            self._kernel, f"i-{number}", charges=[FixedCharge(self._charge_ns)] * len(CATALOGUE),
            steps=StepRecorder(operations=operations), operations=operations,
            telemetry=self.notes, run_key=1, cores=4, index=number,
        )  # fmt: skip

    def _spy(self, runtime: Any) -> None:
        step_of, store = runtime.step, runtime.store
        command_of: Calls = store.command
        script_of: Calls = store.script

        def step(step: Step, op: Operation, *, site: int = 0, n: int = 0, key: str = "") -> Any:
            self.steps.append(StepNote(op.kind, step.name, site, op.id))
            return step_of(step, op, site=site, n=n, key=key)

        async def command(step: Step, op: Operation, *words: Any, site: int = 0) -> Reply:
            self.steps.append(StepNote(op.kind, step.name, site, op.id))
            return await command_of(step, op, *words, site=site)

        async def script(step: Step, op: Operation, *args: Any, site: int = 0) -> Reply:
            self.steps.append(StepNote(op.kind, step.name, site, op.id))
            return await script_of(step, op, *args, site=site)

        runtime.step, store.command, store.script = step, command, script

    # Who is there

    def node(self, node_id: str, *, home: int = 0, slots: int = 1, **spec: Any) -> None:
        """A node connects, and is ready once the scenario runs."""
        languages = spec.pop("languages", ("en", "zh"))
        self.specs[node_id] = WorkerSpec(
            node_id=node_id, slots=slots, languages=languages, home=home, **spec
        )
        self.homes[node_id] = home
        self.schedulers[home].register_node(self.specs[node_id].record())

    def beat(self, node_id: str, running: int = 0, **more: Any) -> None:
        """One heartbeat."""
        beat = NodeHeartbeat(
            node_id=node_id, timestamp=self.now_ms(),
            resource_usage=ResourceUsage(
                cpu_percent=1.0, gpu_percent=1.0, mem_percent=1.0, running_jobs=running
            ),
            installed_services=SERVICES, capability_by_type=CAPABILITIES, **more,
        )  # fmt: skip
        self.schedulers[self.homes[node_id]].from_node(node_id, beat)

    async def drop(self, node_id: str) -> None:
        """The node's socket closes."""
        home = self.homes.pop(node_id)
        await self.schedulers[home].node_disconnected(node_id)

    def open(self, session_id: str = "s-1", *, home: int = 0, **init: Any) -> Session:
        """A client says hello."""
        hello = {"client_version": "1", "platform": "web", "src_lang": "en", "tgt_lang": "zh"}
        scheduler = self.schedulers[home]
        scheduler.open_session(SessionInit(**{**hello, **init}), session_id=session_id)
        return scheduler.state.sessions[session_id]

    def tell(self, message: object, session_id: str = "s-1", *, home: int = 0, **how: Any) -> bool:
        """A client's message."""
        return self.schedulers[home].from_client(session_id, message, **how)

    def chunk(
        self, session_id: str = "s-1", payload: bytes = CHUNK, *, final: bool = False, **more: Any
    ) -> bool:
        """A piece of audio, 100 ms of it."""
        home = more.pop("home", 0)
        return self.tell(
            AudioChunk(session_id=session_id, seq=0, is_final=final, payload=payload, **more),
            session_id, home=home,
        )  # fmt: skip

    def utter(self, index: int = 0, session_id: str = "s-1", *, home: int = 0, **how: Any) -> None:
        """A whole utterance."""
        tgt = how.pop("tgt_lang", "zh")
        trace = how.pop("trace_id", None)
        message = Utterance(
            session_id=session_id, utterance_index=index, manual_cut=True, src_lang="en",
            tgt_lang=tgt, audio=CHUNK, audio_format="pcm16", sample_rate=16_000, trace_id=trace,
        )  # fmt: skip
        self.tell(message, session_id, home=home, **how)

    def close(self, session_id: str = "s-1", *, home: int = 0) -> None:
        """The client says goodbye."""
        self.tell(SessionClose(session_id=session_id, reason="done"), session_id, home=home)

    def answer(self, assigned: JobAssign, node_id: str, text: str = "x", **more: Any) -> None:
        """The node's result of a job."""
        fields: dict[str, Any] = {"success": True, "text_asr": text, "text_translated": text}
        fields |= more
        home = self.homes.get(node_id, self.specs[node_id].home)
        self.schedulers[home].from_node(
            node_id,
            JobResult(
                job_id=assigned.job_id, attempt_id=assigned.attempt_id, node_id=node_id,
                session_id=assigned.session_id, utterance_index=assigned.utterance_index,
                trace_id=assigned.trace_id, **fields,
            ),
        )  # fmt: skip

    def fail(self, assigned: JobAssign, node_id: str, code: str, **details: Any) -> None:
        """The node could not do it."""
        error = NodeFailure(code=code, message=code, details=details or None)
        self.answer(
            assigned, node_id, success=False, text_asr=None, text_translated=None, error=error
        )

    # What happened

    def assigned(self) -> list[tuple[str, JobAssign]]:
        """Assignments in the order in which nodes got them."""
        return [(node, m) for _, node, m in self.given if isinstance(m, JobAssign)]

    def cancelled(self) -> list[tuple[str, JobCancel]]:
        """Cancellations in the order in which nodes got them."""
        return [(node, m) for _, node, m in self.given if isinstance(m, JobCancel)]

    def told(self, kind: type, session_id: str = "") -> list[Any]:
        """What clients heard of one kind."""
        return [m for _, s, m in self.heard if isinstance(m, kind) and session_id in ("", s)]

    def story(self, session_id: str = "s-1") -> list[str]:
        """What one client heard, by name and in order."""
        return [word(m) for _, s, m in self.heard if s == session_id]

    def sequence(self, kind: int) -> list[str]:
        """The steps of all operations of one kind, in order."""
        return [note.name for note in self.steps if note.kind == kind]

    # Playing

    def now_ms(self) -> int:
        """Milliseconds since the scenario began."""
        return self._runtimes[0].now() // MS  # type: ignore[no-any-return]

    async def at(self, at_ms: float) -> None:
        """Wait for a moment of the scenario."""
        now = self._runtimes[0].now()
        await self._runtimes[0].sleep(int(at_ms * MS) - now)

    async def settle(self, ms: float = 1) -> None:
        """Let everybody go on for a moment."""
        await self._runtimes[0].sleep(int(ms * MS))

    def start(self, coro: Any) -> Any:
        """A task beside the scenario."""
        return self._runtimes[0].start(coro, name="scenario")

    def leases(self, node_id: str) -> list[str]:
        """Which attempts hold a slot of a node in the store, lapsed ones too."""
        key = f"{{cell}}:leases:{node_id}"
        members = self.stores[0]._keys.command(EPOCH_MS * 1_000, "ZRANGE", key, 0, -1)
        assert isinstance(members, list)
        return [str(member, "ascii") for member in members if isinstance(member, bytes)]

    def play(self, scenario: Callable[[Core], Awaitable[None]]) -> None:
        """Run a scenario to its end."""

        async def main() -> None:
            for scheduler in self.schedulers:
                scheduler.runtime.start(scheduler.run(), name="background")
            for node_id in self.specs:
                self.beat(node_id)
            await scenario(self)

        first = self._runtimes[0]
        try:
            if self._kernel is not None:
                self._kernel.run(main())
            else:
                first.run(main())
        finally:
            (self._kernel or first).close()


def word(message: object) -> str:
    """One message in a few letters."""
    if isinstance(message, UiEvent):
        code = f" {message.error_code}" if message.error_code else ""
        return f"{message.event}{code} {message.utterance_index}"
    if isinstance(message, TranslationResult):
        return f"result {message.utterance_index} {message.text_translated}"
    name = type(message).__name__
    code = getattr(message, "code", "")
    return f"{name} {code}".strip()


def left_over(scheduler: Scheduler) -> dict[str, int]:
    """What an instance still remembers of sessions and jobs."""
    state = scheduler.state
    held = {
        "sessions": len(state.sessions), "jobs": len(state.book.jobs),
        "pending": len(state.pending), "utterance_nodes": len(state.utterance_nodes),
        "utterance_jobs": len(state.utterance_jobs), "node_jobs": len(state.node_jobs),
        "passed_on": len(state.passed_on), "groups": len(state.groups),
        "rooms": len(state.rooms),
    }  # fmt: skip
    return {name: count for name, count in held.items() if count}


__all__ = ["CHUNK", "MS", "SECOND", "Core", "Notes", "left_over", "word"]
