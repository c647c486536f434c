"""
The nodes as one instance knows them: records, connections, pools, and the snapshot to choose from.

Plain synchronous state. Every change publishes a new immutable snapshot version; who chooses a
node reads a version and never sees a change in the middle. Remote nodes come in as views that
their own instance announces. Language pools are made again when the set of languages changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from simsched.nodes import (
    Health,
    HealthLimits,
    NodeRecord,
    NodeView,
    Signal,
    advance,
    marked_unavailable,
)
from simsched.pools import (
    LanguageIndex,
    Pool,
    PoolConfig,
    language_pools,
    pool_of_node,
)
from simsched.snapshot import ClusterSnapshot, SnapshotPublisher
from simsched.units import SECOND

UNAVAILABLE_NS: Final = 60 * SECOND
"""How long MODEL_NOT_AVAILABLE keeps a service out of choice (domain 8.6)."""


class Cluster:
    """All known nodes; `local` are those whose socket is here."""

    def __init__(self, config: PoolConfig, limits: HealthLimits, language_match: str) -> None:
        self.config = config
        self.limits = limits
        self._match = language_match
        self._publisher = SnapshotPublisher()
        self.local: dict[str, NodeRecord] = {}
        self._home: dict[str, str] = {}
        self._sizes: dict[tuple[str, ...], int] = {}
        self.pools: tuple[Pool, ...] = config.fixed_pools()
        self.languages = LanguageIndex(pools=self.pools, match=language_match)

    @property
    def snapshot(self) -> ClusterSnapshot:
        """The current version."""
        return self._publisher.current

    def ordinal_of(self, node_id: str) -> int:
        """A node's place in every ordered list."""
        return self._publisher.ordinal_of(node_id)

    def register(self, record: NodeRecord, now_ns: int) -> NodeRecord:
        """Take in a node whose socket is here."""
        known = self.local.get(record.node_id)
        if known is not None:
            self._count_languages(known, -1)
        joined = advance(record, Signal.REGISTER, now_ns, self.limits).record
        self.local[joined.node_id] = joined
        self._count_languages(joined, 1)
        return self._keep(joined)

    def update(self, record: NodeRecord, signal: Signal, now_ns: int) -> tuple[NodeRecord, str]:
        """Move a local node through its lifecycle and publish; says why its state changed."""
        moved = advance(record, signal, now_ns, self.limits)
        return self._keep(moved.record), moved.reason

    def disconnect(self, node_id: str, now_ns: int, *, publishes: bool) -> NodeRecord | None:
        """
        The node's socket closed.

        `publishes` false leaves it in the snapshot as it was, as the reference does: it is chosen
        until something else takes it out (domain 6.1).
        """
        record = self.local.pop(node_id, None)
        if record is None:
            return None
        self._count_languages(record, -1)
        gone = advance(record, Signal.SOCKET_CLOSED, now_ns, self.limits).record
        if publishes:
            self._publisher.publish([gone.view()])
        return gone

    def announce(self, view: NodeView, home: str) -> None:
        """Take in what another instance says of its node."""
        if view.node_id in self.local:
            return
        known = self._home.get(view.node_id)
        if known is None:
            self._count_view(view, 1)
        self._home[view.node_id] = home
        ordinal = self.ordinal_of(view.node_id)
        pools = self._pools_of_view(view)
        self._publisher.publish([structs.replace(view, ordinal=ordinal, pools=pools)])

    def is_gone(self, node_id: str) -> bool:
        """Whether a node is known, and known to be gone."""
        view = self.snapshot.get(node_id)
        return view is not None and view.health is Health.OFFLINE

    def lose_home(self, home: str) -> list[str]:
        """An instance is gone: the nodes that it announced are not to be chosen any more."""
        lost = []
        for node_id, where in list(self._home.items()):
            view = self.snapshot.get(node_id)
            if where == home and view is not None and node_id not in self.local:
                self._publisher.publish([structs.replace(view, health=Health.OFFLINE)])
                lost.append(node_id)
        return lost

    def home_of(self, node_id: str) -> str:
        """The other instance that announced a node; "" for one that is, or was, connected here."""
        return "" if node_id in self.local else self._home.get(node_id, "")

    def observe_load(self, node_id: str, *, live: int | None = None, change: int = 0) -> None:
        """Take note of a node's live jobs as the store just counted them."""
        view = self.snapshot.get(node_id)
        if view is None:
            return
        jobs = max(0, view.current_jobs + change if live is None else live)
        if jobs != view.current_jobs:
            self._publisher.publish([structs.replace(view, current_jobs=jobs)])

    def observe_full(self, node_ids: Sequence[str]) -> None:
        """The store refused all of these: they are full until something says otherwise."""
        for node_id in node_ids:
            view = self.snapshot.get(node_id)
            if view is not None:
                self.observe_load(node_id, live=view.slots)

    def mark_unavailable(self, node_id: str, service_id: str, version: str, now_ns: int) -> None:
        """Remember that a node lacks a model (B18: heeded or not, by policy)."""
        record = self.local.get(node_id)
        if record is not None:
            self._keep(
                marked_unavailable(
                    record, service_id, version, now_ns=now_ns, until_ns=now_ns + UNAVAILABLE_NS
                )
            )

    def _keep(self, record: NodeRecord) -> NodeRecord:
        pooled = structs.replace(
            record,
            pools=self._pools_for(
                record.node_id,
                [service.type for service in record.services],
                record.languages.semantic,
            ),
        )
        self.local[pooled.node_id] = pooled
        self._publisher.publish([pooled.view()])
        return pooled

    def _pools_of_view(self, view: NodeView) -> tuple[str, ...]:
        return self._pools_for(view.node_id, sorted(view.installed), view.languages.semantic)

    def _pools_for(
        self, node_id: str, installed: Sequence[str], languages: Sequence[str]
    ) -> tuple[str, ...]:
        pool = pool_of_node(
            self.config,
            self.pools,
            node_id=node_id,
            installed=installed,
            semantic_languages=tuple(languages),
        )
        return (pool,) if pool else ()

    def _count_languages(self, record: NodeRecord, sign: int) -> None:
        self._count(tuple(sorted(record.languages.semantic)), sign)

    def _count_view(self, view: NodeView, sign: int) -> None:
        self._count(tuple(sorted(view.languages.semantic)), sign)

    def _count(self, languages: tuple[str, ...], sign: int) -> None:
        """Language pools follow the languages that nodes bring."""
        if self.config.flavour != "language" or not languages:
            return
        before = self._sizes.get(languages, 0)
        self._sizes[languages] = before + sign
        if before and before + sign:
            return
        sets = [key for key, size in self._sizes.items() for _ in range(size)]
        self.pools = language_pools(self.config, sets)
        self.languages = LanguageIndex(pools=self.pools, match=self._match)
