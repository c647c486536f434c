"""The snapshot: content alone decides its structure, and published versions never change."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simsched.languages import LanguageCapabilities
from simsched.nodes import Health, NodeView
from simsched.snapshot import ALL, ClusterSnapshot, PoolTally, SnapshotPublisher

LANGUAGES = [
    LanguageCapabilities(),
    LanguageCapabilities(asr=("zh", "en"), tts=("zh", "en"), semantic=("zh", "en")),
    LanguageCapabilities(asr=("zh",), tts=("en",), semantic=("zh", "en", "ja")),
]
PAIR = ("zh", "en")


@st.composite
def views(draw: st.DrawFn) -> NodeView:
    ordinal = draw(st.integers(0, 7))
    return NodeView(
        node_id=f"n{ordinal}",
        ordinal=ordinal,
        health=draw(st.sampled_from(Health)),
        current_jobs=draw(st.integers(0, 5)),
        ready=frozenset(draw(st.sets(st.sampled_from(["asr", "nmt", "tts"])))),
        languages=draw(st.sampled_from(LANGUAGES)),
        pools=tuple(draw(st.lists(st.sampled_from("pq"), unique=True))),
    )


def apply(history: list[NodeView | int]) -> tuple[ClusterSnapshot, dict[int, NodeView]]:
    snapshot, truth = ClusterSnapshot(), dict[int, NodeView]()
    for change in history:
        if isinstance(change, int):
            snapshot = snapshot.without(f"n{change}")
            truth.pop(change, None)
        else:
            snapshot = snapshot.with_node(change)
            truth[change.ordinal] = change
    return snapshot, truth


HISTORY = st.lists(views() | st.integers(0, 7), max_size=25)


@given(HISTORY)
def test_after_any_history_it_equals_the_one_built_from_scratch(
    history: list[NodeView | int],
) -> None:
    """Updates and removals leave exactly the index that the remaining views give."""
    snapshot, truth = apply(history)
    rebuilt = ClusterSnapshot.of(reversed(truth.values()), version=snapshot.version)
    assert structs.replace(rebuilt, version=snapshot.version) == snapshot
    assert list(snapshot.nodes()) == [truth[ordinal] for ordinal in sorted(truth)]


@given(HISTORY, st.integers(0, 100), st.integers(1, 9), st.sets(st.integers(0, 7)))
def test_least_loaded_agrees_with_a_scan(
    history: list[NodeView | int], start: int, k: int, out: set[int]
) -> None:
    """The index finds online nodes with a free slot, by load, none left out, none excluded."""
    snapshot, truth = apply(history)
    excluded = [f"n{ordinal}" for ordinal in sorted(out)]
    usable = {
        view.node_id: view.current_jobs
        for view in truth.values()
        if view.is_online and view.current_jobs < view.slots and PAIR in view.pairs
        and view.ordinal not in out
    }  # fmt: skip
    found = snapshot.least_loaded(PAIR, k, excluded, start)
    assert len(found) == len(set(found)) == min(k, len(usable))
    assert [usable[node] for node in found] == sorted(usable.values())[:k]
    walked = [v.node_id for v in snapshot.walk(PAIR, start) if v.node_id not in excluded]
    assert tuple(walked[:k]) == found


@given(HISTORY)
def test_members_and_tallies_are_counts_of_the_views(history: list[NodeView | int]) -> None:
    """A pool's tally is what counting its members gives."""
    snapshot, truth = apply(history)
    for pool in "pq":
        inside = [truth[o] for o in sorted(truth) if pool in truth[o].pools]
        assert snapshot.members(pool) == tuple(view.node_id for view in inside)
        online = [view for view in inside if view.is_online]
        assert snapshot.tally(pool) == PoolTally(
            len(inside),
            len(online),
            sum(view.health is Health.READY for view in inside),
            *(sum(name in view.ready for view in online) for name in ("asr", "nmt", "tts")),
        )


@given(HISTORY, views())
def test_a_published_version_never_changes(history: list[NodeView | int], change: NodeView) -> None:
    """Whoever holds a version sees the same walk after the next one was made."""
    snapshot, _ = apply(history)
    before = (list(snapshot.nodes()), list(snapshot.walk(ALL, 0)), snapshot.members("p"))
    later = snapshot.with_node(change).without(change.node_id)
    assert before == (list(snapshot.nodes()), list(snapshot.walk(ALL, 0)), snapshot.members("p"))
    assert later.get(change.node_id) is None


def test_equals_take_turns() -> None:
    """Every node of a bucket is first for exactly one of so many starts."""
    view = NodeView(node_id="", ordinal=0, health=Health.READY, languages=LANGUAGES[1])
    nodes = [msgspec.structs.replace(view, node_id=f"n{i}", ordinal=i * 10) for i in range(5)]
    snapshot = ClusterSnapshot.of(nodes)
    firsts = [snapshot.least_loaded(PAIR, 1, (), start)[0] for start in range(5)]
    assert firsts == [node.node_id for node in nodes]
    assert snapshot.nodes_for(PAIR) == tuple(firsts)


def test_ordinals_belong_to_one_node_each() -> None:
    """A taken ordinal and a node under a second ordinal are refused."""
    snapshot = ClusterSnapshot.of([NodeView(node_id="a", ordinal=0)])
    for wrong in (NodeView(node_id="b", ordinal=0), NodeView(node_id="a", ordinal=1)):
        with pytest.raises(ValueError, match="ordinal"):
            snapshot.with_node(wrong)


def test_the_publisher_counts_versions_and_never_reuses_an_ordinal() -> None:
    """One publication is one version; a node that left and returns is a new one."""
    publisher = SnapshotPublisher()
    nodes = [NodeView(node_id=name, ordinal=publisher.ordinal_of(name)) for name in "ab"]
    assert publisher.publish(nodes).version == 1
    assert publisher.ordinal_of("a") == 0
    assert publisher.publish((), removed=("a",)).version == 2
    assert publisher.ordinal_of("a") == 2
    assert len(publisher.current) == 1


def test_a_change_of_health_alone_changes_the_tally() -> None:
    """A member that goes offline in place is no longer counted as online or ready."""
    node = NodeView(node_id="a", ordinal=0, health=Health.READY, pools=("p",))
    snapshot = ClusterSnapshot.of([node])
    assert snapshot.tally("p") == PoolTally(1, 1, 1)
    gone = snapshot.with_node(msgspec.structs.replace(node, health=Health.OFFLINE))
    assert gone.tally("p") == PoolTally(1)
    assert gone.members("p") == ("a",)


def test_keys_of_the_same_nodes_share_one_queue() -> None:
    """Equal nodes serve many language pairs: a change of load is worked out once for all."""
    languages = LanguageCapabilities(asr=("zh", "en", "ja"), semantic=("zh", "en", "ja"))
    nodes = [
        NodeView(node_id=f"n{k}", ordinal=k, health=Health.READY, languages=languages)
        for k in range(3)
    ]
    snapshot = ClusterSnapshot.of(nodes)
    for jobs in (1, 2, 1):
        snapshot = snapshot.with_node(structs.replace(nodes[1], current_jobs=jobs))
    pairs = list(nodes[0].pairs)
    assert len(pairs) > 3
    assert len({id(snapshot._queues[pair]) for pair in [ALL, *pairs]}) == 1
