"""
The audio of one session, by utterance, and how long a piece of audio lasts.

Rules: bytes in = bytes out (what was added leaves by exactly one `take`, or is counted as dropped
by `drop_all`); `take` removes and combines in one go; the clock of the last chunk belongs to the
session and survives a cut, as the reference's does (domain 2.5).

The buffer does not know when to cut (`segmentation`), what a lock costs, or what Opus sounds like.
"""

from __future__ import annotations

from typing import Final

from simsched.units import MS

MAX_BYTES: Final = 512_000
"""More buffered bytes than this cut an utterance: 500 * 1024, domain 2.3 step 9 (MaxLength)."""

PCM16_NS_PER_BYTE: Final = 31_250
"""16 kHz, mono, two bytes a sample: 32,000 bytes a second, exactly."""

ESTIMATED_PACKET_BYTES: Final = 60
ESTIMATED_PACKET_NS: Final = 20 * MS
"""The reference takes every 60 bytes for one 20 ms Opus packet (domain 2.3 step 3)."""

OPUS_PACKET_MAX_NS: Final = 120 * MS
OPUS_FRAME_MAX_BYTES: Final = 1_275
"""No Opus packet is longer, no frame in it larger (RFC 6716, 3.2.1 and 3.4, R2 and R5)."""

_LENGTH_BYTES: Final = 2
_SILK: Final = (10_000_000, 20_000_000, 40_000_000, 60_000_000)
_HYBRID: Final = (10_000_000, 20_000_000)
_CELT: Final = (2_500_000, 5_000_000, 10_000_000, 20_000_000)
OPUS_FRAME_NS: Final = _SILK * 3 + _HYBRID * 2 + _CELT * 4
"""Frame length by the five configuration bits of a packet's first byte (RFC 6716, table 2)."""


class _Utterance:
    """What is held of one utterance."""

    __slots__ = ("chunks", "first_ns", "last_ns", "size")

    def __init__(self, payload: bytes, now_ns: int) -> None:
        self.chunks = [payload]
        self.size = len(payload)
        self.first_ns = now_ns
        self.last_ns = now_ns


