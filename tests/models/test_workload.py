"""Promises of the workload: draws belong to what they describe, rates hold, errors are clear."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from simsched.chance import key_of
from simsched.errors import ConfigError
from simsched.models.arrivals import KINDS, Arrivals, parse_arrivals
from simsched.models.fields import Fields
from simsched.models.workload import SessionPlan, Workload
from simsched.units import SECOND

PROCESSES: dict[str, dict[str, object]] = {
    "poisson": {"kind": "poisson", "rate_per_s": 2},
    "constant": {"kind": "constant", "gap_ms": 500},
    "renewal": {"kind": "renewal", "gap": {"kind": "erlang", "k": 4, "mean_ms": 500}},
    "batch": {"kind": "batch", "rate": "1/s", "size": [1, 2, 3]},
    "mmpp": {"kind": "mmpp", "rates_per_s": [1, 4], "leave_per_s": [1, 2]},
    "daily": {"kind": "daily", "rate_per_min": 120, "swing": 0.8, "period_s": 100, "peak_s": 50},
    "recorded": {"kind": "recorded", "times_s": [0, 1, 2, 3, 10]},
    "closed": {"kind": "closed", "population": 3, "think": {"kind": "exponential", "mean_s": 10}},
}
ENDLESS = ["poisson", "constant", "renewal", "batch", "mmpp", "daily"]
keys = st.integers(0, 2**64 - 1)


def process(name: str) -> Arrivals:
    return parse_arrivals(Fields(PROCESSES[name], "workload.arrivals"))


def workload(**changes: object) -> Workload:
    return Workload.parse({"arrivals": PROCESSES["poisson"], **changes})


def heads(load: Workload, run_key: int, count: int) -> list[SessionPlan]:
    return list(islice(load.sessions(run_key), count))


@pytest.mark.parametrize("name", ENDLESS)
def test_arrivals_come_at_the_stated_rate(name: str) -> None:
    """Over a long time the number of arrivals is rate times time."""
    of = process(name)
    expected = {"mmpp": 2 / 3 * 1 + 1 / 3 * 4}.get(name, 2.0)
    moments = list(islice(of.moments(key_of("rate", name)), 30_000))

    assert of.rate_per_s == pytest.approx(expected)
    assert len(moments) / (moments[-1] / SECOND) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("name", ENDLESS)
def test_another_rate_changes_the_rate_alone(name: str) -> None:
    """`with_rate` gives a process of the same kind with that rate."""
    of = process(name).with_rate(8.0)
    moments = list(islice(of.moments(key_of("rate", name)), 30_000))

    assert of.rate_per_s == pytest.approx(8.0)
    assert len(moments) / (moments[-1] / SECOND) == pytest.approx(8.0, rel=0.04)


@pytest.mark.parametrize("name", PROCESSES)
@given(key=keys)
@settings(max_examples=20)
def test_moments_never_fall_and_repeat_themselves(name: str, key: int) -> None:
    """Moment k is a function of the key and k: a longer run begins like a shorter one."""
    first = list(islice(process(name).moments(key), 50))

    assert all(earlier <= later for earlier, later in pairwise(first))
    assert list(islice(process(name).moments(key), 20)) == first[:20]
    assert all(type(moment) is int and moment >= 0 for moment in first)


def test_the_daily_curve_has_its_top_where_it_says() -> None:
    """Around the peak come (1 + swing) / (1 - swing) times as many as around the trough."""
    moments = list(islice(process("daily").moments(5), 40_000))
    phase = [moment % (100 * SECOND) / SECOND for moment in moments]
    peak = sum(45 <= p < 55 for p in phase)
    trough = sum(p < 5 or p >= 95 for p in phase)

    assert peak / trough == pytest.approx(1.8 / 0.2, rel=0.15)


def test_batches_arrive_together() -> None:
    """The members of a batch share a moment, and a batch has its law's mean size."""
    moments = list(islice(process("batch").moments(5), 10_000))

    assert len(moments) / len(set(moments)) == pytest.approx(2.0, rel=0.05)


