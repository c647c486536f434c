"""
How people speak into the system: turns, pauses, and the chunks that carry them.

A speaker's turn becomes audio in frames of a codec; a client sends what it has every 100 ms, the
last chunk being whatever is left. Nothing is sent in a pause, which is what lets the scheduler cut
by silence. Known to neither simulator nor server, used by both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from simsched.models.distribution_fields import distribution
from simsched.models.distributions import Distribution, Exponential, lognormal_from_scv
from simsched.models.empirical import Bounded
from simsched.models.fields import Fields
from simsched.units import MS, SECOND

CHUNK_NS: Final = 100 * MS
"""What the web client collects before it sends: 1,600 samples at 16 kHz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How speech becomes bytes: in whole frames."""

    name: str
    frame_ns: int
    frame_bytes: int

    def frames(self, speech_ns: int) -> int:
        """Frames that hold so much speech; at least one, for an utterance is never empty."""
        return max(1, -(-speech_ns // self.frame_ns))

    def size(self, speech_ns: int) -> int:
        """Bytes of so much speech."""
        return self.frames(speech_ns) * self.frame_bytes

    def audio_ms(self, speech_ns: int) -> int:
        """How long those frames play, in milliseconds."""
        return self.frames(speech_ns) * self.frame_ns // MS


OPUS: Final = Codec(name="opus", frame_ns=20 * MS, frame_bytes=60)
"""24 kbit/s; the reference estimates an Opus duration by just these figures."""

PCM16: Final = Codec(name="pcm16", frame_ns=MS, frame_bytes=32)
"""16 kHz, 16 bits, one channel: 3,200 bytes in 100 ms."""

CODECS: Final[Mapping[str, Codec]] = {codec.name: codec for codec in (OPUS, PCM16)}


class Chunk(NamedTuple):
    """One audio message: when it leaves, counted from the start of the turn, and what is in it."""

    offset_ns: int
    size: int
    is_last: bool


def chunk_times(speech_ns: int, codec: Codec) -> Iterator[Chunk]:
    """
    The chunks of one turn in order.

    A chunk leaves when its audio has been spoken: every `CHUNK_NS`, the last at the end of the
    turn. The sizes add up to `codec.size(speech_ns)`.
    """
    per_chunk = CHUNK_NS // codec.frame_ns
    left = codec.frames(speech_ns)
    offset_ns = 0
    while left > per_chunk:
        left -= per_chunk
        offset_ns += CHUNK_NS
        yield Chunk(offset_ns, per_chunk * codec.frame_bytes, is_last=False)
    yield Chunk(speech_ns, left * codec.frame_bytes, is_last=True)


SPEECH: Final = Bounded(lognormal_from_scv(5 * SECOND, 0.6), 0, SECOND, 20 * SECOND)
"""Turns of 1 to 20 s, 5 s on average: the range is the reference's, the mean within it assumed."""

PAUSE: Final = Bounded(Exponential(600 * MS), 3200 * MS)
"""
Pauses of somewhat over 3 s: sessions speak alternately with pauses of about 3 s.

The shift keeps them above the reference's `pause_ms` of 3,000, so that one turn is one utterance;
a study of turns that run together lowers it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """How long a speaker talks, and how long the silence before the next turn is."""

    speech: Distribution = SPEECH
    pause: Distribution = PAUSE

    @classmethod
    def parse(cls, fields: Fields) -> Speaker:
        """Read `speech` and `pause` of a workload's table; the caller closes it."""
        return cls(
            speech=distribution(fields, "speech", SPEECH),
            pause=distribution(fields, "pause", PAUSE),
        )
