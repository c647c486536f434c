"""
When audio becomes an utterance: the cut rules and the state machine of a session's actor.

Pure tables and functions over plain values (domain 2). What each trigger means stands in
`cut_rules`, what may follow what stands in `TRANSITIONS`, what the three readings of the buffer's
clock yield stands in `clock_view`. Nothing here waits, sends, or knows who calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from simsched.audio import MAX_BYTES
from simsched.errors import ConfigError
from simsched.units import MS

RESTART_TOLERANCE_NS: Final = 5_000 * MS
"""A pause up to here may be a late RestartTimer instead of silence (domain 2.3 step 7)."""


class Trigger(StrEnum):
    """Why an utterance is cut, in the reference's words."""

    IS_FINAL = "IsFinal"
    PAUSE = "Pause"
    TIMEOUT = "Timeout"
    MAX_DURATION = "MaxDuration"
    MAX_LENGTH = "MaxLength"
    SESSION_CLOSE = "SessionClose"


class CutType(StrEnum):
    """What decides hangover and padding."""

    MANUAL = "manual"
    AUTO = "auto"
    EXCEPTION = "exception"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSettings:
    """
    The numbers of the cut rules; defaults are the reference's (domain 2.4).

    `pause_ms` 0 switches pause and timeout cuts off. `max_duration_ms` was 20,000 in [C] and is
    10,000 from [S] on. Hangover is waited before the audio is taken; padding goes to the node.

    Raises:
        ConfigError: if a number is negative, or the two limits are not positive.
    """

    pause_ms: int = 3_000
    max_duration_ms: int = 10_000
    max_bytes: int = MAX_BYTES
    hangover_auto_ms: int = 150
    hangover_manual_ms: int = 200
    padding_auto_ms: int = 220
    padding_manual_ms: int = 280

    def __post_init__(self) -> None:
        for name in self.__slots__:
            least = 1 if name in ("max_duration_ms", "max_bytes") else 0
            if getattr(self, name) < least:
                raise ConfigError("segmentation", name, f"a whole number of {least} or more")

    @property
    def pause_ns(self) -> int:
        return self.pause_ms * MS

    @property
    def max_duration_ns(self) -> int:
        return self.max_duration_ms * MS


class CutRule(NamedTuple):
    """What a trigger entails; the three flags are those of `job_assign`."""

    cut_type: CutType
    hangover_ns: int
    padding_ms: int
    is_manual_cut: bool
    is_pause_triggered: bool
    is_timeout_triggered: bool


_KINDS: Final = (
    # trigger, type, manual flag, pause flag, timeout flag (domain 2.4)
    (Trigger.IS_FINAL, CutType.MANUAL, True, False, False),
    (Trigger.PAUSE, CutType.AUTO, False, True, False),
    (Trigger.TIMEOUT, CutType.AUTO, False, False, True),
    (Trigger.MAX_DURATION, CutType.AUTO, False, False, True),
    (Trigger.MAX_LENGTH, CutType.EXCEPTION, False, False, False),
    (Trigger.SESSION_CLOSE, CutType.AUTO, False, False, False),
)


def cut_rules(settings: SegmentationSettings) -> Mapping[Trigger, CutRule]:
    """The table of domain 2.4 under `settings`."""
    waits = {
        CutType.MANUAL: (settings.hangover_manual_ms * MS, settings.padding_manual_ms),
        CutType.AUTO: (settings.hangover_auto_ms * MS, settings.padding_auto_ms),
        CutType.EXCEPTION: (0, 0),
    }
    return MappingProxyType(
        {trigger: CutRule(kind, *waits[kind], *flags) for trigger, kind, *flags in _KINDS}
    )


def cut_reason(
    settings: SegmentationSettings,
    *,
    is_final: bool,
    pause_exceeded: bool,
    accumulated_ns: int,
    buffered_bytes: int,
) -> Trigger | None:
    """
    Why the chunk just added cuts its utterance, or None: the strongest reason wins.

    MaxLength > IsFinal > MaxDuration > Pause (domain 2.3 step 9). `pause_exceeded` is the answer
    of `AudioBuffer.record_chunk` unless playback or the tolerance rule suppressed it.
    """
    if buffered_bytes > settings.max_bytes:
        return Trigger.MAX_LENGTH
    if is_final:
        return Trigger.IS_FINAL
    if accumulated_ns >= settings.max_duration_ms * MS:
        return Trigger.MAX_DURATION
    if pause_exceeded and settings.pause_ms:
        return Trigger.PAUSE
    return None