def test_mmpp_is_burstier_than_poisson() -> None:
    """Counts per second vary more than their mean: that is what the process is for."""
    of = parse_arrivals(
        Fields({"kind": "mmpp", "rates_per_s": [1, 9], "leave_per_s": [0.1, 0.1]}, "a")
    )
    counts = [0] * 4000
    for moment in of.moments(3):
        if moment >= 4000 * SECOND:
            break
        counts[moment // SECOND] += 1
    mean = sum(counts) / len(counts)
    variance = sum((c - mean) ** 2 for c in counts) / len(counts)

    assert variance / mean > 2


def test_a_recording_is_played_as_it_was() -> None:
    """Recorded moments come out bit by bit, and end."""
    load = Workload.parse({"arrivals": PROCESSES["recorded"]})

    assert [plan.arrival_ns // SECOND for plan in load.sessions(1)] == [0, 1, 2, 3, 10]


@given(run_key=keys)
@settings(max_examples=25)
def test_sessions_are_the_same_at_every_rate_and_under_every_other_setting(run_key: int) -> None:
    """The i-th utterance of session j has the same speech whatever else a variant changes."""
    base = heads(workload(duplicate_share=0.5), run_key, 5)
    others = [
        heads(workload().with_rate(77.0), run_key, 5),
        heads(workload(mode="utterance", patience_s=3, room_size=5, codec="pcm16"), run_key, 5),
        heads(workload(utterances=50, manual_cut_share=1.0), run_key, 5),
    ]

    for other in others:
        for mine, theirs in zip(base, other, strict=True):
            assert mine.key == theirs.key
            assert mine.target_language == theirs.target_language
            for i in range(3):
                assert mine.utterance(i).speech_ns == theirs.utterance(i).speech_ns
                assert mine.utterance(i).pause_before_ns == theirs.utterance(i).pause_before_ns


@given(run_key=keys)
@settings(max_examples=25)
def test_an_utterance_may_be_asked_for_in_any_order(run_key: int) -> None:
    """Turn i is a function of its session and i."""
    plan = heads(workload(utterances=6, duplicate_share=0.5), run_key, 3)[-1]
    forward = list(plan.utterances())

    assert len(forward) == 6
    assert [plan.utterance(i) for i in reversed(range(6))] == forward[::-1]


def test_a_later_start_moves_every_arrival_and_nothing_else() -> None:
    """Arrivals count from the start; who comes stays the same."""
    load = workload(utterances=3)
    plain = heads(load, 7, 50)
    moved = list(islice(load.sessions(7, 5 * SECOND), 50))
    assert [
        structs.replace(plan, arrival_ns=plan.arrival_ns - 5 * SECOND) for plan in moved
    ] == plain


def test_shares_are_kept() -> None:
    """Language pairs, tenants, manual cuts, duplicates and counts come as often as they should."""
    load = workload(
        utterances={"kind": "geometric", "mean": 4},
        languages=[
            {"source": "zh", "target": "en", "weight": 3},
            {"source": "en", "target": "zh"},
        ],
        tenants={"acme": 1, "": 9},
        manual_cut_share=0.25,
        turn_taking_share=0.5,
        duplicate_share=0.1,
        duplicate_gap_ms=7,
        patience={"kind": "exponential", "mean_s": 3},
    )
    plans = heads(load, 11, 4000)
    turns = [turn for plan in plans[:1500] for turn in plan.utterances()]
    later = [turn for turn in turns if turn.index > 0]
    repeated = [turn for turn in turns if turn.duplicate_after_ns is not None]

    assert sum(plan.source_language == "zh" for plan in plans) / 4000 == pytest.approx(
        0.75, abs=0.03
    )
    assert sum(plan.tenant == "acme" for plan in plans) / 4000 == pytest.approx(0.1, abs=0.02)
    assert sum(plan.utterance_count or 0 for plan in plans) / 4000 == pytest.approx(4, rel=0.05)
    assert sum(turn.manual_cut for turn in turns) / len(turns) == pytest.approx(0.25, abs=0.03)
    assert len(repeated) / len(turns) == pytest.approx(0.1, abs=0.02)
    assert {turn.duplicate_after_ns for turn in repeated} == {7_000_000}
    assert sum(t.waits_for_answer for t in later) / len(later) == pytest.approx(0.5, abs=0.03)
    patience = [turn.patience_ns or 0 for turn in turns]
    assert sum(patience) / len(patience) == pytest.approx(3e9, rel=0.07)
    speech_s = sum(turn.speech_ns for turn in turns) / len(turns) / 1e9
    assert speech_s == pytest.approx(load.mean_audio_s, rel=0.04)
    assert load.mean_utterances_per_session == 4
    assert load.utterances_per_s == 8


def test_a_room_hears_each_language_once_its_own_first() -> None:
    """Targets are distinct languages that the workload has for that source."""
    pairs = [{"source": "zh", "target": target} for target in ("en", "de", "fr")]
    for plan in heads(workload(languages=pairs, room_size=6), 3, 200):
        assert plan.targets[0] == plan.target_language
        assert len(set(plan.targets)) == len(plan.targets)
        assert set(plan.targets) <= {"en", "de", "fr"}
    assert heads(workload(languages=pairs), 3, 1)[0].room_size == 1


def test_a_closed_population_thinks_and_waits() -> None:
    """All come at the start; each turn waits for the answer before it and for a thought."""
    load = Workload.parse({"arrivals": PROCESSES["closed"]})
    plans = list(load.sessions(9))
    turns = [turn for plan in plans for turn in islice(plan.utterances(), 2000)]

    assert [plan.arrival_ns for plan in plans] == [0, 0, 0]
    assert {plan.utterance_count for plan in plans} == {None}
    assert all(turn.waits_for_answer for turn in turns)
    thought = sum(turn.pause_before_ns for turn in turns) / len(turns)
    assert thought == pytest.approx(10e9, rel=0.05)
    with pytest.raises(ConfigError, match="population"):
        load.with_rate(3.0)


def test_one_turn_a_session_uses_a_recorded_list_in_order() -> None:
    """Customer k of a recorded queue gets value k."""
    load = workload(utterances=1, speech={"kind": "recorded", "values_s": [3, 3, 1, 1, 2]})
    turns = [plan.utterance(0) for plan in heads(load, 4, 6)]

    assert [turn.speech_ns // SECOND for turn in turns] == [3, 3, 1, 1, 2, 3]
    assert [turn.order for turn in turns] == [0, 1, 2, 3, 4, 5]


PROGRAM = """
from itertools import islice
from simsched.models.workload import Workload
from simsched.models.service import ServiceModel
load = Workload.parse({"arrivals": {"kind": "mmpp", "rates_per_s": [1, 9], "leave_per_s": [1, 1]},
    "room_size": [1, 4], "tenants": {"a": 1, "b": 1}, "duplicate_share": 0.5, "patience_s": 1,
    "languages": [{"source": "zh", "target": t} for t in ("en", "de", "fr")]})
for plan in islice(load.sessions(42), 30):
    print(plan, list(plan.utterances()), ServiceModel().times(42, plan.key, 0, "en", 5000))
"""


def test_plans_do_not_depend_on_the_hash_seed() -> None:
    """Two processes with different hash seeds plan the same load to the last bit."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "workload: arrivals: is missing"),
        ({"arrivals": {"kind": "poison", "rate_per_s": 1}}, "did you mean 'poisson'?"),
        ({"arrivals": {"kind": "poisson", "rate_per_s": -1}}, "finite rate of at least 0"),
        ({"arrivals": {"kind": "poisson", "rate_per_s": 0}}, "above 0"),
        ({"arrivals": {"kind": "poisson", "rate": 3}}, "has no unit: write rate_per_s = 3"),
        ({"arrivals": {"kind": "poisson", "rate": "3/fortnight"}}, "unknown unit"),
        ({"arrivals": {"kind": "poisson"}}, "is missing: write rate_per_s"),
        ({"arrivals": {"kind": "recorded", "times_s": [2, 1]}}, "must not fall"),
        ({"arrivals": {"kind": "mmpp", "rates_per_s": [1], "leave_per_s": [1, 1]}}, "two rates"),
        ({"arrivals": {"kind": "daily", "rate_per_s": 1, "swing": 2}}, "share from 0 to 1"),
        ({"arrivals": {"kind": "closed", "population": 0, "think": "1 s"}}, "at least 1"),
        ({"arrivals": PROCESSES["closed"], "utterances": 3}, "must be absent"),
        ({"utterence": 3}, "did you mean 'utterances'?"),
        ({"utterances": 0}, "whole number of at least 1"),
        ({"utterances": {"kind": "geometric", "mean": 0.5}}, "at least 1"),
        ({"codec": "mp3"}, "unknown codec 'mp3'"),
        ({"mode": "chunks"}, "known are: audio_chunk, utterance"),
        ({"manual_cut_share": 1.5}, "share from 0 to 1"),
        ({"languages": []}, "must be a list such as"),
        ({"languages": [{"source": "zh"}]}, "languages[0]: target: is missing"),
        ({"languages": [{"source": "zh", "target": "en", "weight": -1}]}, "at least 0"),
        ({"tenants": {"a": 0}}, "must not all be 0"),
        ({"patience": 3}, "has no unit"),
        ({"duplicate_gap": "5 weeks"}, "unknown unit"),
        ({"speech": {"kind": "lognormal", "mean_s": 5}}, "scv: is missing"),
    ],
)
def test_a_wrong_workload_is_named_with_what_would_be_right(
    table: Mapping[str, object], says: str
) -> None:
    """Every mistake is one line with the place, the key and the remedy."""
    given_table = {"arrivals": PROCESSES["poisson"], **table} if table else {}
    with pytest.raises(ConfigError) as caught:
        Workload.parse(given_table)

    assert str(caught.value).startswith("workload")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_arrival_process_is_tried_here() -> None:
    """A process added later joins the promises above."""
    assert set(PROCESSES) == set(KINDS)