class AudioBuffer:
    """
    The buffered audio of one session.

    `bytes_in` counts what was added, `bytes_out` what was taken, `bytes_dropped` what `drop_all`
    threw away; `held_bytes` is the rest. `last_chunk_at` is when the session last spoke, in ns,
    or None before its first chunk. Nothing bounds the bytes of an utterance here: the caller cuts
    beyond `MAX_BYTES`.
    """

    __slots__ = ("_utterances", "bytes_dropped", "bytes_in", "bytes_out", "last_chunk_at")

    def __init__(self) -> None:
        self._utterances: dict[int, _Utterance] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.bytes_dropped = 0
        self.last_chunk_at: int | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of all utterances that wait to be taken."""
        return self.bytes_in - self.bytes_out - self.bytes_dropped

    def add(self, index: int, payload: bytes, now_ns: int) -> int:
        """Append a chunk to utterance `index`; return the bytes it now holds."""
        held = self._utterances.get(index)
        size = len(payload)
        if not size:
            return held.size if held else 0
        self.bytes_in += size
        if held is None:
            self._utterances[index] = _Utterance(payload, now_ns)
            return size
        held.chunks.append(payload)
        held.last_ns = now_ns
        held.size = total = held.size + size
        return total

    def take(self, index: int) -> bytes:
        """Remove utterance `index` and return its audio; empty if there is none."""
        held = self._utterances.pop(index, None)
        if held is None:
            return b""
        self.bytes_out += held.size
        return b"".join(held.chunks)

    def size(self, index: int) -> int:
        """Bytes held of utterance `index`."""
        held = self._utterances.get(index)
        return held.size if held else 0

    def first_at(self, index: int) -> int | None:
        """When the first audio of utterance `index` arrived, in ns; ask before `take`."""
        held = self._utterances.get(index)
        return held.first_ns if held else None

    def last_at(self, index: int) -> int | None:
        """When the last audio of utterance `index` arrived, in ns; ask before `take`."""
        held = self._utterances.get(index)
        return held.last_ns if held else None

    def indices(self) -> list[int]:
        """The utterances that hold audio, ascending."""
        return sorted(self._utterances)

    def drop_all(self) -> int:
        """Throw everything away (the session is over); return the bytes lost."""
        lost = self.held_bytes
        self._utterances.clear()
        self.bytes_dropped += lost
        return lost

    def record_chunk(self, now_ns: int, pause_ns: int) -> bool:
        """
        Note a chunk with audio; say whether the silence before it was longer than `pause_ns`.

        Strictly longer, and false for a session's first chunk (domain 2.3 step 6).
        """
        previous = self.last_chunk_at
        self.last_chunk_at = now_ns
        return previous is not None and now_ns - previous > pause_ns

    def touch(self, now_ns: int) -> None:
        """Let the silence count from now (RestartTimer: playback started or ended)."""
        self.last_chunk_at = now_ns


def _packet_ns(payload: bytes, start: int, size: int) -> int:
    """How long the Opus packet at `start` lasts; 0 if it cannot be one (RFC 6716, 3.4)."""
    toc = payload[start]
    frame_ns = OPUS_FRAME_NS[toc >> 3]
    code = toc & 3
    if code == 0:
        return frame_ns if size - 1 <= OPUS_FRAME_MAX_BYTES else 0
    if code == 1:
        # Two frames of equal size: R3.
        fits = size % 2 == 1 and (size - 1) // 2 <= OPUS_FRAME_MAX_BYTES
        return 2 * frame_ns if fits else 0
    if size < 2:
        # Codes 2 and 3 carry at least one more byte: R4 and R6.
        return 0
    if code == 2:
        return 2 * frame_ns
    length_ns = (payload[start + 1] & 0x3F) * frame_ns
    return length_ns if length_ns <= OPUS_PACKET_MAX_NS else 0


def plan_a_duration_ns(payload: bytes) -> int | None:
    """
    How long Opus "plan A" bytes last: repeated [u16 LE length][packet] (domain 1.7).

    Each packet tells its own length in its first byte or two. An empty packet is refused: Opus
    has none, and the zeros of silent PCM would otherwise pass for a row of them.

    Returns:
        Nanoseconds, or None if the bytes are not whole plan-A packets.
    """
    end = len(payload)
    total_ns = at = 0
    while at + _LENGTH_BYTES < end:
        size = payload[at] | payload[at + 1] << 8
        at += _LENGTH_BYTES
        if size == 0 or at + size > end:
            return None
        toc = payload[at]
        if toc & 3 or size > OPUS_FRAME_MAX_BYTES:
            packet_ns = _packet_ns(payload, at, size)
        else:
            packet_ns = OPUS_FRAME_NS[toc >> 3]  # one frame: by far the most, so without a call
        if packet_ns == 0:
            return None
        total_ns += packet_ns
        at += size
    return total_ns if at == end and end else None


def looks_like_plan_a(payload: bytes) -> bool:
    """Whether the bytes parse, to the last one, as Opus packets with their lengths in front."""
    return plan_a_duration_ns(payload) is not None


def actual_format(audio_format: str, payload: bytes) -> str:
    """
    What the bytes are: `session_init` always answers "opus", but some clients stream PCM.

    Tell whole chunks apart, not their concatenation: one odd chunk would hide all the others.
    """
    if audio_format == "opus" and payload and not looks_like_plan_a(payload):
        return "pcm16"
    return audio_format


def duration_ns(audio_format: str, payload: bytes) -> int:
    """
    How long a chunk lasts, in ns: exact for pcm16 and for plan-A Opus, told apart by the bytes.

    Exact means additive: the parts of a PCM stream last as long as the whole. Formats other than
    pcm16 and opus count as 0, as in the reference: MaxLength alone then bounds an utterance.
    """
    if audio_format == "opus":
        length_ns = plan_a_duration_ns(payload)
        return len(payload) * PCM16_NS_PER_BYTE if length_ns is None else length_ns
    return len(payload) * PCM16_NS_PER_BYTE if audio_format == "pcm16" else 0


def estimated_duration_ns(audio_format: str, payload: bytes) -> int:
    """
    How long the reference takes a chunk to last, in ns: whole 60 bytes * 20 ms if called Opus.

    PCM in an Opus session is over-measured 10.6 times: 100 ms count as 1,060 (domain 2.3 step 3).
    """
    if audio_format == "opus":
        return len(payload) // ESTIMATED_PACKET_BYTES * ESTIMATED_PACKET_NS
    return len(payload) * PCM16_NS_PER_BYTE if audio_format == "pcm16" else 0
