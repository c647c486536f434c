"""
What nodes say of themselves and of running jobs, and what is done when one falls silent.

Registration, heartbeats in the reference's order (domain 8.3), acknowledgements and partial texts
(domain 9.3), closed sockets, and the scan for nodes that stopped talking (domain 8.1). Results have
a handler of their own (`results`). Nothing here chooses nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from simsched import steps
from simsched.chance import key_of
from simsched.delivery import Delivery
from simsched.errors import StoreUnavailable
from simsched.inbox import ForwardResult, NodeSeen
from simsched.jobs import Job, JobStatus
from simsched.messages import (
    AsrPartial,
    JobAck,
    JobCancel,
    JobStarted,
    NodeAsrPartial,
    NodeError,
    NodeHeartbeat,
    UiEventType,
)
from simsched.nodes import Health, InstalledService, NodeRecord, Signal
from simsched.recovery import Recovery
from simsched.state import InstanceState
from simsched.telemetry import (
    JobAccepted,
    NodeOffline,
    NodeRegistered,
    Operation,
    OpKind,
    SlotsForgotten,
)
from simsched.units import SECOND

OVERSLEPT_NS: Final = SECOND
"""An instance that wakes so late was paused, and has not read yet what its nodes said."""

JobWord = JobAck | JobStarted | NodeAsrPartial
"""What a node says of a job that it has not finished."""


class NodeDesk:
    """Takes the messages of the nodes that are connected to one instance."""

    def __init__(self, state: InstanceState, recovery: Recovery, delivery: Delivery) -> None:
        self._state = state
        self._recovery = recovery
        self._delivery = delivery
        self._runtime = state.runtime
        self._policy = state.policy
        self._settings = state.settings
        self._store = state.store
        self._entity = key_of("node desk", state.runtime.instance_id)
        self._reruns: dict[str, int] = {}
        self.on_transition: Callable[[NodeRecord, str], None] = lambda _record, _reason: None
        """Told of every change of a local node's state, with the reason (domain 8.1)."""

    def register(self, record: NodeRecord) -> NodeRecord:
        """A node's socket is here."""
        now, cluster = self._runtime.now(), self._state.cluster
        ordinal = cluster.ordinal_of(record.node_id)
        joined = cluster.register(replace(record, ordinal=ordinal), now)
        self._reruns.pop(record.node_id, None)
        self._state.emit(
            NodeRegistered(
                at_ns=now, instance=self._runtime.instance_id, node=record.node_id,
                slots=record.slots,
            )
        )  # fmt: skip
        return joined

    def receive(self, node_id: str, message: object) -> None:
        """A message that is no result."""
        if isinstance(message, NodeHeartbeat):
            self._runtime.start(self._heartbeat(node_id, message), name="heartbeat")
        elif isinstance(message, JobWord):
            self.word_on_job(message)
        elif isinstance(message, NodeError):
            self._runtime.telemetry.count("node_errors")

    # Heartbeats

    async def _heartbeat(self, node_id: str, message: NodeHeartbeat) -> None:
        """What a node says of itself, in the reference's order (domain 8.3)."""
        if node_id not in self._state.cluster.local:
            return
        op = self._runtime.begin(OpKind.HEARTBEAT, key_of("node", node_id), message.timestamp)
        async with self._runtime.step(steps.HEARTBEAT, op):
            pass
        async with self._runtime.step(
            steps.SNAPSHOT_WRITE, op, n=len(self._state.cluster.snapshot)
        ):
            record, reason = self._state.cluster.local.get(node_id), ""
            if record is not None:
                record, reason = self._state.cluster.update(
                    _reported(record, message), Signal.HEARTBEAT, self._runtime.now()
                )
        if record is None:
            # Its socket closed while its last words were read.
            self._runtime.end(op)
            return
        if reason:
            self.on_transition(record, reason)
        self._count_reruns(node_id, message)
        try:
            await self._store_heartbeat(op, record)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)
        if reason:
            # The store did not know this node while it was asked for others' slots.
            self._state.slots_freed += 1
        self._announce(record)
        if record.health is Health.READY and len(self._state.pending):
            await self._recovery.pump(hint=node_id)

    async def store_again(self, op: Operation) -> None:
        """Every local node as it was last heard of, for a store that may have forgotten it."""
        for record in list(self._state.cluster.local.values()):
            if record.health in (Health.READY, Health.DEGRADED):
                await self._store_heartbeat(op, record)

    async def _store_heartbeat(self, op: Operation, record: NodeRecord) -> None:
        if self._policy.slots == "none":
            return
        if not self._settings.shared and self._policy.job_scheme == "phases":
            return
        resets = self._policy.heartbeat_reserved == "resets"
        await self._store.heartbeat(
            op,
            record.node_id,
            slots=record.slots,
            running=record.current_jobs,
            health="ready" if record.health is Health.READY else "degraded",
            since_ns=record.registered_ns,
            counters=self._policy.slots == "counter",
            resets=resets,
        )
        if resets:
            self._state.emit(
                SlotsForgotten(
                    at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                    node=record.node_id, reserved=0,
                )
            )  # fmt: skip
        if self._settings.shared:
            await self._store.own(op, "node", record.node_id)

    def _count_reruns(self, node_id: str, message: NodeHeartbeat) -> None:
        """Nodes report totals; the reference adds them up again at every heartbeat (B20)."""
        if message.rerun_metrics is None:
            return
        total = message.rerun_metrics.total_reruns
        before = self._reruns.get(node_id, 0) if self._policy.rerun_counters != "added" else 0
        self._reruns[node_id] = total
        if total > before:
            self._runtime.telemetry.count("reruns", total - before)

    def _announce(self, record: NodeRecord) -> None:
        if self._settings.shared:
            self._runtime.links.broadcast(
                NodeSeen(home=self._runtime.instance_id, view=record.view())
            )

    # Coming back

    async def returned(self, node_id: str, running: Sequence[tuple[str, int]]) -> None:
        """
        A node is here again and says which attempts it still works on, `(job, attempt)` each.

        It keeps what is current, is told to stop what is not, and what was given to it but never
        reached it goes elsewhere. Jobs of other instances are theirs to judge, by their fence.
        """
        kept: dict[str, None] = {}
        for job_id, attempt in running:
            job = self._state.book.get(job_id)
            if job is None and self._settings.shared:
                continue
            if job is not None and not job.ended and (job.node_id, job.attempt) == (
                node_id, attempt,
            ):  # fmt: skip
                kept[job_id] = None
            else:
                stale = JobCancel(job_id=job_id, reason="stale_attempt")
                self._runtime.links.to_node(node_id, stale)
        for job_id in list(self._state.node_jobs.get(node_id, ())):
            job = self._state.book.get(job_id)
            if job_id not in kept and job is not None and not job.ended:
                await self._recovery.retry_elsewhere(job, "WS_DISCONNECTED")

    # Going

    async def disconnected(self, node_id: str) -> None:
        """A node's socket closed."""
        await self._gone(node_id, "socket_closed")

    async def _gone(self, node_id: str, reason: str) -> None:
        publishes = self._policy.node_loss == "event"
        gone = self._state.cluster.disconnect(node_id, self._runtime.now(), publishes=publishes)
        if gone is None:
            return
        self._reruns.pop(node_id, None)
        self._state.emit(
            NodeOffline(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id, node=node_id,
                reason=reason,
            )
        )  # fmt: skip
        self.on_transition(gone, reason)
        if publishes:
            self._announce(gone)
        await self._recovery.node_lost(node_id, since_ns=gone.registered_ns)

    async def watch(self) -> None:
        """Look for nodes that have gone silent, for as long as the instance lives."""
        while True:
            due_ns = self._runtime.now() + self._settings.node_scan_ns
            await self._runtime.sleep(self._settings.node_scan_ns)
            now, limit_ns = self._runtime.now(), self._settings.health.silence_ns
            if now - due_ns > OVERSLEPT_NS:
                continue  # it is us who were not there: what they said is about to be read
            silent = [
                record.node_id
                for record in self._state.cluster.local.values()
                if now - record.last_heartbeat_ns > limit_ns
            ]
            for node_id in silent:
                await self._gone(node_id, "heartbeat_timeout")

    # Words on running jobs

    def word_on_job(self, message: JobWord, *, forwarded: bool = False) -> None:
        """A node took a job, or has text so far; the owner of the job may be another instance."""
        job = self._state.book.get(message.job_id)
        if job is None:
            if self._settings.shared and not forwarded:
                self._runtime.start(self._forward(message), name="forward")
            return
        if job.ended or job.node_id != message.node_id:
            return
        if isinstance(message, NodeAsrPartial):
            self._partial(job, message)
        elif job.attempt == message.attempt_id:
            self._runtime.start(self._accepted(job, message), name="ack")

    async def _forward(self, message: JobWord) -> None:
        op = self._control()
        try:
            owner = await self._owner(op, message)
            if owner not in ("", self._runtime.instance_id):
                event = ForwardResult(message=message)
                await self._runtime.links.to_instance(steps.INBOX_APPEND, op, owner, event)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    async def _owner(self, op: Operation, message: JobWord) -> str:
        if self._policy.result_routing == "claim":
            return await self._store.claimed_by(op, message.job_id)
        return await self._store.owner_of(op, "session", message.session_id)

    async def _accepted(self, job: Job, message: JobAck | JobStarted) -> None:
        """The node has the job: the acknowledge timeout is off (domain 9.3)."""
        if job.accepted_ns or job.status is not JobStatus.ASSIGNED:
            return
        op = self._control()
        job.accepted_ns = self._runtime.now()
        job.move(JobStatus.PROCESSING)
        self._state.emit(
            JobAccepted(
                at_ns=job.accepted_ns, instance=self._runtime.instance_id, job=job.job_id,
                node=job.node_id, attempt=job.attempt,
            )
        )  # fmt: skip
        self._delivery.ui_event(
            job.request.session_id, job.job_id, job.request.utterance, message.trace_id,
            UiEventType.NODE_ACCEPTED,
        )  # fmt: skip
        try:
            if self._policy.slots == "counter" and job.reserved:
                await self._store.commit(op, job.job_id, job.attempt, job.node_id)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    def _partial(self, job: Job, message: NodeAsrPartial) -> None:
        """Text so far: to the session, not to a room's other members (domain 9.3)."""
        request = job.request
        self._runtime.links.to_client(
            request.session_id,
            AsrPartial(
                session_id=request.session_id, utterance_index=request.utterance,
                text=message.text, is_final=message.is_final, trace_id=message.trace_id,
            ),
        )  # fmt: skip
        self._delivery.ui_event(
            request.session_id, job.job_id, request.utterance, message.trace_id,
            UiEventType.ASR_PARTIAL,
        )  # fmt: skip

    def _control(self) -> Operation:
        return self._runtime.begin(OpKind.CONTROL, self._entity, self._runtime.now())


def _reported(record: NodeRecord, message: NodeHeartbeat) -> NodeRecord:
    """The record with what the node just said."""
    usage = message.resource_usage
    return replace(
        record,
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
        ready_types=tuple(entry.type for entry in message.capability_by_type if entry.ready),
    )
