"""
Who speaks, when, in which languages: the load of a study, for the simulator and the live generator.

Sessions come by an arrival process; each has a speaker with a fixed number of turns (or, in a
closed workload, turns for ever). Everything about a session is a function of the run's key, its
index and nothing else: the i-th utterance of session j has the same speech in every variant, at
every rate, and however many others there are. Plans are made one at a time, so that memory stays
flat over a long run.

    [workload]
    arrivals = { kind = "poisson", rate_per_s = 2 }
    utterances = { kind = "geometric", mean = 5 }
    languages = [{ source = "zh", target = "en", weight = 3 }, { source = "en", target = "zh" }]
    tenants = { acme = 1, "" = 9 }         # weights; "" is no tenant
    codec = "opus"                         # or pcm16
    mode = "audio_chunk"                   # or utterance: the whole turn in one message
    manual_cut_share = 0.3                 # turns that the client ends; silence ends the others
    turn_taking_share = 0.0                # turns that wait for the answer to the one before
    room_size = 1                          # speaker and listeners
    duplicate_share = 0.01                 # requests repeated on another instance
    duplicate_gap_ms = 5                   # so long after the first
    patience = { kind = "exponential", mean_s = 3 }   # absent or "none": waits for ever
    speech = { kind = "lognormal", mean_s = 5, scv = 0.6, most_s = 20 }
    pause = { kind = "exponential", mean_ms = 600, offset_ms = 3200 }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from simsched.chance import key_of, mix
from simsched.errors import ConfigError
from simsched.models.arrivals import Arrivals, Closed, parse_arrivals
from simsched.models.counts import ConstantCount, Count, chosen, count, normalised
from simsched.models.distribution_fields import distribution
from simsched.models.distributions import Constant, Distribution, unit
from simsched.models.fields import Fields
from simsched.models.speech import CODECS, OPUS, Chunk, Codec, Speaker, chunk_times
from simsched.units import MS

_ARRIVALS: Final = key_of("workload.arrivals")
_SESSIONS: Final = key_of("workload.sessions")

# Counters of a session's draws, and of an utterance's: fixed numbers, so that a new one at the end
# changes no other.
_S_LANGUAGE, _S_TENANT, _S_COUNT, _S_ROOM, _S_UTTERANCES, _S_LISTENERS = range(6)
_U_SPEECH, _U_PAUSE, _U_CUT, _U_PATIENCE, _U_DUPLICATE, _U_GAP, _U_TURN = range(7)

MODES: Final = ("audio_chunk", "utterance")
ROOM_SIZE_MAX: Final = 1000
"""Every listener of a room is a draw and a message; more is a slip of the pen."""


class Language(NamedTuple):
    """A pair of languages and its share of the sessions."""

    source: str
    target: str
    share: float


TURNS: Final = ConstantCount(5)
ALONE: Final = ConstantCount(1)
REPEAT_GAP: Final = Constant(5 * MS)
SPEAKER: Final = Speaker()
LANGUAGES: Final = (Language("zh", "en", 0.5), Language("en", "zh", 0.5))


class UtterancePlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    One turn.

    It begins `pause_before_ns` after the end of the one before (the session's arrival for the
    first); with `waits_for_answer`, after the answer to the one before instead. `patience_ns`
    counts from the request; None waits for ever. `duplicate_after_ns` is when the client repeats
    the request on another instance, counted from the request; None does not. `order` is its place
    among all turns of the run where every session has the same number, for recorded lists.
    """

    index: int
    order: int
    key: int
    codec: Codec
    speech_ns: int
    pause_before_ns: int
    manual_cut: bool
    waits_for_answer: bool
    patience_ns: int | None
    duplicate_after_ns: int | None

    @property
    def size(self) -> int:
        """Bytes of its audio."""
        return self.codec.size(self.speech_ns)

    @property
    def audio_ms(self) -> int:
        """Length of its audio in whole frames."""
        return self.codec.audio_ms(self.speech_ns)

    def chunks(self) -> Iterator[Chunk]:
        """Its audio messages in order."""
        return chunk_times(self.speech_ns, self.codec)


class SessionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    One session: who, when, and how many turns (None: for ever).

    `targets` are the languages its utterances are translated into, one job each, its own
    `target_language` first. `room_size` counts the speaker; 1 is no room.
    """

    index: int
    key: int
    arrival_ns: int
    source_language: str
    target_language: str
    targets: tuple[str, ...]
    tenant: str
    room_size: int
    utterance_count: int | None
    workload: Workload

    def utterance(self, i: int) -> UtterancePlan:
        """Turn number `i`; the same whenever it is asked for."""
        return self.workload.utterance(self, i)

    def utterances(self) -> Iterator[UtterancePlan]:
        """All turns in order, one at a time."""
        i = 0
        while self.utterance_count is None or i < self.utterance_count:
            yield self.utterance(i)
            i += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The law of a load; `parse` reads one, the fields are described there and above."""

    arrivals: Arrivals
    utterances: Count = TURNS
    languages: tuple[Language, ...] = LANGUAGES
    tenants: tuple[tuple[str, float], ...] = (("", 1.0),)
    codec: Codec = OPUS
    mode: str = "audio_chunk"
    manual_cut_share: float = 0.3
    turn_taking_share: float = 0.0
    room_size: Count = ALONE
    duplicate_share: float = 0.0
    duplicate_gap: Distribution = REPEAT_GAP
    patience: Distribution | None = None
    speaker: Speaker = SPEAKER

    @classmethod
    def parse(cls, table: Mapping[str, object], where: str = "workload") -> Workload:
        """
        Read a `[workload]` table.

        Raises:
            ConfigError: a missing, unknown or impossible key, with what would be right.

        """
        fields = Fields(table, where)
        workload = cls(
            arrivals=parse_arrivals(_table(fields, "arrivals")),
            utterances=count(fields, "utterances", TURNS),
            languages=_languages(fields),
            tenants=_tenants(fields),
            codec=CODECS[fields.choice("codec", CODECS, "opus")],
            mode=fields.choice("mode", MODES, "audio_chunk"),
            manual_cut_share=fields.share("manual_cut_share", 0.3),
            turn_taking_share=fields.share("turn_taking_share", 0.0),
            room_size=count(fields, "room_size", ALONE),
            duplicate_share=fields.share("duplicate_share", 0.0),
            duplicate_gap=distribution(fields, "duplicate_gap", REPEAT_GAP),
            patience=_patience(fields),
            speaker=Speaker.parse(fields),
        )
        if workload.room_size.mean > ROOM_SIZE_MAX:
            raise fields.fail("room_size", f"must be at most {ROOM_SIZE_MAX} on average")
        if workload.is_closed and fields.has("utterances"):
            raise fields.fail(
                "utterances", "must be absent: a closed workload never ends a session"
            )
        fields.close()
        return workload

    @property
    def is_closed(self) -> bool:
        """Whether a fixed population waits for its answers, so that load follows the system."""
        return isinstance(self.arrivals, Closed)

    @property
    def mean_utterances_per_session(self) -> float:
        """Expected turns of a session; of a closed one there is no end, so infinite."""
        return float("inf") if self.is_closed else self.utterances.mean

    @property
    def mean_audio_s(self) -> float:
        """Expected length of a turn in seconds, before it is rounded up to whole frames."""
        return self.speaker.speech.mean_ns / 1e9

    @property
    def utterances_per_s(self) -> float:
        """Turns per second that arrive in the long run; 0 for a closed workload."""
        return 0.0 if self.is_closed else self.arrivals.rate_per_s * self.utterances.mean

    def with_rate(self, sessions_per_s: float) -> Workload:
        """
        The same workload at another rate of sessions; the sessions themselves stay as they are.

        Raises:
            ConfigError: the workload is closed, or the rate is not above 0.

        """
        if not sessions_per_s > 0:
            raise ConfigError("workload", "rate", f"must be above 0, not {sessions_per_s:g}")
        return replace(self, arrivals=self.arrivals.with_rate(sessions_per_s))

    def sessions(self, run_key: int, start_ns: int = 0) -> Iterator[SessionPlan]:
        """
        All sessions of a run in the order of their arrival, one at a time, perhaps for ever.

        Arrivals count from `start_ns`.
        """
        key = mix(run_key, 0) ^ _SESSIONS
        for index, at in enumerate(self.arrivals.moments(mix(run_key, 0) ^ _ARRIVALS)):
            yield self._session(index, mix(key, index), start_ns + at)

    def session(self, run_key: int, index: int) -> SessionPlan:
        """Session number `index` of a run, all but its arrival, which only `sessions` knows."""
        return self._session(index, mix(mix(run_key, 0) ^ _SESSIONS, index), 0)

    def _session(self, index: int, key: int, arrival_ns: int) -> SessionPlan:
        pair, tenant = self.languages[0], 0
        if len(self.languages) > 1:
            shares = tuple(language.share for language in self.languages)
            pair = self.languages[chosen(shares, mix(key, _S_LANGUAGE))]
        if len(self.tenants) > 1:
            tenant = chosen(tuple(share for _, share in self.tenants), mix(key, _S_TENANT))
        room_size = self.room_size.value(mix(key, _S_ROOM))
        turns = None if self.is_closed else self.utterances.value(mix(key, _S_COUNT))
        return SessionPlan(
            index=index,
            key=key,
            arrival_ns=arrival_ns,
            source_language=pair.source,
            target_language=pair.target,
            targets=self._targets(pair, room_size, key),
            tenant=self.tenants[tenant][0],
            room_size=room_size,
            utterance_count=turns,
            workload=self,
        )

    def _targets(self, pair: Language, room_size: int, key: int) -> tuple[str, ...]:
        """What a room hears: the session's own target, then one language for each listener more."""
        if room_size <= 2:
            return (pair.target,)
        key = mix(key, _S_LISTENERS)
        known = [language for language in self.languages if language.source == pair.source]
        shares = normalised([language.share for language in known], "workload", "languages")
        heard = (known[chosen(shares, mix(key, i))].target for i in range(room_size - 2))
        return tuple(dict.fromkeys((pair.target, *heard)))

    def utterance(self, session: SessionPlan, i: int) -> UtterancePlan:
        """Turn number `i` of a session of this workload."""
        key = mix(mix(session.key, _S_UTTERANCES), i)
        # A recorded list is used up session after session: one turn each gives it in order.
        order = session.index * (session.utterance_count or 1) + i
        duplicated = self._happens(key, _U_DUPLICATE, self.duplicate_share)
        return UtterancePlan(
            index=i,
            order=order,
            key=key,
            codec=self.codec,
            speech_ns=self.speaker.speech.at(order, mix(key, _U_SPEECH)),
            pause_before_ns=self._pause(key, i, order),
            manual_cut=self._happens(key, _U_CUT, self.manual_cut_share),
            waits_for_answer=self.is_closed
            or (i > 0 and self._happens(key, _U_TURN, self.turn_taking_share)),
            patience_ns=self.patience.at(order, mix(key, _U_PATIENCE)) if self.patience else None,
            duplicate_after_ns=(
                self.duplicate_gap.at(order, mix(key, _U_GAP)) if duplicated else None
            ),
        )

    def _pause(self, key: int, i: int, order: int) -> int:
        if isinstance(self.arrivals, Closed):
            return self.arrivals.think.at(order, mix(key, _U_PAUSE))
        return 0 if i == 0 else self.speaker.pause.at(order, mix(key, _U_PAUSE))

    def _happens(self, key: int, counter: int, share: float) -> bool:
        return share > 0 and unit(mix(key, counter)) < share


