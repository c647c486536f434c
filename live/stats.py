"""
What the instance says of itself as JSON: the answers of `/api/v1/stats`, `metrics` and `cluster`.

Field names of `stats` and `cluster` are the reference's (domain 10.2); what only this scheduler
has stands under `scheduler`. Plain data, made when somebody asks; nothing is decided here.
"""

from __future__ import annotations

import math
from typing import Any, Final

from simsched.canary import BASE, CANARY
from simsched.live.gauges import oldest_wait_ns, peers_of, software_version
from simsched.live.metric_catalogue import COUNTER, HISTOGRAM
from simsched.live.serving import Serving
from simsched.modules import SERVICE_TYPES
from simsched.nodes import Health, NodeView
from simsched.snapshot import ClusterSnapshot

NODES_LISTED: Final = 200
TOP_LANGUAGES: Final = 5
COMPARED: Final = (
    "job_create", "dispatch", "job_result", "session_lock_wait", "end_to_end",
)  # fmt: skip
"""What base and canary are compared by on the dashboard."""


def quantile_ms(ordered: list[int], share: float) -> float:
    """The duration (ms) that `share` of the sorted durations (ns) do not exceed."""
    rank = min(max(math.ceil(share * len(ordered)), 1), len(ordered))
    return round(ordered[rank - 1] / 1e6, 4)


def spread(durations: list[int]) -> dict[str, float]:
    """Count, mean, p50, p95 and p99 (ms) of durations in ns."""
    ordered = sorted(durations)
    return {
        "count": len(ordered),
        "mean": round(sum(ordered) / len(ordered) / 1e6, 4),
        "p50": quantile_ms(ordered, 0.5),
        "p95": quantile_ms(ordered, 0.95),
        "p99": quantile_ms(ordered, 0.99),
    }


def stats(instance: Serving) -> dict[str, Any]:
    """`/api/v1/stats`."""
    snapshot = instance.scheduler.state.cluster.snapshot
    return {
        "web_clients": _web_clients(instance),
        "nodes": _nodes(snapshot),
        "scheduler": _scheduler(instance, snapshot),
    }


def _web_clients(instance: Serving) -> dict[str, Any]:
    sessions = list(instance.scheduler.state.sessions.values())
    usage: dict[str, int] = {}
    for session in sessions:
        for language in dict.fromkeys((session.source_language, session.target_language)):
            usage[language] = usage.get(language, 0) + 1
    ordered = dict(sorted(usage.items(), key=lambda item: (-item[1], item[0])))
    return {
        "active_users": len(sessions),
        "top_languages": list(ordered)[:TOP_LANGUAGES],
        "language_usage": ordered,
    }


def _nodes(snapshot: ClusterSnapshot) -> dict[str, Any]:
    types = dict.fromkeys(SERVICE_TYPES, 0)
    in_use = dict.fromkeys(SERVICE_TYPES, 0)
    ready_types = dict.fromkeys(SERVICE_TYPES, 0)
    listed: list[dict[str, Any]] = []
    online = slots = jobs = 0
    for view in snapshot.nodes():
        if len(listed) < NODES_LISTED:
            listed.append(node_told(view))
        if not view.is_online:
            continue
        online += 1
        slots += view.slots
        jobs += view.current_jobs
        for name in types:
            types[name] += name in view.installed
            in_use[name] += name in view.installed and view.current_jobs > 0
            ready_types[name] += name in view.ready
    return {
        "connected_nodes": online,
        "type_node_counts": types,
        "available_services": [name for name, count in ready_types.items() if count],
        "total_services": sum(types.values()),
        "type_in_use_counts": in_use,
        "compute_power": {
            "total_slots": slots,
            "total_jobs": jobs,
            "total_nodes": len(snapshot),
            "node_power_details": listed,
        },
    }


def node_told(view: NodeView) -> dict[str, Any]:
    """One node."""
    return {
        "node_id": view.node_id,
        "health": str(view.health.value),
        "slots": view.slots,
        "current_jobs": view.current_jobs,
        "cpu_percent": view.cpu_percent,
        "gpu_percent": view.gpu_percent,
        "mem_percent": view.mem_percent,
        "pools": list(view.pools),
        "types": sorted(view.installed),
        "pairs": [f"{source}-{target}" for source, target in view.pairs[:20]],
    }


