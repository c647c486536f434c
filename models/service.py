"""
How long a node works on an utterance: recognition, translation, synthesis.

Each stage has a part of its own and a part per second of audio, both drawn; so recognition grows
with the audio, and so do the text and with it the later stages. A study that needs one plain law
(a queue with a known answer) writes `service` instead of the stages.

    [service]
    asr_ms = 80
    asr_per_audio_s = { kind = "lognormal", mean_ms = 120, scv = 0.2 }
    nmt = { kind = "lognormal", mean_ms = 150, scv = 0.3 }

The times of an utterance are a function of the run's key, the session, the utterance and the
language alone: not of the node, the order, the attempt or the variant. A node's `speed` divides
them. Knows no simulator; a live stub engine uses it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from simsched.chance import key_of, mix
from simsched.models.distribution_fields import distribution
from simsched.models.distributions import Constant, Distribution, lognormal_from_scv
from simsched.models.fields import Fields
from simsched.units import MS

_PURPOSE: Final = key_of("service")
_NOTHING: Final = Constant(0)


class StageTimes(NamedTuple):
    """Nanoseconds of work per stage."""

    asr_ns: int
    nmt_ns: int
    tts_ns: int

    @property
    def total_ns(self) -> int:
        """All of it: a node works on one stage after another."""
        return self.asr_ns + self.nmt_ns + self.tts_ns


@dataclass(frozen=True, slots=True)
class Stage:
    """A drawn part, and another one for each second of audio."""

    own: Distribution = _NOTHING
    per_audio_s: Distribution = _NOTHING

    def mean_ns(self, audio_ms: float) -> float:
        return self.own.mean_ns + self.per_audio_s.mean_ns * audio_ms / 1000

    def ns(self, key: int, counter: int, order: int, audio_ms: int) -> int:
        own = self.own.at(order, mix(key, counter))
        if self.per_audio_s is _NOTHING:
            return own
        return own + self.per_audio_s.at(order, mix(key, counter + 1)) * audio_ms // 1000


ASR: Final = Stage(Constant(80 * MS), lognormal_from_scv(120 * MS, 0.2))
NMT: Final = Stage(lognormal_from_scv(150 * MS, 0.3))
TTS: Final = Stage(lognormal_from_scv(100 * MS, 0.3), lognormal_from_scv(60 * MS, 0.2))
"""
The stages' defaults, assumed within what is known: the reference's documents name 84 to 3,701 ms
for recognition and about 3.4 s for the slowest whole pipeline; these give 1.2 s for 5 s of audio.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceModel:
    """The law of service times."""

    asr: Stage = ASR
    nmt: Stage = NMT
    tts: Stage = TTS

    @classmethod
    def parse(cls, table: Mapping[str, object], where: str = "service") -> ServiceModel:
        """
        Read a `[service]` table.

        Raises:
            ConfigError: unknown key, kind or unit, a negative time, or both ways of saying it.

        """
        fields = Fields(table, where)
        if fields.has("service"):
            whole = Stage(distribution(fields, "service"))
            fields.close()
            return cls(asr=whole, nmt=Stage(), tts=Stage())
        model = cls(
            asr=_stage(fields, "asr", ASR),
            nmt=_stage(fields, "nmt", NMT),
            tts=_stage(fields, "tts", TTS),
        )
        fields.raw("service")
        fields.close()
        return model

    def times(
        self,
        run_key: int,
        session_key: int,
        utterance: int,
        language: str,
        audio_ms: int,
        *,
        order: int = 0,
        speed: float = 1.0,
    ) -> StageTimes:
        """
        What one utterance takes towards one language.

        Args:
            run_key: the key of the run (root seed and replication).
            session_key: `SessionPlan.key`.
            utterance: its index in the session.
            language: the target language.
            audio_ms: length of the audio.
            order: `UtterancePlan.order`; only a recorded list looks at it.
            speed: how many times faster than the reference machine this node is.

        """
        key = mix(mix(run_key ^ _PURPOSE, session_key), utterance) ^ key_of(language)
        asr = self.asr.ns(key, 0, order, audio_ms)
        nmt = self.nmt.ns(key, 2, order, audio_ms)
        tts = self.tts.ns(key, 4, order, audio_ms)
        if speed == 1:
            return StageTimes(asr, nmt, tts)
        return StageTimes(round(asr / speed), round(nmt / speed), round(tts / speed))

    def mean_ns(self, audio_ms: float) -> float:
        """Expected work on an utterance of that length, at speed 1."""
        return self.asr.mean_ns(audio_ms) + self.nmt.mean_ns(audio_ms) + self.tts.mean_ns(audio_ms)


def _stage(fields: Fields, name: str, default: Stage) -> Stage:
    """A stage: its default as a whole, or what the table says and nothing else."""
    per_audio = f"{name}_per_audio_s"
    if not fields.has(name) and not fields.has(per_audio):
        fields.raw(name)
        fields.raw(per_audio)
        return default
    return Stage(distribution(fields, name, _NOTHING), distribution(fields, per_audio, _NOTHING))
