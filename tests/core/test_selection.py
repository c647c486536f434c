"""Selection: the fast decision is the naive one, and every reason is accounted for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.balance import STRATEGIES, sample_positions
from simsched.chance import below, mix
from simsched.filters import BALANCES, FILTERS
from simsched.languages import AUTO, LanguageCapabilities
from simsched.nodes import Health, NodeView, UnavailableMark
from simsched.selection import (
    SelectionRequest,
    SelectionRules,
    candidates,
    explain,
    select,
)
from simsched.snapshot import ClusterSnapshot

CORE = frozenset(("asr", "nmt", "tts"))
CHINESE_ENGLISH = LanguageCapabilities(asr=("zh", "en"), tts=("zh", "en"), semantic=("zh", "en"))
GOOD = NodeView(
    node_id="n0",
    ordinal=0,
    health=Health.READY,
    installed=CORE,
    ready=CORE,
    languages=CHINESE_ENGLISH,
    pools=("p",),
)
LANGUAGES = [
    LanguageCapabilities(),
    CHINESE_ENGLISH,
    LanguageCapabilities(asr=("zh",), tts=("en",), semantic=("zh", "en", "ja")),
    LanguageCapabilities(asr=("zh",), tts=("ja",), semantic=("zh", "en", "ja")),
]
MARK = UnavailableMark(service_id="x", version="", type="tts", until_ns=100)
TYPES = st.sampled_from([CORE, CORE, frozenset(("asr", "nmt"))])
REQUEST = SelectionRequest(source="zh", target="en", required=CORE, pools=("p", "q"))


def draw_of(key: int) -> Any:
    return lambda bound, k: below(mix(key, k), bound)


@st.composite
def clusters(draw: st.DrawFn) -> ClusterSnapshot:
    def one(ordinal: int) -> NodeView:
        return NodeView(
            node_id=f"n{ordinal}",
            ordinal=ordinal,
            health=draw(st.sampled_from([Health.READY, Health.READY, *Health])),
            current_jobs=draw(st.integers(0, 4)),
            has_gpu=draw(st.integers(0, 9)) > 0,
            gpu_percent=draw(st.sampled_from([0.0, 30.0, 84.9, 85.0])),
            accepts_public_jobs=draw(st.booleans()),
            installed=draw(TYPES),
            ready=draw(TYPES),
            languages=draw(st.sampled_from(LANGUAGES)),
            pools=(draw(st.sampled_from("pq")),),
            takes_retries=draw(st.booleans()),
            unavailable=draw(st.sampled_from([(), (), (MARK,)])),
        )

    return ClusterSnapshot.of([one(i) for i in range(draw(st.integers(0, 9)))])


REQUESTS = st.builds(
    SelectionRequest,
    source=st.sampled_from(["zh", "ja", AUTO]),
    target=st.sampled_from(["en", "ja"]),
    required=st.sampled_from([CORE, frozenset(("asr",)), frozenset(("asr", "nmt"))]),
    accept_public=st.booleans(),
    pools=st.sampled_from([("p", "q"), ("q", "p"), ("p",)]),
    excluded=st.sampled_from([(), ("n0",), ("n0", "n3")]),
    tried=st.sampled_from([(), ("n1",), ("n1", "n2")]),
    now_ns=st.sampled_from([0, 100]),
)
RULES = st.builds(
    SelectionRules,
    two_level=st.booleans(),
    indexed=st.booleans(),
    balance=st.sampled_from(BALANCES),
    language_match=st.sampled_from(["pairs", "exact_set"]),
    degraded_selectable=st.booleans(),
    heed_unavailable=st.booleans(),
    affinity=st.booleans(),
)


def naive_usable(view: NodeView, ask: SelectionRequest, rules: SelectionRules) -> bool:
    """The rules once more, as one plain condition, written without the table."""
    lang = view.languages
    auto = ask.source == AUTO
    healthy = {Health.READY} | (
        {Health.DEGRADED, Health.DRAINING} if rules.degraded_selectable else set()
    )
    translated = (ask.source, ask.target) in lang.translated
    if auto and rules.language_match == "exact_set":
        translated = False
    languages_fit = (
        (translated or "nmt" not in ask.required)
        and (ask.target in lang.tts or "tts" not in ask.required)
        and (bool(lang.asr) if auto else ask.source in lang.asr or "asr" not in ask.required)
    )
    return (
        view.node_id not in ask.excluded
        and (view.takes_retries or view.node_id not in ask.tried)
        and view.health in healthy
        and view.has_gpu
        and (ask.accept_public or not view.accepts_public_jobs)
        and ask.required <= view.installed
        and (ask.required <= view.ready or not (rules.two_level or rules.indexed))
        and not (
            rules.heed_unavailable
            and any(m.until_ns > ask.now_ns and m.type in ask.required for m in view.unavailable)
        )
        and (languages_fit or (rules.two_level and rules.language_match == "exact_set"))
        and view.current_jobs < view.slots
        and max(view.cpu_percent, view.gpu_percent, view.mem_percent) < 85
    )


def naive_lists(
    snapshot: ClusterSnapshot, ask: SelectionRequest, rules: SelectionRules
) -> list[list[NodeView]]:
    """The usable nodes of each list that is tried, in order of the lists."""
    nodes = list(snapshot.nodes())
    if not rules.two_level:
        return [[view for view in nodes if naive_usable(view, ask, rules)]]
    lists = []
    for pool in ask.pools:
        inside = [view for view in nodes if pool in view.pools]
        online = [view for view in inside if view.is_online]
        closed = not any(view.health is Health.READY for view in inside) or any(
            not any(name in view.ready for view in online)
            for name in ("asr", "nmt", "tts")
            if name in ask.required
        )
        lists.append([] if closed else [v for v in inside if naive_usable(v, ask, rules)])
    return lists


@given(clusters(), REQUESTS, RULES, st.integers(0, 2**32))
def test_the_fast_decision_agrees_with_a_full_scan(
    snapshot: ClusterSnapshot, ask: SelectionRequest, rules: SelectionRules, key: int
) -> None:
    """A usable node is found exactly if there is one, in the first pool that has one."""
    lists = naive_lists(snapshot, ask, rules)
    expected = next((found for found in lists if found), [])
    chosen = select(snapshot, ask, rules, draw_of(key), turn=key)
    ids = [view.node_id for view in expected]
    assert (chosen.node_id in ids) if ids else (chosen.node_id is None)
    if expected and rules.balance in ("least_jobs", "least_reserved"):
        by_id = {view.node_id: view for view in expected}
        assert chosen.node_id is not None
        assert by_id[chosen.node_id].current_jobs == min(v.current_jobs for v in expected)
    if expected and rules == SelectionRules(
        indexed=False,
        language_match=rules.language_match,
        degraded_selectable=rules.degraded_selectable,
        heed_unavailable=rules.heed_unavailable,
        affinity=rules.affinity,
    ):
        ties = {
            view.node_id: -len(view.languages.asr) if ask.source == AUTO else view.gpu_percent
            for view in expected
        }
        ordered = sorted(expected, key=lambda view: (view.current_jobs, ties[view.node_id]))
        ranked = candidates(snapshot, ask, rules, draw_of(key), 99)
        assert ranked == tuple(view.node_id for view in ordered)
    if expected and rules.balance == "first":
        assert chosen.node_id == ids[0]
    if expected and rules.two_level:
        assert chosen.fallback_used == (chosen.pool != ask.pools[0])


@given(clusters(), REQUESTS, RULES, st.integers(0, 2**32), st.integers(1, 4))
def test_candidates_begin_with_the_selected_node_and_miss_none(
    snapshot: ClusterSnapshot, ask: SelectionRequest, rules: SelectionRules, key: int, k: int
) -> None:
    """Candidates are different usable nodes, the first is the one that select takes."""
    chosen = select(snapshot, ask, rules, draw_of(key), turn=key).node_id
    some = candidates(snapshot, ask, rules, draw_of(key), k, turn=key)
    usable = [view.node_id for found in naive_lists(snapshot, ask, rules) for view in found]
    assert some[:1] == ((chosen,) if chosen else ())
    assert len(some) == len(set(some)) == min(k, len(usable))
    assert set(some) <= set(usable)


@given(clusters(), REQUESTS, RULES, st.integers(0, 2**32), st.sampled_from(["", "n0", "n2", "zz"]))
def test_reasons_add_up_to_the_nodes_considered(
    snapshot: ClusterSnapshot, ask: SelectionRequest, rules: SelectionRules, key: int, node: str
) -> None:
    """Every node looked at is usable or counted under one reason, with at most five examples."""
    ask = replace(ask, preferred_node=node, preferred_fallback=key % 2 == 0)
    told = explain(snapshot, ask, rules, draw_of(key), turn=key)
    assert told.total_nodes == told.usable + sum(number for _, number in told.counts)
    assert told.selection == select(snapshot, ask, rules, draw_of(key), turn=key)
    assert (told.usable > 0) == (told.selection.node_id is not None)
    for (reason, number), (named, examples) in zip(told.counts, told.examples, strict=True):
        assert (reason, min(number, 5)) == (named, len(examples))
    if told.selection.selector == "types":
        assert told.total_nodes == len(snapshot)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"health": Health.DEGRADED}, "status_not_ready"),
        ({"has_gpu": False}, "gpu_unavailable"),
        ({"installed": frozenset(("asr",))}, "model_not_available"),
        ({"unavailable": (MARK,)}, "model_not_available"),
        ({"languages": LANGUAGES[0]}, "lang_pair_unsupported"),
        ({"languages": LANGUAGES[3]}, "tts_lang_unsupported"),
        ({"current_jobs": 4}, "capacity_exceeded"),
        ({"mem_percent": 85.0}, "resource_threshold_exceeded"),
    ],
)
def test_each_reason_is_named(change: dict[str, Any], reason: str) -> None:
    """One fault in an otherwise good node gives exactly its reason."""
    broken = msgspec.structs.replace(GOOD, **change)
    told = explain(ClusterSnapshot.of([broken]), REQUEST, SelectionRules(), draw_of(0))
    assert (told.best_reason_label, told.selection.node_id) == (reason, None)
    assert told.examples == ((reason, ("n0",)),)


def test_a_node_without_a_gpu_is_chosen_where_cpus_will_do() -> None:
    """The filter is asked only under rules that demand a GPU."""
    snapshot = ClusterSnapshot.of([msgspec.structs.replace(GOOD, has_gpu=False)])
    for indexed in (True, False):
        for needed in (True, False):
            rules = SelectionRules(needs_gpu=needed, indexed=indexed)
            chosen = select(snapshot, REQUEST, rules, draw_of(0)).node_id
            assert chosen == (None if needed else "n0")


def test_a_node_that_had_the_utterance_is_taken_again_only_if_it_says_so() -> None:
    """The same node is no retry, unless it declares that it takes retries."""
    ask = replace(REQUEST, tried=("n0",))
    for takes, expected in ((False, None), (True, "n0")):
        snapshot = ClusterSnapshot.of([msgspec.structs.replace(GOOD, takes_retries=takes)])
        assert select(snapshot, ask, SelectionRules(), draw_of(0)).node_id == expected


def test_degraded_nodes_are_offered_only_on_request() -> None:
    """B23: the reference offers a degraded node."""
    degraded = msgspec.structs.replace(GOOD, node_id="n1", ordinal=1, health=Health.DEGRADED)
    snapshot = ClusterSnapshot.of([msgspec.structs.replace(GOOD, current_jobs=1), degraded])
    for offered, expected in ((False, "n0"), (True, "n1")):
        rules = SelectionRules(degraded_selectable=offered)
        assert select(snapshot, REQUEST, rules, draw_of(0)).node_id == expected


def test_auto_and_three_languages_are_reached_by_pairs_only() -> None:
    """B17: under exact_set a source auto finds no translator."""
    snapshot = ClusterSnapshot.of([msgspec.structs.replace(GOOD, languages=LANGUAGES[2])])
    ask = replace(REQUEST, source=AUTO)
    for match, expected in (("pairs", "n0"), ("exact_set", None)):
        rules = SelectionRules(language_match=match)
        assert select(snapshot, ask, rules, draw_of(0)).node_id == expected


@pytest.mark.parametrize(
    ("check", "fallback", "expected"),
    [("full", True, "n1"), ("available", False, "n0"), ("full", False, None)],
)
def test_a_preferred_node_is_checked_as_its_phase_says(
    check: str, fallback: bool, expected: str | None
) -> None:
    """Phase 1 asks for languages and falls back; phase 2 asks only whether it is available."""
    deaf = msgspec.structs.replace(GOOD, languages=LANGUAGES[0])
    snapshot = ClusterSnapshot.of(
        [deaf, msgspec.structs.replace(GOOD, node_id="n1", ordinal=1, current_jobs=2)]
    )
    ask = replace(REQUEST, preferred_node="n0", preferred_check=check, preferred_fallback=fallback)
    assert select(snapshot, ask, SelectionRules(), draw_of(0)).node_id == expected


def test_an_unavailable_preferred_node_ends_phase_2_without_fallback() -> None:
    """The reference's phase 2 gives no node; the safe form takes another."""
    full = msgspec.structs.replace(GOOD, current_jobs=4)
    snapshot = ClusterSnapshot.of([full, msgspec.structs.replace(GOOD, node_id="n1", ordinal=1)])
    for fallback, expected in ((False, None), (True, "n1")):
        ask = replace(
            REQUEST,
            preferred_node="n0",
            preferred_check="available",
            preferred_fallback=fallback,
        )
        assert select(snapshot, ask, SelectionRules(), draw_of(0)).node_id == expected


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(0, 2**32),
)
def test_reservations_count_exactly_on_the_index(loads: list[tuple[int, int]], key: int) -> None:
    """least_reserved ranks all nodes by reported plus reserved, full ones left out."""
    nodes = [
        msgspec.structs.replace(GOOD, node_id=f"n{i}", ordinal=i, current_jobs=jobs)
        for i, (jobs, _) in enumerate(loads)
    ]
    total = {f"n{i}": jobs + held for i, (jobs, held) in enumerate(loads)}
    ranked = candidates(
        ClusterSnapshot.of(nodes),
        REQUEST,
        SelectionRules(balance="least_reserved"),
        draw_of(key),
        99,
        reserved=lambda node: loads[int(node[1:])][1],
    )
    assert [total[node] for node in ranked] == sorted(t for t in total.values() if t < 4)


