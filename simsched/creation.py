"""
Creating a job the reference's way: phase 1 (one instance) and phase 2 (several, with the store).

The order of the calls is the report's call tree (its sections 1.1 and 1.2); the state rules behind
them are the reference's (domain 4.5). Policy fields choose how often the binding is read, what
keeps two instances apart, and what happens when the request lock stays busy. Phase 2 that comes
to nothing falls through to phase 1 and makes a second job for the same request (B3): that is the
reference's fault, kept behind `lock_busy = fall_through`.
"""

from __future__ import annotations

from simsched import births, steps
from simsched.errors import StoreUnavailable
from simsched.jobs import Job, JobRequest
from simsched.placement import JobContext, Placement
from simsched.state import InstanceState
from simsched.store import Binding
from simsched.telemetry import Operation, RequestLock
from simsched.units import MS


class PhasedCreation:
    """`create_job` of the reference."""

    def __init__(self, state: InstanceState, placement: Placement) -> None:
        self._state = state
        self._placement = placement
        self._runtime = state.runtime
        self._policy = state.policy
        self._store = state.store

    async def create(self, op: Operation, request: JobRequest) -> Job:
        """A job for the request: a new one, or the one it was given before."""
        policy = self._state.policy_of(request.session_id)
        if policy.job_key != "off":
            known = self._state.book.of_job_key(request.job_key, self._runtime.now())
            if known is not None:
                return births.repeated(self._state, known, request)
        ctx = self._placement.context(op, request)
        try:
            job = await self._create_by_phases(ctx)
        except StoreUnavailable:
            if policy.store_down == "refuse":
                raise
            job = self._without_node(ctx, "")
        finally:
            await self._placement.let_go(ctx)
        waits = not (job.node_id or job.reason or job.deadline_ns or job.ended)
        if waits and self._state.book.get(job.job_id) is job:
            births.line_up(self._state, job)
        if policy.job_key != "off":
            self._state.book.remember_job_key(request.job_key, job.job_id, self._runtime.now())
        return job

    async def _create_by_phases(self, ctx: JobContext) -> Job:
        op = ctx.op
        job: Job | None = None
        if self._state.settings.shared:
            op.phase = 2
            job = await self._create_shared(ctx)
        if job is None:
            op.phase = max(op.phase, 1)
            job = await self._create_local(ctx)
        return job

    # Phase 1

    async def _create_local(self, ctx: JobContext) -> Job:
        request, op = ctx.request, ctx.op
        async with self._runtime.step(steps.JOBS_READ, op, site=10):
            known = self._state.book.of_request(request.request_id, self._runtime.now())
        if known is not None:
            return births.repeated(self._state, known, request)
        job_id = self._new_id(ctx, site=10)
        await self._placement.learn(ctx, site=10)
        if request.preferred_node:
            async with self._runtime.step(steps.MANAGEMENT_READ, op):
                pass
        chosen = await self._placement.choose(ctx, steps.SELECT_PHASE1, site=12)
        node = chosen.node_id or ""
        reserves = self._policy.slots == "counter" and self._policy.phase1_reserves
        if node and reserves:
            node = node if await self._reserve(op, job_id, node, site=10) else ""
        if op.phase == 2:
            binding = Binding(job_id, node, self._runtime.instance_id, dispatched=False)
            await self._store.set_binding(op, request.request_id, binding, site=10)
        job = await self._keep(ctx, job_id, node, reserved=bool(node) and reserves, phase=1)
        self._state.book.remember_request(request.request_id, job_id, self._runtime.now())
        return job

    # Phase 2

    async def _create_shared(self, ctx: JobContext) -> Job | None:
        """The store-backed path; None: it came to nothing."""
        request, op = ctx.request, ctx.op
        first = await self._store.get_binding(op, request.request_id, site=1)
        async with self._runtime.step(steps.JOBS_READ, op, site=1):
            local = self._state.book.get(first.job_id) if first else None
        if first is not None:
            return births.repeated(self._state, local or self._rebuilt(first, request), request)
        if ctx.policy.binding_reads == "every":
            second = await self._store.get_binding(op, request.request_id, site=2)
            async with self._runtime.step(steps.JOBS_READ, op, site=2):
                local = self._state.book.get(second.job_id) if second else None
            if local is not None:
                return births.repeated(self._state, local, request)
        job_id = self._new_id(ctx, site=2)
        await self._placement.learn(ctx, site=2)
        chosen = await self._placement.choose(ctx, steps.SELECT_PHASE2, site=4)
        node = chosen.node_id or ""
        if self._policy.request_guard == "set_nx":
            return await self._bind_first(ctx, job_id, node)
        return await self._bind_locked(ctx, job_id, node)

    async def _bind_locked(self, ctx: JobContext, job_id: str, node: str) -> Job | None:
        request, op = ctx.request, ctx.op
        owner = f"{self._runtime.instance_id}:{job_id}"
        if not await self._lock(ctx, request.request_id, owner):
            return await self._lock_stayed_busy(ctx)
        self._lock_event(request.request_id, owner, taken=True, ours=True)
        try:
            if ctx.policy.binding_reads != "cached":
                found = await self._store.get_binding(op, request.request_id, site=3)
                if found is not None:
                    return await self._take_over(op, found, request)
            reserves = bool(node) and self._policy.slots == "counter"
            if reserves and not await self._reserve(op, job_id, node):
                return None
            binding = Binding(job_id, node, self._runtime.instance_id, dispatched=False)
            await self._store.set_binding(op, request.request_id, binding)
        finally:
            released = await self._store.unlock_request(op, request.request_id, owner)
            self._lock_event(request.request_id, owner, taken=False, ours=released)
        return await self._keep(ctx, job_id, node, reserved=reserves, phase=2)

    def _lock_event(self, request_id: str, owner: str, *, taken: bool, ours: bool) -> None:
        self._state.emit(
            RequestLock(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                request=request_id, owner=owner, taken=taken, released_by_owner=ours,
            )
        )  # fmt: skip

    async def _bind_first(self, ctx: JobContext, job_id: str, node: str) -> Job | None:
        """One SET NX instead of lock, GET and SET: the loser reads the winner's (W5)."""
        request, op = ctx.request, ctx.op
        binding = Binding(job_id, node, self._runtime.instance_id, dispatched=False)
        if not await self._store.set_binding_if_absent(op, request.request_id, binding):
            found = await self._store.get_binding(op, request.request_id, site=3)
            return None if found is None else await self._take_over(op, found, request)
        reserves = bool(node) and self._policy.slots == "counter"
        if reserves and not await self._reserve(op, job_id, node):
            await self._store.drop_binding(op, request.request_id)
            return None
        return await self._keep(ctx, job_id, node, reserved=reserves, phase=2)

    async def _lock(self, ctx: JobContext, request_id: str, owner: str) -> bool:
        """Try for the request lock as long as the policy says, at least once."""
        policy = ctx.policy
        give_up = self._runtime.now() + policy.lock_wait_ms * MS
        attempt = 0
        while True:
            taken = await self._store.lock_request(
                ctx.op, request_id, owner, policy.lock_ttl_ms, site=attempt
            )
            if taken or self._runtime.now() >= give_up:
                return taken
            attempt += 1
            await self._runtime.sleep(policy.lock_retry_ms * MS)

    async def _lock_stayed_busy(self, ctx: JobContext) -> Job | None:
        if ctx.policy.lock_busy == "fall_through":
            return None
        found = await self._store.get_binding(ctx.op, ctx.request.request_id, site=4)
        if found is not None and ctx.policy.lock_busy == "await_binding":
            return await self._take_over(ctx.op, found, ctx.request)
        return self._without_node(ctx, "REQUEST_LOCK_BUSY")

    async def _take_over(self, op: Operation, found: Binding, request: JobRequest) -> Job:
        """Somebody bound the request while we chose: theirs counts."""
        async with self._runtime.step(steps.JOBS_READ, op, site=3):
            local = self._state.book.get(found.job_id)
        return births.repeated(self._state, local or self._rebuilt(found, request), request)

    # Both

    def _new_id(self, ctx: JobContext, *, site: int) -> str:
        """A random name: every creation makes another, also of the same request."""
        return self._runtime.chance.hex_id(
            "job-", 8, ctx.request.request_id, self._runtime.instance_id, ctx.op.id, site
        )

    async def _reserve(self, op: Operation, job_id: str, node: str, *, site: int = 0) -> bool:
        """Count the first attempt on its node, if the node has room."""
        if await self._store.reserve(op, job_id, 1, node, site=site) != "OK":
            return False
        births.slot_counted(self._state, job_id, 1, node)
        return True

    def _rebuilt(self, binding: Binding, request: JobRequest) -> Job:
        """A job made again from its binding: another instance dispatches it."""
        job = Job(binding.job_id, request, self._runtime.now(), phase=2)
        if binding.node_id:
            job.assign(binding.node_id, 1, reserved=False)
        job.dispatched = True
        return job

    def _without_node(self, ctx: JobContext, reason: str) -> Job:
        """
        A job that nobody dispatches.

        With a reason it is refused at once (the lock stayed busy and the policy rejects), without
        one it runs into the pending timeout (the store is down and the policy is slow: B22).
        """
        job = Job(self._new_id(ctx, site=8), ctx.request, self._runtime.now(), phase=2)
        job.reason = reason
        self._state.book.add(job)
        births.created(self._state, job)
        return job

    async def _keep(
        self, ctx: JobContext, job_id: str, node: str, *, reserved: bool, phase: int
    ) -> Job:
        async with self._runtime.step(steps.JOBS_WRITE, ctx.op, site=phase):
            job = Job(job_id, ctx.request, self._runtime.now(), phase)
            if node:
                job.assign(node, 1, reserved=reserved)
            self._state.book.add(job)
        births.created(self._state, job)
        return job