def _table(fields: Fields, name: str) -> Fields:
    """A table inside that has to be there."""
    if not fields.has(name):
        raise fields.fail(name, "is missing, e.g. { kind = 'poisson', rate_per_s = 2 }")
    return fields.table(name)


def _patience(fields: Fields) -> Distribution | None:
    """How long a client waits for its answer; None for one that waits for ever."""
    if fields.raw("patience") == "none" or not fields.has("patience"):
        return None
    return distribution(fields, "patience")


def _languages(fields: Fields) -> tuple[Language, ...]:
    value = fields.raw("languages")
    if value is None:
        return LANGUAGES
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise fields.fail("languages", "must be a list such as [{ source = 'zh', target = 'en' }]")
    rows = []
    for i, item in enumerate(value):
        row = Fields(item, f"{fields.where}.languages[{i}]")
        rows.append((row.text("source"), row.text("target"), row.number("weight", 1.0)))
        row.close()
    shares = normalised([weight for _, _, weight in rows], fields.where, "languages")
    return tuple(
        Language(source, target, share)
        for (source, target, _), share in zip(rows, shares, strict=True)
    )


def _tenants(fields: Fields) -> tuple[tuple[str, float], ...]:
    inner = fields.table("tenants")
    names = inner.names()
    if not names:
        return (("", 1.0),)
    weights = normalised([inner.number(name) for name in names], fields.where, "tenants")
    return tuple(zip(names, weights, strict=True))