def test_round_robin_takes_turns_and_first_makes_a_hot_spot() -> None:
    """B15: first always takes the same node; round robin follows the caller's counter."""
    snapshot = ClusterSnapshot.of(
        [msgspec.structs.replace(GOOD, node_id=f"n{i}", ordinal=i) for i in range(3)]
    )
    for balance, expected in (("first", "n0 n0 n0 n0"), ("round_robin", "n0 n1 n2 n0")):
        rules = SelectionRules(balance=balance)
        taken = [select(snapshot, REQUEST, rules, draw_of(0), turn=t).node_id for t in range(4)]
        assert taken == expected.split()


@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 2**32))
def test_a_sample_is_without_repeats_and_complete(bound: int, size: int, key: int) -> None:
    """As many different positions as asked for, or all there are."""
    found = list(sample_positions(bound, size, draw_of(key)))
    assert len(found) == len(set(found)) == min(bound, size)
    assert all(0 <= position < bound for position in found)


def test_a_decision_looks_at_a_sample_only() -> None:
    """Two levels look at no more nodes than the sample, and count the reads it would cost."""
    nodes = [msgspec.structs.replace(GOOD, node_id=f"n{i}", ordinal=i) for i in range(100)]
    rules = SelectionRules(two_level=True, indexed=False)
    chosen = select(ClusterSnapshot.of(nodes), REQUEST, rules, draw_of(7))
    assert (chosen.examined, chosen.capability_reads, chosen.pool) == (20, 60, "p")
    indexed = select(ClusterSnapshot.of(nodes), REQUEST, SelectionRules(), draw_of(7))
    assert indexed.examined == 1


