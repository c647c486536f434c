"""
One scheduler instance, wired: what reaches it from clients, nodes and other instances.

`Scheduler` is the door that both worlds knock at. It opens and closes sessions, takes messages and
hands each to the shell that knows it. It starts no loop by itself: `run` is the instance's
background work, started by the world through the same handle as everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from simsched.chance import key_of
from simsched.delivery import Delivery
from simsched.dispatch import JobDispatcher
from simsched.inbox import (
    DispatchToNode,
    ForwardResult,
    InboxEvent,
    NodeSeen,
    SendToSession,
    SessionMoved,
)
from simsched.jobs import Job, request_id
from simsched.messages import (
    AudioChunk,
    ClientHeartbeat,
    Error,
    ErrorCode,
    JobAssign,
    JobCancel,
    JobResult,
    ServerHeartbeat,
    SessionClose,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    TtsPlayEnded,
    TtsStarted,
    Utterance,
)
from simsched.node_desk import NodeDesk
from simsched.nodes import Health, NodeRecord
from simsched.owners import Owners
from simsched.policy import Policy
from simsched.ports import Runtime
from simsched.presence import Presence
from simsched.recovery import Recovery
from simsched.result_queue import Discipline, ResultQueue, RoomResults, result_queue
from simsched.results import ResultHandler
from simsched.room_desk import ROOM_MESSAGES, RoomDesk
from simsched.session import ChunkReceived, CloseSession, PlaybackMoved, SessionActor
from simsched.state import CoreSettings, InstanceState, Session
from simsched.store_return import store_returned
from simsched.telemetry import (
    Operation,
    OpKind,
    SessionClosed,
    SessionOpened,
    SessionResumed,
)
from simsched.units import MS
from simsched.utterances import WholeUtterances, asked_for

PASSED_ON_MAX: Final = 100_000
"""Assignments of other instances' jobs whose request is remembered, until their result passes."""


