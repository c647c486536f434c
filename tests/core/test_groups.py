"""Sentences group by their window, within bounds, and merged writes change no id."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simsched.groups import (
    LOCK_OPS,
    NMT_LOCK_OPS,
    GroupBook,
    GroupSettings,
    LockOps,
    MergedContext,
    Opening,
    Playback,
)
from simsched.policy import FIELDS

TEXT = st.text(max_size=60)
RESULT = st.tuples(st.sampled_from("abc"), TEXT, st.none() | TEXT, st.integers(0, 3_000))


@given(st.lists(RESULT, max_size=40), st.integers(0, 200))
def test_merged_and_separate_writes_give_the_same(
    results: list[tuple[str, str, str | None, int]], bytes_max: int
) -> None:
    """Same group, part and, in the exact form, the same context to the byte (proposal 4)."""
    limits = GroupSettings(context_bytes_max=bytes_max)
    separate, exact = GroupBook(limits), GroupBook(limits)
    together = GroupBook(limits, merged_context=MergedContext.TOGETHER)
    now_ms = 0
    for number, (session, text, translated, wait_ms) in enumerate(results):
        now_ms += wait_ms
        two_step = separate.on_asr_final(session, "t", number, text, now_ms)
        stored = separate.on_nmt_done(two_step.group_id, two_step.part_index, translated, None)
        assert stored, "the newest part is never trimmed"
        one_step = (session, "t", number, text, translated, None, now_ms)
        assert exact.on_result(*one_step) == two_step
        merged = together.on_result(*one_step)
        assert merged._replace(context=two_step.context) == two_step
        for context in (two_step.context, merged.context):
            assert len(context.encode()) <= bytes_max


def test_the_merged_context_of_the_reference_has_the_newest_translation() -> None:
    """That is the one difference of the later form (domain 3)."""
    result = ("s", "t", 0, "hello", "你好", None, 0)
    assert GroupBook().on_result(*result).context == "User: hello\n"
    together = GroupBook(merged_context=MergedContext.TOGETHER)
    assert together.on_result(*result).context == "User: hello\nTarget: 你好\n"


def test_the_context_never_splits_a_character() -> None:
    """A cut inside a character drops it whole."""
    text = "你" * 400
    for bytes_max in range(6, 20):
        book = GroupBook(GroupSettings(context_bytes_max=bytes_max))
        placed = book.on_asr_final("s", "t", 0, text, 0)
        assert placed.context == "User: " + "你" * ((bytes_max - 6) // 3)
    assert GroupBook().on_asr_final("s", "t", 0, "\ud800" * 400, 0).context.startswith("User: ")


def test_a_group_ends_when_more_than_its_window_has_passed() -> None:
    """The window counts from the group's beginning, then from its last playback's end."""
    book = GroupBook()
    first = book.on_asr_final("s", "t", 0, "a", 1_000)
    assert first.group_id == "group_s_1000"
    assert book.on_asr_final("s", "t", 1, "b", 3_000)[:3] == (
        first.group_id,
        "User: a\nUser: b\n",
        1,
    )
    assert book.on_tts_ended(first.group_id, 0, 4_000)
    assert book.on_asr_final("s", "t", 2, "c", 6_000).group_id == first.group_id
    later = book.on_asr_final("s", "t", 3, "d", 6_001)
    assert (later.group_id, later.part_index) == ("group_s_6001", 0)
    assert book.active_group("s") == later.group_id


def test_a_group_keeps_its_newest_parts() -> None:
    """At most eight parts, fewer if they are long; a trimmed one takes no translation."""
    book = GroupBook()
    for number in range(9):
        placed = book.on_asr_final("s", "t", number, f"n{number}", 0)
    assert placed.context == "".join(f"User: n{number}\n" for number in range(1, 9))
    assert placed.part_index == 8
    assert not book.on_nmt_done(placed.group_id, 0, "x", None)
    assert book.on_nmt_done(placed.group_id, 1, "x", None)
    long = book.on_asr_final("s", "t", 9, "y" * 700, 0)
    assert long.context.startswith("User: n")
    longer = book.on_asr_final("s", "t", 10, "z" * 700, 0)
    assert longer.context == "User: " + "z" * 700 + "\n"


def test_lock_operations_are_the_references() -> None:
    """Two writes for an open group, five for a new one, six where an old one is closed."""
    book = GroupBook()
    openings = [
        book.on_asr_final("s", "t", 0, "", 0),
        book.on_asr_final("s", "t", 1, "", 1),
        book.on_asr_final("s", "t", 2, "", 9_000),
    ]
    assert [placed.opening for placed in openings] == [
        Opening.NEW,
        Opening.REUSED,
        Opening.REPLACED,
    ]
    assert [placed.lock_ops.writes + NMT_LOCK_OPS.writes for placed in openings] == [5, 2, 6]
    assert LOCK_OPS[Opening.REUSED] == LockOps(2, 1)


def playing(mode: Playback, at_ms: int) -> bool:
    """Speech plays from 5,000 to 8,000; the client's clock is 300 ms ahead."""
    book = GroupBook(playback=mode)
    group_id = book.on_asr_final("s", "t", 0, "a", 4_000).group_id
    if at_ms >= 5_000:
        book.on_tts_started(group_id, 5_000)
    if at_ms >= 8_000:
        book.on_tts_ended(group_id, 8_300, 8_000)
    answer = book.is_tts_playing(group_id, at_ms)
    assert book.active_and_playing("s", at_ms) == (group_id, answer)
    return answer


