"""
Node selection: which node takes a job, decided on one snapshot.

Two levels: the pools of the request are tried in order, each by a sample of its members (or its
index). Single level: one list, the nodes of the language pair or all of them. What makes a node
unusable is the table of `filters`, who comes first is `balance`; here they are put together:

- `select` takes the first of the ranking and counts no reasons;
- `candidates` takes the first k, for a claim that tries them in turn;
- `explain` looks again and counts (on failure, or when somebody asks).

Chance comes in as `draw(bound, k)`: the k-th draw of this decision in [0, bound). What the
decision costs in modelled time is the caller's business: `Selection` says how many nodes were
looked at and how many capability reads the reference would have made. An empty selection that is
repeated unchanged (W8) is the caller calling again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from simsched.balance import STRATEGIES, considered
from simsched.filters import (
    FILTERS,
    REASONS,
    Draw,
    Search,
    SelectionRequest,
    SelectionRules,
    marked_unavailable,
    no_reservations,
)
from simsched.languages import AUTO
from simsched.modules import ASR, CORE_TYPES, NMT, TTS
from simsched.nodes import NodeView
from simsched.snapshot import ALL, ClusterSnapshot, Key

__all__ = [
    "PREFERRED_CHECKS",
    "Attempt",
    "Breakdown",
    "Selection",
    "SelectionRequest",
    "SelectionRules",
    "candidates",
    "explain",
    "select",
]

EXAMPLES_MAX: Final = 5
"""Node ids kept per reason, as the reference's exclude statistics do."""


def _is_available(node: NodeView, search: Search) -> bool:
    return not any(f.rejects(node, search) for f in FILTERS if f.availability)


def _is_fully_usable(node: NodeView, search: Search) -> bool:
    """Available, of the right types, and good for the languages on its own declaration."""
    request, languages = search.request, node.languages
    if not _is_available(node, search) or not request.required <= node.installed:
        return False
    if search.rules.heed_unavailable and marked_unavailable(node, search):
        return False
    understands = request.source == AUTO or request.source in languages.semantic
    translates = understands and request.target in languages.semantic
    if search.rules.language_match == "pairs" and NMT in request.required:
        translates = languages.translates(request.source, request.target)
    hears = languages.recognises(request.source) or ASR not in request.required
    speaks = request.target in languages.tts or TTS not in request.required
    return translates and hears and speaks


PREFERRED_CHECKS: Final[Mapping[str, Callable[[NodeView, Search], bool]]] = {
    "full": _is_fully_usable,
    "available": _is_available,
}
"""What a preferred node must satisfy: `full` in phase 1, `available` in phase 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    What was decided.

    Attributes:
        node_id: None if no node is usable.
        selector: `preferred`, `phase3_type` (two levels) or `types` (one level).
        pool: the pool that the node was found in, "" on one level.
        fallback_used: whether a pool other than the first had to serve.
        examined: nodes that were put through the filters: in pools without the index the
            reference's own number; on one level it would have looked at every node.
        capability_reads: (node, type) readiness reads that the reference would have made (W7).

    """

    node_id: str | None
    selector: str
    pool: str = ""
    fallback_used: bool = False
    examined: int = 0
    capability_reads: int = 0


def select(
    snapshot: ClusterSnapshot,
    request: SelectionRequest,
    rules: SelectionRules,
    draw: Draw,
    *,
    turn: int = 0,
    reserved: Callable[[str], int] = no_reservations,
) -> Selection:
    """
    The node for a job, without reasons.

    Args:
        snapshot: the cluster as it is known.
        request: what the job asks.
        rules: how to choose.
        draw: chance, keyed by the caller to this decision.
        turn: the caller's counter, for `round_robin`.
        reserved: jobs given to a node that it has not reported yet, for `least_reserved`.

    """
    return _decide(Search(snapshot, request, rules, draw, turn=turn, reserved=reserved))


