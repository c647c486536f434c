"""
Pools: the first of the two levels of scheduling (the reference's phase 3).

Three flavours, chosen by the configuration alone:

- *language* pools, made from what nodes declare: one pool per set of semantic languages;
- *capability* pools, configured: each asks for service types;
- *hash* pools: a node's id decides, a key of the session says where to start.

All functions are pure. Pool ids are strings in every flavour: "0".."15", "7", "en-zh".
Choices left to chance take a number from the caller. What a pool's nodes are doing is asked
through a callable; this module knows no snapshot, no store and no load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from simsched.errors import ConfigError
from simsched.languages import AUTO, Pair
from simsched.modules import CORE_TYPES, SERVICE_TYPES
from simsched.units import MASK64

FNV_OFFSET: Final = 0xCBF29CE484222325
FNV_PRIME: Final = 0x100000001B3
"""FNV-1a, 64 bits (Fowler, Noll and Vo; draft-eastlake-fnv)."""


def fnv1a(key: str, seed: int = 0) -> int:
    """FNV-1a 64 of the key's UTF-8 bytes followed by the seed as 8 little-endian bytes."""
    value = FNV_OFFSET
    for byte in key.encode() + (seed & MASK64).to_bytes(8, "little"):
        value = ((value ^ byte) * FNV_PRIME) & MASK64
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """
    One pool.

    `required_services` belongs to capability pools (empty: takes every job), `languages` to
    language pools (sorted); hash pools have neither.
    """

    pool_id: str
    required_services: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "mode": ("two_level", "single_level"),
    "pool_match_scope": ("core_only", "all_required"),
    "pool_match_mode": ("contains", "exact"),
}
"""Settings that are one of a few words."""