def test_playback_is_recognised_while_it_runs_or_never() -> None:
    """The reference's test is false during playback; the correct one is true exactly then."""
    times = range(4_000, 10_000, 100)
    assert [at for at in times if playing(Playback.CORRECT, at)] == list(range(5_000, 8_000, 100))
    wrong = [at for at in times if playing(Playback.REFERENCE, at)]
    assert wrong == [8_000, 8_100, 8_200, 8_300]


def test_unknown_groups_and_sessions_are_answered() -> None:
    """Late messages of clients and nodes for forgotten groups do no harm."""
    book = GroupBook()
    assert not book.on_tts_started("g", 0)
    assert not book.on_tts_ended("g", 0, 0)
    assert not book.on_nmt_done("g", 0, None, None)
    assert not book.is_tts_playing("g", 0)
    assert book.active_group("s") is None
    assert book.active_and_playing("s", 0) == (None, False)
    assert book.end_session("s") == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5_000)), max_size=120))
def test_what_is_held_is_bounded_and_goes_with_the_session(steps: list[tuple[str, int]]) -> None:
    """Groups per session have a limit, ids never repeat, and nothing outlives its session."""
    book = GroupBook(GroupSettings(groups_per_session_max=3))
    now_ms = 0
    for number, (session, wait_ms) in enumerate(steps):
        now_ms += wait_ms
        group_id = book.on_asr_final(session, "t", number, "x", now_ms).group_id
        assert book.active_group(session) == group_id
        assert len(book) <= 9
    assert sum(book.end_session(session) for session in "abc") <= 9
    assert len(book) == 0


def test_two_groups_of_one_millisecond_differ() -> None:
    """A client clock far behind closes a group at once; the next one is still another."""
    book = GroupBook(playback=Playback.REFERENCE)
    first = book.on_asr_final("s", "t", 0, "a", 9_000).group_id
    book.on_tts_ended(first, 0, 9_000)
    second = book.on_asr_final("s", "t", 1, "b", 9_000)
    assert second.group_id == "group_s_9000_2"
    assert second.part_index == 0


def test_policy_values_name_strategies() -> None:
    """Each choice of the policy is a strategy here."""
    assert {*FIELDS["tts_gate"].metadata["choices"]} == {*Playback}
