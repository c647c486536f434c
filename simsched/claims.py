"""
Creating a job the safe way: one name, one claim.

A job's id derives from session, utterance and language, so that creating it again is the same
job. One script binds the request, takes a slot of the first candidate that has one, and counts
the attempt (`claim.lua`). Without a free slot the job waits in a bounded queue, first come first
served within its language pair; who comes later lines up behind it. The same claim serves a
re-dispatch: it expects the attempt that failed and excludes its node.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from simsched import births, steps
from simsched.errors import StoreUnavailable
from simsched.jobs import Job, JobRequest, job_name
from simsched.placement import JobContext, Placement
from simsched.state import InstanceState
from simsched.store import Claim
from simsched.telemetry import Operation, OpKind, SlotTaken
from simsched.units import MS, SECOND

BINDING_SLACK_MS = 60_000
"""A binding outlives the last moment at which its job can still be tried again by this much."""

SETTLE_NS: Final = SECOND
"""How often a claim without an answer is asked about."""

CLAIM_COUNTS: Final = {
    verdict: f"claims_{verdict.lower()}"
    for verdict in ("CLAIMED", "FULL", "BOUND", "OVER", "ENDED")
}
"""The counter of each answer of the claim script."""


class ClaimedCreation:
    """`create_job` of the safe design, and every later claim for the same job."""

    def __init__(self, state: InstanceState, placement: Placement) -> None:
        self._state = state
        self._placement = placement
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store

    async def create(self, op: Operation, request: JobRequest) -> Job:
        """A job for the request: claimed, waiting, refused, or the one that exists already."""
        op.phase = 2 if self._state.settings.shared else 1
        job_id = job_name(request.session_id, request.utterance, request.target_language)
        async with self._runtime.step(steps.JOBS_READ, op):
            known = self._state.book.get(job_id)
        if known is not None:
            return births.repeated(self._state, known, request)
        job = Job(job_id, request, self._runtime.now(), op.phase)
        self._state.book.add(job)
        try:
            verdict = await self._first_claim(self._placement.context(op, request), job)
            if verdict in ("BOUND", "OVER") and request.again:
                verdict = await self._anew(op, job, verdict)
        except StoreUnavailable:
            if self._state.policy_of(request.session_id).store_down == "refuse":
                self._state.book.drop(job)
                self._runtime.start(self._settle(request, job), name="settle")
                raise
            verdict = "FULL"
        if verdict in ("BOUND", "OVER"):
            job.cancelled, job.is_over = True, verdict == "OVER"
            self._state.book.drop(job)
            return births.repeated(self._state, job, request)
        if not job.node_id:
            # At once: between the answer FULL and a place in line no freed slot may slip by.
            births.created(self._state, job)
            births.line_up(self._state, job)
        async with self._runtime.step(steps.JOBS_WRITE, op):
            if not job.announced:
                births.created(self._state, job)
        return job

    async def _anew(self, op: Operation, job: Job, verdict: str) -> str:
        """The job is done, but its client says that the answer was lost: it is done once more."""
        attempt = await self._store.reopen(op, job.job_id)
        if not attempt:
            return verdict  # it runs, and its answer is still to come
        job.attempt = attempt
        births.answer_lost(self._state, job.request)
        return await self._first_claim(self._placement.context(op, job.request), job)

    async def _first_claim(self, ctx: JobContext, job: Job) -> str:
        """
        Ask for a slot, unless others wait already who could use any slot.

        A slot that was freed while the store said FULL found nobody in line: ask again.
        """
        await self._placement.learn(ctx, site=0)
        while all(other.is_picky for other in self._state.pending.line(job.request.pair)):
            freed = self._state.slots_freed
            claim = await self.claim(ctx, job, site=0)
            if claim.verdict == "FULL" and self._state.settings.shared:
                # What looks full may have been freed by another instance: ask once more, at random.
                claim = await self.claim(ctx, job, site=1, blind=True)
            if claim.verdict != "FULL" or freed == self._state.slots_freed:
                return claim.verdict
        return "FULL"

    async def claim(
        self, ctx: JobContext, job: Job, *, site: int, hint: str = "", blind: bool = False
    ) -> Claim:
        """
        Ask for a slot for the job's next attempt; on CLAIMED the job has its node.

        `hint` is a node that freed a slot just now; `blind` asks nodes that look full as well,
        because another instance may have freed theirs.
        """
        nodes = await self._placement.shortlist(
            ctx, site=site, excluded=self._excluded(job), hint=hint, blind=blind
        )
        if not nodes:
            return Claim("FULL")
        claim = await self._store.claim(
            ctx.op,
            job.job_id,
            job.job_id,
            expected=job.attempt,
            token=f"{self._runtime.instance_id}:{job.attempt + 1}",
            lease_ms=self._policy.lease_ms,
            binding_ttl_ms=self._binding_ttl_ms(job),
            nodes=nodes,
            site=site,
        )
        if claim.verdict == "BOUND" and claim.done:
            claim = structs.replace(claim, verdict="OVER")
        self._runtime.telemetry.count(CLAIM_COUNTS.get(claim.verdict, "claims_other"))
        if claim.verdict == "CLAIMED":
            if job.ended:
                return await self._came_too_late(ctx, job, claim)
            self._take(job, claim)
        elif claim.verdict == "FULL":
            full = [node for node, why in zip(nodes, claim.refusals, strict=True) if why == "FULL"]
            self._state.cluster.observe_full(full)
        return claim

    async def _settle(self, request: JobRequest, job: Job) -> None:
        """
        Ask, by the job's name, what became of a claim that got no answer; give its slot back.

        The utterance was refused, so nobody will. Whoever asks for the same job again meanwhile
        finds that claim and goes on with it. If the store stays away, the lease runs out.
        """
        op = self._runtime.begin(OpKind.BACKGROUND, request.session_key, request.utterance)
        for round_ in range(self._policy.lease_ms * MS // SETTLE_NS):
            await self._runtime.sleep(SETTLE_NS)
            if self._state.book.get(job.job_id) is not None:
                break
            try:
                await self._give_up(op, job, round_)
                break
            except StoreUnavailable:
                continue
        self._runtime.end(op)

    async def _give_up(self, op: Operation, job: Job, site: int) -> None:
        claim = await self._store.claim(
            op, job.job_id, job.job_id, expected=0, token=f"{self._runtime.instance_id}:1",
            lease_ms=self._policy.lease_ms, binding_ttl_ms=self._binding_ttl_ms(job), nodes=(),
            site=site,
        )  # fmt: skip
        if claim.verdict != "CLAIMED" or self._state.book.get(job.job_id) is not None:
            return
        self._runtime.telemetry.count("claims_given_up")
        await self._store.drop_binding(op, job.job_id)
        if self._state.book.get(job.job_id) is None:
            await self._store.release_lease(op, job.job_id, claim.attempt, claim.node_id)

    async def _came_too_late(self, ctx: JobContext, job: Job, claim: Claim) -> Claim:
        """The job ended while its claim was under way: close it in the store too."""
        await self._store.complete(
            ctx.op, job.request.session_id, job.job_id, attempt=claim.attempt, node=claim.node_id,
            status="failed",
        )  # fmt: skip
        return Claim("ENDED")

    def _excluded(self, job: Job) -> tuple[str, ...]:
        """Nodes that failed this job, for as long as another may be found."""
        return job.tried_nodes if job.failovers else ()

    def _binding_ttl_ms(self, job: Job) -> int:
        policy = self._state.policy_of(job.request.session_id)
        tries = policy.failover_max + 1
        return policy.pending_ms + tries * policy.job_timeout_ms + BINDING_SLACK_MS

    def _take(self, job: Job, claim: Claim) -> None:
        job.assign(claim.node_id, claim.attempt, reserved=True)
        job.leased_ns = self._runtime.now()
        self._state.cluster.observe_load(claim.node_id, live=claim.live)
        self._state.emit(
            SlotTaken(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                node=claim.node_id, job=job.job_id, attempt=claim.attempt, live=claim.live,
                slots=claim.slots, expires_ns=self._runtime.now() + self._policy.lease_ms * MS,
            )
        )  # fmt: skip
