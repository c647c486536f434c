"""The session actor: what cuts, when exactly, and what a failed cut leaves behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.messages import (
    Backpressure,
    Error,
    JobAssign,
    TranslationResult,
    TtsPlayEnded,
    TtsStarted,
    UiEvent,
)
from simsched.segmentation import SegmentationSettings
from simsched.state import INBOX_MAX
from simsched.telemetry import SessionClosed, UtteranceCut, UtteranceEmpty
from tests.core.harness import CHUNK, MS, Core

QUICK = SegmentationSettings(pause_ms=1_000, max_duration_ms=2_000)


def flags(job: JobAssign) -> tuple[bool, bool, bool]:
    return (job.is_manual_cut, job.is_pause_triggered, job.is_timeout_triggered)


def one_cut(core: Core) -> tuple[int, JobAssign]:
    ((at_ms, _, job),) = [entry for entry in core.given if isinstance(entry[2], JobAssign)]
    return at_ms, job


def test_a_manual_cut_waits_200_ms_and_pads_280() -> None:
    """IsFinal: hangover 200 ms, padding 280 ms, the manual flag."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.at(50)
        core.chunk(final=True)
        await core.at(1_000)

    core.play(scenario)
    at_ms, job = one_cut(core)
    assert (at_ms, job.padding_ms, flags(job)) == (250, 280, (True, False, False))


def test_silence_cuts_after_exactly_the_pause_and_150_ms() -> None:
    """Timeout: pause_ms after the last chunk the timer fires, 150 ms later the job leaves."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        for at_ms in (0, 100, 200):
            await core.at(at_ms)
            core.chunk()
        await core.at(10_000)

    core.play(scenario)
    at_ms, job = one_cut(core)
    assert (at_ms, job.padding_ms, flags(job)) == (3_350, 220, (False, False, True))
    assert len(job.audio) == 3 * len(CHUNK)


def test_a_late_chunk_reveals_a_pause_and_belongs_to_the_old_utterance() -> None:
    """Pause: a gap longer than pause_ms cuts with the chunk that reveals it on the old side."""
    core = Core("published+3")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk()
        await core.at(3_000.5)
        core.chunk()
        await core.at(4_000)

    core.play(scenario)
    at_ms, job = one_cut(core)
    assert (at_ms, job.padding_ms, flags(job)) == (3_150, 220, (False, True, False))
    assert len(job.audio) == 2 * len(CHUNK)


def test_a_gap_of_exactly_the_pause_is_no_pause() -> None:
    """Strictly longer than pause_ms."""
    core = Core("published+3")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk()
        await core.at(3_000)
        core.chunk()
        await core.at(3_900)

    core.play(scenario)
    assert not core.assigned()


def test_too_long_speech_is_cut_at_the_maximum() -> None:
    """MaxDuration: the chunk that fills it cuts, with the timeout flag."""
    core = Core(segmentation=QUICK)
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        for number in range(20):
            await core.at(100 * number)
            core.chunk()
        await core.at(2_200)

    core.play(scenario)
    at_ms, job = one_cut(core)
    assert (at_ms, flags(job)) == (2_050, (False, False, True))


def test_too_many_bytes_are_cut_at_once() -> None:
    """MaxLength: no hangover, no padding, no flag."""
    core = Core(segmentation=SegmentationSettings(max_bytes=4_000))
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk()
        await core.at(100)
        core.chunk()
        await core.at(101)

    core.play(scenario)
    at_ms, job = one_cut(core)
    assert (at_ms, job.padding_ms, flags(job)) == (100, None, (False, False, False))


def test_one_stale_reading_of_the_clock_never_cuts_by_silence() -> None:
    """Proposal 3 as written: the timer remembers the chunk before, so I13 breaks."""
    cut = {}
    for policy in ("published", "published+3", "published+3s"):
        core = Core(policy)
        core.node("n1")

        async def scenario(core: Core) -> None:
            core.open()
            core.chunk()
            await core.at(100)
            core.chunk()
            await core.at(10_000)

        core.play(scenario)
        cut[policy] = [at_ms for at_ms, _, _ in core.given]
    assert cut == {"published": [3_250], "published+3": [], "published+3s": [3_250]}


def test_each_chunk_reads_the_clock_as_often_as_the_policy_says() -> None:
    """Three locked reads per chunk in the report, one under proposal 3 and its safe form."""
    for policy, reads in (("published", 3), ("published+3", 1), ("published+3s", 1), ("safe", 1)):
        core = Core(policy)

        async def scenario(core: Core) -> None:
            core.open()
            core.chunk()
            await core.settle()

        core.play(scenario)
        steps = core.sequence(0)
        assert steps.count("audio_buffer.get_last_chunk_at_ms") == reads, policy


def test_an_empty_chunk_moves_no_clock_and_cuts_nothing() -> None:
    """No pause logic without audio; an empty final chunk is an empty cut and keeps the index."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk(payload=b"", final=True)
        await core.at(500)
        core.chunk(payload=b"")
        await core.at(10_000)
        core.chunk(final=True)
        await core.settle(300)

    core.play(scenario)
    assert [event.utterance for event in core.notes.of(UtteranceEmpty)] == [0]
    assert [event.utterance for event in core.notes.of(UtteranceCut)] == [0]


