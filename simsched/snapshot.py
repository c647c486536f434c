"""
The cluster snapshot: every node as one immutable value, with an index for the questions asked.

Readers share a snapshot by reference; a writer makes the next version. Rules:

- nothing in a published snapshot changes, ever (the arrays in it are copied before any change);
- the content alone decides the structure: after any history of updates a snapshot equals the
  one built from scratch from the same views;
- every walk follows ordinals. An `immutables.Map` is only ever looked up: its own order depends
  on the hash seed of the process.

A *key* names a list of nodes: a language pair, a pool id, or `ALL`. Per key there are its
*members* (every node) and its *queue* (the online ones, in buckets by load). The queue is a
bucket queue: the least loaded node of a key is the first one of its first bucket, whatever the
number of nodes. An update costs O(keys of the node), each a memory copy of one bucket.
This module decides nothing: filters and balance live in `selection`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import msgspec
from immutables import Map, MapMutation
from msgspec.structs import replace

from simsched.languages import Pair
from simsched.modules import ASR, NMT, TTS
from simsched.nodes import Health, NodeView

Key = Pair | str
"""A language pair, or the id of a pool, or `ALL`."""

ALL: Final[Pair] = ("*", "*")
"""The key of every node."""

FULL: Final = 1 << 31
"""The bucket of nodes without a free slot; a walk by load stops before it."""

Queue = tuple[tuple[int, "array[int]"], ...]
"""(load, ordinals in order), by load; no bucket is empty."""

NOBODY: Final = array("I")
NOTHING: Final[Map[Any, Any]] = Map()


class PoolTally(msgspec.Struct, frozen=True):
    """How many members of a pool there are, are online, are ready, offer a core type ready."""

    members: int = 0
    online: int = 0
    ready: int = 0
    asr_ready: int = 0
    nmt_ready: int = 0
    tts_ready: int = 0

    def type_ready(self, service_type: str) -> int:
        """Members online with this core type ready; the members for a type not counted."""
        return getattr(self, f"{service_type}_ready", self.members)

    def plus(self, share: tuple[int, ...], sign: int) -> PoolTally:
        """With one member's share added (`sign` 1) or taken away (-1)."""
        return PoolTally(
            self.members + sign * share[0],
            self.online + sign * share[1],
            self.ready + sign * share[2],
            self.asr_ready + sign * share[3],
            self.nmt_ready + sign * share[4],
            self.tts_ready + sign * share[5],
        )


NO_POOL: Final = PoolTally()


class ClusterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    One version of the cluster.

    Attributes:
        version: grows by one with each publication.
        views: ordinal -> view.
        ordinals: node id -> ordinal.

    """

    version: int = 0
    views: Map[int, NodeView] = NOTHING
    ordinals: Map[str, int] = NOTHING
    _members: Map[Key, array[int]] = NOTHING
    _queues: Map[Key, Queue] = NOTHING
    _tallies: Map[str, PoolTally] = NOTHING

    @classmethod
    def of(cls, views: Iterable[NodeView], version: int = 0) -> ClusterSnapshot:
        """A snapshot of these views, built from scratch."""
        return cls(version=version - 1).with_nodes(views)

    def __len__(self) -> int:
        return len(self.views)

    def get(self, node_id: str) -> NodeView | None:
        """The view of a node, or None if there is no such node."""
        ordinal = self.ordinals.get(node_id)
        return None if ordinal is None else self.views[ordinal]

    def nodes(self) -> Iterator[NodeView]:
        """Every node, by ordinal."""
        return (self.views[ordinal] for ordinal in self.member_ordinals(ALL))

    def member_ordinals(self, key: Key) -> array[int]:
        """Ordinals of the key's nodes, in order, whatever their health. Not to be changed."""
        return self._members.get(key, NOBODY)

    def members(self, pool: str) -> tuple[str, ...]:
        """Ids of the members of a pool, by ordinal."""
        return tuple(self.views[ordinal].node_id for ordinal in self.member_ordinals(pool))

    def nodes_for(self, pair: Pair) -> tuple[str, ...]:
        """Ids of the nodes that serve a language pair, by ordinal."""
        return tuple(self.views[ordinal].node_id for ordinal in self.member_ordinals(pair))

    def tally(self, pool: str) -> PoolTally:
        """The counts of a pool; all zero if it has no members."""
        return self._tallies.get(pool, NO_POOL)

    def walk(self, key: Key, start: int) -> Iterator[NodeView]:
        """
        Online nodes of the key that have a free slot, least loaded first.

        Args:
            key: which list of nodes.
            start: a number drawn by the caller, 0 or more: equally loaded nodes are taken in
                turn from there on, so that no node is everybody's first.

        """
        views = self.views
        for load, bucket in self._queues.get(key, ()):
            if load == FULL:
                return
            offset = start % len(bucket)
            for ordinal in bucket[offset:] if offset else bucket:
                yield views[ordinal]
            for ordinal in bucket[:offset]:
                yield views[ordinal]

    def least_loaded(
        self, pair: Pair, k: int = 1, excluded: Collection[str] = (), start: int = 0
    ) -> tuple[str, ...]:
        """
        Up to `k` online nodes with a free slot that serve the pair, least loaded first.

        Ties are rotated by `start` as in `walk`. About 1 us for k = 1 and any number of nodes.
        """
        found: list[str] = []
        views = self.views
        for load, bucket in self._queues.get(pair, ()):
            if load == FULL:
                break
            size = len(bucket)
            first = start % size
            for position in range(first, first + size):
                view = views[bucket[position % size]]
                if view.node_id not in excluded:
                    found.append(view.node_id)
                    if len(found) == k:
                        return tuple(found)
        return tuple(found)

    def with_node(self, view: NodeView) -> ClusterSnapshot:
        """The next version, with this node as `view` says; a new node joins."""
        return self.with_nodes((view,))

    def without(self, node_id: str) -> ClusterSnapshot:
        """The next version, without this node (the same node set if there is no such node)."""
        return self.with_nodes((), removed=(node_id,))

    def with_nodes(
        self, changed: Iterable[NodeView], removed: Iterable[str] = ()
    ) -> ClusterSnapshot:
        """
        The next version, with several changes at once; removals come first.

        Raises:
            ValueError: a node came back under another ordinal, or an ordinal is taken.

        """
        changed = tuple(changed)
        if not removed and len(changed) == 1:
            known, view = self.views.get(changed[0].ordinal), changed[0]
            if known == view:
                return replace(self, version=self.version + 1)  # an idle node's heartbeat
            if known is not None and known.node_id == view.node_id and _moves_only(known, view):
                return self._with_moved(known, view)
        edit = _Edit(self)
        for node_id in removed:
            edit.remove(node_id)
        for view in changed:
            edit.put(view)
        return edit.finish()

    def _with_moved(self, old: NodeView, new: NodeView) -> ClusterSnapshot:
        """The next version, with a node that has another load or says other things of itself."""
        before, after, queues = _load(old), _load(new), self._queues
        if before != after:
            edited = queues.mutate()
            _move_all(edited, _keys(new), new.ordinal, before, after)
            queues = edited.finish()
        views = self.views.set(new.ordinal, new)
        return replace(self, version=self.version + 1, views=views, _queues=queues)


