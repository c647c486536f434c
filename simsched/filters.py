"""
What makes a node unusable for a job: the request, the rules, and the table of filters.

`FILTERS` is the table: in the order asked, each with the reason that is counted. The rules say
which of them apply; `Search` puts nodes through them. The order in which usable nodes are
preferred is `balance`, the decision itself `selection`. This module knows no clock and no store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from simsched.languages import AUTO
from simsched.modules import ASR, NMT, TTS
from simsched.nodes import Health, NodeView
from simsched.snapshot import ClusterSnapshot

Draw = Callable[[int, int], int]
"""`draw(bound, k)`: the k-th random whole number of this decision, in [0, bound)."""

RESOURCE_LIMIT_PERCENT: Final = 85.0
"""A node at or above this share of CPU, GPU or memory takes no job (`resource_threshold`)."""

BALANCES: Final = (
    "least_jobs", "least_reserved", "random", "round_robin", "first", "two_choices"
)  # fmt: skip
"""The balance policies (W11); `balance.STRATEGIES` says what they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRequest:
    """
    What one job asks.

    Attributes:
        required: service types.
        pools: the pools to try, in order; read under two-level rules only.
        preferred_node: a node that comes first if it is usable ("" for none).
        preferred_check: `full` in phase 1, `available` in phase 2
            (`selection.PREFERRED_CHECKS`).
        preferred_fallback: whether another node may be taken if the preferred one is unusable.
        excluded: nodes that this decision may not take.
        tried: nodes that hold or held a job of the same (session, utterance); they are taken
            again only if they declare that they can.
        now_ns: for marks that run out.

    """

    source: str
    target: str
    required: frozenset[str] = frozenset()
    accept_public: bool = True
    pools: tuple[str, ...] = ()
    preferred_node: str = ""
    preferred_check: str = "full"
    preferred_fallback: bool = True
    excluded: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    now_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRules:
    """
    How nodes are selected; made once from policy and configuration.

    Attributes:
        two_level: pools, then nodes (phase 3), or one list of nodes.
        indexed: ask the snapshot's index for the least loaded instead of sampling or scanning.
        balance: one of `BALANCES`.
        language_match: `pairs` asks every node about the languages; `exact_set` is the
            reference: in pools membership is all, and a source `auto` finds no translator.
        degraded_selectable: offer every online node as the reference does (B23), or ready ones.
        heed_unavailable: pass over nodes that said MODEL_NOT_AVAILABLE lately (B18).
        sample_size: members of a pool that are looked at.
        affinity: look at all members in order, so that equal jobs find equal nodes.
        needs_gpu: pass over nodes without a GPU, as the reference does.

    """

    two_level: bool = False
    indexed: bool = True
    balance: str = "least_jobs"
    language_match: str = "pairs"
    degraded_selectable: bool = False
    heed_unavailable: bool = True
    sample_size: int = 20
    affinity: bool = False
    needs_gpu: bool = True
    resource_limit_percent: float = RESOURCE_LIMIT_PERCENT
    filters: tuple[Filter, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            raise ValueError(f"balance: one of {', '.join(BALANCES)}, not {self.balance!r}")
        if self.language_match not in ("exact_set", "pairs"):
            raise ValueError(f"language_match: exact_set or pairs, not {self.language_match!r}")
        if self.sample_size < 1:
            raise ValueError("sample_size: 1 or more")
        object.__setattr__(self, "filters", tuple(f for f in FILTERS if f.applies(self)))

    @property
    def asks_languages(self) -> bool:
        """Whether nodes are asked about the languages, or the pool's word is taken for it."""
        return not self.two_level or self.language_match == "pairs"


def no_reservations(_node_id: str) -> int:
    """What a caller without reservations of its own knows of a node: 0."""
    return 0


class Search:
    """One decision in progress: its inputs, and what it has looked at so far."""

    __slots__ = (
        "capability_reads", "draw", "examined", "request", "reserved", "rules",
        "snapshot", "turn",
    )  # fmt: skip

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        request: SelectionRequest,
        rules: SelectionRules,
        draw: Draw,
        *,
        turn: int = 0,
        reserved: Callable[[str], int] = no_reservations,
    ) -> None:
        self.snapshot = snapshot
        self.request = request
        self.rules = rules
        self.draw = draw
        self.turn = turn
        self.reserved = reserved
        self.examined = 0
        self.capability_reads = 0

    def jobs(self, node: NodeView) -> int:
        """The node's load as the balance policy counts it."""
        if self.rules.balance == "least_reserved":
            return node.current_jobs + self.reserved(node.node_id)
        return node.current_jobs

    def first_failing(self, node: NodeView) -> Filter | None:
        """The first filter that the node fails, or None: it is usable."""
        self.examined += 1
        for candidate in self.rules.filters:
            if candidate.reads_capability:
                self.capability_reads += len(self.request.required)
            if candidate.rejects(node, self):
                return candidate
        return None

    def usable(self, nodes: Iterable[NodeView]) -> Iterator[NodeView]:
        """Those that pass every filter, in the order given."""
        return (node for node in nodes if self.first_failing(node) is None)