def _decide(search: Search) -> Selection:
    node = _preferred(search)
    if node is not None:
        return _selection(search, node.node_id, "preferred")
    selector = "phase3_type" if search.rules.two_level else "types"
    if _insists_on_preferred(search.request):
        return _selection(search, None, "preferred")
    for key in _keys(search):
        node = next(_ranking(search, key), None)
        if node is not None:
            return _selection(search, node.node_id, selector, key)
    return _selection(search, None, selector)


def _selection(
    search: Search, node_id: str | None, selector: str, key: Key | None = None
) -> Selection:
    pool = key if isinstance(key, str) else ""
    return Selection(
        node_id=node_id,
        selector=selector,
        pool=pool,
        fallback_used=bool(pool) and pool != search.request.pools[0],
        examined=search.examined,
        capability_reads=search.capability_reads,
    )


def _preferred(search: Search) -> NodeView | None:
    request = search.request
    if not request.preferred_node:
        return None
    node = search.snapshot.get(request.preferred_node)
    if node is None or not PREFERRED_CHECKS[request.preferred_check](node, search):
        return None
    return node


def _insists_on_preferred(request: SelectionRequest) -> bool:
    return bool(request.preferred_node) and not request.preferred_fallback


def _keys(search: Search) -> tuple[Key, ...]:
    """The lists of nodes to try, in order."""
    request, rules = search.request, search.rules
    if rules.two_level:
        return request.pools
    if {ASR, NMT} <= request.required:
        # The index holds the nodes that hear the source and translate: exactly those that the
        # filters would leave. A job that asks for less may go to nodes outside of it.
        return ((request.source, request.target),)
    return (ALL,)


def _ranking(search: Search, key: Key) -> Iterator[NodeView]:
    if isinstance(key, str) and _skip_reason(search, key):
        return iter(())
    return STRATEGIES[search.rules.balance](search, key)


def _skip_reason(search: Search, pool: str) -> str:
    """Why a pool is not looked into at all, from its counts alone; "" if it is."""
    tally = search.snapshot.tally(pool)
    if not tally.online:
        return "offline"
    if not tally.ready:
        return "status_not_ready"
    if any(name in search.request.required and not tally.type_ready(name) for name in CORE_TYPES):
        return "model_not_available"
    return ""


def candidates(
    snapshot: ClusterSnapshot,
    request: SelectionRequest,
    rules: SelectionRules,
    draw: Draw,
    k: int,
    *,
    turn: int = 0,
    reserved: Callable[[str], int] = no_reservations,
) -> tuple[str, ...]:
    """
    Up to `k` usable nodes in order of preference, for one claim; the first is `select`'s.

    A usable preferred node leads; the others follow, pool by pool. Arguments as in `select`.
    """
    search = Search(snapshot, request, rules, draw, turn=turn, reserved=reserved)
    return tuple(islice(_candidates(search), k))