def _scheduler(instance: Serving, snapshot: ClusterSnapshot) -> dict[str, Any]:
    state = instance.scheduler.state
    waiting = {kind: [peer.waiting for peer in peers] for kind, peers in peers_of(instance).items()}
    return {
        "instance": instance.instance_id,
        "version": software_version(),
        "started_ms": instance.started_ms,
        "uptime_s": instance.runtime.now_ms() // 1_000 - instance.started_ms // 1_000,
        "draining": instance.draining,
        "store": {
            "kind": instance.store_kind,
            "up": instance.store.connection.is_up,
            "in_flight": instance.store.connection.in_flight,
        },
        "policy": instance.settings.policy,
        "canary": _canary(instance),
        "sessions": len(state.sessions),
        "jobs_in_flight": len(state.book.active()),
        "queue": {
            "depth": len(state.pending),
            "limit": state.policy.pending_max,
            "oldest_ms": round(oldest_wait_ns(instance) / 1e6, 1),
        },
        "connections": {kind: len(frames) for kind, frames in waiting.items()},
        "outbox_bytes": {kind: sum(size for _, size in frames) for kind, frames in waiting.items()},
        "nodes_by_health": _by_health(snapshot),
    }


def _canary(instance: Serving) -> dict[str, Any] | None:
    canary = instance.settings.canary
    return {"policy": canary.policy, "share": canary.share} if canary.policy else None


def _by_health(snapshot: ClusterSnapshot) -> dict[str, int]:
    counts = {str(health.value): 0 for health in Health}
    for view in snapshot.nodes():
        counts[str(view.health.value)] += 1
    return counts


def metrics_json(instance: Serving) -> dict[str, Any]:
    """`/api/v1/metrics`: every series of `/metrics`, and exact spreads of the last durations."""
    metrics = instance.metrics
    metrics.refresh()
    latency: dict[str, Any] = {}
    compared: dict[str, Any] = {}
    for group, name, policy, durations in metrics.quantiles():
        label = f"{group}.{name}" if name else group
        if policy == BASE:
            latency[label] = spread(durations)
        if label in COMPARED:
            compared.setdefault(label, {})[policy] = spread(durations)
    has_canary = any(CANARY in found for found in compared.values())
    return {
        "stats": stats(instance),
        "latency_ms": latency,
        "canary": compared if has_canary else None,
        "series": [_series(family) for family in metrics.registry.collect()],
    }


def _series(family: Any) -> dict[str, Any]:
    """One metric with its samples; buckets are left to `/metrics`."""
    samples = [
        {"labels": sample.labels, "value": sample.value, "suffix": _suffix(family, sample.name)}
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    ]
    return {"name": family.name, "kind": family.type, "samples": samples}


def _suffix(family: Any, name: str) -> str:
    return str(name).removeprefix(family.name) if family.type in (COUNTER, HISTOGRAM) else ""


def cluster(instance: Serving) -> dict[str, Any]:
    """`/api/v1/cluster`: the instances and their nodes, as this one knows them."""
    state = instance.scheduler.state
    snapshot = state.cluster.snapshot
    nodes: list[dict[str, Any]] = []
    instances = {instance.instance_id: 0}
    jobs = slots = 0
    for view in snapshot.nodes():
        home = state.cluster.home_of(view.node_id) or instance.instance_id
        instances[home] = instances.get(home, 0) + view.is_online
        if view.is_online:
            jobs += view.current_jobs
            slots += view.slots
        if len(nodes) < NODES_LISTED:
            nodes.append({**node_told(view), "instance": home})
    return {
        "instances": [
            {"instance_id": name, "nodes": count, "is_self": name == instance.instance_id}
            for name, count in instances.items()
        ],
        "totals": {"nodes": len(snapshot), "slots": slots, "jobs": jobs,
                   "instances": len(instances)},
        "nodes": nodes,
    }  # fmt: skip
