"""
Choosing a node: the shell around `pools` and `selection` that reads, locks and is charged.

A `JobContext` carries what one job creation has learnt. A redundant call of the report is a
look-up that is not remembered in it: the policy says what may be reused (`snapshot_reads`,
`config_reads`, `caches`), the decisions themselves stay pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

from simsched import steps
from simsched.chance import below, mix
from simsched.filters import Draw, SelectionRules
from simsched.jobs import JobRequest
from simsched.modules import job_needs
from simsched.nodes import Health
from simsched.policy import Policy
from simsched.pools import PoolDecision, RememberedPool, decide_pool, try_order
from simsched.ports import StepGuard
from simsched.selection import Selection, SelectionRequest, candidates, select
from simsched.snapshot import ClusterSnapshot
from simsched.state import InstanceState
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import MS

PIPELINE: Final = {"use_asr": True, "use_nmt": True, "use_tts": True}
"""What the audio path asks of a node (domain 4.2)."""

REFERENCE_SAMPLE: Final = 20
"""Candidates whose capabilities the reference reads per selection (domain 4.9)."""


class JobContext:
    """One job creation in progress, and what it has learnt so far."""

    __slots__ = (
        "config_known", "draw_key", "guard", "op", "policy", "pool", "request", "rules", "snapshot",
    )  # fmt: skip

    def __init__(
        self,
        op: Operation,
        request: JobRequest,
        policy: Policy,
        rules: SelectionRules,
        draw_key: int,
    ) -> None:
        self.op = op
        self.request = request
        self.policy = policy
        self.rules = rules
        self.draw_key = draw_key
        self.snapshot: ClusterSnapshot | None = None
        self.config_known = False
        self.guard: StepGuard | None = None
        self.pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One look for nodes: what was asked of which snapshot, and whom it gave, best first."""

    at_ns: int
    request: JobRequest
    asked: SelectionRequest
    rules: SelectionRules
    snapshot: ClusterSnapshot
    chosen: tuple[str, ...]


class NodeChoiceCache:
    """Choices by language pair: with a lifetime (P6), or valid for one snapshot version (6s)."""

    def __init__(self, mode: str, ttl_ms: int) -> None:
        self._mode = mode
        self._ttl_ns = ttl_ms * MS
        self._kept: dict[tuple[str, str], tuple[str, int]] = {}

    def get(self, pair: tuple[str, str], stamp: int) -> str:
        """The kept choice, or "": `stamp` is the time (ttl) or the snapshot version."""
        choice, kept = self._kept.get(pair, ("", 0))
        if self._mode == "ttl":
            return choice if choice and stamp < kept + self._ttl_ns else ""
        return choice if choice and stamp == kept else ""

    def put(self, pair: tuple[str, str], choice: str, stamp: int) -> None:
        """Keep a choice; nothing negative is kept."""
        if choice:
            self._kept[pair] = (choice, stamp)