class ClockReading(StrEnum):
    """How often a chunk reads the buffer's clock (proposal 3, W10)."""

    EACH = "each"
    ONCE_STALE = "once_stale"
    LOCAL = "local"


class ClockReads(NamedTuple):
    """How many locked reads a chunk makes: before and after recording it, and for the timer."""

    before: int
    after: int
    timer: int


CLOCK_READS: Final[Mapping[ClockReading, ClockReads]] = MappingProxyType(
    {
        ClockReading.EACH: ClockReads(1, 1, 1),
        ClockReading.ONCE_STALE: ClockReads(1, 0, 0),
        ClockReading.LOCAL: ClockReads(1, 0, 0),
    }
)
"""Domain 2.3 steps 6 and 10; the report counts three (12.1 row 2)."""


class ClockView(NamedTuple):
    """
    What a chunk believes about time.

    `gap_ns`: silence before it, None for a first chunk. `timer_base_ns`: the value that the
    silence timer remembers, None if it must not be armed.
    """

    gap_ns: int | None
    timer_base_ns: int | None


def clock_view(reading: ClockReading, old_ns: int | None, new_ns: int, now_ns: int) -> ClockView:
    """
    What each reading makes of the clock.

    `old_ns` is the value before the chunk was recorded, `new_ns` the value read afterwards
    (`each` alone reads it: a later touch by playback shows), `now_ns` the chunk's own time.
    Under `once_stale` the value of before is reused for the timer: the timer of a chunk then
    remembers the chunk *before* it, finds on waking that the clock has moved, and never cuts
    (see `timeout_due`); I13 breaks for every utterance that should end by silence.
    """
    gap_ns = None if old_ns is None else now_ns - old_ns
    if reading is ClockReading.LOCAL:
        return ClockView(gap_ns, now_ns)
    return ClockView(gap_ns, new_ns if reading is ClockReading.EACH else old_ns)


def timer_deadline_ns(settings: SegmentationSettings, now_ns: int) -> int | None:
    """When a timer armed now wakes: after one pause; None if pauses do not cut."""
    return now_ns + settings.pause_ns if settings.pause_ms else None


def timeout_due(base_ns: int | None, last_chunk_ns: int | None) -> bool:
    """
    Whether the timer that woke may cut: nothing was said since what it remembers (domain 2.5).

    `base_ns` is what it remembered when armed, `last_chunk_ns` the clock on waking. Without a
    timestamp the reference ignores the timer.
    """
    return base_ns is not None and last_chunk_ns is not None and last_chunk_ns <= base_ns


def suppressed_by_playback(*, pause_exceeded: bool, group_id: str | None, playing: bool) -> bool:
    """Whether a pause does not cut because the session listens to its active group's speech."""
    return pause_exceeded and group_id is not None and playing


def suppressed_by_restart(
    *, pause_exceeded: bool, gap_ns: int | None, pause_ns: int, finalizing: bool, first_chunk: bool
) -> bool:
    """
    Whether a pause does not cut because a RestartTimer may still be on its way.

    Only for the first chunk of a new index while the one before is being finalized, and only for
    pauses strictly between `pause_ns` and the tolerance (domain 2.3 step 7).
    """
    if not (pause_exceeded and finalizing and first_chunk) or gap_ns is None:
        return False
    return pause_ns < gap_ns < RESTART_TOLERANCE_NS


class State(IntEnum):
    """Where the actor stands."""

    IDLE = 0
    COLLECTING = 1
    FINALIZING = 2
    CLOSED = 3


class Happening(IntEnum):
    """What moves the actor."""

    CHUNK = 0
    CUT = 1
    CUT_DONE = 2
    CUT_EMPTY = 3
    CUT_FAILED = 4
    CLOSE = 5


