"""
WAV files in and out: whatever a recorder writes becomes 16 kHz mono pcm16, the protocol's audio.

Rules:

- read: PCM of 8, 16, 24 and 32 bits, float of 32 and 64 bits, A-law and mu-law, each also behind
  WAVE_FORMAT_EXTENSIBLE; any number of channels (they are averaged) and any usual rate;
- a file that ends early, or whose sizes were never filled in (a recorder's pipe), is read as far
  as it goes; whatever cannot be read is a `WavError` of one line;
- another rate is reached by a polyphase filter that passes what both rates can carry and stops
  the rest by about 80 dB, so that nothing folds back into the speech.

This file does not know sockets or who speaks. Laws: ITU-T G.711; layout: Microsoft's RIFF.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from simsched.errors import SimschedError

RATE_HZ: Final = 16_000
"""The protocol's rate: one channel, two bytes a sample."""

RATES_HZ: Final = (4_000, 192_000)
"""Rates that are read, from the lowest to the highest."""

CHANNELS_MAX: Final = 32
FILE_BYTES_MAX: Final = 1 << 30
"""A larger file is refused: it would not fit into memory once it is floating point."""

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_FORMAT: Final = struct.Struct("<HHIIHH")
_SUBFORMAT_AT: Final = 24
"""Where the real format stands in an extensible one: the first two bytes of its GUID."""

_CROSSINGS: Final = 24
_KAISER_BETA: Final = 8.0
"""Half length of the filter in zero crossings, and its window: about 80 dB below the speech."""

Samples = npt.NDArray[np.float64]


class WavError(SimschedError):
    """A file is no WAV that can be read; says what it is instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WavFile:
    """What a file held: `samples` between -1 and 1, channels already averaged."""

    rate_hz: int
    channels: int
    samples: Samples

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate_hz

    def pcm16(self) -> bytes:
        """The protocol's audio: 16 kHz, one channel, 16 bits, little-endian."""
        return to_pcm16(resample(self.samples, self.rate_hz, RATE_HZ))


def read_wav(path: Path) -> WavFile:
    """
    Read a file.

    Raises:
        WavError: it cannot be read, or is no WAV of a known kind.

    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise WavError(f"{path}: larger than {FILE_BYTES_MAX >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise WavError(f"{path}: {error.strerror or error}") from None
    try:
        return parse_wav(data)
    except WavError as error:
        raise WavError(f"{path}: {error}") from None


def parse_wav(data: bytes) -> WavFile:
    """
    The sound in the bytes of a WAV file.

    Raises:
        WavError: as `read_wav`.

    """
    if data[:4] in (b"RIFX", b"RF64", b"BW64"):
        raise WavError(f"{data[:4].decode()} files are not read: convert it to plain WAV")
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError("not a WAV file")
    head, sound = _chunks(data)
    tag, channels, rate_hz, width, bits = _format(head)
    decode = _DECODERS.get((tag, width))
    if decode is None:
        raise WavError(f"format {tag} with {bits} bits a sample is not read")
    if not 1 <= channels <= CHANNELS_MAX:
        raise WavError(f"{channels} channels: 1 to {CHANNELS_MAX} are read")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise WavError(f"{rate_hz} samples a second: {RATES_HZ[0]} to {RATES_HZ[1]} are read")
    whole = len(sound) - len(sound) % (width * channels)
    if not whole:
        raise WavError("holds no sound")
    samples = decode(sound[:whole]).reshape(-1, channels).mean(axis=1)
    return WavFile(rate_hz=rate_hz, channels=channels, samples=np.nan_to_num(samples))


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The first format chunk, and the first sound after it, as far as the file goes."""
    head, at = b"", 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = at + 8
        if name == b"data":
            if not head:
                raise WavError("its sound comes before its format")
            # A recorder that could not go back left 0 or all ones: the rest is the sound.
            end = len(data) if size == 0 else body + size
            return head, data[body:end]
        if name == b"fmt ":
            head = data[body : body + size]
        at = body + size + size % 2
    raise WavError("holds no sound" if head else "says no format")


def _format(head: bytes) -> tuple[int, int, int, int, int]:
    """Format tag, channels, rate, bytes per sample, bits per sample."""
    if len(head) < _FORMAT.size:
        raise WavError("its format is cut off")
    tag, channels, rate_hz, _, _, bits = _FORMAT.unpack_from(head)
    if tag == _EXTENSIBLE:
        if len(head) < _SUBFORMAT_AT + 2:
            raise WavError("its format is cut off")
        tag = int.from_bytes(head[_SUBFORMAT_AT : _SUBFORMAT_AT + 2], "little")
    return tag, channels, rate_hz, (bits + 7) // 8, bits


