"""
One scheduler instance, wired: what reaches it from clients, nodes and other instances.

`Scheduler` is the door that both worlds knock at. It opens and closes sessions, takes messages and
hands each to the shell that knows it. It starts no loop by itself: `run` is the instance's
background work, started by the world through the same handle as everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from simsched import steps
from simsched.chance import key_of
from simsched.delivery import Delivery
from simsched.dispatch import JobDispatcher
from simsched.inbox import DispatchToNode, ForwardResult, InboxEvent, NodeSeen, SendToSession
from simsched.jobs import Job, JobRequest, JobStatus, request_id
from simsched.messages import (
    AudioChunk,
    JobAck,
    JobAssign,
    JobCancel,
    JobResult,
    NodeHeartbeat,
    SessionClose,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    TtsPlayEnded,
    TtsStarted,
    UiEventType,
    Utterance,
)
from simsched.nodes import Health, InstalledService, NodeRecord, Signal
from simsched.policy import Policy
from simsched.ports import Runtime
from simsched.recovery import Recovery
from simsched.result_queue import Discipline, RoomResults, result_queue
from simsched.results import ResultHandler
from simsched.session import ChunkReceived, CloseSession, PlaybackMoved, SessionActor
from simsched.state import CoreSettings, InstanceState, Session
from simsched.telemetry import (
    NodeOffline,
    NodeRegistered,
    Operation,
    OpKind,
    SessionClosed,
    SessionOpened,
    SlotsForgotten,
    UtteranceCut,
)
from simsched.units import MS

PASSED_ON_MAX: Final = 100_000
"""Assignments of other instances' jobs whose request is remembered, until their result passes."""


