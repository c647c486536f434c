"""Promises of speech: every byte of a turn leaves once, in time, in whole frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.models.speech import CHUNK_NS, CODECS, OPUS, PAUSE, PCM16, SPEECH, Codec, chunk_times
from simsched.units import MS, SECOND

speech = st.integers(0, 25 * SECOND)
codecs = st.sampled_from(list(CODECS.values()))


@given(speech_ns=speech, codec=codecs)
def test_the_chunks_of_a_turn_add_up_to_its_audio(speech_ns: int, codec: Codec) -> None:
    """No byte is lost or made up: sizes add up, and only the last chunk is the last."""
    chunks = list(chunk_times(speech_ns, codec))

    assert sum(chunk.size for chunk in chunks) == codec.size(speech_ns)
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(chunk.size > 0 and chunk.size % codec.frame_bytes == 0 for chunk in chunks)


@given(speech_ns=speech, codec=codecs)
def test_chunks_leave_every_100_ms_and_never_before_they_are_spoken(
    speech_ns: int, codec: Codec
) -> None:
    """The cadence is the client's; the last chunk leaves when the turn ends."""
    offsets = [chunk.offset_ns for chunk in chunk_times(speech_ns, codec)]

    assert offsets[:-1] == [CHUNK_NS * (i + 1) for i in range(len(offsets) - 1)]
    assert offsets[-1] == speech_ns
    assert len(offsets) < 2 or 0 < offsets[-1] - offsets[-2] <= CHUNK_NS


@given(speech_ns=speech, codec=codecs)
def test_audio_is_rounded_up_to_whole_frames(speech_ns: int, codec: Codec) -> None:
    """Never less audio than speech, never a whole frame more, and never none."""
    audio_ns = codec.audio_ms(speech_ns) * MS

    assert speech_ns <= audio_ns < max(speech_ns, 1) + codec.frame_ns
    assert audio_ns % codec.frame_ns == 0


def test_codecs_have_the_bytes_that_the_wire_has() -> None:
    """100 ms are 3,200 bytes of PCM and 300 of Opus."""
    assert PCM16.size(100 * MS) == 3200
    assert OPUS.size(100 * MS) == 300
    assert OPUS.size(101 * MS) == 360


@pytest.mark.parametrize("bits", [0, 2**32, 2**63, 2**64 - 1])
def test_default_turns_and_pauses_are_those_of_the_field(bits: int) -> None:
    """Turns of 1 to 20 s; pauses beyond the reference's 3,000 ms, so that one turn is one cut."""
    assert SECOND <= SPEECH.ns(bits) <= 20 * SECOND
    assert PAUSE.ns(bits) > 3 * SECOND
