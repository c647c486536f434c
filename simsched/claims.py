"""
Creating a job the safe way: one name, one claim.

A job's id derives from session, utterance and language, so that creating it again is the same
job. One script binds the request, takes a slot of the first candidate that has one, and counts
the attempt (`claim.lua`). Without a free slot the job waits in a bounded queue, first come first
served within its language pair; who comes later lines up behind it. The same claim serves a
re-dispatch: it expects the attempt that failed and excludes its node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msgspec import structs

from simsched import births, steps
from simsched.errors import StoreUnavailable
from simsched.jobs import Job, JobRequest, job_name
from simsched.placement import JobContext, Placement
from simsched.releases import Releases
from simsched.state import InstanceState
from simsched.store import Claim
from simsched.telemetry import Operation, OpKind, SlotTaken
from simsched.units import MS, SECOND

BINDING_SLACK_MS = 60_000
"""A binding outlives the last moment at which its job can still be tried again by this much."""

INSIST_MAX: Final = 4
"""Turns of a claim that finds its job elsewhere: once for each reason, and once more."""

SETTLE_NS: Final = SECOND
"""How often a claim without an answer is asked about."""

CLAIM_COUNTS: Final = {
    verdict: f"claims_{verdict.lower()}"
    for verdict in ("CLAIMED", "FULL", "BOUND", "OVER", "MOVED", "ENDED")
}
"""The counter of each answer of the claim script."""

ELSEWHERE: Final = ("BOUND", "OVER", "MOVED")
"""Another instance answers this job, or has answered it."""


class ClaimedCreation:
    """`create_job` of the safe design, and every later claim for the same job."""

    def __init__(self, state: InstanceState, placement: Placement, releases: Releases) -> None:
        self._state = state
        self._placement = placement
        self._releases = releases
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store
        self._numbers = 0
        # Jobs that were refused because a claim got no answer, until that is settled.
        self._unheard: dict[str, Job] = {}
        self.on_followed: Callable[[Job], None] = lambda _job: None
        """Told of a job whose running attempt is another instance's."""
        self.heard_of: Callable[[str], None] = lambda _instance: None
        """Told of the instance that claimed such an attempt."""
        self.retry: Callable[[Job, str], Awaitable[None]]
        """Another attempt, see `Recovery.retry_elsewhere`."""

    async def create(self, op: Operation, request: JobRequest) -> Job:
        """A job for the request: claimed, waiting, refused, or the one that exists already."""
        op.phase = 2 if self._state.settings.shared else 1
        job_id = job_name(request.session_id, request.utterance, request.target_language)
        async with self._runtime.step(steps.JOBS_READ, op):
            known = self._state.book.get(job_id)
        if known is not None:
            await self._look_again(op, known)
            return births.repeated(self._state, known, request)
        self._numbers += 1
        job = Job(job_id, request, self._runtime.now(), op.phase, self._numbers)
        self._state.book.add(job)
        try:
            verdict = await self._first_claim(self._placement.context(op, request), job)
        except StoreUnavailable:
            if self._state.policy_of(request.session_id).store_down == "refuse":
                self._state.book.drop(job)
                births.let_go(self._state, job)
                self._runtime.start(self._settle(request, job), name="settle")
                raise
            verdict = "FULL"
        if verdict in ELSEWHERE:
            job.cancelled = True
            self._state.book.drop(job)
            if job.again:  # it was taken over, and the session moved on before it was claimed
                births.let_go(self._state, job)
            return births.repeated(self._state, job, request)
        if not job.node_id:
            # At once: between the answer FULL and a place in line no freed slot may slip by.
            births.created(self._state, job)
            births.line_up(self._state, job)
        async with self._runtime.step(steps.JOBS_WRITE, op):
            if not job.announced:
                births.created(self._state, job)
        return job

    async def _look_again(self, op: Operation, job: Job) -> None:
        """A job of an earlier stay of its session is wanted again: others may have gone on."""
        attempt = job.attempt
        if not self._state.answers_here(job.request.session_id):
            return
        births.taken_over(self._state, job, job.node_id, attempt)
        if not attempt:
            return  # it stands in line
        job.followed = True  # others may have given this attempt up meanwhile
        try:
            _, current, done = await self._store.claim_of(op, job.job_id)
        except StoreUnavailable:
            return  # its timeout finds out
        if (done or current > attempt) and job.attempt == attempt:
            await self.retry(job, "ASKED_AGAIN")

    async def _first_claim(self, ctx: JobContext, job: Job) -> str:
        """
        Ask for a slot, unless others wait already who could use any slot.

        A slot that was freed while the store said FULL found nobody in line: ask again.
        """
        await self._placement.learn(ctx, site=0)
        if self._state.answers_here(job.request.session_id):
            # Whoever stands in line, another instance may have come far with this one.
            found = await self._asked(ctx, job, (), site=2)
            if found.verdict in ELSEWHERE:
                found = await self._insist(ctx, job, (), 2, found)
            if found.verdict != "FULL":
                return found.verdict
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
        asks_in_vain = self._state.answers_here(job.request.session_id)
        if (not nodes and not asks_in_vain) or self._runtime.point("no candidate"):
            return Claim("FULL")
        claim = await self._asked(ctx, job, nodes, site)
        if claim.verdict in ELSEWHERE:
            claim = await self._insist(ctx, job, nodes, site, claim)
        if job.is_over:  # while this was asked
            return await self._came_too_late(ctx, job, claim)
        if claim.verdict == "CLAIMED":
            self._take(job, claim)
        elif claim.verdict == "FULL":
            full = [node for node, why in zip(nodes, claim.refusals, strict=True) if why == "FULL"]
            self._state.cluster.observe_full(full)
        return claim

    async def _asked(self, ctx: JobContext, job: Job, nodes: Sequence[str], site: int) -> Claim:
        """The store's answer; what is claimed again has had its lease since it was first asked."""
        before_ns = job.asked_ns
        job.asked_ns = asked_ns = before_ns or self._runtime.now()
        claim = await self._store.claim(
            ctx.op,
            job.request.session_id,
            job.job_id,
            expected=job.attempt,
            token=self._token(job),
            lease_ms=self._policy.lease_ms,
            binding_ttl_ms=self._binding_ttl_ms(job),
            nodes=nodes,
            again=job.again,
            site=site,
        )
        job.leased_ns = asked_ns
        # Who is told that the session has moved is not told what was claimed before.
        job.asked_ns = before_ns if claim.verdict == "MOVED" else 0
        if claim.verdict == "BOUND" and claim.done:
            claim = structs.replace(claim, verdict="OVER")
        self._runtime.telemetry.count(CLAIM_COUNTS.get(claim.verdict, "claims_other"))
        return claim

    async def _insist(
        self, ctx: JobContext, job: Job, nodes: Sequence[str], site: int, claim: Claim
    ) -> Claim:
        """
        The job of a session that has moved here, with its client, stays here whatever others did.

        What another instance has begun is followed: its result comes here. What it has done has
        not reached the client, who would not have asked again: it is done again, with the next
        fence. Elsewhere, or without the client, nothing is insisted on.
        """
        for _ in range(INSIST_MAX):
            if claim.verdict not in ELSEWHERE or not self._insists(job, claim):
                break
            if claim.verdict == "MOVED":
                await self._store.own(ctx.op, "session", job.request.session_id)
            elif claim.verdict == "OVER":
                job.again, job.attempt = True, claim.attempt
                births.taken_over(self._state, job, claim.node_id, claim.attempt)
            elif await self._nobody_waits(ctx.op, job, claim):
                job.attempt = claim.attempt
            else:
                self._follow(job, claim)
                return Claim("FOLLOWED", job.job_id, claim.node_id, claim.attempt)
            claim = await self._asked(ctx, job, nodes, site)
        return claim

    def _token(self, job: Job) -> str:
        """
        What tells this try from every other, also from one of an earlier life of this instance.

        A claim that got no answer is repeated with it, and finds what it has taken.
        """
        life = self._state.settings.life
        return f"{self._runtime.instance_id}:{life}:{job.number}:{job.attempt + 1}"

    def _insists(self, job: Job, claim: Claim) -> bool:
        """Whether a job is wanted here that was found elsewhere, or given up here before."""
        here = self._state.answers_here(job.request.session_id)
        wanted = self._state.wants(job.request)
        return wanted and not job.is_over and (here or claim.owner == self._runtime.instance_id)

    async def _nobody_waits(self, op: Operation, job: Job, claim: Claim) -> bool:
        """
        Whether the attempt is lost with its node, or one that this instance has given up.

        One of its own that it has left to another instance, which had the session meanwhile, goes
        on; one whose answer it never heard was not sent to anybody. That a node is gone may be old
        news: the store has dropped its leases, or it has not.
        """
        if claim.owner == self._runtime.instance_id:
            unheard = self._unheard.get(job.job_id)
            if unheard is not None and unheard.attempt + 1 == claim.attempt:
                await self._releases.release(op, job.job_id, claim.attempt, claim.node_id)
                return True
            left = self._state.left_to_others.get(job.job_id)
            over = self._releases.is_unheard(job.job_id, claim.attempt, claim.node_id)
            if left != (claim.node_id, claim.attempt) or over:
                return True
        elif not self._state.cluster.is_gone(claim.node_id):
            return False
        return not await self._store.has_lease(op, job.job_id, claim.attempt, claim.node_id)

    def _follow(self, job: Job, claim: Claim) -> None:
        """Another instance's attempt runs: its result is ours now, and so is its timeout."""
        self._unheard.pop(job.job_id, None)
        births.followed(self._state, job, claim.node_id, claim.attempt)
        if not job.announced:
            births.created(self._state, job)  # its result may be here already
        self.on_followed(job)
        self.heard_of(claim.owner)

    async def _settle(self, request: JobRequest, job: Job) -> None:
        """
        Ask, by the job's name, what became of a claim that got no answer; give its slot back.

        The utterance was refused, so nobody will. Whoever asks for the same job again meanwhile
        gives that slot back and makes the next attempt. The lease of a store that stays away runs
        out.
        """
        op = self._runtime.begin(OpKind.BACKGROUND, request.session_key, request.utterance)
        if job.asked_ns:
            self._unheard[job.job_id] = job
        for round_ in range(self._policy.lease_ms * MS // SETTLE_NS):
            await self._runtime.sleep(SETTLE_NS)
            if self._state.book.get(job.job_id) is not None:
                continue
            try:
                await self._give_up(op, job, round_)
                break
            except StoreUnavailable:
                continue
        if self._unheard.get(job.job_id) is job:
            del self._unheard[job.job_id]
        self._runtime.end(op)

    async def _give_up(self, op: Operation, job: Job, site: int) -> None:
        claim = await self._store.claim(
            op, job.request.session_id, job.job_id, expected=job.attempt, token=self._token(job),
            lease_ms=self._policy.lease_ms, binding_ttl_ms=self._binding_ttl_ms(job), nodes=(),
            site=site,
        )  # fmt: skip
        if claim.verdict != "CLAIMED" or self._state.book.get(job.job_id) is not None:
            return
        self._runtime.telemetry.count("claims_given_up")
        await self._store.drop_binding(op, job.job_id)
        if self._state.book.get(job.job_id) is None:
            await self._releases.release(op, job.job_id, claim.attempt, claim.node_id)

    async def _came_too_late(self, ctx: JobContext, job: Job, claim: Claim) -> Claim:
        """The job ended while its claim was under way: what was claimed is closed in the store."""
        if claim.verdict != "CLAIMED":
            return Claim("ENDED")
        try:
            await self._store.complete(
                ctx.op, job.request.session_id, job.job_id, attempt=claim.attempt,
                node=claim.node_id, status="failed",
            )  # fmt: skip
        except StoreUnavailable:
            self._releases.unheard(job.job_id, claim.attempt, claim.node_id)
            raise
        return Claim("ENDED")

    def _excluded(self, job: Job) -> tuple[str, ...]:
        """Nodes that failed this job, for as long as another may be found."""
        return job.tried_nodes if job.failovers else ()

    def _binding_ttl_ms(self, job: Job) -> int:
        policy = self._state.policy_of(job.request.session_id)
        tries = policy.failover_max + 1
        return policy.pending_ms + tries * policy.job_timeout_ms + BINDING_SLACK_MS

    def _take(self, job: Job, claim: Claim) -> None:
        request = job.request
        self._unheard.pop(job.job_id, None)
        job.assign(claim.node_id, claim.attempt, reserved=True)
        # A number that a store gives out again, because it forgot, has not been answered yet.
        self._state.seen_results.pop((request.session_id, job.job_id, claim.attempt), None)
        self._state.cluster.observe_load(claim.node_id, live=claim.live)
        self._state.emit(
            SlotTaken(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                node=claim.node_id, job=job.job_id, attempt=claim.attempt, live=claim.live,
                slots=claim.slots, expires_ns=job.leased_ns + self._policy.lease_ms * MS,
            )
        )  # fmt: skip