def _pcm8(data: bytes) -> Samples:
    return (np.frombuffer(data, np.uint8).astype(np.float64) - 128.0) / 128.0


def _pcm24(data: bytes) -> Samples:
    bytes3 = np.frombuffer(data, np.uint8).reshape(-1, 3)
    padded = np.zeros((len(bytes3), 4), np.uint8)
    padded[:, 1:] = bytes3
    return padded.view("<i4").ravel().astype(np.float64) / 2.0**31


def _plain(kind: str, scale: float) -> Callable[[bytes], Samples]:
    return lambda data: np.frombuffer(data, kind).astype(np.float64) / scale


def _law(table: Samples) -> Callable[[bytes], Samples]:
    return lambda data: table[np.frombuffer(data, np.uint8)]


def _mulaw_table() -> Samples:
    """G.711 mu-law: sign, three bits of exponent, four of mantissa, all inverted."""
    code = ~np.arange(256, dtype=np.int64) & 0xFF
    size = (((code & 0x0F) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -size, size) / 32_768.0


def _alaw_table() -> Samples:
    """G.711 A-law: as above, every other bit inverted, the sign bit set for positive."""
    code = np.arange(256, dtype=np.int64) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 0x0F) << 4
    size = np.where(exponent, mantissa + 0x108 << np.maximum(exponent - 1, 0), mantissa + 8)
    return np.where(code & 0x80, size, -size) / 32_768.0


_DECODERS: Final[dict[tuple[int, int], Callable[[bytes], Samples]]] = {
    (_PCM, 1): _pcm8,
    (_PCM, 2): _plain("<i2", 2.0**15),
    (_PCM, 3): _pcm24,
    (_PCM, 4): _plain("<i4", 2.0**31),
    (_FLOAT, 4): _plain("<f4", 1.0),
    (_FLOAT, 8): _plain("<f8", 1.0),
    (_ALAW, 1): _law(_alaw_table()),
    (_MULAW, 1): _law(_mulaw_table()),
}
"""By format tag and bytes per sample."""


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """
    The same sound at another rate; `ceil(len * to / from)` samples.

    Polyphase: the sound is thought of as raised to the common multiple of both rates, filtered
    there and thinned out; only the samples that stay are computed, one phase of the filter at a
    time.
    """
    shared = math.gcd(from_hz, to_hz)
    up, down = to_hz // shared, from_hz // shared
    if up == down or not len(samples):
        return samples
    taps, phases = _phases(up, down)
    wanted = -(-len(samples) * up // down)
    before = taps // 2
    padded = np.concatenate([np.zeros(before), samples, np.zeros(taps)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    out = np.empty(wanted)
    for first in range(min(up, wanted)):
        phase, start = (first * down) % up, (first * down) // up
        count = -(-(wanted - first) // up)
        out[first::up] = windows[start : start + count * down : down][:count] @ phases[phase]
    return out


def _phases(up: int, down: int) -> tuple[int, Samples]:
    """
    Taps of a phase, and the filter's phases, each in the order of the samples that it weighs.

    Row p weighs the samples around a moment that lies p/up of a sample after the middle one.
    """
    widest = max(up, down)
    half = -(-_CROSSINGS * widest // up)
    taps = 2 * half + 1
    phase, place = np.arange(up)[:, None], np.arange(taps)[None, :]
    distance = (place - half) - phase / up
    cutoff = up / widest
    edge = np.clip(distance / (half + 1), -1.0, 1.0)
    window = np.i0(_KAISER_BETA * np.sqrt(1.0 - edge * edge))
    weights = np.sinc(distance * cutoff) * window
    # Each phase passes a constant sound unchanged.
    return taps, weights / weights.sum(axis=1, keepdims=True)


def to_pcm16(samples: Samples) -> bytes:
    """Samples between -1 and 1 as 16-bit little-endian; louder ones are clipped."""
    scaled = np.rint(samples * 32_768.0)
    clipped: npt.NDArray[Any] = np.clip(scaled, -32_768, 32_767)
    return clipped.astype("<i2").tobytes()


def wav_bytes(pcm16: bytes, rate_hz: int = RATE_HZ) -> bytes:
    """A WAV file around mono pcm16 audio."""
    head = _FORMAT.pack(_PCM, 1, rate_hz, rate_hz * 2, 2, 16)
    fields = b"WAVEfmt " + len(head).to_bytes(4, "little") + head
    body = fields + b"data" + len(pcm16).to_bytes(4, "little") + pcm16
    return b"RIFF" + (len(body)).to_bytes(4, "little") + body