def test_the_tables_are_complete() -> None:
    """Every balance policy has its strategy; filter names are unique; bad words are refused."""
    assert tuple(STRATEGIES) == BALANCES
    assert len({f.name for f in FILTERS}) == len(FILTERS)
    for wrong in ({"balance": "best"}, {"language_match": "all"}, {"sample_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SelectionRules(**wrong)


def test_a_mark_runs_out_at_its_time() -> None:
    """B18: a marked node is passed over until the mark's time, and only if marks are heeded."""
    snapshot = ClusterSnapshot.of([msgspec.structs.replace(GOOD, unavailable=(MARK,))])
    heeds, ignores = SelectionRules(), SelectionRules(heed_unavailable=False)
    for rules, now_ns, expected in ((heeds, 99, None), (heeds, 100, "n0"), (ignores, 0, "n0")):
        ask = replace(REQUEST, now_ns=now_ns)
        assert select(snapshot, ask, rules, draw_of(0)).node_id == expected


def test_ties_of_one_level_go_to_the_less_used_gpu_or_the_wider_ear() -> None:
    """Equal load: lower GPU usage first; for a source auto, more recognised languages first."""
    wide = LanguageCapabilities(asr=("zh", "en", "ja"), tts=("en",), semantic=("zh", "en"))
    snapshot = ClusterSnapshot.of(
        [
            msgspec.structs.replace(GOOD, gpu_percent=50.0),
            msgspec.structs.replace(GOOD, node_id="n1", ordinal=1, gpu_percent=20.0),
            msgspec.structs.replace(
                GOOD, node_id="n2", ordinal=2, gpu_percent=70.0, languages=wide
            ),
        ]
    )
    rules = SelectionRules(indexed=False)
    assert candidates(snapshot, REQUEST, rules, draw_of(0), 9) == ("n1", "n0", "n2")
    auto = replace(REQUEST, source=AUTO)
    assert candidates(snapshot, auto, rules, draw_of(0), 9) == ("n2", "n0", "n1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"health": Health.OFFLINE}, "offline"),
        ({"health": Health.DEGRADED}, "status_not_ready"),
        ({"ready": frozenset(("asr", "nmt"))}, "model_not_available"),
    ],
)
def test_a_pool_that_cannot_serve_is_skipped_whole(change: dict[str, Any], reason: str) -> None:
    """Its members are counted to one reason unseen, and the ring goes on to the next pool."""
    nodes = [
        msgspec.structs.replace(GOOD, **change),
        msgspec.structs.replace(GOOD, node_id="n1", ordinal=1, pools=("q",)),
        msgspec.structs.replace(GOOD, node_id="n2", ordinal=2, pools=("r",)),
    ]
    rules = SelectionRules(two_level=True, indexed=False, degraded_selectable=True)
    ask = replace(REQUEST, pools=("p", "q", "r"))
    told = explain(ClusterSnapshot.of(nodes), ask, rules, draw_of(0))
    tried = [(attempt.pool, attempt.reason, attempt.candidates) for attempt in told.attempts]
    assert tried == [("p", reason, 0), ("q", "", 1)]
    assert told.counts == ((reason, 1),)
    assert (told.selection.node_id, told.selection.fallback_used) == ("n1", True)
    assert told.selection.examined == 1


PROGRAM = """
from tests.core.test_selection import *
nodes = [msgspec.structs.replace(GOOD, node_id=f"n{i}", ordinal=i, current_jobs=i % 3)
         for i in range(300)]
snapshot = ClusterSnapshot.of(nodes)
for i in range(0, 300, 7):
    snapshot = snapshot.without(f"n{i}")
for balance in BALANCES:
    for two in (True, False):
        for indexed in (True, False):
            rules = SelectionRules(balance=balance, two_level=two, indexed=indexed)
            print(candidates(snapshot, REQUEST, rules, draw_of(5), 9, turn=11))
            print(explain(snapshot, REQUEST, rules, draw_of(5)).counts)
"""


def test_the_hash_seed_changes_nothing() -> None:
    """Two processes with different hash seeds decide alike."""
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    ]
    assert said[0] == said[1] != ""
