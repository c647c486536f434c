"""
Dry runs of a selection, and the pools: the core's own pure functions, asked without a job.

`simulate` answers for a request in words (a query string) what the scheduler would choose now, and
for every node why it is not the one. It changes nothing: no claim, no turn, no cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from simsched.errors import ConfigError
from simsched.jobs import JobRequest
from simsched.live.decisions import explained
from simsched.live.serving import Serving
from simsched.modules import SERVICE_TYPES
from simsched.placement import Choice
from simsched.pools import decide_pool, try_order
from simsched.selection import SelectionRequest, candidates, explain
from simsched.snapshot import ClusterSnapshot

KNOWN: Final = (
    "routing_key", "tenant_id", "session_id", "required", "src_lang", "tgt_lang", "accept_public",
    "exclude_node_id",
)  # fmt: skip
REPEATED: Final = ("required", "exclude_node_id")
TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
CORE: Final = ("asr", "nmt", "tts")

Query = Mapping[str, Sequence[str]]


def simulate(instance: Serving, query: Query) -> dict[str, Any]:
    """
    What would be chosen for a request.

    Raises:
        ConfigError: the query is not understood; says what would be right.

    """
    _check(query)
    state = instance.scheduler.state
    snapshot = state.cluster.snapshot
    session = _one(query, "session_id")
    rules = state.rules_of(session)
    source, target = _one(query, "src_lang", "auto"), _one(query, "tgt_lang", "en")
    required = tuple(query.get("required") or CORE)
    pools, preferred = _pools_to_try(instance, query, snapshot, (source, target))
    asked = SelectionRequest(
        source=source,
        target=target,
        required=frozenset(required),
        accept_public=_truth(query, "accept_public"),
        pools=pools if rules.two_level else (),
        excluded=tuple(query.get("exclude_node_id", ())),
        now_ns=instance.runtime.now(),
    )
    turn = state.turn + 1

    def draw(bound: int, k: int) -> int:
        return instance.runtime.chance.below(bound, "simulate", snapshot.version, turn, k)

    policy = state.policy_of(session)
    found = candidates(
        snapshot, asked, rules, draw, policy.candidates, turn=turn, reserved=state.given_to
    )
    reasons = explain(snapshot, asked, rules, draw, turn=turn, reserved=state.given_to)
    choice = Choice(
        at_ns=instance.runtime.now(), request=_request(query, source, target), asked=asked,
        rules=rules, snapshot=snapshot, chosen=found,
    )  # fmt: skip
    return {
        "request": {
            "src_lang": source, "tgt_lang": target, "required": list(required),
            "accept_public": asked.accept_public, "excluded": list(asked.excluded),
        },
        "preferred_pool": preferred,
        "pools_tried": list(asked.pools),
        "outcome": asdict(reasons.selection),
        "candidates": list(found),
        "breakdown": {
            "total_nodes": reasons.total_nodes,
            "usable": reasons.usable,
            "best_reason": reasons.best_reason_label,
            "counts": dict(reasons.counts),
            "examples": {reason: list(nodes) for reason, nodes in reasons.examples},
            "attempts": [asdict(attempt) for attempt in reasons.attempts],
        },
        "nodes": explained(choice),
    }  # fmt: skip


def _check(query: Query) -> None:
    for name, values in query.items():
        if name not in KNOWN:
            raise ConfigError("query", name, f"one of {', '.join(KNOWN)}")
        if name not in REPEATED and len(values) > 1:
            raise ConfigError("query", name, "given once")
    given = [n for n in ("routing_key", "tenant_id", "session_id") if n in query]
    if len(given) != 1:
        raise ConfigError("query", "routing_key", "one of routing_key, tenant_id, session_id")
    for name in query.get("required", ()):
        if name not in SERVICE_TYPES:
            raise ConfigError("query", "required", f"of {', '.join(SERVICE_TYPES)}, not {name!r}")


def _one(query: Query, name: str, default: str = "") -> str:
    values = query.get(name)
    return values[0] if values else default


def _truth(query: Query, name: str) -> bool:
    text = _one(query, name, "true").lower()
    if text not in TRUTHS:
        raise ConfigError("query", name, f"true or false, not {text!r}")
    return TRUTHS[text]


def _pools_to_try(
    instance: Serving, query: Query, snapshot: ClusterSnapshot, pair: tuple[str, str]
) -> tuple[tuple[str, ...], str]:
    """The pools in the order in which they would be tried, and the first."""
    state = instance.scheduler.state
    cluster, tenant = state.cluster, _one(query, "tenant_id")
    session = _one(query, "session_id")
    known = state.sessions.get(session)
    language = cluster.config.flavour == "language"
    eligible = (
        cluster.languages.eligible(*pair)
        if language
        else tuple(pool.pool_id for pool in cluster.pools)
    )
    decision = decide_pool(
        cluster.config,
        known.remembered_pool if known else None,
        pair=pair,
        eligible=eligible,
        tenant_id=tenant,
        routing_key=_one(query, "routing_key") or tenant or session,
        validated=state.policy_of(session).pool_affinity == "validated",
        is_live=lambda pool: snapshot.tally(pool).ready > 0,
    )
    return try_order(cluster.config, decision.pool, eligible), decision.pool or ""


def _request(query: Query, source: str, target: str) -> JobRequest:
    session = _one(query, "session_id")
    return JobRequest(
        request_id="", session_id=session, session_key=0, utterance=0, source_language=source,
        target_language=target, audio=b"", audio_format="", audio_ms=0, trace_id="",
    )  # fmt: skip


def pools(instance: Serving) -> dict[str, Any]:
    """`/api/v1/phase3/pools`: the pools, how many nodes they have, and the configuration."""
    cluster = instance.scheduler.state.cluster
    snapshot, config = cluster.snapshot, cluster.config
    shown = []
    for pool in cluster.pools:
        tally = snapshot.tally(pool.pool_id)
        views = [snapshot.views[ordinal] for ordinal in snapshot.member_ordinals(pool.pool_id)]
        online = [view for view in views if view.is_online]
        shown.append(
            {
                "pool_id": pool.pool_id,
                "languages": list(pool.languages),
                "required_services": list(pool.required_services),
                "nodes": tally.members,
                "online": tally.online,
                "ready": tally.ready,
                "core_ready": {"asr": tally.asr_ready, "nmt": tally.nmt_ready,
                               "tts": tally.tts_ready},
                "slots": sum(view.slots for view in online),
                "jobs": sum(view.current_jobs for view in online),
            }
        )  # fmt: skip
    settings = {name: getattr(config, name) for name in config.__slots__ if name != "pools"}
    return {"flavour": config.flavour, "two_level": config.two_level, "pools": shown,
            "config": settings}  # fmt: skip
