"""Results leave in the order their discipline promises, each at most once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.policy import FIELDS
from simsched.result_queue import (
    ACK_TIMEOUT_NS,
    BACKSTOP_NS,
    GAP_NS,
    LANES_MAX,
    PENDING_MAX,
    Discipline,
    Reason,
    Released,
    ResultQueue,
    RoomResults,
    result_queue,
)

LANGUAGES = ("de", "en", "zh")

Plan = list[tuple[int, str]]
"""Results in the order in which they come."""


def queue(discipline: Discipline, rooms: RoomResults = RoomResults.BY_LANGUAGE) -> ResultQueue[str]:
    return result_queue(discipline, room_results=rooms)


def name(index: int, language: str) -> str:
    return f"{index}/{language}"


def seen(released: list[Released[str]]) -> list[tuple[int, str | None]]:
    return [(r.index, r.item) for r in released]


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[int, list[str]], Plan]:
    """Utterances with their targets, and all their results in any order."""
    count = draw(st.integers(1, 10))
    targets = {
        index: draw(st.lists(st.sampled_from(LANGUAGES), min_size=1, max_size=3, unique=True))
        for index in range(count)
    }
    results = [(index, language) for index, names in targets.items() for language in names]
    return targets, draw(st.permutations(results))


@given(plans(), st.data())
def test_outcome_releases_each_once_in_utterance_order(
    plan: tuple[dict[int, list[str]], Plan], data: st.DataObject
) -> None:
    """Per target, every announced index leaves exactly once, in order, and none is a gap."""
    targets, results = plan
    held = queue(Discipline.OUTCOME)
    announced = 0
    out: list[Released[str]] = []
    for step, (index, language) in enumerate(results):
        ahead = data.draw(st.integers(index + 1, len(targets)))
        while announced < max(ahead, announced):
            assert held.expect(announced, targets[announced], step)
            announced += 1
        out += held.add(index, language, name(index, language), step)
        if data.draw(st.booleans()):
            # A repeat is never released: its place is taken, or its index has left.
            out += held.add(index, language, "repeat", step)
    for lane in LANGUAGES:
        left = [r for r in out if r.language == lane]
        wanted = [index for index, names in targets.items() if lane in names]
        assert [r.index for r in left] == wanted
        assert [r.item for r in left] == [name(index, lane) for index in wanted]
    assert not any(r.gap or r.reason for r in out)
    assert held.next_deadline_ns() is None
    assert held.given_up == 0


@given(
    st.sampled_from([Discipline.GAP_TIMEOUT, Discipline.OUTCOME]),
    st.sampled_from(RoomResults),
    plans(),
    st.data(),
)
def test_strict_orders_hold_with_lost_and_late_results(
    discipline: Discipline,
    rooms: RoomResults,
    plan: tuple[dict[int, list[str]], Plan],
    data: st.DataObject,
) -> None:
    """Whatever is lost or late: order in every lane, and each index leaves exactly once."""
    targets, results = plan
    held = queue(discipline, rooms)
    patience_ns = GAP_NS if discipline is Discipline.GAP_TIMEOUT else BACKSTOP_NS
    now_ns = 0
    for index, names in targets.items():
        assert held.expect(index, names, now_ns)
    out: list[Released[str]] = []
    for index, language in results:
        now_ns += data.draw(st.integers(0, patience_ns))
        if data.draw(st.booleans()):
            out += held.add(index, language, name(index, language), now_ns)
        else:
            out += held.sweep(now_ns)
        deadline_ns = held.next_deadline_ns()
        assert deadline_ns is None or now_ns < deadline_ns <= now_ns + patience_ns
    if (deadline_ns := held.next_deadline_ns()) is not None:
        assert held.sweep(deadline_ns - 1) == []
        swept = held.sweep(deadline_ns)
        assert swept
        out += swept
    out += held.drain()
    by_language = rooms is RoomResults.BY_LANGUAGE
    for lane in LANGUAGES if by_language else ("",):
        left = [r for r in out if r.language == lane or not by_language]
        wanted = [i for i, names in targets.items() if lane in names or not by_language]
        assert [r.index for r in left] == wanted
        given_up = [r.item is None for r in left]
        # A gap is an index that was given up, or the one right behind it.
        assert [r.gap for r in left] == [
            now or before for now, before in zip(given_up, [False, *given_up], strict=False)
        ]
    assert held.given_up == sum(r.item is None for r in out)
    assert all((r.item is None) == (r.reason is not Reason.NONE) for r in out)


@given(st.sampled_from(RoomResults), plans(), st.data())
def test_fcfs_orders_only_what_is_present(
    rooms: RoomResults, plan: tuple[dict[int, list[str]], Plan], data: st.DataObject
) -> None:
    """Each sweep is in order and empties the queue; nothing leaves twice, little is lost."""
    targets, results = plan
    held = queue(Discipline.FCFS, rooms)
    for index, names in targets.items():
        held.expect(index, names, 0)
    out: list[str | None] = []
    for index, language in results:
        held.put(index, language, name(index, language), 0)
        if data.draw(st.booleans()):
            swept = held.sweep(0)
            assert [r.index for r in swept] == sorted(r.index for r in swept)
            out += [r.item for r in swept]
            assert held.sweep(0) == []
    out += [r.item for r in held.drain()]
    assert len(set(out)) == len(out)
    overwritten = held.repeated if rooms is RoomResults.OVERWRITE else 0
    assert len(out) == len(results) - overwritten
    assert held.next_deadline_ns() is None


def test_fcfs_lets_a_late_index_follow_until_it_is_too_late() -> None:
    """An overtaken index still leaves within the acknowledge timeout, and is discarded after."""
    held = queue(Discipline.FCFS)
    for index in range(4):
        held.expect(index, ["en"], 0)
    assert seen(held.add(2, "en", "c", 10)) == [(2, "c")]
    assert seen(held.add(1, "en", "b", 10 + ACK_TIMEOUT_NS)) == [(1, "b")]
    assert held.add(0, "en", "a", 11 + ACK_TIMEOUT_NS) == []
    assert held.late == 1
    assert seen(held.add(3, "en", "d", 12 + ACK_TIMEOUT_NS)) == [(3, "d")]


def test_fcfs_evicts_the_furthest_beyond_its_bound() -> None:
    """Between two sweeps at most `pending_max` results wait."""
    held: ResultQueue[int] = result_queue(Discipline.FCFS)
    for index in range(PENDING_MAX + 5):
        held.put(PENDING_MAX + 4 - index, "en", index, 0)
    assert [r.index for r in held.sweep(0)] == list(range(PENDING_MAX))
    assert held.given_up == 5


def test_a_hole_is_given_up_when_a_later_result_has_waited() -> None:
    """The gap clock begins with the first result behind the hole; a late result then is dropped."""
    held = queue(Discipline.GAP_TIMEOUT)
    for index in range(3):
        held.expect(index, ["en"], 0)
    assert held.next_deadline_ns() is None
    assert held.add(1, "en", "b", 100) == []
    assert held.add(2, "en", "c", 200) == []
    assert held.next_deadline_ns() == 100 + GAP_NS
    assert held.sweep(99 + GAP_NS) == []
    assert held.sweep(100 + GAP_NS) == [
        Released(0, "en", None, True, Reason.GAP_TIMEOUT),
        Released(1, "en", "b", True, Reason.NONE),
        Released(2, "en", "c", False, Reason.NONE),
    ]
    assert held.add(0, "en", "a", 101 + GAP_NS) == []
    assert held.late == 1


@pytest.mark.parametrize("discipline", [Discipline.GAP_TIMEOUT, Discipline.OUTCOME])
def test_one_place_per_index_loses_room_results(discipline: Discipline) -> None:
    """B13: of two languages that wait, the later overwrites; by language both leave."""
    for rooms, left in [
        (RoomResults.OVERWRITE, ["0/en", "1/zh"]),
        (RoomResults.BY_LANGUAGE, ["0/en", "1/en", "1/zh"]),
    ]:
        held = queue(discipline, rooms)
        held.expect(0, ["en"], 0)
        held.expect(1, ["en", "zh"], 0)
        out = held.add(1, "en", "1/en", 1) + held.add(1, "zh", "1/zh", 1)
        out += held.add(0, "en", "0/en", 2)
        assert sorted(r.item or "" for r in out) == left


def test_a_slow_language_delays_no_other() -> None:
    """Every target is a lane of its own."""
    held = queue(Discipline.OUTCOME)
    held.expect(0, ["en", "zh"], 0)
    held.expect(1, ["en", "zh"], 0)
    assert seen(held.add(0, "en", "a", 1)) == [(0, "a")]
    assert seen(held.add(1, "en", "b", 2)) == [(1, "b")]
    assert seen(held.add(1, "zh", "d", 3)) == []
    assert seen(held.add(0, "zh", "c", 4)) == [(0, "c"), (1, "d")]


@pytest.mark.parametrize("discipline", [Discipline.GAP_TIMEOUT, Discipline.OUTCOME])
def test_too_many_open_indices_give_up_the_oldest(discipline: Discipline) -> None:
    """A lane holds at most `pending_max` utterances; none of their results is lost for it."""
    held = queue(discipline)
    for index in range(PENDING_MAX + 1):
        held.expect(index, ["en"], 0)
    out = held.sweep(0)
    assert out == [Released(0, "en", None, True, Reason.PENDING_OVERFLOW)]
    assert held.sweep(0) == []


def test_an_index_that_passed_cannot_be_announced_again() -> None:
    """A client that goes back in its own numbering is told."""
    held = queue(Discipline.OUTCOME)
    assert held.expect(5, ["en"], 0)
    assert held.expect(5, ["en"], 0)
    assert held.expect(3, ["en"], 0)
    assert held.add(5, "en", "f", 0) == []
    assert seen(held.add(3, "en", "d", 0)) == [(3, "d"), (5, "f")]
    assert not held.expect(4, ["en"], 0)


def test_a_forgotten_lane_lets_nothing_leave_twice() -> None:
    """Beyond the limit the oldest idle lane goes; what it let pass stays passed."""
    held: ResultQueue[str] = queue(Discipline.OUTCOME)
    for index in range(LANES_MAX + 3):
        assert held.expect(index, [f"l{index}"], 0)
        assert len(held.add(index, f"l{index}", "x", 0)) == 1
    assert held.add(0, "l0", "again", 0) == []
    assert held.late == 1


def test_policy_values_name_strategies() -> None:
    """Each choice of the policy is a strategy here."""
    assert {*FIELDS["result_order"].metadata["choices"]} == {*Discipline}
    assert {*FIELDS["room_results"].metadata["choices"]} == {*RoomResults}
