"""
Where a scheduler will cut what a session says: the core's own rules, asked from the outside.

A client that streams audio does not number its utterances; the scheduler does, as it cuts. Whoever
measures from the outside has to know when each cut was due, and foresees it with the same rules
and the same numbers (`SegmentationSettings`). A server with other numbers cuts elsewhere; then
what was foreseen and what came differ, and the tally says so. Times are those of the plan, so a
cut that hangs on a few milliseconds of silence may differ too.
"""

from __future__ import annotations

from simsched.segmentation import SegmentationSettings, Trigger, cut_reason, cut_rules
from simsched.units import MS


class CutForecast:
    """
    The cuts of one session.

    `chunk`, `until` and `close` return when the cuts became due that are now certain, in order, in
    the nanoseconds that they are given; the silence and the hangover before a cut are included.
    """

    __slots__ = ("_bytes", "_last_ns", "_rules", "_settings", "_spoken_ns")

    def __init__(self, settings: SegmentationSettings) -> None:
        self._settings = settings
        self._rules = cut_rules(settings)
        self._bytes = 0
        self._spoken_ns = 0
        self._last_ns = 0

    @property
    def holds_audio(self) -> bool:
        """Whether something was said that no cut has taken yet."""
        return self._bytes > 0

    def chunk(self, at_ns: int, size: int, audio_ns: int, *, is_final: bool) -> list[int]:
        """A chunk is sent, `audio_ns` long."""
        cuts = self.until(at_ns)
        self._bytes += size
        self._spoken_ns += audio_ns
        self._last_ns = at_ns
        reason = cut_reason(
            self._settings,
            is_final=is_final,
            pause_exceeded=False,
            accumulated_ns=self._spoken_ns,
            buffered_bytes=self._bytes,
        )
        if reason is not None and self._bytes:
            cuts.append(self._cut(at_ns, reason))
        return cuts

    def until(self, at_ns: int) -> list[int]:
        """Nothing is said before `at_ns`: a silence may have cut."""
        silence_ns = self._settings.pause_ms * MS
        due_ns = self._last_ns + silence_ns
        if not self._bytes or not silence_ns or at_ns <= due_ns:
            return []
        return [self._cut(due_ns, Trigger.TIMEOUT)]

    def close(self, at_ns: int) -> list[int]:
        """The session ends, and what is left is cut."""
        cuts = self.until(at_ns)
        if self._bytes:
            cuts.append(self._cut(at_ns, Trigger.SESSION_CLOSE))
        return cuts

    def _cut(self, at_ns: int, reason: Trigger) -> int:
        self._bytes = 0
        self._spoken_ns = 0
        return at_ns + self._rules[reason].hangover_ns