class _Edit:
    """One change of a snapshot in progress: mutable maps that nobody else sees."""

    def __init__(self, base: ClusterSnapshot) -> None:
        self.version = base.version + 1
        self.views = base.views.mutate()
        self.ordinals = base.ordinals.mutate()
        self.members = base._members.mutate()
        self.queues = base._queues.mutate()
        self.tallies = base._tallies.mutate()

    def put(self, view: NodeView) -> None:
        known = self.ordinals.get(view.node_id)
        if known is None:
            if view.ordinal in self.views:
                raise ValueError(f"ordinal {view.ordinal} belongs to another node")
            self.ordinals[view.node_id] = view.ordinal
        elif known != view.ordinal:
            raise ValueError(f"node {view.node_id} has ordinal {known}, not {view.ordinal}")
        old = self.views.get(view.ordinal)
        self.views[view.ordinal] = view
        self._reindex(view.ordinal, old, view)

    def remove(self, node_id: str) -> None:
        ordinal = self.ordinals.get(node_id)
        if ordinal is None:
            return
        old = self.views[ordinal]
        del self.ordinals[node_id]
        del self.views[ordinal]
        self._reindex(ordinal, old, None)

    def _reindex(self, ordinal: int, old: NodeView | None, new: NodeView | None) -> None:
        old_load, new_load = _load(old), _load(new)
        if old is not None and new is not None and _same_keys(old, new):
            if old_load != new_load:
                _move_all(self.queues, _keys(new), ordinal, old_load, new_load)
            if _counts_alike(old, new):
                return
        else:
            self._rekey(ordinal, old, new, old_load, new_load)
        old_share, new_share = _share(old), _share(new)
        old_pools = old.pools if old else ()
        new_pools = new.pools if new else ()
        if old_share != new_share or old_pools != new_pools:
            self._count(old_pools, old_share, -1)
            self._count(new_pools, new_share, 1)

    def _rekey(
        self,
        ordinal: int,
        old: NodeView | None,
        new: NodeView | None,
        old_load: int | None,
        new_load: int | None,
    ) -> None:
        before = dict.fromkeys(_keys(old)) if old else {}
        after = dict.fromkeys(_keys(new)) if new else {}
        left = [key for key in before if key not in after]
        joined = [key for key in after if key not in before]
        for key in left:
            rest = _without(self.members[key], ordinal)
            if rest:
                self.members[key] = rest
            else:
                del self.members[key]
        for key in joined:
            self.members[key] = _with(self.members.get(key, NOBODY), ordinal)
        _move_all(self.queues, left, ordinal, old_load, None)
        _move_all(self.queues, [key for key in after if key in before], ordinal, old_load, new_load)
        _move_all(self.queues, joined, ordinal, None, new_load)

    def _count(self, pools: tuple[str, ...], share: tuple[int, ...], sign: int) -> None:
        for pool in pools:
            tally = self.tallies.get(pool, NO_POOL).plus(share, sign)
            if tally.members:
                self.tallies[pool] = tally
            else:
                del self.tallies[pool]

    def finish(self) -> ClusterSnapshot:
        return ClusterSnapshot(
            version=self.version,
            views=self.views.finish(),
            ordinals=self.ordinals.finish(),
            _members=self.members.finish(),
            _queues=self.queues.finish(),
            _tallies=self.tallies.finish(),
        )