AT_LEAST: Final[Mapping[str, int]] = {
    "pool_count": 1,
    "random_sample_size": 1,
    "min_nodes_per_pool": 1,
    "max_pools": 1,
    "hash_seed": 0,
}
"""Settings that are whole numbers, and their smallest values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """
    Phase 3's configuration; names and defaults are the reference's `scheduler.phase3.*`.

    Attributes:
        tenant_overrides: (tenant id, pool id): the tenant's jobs start in this pool.
        strict_pool_eligibility: a job that no capability pool fits fails instead of trying all.
        min_nodes_per_pool: a language set with fewer nodes makes no pool.
        max_pools: most language pools; the largest sets of nodes are kept.
        random_sample_size: members of a pool that one decision looks at.

    Raises:
        ConfigError: a value that the setting does not take, two pools of one id, an override
            that names no pool.

    """

    enabled: bool = False
    mode: str = "two_level"
    pool_count: int = 16
    hash_seed: int = 0
    fallback_scan_all_pools: bool = True
    pools: tuple[Pool, ...] = ()
    tenant_overrides: tuple[tuple[str, str], ...] = ()
    pool_match_scope: str = "core_only"
    pool_match_mode: str = "contains"
    strict_pool_eligibility: bool = False
    auto_generate_language_pools: bool = False
    min_nodes_per_pool: int = 1
    max_pools: int = 50
    random_sample_size: int = 20
    enable_session_affinity: bool = False

    def __post_init__(self) -> None:
        for name, words in CHOICES.items():
            value = getattr(self, name)
            if value not in words:
                raise ConfigError("phase3", name, f"one of {', '.join(words)}, not {value!r}")
        for name, least in AT_LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(
                    "phase3", name, f"a whole number of {least} or more, not {value!r}"
                )
        self._check_pools()

    def _check_pools(self) -> None:
        ids = [pool.pool_id for pool in self.pools]
        for position, pool in enumerate(self.pools):
            if not pool.pool_id or pool.pool_id in ids[:position]:
                raise ConfigError("phase3", "pools", f"ids differ and are not empty: {ids}")
            unknown = [name for name in pool.required_services if name not in SERVICE_TYPES]
            if unknown:
                types = ", ".join(SERVICE_TYPES)
                raise ConfigError(
                    "phase3", "pools.required_services", f"of {types}, not {unknown[0]!r}"
                )
        if self.flavour == "language":
            return
        known = [pool.pool_id for pool in self.fixed_pools()]
        for tenant, pool_id in self.tenant_overrides:
            if pool_id not in known:
                raise ConfigError(
                    "phase3", "tenant_overrides", f"tenant {tenant}: no such pool: {pool_id}"
                )

    @property
    def flavour(self) -> str:
        """`language`, `capability` or `hash`."""
        if self.auto_generate_language_pools:
            return "language"
        return "capability" if self.pools else "hash"

    @property
    def two_level(self) -> bool:
        """Whether pools are in use at all."""
        return self.enabled and self.mode == "two_level"

    def fixed_pools(self) -> tuple[Pool, ...]:
        """The pools that do not depend on the nodes; none for language pools."""
        made: dict[str, tuple[Pool, ...]] = {
            "language": (),
            "capability": self.pools,
            "hash": tuple(Pool(pool_id=str(number)) for number in range(self.pool_count)),
        }
        return made[self.flavour]

    def tenant_pool(self, tenant_id: str) -> str:
        """The pool that a tenant is bound to, or ""."""
        return dict(self.tenant_overrides).get(tenant_id, "") if tenant_id else ""


def language_pool_id(languages: Iterable[str]) -> str:
    """The id of the pool of a language set: sorted, joined by "-"; "" for no languages."""
    return "-".join(sorted(dict.fromkeys(languages)))


_id_of_set = lru_cache(maxsize=1024)(language_pool_id)
"""Every heartbeat asks for the pool of its node, and most nodes have the same languages."""


def language_pools(
    config: PoolConfig, semantic_languages: Iterable[Sequence[str]]
) -> tuple[Pool, ...]:
    """
    The pools that these nodes' semantic languages make, by id.

    Ids are names and not numbers counted up, so that every instance makes the same ones.
    """
    sizes: dict[tuple[str, ...], int] = {}
    for languages in semantic_languages:
        if languages:
            key = tuple(sorted(dict.fromkeys(languages)))
            sizes[key] = sizes.get(key, 0) + 1
    large = [key for key, size in sizes.items() if size >= config.min_nodes_per_pool]
    kept = sorted(large, key=lambda key: (-sizes[key], key))[: config.max_pools]
    made = (Pool(pool_id=language_pool_id(key), languages=key) for key in kept)
    return tuple(sorted(made, key=lambda pool: pool.pool_id))


def pool_of_node(
    config: PoolConfig,
    pools: Sequence[Pool],
    *,
    node_id: str,
    installed: Iterable[str],
    semantic_languages: Sequence[str],
) -> str | None:
    """
    The one pool that a node belongs to, or None.

    Language pools: the one of exactly its languages. Capability pools: the most specific one
    that it satisfies, ties by the hash of its id. Hash pools: by the hash of its id.
    """
    if config.flavour == "language":
        wanted = _id_of_set(tuple(semantic_languages))
        return wanted if wanted in [pool.pool_id for pool in pools] else None
    offers = tuple(installed)
    fits = [pool for pool in pools if all(name in offers for name in pool.required_services)]
    if not fits:
        return None
    most = max(len(pool.required_services) for pool in fits)
    best = [pool for pool in fits if len(pool.required_services) == most]
    return best[fnv1a(node_id, config.hash_seed) % len(best)].pool_id


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageIndex:
    """
    From a job's languages to the language pools that can serve it.

    Attributes:
        match: `exact_set` looks up the pool of exactly {source, target}, as the reference does:
            pools of three languages, and every source `auto`, are never found (B17).
            `pairs` finds every pool that covers the pair, the closest fit first.

    """

    pools: tuple[Pool, ...]
    match: str
    _found: Mapping[Pair, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fill = {"exact_set": self._exact_sets, "pairs": self._covering}[self.match]
        object.__setattr__(self, "_found", fill())

    def eligible(self, source: str, target: str) -> tuple[str, ...]:
        """Ids of the pools that serve the pair, the best fit first."""
        return self._found.get((source, target), ())

    def _exact_sets(self) -> dict[Pair, tuple[str, ...]]:
        found: dict[Pair, tuple[str, ...]] = {}
        for pool in self.pools:
            if len(pool.languages) == 2:
                one, other = pool.languages
                found[one, other] = found[other, one] = (pool.pool_id,)
            elif len(pool.languages) == 1:
                # The reference looks up {target} alone for a source "auto".
                only = pool.languages[0]
                found[only, only] = found[AUTO, only] = (pool.pool_id,)
        return found

    def _covering(self) -> dict[Pair, tuple[str, ...]]:
        found: dict[Pair, tuple[str, ...]] = {}
        for pool in sorted(self.pools, key=lambda pool: (len(pool.languages), pool.pool_id)):
            sources = (*pool.languages, AUTO) if len(pool.languages) > 1 else pool.languages
            for source in sources:
                for target in pool.languages:
                    found[source, target] = (*found.get((source, target), ()), pool.pool_id)
        return found


def eligible_pools(
    config: PoolConfig, pools: Sequence[Pool], required_types: Sequence[str]
) -> tuple[str, ...]:
    """
    The hash or capability pools that a job may use, in configured order.

    A pool without required services takes every job. If none fits: none under strict
    eligibility, else all.
    """
    required = _in_scope(config, required_types)
    fitting = tuple(
        pool.pool_id
        for pool in pools
        if not pool.required_services
        or _matches(config, _in_scope(config, pool.required_services), required)
    )
    if fitting or config.strict_pool_eligibility:
        return fitting
    return tuple(pool.pool_id for pool in pools)


def _in_scope(config: PoolConfig, types: Sequence[str]) -> frozenset[str]:
    core_only = config.pool_match_scope == "core_only"
    return frozenset(name for name in types if not core_only or name in CORE_TYPES)


def _matches(config: PoolConfig, offered: frozenset[str], required: frozenset[str]) -> bool:
    return offered == required if config.pool_match_mode == "exact" else required <= offered


def preferred_pool(
    config: PoolConfig, eligible: Sequence[str], *, tenant_id: str, routing_key: str, drawn: int
) -> str | None:
    """
    Where a job starts among hash or capability pools; None without an eligible pool.

    The tenant's own pool if it is eligible, else by affinity the hash of the routing key, else
    `drawn`, a number that the caller drew.
    """
    if not eligible:
        return None
    tenant = config.tenant_pool(tenant_id)
    if tenant in eligible:
        return tenant
    affine = config.enable_session_affinity
    number = fnv1a(routing_key, config.hash_seed) if affine else drawn
    return eligible[number % len(eligible)]


def try_order(
    config: PoolConfig, preferred: str | None, eligible: Sequence[str]
) -> tuple[str, ...]:
    """The pools to try: the preferred one, then round the ring if fallback is on."""
    if preferred is None:
        return ()
    if not config.fallback_scan_all_pools:
        return (preferred,)
    if preferred not in eligible:
        return (preferred, *eligible)
    first = eligible.index(preferred)
    return (*eligible[first:], *eligible[:first])


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedPool:
    """What a session keeps between its jobs: a pool, and the pair it was chosen for."""

    pool: str
    pair: Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDecision:
    """The pool of a session's job (None: no pool serves it) and what the session keeps."""

    pool: str | None
    remembered: RememberedPool | None
    reused: bool = False


