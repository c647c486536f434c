"""
`handle_job_result`: what happens when a node has answered, in the report's order.

Deduplication, forwarding to the owner's instance, state and attempt checks, job operations, group,
UI events, timings, result queue, delivery (report 2.1). Policy fields decide what counts as a
repeat, who owns a result, how the job's end is recorded in the store, and what becomes of an old
attempt's answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simsched import answers, steps
from simsched.chance import key_of
from simsched.delivery import Answer, Delivery
from simsched.errors import StoreUnavailable
from simsched.inbox import ForwardResult
from simsched.jobs import Job, JobStatus
from simsched.messages import (
    JobResult,
    MissingResult,
    UiEventType,
)
from simsched.moves import Moves
from simsched.policy import Policy
from simsched.state import DEDUP_WINDOW_NS, EndedJob, InstanceState
from simsched.telemetry import (
    Operation,
    OpKind,
    Outcome,
    ResultAccepted,
    ResultReceived,
    ResultSuppressed,
)
from simsched.units import SECOND

if TYPE_CHECKING:
    from simsched.dispatch import JobDispatcher
    from simsched.recovery import Recovery

ANSWER_WAITS_NS: Final = SECOND // 10
"""How long an accepted result may take, on purpose, until it is answered (a fault point)."""

COMPLETION_WAITS_NS: Final = 2 * SECOND
"""How long an instance may take, on purpose, to tell the store of an end (a fault point)."""

RESULT_TRIES: Final = 30
"""How often, once a second, a store that is away is asked whose a result is."""

HOPS_MAX: Final = 4
"""
How often a result is forwarded at most: from its node's instance to the one that claimed its job,
to where the session has moved, and moved on. Instances that have both forgotten a job that is over
each take the other for its owner, and would hand it to and fro until the store forgets it too.
"""

NO_TEXT_REASONS = frozenset({"NO_TEXT_ASSIGNED", "ASR_EMPTY"})


class ResultHandler:
    """Processes the results that reach one instance."""

    def __init__(
        self,
        state: InstanceState,
        dispatcher: JobDispatcher,
        delivery: Delivery,
        recovery: Recovery,
    ) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._recovery = recovery
        self._moves = Moves(state, dispatcher)
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store

    async def handle(
        self,
        result: JobResult,
        *,
        hops: int = 0,
        again: bool = False,
        tries: int = RESULT_TRIES,
    ) -> None:
        """Process one result (proposal 4's metric), which has been forwarded `hops` times."""
        session = self._state.sessions.get(result.session_id)
        entity = session.key if session else key_of("session", result.session_id)
        op = self._runtime.begin(
            OpKind.JOB_RESULT, entity, result.utterance_index * 8 + result.attempt_id,
            result.session_id,
        )  # fmt: skip
        op.phase = 2 if self._state.settings.shared else 1
        if not hops and not again:
            self._state.emit(
                ResultReceived(
                    at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                    job=result.job_id, session=result.session_id, node=result.node_id,
                    attempt=result.attempt_id, success=result.success,
                )
            )  # fmt: skip
            self._note_missing_model(result)
        try:
            outcome, freed = await self._process(op, result, hops)
        except StoreUnavailable:
            # Whose it is cannot be asked now.
            self._runtime.telemetry.count("store_unavailable")
            outcome, freed = Outcome.FAILED, False
            if self._policy.job_scheme == "claim" and tries:
                self._runtime.start(
                    self._later(result, hops=hops, tries=tries - 1), name="result again"
                )
        self._runtime.end(op, outcome)
        if freed:
            await self._recovery.slot_freed(result.node_id)

    async def _later(self, result: JobResult, *, hops: int, tries: int) -> None:
        """Ask again in a second whose a result is; its job's timeout stays the backstop."""
        await self._runtime.sleep(SECOND)
        await self.handle(result, hops=hops, again=True, tries=tries)

    async def _process(self, op: Operation, result: JobResult, hops: int) -> tuple[Outcome, bool]:
        if not await self._is_new(op, result):
            # A store that forgot us may have given the same number to another instance.
            fenced = self._policy.job_scheme == "claim" and not hops
            if fenced and await self._forward(op, result, hops):
                return Outcome.FORWARDED, False
            self._suppress(result, None, "duplicate")
            return Outcome.NOTHING, False
        if not hops and await self._forward(op, result, hops):
            return Outcome.FORWARDED, False
        await self._moves.catch_up(op, result)
        async with self._runtime.step(steps.JOBS_READ, op):
            job = self._state.book.get(result.job_id)
            why_not = self._refusal(job, result)
        if why_not == "unknown_job" and hops and await self._forward(op, result, hops):
            return Outcome.FORWARDED, False
        if why_not:
            self._suppress(result, job, why_not)
            if job is None or not job.announced:
                self._moves.keep_early(result)
            if self._policy_of(result).stale_results == "drop":
                freed = job is None and await self._moves.free_slot(op, result)
                return Outcome.REFUSED, freed
            await self._answer(op, result, job)
            return Outcome.DONE, False
        assert job is not None
        verdict = await self._close_in_store(op, job, result)
        if verdict == "MOVED" and await self._forward(op, result, hops):
            return Outcome.FORWARDED, True
        if verdict != "ACCEPTED":
            self._suppress(result, job, "store_refused")
            if job.attempt == result.attempt_id:
                await self._refused(job, verdict)
            return Outcome.REFUSED, True
        why_not = self._refusal(job, result) or self._overtaken(result)
        if why_not:
            self._suppress(result, job, why_not)
            return Outcome.REFUSED, True
        self._note_seen(result)
        self._accepted(job, result)
        if not result.success:
            await self._failed(op, job, result)
            return Outcome.FAILED, True
        no_text = result.extra is not None and result.extra.reason in NO_TEXT_REASONS
        hidden = no_text and not self._policy_of(result).no_text_terminal
        job.done = not hidden
        if self._runtime.point("answer waits"):
            await self._runtime.sleep(ANSWER_WAITS_NS)
        async with self._runtime.step(steps.JOBS_WRITE, op):
            pass
        if job.ended:
            return Outcome.REFUSED, True
        if self._state.wants(job.request):
            await self._answer(op, result, job)
        else:
            self._runtime.telemetry.count("results_undelivered")
        status = JobStatus.COMPLETED_NO_TEXT if hidden else JobStatus.COMPLETED
        self._dispatcher.end(job, status)
        return Outcome.DONE, True

    # Is it new, is it ours, is it current?

    def _seen_key(self, result: JobResult) -> tuple[str, str, int]:
        attempt = result.attempt_id if self._policy_of(result).dedup == "attempt" else 0
        return (result.session_id, result.job_id, attempt)

    async def _is_new(self, op: Operation, result: JobResult) -> bool:
        async with self._runtime.step(steps.DEDUP, op):
            now = self._runtime.now()
            seen = self._state.seen_results
            while seen:
                oldest = next(iter(seen))
                if now - seen[oldest] <= DEDUP_WINDOW_NS:
                    break
                del seen[oldest]
            if self._seen_key(result) in seen:
                return False
            if self._policy_of(result).dedup_recorded == "before":
                self._note_seen(result)
            return True

    def _overtaken(self, result: JobResult) -> str:
        """Whether a repeat was accepted while the store was asked about this one."""
        after = self._policy_of(result).dedup_recorded == "after"
        return "duplicate" if after and self._seen_key(result) in self._state.seen_results else ""

    def _note_seen(self, result: JobResult) -> None:
        self._state.seen_results.setdefault(self._seen_key(result), self._runtime.now())

    async def _forward(self, op: Operation, result: JobResult, hops: int) -> bool:
        """Hand the result to the instance that owns its session, if that is another."""
        if not self._state.settings.shared or hops >= HOPS_MAX:
            return False
        owner = await self._owner(op, result)
        if owner in ("", self._runtime.instance_id):
            return False
        event = ForwardResult(message=result, hops=hops + 1)
        return await self._runtime.links.to_instance(steps.INBOX_APPEND, op, owner, event)

    async def _owner(self, op: Operation, result: JobResult) -> str:
        """The instance that owns a result, by the key that the policy goes by; "" if it is here."""
        if self._policy.result_routing == "claim":
            return await self._owner_by_claim(op, result)
        here = result.session_id in self._state.sessions
        if self._policy.result_routing == "binding":
            found = await self._store.get_binding(op, self._request_of(result), site=6)
            return found.owner if found and not here else ""
        return "" if here else await self._store.owner_of(op, "session", result.session_id)

    async def _owner_by_claim(self, op: Operation, result: JobResult) -> str:
        """Who claimed the job; but a session that has moved away from there answers itself."""
        job = self._state.book.get(result.job_id)
        if job is not None and job.attempt >= result.attempt_id:
            return ""
        if self._state.answers_here(result.session_id):
            return ""
        owner = await self._store.claimed_by(op, result.job_id)
        if owner not in ("", self._runtime.instance_id) and owner not in self._state.gone_instances:
            return owner
        return await self._store.owner_of(op, "session", result.session_id) or owner

    def _request_of(self, result: JobResult) -> str:
        """The request that a result answers; a node sends back what it was given."""
        job = self._state.book.get(result.job_id)
        if job is not None:
            return job.request.request_id
        return self._state.passed_on.pop(result.job_id, result.job_id)

    def _refusal(self, job: Job | None, result: JobResult) -> str:
        if job is None or job.yielded:
            return "unknown_job"
        if job.ended:
            return "terminal"
        fails_again = not result.success and self._recovery.gives_up(job, result.attempt_id)
        if fails_again or (job.attempt, job.node_id) != (result.attempt_id, result.node_id):
            return "stale_attempt"
        return ""

    def _suppress(self, result: JobResult, job: Job | None, reason: str) -> None:
        self._state.emit(
            ResultSuppressed(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                job=result.job_id, session=result.session_id, attempt=result.attempt_id,
                current_attempt=job.attempt if job else 0, reason=reason,
            )
        )  # fmt: skip

    def _accepted(self, job: Job, result: JobResult) -> None:
        self._state.emit(
            ResultAccepted(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                job=job.job_id, session=result.session_id, attempt=result.attempt_id,
                current_attempt=job.attempt,
            )
        )  # fmt: skip

    def followed(self, job: Job) -> None:
        """A job whose running attempt is another instance's: its result may be here already."""
        result = self._moves.early_result(job)
        if result is not None:
            self._runtime.start(self.handle(result, again=True), name="early result")

    async def _refused(self, job: Job, verdict: str) -> None:
        """The store knows better: what the client still waits for here is tried again here."""
        here = verdict == "OURS" or self._state.answers_here(job.request.session_id)
        if here and not job.ended and self._state.book.get(job.job_id) is job:
            await self._recovery.retry_elsewhere(job, "STORE_REFUSED")

    # The job's end in the store

    async def _close_in_store(self, op: Operation, job: Job, result: JobResult) -> str:
        """Free the slot and record the end; ACCEPTED, or what the store knows better."""
        if self._policy.job_scheme == "claim":
            status = "completed" if result.success else "failed"
            if not result.success and self._may_retry(job):
                await self._dispatcher.give_back(op, job)
                return "ACCEPTED"
            return await self._complete(op, job, status)
        try:
            if self._state.settings.shared:
                await self._count_down(op, job)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        return "ACCEPTED"

    async def _complete(self, op: Operation, job: Job, status: str) -> str:
        """
        Report the end once, fenced by the attempt; the store's verdict.

        A store that is away does not cost the client its answer: the job is ours, its attempt is
        current, its slot is given back later. A session that has moved is answered elsewhere.
        """
        node, attempt = job.node_id, job.attempt
        try:
            verdict = await self._report_end(op, job, attempt, status)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
            self._dispatcher.releases.unheard(job.job_id, attempt, node)
            self._delivery.alone(job.request)
            verdict = "ACCEPTED"
        if job.reserved and job.attempt == attempt:
            job.reserved = False
            self._dispatcher.slot_freed(job, node, attempt)
        if verdict == "ACCEPTED":
            ended = EndedJob(job.job_id, attempt, node, status, self._runtime.now())
            self._state.ended.append(ended)
        elif verdict == "MOVED":
            self._state.moved_here.pop(job.request.session_id, None)
            self._dispatcher.yield_to_other(job)
        return verdict

    async def _report_end(self, op: Operation, job: Job, attempt: int, status: str) -> str:
        """The store's verdict; whose client is here knows better than it whose the session is."""
        session_id = job.request.session_id
        if self._runtime.point("completion waits"):
            await self._runtime.sleep(COMPLETION_WAITS_NS)
        for site in range(2):
            verdict = await self._store.complete(
                op, session_id, job.job_id, attempt=attempt, node=job.node_id, status=status,
                site=site,
            )  # fmt: skip
            if verdict != "MOVED" or not self._runtime.links.has_client(session_id):
                break
            await self._store.own(op, "session", session_id)
        return verdict

    async def _count_down(self, op: Operation, job: Job) -> None:
        """The reference's four calls; `fenced` takes off only what this job had been counted."""
        node, attempt = job.node_id, job.attempt
        released = await self._dispatcher.uncount(op, job)
        if self._policy.slot_release == "counters" or (not released and job.accepted_ns):
            await self._store.dec_running(op, node)
        for site, move in enumerate(("finish", "release")):
            await self._store.move_fsm(op, move, job.job_id, node, attempt, site=10 + site)

    def _may_retry(self, job: Job) -> bool:
        policy = self._state.policy_of(job.request.session_id)
        return policy.node_failure == "retry" and job.failovers < policy.failover_max

    def _policy_of(self, result: JobResult) -> Policy:
        return self._state.policy_of(result.session_id)

    async def _failed(self, op: Operation, job: Job, result: JobResult) -> None:
        """A node could not do it: try another, or tell the client."""
        code = result.error.code if result.error else "PROCESSING_ERROR"
        if self._may_retry(job):
            await self._recovery.retry_elsewhere(job, code)
            return
        async with self._runtime.step(steps.JOBS_WRITE, op):
            pass
        await self._group(op, result)
        self._dispatcher.fail(job, code)

    def _note_missing_model(self, result: JobResult) -> None:
        """The node said that it lacks a model: its own instance remembers it for a while (B18)."""
        if result.error is None or result.error.code != "MODEL_NOT_AVAILABLE":
            return
        details = result.error.details if isinstance(result.error.details, dict) else {}
        service = str(details.get("service_id") or details.get("model_id") or "")
        version = str(details.get("service_version") or details.get("version") or "")
        self._state.cluster.mark_unavailable(result.node_id, service, version, self._runtime.now())

    # What the client gets

    async def _answer(self, op: Operation, result: JobResult, job: Job | None) -> None:
        group_id, part = await self._group(op, result)
        await self._session(op, site=1)
        self._tell_progress(result, job)
        async with self._runtime.step(steps.RESULT_METRICS, op):
            message = answers.message_of(self._runtime, result, job, group_id, part)
        request = job.request if job else None
        answer = Answer(
            session_id=result.session_id,
            utterance=result.utterance_index,
            language=request.target_language if request else "",
            job_id=result.job_id,
            outcome="missing_result"
            if isinstance(message, MissingResult)
            else "translation_result",
            reason=message.reason if isinstance(message, MissingResult) else "",
            message=message,
            targets=request.targets if request else (),
        )
        owner = self._state.sessions.get(result.session_id)
        async with self._runtime.step(steps.RESULT_QUEUE, op):
            released = self._delivery.queue(owner, answer) if owner else []
        if self._policy_of(result).session_reads == "each":
            await self._session(op, site=2)
        self._delivery.send(released)
        if owner is not None:
            self._recovery.watch_order(owner)

    async def _session(self, op: Operation, *, site: int) -> None:
        async with self._runtime.step(steps.GET_SESSION, op, site=site):
            return

    async def _group(self, op: Operation, result: JobResult) -> tuple[str | None, int | None]:
        """Put the sentence into its group, in two writes or in one (P4, W9)."""
        if result.text_asr is None and result.text_translated is None:
            return None, None
        groups, now_ms = self._state.groups, self._runtime.now_ms()
        text = result.text_asr or ""
        where = (result.session_id, result.trace_id, result.utterance_index, text)
        if self._policy_of(result).group_updates == "merged":
            async with self._runtime.step(steps.ON_RESULT_MERGED, op):
                placed = groups.on_result(*where, result.text_translated, None, now_ms)
            return placed.group_id, placed.part_index
        async with self._runtime.step(steps.ON_ASR_FINAL, op):
            placed = groups.on_asr_final(*where, now_ms)
        async with self._runtime.step(steps.ON_NMT_DONE, op):
            groups.on_nmt_done(placed.group_id, placed.part_index, result.text_translated, None)
        return placed.group_id, placed.part_index

    def _tell_progress(self, result: JobResult, job: Job | None) -> None:
        elapsed = (self._runtime.now() - job.created_ns) // 1_000_000 if job else None
        told = (
            (UiEventType.ASR_FINAL, result.text_asr),
            (UiEventType.NMT_DONE, result.text_translated),
        )
        for event, text in told:
            if text:
                self._delivery.ui_event(
                    result.session_id, result.job_id, result.utterance_index, result.trace_id,
                    event, elapsed_ms=elapsed,
                )  # fmt: skip
