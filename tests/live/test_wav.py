"""WAV files of every usual kind become the protocol's audio, and nothing else gets through."""

from __future__ import annotations

import io
import struct
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal  # type: ignore[import-untyped]

from simsched.live.wav import (
    RATE_HZ,
    WavError,
    parse_wav,
    read_wav,
    resample,
    to_pcm16,
    wav_bytes,
)

TONE_HZ = 1_000.0


def tone(rate_hz: int, seconds: float = 0.5, hz: float = TONE_HZ) -> npt.NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)


def wav(
    tag: int, bits: int, rate_hz: int, sound: bytes, *, channels: int = 1, extensible: bool = False
) -> bytes:
    width = (bits + 7) // 8
    head = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else tag, channels, rate_hz, rate_hz * width * channels,
        width * channels, bits,
    )  # fmt: skip
    if extensible:
        guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        head += struct.pack("<HHI", 22, bits, 0) + guid
    # A chunk that nobody knows, of odd size, comes first: it is skipped with its padding.
    body = b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    body += b"fmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pcm24(samples: npt.NDArray[np.float64]) -> bytes:
    values = (samples * (2**23 - 1)).astype("<i4")
    return b"".join(int(v).to_bytes(4, "little", signed=True)[:3] for v in values)


def mulaw(samples: npt.NDArray[np.float64]) -> bytes:
    """The textbook's encoder, one sample at a time."""
    out = bytearray()
    for value in (samples * 32_767).astype(int):
        sign, size = (0x80, -value) if value < 0 else (0, value)
        size = min(int(size), 32_635) + 132
        exponent = max(0, size.bit_length() - 8)
        out.append(~(sign | exponent << 4 | (size >> exponent + 3) & 0x0F) & 0xFF)
    return bytes(out)


def alaw(samples: npt.NDArray[np.float64]) -> bytes:
    out = bytearray()
    for value in (samples * 32_767).astype(int):
        sign, size = (0, -value - 1) if value < 0 else (0x80, value)
        size = int(size)
        exponent = max(0, size.bit_length() - 8)
        mantissa = size >> (4 if exponent == 0 else exponent + 3) & 0x0F
        out.append((sign | exponent << 4 | mantissa) ^ 0x55)
    return bytes(out)


KINDS: dict[str, tuple[int, int, Any]] = {
    "pcm8": (1, 8, lambda s: (s * 127 + 128).astype(np.uint8).tobytes()),
    "pcm16": (1, 16, to_pcm16),
    "pcm24": (1, 24, pcm24),
    "pcm32": (1, 32, lambda s: (s * (2**31 - 1)).astype("<i4").tobytes()),
    "float32": (3, 32, lambda s: s.astype("<f4").tobytes()),
    "float64": (3, 64, lambda s: s.astype("<f8").tobytes()),
    "mulaw": (7, 8, mulaw),
    "alaw": (6, 8, alaw),
}


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_usual_width_holds_the_same_sound(kind: str, extensible: bool) -> None:
    """A tone written in any format is read back as that tone, to the format's precision."""
    tag, bits, encode = KINDS[kind]
    sound = tone(8_000)
    read = parse_wav(wav(tag, bits, 8_000, encode(sound), extensible=extensible))
    assert len(read.samples) == len(sound)
    assert np.max(np.abs(read.samples - sound)) < (0.02 if bits == 8 else 1e-3)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000])
def test_every_usual_rate_keeps_the_pitch_and_the_loudness(rate: int) -> None:
    """The tone comes out at 16 kHz with its own frequency, amplitude and length."""
    sound = resample(tone(rate), rate, RATE_HZ)
    assert len(sound) == RATE_HZ // 2
    middle = slice(400, -400)
    assert np.max(np.abs(sound[middle] - tone(RATE_HZ)[middle])) < 2e-3