UNKNOWN_SESSION: Final[dict[type, ErrorCode]] = {
    ClientHeartbeat: ErrorCode.INVALID_SESSION,
    AudioChunk: ErrorCode.INTERNAL_ERROR,
    Utterance: ErrorCode.INTERNAL_ERROR,
}
"""What is answered to a message for a session that is not here (domain 1.3)."""


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
        self.nodes = NodeDesk(self.state, self.recovery, self._delivery)
        self.rooms = RoomDesk(self.state)
        self.dispatcher.on_drained = self._forget_if_done
        self._utterances = WholeUtterances(
            self.state, self.dispatcher, self._delivery, self._jobs_made
        )
        self._entity = key_of("instance", runtime.instance_id)
        self._remote_views: dict[str, NodeSeen] = {}
        self._sessions_opened = 0
        looks = settings.shared and policy.job_scheme == "claim"
        self.presence = Presence(self.state, self.recovery, self.from_instance) if looks else None
        self.dispatcher.claims.on_followed = self._results.followed
        if self.presence is not None:
            self.dispatcher.claims.heard_of = self.presence.heard_of
        self.owners = Owners(self.state)
        self._receivers: dict[type, Callable[[Session, Any], None]] = {
            AudioChunk: self._audio_chunk,
            Utterance: self._utterance,
            TtsStarted: self._tts_started,
            TtsPlayEnded: self._tts_ended,
            SessionClose: self._session_close,
            ClientHeartbeat: self._heartbeat,
            **dict.fromkeys(ROOM_MESSAGES, self._room),
        }

    async def run(self) -> None:
        """The background work of the instance."""
        async with self.runtime.scope() as scope:
            scope.spawn(self.recovery.run(), name="scan")
            scope.spawn(self.nodes.watch(), name="nodes")
            scope.spawn(self.rooms.watch(), name="rooms")
            if self.presence is not None:
                scope.spawn(self.presence.run(), name="presence")
            if self._settings.shared:
                scope.spawn(self.owners.run(), name="owners")
            if self._settings.shared and self._settings.remote_refresh_ns:
                scope.spawn(self._refresh_remote_nodes(), name="refresh")

    async def leave(self) -> None:
        """Go for good: the others need not find out that we are not there."""
        if self.presence is not None:
            await self.presence.leave()

    # Sessions

    def open_session(
        self,
        init: SessionInit,
        *,
        session_id: str = "",
        audio_format: str = "opus",
        resumes: bool = False,
        left: str = "",
    ) -> SessionInitAck:
        """
        A client says hello; its actor starts.

        Args:
            init: the client's message.
            session_id: given when a session is resumed on this instance; else a new one is made.
            audio_format: what the client will send; the reference always says opus.
            resumes: the client goes on with a session that it had on another instance.
            left: that instance, if it is known.

        """
        runtime = self.runtime
        known = self.state.sessions.get(session_id)
        moves = resumes and self.presence is not None
        if moves:
            self._resumed(session_id)
        if known is not None and not known.closing:
            if moves:
                self._take_over(known, left)
            return SessionInitAck(session_id=session_id, trace_id=known.trace_id)
        self._sessions_opened += 1
        name = session_id or runtime.chance.hex_id(
            "s-", 8, "session", runtime.instance_id, self._sessions_opened
        )
        policy = self.state.policy_of(name)
        session = Session(
            name,
            key_of("session", name),
            init.src_lang,
            init.tgt_lang,
            trace_id=init.trace_id or name,
            tenant_id=init.tenant_id,
            audio_format=audio_format,
            results=_queue_of(policy),
        )
        # Of an earlier stay here; each takes itself off again.
        session.jobs_open = (
            sum(job.request.session_id == name for job in self.state.book.active())
            if session_id
            else 0
        )
        session.features = asked_for(init.features)
        actor = SessionActor(self.state, session, self.dispatcher, self._delivery, self._jobs_made)
        session.actor = actor
        self.state.sessions[name] = session
        session.actor_task = runtime.start(actor.run(), name=f"session {name}")
        if moves:
            self._take_over(session, left)
        else:
            self.owners.opened(name)
        self.state.emit(
            SessionOpened(at_ns=runtime.now(), instance=runtime.instance_id, session=name)
        )
        return SessionInitAck(session_id=name, trace_id=session.trace_id)

    def _take_over(self, session: Session, left: str) -> None:
        """
        A client comes from another instance, and asks again for what it has no answer to.

        What this instance still does for it since an earlier stay is wanted only if asked for anew.
        """
        assert self.presence is not None
        session_id = session.session_id
        self._delivery.connected(session, _queue_of(self.state.policy_of(session_id)))
        moving = self.presence.session_moved(session_id, left)
        session.owning = self.runtime.start(moving, name=f"move {session_id}")

    def client_returned(self, session_id: str) -> None:
        """A client lost its connection and is back: what had been sent may not have arrived."""
        session = self.state.sessions.get(session_id)
        if session is not None:
            session.answered.clear()
            self._resumed(session_id)

    def _resumed(self, session_id: str) -> None:
        at_ns, instance = self.runtime.now(), self.runtime.instance_id
        self.state.emit(SessionResumed(at_ns=at_ns, instance=instance, session=session_id))

    def from_client(
        self, session_id: str, message: object, *, patience_ns: int | None = None
    ) -> bool:
        """
        A message of a client; False if its session is not here.

        `patience_ns` bounds the wait for a node of an utterance that comes whole.
        """
        session = self.state.sessions.get(session_id)
        if session is None or session.closing:
            self._unknown_session(session_id, message)
            return False
        if isinstance(message, Utterance):
            self._utterance(session, message, patience_ns)
            return True
        receiver = self._receivers.get(type(message))
        if receiver is not None:
            receiver(session, message)
        return True

    def _unknown_session(self, session_id: str, message: object) -> None:
        """The protocol answers a stray heartbeat with one code and stray audio with another."""
        code = UNKNOWN_SESSION.get(type(message))
        if code is not None:
            error = Error(
                code=code, message="Session does not exist",
                utterance_index=getattr(message, "utterance_index", None),
            )  # fmt: skip
            self.runtime.links.to_client(session_id, error)

    def _heartbeat(self, session: Session, _message: ClientHeartbeat) -> None:
        self.runtime.links.to_client(
            session.session_id,
            ServerHeartbeat(session_id=session.session_id, timestamp=self.runtime.now_ms()),
        )

    def _room(self, session: Session, message: object) -> None:
        self.rooms.receive(session, message)

    def _audio_chunk(self, session: Session, message: AudioChunk) -> None:
        assert session.actor is not None
        taken = session.actor.post(
            ChunkReceived(
                message.payload, message.is_final, self.runtime.now(), message.client_timestamp_ms
            )
        )
        if not taken:
            self.runtime.telemetry.count("audio_chunks_refused")
            error = Error(
                code=ErrorCode.NODE_OVERLOADED, message="audio refused: the session is far behind"
            )
            self.runtime.links.to_client(session.session_id, error)

    def _utterance(
        self, session: Session, message: Utterance, patience_ns: int | None = None
    ) -> None:
        session.work_open += 1
        self.runtime.start(self._utterances.take(session, message, patience_ns), name="utterance")

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
        if self.state.policy_of(session.session_id).session_close == "drop":
            self._forget_session(session)
        session.actor.post(CloseSession())
        await session.actor_task.join()
        session.closed = True
        self._forget_if_done(session)

    def abandon_session(self, session_id: str) -> None:
        """Forget a session whose actor has failed: nothing can be finished any more."""
        session = self.state.sessions.get(session_id)
        if session is not None:
            session.closing = True
            self._forget_session(session)

    def _forget_if_done(self, session: Session) -> None:
        """A closed session is forgotten with the last thing that it waited for."""
        waits = session.jobs_open > 0 or session.work_open > 0
        if session.closed and not waits and self._knows(session):
            self._forget_session(session)

    def _knows(self, session: Session) -> bool:
        return self.state.sessions.get(session.session_id) is session

    def _control(self) -> Operation:
        return self.runtime.begin(OpKind.CONTROL, self._entity, self.runtime.now())

    def _forget_session(self, session: Session) -> None:
        now = self.runtime.now()
        self.state.sessions.pop(session.session_id, None)
        self.state.moved_here.pop(session.session_id, None)
        self._delivery.drain(session)
        self.state.groups.end_session(session.session_id)
        self.rooms.leave(session.session_id)
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
        return self.nodes.register(record)

    def from_node(self, node_id: str, message: object) -> None:
        """A message of a node connected here; each is handled in a task of its own."""
        if isinstance(message, JobResult):
            self.runtime.start(self._results.handle(message), name="result")
        else:
            self.nodes.receive(node_id, message)

    async def node_returned(self, node_id: str, running: Sequence[tuple[str, int]]) -> None:
        """A node that registered again says which attempts it still works on."""
        await self.nodes.returned(node_id, running)

    async def node_disconnected(self, node_id: str) -> None:
        """A node's socket closed."""
        await self.nodes.disconnected(node_id)

    # The store

    async def store_returned(self) -> None:
        """The store answers again and may have forgotten everything: say again what is here."""
        op = self._control()
        own = self.owners.say_again if self._settings.shared else None
        await store_returned(self.state, op, nodes=self.nodes, recovery=self.recovery, own=own)
        self.runtime.end(op)

    # Other instances

    def from_instance(self, event: InboxEvent) -> None:
        """An event from another instance's hand."""
        if isinstance(event, DispatchToNode):
            self._pass_on(event)
        elif isinstance(event, ForwardResult):
            self._take_forwarded(event)
        elif isinstance(event, SessionMoved):
            self.owners.moved(event)
        elif isinstance(event, SendToSession):
            self.runtime.links.to_client(event.session_id, event.message)
        elif self._policy.job_scheme == "phases" and self._settings.remote_refresh_ns:
            self._remote_views[event.view.node_id] = event
        else:
            self._learn(event)

    def _pass_on(self, event: DispatchToNode) -> None:
        """Hand an assignment to its node; `lossy` cannot read one without all its flags (B7)."""
        message = event.message
        if isinstance(message, JobAssign) and self._policy.remote_dispatch == "lossy":
            flags = (message.is_manual_cut, message.is_pause_triggered)
            if not (all(flags) and message.is_timeout_triggered):
                self.runtime.telemetry.count("remote_dispatches_unreadable")
                return
        if self._policy.result_routing == "binding":
            self._note_request(message)
        self.runtime.links.to_node(event.node_id, message)

    def _take_forwarded(self, event: ForwardResult) -> None:
        message = event.message
        if isinstance(message, JobResult):
            result = self._results.handle(message, hops=event.hops)
            self.runtime.start(result, name="forwarded result")
        else:
            self.nodes.word_on_job(message, forwarded=True)

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


def _queue_of(policy: Policy) -> ResultQueue[Any]:
    """The order in which a session's results leave."""
    return result_queue(
        Discipline(policy.result_order),
        room_results=RoomResults(policy.room_results),
        gap_ns=policy.gap_ms * MS,
    )