TRANSITIONS: Final[Mapping[tuple[State, Happening], State]] = MappingProxyType(
    {
        (State.IDLE, Happening.CHUNK): State.COLLECTING,
        # A timer may fire after its utterance was cut already: the cut then finds nothing.
        (State.IDLE, Happening.CUT): State.FINALIZING,
        (State.IDLE, Happening.CLOSE): State.CLOSED,
        (State.COLLECTING, Happening.CHUNK): State.COLLECTING,
        (State.COLLECTING, Happening.CUT): State.FINALIZING,
        (State.COLLECTING, Happening.CLOSE): State.CLOSED,
        (State.FINALIZING, Happening.CHUNK): State.FINALIZING,
        (State.FINALIZING, Happening.CUT_DONE): State.IDLE,
        (State.FINALIZING, Happening.CUT_EMPTY): State.IDLE,
        (State.FINALIZING, Happening.CUT_FAILED): State.IDLE,
        (State.FINALIZING, Happening.CLOSE): State.CLOSED,
    }
)
"""All that may happen; anything else is our own bug."""


def advance(state: State, happening: Happening) -> State:
    """The state after `happening`; an assertion if it cannot happen in `state`."""
    after = TRANSITIONS.get((state, happening))
    assert after is not None, f"{happening.name} cannot happen in {state.name}"
    return after


class FinalizeError(StrEnum):
    """What a failed finalize leaves behind (B2, W20)."""

    WEDGE = "wedge"
    RESET = "reset"


class Segmenter:
    """
    The state machine of one session with its utterance index.

    Rules: `index` grows by exactly 1 per cut that is done, and by nothing else (I7); at most one
    cut is in flight; under `reset` a session can cut again after any failure (I8), under `wedge`
    never. `accumulated_ns` is the duration of the audio since the last cut;
    `suppressed` counts cuts asked for while none was allowed.
    """

    __slots__ = ("_on_error", "accumulated_ns", "in_flight", "index", "state", "suppressed")

    def __init__(self, on_error: FinalizeError = FinalizeError.RESET) -> None:
        self._on_error = on_error
        self.state = State.IDLE
        self.index = 0
        self.in_flight: int | None = None
        self.accumulated_ns = 0
        self.suppressed = 0

    def index_for_chunk(self) -> int:
        """The utterance that a chunk arriving now belongs to (domain 2.3 step 1)."""
        return self.index if self.in_flight is None else self.in_flight + 1

    def chunk(self, duration_ns: int) -> None:
        """A chunk was added."""
        if self.state is not State.COLLECTING:
            self.state = advance(self.state, Happening.CHUNK)
        self.accumulated_ns += duration_ns

    def can_finalize(self, index: int) -> bool:
        """Whether utterance `index` may be cut now: it is the current one, and none in flight."""
        open_now = self.state is State.IDLE or self.state is State.COLLECTING
        return open_now and index == self.index

    def begin(self, index: int) -> bool:
        """Start to cut utterance `index`; False, and counted, if that is not allowed."""
        if not self.can_finalize(index):
            self.suppressed += 1
            return False
        self.state = advance(self.state, Happening.CUT)
        self.in_flight = index
        return True

    def done(self) -> None:
        """The cut made its jobs, or told the client why not: the index is used up."""
        self._end(Happening.CUT_DONE)
        self.index += 1
        self.accumulated_ns = 0

    def empty(self) -> None:
        """The cut found no audio: the index stays."""
        self._end(Happening.CUT_EMPTY)

    def failed(self) -> None:
        """
        The cut raised. `wedge` leaves everything as it is: no later cut is allowed (B2).

        The audio is gone and the index stays: where the client was told of the loss, the index is
        spoken for and the caller says `done` instead.
        """
        assert self.in_flight is not None, "no cut in flight"
        if self._on_error is FinalizeError.RESET:
            self._end(Happening.CUT_FAILED)
            self.accumulated_ns = 0

    def close(self) -> None:
        """The session is over; nothing may happen any more."""
        self.state = advance(self.state, Happening.CLOSE)
        self.in_flight = None

    def _end(self, happening: Happening) -> None:
        self.state = advance(self.state, happening)
        self.in_flight = None