class Placement:
    """
    Reads the cluster and chooses nodes for one instance.

    `on_choice` is told every look that was taken, for whoever explains them; None: nobody.
    """

    def __init__(self, state: InstanceState) -> None:
        self._state = state
        self._runtime = state.runtime
        canary = state.settings.canary
        self._caches = _choice_caches(state.policy)
        self._canary_caches = _choice_caches(canary.policy) if canary else self._caches
        self.on_choice: Callable[[Choice], None] | None = None

    def context(self, op: Operation, request: JobRequest) -> JobContext:
        """Begin to learn about a job."""
        key = self._runtime.chance.below(
            1 << 64, "select", request.session_id, request.utterance, request.target_language
        )
        session, state = request.session_id, self._state
        return JobContext(op, request, state.policy_of(session), state.rules_of(session), key)

    async def learn(self, ctx: JobContext, *, site: int) -> None:
        """Snapshot, phase-3 configuration and the session's pool, as `create_job` does first."""
        await self._get_snapshot(ctx, site=site)
        await self._get_config(ctx, site=site)
        await self._decide_pool(ctx)

    async def choose(
        self, ctx: JobContext, step: Step, *, site: int, excluded: tuple[str, ...] = ()
    ) -> Selection:
        """One node for the job, as the reference's selectors do."""
        if ctx.policy.snapshot_reads == "each":
            await self._get_snapshot(ctx, site=site)
        if ctx.policy.config_reads == "each":
            await self._get_config(ctx, site=site)
        kept = await self._kept_choice(ctx)
        if kept and kept not in excluded:
            return Selection(node_id=kept, selector="cache")
        selection = await self._select(ctx, step, site=site, excluded=excluded)
        if selection.node_id is None and ctx.policy.second_selection:
            selection = await self._select(ctx, step, site=site + 1, excluded=())
        if ctx.policy.caches != "none":
            self._cache_of(ctx)[0].put(self._pair(ctx), selection.node_id or "", self._stamp(ctx))
        return selection

    async def shortlist(
        self,
        ctx: JobContext,
        *,
        site: int = 0,
        excluded: tuple[str, ...] = (),
        hint: str = "",
        blind: bool = False,
    ) -> tuple[str, ...]:
        """
        The few best nodes, in order, for one claim.

        A usable `hint` leads; `blind` draws from all nodes of the language pair, full or not.
        """
        if ctx.snapshot is None:
            await self._get_snapshot(ctx, site=site)
        assert ctx.snapshot is not None
        kept = await self._kept_choice(ctx)
        if kept and kept not in excluded:
            return (kept,)
        step = steps.SELECT_INDEX if ctx.policy.selection == "index" else steps.SELECT_PHASE1
        async with self._runtime.step(step, ctx.op, site=site, n=len(ctx.snapshot)):
            asked = self._request(ctx, excluded)
            self._state.turn += 1
            found = () if blind else candidates(
                ctx.snapshot, asked, ctx.rules,
                self._draw(ctx, site), ctx.policy.candidates, turn=self._state.turn,
                reserved=self._state.given_to,
            )  # fmt: skip
        if blind:
            found = self._any_of_pair(ctx, site, excluded)
        elif hint and hint not in found and self._suits(ctx, hint, excluded):
            found = (hint, *found[: ctx.policy.candidates - 1])
        self._tell(ctx, asked, found)
        if found and ctx.policy.caches != "none":
            self._cache_of(ctx)[0].put(self._pair(ctx), found[0], self._stamp(ctx))
        return found

    def _any_of_pair(
        self, ctx: JobContext, site: int, excluded: tuple[str, ...]
    ) -> tuple[str, ...]:
        nodes = self._state.cluster.snapshot.nodes_for(self._pair(ctx))
        if not nodes:
            return ()
        start = self._draw(ctx, site)(len(nodes), 0)
        ring = (nodes[(start + k) % len(nodes)] for k in range(len(nodes)))
        usable = (node for node in ring if self._suits(ctx, node, excluded))
        return tuple(islice(usable, ctx.policy.candidates))

    def _suits(self, ctx: JobContext, node_id: str, excluded: tuple[str, ...]) -> bool:
        view = self._state.cluster.snapshot.get(node_id)
        request = ctx.request
        tried = self._state.utterance_nodes.get((request.session_id, request.utterance), ())
        return (
            view is not None
            and view.health is Health.READY
            and node_id not in excluded
            and self._pair(ctx) in view.pairs
            and (node_id not in tried or view.takes_retries)
        )

    async def _get_snapshot(self, ctx: JobContext, *, site: int) -> None:
        if ctx.policy.snapshot_copy == "shared":
            ctx.snapshot = self._state.cluster.snapshot
            return
        guard = self._runtime.step(steps.SNAPSHOT_READ, ctx.op, site=site)
        if ctx.policy.snapshot_guard == "nested" and ctx.guard is None:
            # Held until the job exists, while selection reads again: B24.
            await guard.__aenter__()
            ctx.guard = guard
            await self._copy_snapshot(ctx, site=site)
            return
        async with guard:
            await self._copy_snapshot(ctx, site=site)

    async def _copy_snapshot(self, ctx: JobContext, *, site: int) -> None:
        snapshot = self._state.cluster.snapshot
        if ctx.policy.snapshot_copy == "deep":
            async with self._runtime.step(steps.SNAPSHOT_CLONE, ctx.op, site=site, n=len(snapshot)):
                pass
        ctx.snapshot = snapshot

    async def let_go(self, ctx: JobContext) -> None:
        """Release what a nested read of the snapshot still holds."""
        guard, ctx.guard = ctx.guard, None
        if guard is not None:
            await guard.__aexit__(None, None, None)

    async def _get_config(self, ctx: JobContext, *, site: int) -> None:
        if ctx.config_known and ctx.policy.config_reads == "once":
            return
        async with self._runtime.step(steps.PHASE3_CONFIG, ctx.op, site=site):
            ctx.config_known = True

    async def _decide_pool(self, ctx: JobContext) -> None:
        session = ctx.request.session_id
        if ctx.policy.session_lock == "mutex":
            async with self._runtime.step(steps.SESSION_RUNTIME, ctx.op, key=session):
                decision = await self._pool_decision(ctx)
                self._remember(ctx, decision)
            return
        async with self._runtime.step(steps.SESSION_RUNTIME_SHARED, ctx.op, key=session):
            before = self._remembered(ctx)
        decision = await self._pool_decision(ctx)
        if decision.remembered != before:
            async with self._runtime.step(steps.SESSION_RUNTIME_STORE, ctx.op, key=session):
                self._remember(ctx, decision)
        ctx.pool = decision.pool

    async def _pool_decision(self, ctx: JobContext) -> PoolDecision:
        """The costly part: find the pools of the language pair and take one."""
        if ctx.policy.caches != "none":
            async with self._runtime.step(steps.POOL_CACHE, ctx.op):
                kept = self._cache_of(ctx)[1].get(self._pair(ctx), self._stamp(ctx))
            if kept:
                return PoolDecision(pool=kept, remembered=self._remembered(ctx), reused=True)
        async with self._runtime.step(steps.POOL_DECIDE, ctx.op):
            decision = self._decided(ctx)
        if ctx.policy.caches != "none":
            self._cache_of(ctx)[1].put(self._pair(ctx), decision.pool or "", self._stamp(ctx))
        return decision

    def _decided(self, ctx: JobContext) -> PoolDecision:
        request, cluster = ctx.request, self._state.cluster
        pair = self._pair(ctx)
        language = self._state.settings.pools.flavour == "language"
        eligible = (
            cluster.languages.eligible(*pair)
            if language
            else tuple(pool.pool_id for pool in cluster.pools)
        )
        snapshot = ctx.snapshot or cluster.snapshot
        return decide_pool(
            cluster.config,
            self._remembered(ctx),
            pair=pair,
            eligible=eligible,
            tenant_id=request.tenant_id or "",
            routing_key=request.tenant_id or request.session_id,
            validated=ctx.policy.pool_affinity == "validated",
            is_live=lambda pool: snapshot.tally(pool).ready > 0,
        )

    def _remembered(self, ctx: JobContext) -> RememberedPool | None:
        session = self._state.sessions.get(ctx.request.session_id)
        return session.remembered_pool if session else None

    def _remember(self, ctx: JobContext, decision: PoolDecision) -> None:
        session = self._state.sessions.get(ctx.request.session_id)
        if session is not None:
            session.remembered_pool = decision.remembered
        ctx.pool = decision.pool

    async def _kept_choice(self, ctx: JobContext) -> str:
        if ctx.policy.caches == "none":
            return ""
        async with self._runtime.step(steps.NODE_CACHE, ctx.op):
            return self._cache_of(ctx)[0].get(self._pair(ctx), self._stamp(ctx))

    def _cache_of(self, ctx: JobContext) -> tuple[NodeChoiceCache, NodeChoiceCache]:
        """The choices kept of nodes and of pools: each policy has its own."""
        return self._caches if ctx.policy is self._state.policy else self._canary_caches

    def _stamp(self, ctx: JobContext) -> int:
        if ctx.policy.caches == "ttl":
            return self._runtime.now()
        return (ctx.snapshot or self._state.cluster.snapshot).version

    async def _select(
        self, ctx: JobContext, step: Step, *, site: int, excluded: tuple[str, ...]
    ) -> Selection:
        assert ctx.snapshot is not None
        if ctx.policy.capability_reads != "snapshot":
            await self._read_capabilities(ctx)
        if ctx.policy.selection == "index":
            step = steps.SELECT_INDEX
        async with self._runtime.step(step, ctx.op, site=site, n=len(ctx.snapshot)):
            asked = self._request(ctx, excluded)
            self._state.turn += 1
            chosen = select(
                ctx.snapshot, asked, ctx.rules,
                self._draw(ctx, site), turn=self._state.turn, reserved=self._state.given_to,
            )  # fmt: skip
        self._tell(ctx, asked, (chosen.node_id,) if chosen.node_id else ())
        return chosen

    def _tell(self, ctx: JobContext, asked: SelectionRequest, chosen: tuple[str, ...]) -> None:
        """Show a choice to whoever wants to explain it later."""
        if self.on_choice is not None and ctx.snapshot is not None:
            self.on_choice(
                Choice(
                    at_ns=self._runtime.now(), request=ctx.request, asked=asked, rules=ctx.rules,
                    snapshot=ctx.snapshot, chosen=chosen,
                )
            )  # fmt: skip

    async def _read_capabilities(self, ctx: JobContext) -> None:
        """The reference asks the store about every candidate and type, one by one (W7)."""
        if ctx.pool is None or ctx.snapshot is None:
            return
        store = self._state.store
        await store.pool_members(ctx.op, ctx.pool)
        members = ctx.snapshot.members(ctx.pool)[:REFERENCE_SAMPLE]
        await store.read_capabilities(
            ctx.op,
            members,
            types=len(_types(ctx.request.features, ctx.rules.two_level)),
            pipelined=ctx.policy.capability_reads == "pipelined",
        )

    def _request(self, ctx: JobContext, excluded: tuple[str, ...]) -> SelectionRequest:
        request, state = ctx.request, self._state
        pools: tuple[str, ...] = ()
        if ctx.rules.two_level:
            eligible = (
                state.cluster.languages.eligible(*self._pair(ctx))
                if state.settings.pools.flavour == "language"
                else tuple(pool.pool_id for pool in state.cluster.pools)
            )
            pools = try_order(state.cluster.config, ctx.pool, eligible)
        return SelectionRequest(
            source=request.source_language,
            target=request.target_language,
            required=frozenset(_types(request.features, ctx.rules.two_level)),
            pools=pools,
            preferred_node=request.preferred_node or "",
            preferred_check="available" if ctx.op.phase == 2 else "full",
            preferred_fallback=ctx.policy.preferred_fallback or ctx.op.phase == 1,
            excluded=excluded,
            tried=state.utterance_nodes.get((request.session_id, request.utterance), ()),
            now_ns=self._runtime.now(),
        )

    def _draw(self, ctx: JobContext, site: int) -> Draw:
        key = mix(ctx.draw_key, site)
        return lambda bound, k: below(mix(key, k), bound)

    def _pair(self, ctx: JobContext) -> tuple[str, str]:
        return (ctx.request.source_language, ctx.request.target_language)


def _choice_caches(policy: Policy) -> tuple[NodeChoiceCache, NodeChoiceCache]:
    kept = (policy.caches, policy.cache_ttl_ms)
    return NodeChoiceCache(*kept), NodeChoiceCache(*kept)


@lru_cache(maxsize=256)
def _types(features: tuple[str, ...], two_level: bool) -> tuple[str, ...]:
    return job_needs(PIPELINE, features, two_level=two_level).types