def decide_pool(
    config: PoolConfig,
    remembered: RememberedPool | None,
    *,
    pair: Pair,
    eligible: Sequence[str],
    tenant_id: str = "",
    routing_key: str = "",
    validated: bool = True,
    is_live: Callable[[str], bool] = lambda _pool: True,
) -> PoolDecision:
    """
    The preferred pool of a session (`decide_pool_for_session`).

    A remembered pool is kept while the pair stays the same. Else: the tenant's pool if it is
    eligible (if it is not: the first eligible), by affinity the hash of the routing key, else
    the first eligible.

    Args:
        config: phase 3's settings.
        remembered: what the session kept.
        pair: the job's languages.
        eligible: pools that serve the pair, the best fit first.
        tenant_id: "" without one.
        routing_key: the tenant's or the session's id.
        validated: leave out pools without a live node, the remembered one included, as long as
            another eligible pool has one. The reference never looks: a session stays wedged
            on a pool whose nodes are gone (W19).
        is_live: whether a pool has a node that could take a job.

    """
    if not config.two_level:
        return PoolDecision(pool=None, remembered=remembered)
    live = [pool for pool in eligible if is_live(pool)] if validated else list(eligible)
    if remembered is not None and remembered.pair == pair:
        gone = validated and remembered.pool not in live
        if not gone or not live:
            return PoolDecision(pool=remembered.pool, remembered=remembered, reused=True)
    choice = live or list(eligible)
    if not choice:
        return PoolDecision(pool=None, remembered=None)
    pool = _fresh_pool(config, choice, tenant_id, routing_key)
    return PoolDecision(pool=pool, remembered=RememberedPool(pool=pool, pair=pair))


def _fresh_pool(
    config: PoolConfig, eligible: Sequence[str], tenant_id: str, routing_key: str
) -> str:
    tenant = config.tenant_pool(tenant_id)
    if tenant:
        return tenant if tenant in eligible else eligible[0]
    if config.enable_session_affinity:
        return eligible[fnv1a(routing_key, config.hash_seed) % len(eligible)]
    return eligible[0]
