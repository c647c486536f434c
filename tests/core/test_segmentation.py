"""The cut rules are the reference's table, and the state machine keeps its promises."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from simsched.audio import AudioBuffer
from simsched.errors import ConfigError
from simsched.policy import FIELDS
from simsched.segmentation import (
    CLOCK_READS,
    RESTART_TOLERANCE_NS,
    TRANSITIONS,
    ClockReading,
    CutType,
    FinalizeError,
    Happening,
    SegmentationSettings,
    Segmenter,
    State,
    Trigger,
    advance,
    clock_view,
    cut_reason,
    cut_rules,
    suppressed_by_playback,
    suppressed_by_restart,
    timeout_due,
    timer_deadline_ns,
)
from simsched.units import MS

SETTINGS = SegmentationSettings()


def test_the_cut_rules_are_the_references() -> None:
    """Type, hangover, padding and flags of every trigger stand in domain 2.4."""
    rules = cut_rules(SETTINGS)
    assert {trigger: tuple(cut) for trigger, cut in rules.items()} == {
        Trigger.IS_FINAL: (CutType.MANUAL, 200 * MS, 280, True, False, False),
        Trigger.PAUSE: (CutType.AUTO, 150 * MS, 220, False, True, False),
        Trigger.TIMEOUT: (CutType.AUTO, 150 * MS, 220, False, False, True),
        Trigger.MAX_DURATION: (CutType.AUTO, 150 * MS, 220, False, False, True),
        Trigger.MAX_LENGTH: (CutType.EXCEPTION, 0, 0, False, False, False),
        Trigger.SESSION_CLOSE: (CutType.AUTO, 150 * MS, 220, False, False, False),
    }
    assert set(rules) == set(Trigger)


@pytest.mark.parametrize("key", ["pause_ms", "max_duration_ms", "max_bytes", "padding_auto_ms"])
def test_a_wrong_setting_is_named(key: str) -> None:
    """A negative number is refused with its key."""
    with pytest.raises(ConfigError, match=key):
        SegmentationSettings(**{key: -1})


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_the_strongest_reason_wins(final: bool, pause: bool, long: bool, large: bool) -> None:
    """MaxLength beats IsFinal beats MaxDuration beats Pause, each exactly at its limit."""
    reason = cut_reason(
        SETTINGS,
        is_final=final,
        pause_exceeded=pause,
        accumulated_ns=SETTINGS.max_duration_ns - (not long),
        buffered_bytes=SETTINGS.max_bytes + large,
    )
    order = [
        (large, Trigger.MAX_LENGTH),
        (final, Trigger.IS_FINAL),
        (long, Trigger.MAX_DURATION),
        (pause, Trigger.PAUSE),
    ]
    assert reason == next((trigger for holds, trigger in order if holds), None)


def test_without_a_pause_setting_silence_never_cuts() -> None:
    """pause_ms 0 switches pause cuts and the timer off."""
    off = SegmentationSettings(pause_ms=0)
    reason = cut_reason(
        off, is_final=False, pause_exceeded=True, accumulated_ns=0, buffered_bytes=1
    )
    assert reason is None
    assert timer_deadline_ns(off, 5) is None
    assert timer_deadline_ns(SETTINGS, 5) == 5 + 3_000 * MS


def chunk_then_silence(reading: ClockReading, chunk_times: list[int]) -> bool:
    """Feed the chunks; whether the timer of the last one may cut."""
    audio = AudioBuffer()
    base_ns: int | None = None
    for now_ns in chunk_times:
        old_ns = audio.last_chunk_at
        audio.record_chunk(now_ns, SETTINGS.pause_ns)
        assert audio.last_chunk_at is not None
        view = clock_view(reading, old_ns, audio.last_chunk_at, now_ns)
        assert view.gap_ns == (None if old_ns is None else now_ns - old_ns)
        base_ns = view.timer_base_ns
    return timeout_due(base_ns, audio.last_chunk_at)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=10, unique=True))
def test_the_stale_reading_never_cuts_by_silence_and_the_local_one_always(times: list[int]) -> None:
    """Proposal 3 as written moves the timer's base (I13); its safe form cuts as the base does."""
    times.sort()
    assert chunk_then_silence(ClockReading.EACH, times)
    assert chunk_then_silence(ClockReading.LOCAL, times)
    assert not chunk_then_silence(ClockReading.ONCE_STALE, times)


def test_a_timer_is_dropped_once_something_was_said() -> None:
    """It cuts only if the clock stands where it stood, and never without a timestamp."""
    assert timeout_due(7, 7)
    assert not timeout_due(7, 8)
    assert not timeout_due(None, 8)
    assert not timeout_due(None, None)
    assert not timeout_due(7, None)


def test_each_reading_sees_a_touch_in_between() -> None:
    """Only the second read of `each` sees what playback wrote after the chunk was recorded."""
    assert clock_view(ClockReading.EACH, 10, 25, 20) == (10, 25)
    assert clock_view(ClockReading.ONCE_STALE, 10, 25, 20) == (10, 10)
    assert clock_view(ClockReading.LOCAL, 10, 25, 20) == (10, 20)


