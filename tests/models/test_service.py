"""Promises of service times: they belong to the utterance, have the stated mean, bend to speed."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.errors import ConfigError
from simsched.models.service import ServiceModel

keys = st.integers(0, 2**64 - 1)


@given(run=keys, session=keys, utterance=st.integers(0, 1000), audio=st.integers(0, 20_000))
def test_times_belong_to_the_utterance(run: int, session: int, utterance: int, audio: int) -> None:
    """Asked again, in any order and on any node of the same speed, they are the same."""
    model = ServiceModel()
    first = model.times(run, session, utterance, "en", audio)
    model.times(run, session, utterance + 1, "en", audio)

    assert model.times(run, session, utterance, "en", audio, order=99) == first
    assert all(type(stage) is int and stage >= 0 for stage in first)
    assert first.total_ns == sum(first)


def test_other_runs_sessions_utterances_and_languages_have_other_times() -> None:
    """Each part of the key matters."""
    model = ServiceModel()
    times = {
        model.times(run, session, utterance, language, 5000)
        for run in (1, 2)
        for session in (1, 2)
        for utterance in (0, 1)
        for language in ("en", "zh")
    }

    assert len(times) == 16


def test_stages_have_the_stated_mean_and_grow_with_the_audio() -> None:
    """What a load is computed from is what is drawn."""
    model = ServiceModel()
    drawn = statistics.fmean(model.times(5, 7, i, "en", 5000).total_ns for i in range(20_000))

    assert drawn == pytest.approx(model.mean_ns(5000), rel=0.01)
    assert model.mean_ns(10_000) > model.mean_ns(5000)


def test_a_single_law_has_nothing_to_do_with_the_audio() -> None:
    """A queue with a known answer gets the law that it names, in order where it is recorded."""
    model = ServiceModel.parse({"service": {"kind": "recorded", "values_s": [3, 3, 1, 1, 2]}})
    totals = [model.times(1, 2, 0, "en", 999, order=k).total_ns // 10**9 for k in range(6)]

    assert totals == [3, 3, 1, 1, 2, 3]
    assert model.mean_ns(999) == 2e9


def test_a_faster_node_needs_less_time_for_the_same_work() -> None:
    """Speed divides; the draw stays."""
    model = ServiceModel()
    slow, fast = (model.times(1, 2, 3, "en", 5000, speed=speed) for speed in (1.0, 2.0))

    assert fast.total_ns == pytest.approx(slow.total_ns / 2, abs=2)


def test_a_named_stage_replaces_its_default_as_a_whole() -> None:
    """`asr_ms` alone leaves no default part per second of audio behind."""
    model = ServiceModel.parse({"asr_ms": 100, "nmt_per_audio_s": "10 ms", "tts": "0 ms"})

    assert tuple(model.times(1, 2, 3, "en", 5000)) == (100_000_000, 50_000_000, 0)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"asr": 5}, "service: asr: 5 has no unit"),
        ({"srvice": "1 s"}, "srvice: unknown key"),
        ({"service": "1 s", "asr_ms": 1}, "asr_ms: unknown key"),
        ({"service": {"kind": "exponential", "mean_s": -1}}, "at least 0"),
    ],
)
def test_a_wrong_service_is_named(table: dict[str, object], says: str) -> None:
    """One line with the place, the key and what would be right."""
    with pytest.raises(ConfigError) as caught:
        ServiceModel.parse(table)

    assert says in str(caught.value)
