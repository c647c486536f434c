"""
What keeps jobs moving when the straight path ends: waiting, timing out, failing over, cancelling.

The reference looks once a second (domain 8.5): a job without a node for too long fails, a job
without a result for too long goes to another node. The safe design acts on events: a freed slot
serves the first in line, a closed socket re-dispatches its jobs, each wait has its own deadline;
the scan stays as a backstop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from simsched import births, steps
from simsched.chance import key_of
from simsched.claims import ELSEWHERE
from simsched.delivery import Delivery
from simsched.errors import StoreUnavailable
from simsched.inbox import DispatchToNode
from simsched.jobs import Job, JobStatus
from simsched.leases import Leases
from simsched.messages import JobCancel
from simsched.policy import Policy
from simsched.state import PENDING_RETRY_NS, InstanceState, Session
from simsched.telemetry import JobAssigned, Operation, OpKind, Outcome
from simsched.units import MS

if TYPE_CHECKING:
    from simsched.dispatch import JobDispatcher
    from simsched.placement import JobContext


UNREACHABLE: Final = "NODE_UNAVAILABLE"
"""Why an attempt is given up that could not be sent: its slot is of no use here."""

SITES: Final = 1 << 12
"""Repeated claims of waiting jobs are told apart by a number below this."""


@dataclass(slots=True)
class _Retry:
    """A try that is being made: what is given up, and which nodes have a slot more by that."""

    given_up: int
    freed: dict[str, None]


class Recovery:
    """The background work of one instance on its jobs."""

    def __init__(self, state: InstanceState, dispatcher: JobDispatcher, delivery: Delivery) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store
        self._entity = key_of("instance", state.runtime.instance_id)
        self._rounds = 0
        self._deadlines = state.runtime.timer(self._deadline_passed)
        self._pumping = False
        self._asked: deque[tuple[str, int, bool]] = deque()
        self._retrying: dict[str, _Retry] = {}
        self._lost_again: dict[str, tuple[int, str]] = {}
        dispatcher.retry = dispatcher.claims.retry = self.retry_elsewhere
        self.leases = Leases(state, dispatcher)
        self.releases = dispatcher.releases
        self._order_watch: dict[str, None] = {}

    def _background(self) -> Operation:
        self._rounds += 1
        return self._runtime.begin(OpKind.BACKGROUND, self._entity, self._rounds)

    def _policy_of(self, job: Job) -> Policy:
        return self._state.policy_of(job.request.session_id)

    # The queue of waiting jobs

    def waits(self, job: Job) -> None:
        """A job was put in line: see to its deadline."""
        assert job.deadline_ns > 0
        self._arm()

    def _arm(self) -> None:
        earliest = self._state.pending.earliest_deadline()
        if earliest is None:
            self._deadlines.cancel()
            return
        if self._state.settings.shared:
            earliest = min(earliest, self._runtime.now() + PENDING_RETRY_NS)
        self._deadlines.set(earliest)

    def _deadline_passed(self) -> None:
        self._runtime.start(self._look_at_waiting(), name="pending")

    async def _look_at_waiting(self) -> None:
        now = self._runtime.now()
        for pair, job in self._state.pending.due(now):
            if self._state.pending.remove(pair, job):
                await self._dispatcher.refuse(job, "PENDING_TIMEOUT")
        if self._state.settings.shared and len(self._state.pending):
            await self.pump(blind=True)
        self._arm()

    async def slot_freed(self, node_id: str) -> None:
        """A node has a free slot: the first in line that it suits may have it."""
        if len(self._state.pending) and not self._runtime.point("wake lost"):
            await self.pump(hint=node_id, most=1)
            self._arm()

    async def pump(self, *, hint: str = "", most: int = 0, blind: bool = False) -> None:
        """
        Give free slots to waiting jobs, first come first served within a language pair.

        One at a time: a call that comes while another waits for the store is made up for after it.
        """
        self._asked.append((hint, most, blind))
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._asked:
                await self._pump_once(*self._asked.popleft())
        except StoreUnavailable:
            # Whoever waits keeps the place in line; the next event or deadline looks again.
            self._runtime.telemetry.count("store_unavailable")
            self._asked.clear()
        finally:
            self._pumping = False

    async def _pump_once(self, hint: str, most: int, blind: bool) -> None:
        served = 0
        for pair in self._state.pending.pairs():
            passed_over: dict[str, None] = {}
            while not most or served < most:
                line = self._state.pending.line(pair)
                job = next((one for one in line if one.job_id not in passed_over), None)
                if job is None:
                    break
                verdict = await self._serve(pair, job, hint=hint, blind=blind)
                if verdict == "CLAIMED":
                    served += 1
                elif verdict == "FULL":
                    if not job.is_picky:
                        break
                    passed_over[job.job_id] = None  # the next may take what this one must not

    async def _serve(self, pair: tuple[str, str], job: Job, *, hint: str, blind: bool) -> str:
        """Try to place the first in line: CLAIMED, FULL if it still waits, else it has left."""
        op = self._background()
        ctx = self._dispatcher.context(op, job)
        site = self._rounds % SITES
        if self._policy.job_scheme == "claim":
            claims = self._dispatcher.claims
            verdict = (await claims.claim(ctx, job, site=site, hint=hint, blind=blind)).verdict
        else:
            verdict = await self._choose_again(ctx, job, excluded=())
        self._runtime.end(op, Outcome.DONE if verdict == "CLAIMED" else Outcome.NOTHING)
        if verdict == "FULL":
            return verdict
        self._state.pending.remove(pair, job)
        if verdict == "CLAIMED":
            self._assigned(job)
            await self._dispatcher.dispatch(job)
        elif verdict in ELSEWHERE:
            self._dispatcher.yield_to_other(job)
        return verdict

    def _assigned(self, job: Job) -> None:
        self._state.emit(
            JobAssigned(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id, job=job.job_id,
                node=job.node_id, attempt=job.attempt,
            )
        )  # fmt: skip

    # Failing over

    async def node_lost(self, node_id: str, *, since_ns: int | None = None) -> None:
        """
        A node is gone: its jobs go elsewhere at once, if the policy acts on it (W14).

        `since_ns`: when it was connected to this instance, which tells the store; None: elsewhere.
        """
        held = list(self._state.node_jobs.get(node_id, ()))
        if self._policy.node_loss != "event":
            return
        freed = since_ns is not None and await self._tell_gone(node_id, since_ns)
        for job_id in held:
            job = self._state.book.get(job_id)
            if job is not None and not job.ended and job.node_id == node_id:
                if freed and job.reserved:
                    job.reserved = False
                    self._dispatcher.slot_freed(job, node_id, job.attempt)
                await self.retry_elsewhere(job, "WS_DISCONNECTED")

    async def _tell_gone(self, node_id: str, since_ns: int) -> bool:
        """Whether the store has dropped all leases of a node."""
        op = self._background()
        freed = False
        try:
            freed = await self._store.node_gone(op, node_id, since_ns=since_ns)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
            self._state.gone_unsaid[node_id] = since_ns
        self._runtime.end(op)
        return freed

    async def node_unreachable(self, node_id: str, reason: str) -> None:
        """The instance that a node is connected to is gone; the node's own leases are its own."""
        for job_id in list(self._state.node_jobs.get(node_id, ())):
            job = self._state.book.get(job_id)
            if job is not None and not job.ended and job.node_id == node_id:
                await self.retry_elsewhere(job, reason)

    async def retry_elsewhere(self, job: Job, reason: str) -> None:
        """
        Another node for the job, or the queue, or the end of its tries; once at a time.

        The first in line is told of the slots that it gives up. An attempt that is lost while it is
        still being handed over is given up after that.
        """
        if job.status is JobStatus.PENDING or job.cancelled or job.done:
            return
        under_way = self._retrying.get(job.job_id)
        if under_way is not None:
            if job.attempt > under_way.given_up:
                self._lost_again[job.job_id] = (job.attempt, reason)
            return
        self._retrying[job.job_id] = retry = _Retry(job.attempt, {})
        try:
            await self._try_others(job, reason, retry)
        finally:
            del self._retrying[job.job_id]
        for node_id in retry.freed:
            if not self._state.cluster.is_gone(node_id):
                self._runtime.start(self.slot_freed(node_id), name="slot freed")
        attempt, reason = self._lost_again.pop(job.job_id, (0, ""))
        if attempt == job.attempt and not job.is_over:
            await self.retry_elsewhere(job, reason)

    def gives_up(self, job: Job, attempt: int) -> bool:
        """Whether an attempt is given up already: another is being made, or waits in line."""
        under_way = self._retrying.get(job.job_id)
        is_left = under_way is not None and attempt <= under_way.given_up
        return is_left or job.status is JobStatus.PENDING

    async def _try_others(self, job: Job, reason: str, retry: _Retry) -> None:
        policy = self._policy_of(job)
        if await self.leases.has_left(job):
            self._dispatcher.yield_to_other(job)
            return
        while not job.is_over:
            if job.failovers >= policy.failover_max or not self._state.wants(job.request):
                await self._dispatcher.refuse(job, reason)
                return
            job.failovers += 1
            retry.given_up = job.attempt
            if job.reserved and reason != UNREACHABLE:
                retry.freed[job.node_id] = None
            verdict = await self._place_again(job)
            if verdict == "CLAIMED":
                self._assigned(job)
                attempt = job.attempt
                if await self._dispatcher.hand_over(job) or not job.waits_to_go(attempt):
                    return
                reason = UNREACHABLE
                if self._policy.node_loss != "event":
                    await self._dispatcher.refuse(job, reason)
            elif verdict in ELSEWHERE:
                self._dispatcher.yield_to_other(job)
                return
            elif verdict in ("ENDED", "FOLLOWED"):
                return
            elif policy.pending == "queue":
                await self._line_up_again(job)
                return
            else:
                await self._dispatcher.refuse(job, "JOB_TIMEOUT")

    async def _place_again(self, job: Job) -> str:
        """Another node for the job; the reference holds the jobs lock over all of it (W18)."""
        op = self._background()
        if self._policy_of(job).failover_lock == "across_store":
            async with self._runtime.step(steps.JOBS_WRITE_HELD, op):
                verdict = await self._find_another(op, job)
        else:
            verdict = await self._find_another(op, job)
        self._runtime.end(op, Outcome.DONE if verdict == "CLAIMED" else Outcome.FAILED)
        return verdict

    async def _find_another(self, op: Operation, job: Job) -> str:
        """Free what the last attempt held and look for another node; the verdict of a claim."""
        old_node = job.node_id
        self._dispatcher.forget_node(job)
        await self._dispatcher.give_back(op, job)
        verdict = "ENDED"
        if not job.is_over:
            ctx = self._dispatcher.context(op, job)
            try:
                if self._policy.job_scheme == "claim":
                    verdict = await self._claim_another(ctx, job)
                else:
                    verdict = await self._choose_again(ctx, job, excluded=(old_node,))
            except StoreUnavailable:
                self._runtime.telemetry.count("store_unavailable")
                verdict = "FULL"
        return verdict

    async def _claim_another(self, ctx: JobContext, job: Job) -> str:
        """A slot that was freed while the store said FULL found the job in no line: ask again."""
        while True:
            freed = self._state.slots_freed
            claim = await self._dispatcher.claims.claim(ctx, job, site=job.attempt + 1)
            if claim.verdict != "FULL" or freed == self._state.slots_freed:
                return claim.verdict

    async def _line_up_again(self, job: Job) -> None:
        if job.is_over or self._state.book.get(job.job_id) is not job:
            return  # it ended, or another instance took it, while the store was asked
        if self._state.pending.full:
            await self._dispatcher.refuse(job, "QUEUE_FULL")
            return
        job.move(JobStatus.PENDING)
        job.dispatched = False
        job.deadline_ns = self._runtime.now() + self._policy_of(job).pending_ms * MS
        births.queued(self._state, job, "RETRY")
        self.waits(job)

    async def _choose_again(self, ctx: JobContext, job: Job, *, excluded: tuple[str, ...]) -> str:
        """The reference's way to another node, one more attempt (domain 4.8, 8.5)."""
        placement, site = self._dispatcher.placement, 20 + job.attempt
        await placement.learn(ctx, site=site)
        chosen = await placement.choose(ctx, steps.SELECT_AGAIN, site=site, excluded=excluded)
        node = chosen.node_id or ""
        reserves = bool(node) and self._state.settings.shared and self._policy.slots == "counter"
        if reserves:
            refusal = await self._store.reserve(ctx.op, job.job_id, job.attempt + 1, node, site=20)
            node = node if refusal == "OK" else ""
        if not node:
            return "FULL"
        if reserves:
            births.slot_counted(self._state, job.job_id, job.attempt + 1, node)
        if job.ended:
            if reserves:
                self._dispatcher.slot_freed(job, node, job.attempt + 1)
                await self._store.release(ctx.op, job.job_id, job.attempt + 1, node)
            return "ENDED"
        job.assign(node, job.attempt + 1, reserved=reserves)
        return "CLAIMED"

    # The scan

    async def run(self) -> None:
        """Look at all jobs once per period, for as long as the instance lives."""
        while True:
            await self._runtime.sleep(self._state.settings.scan_ns)
            op = self._background()
            async with self._runtime.step(steps.TIMEOUT_SCAN, op, n=len(self._state.book.jobs)):
                overdue = [job for job in self._state.book.jobs.values() if self._overdue(job)]
            await self.leases.renew(op)
            await self._say_released(op)
            self._runtime.end(op)
            for job in overdue:
                await self._time_out(job)
            self._sweep_orders()

    async def _say_released(self, op: Operation) -> None:
        """Say again what the store has not heard of nodes and slots, and serve who waits."""
        try:
            freed = await self.releases.say_again(op)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
            return
        for node_id in freed:
            await self.pump(hint=node_id)

    def _overdue(self, job: Job) -> bool:
        now = self._runtime.now()
        if job.is_over or not job.announced or job.job_id in self._retrying:
            return False
        policy = self._policy_of(job)
        if not job.dispatched:
            # Who waits in line has a deadline of its own.
            return not job.deadline_ns and now > job.created_ns + policy.pending_ms * MS
        limit = policy.job_timeout_ms
        if policy.ack_timeout_ms and not job.accepted_ns:
            limit = min(limit, policy.ack_timeout_ms)
        return now - job.dispatched_ns > limit * MS

    async def _time_out(self, job: Job) -> None:
        """One overdue job; the scan may have come to it late, so look again."""
        if not self._overdue(job):
            return
        if not job.dispatched:
            await self._dispatcher.refuse(job, "PENDING_TIMEOUT")
            return
        if await self.leases.has_left(job):
            self._dispatcher.yield_to_other(job)
            return
        self.send_cancel(job, "job_timeout")
        await self.retry_elsewhere(job, "JOB_TIMEOUT")

    # Cancelling

    def send_cancel(self, job: Job, reason: str) -> None:
        """Tell the job's node, wherever it is connected, that nobody waits any more."""
        message = JobCancel(job_id=job.job_id, trace_id=job.request.trace_id, reason=reason)
        if self._runtime.links.to_node(job.node_id, message) or not self._state.settings.shared:
            return
        self._runtime.start(self._cancel_remotely(job.node_id, message), name="cancel")

    async def _cancel_remotely(self, node_id: str, message: JobCancel) -> None:
        op = self._background()
        try:
            home = await self._store.owner_of(op, "node", node_id)
            if home and home != self._runtime.instance_id:
                event = DispatchToNode(node_id=node_id, message=message)
                await self._runtime.links.to_instance(steps.INBOX_APPEND, op, home, event)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    async def cancel(self, job: Job, reason: str) -> None:
        """End a job that is not wanted any more and free what it holds."""
        self._state.pending.remove(job.request.pair, job)
        job.cancelled = True
        if job.dispatched:
            self.send_cancel(job, reason)
        await self._dispatcher.refuse(job, "CANCELLED")

    # Order

    def watch_order(self, session: Session) -> None:
        """A session's results may be held back: the scan will look again."""
        if session.results.next_deadline_ns() is not None:
            self._order_watch[session.session_id] = None

    def _sweep_orders(self) -> None:
        for session_id in list(self._order_watch):
            session = self._state.sessions.get(session_id)
            if session is None:
                del self._order_watch[session_id]
                continue
            self._delivery.send(self._delivery.sweep(session))
            if session.results.next_deadline_ns() is None:
                del self._order_watch[session_id]