class Scheduler:
    """The scheduling core of one instance."""

    def __init__(self, runtime: Runtime, policy: Policy, settings: CoreSettings) -> None:
        self.state = InstanceState(runtime, policy, settings)
        self.runtime = runtime
        self._policy = policy
        self._settings = settings
        self._delivery = Delivery(self.state)
        self.dispatcher = JobDispatcher(self.state, self._delivery)
        self.recovery = Recovery(self.state, self.dispatcher, self._delivery)
        self._results = ResultHandler(self.state, self.dispatcher, self._delivery, self.recovery)
        self._entity = key_of("instance", runtime.instance_id)
        self._remote_views: dict[str, NodeSeen] = {}
        self._sessions_opened = 0
        self._owns_sessions = settings.shared and policy.result_routing == "session_owner"
        self._receivers: dict[type, Callable[[Session, Any], None]] = {
            AudioChunk: self._audio_chunk,
            Utterance: self._utterance,
            TtsStarted: self._tts_started,
            TtsPlayEnded: self._tts_ended,
            SessionClose: self._session_close,
        }

    async def run(self) -> None:
        """The background work of the instance."""
        async with self.runtime.scope() as scope:
            scope.spawn(self.recovery.run(), name="scan")
            if self._owns_sessions:
                scope.spawn(self._renew_owners(), name="owners")
            if self._settings.shared and self._settings.remote_refresh_ns:
                scope.spawn(self._refresh_remote_nodes(), name="refresh")

    # Sessions

    def open_session(
        self, init: SessionInit, *, session_id: str = "", audio_format: str = "opus"
    ) -> SessionInitAck:
        """
        A client says hello; its actor starts.

        Args:
            init: the client's message.
            session_id: given when a session is resumed on this instance; else a new one is made.
            audio_format: what the client will send; the reference always says opus.

        """
        runtime, policy = self.runtime, self._policy
        self._sessions_opened += 1
        name = session_id or runtime.chance.hex_id(
            "s-", 8, "session", runtime.instance_id, self._sessions_opened
        )
        session = Session(
            name,
            key_of("session", name),
            init.src_lang,
            init.tgt_lang,
            trace_id=init.trace_id or name,
            tenant_id=init.tenant_id,
            audio_format=audio_format,
            results=result_queue(
                Discipline(policy.result_order),
                room_results=RoomResults(policy.room_results),
                gap_ns=policy.gap_ms * MS,
            ),
        )
        actor = SessionActor(self.state, session, self.dispatcher, self._delivery, self._jobs_made)
        session.actor = actor
        self.state.sessions[name] = session
        session.actor_task = runtime.start(actor.run(), name=f"session {name}")
        if self._owns_sessions:
            runtime.start(self._own(name), name=f"own {name}")
        self.state.emit(
            SessionOpened(at_ns=runtime.now(), instance=runtime.instance_id, session=name)
        )
        return SessionInitAck(session_id=name, message="session created", trace_id=session.trace_id)

    async def _own(self, session_id: str) -> None:
        """Say in the store that the session is connected here, so that its results find it."""
        op = self._control()
        await self.state.store.own(op, "session", session_id)
        self.runtime.end(op)

    async def _renew_owners(self) -> None:
        """All local sessions, one by one, every heartbeat (domain 5.5)."""
        while True:
            await self.runtime.sleep(self._settings.heartbeat_ns)
            for session_id in list(self.state.sessions):
                await self._own(session_id)

    def from_client(
        self, session_id: str, message: object, *, patience_ns: int | None = None
    ) -> bool:
        """
        A message of a client; False if its session is not here.

        `patience_ns` bounds the wait for a node of an utterance that comes whole.
        """
        session = self.state.sessions.get(session_id)
        if session is None or session.closing:
            return False
        if isinstance(message, Utterance):
            self._utterance(session, message, patience_ns)
            return True
        receiver = self._receivers.get(type(message))
        if receiver is not None:
            receiver(session, message)
        return True

    def _audio_chunk(self, session: Session, message: AudioChunk) -> None:
        assert session.actor is not None
        taken = session.actor.post(
            ChunkReceived(message.payload, message.is_final, self.runtime.now())
        )
        if not taken:
            self.runtime.telemetry.count("audio_chunks_refused")

    def _utterance(
        self, session: Session, message: Utterance, patience_ns: int | None = None
    ) -> None:
        self.runtime.start(self._whole_utterance(session, message, patience_ns), name="utterance")

    async def _whole_utterance(
        self, session: Session, message: Utterance, patience_ns: int | None
    ) -> None:
        """An utterance that the client cut and numbered itself (domain 2.9)."""
        now, index = self.runtime.now(), message.utterance_index
        session.audio_bytes_in += len(message.audio)
        session.audio_bytes_cut += len(message.audio)
        self.state.emit(
            UtteranceCut(
                at_ns=now, instance=self.runtime.instance_id, session=session.session_id,
                utterance=index, reason="Utterance", audio_bytes=len(message.audio), audio_ms=0,
                first_audio_ns=now, last_audio_ns=now, silence_ns=0, gap_ns=0, hangover_ns=0,
            )
        )  # fmt: skip
        targets = self.state.rooms.targets(session.session_id, message.tgt_lang)
        self._delivery.expect(session, index, tuple(targets))
        trace = message.trace_id or session.trace_id
        for language, members in targets.items():
            request = JobRequest(
                request_id=request_id(session.session_id, index, language, trace),
                session_id=session.session_id,
                session_key=session.key,
                utterance=index,
                source_language=message.src_lang,
                target_language=language,
                audio=message.audio,
                audio_format=message.audio_format,
                audio_ms=0,
                trace_id=trace,
                tenant_id=session.tenant_id,
                preferred_node=session.preferred_node,
                targets=members,
                cut_ns=now,
                features=session.features,
                pending_ns=patience_ns,
            )
            job = await self.dispatcher.create_job(request)
            if self.state.book.get(job.job_id) is not job:
                self._delivery.elsewhere(session, index, language)
            await self.dispatcher.dispatch(job)
            self._jobs_made([job])

    def _jobs_made(self, jobs: list[Job]) -> None:
        for job in jobs:
            if not job.ended and not job.dispatched and job.deadline_ns:
                self.recovery.waits(job)

    def _tts_started(self, session: Session, message: TtsStarted) -> None:
        self.state.groups.on_tts_started(message.group_id, self.runtime.now_ms())
        self._playback_moved(session)

    def _tts_ended(self, session: Session, message: TtsPlayEnded) -> None:
        now_ms = self.runtime.now_ms()
        self.state.groups.on_tts_ended(message.group_id, message.ts_end_ms, now_ms)
        self._playback_moved(session)

    def _playback_moved(self, session: Session) -> None:
        assert session.actor is not None
        session.actor.post(PlaybackMoved())

    def _session_close(self, session: Session, _message: SessionClose) -> None:
        session.closing = True
        self.runtime.start(self._close_session(session), name="close")

    async def _close_session(self, session: Session) -> None:
        """Finish what was said, then forget the session; the reference drops it first (B11)."""
        assert session.actor is not None
        assert session.actor_task is not None
        if self._policy.session_close == "drop":
            self._forget_session(session)
        session.actor.post(CloseSession())
        await session.actor_task.join()
        if session.session_id in self.state.sessions:
            if session.jobs_open > 0:
                session.closed = True
                return
            self._forget_session(session)

    def _forget_session(self, session: Session) -> None:
        now = self.runtime.now()
        self.state.sessions.pop(session.session_id, None)
        self.state.groups.end_session(session.session_id)
        self.state.rooms.leave(session.session_id)
        self.runtime.forget(session.session_id)
        self.runtime.links.to_client(
            session.session_id, SessionCloseAck(session_id=session.session_id)
        )
        self.state.emit(
            SessionClosed(
                at_ns=now, instance=self.runtime.instance_id, session=session.session_id,
                audio_bytes_in=session.audio_bytes_in, audio_bytes_cut=session.audio_bytes_cut,
            )
        )  # fmt: skip

    # Nodes

    def register_node(self, record: NodeRecord) -> NodeRecord:
        """A node's socket is here."""
        now = self.runtime.now()
        ordinal = self.state.cluster.ordinal_of(record.node_id)
        joined = self.state.cluster.register(replace(record, ordinal=ordinal), now)
        self.state.emit(
            NodeRegistered(
                at_ns=now, instance=self.runtime.instance_id, node=record.node_id,
                slots=record.slots,
            )
        )  # fmt: skip
        return joined

    def from_node(self, node_id: str, message: object) -> None:
        """A message of a node connected here; each is handled in a task of its own."""
        if isinstance(message, JobResult):
            self.runtime.start(self._result(message), name="result")
        elif isinstance(message, NodeHeartbeat):
            self.runtime.start(self._heartbeat(node_id, message), name="heartbeat")
        elif isinstance(message, JobAck):
            self.runtime.start(self._acknowledged(message), name="ack")

    async def _result(self, message: JobResult) -> None:
        await self._results.handle(message)
        self._maybe_forget(message.session_id)

    def _maybe_forget(self, session_id: str) -> None:
        session = self.state.sessions.get(session_id)
        if session is not None and session.closed and session.jobs_open <= 0:
            self._forget_session(session)

    async def _acknowledged(self, ack: JobAck) -> None:
        job = self.state.book.get(ack.job_id)
        if job is None or job.attempt != ack.attempt_id or job.node_id != ack.node_id or job.ended:
            return
        op = self._control()
        if not job.accepted_ns:
            job.accepted_ns = self.runtime.now()
            job.move(JobStatus.PROCESSING)
            if self._policy.slots == "counter" and job.reserved:
                await self.state.store.commit(op, job.job_id, job.attempt, job.node_id)
            self._delivery.ui_event(
                ack.session_id, ack.job_id, job.request.utterance, ack.trace_id,
                UiEventType.NODE_ACCEPTED,
            )  # fmt: skip
        self.runtime.end(op)

    def _control(self) -> Operation:
        return self.runtime.begin(OpKind.CONTROL, self._entity, self.runtime.now())

    async def _heartbeat(self, node_id: str, message: NodeHeartbeat) -> None:
        """What a node says of itself, in the reference's order (domain 8.3)."""
        record = self.state.cluster.local.get(node_id)
        if record is None:
            return
        op = self.runtime.begin(OpKind.HEARTBEAT, key_of("node", node_id), message.timestamp)
        async with self.runtime.step(steps.HEARTBEAT, op):
            usage = message.resource_usage
            reported = replace(
                self.state.cluster.local.get(node_id, record),
                current_jobs=usage.running_jobs,
                cpu_percent=usage.cpu_percent,
                gpu_percent=usage.gpu_percent or 0.0,
                mem_percent=usage.mem_percent,
                services=tuple(
                    InstalledService(
                        service_id=service.service_id, type=service.type, status=service.status
                    )
                    for service in message.installed_services
                ),
                ready_types=tuple(c.type for c in message.capability_by_type if c.ready),
            )
        joins = record.health is Health.REGISTERING
        async with self.runtime.step(steps.SNAPSHOT_WRITE, op, n=len(self.state.cluster.snapshot)):
            moved, _ = self.state.cluster.update(reported, Signal.HEARTBEAT, self.runtime.now())
        await self._store_heartbeat(op, moved)
        self.runtime.end(op)
        self._announce(moved)
        if joins and moved.health is Health.READY:
            await self.recovery.pump(hint=node_id)

    async def _store_heartbeat(self, op: Operation, record: NodeRecord) -> None:
        if self._policy.slots == "none":
            return
        if not self._settings.shared and self._policy.job_scheme == "phases":
            return
        resets = self._policy.heartbeat_reserved == "resets"
        await self.state.store.heartbeat(
            op,
            record.node_id,
            slots=record.slots,
            running=record.current_jobs,
            health="ready" if record.health is Health.READY else "degraded",
            resets=resets,
        )
        if resets:
            self.state.emit(
                SlotsForgotten(
                    at_ns=self.runtime.now(), instance=self.runtime.instance_id,
                    node=record.node_id, reserved=0,
                )
            )  # fmt: skip
        if self._settings.shared:
            await self.state.store.own(op, "node", record.node_id)

    def _announce(self, record: NodeRecord) -> None:
        if self._settings.shared:
            self.runtime.links.broadcast(
                NodeSeen(home=self.runtime.instance_id, view=record.view())
            )

    async def node_disconnected(self, node_id: str) -> None:
        """A node's socket closed."""
        publishes = self._policy.node_loss == "event"
        gone = self.state.cluster.disconnect(node_id, self.runtime.now(), publishes=publishes)
        if gone is None:
            return
        self.state.emit(
            NodeOffline(
                at_ns=self.runtime.now(), instance=self.runtime.instance_id, node=node_id,
                reason="socket_closed",
            )
        )  # fmt: skip
        if publishes:
            self._announce(gone)
        await self.recovery.node_lost(node_id)

    # Other instances

    def from_instance(self, event: InboxEvent) -> None:
        """An event from another instance's hand."""
        if isinstance(event, DispatchToNode):
            self._note_request(event.message)
            self.runtime.links.to_node(event.node_id, event.message)
        elif isinstance(event, ForwardResult):
            self.runtime.start(self._forwarded(event.message), name="forwarded result")
        elif isinstance(event, SendToSession):
            self.runtime.links.to_client(event.session_id, event.message)
        elif self._policy.job_scheme == "phases" and self._settings.remote_refresh_ns:
            self._remote_views[event.view.node_id] = event
        else:
            self._learn(event)

    def _note_request(self, message: JobAssign | JobCancel) -> None:
        """Remember which request a passing assignment answers: its result comes back here."""
        passed_on = self.state.passed_on
        if isinstance(message, JobCancel):
            passed_on.pop(message.job_id, None)
            return
        while len(passed_on) >= PASSED_ON_MAX:
            del passed_on[next(iter(passed_on))]
        passed_on[message.job_id] = request_id(
            message.session_id, message.utterance_index, message.tgt_lang, message.trace_id
        )

    async def _forwarded(self, message: JobResult) -> None:
        await self._results.handle(message, forwarded=True)
        self._maybe_forget(message.session_id)

    async def _refresh_remote_nodes(self) -> None:
        """The reference re-reads the nodes of others every 2 s (domain 5.5)."""
        while True:
            await self.runtime.sleep(self._settings.remote_refresh_ns)
            views, self._remote_views = self._remote_views, {}
            for event in views.values():
                self._learn(event)

    def _learn(self, event: NodeSeen) -> None:
        self.state.cluster.announce(event.view, event.home)
        if event.view.health is Health.OFFLINE:
            self.runtime.start(self.recovery.node_lost(event.view.node_id), name="node lost")