def _move_all(
    queues: MapMutation[Key, Queue],
    keys: Iterable[Key],
    ordinal: int,
    old_load: int | None,
    new_load: int | None,
) -> None:
    """Keys of the same nodes share one queue, and go on sharing it: it is moved once."""
    if old_load == new_load:
        return
    moved: dict[int, Queue] = {}
    for key in keys:
        before = queues.get(key, ())
        queue = moved.get(id(before))
        if queue is None:
            queue = moved[id(before)] = _moved(before, ordinal, old_load, new_load)
        if queue:
            queues[key] = queue
        else:
            del queues[key]


def _load(view: NodeView | None) -> int | None:
    """The bucket of a node; None for one that no queue holds."""
    if view is None or not view.is_online:
        return None
    return view.current_jobs if view.current_jobs < view.slots else FULL


def _keys(view: NodeView) -> Iterator[Key]:
    yield ALL
    yield from view.pairs
    yield from view.pools


def _same_keys(old: NodeView, new: NodeView) -> bool:
    same_languages = old.languages is new.languages or old.pairs == new.pairs
    return same_languages and old.pools == new.pools


def _moves_only(old: NodeView, new: NodeView) -> bool:
    """Whether a node stays in the same lists and adds the same to the tallies of its pools."""
    return _same_keys(old, new) and _counts_alike(old, new)


def _counts_alike(old: NodeView, new: NodeView) -> bool:
    """Whether two views, of the same pools, plainly add the same to their tallies."""
    return old.health is new.health and old.ready is new.ready


def _share(view: NodeView | None) -> tuple[int, ...]:
    """What a node adds to the tallies of its pools, in the order of their fields."""
    if view is None:
        return (0, 0, 0, 0, 0, 0)
    online = view.is_online
    ready = view.ready
    return (
        1,
        int(online),
        int(view.health is Health.READY),
        int(online and ASR in ready),
        int(online and NMT in ready),
        int(online and TTS in ready),
    )


def _moved(queue: Queue, ordinal: int, old_load: int | None, new_load: int | None) -> Queue:
    """The queue with a node in another bucket (None: in no bucket). Few buckets: a plain list."""
    buckets = list(queue)
    if old_load is not None:
        position = _bucket_position(buckets, old_load)
        rest = _without(buckets[position][1], ordinal)
        buckets[position : position + 1] = [(old_load, rest)] if rest else []
    if new_load is not None:
        position = _bucket_position(buckets, new_load)
        if position < len(buckets) and buckets[position][0] == new_load:
            buckets[position] = (new_load, _with(buckets[position][1], ordinal))
        else:
            buckets.insert(position, (new_load, array("I", (ordinal,))))
    return tuple(buckets)


def _bucket_position(buckets: list[tuple[int, array[int]]], load: int) -> int:
    """Where the bucket of this load is, or belongs."""
    position = 0
    for have, _ in buckets:
        if have >= load:
            break
        position += 1
    return position


def _with(ordinals: array[int], ordinal: int) -> array[int]:
    """A copy with one more, in order: a memory copy, 4 bytes a node."""
    copy = ordinals[:]
    insort(copy, ordinal)
    return copy


def _without(ordinals: array[int], ordinal: int) -> array[int]:
    copy = ordinals[:]
    position = bisect_left(copy, ordinal)
    assert copy[position] == ordinal
    del copy[position]
    return copy


class SnapshotPublisher:
    """The writer's side: the current snapshot, and ordinals for nodes that join."""

    def __init__(self) -> None:
        self.current = ClusterSnapshot()
        self._next_ordinal = 0
        self._ordinals: dict[str, int] = {}

    def ordinal_of(self, node_id: str) -> int:
        """The node's ordinal: its old one if it is known, else the next."""
        ordinal = self._ordinals.get(node_id)
        if ordinal is None:
            ordinal = self._next_ordinal
            self._next_ordinal += 1
            self._ordinals[node_id] = ordinal
        return ordinal

    def publish(
        self, changed: Iterable[NodeView], removed: Collection[str] = ()
    ) -> ClusterSnapshot:
        """
        Make the next version current, in O(changed nodes), and give it back.

        A removed node's ordinal is not used again: should it return, it joins as a new one.
        """
        self.current = self.current.with_nodes(changed, removed)
        for node_id in removed:
            self._ordinals.pop(node_id, None)
        return self.current
