"""
What became of every setting of the reference system's configuration file.

A rule either names the setting of ours that takes the value over or says why there is none. Names
are the reference's; `RENAMED` are sections that it called differently in other versions. This is
data: `reference_config` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One setting of the reference.

    Attributes:
        kind: `count`, `seconds`, `number`, `switch`, `text`, `texts`, `tables`.
        to: our setting; `policy:FIELD` for a field of the policy; "" for none.
        factor: what the value is multiplied by.
        because: why there is none of ours, or what to know about the one there is.

    """

    kind: str
    to: str = ""
    factor: int = 1
    because: str = ""


def _moved(kind: str, to: str, *, factor: int = 1, because: str = "") -> Rule:
    return Rule(kind=kind, to=to, factor=factor, because=because)


def _gone(kind: str, because: str) -> Rule:
    return Rule(kind=kind, because=because)


RENAMED: Final[Mapping[str, str]] = {
    "scheduler.redis_runtime.": "scheduler.phase2.",
    "phase3.": "scheduler.phase3.",
    "phase2.": "scheduler.phase2.",
}
"""Beginnings of names that other versions of the reference use, and ours for them."""

_CATALOGUE: Final = "nodes say themselves which services they have"
_UNUSED: Final = "the reference reads it and never uses it"
_MEASURED: Final = "every step is measured and is in /metrics; what is slow is for an alert rule"
_FIXED_UNAVAILABLE: Final = "a node's missing service is left out for 60 s after each report"
_ONE_READER: Final = (
    "an inbox has one reader that keeps its own place, so no delivery stays pending"
)
_SCHEMA: Final = "no other program reads this server's keys"
_WINDOW: Final = "any success clears the window, so the failures in a row decide alone"
_LANGUAGES: Final = "a language pool is made of exactly the languages that its nodes offer"