def _always(_rules: SelectionRules) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """
    One reason not to take a node.

    Attributes:
        reason: the name of its counter.
        applies: whether rules ask it at all.
        availability: whether a preferred node is asked it too, before anything else.
        reads_capability: the reference reads the node's capability hash here (W7).

    """

    name: str
    reason: str
    rejects: Callable[[NodeView, Search], bool]
    applies: Callable[[SelectionRules], bool] = _always
    availability: bool = False
    reads_capability: bool = False


def _not_healthy(node: NodeView, search: Search) -> bool:
    if node.health is Health.READY:
        return False
    return not (search.rules.degraded_selectable and node.is_online)


def marked_unavailable(node: NodeView, search: Search) -> bool:
    """Whether a mark that has not run out blocks a type that the job needs."""
    request = search.request
    return any(
        mark.until_ns > request.now_ns and (not mark.type or mark.type in request.required)
        for mark in node.unavailable
    )


def _over_threshold(node: NodeView, search: Search) -> bool:
    limit = search.rules.resource_limit_percent
    return not (node.cpu_percent < limit and node.gpu_percent < limit and node.mem_percent < limit)


def _cannot_translate(node: NodeView, search: Search) -> bool:
    request = search.request
    if NMT not in request.required:
        return False
    auto = search.rules.language_match == "pairs"
    return not node.languages.translates(request.source, request.target, auto=auto)


def _cannot_speak(node: NodeView, search: Search) -> bool:
    request = search.request
    return TTS in request.required and request.target not in node.languages.tts


def _cannot_hear(node: NodeView, search: Search) -> bool:
    request = search.request
    if request.source == AUTO or ASR not in request.required:
        return False
    return request.source not in node.languages.asr


def _cannot_recognise_language(node: NodeView, search: Search) -> bool:
    request = search.request
    return request.source == AUTO and ASR in request.required and not node.languages.asr


def _asks_languages(rules: SelectionRules) -> bool:
    return rules.asks_languages


FILTERS: Final = (
    Filter(
        name="excluded",
        reason="excluded",
        rejects=lambda n, s: n.node_id in s.request.excluded,
        availability=True,
    ),
    Filter(
        name="had this utterance",
        reason="already_tried",
        rejects=lambda n, s: not n.takes_retries and n.node_id in s.request.tried,
        availability=True,
    ),
    Filter(name="health", reason="status_not_ready", rejects=_not_healthy, availability=True),
    Filter(
        name="GPU",
        reason="gpu_unavailable",
        rejects=lambda n, _: not n.has_gpu,
        applies=lambda rules: rules.needs_gpu,
    ),
    Filter(
        # Never fires in the reference: its callers always accept public nodes.
        name="public pool",
        reason="not_in_public_pool",
        rejects=lambda n, s: n.accepts_public_jobs and not s.request.accept_public,
    ),
    Filter(
        name="installed types",
        reason="model_not_available",
        rejects=lambda n, s: not s.request.required <= n.installed,
    ),
    Filter(
        name="ready types",
        reason="model_not_available",
        rejects=lambda n, s: not s.request.required <= n.ready,
        applies=lambda rules: rules.two_level or rules.indexed,
        reads_capability=True,
    ),
    Filter(
        name="lately unavailable",
        reason="model_not_available",
        rejects=marked_unavailable,
        applies=lambda rules: rules.heed_unavailable,
    ),
    Filter(
        name="translation",
        reason="lang_pair_unsupported",
        rejects=_cannot_translate,
        applies=_asks_languages,
    ),
    Filter(
        name="speech", reason="tts_lang_unsupported", rejects=_cannot_speak, applies=_asks_languages
    ),
    Filter(
        name="recognition",
        reason="asr_lang_unsupported",
        rejects=_cannot_hear,
        applies=_asks_languages,
    ),
    Filter(
        name="recognition of any language",
        reason="src_auto_no_candidate",
        rejects=_cannot_recognise_language,
        applies=_asks_languages,
    ),
    Filter(
        name="free slot",
        reason="capacity_exceeded",
        rejects=lambda n, s: s.jobs(n) >= n.slots,
        availability=True,
    ),
    Filter(name="resources", reason="resource_threshold_exceeded", rejects=_over_threshold),
)
"""Why a node is passed over, in the order asked. The first three and the last two, the GPU, the
public pool and the types are the reference's; the languages are its single-level ones."""

REASONS: Final = tuple(
    dict.fromkeys(("offline", *(f.reason for f in FILTERS), "preferred_unusable"))
)
"""Every counter; `offline` is that of a pool without an online member."""
