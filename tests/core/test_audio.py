"""The audio buffer keeps every byte, and durations are what the bytes say."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.audio import (
    OPUS_FRAME_NS,
    OPUS_PACKET_MAX_NS,
    AudioBuffer,
    actual_format,
    duration_ns,
    estimated_duration_ns,
    looks_like_plan_a,
    plan_a_duration_ns,
)
from simsched.units import MS


def plan_a(*packets: bytes) -> bytes:
    return b"".join(struct.pack("<H", len(packet)) + packet for packet in packets)


def opus_packet(config: int, size: int = 60) -> bytes:
    """One frame (code 0) of the given configuration."""
    return bytes([config << 3]) + bytes(size - 1)


ACTION = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 3), st.binary(max_size=40)),
    st.tuples(st.just("take"), st.integers(0, 3), st.just(b"")),
)


@given(st.lists(ACTION, max_size=60))
def test_bytes_in_are_bytes_out_in_their_order(actions: list[tuple[str, int, bytes]]) -> None:
    """Whatever is added to an utterance leaves by exactly one take, unchanged and in order."""
    audio = AudioBuffer()
    model: dict[int, bytes] = {}
    for now_ns, (action, index, payload) in enumerate(actions):
        if action == "add":
            model[index] = model.get(index, b"") + payload
            assert audio.add(index, payload, now_ns) == len(model[index])
        else:
            assert audio.take(index) == model.pop(index, b"")
        assert audio.held_bytes == sum(map(len, model.values()))
        assert audio.indices() == sorted(index for index, held in model.items() if held)
    held = audio.held_bytes
    assert audio.drop_all() == held
    assert audio.held_bytes == 0
    assert audio.bytes_in == audio.bytes_out + audio.bytes_dropped


def test_first_and_last_times_are_those_of_chunks_with_audio() -> None:
    """An empty chunk neither begins an utterance nor makes it last longer."""
    audio = AudioBuffer()
    audio.add(0, b"", 1)
    assert audio.first_at(0) is None
    audio.add(0, b"a", 2)
    audio.add(0, b"b", 5)
    audio.add(0, b"", 9)
    assert (audio.first_at(0), audio.last_at(0), audio.size(0)) == (2, 5, 2)
    audio.take(0)
    assert audio.first_at(0) is None
    assert audio.last_at(0) is None
    assert audio.size(0) == 0


@given(st.integers(0, 10**12), st.integers(0, 10**10), st.integers(0, 10**10))
def test_a_pause_is_exceeded_strictly(start_ns: int, gap_ns: int, pause_ns: int) -> None:
    """The first chunk has no pause before it; a gap of exactly the pause is none."""
    audio = AudioBuffer()
    assert not audio.record_chunk(start_ns, pause_ns)
    assert audio.record_chunk(start_ns + gap_ns, pause_ns) is (gap_ns > pause_ns)
    assert audio.last_chunk_at == start_ns + gap_ns


def test_a_touch_restarts_the_silence_and_a_take_does_not() -> None:
    """Playback moves the clock of the last chunk; cutting an utterance leaves it alone."""
    audio = AudioBuffer()
    audio.record_chunk(0, 10)
    audio.take(0)
    assert audio.last_chunk_at == 0
    audio.touch(8)
    assert not audio.record_chunk(15, 10)


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_pcm_durations_add_up(left: bytes, right: bytes) -> None:
    """The parts of a PCM stream last exactly as long as the whole."""
    whole = duration_ns("pcm16", left + right)
    assert duration_ns("pcm16", left) + duration_ns("pcm16", right) == whole


def test_a_tenth_of_a_second_of_pcm_is_100_ms_and_the_estimate_1060() -> None:
    """PCM in an opus session is told apart; the reference's estimate over-measures it (2.3)."""
    payload = bytes(range(1, 101)) * 32
    assert duration_ns("pcm16", payload) == 100 * MS
    assert duration_ns("opus", payload) == 100 * MS
    assert estimated_duration_ns("opus", payload) == 1_060 * MS
    assert estimated_duration_ns("pcm16", payload) == 100 * MS
    assert duration_ns("wav", payload) == estimated_duration_ns("wav", payload) == 0


@pytest.mark.parametrize("size", [2, 320, 3200])
def test_silent_pcm_is_not_opus(size: int) -> None:
    """A run of zeros would parse as empty packets: Opus has none."""
    assert not looks_like_plan_a(bytes(size))
    assert not looks_like_plan_a(bytes(size) + plan_a(opus_packet(9)))
    assert actual_format("opus", bytes(size)) == "pcm16"


@given(st.lists(st.tuples(st.integers(0, 31), st.integers(1, 200)), min_size=1, max_size=8))
def test_plan_a_lasts_as_long_as_its_packets_say(packets: list[tuple[int, int]]) -> None:
    """Each packet's own first byte tells its length, and whole packets are recognised."""
    payload = plan_a(*(opus_packet(config, size) for config, size in packets))
    assert duration_ns("opus", payload) == sum(OPUS_FRAME_NS[config] for config, _ in packets)
    assert actual_format("opus", payload) == "opus"
    # A lone trailing byte or a cut-off packet is no whole packet any more.
    assert plan_a_duration_ns(payload + b"\x01") is None
    assert plan_a_duration_ns(payload[:-1]) is None or packets[-1][1] == 1


@pytest.mark.parametrize(
    ("packet", "length_ns"),
    [
        (b"\x48" + b"x", 20 * MS),  # config 9 SILK WB 20 ms, code 0
        (b"\x49" + b"xy", 40 * MS),  # code 1: two equal frames
        (b"\x49" + b"xyz", None),  # code 1 with frames of unequal size: R3
        (b"\x4a" + b"\x01xyz", 40 * MS),  # code 2
        (b"\x4a", None),  # code 2 without its length: R4
        (b"\x4b\x03" + b"xyz", 60 * MS),  # code 3: three frames
        (b"\x4b\x07" + b"x" * 7, None),  # 140 ms: R5
        (b"\x4b\x00", None),  # no frames: R5
        (b"\x80" + b"x", 2_500_000),  # config 16 CELT NB 2.5 ms
        (b"\xf8" + b"x", 20 * MS),  # config 31 CELT FB 20 ms
        (b"\x68" + b"x", 20 * MS),  # config 13 hybrid SWB 20 ms
        (b"\x18" + b"x", 60 * MS),  # config 3 SILK NB 60 ms
        (b"\x58" + b"x", 60 * MS),  # config 11 SILK WB 60 ms
        (b"\x60" + b"x", 10 * MS),  # config 12 hybrid SWB 10 ms
    ],
)
def test_packet_lengths_follow_rfc_6716(packet: bytes, length_ns: int | None) -> None:
    """Frame length, frame count and the rules for a valid packet are the standard's."""
    assert plan_a_duration_ns(plan_a(packet)) == length_ns


@given(st.binary(max_size=300))
def test_any_bytes_have_a_duration(payload: bytes) -> None:
    """No input fails; what is not whole Opus packets counts as PCM."""
    length_ns = duration_ns("opus", payload)
    if looks_like_plan_a(payload):
        assert 0 < length_ns <= len(payload) * OPUS_PACKET_MAX_NS
    else:
        assert length_ns == duration_ns("pcm16", payload)
