"""
In which order usable nodes are preferred: the balance policies (W11).

A strategy is a lazy ranking of the usable nodes of one key (a pool, a language pair, all nodes):
who wants one node takes the first, who offers a claim several takes the first k, and both agree.
With the index a strategy reaches every free node; without it, it looks where the reference looks,
at a sample of a pool or at all nodes in order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby, islice
from typing import Final

from simsched.filters import Draw, Search
from simsched.languages import AUTO
from simsched.nodes import NodeView
from simsched.snapshot import Key


def _sample(search: Search, key: Key) -> Iterator[NodeView]:
    """Up to `sample_size` members of the key in random order (all in order under affinity)."""
    members = search.snapshot.member_ordinals(key)
    views = search.snapshot.views
    if search.rules.affinity:
        return (views[ordinal] for ordinal in members)
    positions = sample_positions(len(members), search.rules.sample_size, search.draw)
    return (views[members[position]] for position in positions)


def sample_positions(bound: int, size: int, draw: Draw) -> Iterator[int]:
    """
    Up to `size` different whole numbers in [0, bound), in random order, O(1) each.

    The first steps of a Fisher-Yates shuffle of a list that exists only where it was touched.
    """
    moved: dict[int, int] = {}
    for k in range(min(size, bound)):
        position = k + draw(bound - k, k)
        yield moved.get(position, position)
        moved[position] = moved.get(k, k)


def _ring(search: Search, key: Key, start: int) -> Iterator[NodeView]:
    """Every member of the key once, by ordinal, from position `start` on."""
    members = search.snapshot.member_ordinals(key)
    size = len(members)
    return (search.snapshot.views[members[(start + i) % size]] for i in range(size))


def _looked_at(search: Search, key: Key) -> Iterator[NodeView]:
    """What a decision without the index looks at: a pool's sample, or every node."""
    return _sample(search, key) if search.rules.two_level else _ring(search, key, 0)


def considered(search: Search, key: Key) -> Iterator[NodeView]:
    """What an explanation looks at: the reference's own sample, or everything that could serve."""
    sampled = search.rules.two_level and not search.rules.indexed
    if sampled and search.rules.balance in SAMPLED:
        return _sample(search, key)
    return _ring(search, key, 0)


def _walk(search: Search, key: Key) -> Iterator[NodeView]:
    return search.snapshot.walk(key, search.draw(1 << 30, 0))


def _tie(node: NodeView, search: Search) -> float:
    """Among equally loaded nodes of one level: wide recognition for `auto`, else an idle GPU."""
    if search.rules.two_level:
        return 0
    if search.request.source == AUTO:
        return -len(node.languages.asr)
    return node.gpu_percent


def _least_jobs(search: Search, key: Key) -> Iterator[NodeView]:
    if search.rules.indexed:
        return search.usable(_walk(search, key))
    if search.rules.two_level:
        found = search.usable(_sample(search, key))
        return iter(sorted(found, key=lambda node: node.current_jobs))
    return _by_load_and_tie(search, key)


def _by_load_and_tie(search: Search, key: Key) -> Iterator[NodeView]:
    """
    What sorting all usable nodes by (load, tie) gives, looking no further than needed.

    A node with an idle GPU cannot be beaten within its load, so it leaves at once.
    """
    for _, same_load in groupby(search.snapshot.walk(key, 0), key=lambda node: node.current_jobs):
        others: list[NodeView] = []
        for node in search.usable(same_load):
            if search.request.source != AUTO and node.gpu_percent <= 0:
                yield node
            else:
                others.append(node)
        yield from sorted(others, key=lambda node: _tie(node, search))


def _least_reserved(search: Search, key: Key) -> Iterator[NodeView]:
    if search.rules.indexed:
        return _best_first(search, _walk(search, key))
    found = search.usable(_looked_at(search, key))
    return iter(sorted(found, key=lambda node: (search.jobs(node), _tie(node, search))))


def _best_first(search: Search, by_load: Iterator[NodeView]) -> Iterator[NodeView]:
    """
    Usable nodes by reported plus reserved jobs, from a walk by reported jobs alone.

    Exact and lazy: reservations only add, so a node may leave the heap as soon as no node still
    to come can have fewer jobs.
    """
    waiting: list[tuple[int, int, NodeView]] = []
    for order, node in enumerate(by_load):
        while waiting and waiting[0][0] <= node.current_jobs:
            yield heapq.heappop(waiting)[2]
        if search.first_failing(node) is None:
            heapq.heappush(waiting, (search.jobs(node), order, node))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _random(search: Search, key: Key) -> Iterator[NodeView]:
    return search.usable(_sampled_then_all(search, key))


def _sampled_then_all(search: Search, key: Key) -> Iterator[NodeView]:
    """The sample; then, where the index serves, the others: so that no free node is missed."""
    seen: dict[int, None] = {}
    for node in _sample(search, key):
        seen[node.ordinal] = None
        yield node
    if search.rules.indexed or not search.rules.two_level:
        for node in _ring(search, key, search.draw(1 << 30, search.rules.sample_size)):
            if node.ordinal not in seen:
                yield node


def _two_choices(search: Search, key: Key) -> Iterator[NodeView]:
    """Power of two choices (Mitzenmacher 2001): the less loaded of two random usable nodes."""
    found = _random(search, key)
    while pair := list(islice(found, 2)):
        yield from sorted(pair, key=search.jobs)


def _round_robin(search: Search, key: Key) -> Iterator[NodeView]:
    return search.usable(_ring(search, key, search.turn))


def _first(search: Search, key: Key) -> Iterator[NodeView]:
    return search.usable(_ring(search, key, 0))


STRATEGIES: Final[Mapping[str, Callable[[Search, Key], Iterator[NodeView]]]] = {
    "least_jobs": _least_jobs,
    "least_reserved": _least_reserved,
    "random": _random,
    "round_robin": _round_robin,
    "first": _first,
    "two_choices": _two_choices,
}
"""Balance policy (W11) -> usable nodes of a key in order of preference. `least_jobs` sees what
nodes reported last, so a burst between two heartbeats meets one node; `first` sends everything
to the node that joined first until it is full (B15)."""

SAMPLED: Final = ("least_jobs", "least_reserved", "random", "two_choices")
"""The policies that look at a sample of a pool when they have no index."""
