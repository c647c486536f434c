"""
The gauges of one instance, read from its state when somebody scrapes.

A scrape costs O(nodes + sessions + connections) and happens every few seconds; counting along
would cost something on every change. Nothing here is remembered between two scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from simsched.canary import VARIANTS
from simsched.live.connection import Connection
from simsched.live.serving import Serving
from simsched.nodes import Health, NodeView
from simsched.units import SECOND

CLASSES_MAX: Final = 20
"""Different classes of nodes; the nodes of later ones are counted as `other`."""

OTHER: Final = "other"
NO_POOL: Final = "none"
SLOT_STATES: Final = ("used", "free", "leaked")
LABELLED: Final = ("nodes", "slots", "sessions", "connections", "outbox_bytes", "outbox_frames")
"""Gauges whose children are made anew at each scrape: a class without nodes has none."""


def software_version() -> str:
    """The version of simsched, "0" where it was not installed."""
    try:
        return version("simsched")
    except PackageNotFoundError:
        return "0"


class NodeClasses:
    """Names the class of a node: the first of its pools, of at most `CLASSES_MAX`."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def of(self, node: NodeView) -> str:
        """The class of one node."""
        name = node.pools[0] if node.pools else NO_POOL
        if name not in self._known and len(self._known) >= CLASSES_MAX:
            return OTHER
        self._known[name] = None
        return name


class Gauges:
    """Sets every gauge of the catalogue; `refresh` is given to `Metrics.on_scrape`."""

    def __init__(self, instance: Serving) -> None:
        self._instance = instance
        self._metrics = instance.metrics
        self._classes = NodeClasses()
        settings = instance.settings
        self._metrics.gauge("started_timestamp_seconds", instance.started_ms / 1_000)
        self._metrics.gauge(
            "info", 1, software_version(), instance.store_kind, settings.policy
        )  # fmt: skip

    def refresh(self) -> None:
        """Read everything once."""
        for name in LABELLED:
            self._metrics.families[name].forget()
        self._of_nodes()
        self._of_jobs()
        self._of_connections()
        instance, gauge = self._instance, self._metrics.gauge
        connection = instance.store.connection
        gauge("store_up", float(connection.is_up))
        gauge("store_in_flight", connection.in_flight)
        gauge("draining", float(instance.draining))

    def _of_nodes(self) -> None:
        leaked = self._metrics.jobs.leaked(self._instance.runtime.now())
        # Zeros that are always there: an alert on "none" needs something to look at.
        nodes = {(NO_POOL, str(Health.READY.value)): 0}
        slots = {(NO_POOL, state): 0 for state in SLOT_STATES}
        for view in self._instance.scheduler.state.cluster.snapshot.nodes():
            name = self._classes.of(view)
            _add(nodes, (name, str(view.health.value)), 1)
            if view.health is Health.OFFLINE:
                continue
            used = min(view.current_jobs, view.slots)
            _add(slots, (name, "used"), used)
            _add(slots, (name, "free"), view.slots - used)
            _add(slots, (name, "leaked"), leaked.get(view.node_id, 0))
        for key, count in nodes.items():
            self._metrics.gauge("nodes", count, *key)
        for key, count in slots.items():
            self._metrics.gauge("slots", count, *key)

    def _of_jobs(self) -> None:
        state, gauge = self._instance.scheduler.state, self._metrics.gauge
        gauge("jobs_in_flight", len(state.book.active()))
        gauge("queue_depth", len(state.pending))
        gauge("queue_limit", state.policy.pending_max)
        gauge("queue_oldest_seconds", oldest_wait_ns(self._instance) / SECOND)
        sessions = dict.fromkeys(VARIANTS, 0)
        for name in state.sessions:
            sessions[self._metrics.policy_of(name)] += 1
        for policy, count in sessions.items():
            gauge("sessions", count, policy)

    def _of_connections(self) -> None:
        for kind, peers in peers_of(self._instance).items():
            self._metrics.gauge("connections", len(peers), kind)
            waiting = [peer.waiting for peer in peers]
            self._metrics.gauge("outbox_frames", sum(frames for frames, _ in waiting), kind)
            self._metrics.gauge("outbox_bytes", sum(size for _, size in waiting), kind)


def peers_of(instance: Serving) -> dict[str, list[Connection]]:
    """The connections that are there, by kind."""
    links = instance.links
    clients = (links.peer_of(name) for name in links.sessions)
    nodes = (links.node_peer(name) for name in links.nodes)
    return {"client": _connections(clients), "node": _connections(nodes)}


def _connections(peers: Iterable[object]) -> list[Connection]:
    return [peer for peer in peers if isinstance(peer, Connection)]


def oldest_wait_ns(instance: Serving) -> int:
    """How long the first in some line has waited; 0 if nobody waits."""
    pending = instance.scheduler.state.pending
    heads = [head for pair in pending.pairs() if (head := pending.head(pair)) is not None]
    now = instance.runtime.now()
    return max((now - job.created_ns for job in heads), default=0)


def _add(counts: dict[tuple[str, str], int], key: tuple[str, str], amount: int) -> None:
    counts[key] = counts.get(key, 0) + amount