def test_what_the_lower_rate_cannot_carry_does_not_fold_back() -> None:
    """A tone of 12 kHz is beyond 16 kHz audio: nothing of it is heard, nor its image at 4 kHz."""
    sound = resample(tone(48_000, hz=12_000.0), 48_000, RATE_HZ)
    assert np.max(np.abs(sound[400:-400])) < 1e-3


@settings(max_examples=40, deadline=None)
@given(
    rate=st.integers(4_000, 192_000),
    length=st.integers(0, 3_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_resampled_sound_has_the_length_of_the_field_s_own_tool(
    rate: int, length: int, seed: int
) -> None:
    """At any rate as many samples come out as scipy would give, none of them wild."""
    sound = np.random.default_rng(seed).uniform(-1, 1, length)
    out = resample(sound, rate, RATE_HZ)
    assert len(out) == -(-length * RATE_HZ // rate)
    assert not len(out) or np.max(np.abs(out)) < 5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_low_noise_comes_out_as_from_the_field_s_own_tool(seed: int) -> None:
    """What both rates can carry well is the same as scipy's, whatever it is."""
    noise = np.random.default_rng(seed).normal(0, 0.2, 4_410)
    taps = signal.firwin(401, 5_000, fs=44_100)
    sound = np.convolve(noise, taps, "same")
    ours, theirs = resample(sound, 44_100, RATE_HZ), signal.resample_poly(sound, 160, 441)
    assert np.max(np.abs(ours[200:-200] - theirs[200:-200])) < 5e-3


def test_channels_are_averaged() -> None:
    """Two channels that cancel each other are silence."""
    both = np.stack([tone(16_000), -tone(16_000)], axis=1).ravel()
    assert not np.any(np.rint(parse_wav(wav(1, 16, 16_000, to_pcm16(both), channels=2)).samples))


@given(st.binary(min_size=2, max_size=200).filter(lambda b: len(b) % 2 == 0))
def test_what_we_write_is_what_we_and_the_standard_library_read(pcm: bytes) -> None:
    """Audio in the protocol's own form goes through a file without a change."""
    data = wav_bytes(pcm)
    assert parse_wav(data).pcm16() == pcm
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
        assert file.readframes(1 << 20) == pcm


def test_a_recording_that_broke_off_is_read_as_far_as_it_goes() -> None:
    """Neither a size that was never filled in nor a missing end hides the sound."""
    data = wav_bytes(to_pcm16(tone(RATE_HZ)))
    for size in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        assert parse_wav(data[:40] + size + data[44:]).samples.size == RATE_HZ // 2
    assert parse_wav(data[:-1_001]).samples.size == RATE_HZ // 2 - 501


BAD = {
    b"": "not a WAV file",
    b"ID3 some other file of music": "not a WAV file",
    b"RF64" + bytes(40): "RF64",
    wav_bytes(b""): "holds no sound",
    wav(1, 16, 8_000, bytes(64))[:24]: "says no format",
    wav(2, 4, 8_000, bytes(64)): "format 2 with 4 bits",
    wav(1, 16, 1_000, bytes(64)): "1000 samples a second",
    wav(1, 16, 8_000, bytes(64), channels=0): "0 channels",
}


@pytest.mark.parametrize(("data", "says"), BAD.items())
def test_a_bad_file_is_one_clear_line(tmp_path: Path, data: bytes, says: str) -> None:
    """The line names the file and what is wrong with it."""
    path = tmp_path / "speech.wav"
    path.write_bytes(data)
    with pytest.raises(WavError) as error:
        read_wav(path)
    assert says in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    """No traceback for a slip of the pen."""
    with pytest.raises(WavError, match=r"nowhere\.wav: No such file"):
        read_wav(tmp_path / "nowhere.wav")


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, looks_right: bool) -> None:
    """Whatever a file holds, reading it gives sound or a `WavError`."""
    head = wav(1, 16, 16_000, b"")[:30] if looks_right else b""
    with suppress(WavError):
        assert parse_wav(head + data).samples.size
