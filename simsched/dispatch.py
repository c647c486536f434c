"""
From a job to its node: create, send the assignment, and close the books when it has ended.

`JobDispatcher` is the one door of job creation (`create_job` of the report) whichever way the
policy creates jobs, and the one place where a job ends. An assignment goes to a node connected
here, or through the inbox of the instance that the node is connected to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from simsched import births, steps
from simsched.births import CreationFailed
from simsched.claims import ClaimedCreation
from simsched.creation import PhasedCreation
from simsched.delivery import Answer, Delivery
from simsched.errors import StoreUnavailable
from simsched.inbox import DispatchToNode
from simsched.jobs import Job, JobRequest, JobStatus
from simsched.messages import Error, ErrorCode, JobAssign, Pipeline, UiEventType
from simsched.placement import JobContext, Placement
from simsched.releases import Releases
from simsched.state import InstanceState, Session
from simsched.store import Binding
from simsched.telemetry import (
    JobDispatched,
    JobEnded,
    Operation,
    OpKind,
    Outcome,
    SlotFreed,
)

PIPELINE = Pipeline()
"""ASR, translation and speech; what the audio path asks for (domain 4.2)."""

SAMPLE_RATE_HZ = 16_000
PARTIAL_INTERVAL_MS = 1_000


class JobDispatcher:
    """
    Creates, dispatches and ends the jobs of one instance.

    `retry` is asked for another node when an assignment could not be sent, `on_drained` is told
    when the last job of a closed session has ended; both are wired by their owners.
    """

    retry: Callable[[Job, str], Awaitable[None]]
    on_drained: Callable[[Session], None]

    def __init__(self, state: InstanceState, delivery: Delivery) -> None:
        self._state = state
        self._delivery = delivery
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store
        self.placement = Placement(state)
        self.releases = Releases(state)
        self.claims = ClaimedCreation(state, self.placement, self.releases)
        self._phases = PhasedCreation(state, self.placement)

    async def create_job(self, request: JobRequest) -> Job:
        """
        A job for the request: new, or the one it has already.

        Its latency is the report's metric of proposals 1, 2, 5 and 6.

        Raises:
            CreationFailed: the store gave no answer, or there is no node and the policy raises.

        """
        op = self._runtime.begin(
            OpKind.CREATE_JOB, request.session_key, request.utterance, request.session_id
        )
        try:
            create = self.claims if self._policy.job_scheme == "claim" else self._phases
            job = await create.create(op, request)
        except StoreUnavailable as error:
            self._runtime.end(op, Outcome.FAILED)
            raise CreationFailed("SCHEDULER_DEPENDENCY_DOWN") from error
        self._runtime.end(op, Outcome.DONE if job.node_id else Outcome.NOTHING)
        policy = self._state.policy_of(request.session_id)
        if policy.create_failure == "raise" and not job.node_id and not job.ended:
            self._state.pending.remove(request.pair, job)
            self.end(job, JobStatus.FAILED, "NO_AVAILABLE_NODE")
            raise CreationFailed("NO_AVAILABLE_NODE")
        return job

    async def dispatch(self, job: Job) -> None:
        """Send the job to its node, unless that was done; without a node it waits."""
        if job.dispatched or job.cancelled or job.ended:
            return
        if job.reason:
            await self.refuse(job, job.reason)
            return
        attempt = job.attempt
        if not job.waits_to_go(attempt):
            return  # it has no node, or stands in line for another one
        if await self.hand_over(job) or not job.waits_to_go(attempt):
            return
        if self._policy.node_loss == "event":
            await self.retry(job, "NODE_UNAVAILABLE")
        else:
            await self.refuse(job, "NODE_UNAVAILABLE")

    async def hand_over(self, job: Job) -> bool:
        """Send the job to the node that it has; False if the node cannot be reached."""
        is_first = not job.dispatched_ns
        op = self._operation(job)
        try:
            sent = await self.send_assignment(op, job)
            if sent:
                await self._mark_dispatched(op, job)
        except StoreUnavailable:
            sent = job.dispatched
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op, Outcome.DONE if sent else Outcome.FAILED)
        if sent and is_first:
            self._tell(job, UiEventType.DISPATCHED)
        return sent

    def context(self, op: Operation, job: Job) -> JobContext:
        """What a later choice for this job starts from."""
        return self.placement.context(op, job.request)

    def _operation(self, job: Job) -> Operation:
        request = job.request
        return self._runtime.begin(
            OpKind.DISPATCH, request.session_key, request.utterance * 8 + job.attempt,
            request.session_id,
        )  # fmt: skip

    async def send_assignment(self, op: Operation, job: Job) -> bool:
        """Send `job_assign` here or through another instance; False: the node is nowhere."""
        acts = self._policy.node_loss == "event"
        if acts and self._state.cluster.is_gone(job.node_id):
            return False
        if acts and self._runtime.point("node unreachable"):
            return False
        self._note_node(job)
        attempt = job.attempt
        job.dispatched, before_ns = True, job.dispatched_ns
        job.dispatched_ns = self._runtime.now()
        message = self._assignment(job)
        if self._runtime.links.to_node(job.node_id, message):
            self._dispatched(job)
            return True
        passed_on = False
        try:
            passed_on = self._state.settings.shared and await self._pass_on(op, job, message)
        finally:
            # Whose acknowledgement has come meanwhile has it, whatever the store says.
            if not passed_on and job.attempt == attempt and not job.accepted_ns:
                job.dispatched, job.dispatched_ns = False, before_ns
        if passed_on:
            self._dispatched(job)
        return passed_on

    async def _pass_on(self, op: Operation, job: Job, message: JobAssign) -> bool:
        home = await self._store.owner_of(op, "node", job.node_id)
        if home in ("", self._runtime.instance_id) or home in self._state.gone_instances:
            return False
        event = DispatchToNode(node_id=job.node_id, message=message)
        return await self._runtime.links.to_instance(steps.INBOX_APPEND, op, home, event)

    def _dispatched(self, job: Job) -> None:
        self._state.emit(
            JobDispatched(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id, job=job.job_id,
                session=job.request.session_id, node=job.node_id, attempt=job.attempt,
            )
        )  # fmt: skip

    def _assignment(self, job: Job) -> JobAssign:
        request = job.request
        return JobAssign(
            job_id=job.job_id,
            attempt_id=job.attempt,
            session_id=request.session_id,
            utterance_index=request.utterance,
            src_lang=request.source_language,
            tgt_lang=request.target_language,
            pipeline=PIPELINE,
            audio=request.audio,
            audio_format=request.audio_format,
            sample_rate=SAMPLE_RATE_HZ,
            enable_streaming_asr=True,
            partial_update_interval_ms=PARTIAL_INTERVAL_MS,
            trace_id=request.trace_id,
            padding_ms=request.padding_ms or None,
            is_manual_cut=request.cut == "IsFinal",
            is_pause_triggered=request.cut == "Pause",
            is_timeout_triggered=request.cut in ("Timeout", "MaxDuration"),
        )

    async def _mark_dispatched(self, op: Operation, job: Job) -> None:
        async with self._runtime.step(steps.JOBS_READ, op):
            pass
        async with self._runtime.step(steps.JOBS_WRITE, op):
            pass
        if self._policy.job_scheme != "phases" or not self._state.settings.shared:
            return
        found = await self._store.get_binding(op, job.request.request_id, site=5)
        if found is not None:
            binding = Binding(found.job_id, found.node_id, found.owner, dispatched=True)
            await self._store.set_binding(
                op, job.request.request_id, binding, step=steps.MARK_DISPATCHED, site=5
            )
        await self._store.move_fsm(
            op, "dispatch", job.job_id, job.node_id, job.attempt, site=job.attempt
        )

    # Ends

    async def refuse(self, job: Job, code: str) -> None:
        """End a job without a result; the client is told why, unless it has its answer already."""
        if job.ended or self._state.book.get(job.job_id) is not job:
            return
        attempt = job.attempt
        fenced = self._state.settings.shared and self._policy.job_scheme == "claim"
        if job.reserved or fenced:
            op = self._operation(job)
            await self.give_back(op, job)
            verdict = await self._close_failed(op, job) if fenced else "ACCEPTED"
            self._runtime.end(op, Outcome.REFUSED)
            if job.attempt != attempt and job.status is not JobStatus.PENDING:
                if verdict not in ("ACCEPTED", "OURS"):
                    return  # a claim that was under way has found a node after all
                await self.give_back(op, job)  # and the store has closed that too
            here = self._state.answers_here(job.request.session_id)
            if verdict in ("MOVED", "DONE", "STALE") and not here:
                self.yield_to_other(job)
                return
        self.fail(job, code)

    async def _close_failed(self, op: Operation, job: Job) -> str:
        """Write the failure down; ACCEPTED, UNKNOWN, or what another instance has made of it."""
        request, attempt = job.request, job.attempt
        try:
            verdict = await self._store.complete(
                op, request.session_id, job.job_id, attempt=attempt, node=job.node_id,
                status="failed",
            )  # fmt: skip
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
            self._delivery.alone(job.request)
            return "UNKNOWN"
        return verdict

    def fail(self, job: Job, code: str) -> None:
        """A job came to nothing: the client hears it, and the books are closed."""
        if job.ended:
            return
        if job.status is not JobStatus.COMPLETED_NO_TEXT and self._state.wants(job.request):
            self.tell_error(job, code)
        self.end(job, JobStatus.FAILED, code)

    def tell_error(self, job: Job, code: str) -> None:
        """The error outcome of a job, in its turn."""
        request = job.request
        error = WIRE_CODES.get(code, code)
        self._tell(job, UiEventType.ERROR, WIRE_ERRORS.get(error))
        self._delivery.fail(
            self._state.sessions.get(request.session_id),
            Answer(
                request.session_id, request.utterance, request.target_language, job.job_id,
                "error", code,
                Error(code=error, message=code, utterance_index=request.utterance),
                request.targets,
            ),
        )  # fmt: skip

    def _tell(self, job: Job, event: UiEventType, error: ErrorCode | None = None) -> None:
        request = job.request
        elapsed = (self._runtime.now() - job.created_ns) // 1_000_000
        self._delivery.ui_event(
            request.session_id, job.job_id, request.utterance, request.trace_id, event,
            elapsed_ms=elapsed, error=error,
        )  # fmt: skip

    def end(self, job: Job, status: JobStatus, reason: str = "") -> None:
        """
        Close the books on a job: its last state, and what it held in memory.

        A job without text stays in the book if the reference's rule says so: it may end again,
        which is no second end to anybody else (B10).
        """
        if job.ended or job.yielded:
            return
        if job.status is JobStatus.PENDING:
            self._state.pending.remove(job.request.pair, job)
        is_first = job.status is not JobStatus.COMPLETED_NO_TEXT
        job.move(status)
        job.reason = reason
        self.forget_node(job)
        if self._state.policy_of(job.request.session_id).job_gc and job.ended:
            self._state.book.forget(job)
        elif is_first:
            self._state.book.ended_total += 1
        if is_first:
            self._ended(job, status)
            self._let_go(job.request)

    def yield_to_other(self, job: Job) -> None:
        """Another instance has the job: ours is forgotten without a word to anybody, and once."""
        if job.ended or job.yielded:
            return
        job.yielded = True
        self._state.pending.remove(job.request.pair, job)
        job.cancelled = True
        self._state.book.drop(job)
        self._state.leave_to_other(job)
        births.let_go(self._state, job)
        session = self._state.sessions.get(job.request.session_id)
        if session is not None and self._state.wants(job.request):
            request = job.request
            self._delivery.elsewhere(session, request.utterance, request.target_language)
        self._let_go(job.request)

    def _ended(self, job: Job, status: JobStatus) -> None:
        request = job.request
        names = {JobStatus.COMPLETED: "completed", JobStatus.COMPLETED_NO_TEXT: "completed"}
        self._state.emit(
            JobEnded(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id, job=job.job_id,
                session=request.session_id, utterance=request.utterance,
                target=request.target_language, node=job.node_id, attempt=job.attempt,
                status=names.get(status, "failed"), reason=job.reason,
            )
        )  # fmt: skip

    def _let_go(self, request: JobRequest) -> None:
        """One job less that its utterance and its session wait for."""
        state, key = self._state, (request.session_id, request.utterance)
        left = state.utterance_jobs.pop(key, 1) - 1
        if left:
            state.utterance_jobs[key] = left
        else:
            state.utterance_nodes.pop(key, None)
        session = state.sessions.get(request.session_id)
        if session is not None:
            session.jobs_open -= 1
            self.on_drained(session)

    def _note_node(self, job: Job) -> None:
        request, state = job.request, self._state
        state.node_jobs.setdefault(job.node_id, {})[job.job_id] = None
        key = (request.session_id, request.utterance)
        held = state.utterance_nodes.get(key, ())
        if job.node_id not in held:
            state.utterance_nodes[key] = (*held, job.node_id)

    def forget_node(self, job: Job) -> None:
        """The node no longer holds the job, as far as this instance knows."""
        held = self._state.node_jobs.get(job.node_id)
        if held is not None:
            held.pop(job.job_id, None)
            if not held:
                del self._state.node_jobs[job.node_id]

    async def give_back(self, op: Operation, job: Job) -> None:
        """Free the job's slot in the store, as the policy counts slots; the store may be away."""
        if not job.reserved:
            return
        give = self._give_lease_back if self._policy.slots == "lease" else self.uncount
        try:
            await give(op, job)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")

    async def _give_lease_back(self, op: Operation, job: Job) -> None:
        job.reserved = False
        node, attempt = job.node_id, job.attempt
        try:
            await self.releases.release(op, job.job_id, attempt, node)
        except StoreUnavailable:
            self.slot_freed(job, node, attempt)  # nobody of ours works on it, and it is said again
            raise
        self.slot_freed(job, node, attempt)

    async def uncount(self, op: Operation, job: Job) -> bool:
        """
        Take a job off its node's counter; False if its reservation was no longer there.

        The slot is said to be free before the store is asked: nobody else can have it earlier, so
        whoever counts along never sees two in it. If it turns out that the store counts it still,
        because it gave no answer or the reservation had lapsed (B21), that is said too.

        Raises:
            StoreUnavailable: no answer; a heartbeat that resets the counter sets it right.

        """
        if not job.reserved:
            return await self._store.release(op, job.job_id, job.attempt, job.node_id)
        job.reserved = False
        node, attempt, running = job.node_id, job.attempt, job.accepted_ns > 0
        self.slot_freed(job, node, attempt)
        try:
            released = await self._store.release(op, job.job_id, attempt, node)
        except StoreUnavailable:
            births.slot_counted(self._state, job.job_id, attempt, node)
            raise
        if not released and not running and self._policy.heartbeat_reserved == "keeps":
            births.slot_counted(self._state, job.job_id, attempt, node)
        return released

    def slot_freed(self, job: Job, node: str, attempt: int) -> None:
        """One attempt's slot is free again, as far as this instance knows."""
        self._state.slots_freed += 1
        if self._policy.slots == "lease":
            self.releases.freed(job.job_id, attempt, node)
            self._state.cluster.observe_load(node, change=-1)
        self._state.emit(
            SlotFreed(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id, node=node,
                job=job.job_id, attempt=attempt,
            )
        )  # fmt: skip


WIRE_CODES = {
    "QUEUE_FULL": "NO_AVAILABLE_NODE",
    "NO_AVAILABLE_NODE": "NO_AVAILABLE_NODE",
    "REQUEST_LOCK_BUSY": "SCHEDULER_DEPENDENCY_DOWN",
    "PENDING_TIMEOUT": "JOB_TIMEOUT",
    "NODE_FAILED": "INTERNAL_ERROR",
    "PROCESSING_ERROR": "INTERNAL_ERROR",
    "CANCELLED": "SESSION_CLOSED",
}
"""Our reasons and the code that the wire has for them; others are codes already."""

WIRE_ERRORS = {str(code): code for code in ErrorCode}
"""UI events carry only codes that the wire knows; a node may report others."""