def test_the_single_readings_save_two_reads() -> None:
    """Three locked reads a chunk become one (report 3.1)."""
    assert {reading: sum(reads) for reading, reads in CLOCK_READS.items()} == {
        ClockReading.EACH: 3,
        ClockReading.ONCE_STALE: 1,
        ClockReading.LOCAL: 1,
    }


def test_policy_values_name_strategies() -> None:
    """Each choice of the policy is a strategy here."""
    assert {*FIELDS["buffer_clock"].metadata["choices"]} == {*ClockReading}
    assert {*FIELDS["finalize_error"].metadata["choices"]} == {*FinalizeError}


@pytest.mark.parametrize("pause", [True, False])
@pytest.mark.parametrize("playing", [True, False])
@pytest.mark.parametrize("group_id", [None, "g"])
def test_playback_suppresses_only_pauses(pause: bool, playing: bool, group_id: str | None) -> None:
    """All three have to hold: a pause, an active group, and playback."""
    suppressed = suppressed_by_playback(pause_exceeded=pause, group_id=group_id, playing=playing)
    assert suppressed == (pause and playing and group_id is not None)


@given(st.integers(0, 2 * RESTART_TOLERANCE_NS), st.booleans(), st.booleans(), st.booleans())
def test_restart_tolerance(gap_ns: int, pause: bool, finalizing: bool, first: bool) -> None:
    """Strictly between the pause and five seconds, on the first chunk after a cut began."""
    suppressed = suppressed_by_restart(
        pause_exceeded=pause,
        gap_ns=gap_ns,
        pause_ns=SETTINGS.pause_ns,
        finalizing=finalizing,
        first_chunk=first,
    )
    within = SETTINGS.pause_ns < gap_ns < RESTART_TOLERANCE_NS
    assert suppressed == (pause and finalizing and first and within)


@pytest.mark.parametrize(("state", "happening"), list(product(State, Happening)))
def test_only_the_table_may_happen(state: State, happening: Happening) -> None:
    """Every pair is either in the table or an assertion; nothing leaves Closed."""
    if (state, happening) in TRANSITIONS:
        assert state is not State.CLOSED
        assert advance(state, happening) is TRANSITIONS[state, happening]
    else:
        with pytest.raises(AssertionError, match="cannot happen"):
            advance(state, happening)


class Actor(RuleBasedStateMachine):
    """A session's actor under any order of events."""

    @initialize(on_error=st.sampled_from(FinalizeError))
    def start(self, on_error: FinalizeError) -> None:
        self.on_error = on_error
        self.segmenter = Segmenter(on_error)
        self.cuts_done = 0
        self.accumulated_ns = 0
        self.in_flight = False
        self.wedged = False
        self.closed = False

    @precondition(lambda self: not self.closed)
    @rule(length_ns=st.integers(0, 10**9))
    def chunk(self, length_ns: int) -> None:
        wanted = self.cuts_done + (self.in_flight or self.wedged)
        assert self.segmenter.index_for_chunk() == wanted
        self.segmenter.chunk(length_ns)
        self.accumulated_ns += length_ns

    @rule(offset=st.sampled_from([0, 0, 0, -1, 1]))
    def begin(self, offset: int) -> None:
        allowed = offset == 0 and not (self.in_flight or self.wedged or self.closed)
        assert self.segmenter.can_finalize(self.cuts_done + offset) is allowed
        before = self.segmenter.suppressed
        assert self.segmenter.begin(self.cuts_done + offset) is allowed
        assert self.segmenter.suppressed == before + (not allowed)
        self.in_flight |= allowed

    @precondition(lambda self: self.in_flight)
    @rule()
    def done(self) -> None:
        self.segmenter.done()
        self.cuts_done += 1
        self.accumulated_ns = 0
        self.in_flight = False

    @precondition(lambda self: self.in_flight)
    @rule()
    def empty(self) -> None:
        self.segmenter.empty()
        self.in_flight = False

    @precondition(lambda self: self.in_flight)
    @rule()
    def failed(self) -> None:
        self.segmenter.failed()
        self.in_flight = False
        self.wedged = self.on_error is FinalizeError.WEDGE
        if not self.wedged:
            self.accumulated_ns = 0
            assert self.segmenter.can_finalize(self.cuts_done)

    @precondition(lambda self: not self.closed and self.cuts_done > 2)
    @rule()
    def close(self) -> None:
        self.segmenter.close()
        self.in_flight = self.wedged = False
        self.closed = True

    @invariant()
    def the_index_counts_done_cuts(self) -> None:
        assert self.segmenter.index == self.cuts_done
        assert self.segmenter.accumulated_ns == self.accumulated_ns
        finalizing = self.segmenter.state is State.FINALIZING
        assert finalizing is (self.in_flight or self.wedged)
        assert (self.segmenter.in_flight is not None) is finalizing
        assert (self.segmenter.state is State.CLOSED) is self.closed


Actor.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestActor = Actor.TestCase