def test_playback_restarts_the_silence() -> None:
    """RestartTimer: silence counts from the moment that playback started or ended."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk()
        more = {"session_id": "s-1", "trace_id": "t", "group_id": "g"}
        await core.at(1_000)
        core.tell(TtsStarted(**more, ts_start_ms=1))
        await core.at(2_500)
        core.tell(TtsPlayEnded(**more, ts_end_ms=1))
        await core.at(9_000)

    core.play(scenario)
    assert [at_ms for at_ms, _, _ in core.given] == [2_500 + 3_000 + 150]


@pytest.mark.parametrize(("gate", "cut"), [("correct", []), ("reference", ["Pause"])])
def test_speech_that_is_played_suppresses_the_pause(gate: str, cut: list[str]) -> None:
    """A pause does not cut while the active group plays; the reference never sees it play."""
    core = Core(f"published+3,tts_gate={gate}")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk(final=True)
        await core.at(300)
        core.answer(core.assigned()[0][1], "n1")
        await core.at(400)
        (result,) = core.told(TranslationResult)
        core.tell(
            TtsStarted(session_id="s-1", trace_id="t", group_id=result.group_id, ts_start_ms=1)
        )
        for at_ms in (3_000, 6_100):
            await core.at(at_ms)
            core.chunk()
        await core.at(6_300)

    core.play(scenario)
    assert [event.reason for event in core.notes.of(UtteranceCut)][1:] == cut


@pytest.mark.parametrize(("mode", "cut"), [("finish", [0]), ("drop", [])])
def test_the_last_audio_of_a_closing_session(mode: str, cut: list[int]) -> None:
    """`finish` cuts and answers it before the goodbye; `drop` loses it, as the reference (B11)."""
    core = Core(f"safe,session_close={mode}")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk()
        core.close()
        await core.settle(200)
        for node, job in core.assigned():
            core.answer(job, node)
        await core.settle()

    core.play(scenario)
    assert [event.utterance for event in core.notes.of(UtteranceCut)] == cut
    (closed,) = core.notes.of(SessionClosed)
    assert closed.audio_bytes_cut == len(cut) * closed.audio_bytes_in
    assert core.story()[-1] == "SessionCloseAck"
    assert len(core.told(TranslationResult)) == len(cut)


@pytest.mark.parametrize(("after", "cut"), [("reset", [0, 1]), ("wedge", [0])])
def test_a_store_that_does_not_answer_costs_one_utterance_or_the_session(
    after: str, cut: list[int]
) -> None:
    """`reset`: the client is told and the next utterance works; `wedge`: never again (B2)."""
    core = Core(f"safe,finalize_error={after}")
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open()
        core.stores[0].down = lambda step: step.name == "redis.claim"
        core.chunk(final=True)
        await core.settle(300)
        core.stores[0].down = lambda _step: False
        core.chunk(final=True)
        await core.settle(300)
        for node, job in core.assigned():
            core.answer(job, node)
        await core.settle()

    core.play(scenario)
    assert [event.utterance for event in core.notes.of(UtteranceCut)] == cut
    codes = [error.code for error in core.told(Error)]
    assert codes == (["SCHEDULER_DEPENDENCY_DOWN"] if after == "reset" else [])
    assert len(core.told(TranslationResult)) == len(cut) - 1


def test_a_client_is_asked_to_slow_down_before_audio_is_refused() -> None:
    """Half of the bound: one word; the bound: refused; without backpressure there is no bound."""
    for policy, taken in (("safe", INBOX_MAX), ("safe,backpressure=false", 2 * INBOX_MAX)):
        core = Core(policy)

        async def scenario(core: Core) -> None:
            core.open()
            sent = [core.chunk() for _ in range(2 * INBOX_MAX)]
            assert all(sent)

        core.play(scenario)
        assert core.notes.counts.get("audio_chunks_refused", 0) == 2 * INBOX_MAX - taken
        assert len(core.told(Backpressure)) == int(policy == "safe")


@pytest.mark.parametrize(("stamp", "waited"), [("utterance", 500), ("session", 5_000)])
def test_the_way_from_the_client_is_measured_from_the_utterances_first_chunk(
    stamp: str, waited: int
) -> None:
    """`session` never forgets the session's first chunk (B12)."""
    core = Core(f"safe,first_chunk_stamp={stamp}")
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open()
        core.chunk(final=True)
        await core.at(4_500)
        core.chunk()
        await core.at(4_800)
        core.chunk(final=True)
        await core.at(5_001)
        core.answer(core.assigned()[1][1], "n1")
        core.answer(core.assigned()[0][1], "n1")
        await core.settle()

    core.play(scenario)
    timings = core.told(TranslationResult)[-1].network_timings
    assert timings.web_to_scheduler_ms == waited


@given(
    st.lists(
        st.tuples(st.integers(0, 4_000), st.sampled_from(["speech", "empty", "final"])),
        min_size=1, max_size=25,
    ),
    st.sampled_from(["safe", "published", "published+3s"]),
)  # fmt: skip
def test_no_audio_is_lost_and_indices_count_up(events: list[tuple[int, str]], policy: str) -> None:
    """Bytes in = bytes dispatched, indices 0, 1, 2, ... whatever comes when (I7)."""
    core = Core(policy)
    core.node("n1", slots=50)
    sent = 0

    async def scenario(core: Core) -> None:
        nonlocal sent
        core.open()
        for gap_ms, kind in events:
            await core.settle(gap_ms)
            payload = b"" if kind == "empty" else CHUNK
            sent += len(payload)
            core.chunk(payload=payload, final=kind == "final")
        core.close()
        await core.settle(60_000)

    core.on_given = lambda node, job: core.answer(job, node) if isinstance(job, JobAssign) else None
    core.play(scenario)
    jobs = [job for _, job in core.assigned()]
    assert [job.utterance_index for job in jobs] == list(range(len(jobs)))
    assert sum(len(job.audio) for job in jobs) == sent
    assert [e.at_ns // MS for e in core.notes.of(UtteranceCut)] == sorted(
        e.at_ns // MS for e in core.notes.of(UtteranceCut)
    )
    assert not [m for m in core.told(UiEvent) if m.error_code]