def _candidates(search: Search) -> Iterator[str]:
    given: dict[str, None] = {}
    preferred = _preferred(search)
    if preferred is not None:
        given[preferred.node_id] = None
        yield preferred.node_id
    if _insists_on_preferred(search.request):
        return
    for key in _keys(search):
        for node in _ranking(search, key):
            if node.node_id not in given:
                given[node.node_id] = None
                yield node.node_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One pool that was tried: why it gave no node ("" if it did), and its usable nodes."""

    pool: str
    reason: str
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """
    Why the nodes that were looked at are usable or not.

    Attributes:
        total_nodes: nodes considered: the counts and `usable` add up to it.
        counts: (reason, nodes) in the order of `REASONS`, zeros left out.
        examples: (reason, up to 5 node ids).
        attempts: the pools tried, in order; empty on one level.
        selection: what `select` decided with the same arguments.

    """

    total_nodes: int
    usable: int
    counts: tuple[tuple[str, int], ...]
    examples: tuple[tuple[str, tuple[str, ...]], ...]
    pool_count: int
    attempts: tuple[Attempt, ...]
    selection: Selection

    @property
    def best_reason_label(self) -> str:
        """The most frequent reason, the first of equals; `no_nodes` if there was nobody."""
        if not self.total_nodes:
            return "no_nodes"
        return max(self.counts, key=lambda entry: entry[1])[0] if self.counts else "none"


class _Census:
    """Counts and examples by reason."""

    def __init__(self) -> None:
        self.usable = 0
        self._nodes: dict[str, int] = dict.fromkeys(REASONS, 0)
        self._examples: dict[str, list[str]] = {reason: [] for reason in REASONS}

    def add(self, node: NodeView, reason: str) -> None:
        if not reason:
            self.usable += 1
            return
        self._nodes[reason] += 1
        if len(self._examples[reason]) < EXAMPLES_MAX:
            self._examples[reason].append(node.node_id)

    def take(self, search: Search, nodes: Iterable[NodeView]) -> Attempt:
        """Put nodes through the filters; the attempt names the most frequent reason."""
        here = dict.fromkeys(REASONS, 0)
        usable = 0
        for node in nodes:
            failed = search.first_failing(node)
            self.add(node, failed.reason if failed else "")
            if failed:
                here[failed.reason] += 1
            else:
                usable += 1
        most = max(REASONS, key=here.__getitem__)
        reason = "" if usable else most if here[most] else "no_nodes"
        return Attempt(pool="", reason=reason, candidates=usable)

    def breakdown(
        self, pool_count: int, attempts: tuple[Attempt, ...], chosen: Selection
    ) -> Breakdown:
        counts = tuple((reason, number) for reason, number in self._nodes.items() if number)
        return Breakdown(
            total_nodes=self.usable + sum(number for _, number in counts),
            usable=self.usable,
            counts=counts,
            examples=tuple((reason, tuple(self._examples[reason])) for reason, _ in counts),
            pool_count=pool_count,
            attempts=attempts,
            selection=chosen,
        )


def explain(
    snapshot: ClusterSnapshot,
    request: SelectionRequest,
    rules: SelectionRules,
    draw: Draw,
    *,
    turn: int = 0,
    reserved: Callable[[str], int] = no_reservations,
) -> Breakdown:
    """
    The reasons behind `select` with the same arguments: O(nodes), for failures and questions.

    Without the index the sample is the one that `select` drew; with it, every node that could
    have served is counted, those that the index never showed to `select` included.
    """
    chosen = select(snapshot, request, rules, draw, turn=turn, reserved=reserved)
    search = Search(snapshot, request, rules, draw, turn=turn, reserved=reserved)
    census = _Census()
    pools = request.pools if rules.two_level else ()
    if chosen.selector == "preferred":
        node = snapshot.get(request.preferred_node)
        if node is not None:
            census.add(node, "" if chosen.node_id else _preferred_reason(search, node))
        return census.breakdown(len(pools), (), chosen)
    if not rules.two_level:
        census.take(search, considered(search, ALL))
        return census.breakdown(0, (), chosen)
    attempts: list[Attempt] = []
    for pool in pools:
        attempts.append(_attempt(search, census, pool))
        if pool == chosen.pool:
            break
    return census.breakdown(len(pools), tuple(attempts), chosen)


def _preferred_reason(search: Search, node: NodeView) -> str:
    failed = search.first_failing(node)
    return failed.reason if failed else "preferred_unusable"


def _attempt(search: Search, census: _Census, pool: str) -> Attempt:
    skipped = _skip_reason(search, pool)
    if not skipped:
        found = census.take(search, considered(search, pool))
        return Attempt(pool=pool, reason=found.reason, candidates=found.candidates)
    for ordinal in search.snapshot.member_ordinals(pool):
        census.add(search.snapshot.views[ordinal], skipped)
    return Attempt(pool=pool, reason=skipped, candidates=0)
