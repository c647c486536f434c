"""Pools: three flavours, one ring, a session's memory that is checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.errors import ConfigError
from simsched.pools import (
    LanguageIndex,
    Pool,
    PoolConfig,
    RememberedPool,
    decide_pool,
    eligible_pools,
    fnv1a,
    language_pools,
    pool_of_node,
    preferred_pool,
    try_order,
)

PAIR = ("zh", "en")
LANGUAGE = PoolConfig(enabled=True, auto_generate_language_pools=True)
POOLS = language_pools(LANGUAGE, [("zh", "en"), ("en", "zh"), ("zh", "en", "ja"), ()])
CAPABILITY = PoolConfig(
    pools=(
        Pool(pool_id="any"),
        Pool(pool_id="asr", required_services=("asr",)),
        Pool(pool_id="full", required_services=("asr", "nmt", "tts")),
    ),
    tenant_overrides=(("acme", "full"),),
)


def test_fnv_matches_its_published_vectors() -> None:
    """FNV-1a 64 of "a" and 8 zero bytes, computed by the definition, and the empty offset."""
    value = 0xAF63DC4C8601EC8C  # the published FNV-1a 64 of "a"
    for _ in range(8):
        value = value * 0x100000001B3 % 2**64
    assert fnv1a("a") == value
    assert fnv1a("a", 1) != value


def test_nodes_of_one_language_set_share_a_pool() -> None:
    """The order of languages does not matter; a node without any makes no pool."""
    assert [pool.pool_id for pool in POOLS] == ["en-ja-zh", "en-zh"]


def test_pools_are_limited_in_size_and_number() -> None:
    """Small sets make no pool, and of many the largest are kept."""
    sets = [("a", "b")] * 3 + [("c", "d")] * 2 + [("e", "f")]
    few = PoolConfig(auto_generate_language_pools=True, min_nodes_per_pool=2, max_pools=1)
    assert [pool.pool_id for pool in language_pools(few, sets)] == ["a-b"]


def test_exact_sets_miss_three_languages_and_auto_and_pairs_find_them() -> None:
    """B17: what the reference cannot reach, the index by pair reaches, closest fit first."""
    exact = LanguageIndex(pools=POOLS, match="exact_set")
    pairs = LanguageIndex(pools=POOLS, match="pairs")
    assert exact.eligible("zh", "en") == ("en-zh",)
    assert exact.eligible("ja", "en") == exact.eligible("auto", "en") == ()
    assert pairs.eligible("zh", "en") == pairs.eligible("auto", "en") == ("en-zh", "en-ja-zh")
    assert pairs.eligible("ja", "en") == ("en-ja-zh",)


@pytest.mark.parametrize(
    ("installed", "pool"),
    [(("asr", "nmt", "tts"), "full"), (("asr", "nmt"), "asr"), (("tts",), "any")],
)
def test_a_node_joins_the_most_specific_pool_it_satisfies(
    installed: tuple[str, ...], pool: str
) -> None:
    """The pool with the most required services that the node has."""
    found = pool_of_node(
        CAPABILITY, CAPABILITY.pools, node_id="n", installed=installed, semantic_languages=()
    )
    assert found == pool


@pytest.mark.parametrize(
    ("mode", "required", "eligible"),
    [
        ("contains", ("asr",), ("any", "asr", "full")),
        ("exact", ("asr",), ("any", "asr")),
        ("contains", ("asr", "nmt", "semantic"), ("any", "full")),
    ],
)
def test_capability_pools_match_by_mode_within_the_core_scope(
    mode: str, required: tuple[str, ...], eligible: tuple[str, ...]
) -> None:
    """Contains or exact; semantic is outside the core scope; an empty pool takes all."""
    config = PoolConfig(pools=CAPABILITY.pools, pool_match_mode=mode)
    assert eligible_pools(config, config.pools, required) == eligible


@pytest.mark.parametrize(("strict", "eligible"), [(True, ()), (False, ("full",))])
def test_strict_eligibility_refuses_what_fits_nowhere(
    strict: bool, eligible: tuple[str, ...]
) -> None:
    """No fitting pool: none under strict, all otherwise."""
    config = PoolConfig(
        pools=(Pool(pool_id="full", required_services=("asr",)),), strict_pool_eligibility=strict
    )
    assert eligible_pools(config, config.pools, ("tts",)) == eligible


@given(st.text(max_size=8), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_the_ring_visits_every_eligible_pool_once_from_the_preferred(
    key: str, drawn: int, affinity: bool, scan: bool
) -> None:
    """Preferred first; the others once each, or not at all without fallback."""
    config = PoolConfig(
        pool_count=5, enable_session_affinity=affinity, fallback_scan_all_pools=scan
    )
    pools = eligible_pools(config, config.fixed_pools(), ("asr",))
    chosen = preferred_pool(config, pools, tenant_id="", routing_key=key, drawn=drawn)
    assert chosen is not None
    if affinity:
        assert chosen == str(fnv1a(key) % 5)
    order = try_order(config, chosen, pools)
    assert order[0] == chosen
    assert sorted(order) == (sorted(pools) if scan else [chosen])


def test_a_tenant_starts_in_its_own_pool_if_it_is_eligible() -> None:
    """An override holds where it can and is passed over where it cannot."""
    ask: dict[str, Any] = {"tenant_id": "acme", "routing_key": "s", "drawn": 0}
    assert preferred_pool(CAPABILITY, ("any", "full"), **ask) == "full"
    assert preferred_pool(CAPABILITY, ("any",), **ask) == "any"
    assert preferred_pool(CAPABILITY, (), **ask) is None


def test_a_session_keeps_its_pool_until_its_languages_change() -> None:
    """The same pair reuses the pool; another pair forgets it."""
    first = decide_pool(LANGUAGE, None, pair=PAIR, eligible=("p", "q"))
    assert (first.pool, first.reused) == ("p", False)
    again = decide_pool(LANGUAGE, first.remembered, pair=PAIR, eligible=("q", "p"))
    assert (again.pool, again.reused) == ("p", True)
    moved = decide_pool(LANGUAGE, first.remembered, pair=("ja", "en"), eligible=())
    assert (moved.pool, moved.remembered) == (None, None)


def test_only_a_validated_session_leaves_a_dead_pool() -> None:
    """W19: the reference stays wedged on a pool without live nodes."""
    kept = RememberedPool(pool="p", pair=PAIR)
    ask: dict[str, Any] = {
        "pair": PAIR,
        "eligible": ("p", "q"),
        "is_live": lambda pool: pool == "q",
    }
    assert decide_pool(LANGUAGE, kept, validated=False, **ask).pool == "p"
    assert decide_pool(LANGUAGE, kept, validated=True, **ask).pool == "q"
    ask["eligible"] = ("q",)
    assert decide_pool(LANGUAGE, kept, validated=False, **ask).pool == "p"
    ask["is_live"] = lambda pool: False
    assert decide_pool(LANGUAGE, kept, validated=True, **ask).pool == "p"


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "three_level"},
        {"pool_count": 0},
        {"random_sample_size": True},
        {"pools": (Pool(pool_id="a"), Pool(pool_id="a"))},
        {"pools": (Pool(pool_id="a", required_services=("ASR",)),)},
        {"tenant_overrides": (("t", "99"),)},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    """The error says which key is wrong."""
    with pytest.raises(ConfigError, match=f"phase3: {next(iter(wrong))}"):
        PoolConfig(**wrong)