RULES: Final[Mapping[str, Rule]] = {
    "server.port": _moved("count", "server.port"),
    "server.host": _moved(
        "text", "server.host", because="the reference listened on all addresses whatever it said"
    ),
    "model_hub.base_url": _gone("text", _CATALOGUE),
    "model_hub.storage_path": _gone("text", _CATALOGUE),
    "scheduler.max_concurrent_jobs_per_node": _gone(
        "count", f"{_UNUSED}; a node names its slots itself, or has 4"
    ),
    "scheduler.job_timeout_seconds": _moved("seconds", "policy:job_timeout_ms", factor=1000),
    "scheduler.heartbeat_interval_seconds": _moved(
        "seconds",
        "timeouts.heartbeat_s",
        because="how long a silent instance counts as there is store.presence_s, not twice this",
    ),
    "scheduler.job_timeout.pending_timeout_seconds": _moved(
        "seconds", "policy:pending_ms", factor=1000
    ),
    "scheduler.job_timeout.failover_max_attempts": _moved("count", "policy:failover_max"),
    "scheduler.job_timeout.scan_interval_ms": _moved("count", "timeouts.scan_ms"),
    "scheduler.job_timeout.send_cancel": _gone(
        "switch", "a node is always told when its answer is no longer wanted"
    ),
    "scheduler.load_balancer.strategy": _gone(
        "text", f"{_UNUSED}; the field `balance` of the policy says how a node is picked"
    ),
    "scheduler.load_balancer.resource_threshold": _gone(
        "number", "a node is full at 85 % of its CPU, GPU or memory"
    ),
    "scheduler.node_health.heartbeat_interval_seconds": _gone(
        "seconds", "nodes choose it; health.silence_s says when one counts as gone"
    ),
    "scheduler.node_health.heartbeat_timeout_seconds": _moved("seconds", "health.silence_s"),
    "scheduler.node_health.health_check_count": _moved("count", "health.healthy_needed"),
    "scheduler.node_health.warmup_timeout_seconds": _moved("seconds", "health.warmup_s"),
    "scheduler.node_health.status_scan_interval_seconds": _moved("seconds", "health.node_scan_s"),
    "scheduler.node_health.failure_threshold.window_size": _gone("count", _WINDOW),
    "scheduler.node_health.failure_threshold.failure_count": _gone("count", _WINDOW),
    "scheduler.node_health.failure_threshold.consecutive_failure_count": _moved(
        "count", "health.failures_max"
    ),
    "scheduler.model_not_available.unavailable_ttl_seconds": _gone("seconds", _FIXED_UNAVAILABLE),
    "scheduler.model_not_available.debounce_window_seconds": _gone("seconds", _FIXED_UNAVAILABLE),
    "scheduler.model_not_available.node_ratelimit_window_seconds": _gone(
        "seconds", _FIXED_UNAVAILABLE
    ),
    "scheduler.model_not_available.node_ratelimit_max": _gone("count", _FIXED_UNAVAILABLE),
    "scheduler.task_binding.lease_seconds": _gone(
        "seconds", "a request is bound to its job for 90 s, longer than any job may take"
    ),
    "scheduler.task_binding.reserved_ttl_seconds": _moved(
        "seconds", "policy:lease_ms", factor=1000
    ),
    "scheduler.task_binding.spread_enabled": _gone(
        "switch", "the field `balance` of the policy spreads jobs by the nodes' load"
    ),
    "scheduler.task_binding.spread_window_seconds": _gone(
        "seconds", "the field `balance` of the policy spreads jobs by the nodes' load"
    ),
    "scheduler.web_task_segmentation.pause_ms": _moved("count", "segmentation.pause_ms"),
    "scheduler.web_task_segmentation.max_duration_ms": _moved(
        "count", "segmentation.max_duration_ms"
    ),
    **{
        f"scheduler.web_task_segmentation.edge_stabilization.{name}": _moved(
            "count", f"segmentation.{name}"
        )
        for name in (
            "hangover_auto_ms", "hangover_manual_ms", "padding_auto_ms", "padding_manual_ms",
        )
    },
    "scheduler.web_task_segmentation.edge_stabilization.short_merge_threshold_ms": _gone(
        "count", _UNUSED
    ),
    "scheduler.observability.lock_wait_warn_ms": _gone("count", _MEASURED),
    "scheduler.observability.path_warn_ms": _gone("count", _MEASURED),
    "scheduler.core_services.asr_service_id": _gone("text", _CATALOGUE),
    "scheduler.core_services.nmt_service_id": _gone("text", _CATALOGUE),
    "scheduler.core_services.tts_service_id": _gone("text", _CATALOGUE),
    "scheduler.asr_rerun.max_rerun_count": _gone("count", _UNUSED),
    "scheduler.asr_rerun.rerun_timeout_ms": _gone("count", _UNUSED),
    "scheduler.asr_rerun.conference_mode_strict": _gone("switch", _UNUSED),
    "scheduler.phase2.enabled": _gone(
        "switch", "whether instances share a store is said by store.redis_url alone"
    ),
    "scheduler.phase2.instance_id": _moved("text", "server.instance_id"),
    "scheduler.phase2.owner_ttl_seconds": _gone(
        "seconds", "a connection's owner is known for 45 s and renewed every timeouts.heartbeat_s"
    ),
    "scheduler.phase2.stream_block_ms": _moved("count", "store.inbox_block_ms"),
    "scheduler.phase2.stream_count": _gone("count", "one read takes up to 200 entries"),
    "scheduler.phase2.stream_group": _gone("text", _ONE_READER),
    "scheduler.phase2.stream_maxlen": _moved("count", "store.inbox_length_max"),
    "scheduler.phase2.dlq_enabled": _gone("switch", _ONE_READER),
    "scheduler.phase2.dlq_maxlen": _gone("count", _ONE_READER),
    "scheduler.phase2.dlq_max_deliveries": _gone("count", _ONE_READER),
    "scheduler.phase2.dlq_min_idle_ms": _gone("count", _ONE_READER),
    "scheduler.phase2.dlq_scan_interval_ms": _gone("count", _ONE_READER),
    "scheduler.phase2.dlq_scan_count": _gone("count", _ONE_READER),
    "scheduler.phase2.node_snapshot.enabled": _gone(
        "switch", "instances that share a store always know each other's nodes"
    ),
    "scheduler.phase2.node_snapshot.presence_ttl_seconds": _gone(
        "seconds", "a node is known to the other instances for 45 s after its last heartbeat"
    ),
    "scheduler.phase2.node_snapshot.refresh_interval_ms": _moved(
        "count", "timeouts.remote_refresh_ms"
    ),
    "scheduler.phase2.node_snapshot.remove_stale_after_seconds": _gone(
        "seconds", "a node's entry in the store ends by itself, 45 s after its last heartbeat"
    ),
    "scheduler.phase2.schema_compat.enabled": _gone("switch", _SCHEMA),
    "scheduler.phase2.schema_compat.stats_snapshot_enabled": _gone("switch", _SCHEMA),
    "scheduler.phase2.schema_compat.stats_snapshot_ttl_seconds": _gone("seconds", _SCHEMA),
    "scheduler.phase2.schema_compat.stats_snapshot_interval_ms": _gone("count", _SCHEMA),
    "scheduler.phase2.schema_compat.node_caps_enabled": _gone("switch", _SCHEMA),
    "scheduler.phase2.schema_compat.node_caps_ttl_seconds": _gone("seconds", _SCHEMA),
    "scheduler.phase2.schema_compat.session_bind_enabled": _gone("switch", _SCHEMA),
    "scheduler.phase2.schema_compat.session_bind_ttl_seconds": _gone("seconds", _SCHEMA),
    "scheduler.phase2.redis.mode": _gone(
        "text", "one address is enough: name a single server, or a proxy before several"
    ),
    "scheduler.phase2.redis.url": _moved("text", "store.redis_url"),
    "scheduler.phase2.redis.cluster_urls": _gone(
        "texts", "one address is enough: name a single server, or a proxy before several"
    ),
    "scheduler.phase2.redis.key_prefix": _moved("text", "store.cell"),
    **{
        f"scheduler.phase3.{name}": _moved(kind, f"pools.{name}")
        for name, kind in (
            ("enabled", "switch"), ("mode", "text"), ("pool_count", "count"),
            ("hash_seed", "count"), ("fallback_scan_all_pools", "switch"),
            ("pool_match_scope", "text"), ("pool_match_mode", "text"),
            ("strict_pool_eligibility", "switch"), ("auto_generate_language_pools", "switch"),
            ("random_sample_size", "count"), ("enable_session_affinity", "switch"),
            ("pools", "tables"), ("tenant_overrides", "tables"),
        )
    },
    "scheduler.phase3.auto_pool_config.min_nodes_per_pool": _moved(
        "count", "pools.min_nodes_per_pool"
    ),
    "scheduler.phase3.auto_pool_config.max_pools": _moved("count", "pools.max_pools"),
    "scheduler.phase3.auto_pool_config.pool_naming": _gone("text", _LANGUAGES),
    "scheduler.phase3.auto_pool_config.require_semantic": _gone("switch", _LANGUAGES),
    "scheduler.phase3.auto_pool_config.enable_mixed_pools": _gone("switch", _LANGUAGES),
}  # fmt: skip
"""Every setting of the reference."""
