"""
Utterance groups: which sentences belong together, their context, and whether speech is playing.

Rules (domain 3): a session has at most one active group; a result opens a new one when more than
the window has passed since the group's last playback ended (or since the group began); a group
keeps its newest parts within a number and a size. All times here are Unix milliseconds, because
the client's own stamps are among them.

`on_result` (W9, proposal 4) gives the same group ids and part indices as `on_asr_final` followed by
`on_nmt_done`. The reference's merged form stores the translation before it trims and builds the
context, so the newest part's translation counts: its context has one `Target:` line more, and
older parts may go sooner. `MergedContext.SEPARATE` keeps the two-step context to the byte.

The book does not know locks; `LockOps` says how many the reference takes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

PART_OVERHEAD_BYTES: Final = 8
"""What the reference adds per part when it measures a group (domain 3)."""


class Playback(StrEnum):
    """How playback is recognised: the reference's way, never true while it runs, or correctly."""

    REFERENCE = "reference"
    CORRECT = "correct"


class MergedContext(StrEnum):
    """Whether the merged form's context has the newest part's translation, or not."""

    SEPARATE = "separate"
    TOGETHER = "together"


class Opening(StrEnum):
    """How a result came by its group."""

    REUSED = "reused"
    NEW = "new"
    REPLACED = "replaced"


class LockOps(NamedTuple):
    """Lock operations of the reference."""

    reads: int
    writes: int


LOCK_OPS: Final[dict[Opening, LockOps]] = {
    # active.read, groups.read; append
    Opening.REUSED: LockOps(2, 1),
    # active.read; create (groups, session_groups, active); append
    Opening.NEW: LockOps(1, 4),
    # active.read, groups.read; close; create (three); append
    Opening.REPLACED: LockOps(2, 5),
}
"""Of `on_asr_final` and of the merged form (domain 3)."""

NMT_LOCK_OPS: Final = LockOps(0, 1)
"""Of `on_nmt_done`: what merging saves. Both together: 2, 5 or 6 writes."""


class Placed(NamedTuple):
    """Where a result belongs."""

    group_id: str
    context: str
    part_index: int
    opening: Opening

    @property
    def lock_ops(self) -> LockOps:
        return LOCK_OPS[self.opening]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """
    Limits; the first three are the reference's defaults (domain 3).

    `groups_per_session_max`: a session's oldest closed groups are forgotten beyond it. Playback
    ends of older groups then go unheard, which by then no decision needs. The reference keeps all
    until the session ends.
    """

    window_ms: int = 2_000
    parts_max: int = 8
    context_bytes_max: int = 800
    groups_per_session_max: int = 16

    def __post_init__(self) -> None:
        assert self.window_ms >= 0
        assert self.context_bytes_max >= 0
        assert self.parts_max >= 1
        assert self.groups_per_session_max >= 1


class Part:
    """One sentence of a group."""

    __slots__ = ("asr_text", "error", "index", "trace_id", "translated", "utterance")

    def __init__(self, index: int, trace_id: str, utterance: int, asr_text: str) -> None:
        self.index = index
        self.trace_id = trace_id
        self.utterance = utterance
        self.asr_text = asr_text
        self.translated: str | None = None
        self.error: str | None = None

    def bytes_counted(self) -> int:
        """Its share of the group's size, as the reference measures it."""
        return _bytes(self.asr_text) + _bytes(self.translated or "") + PART_OVERHEAD_BYTES


class Group:
    """Sentences that belong together."""

    __slots__ = (
        "group_id",
        "last_tts_end_ms",
        "last_tts_start_ms",
        "next_part",
        "parts",
        "playing",
    )

    def __init__(self, group_id: str, now_ms: int) -> None:
        self.group_id = group_id
        self.last_tts_end_ms = now_ms
        self.last_tts_start_ms: int | None = None
        self.playing = False
        self.next_part = 0
        self.parts: deque[Part] = deque()

    def context(self, bytes_max: int) -> str:
        """What was said, one line per text, cut at `bytes_max` between two characters."""
        lines: list[str] = []
        for part in self.parts:
            lines.append(f"User: {part.asr_text}\n")
            if part.translated:
                lines.append(f"Target: {part.translated}\n")
        encoded = "".join(lines).encode("utf-8", "surrogatepass")
        return encoded[:bytes_max].decode("utf-8", "ignore")


class GroupBook:
    """The groups of all sessions of one instance."""

    __slots__ = ("_active", "_groups", "_merged_context", "_of_session", "_playback", "_settings")

    def __init__(
        self,
        settings: GroupSettings | None = None,
        *,
        playback: Playback = Playback.CORRECT,
        merged_context: MergedContext = MergedContext.SEPARATE,
    ) -> None:
        self._settings = settings or GroupSettings()
        self._playback = playback
        self._merged_context = merged_context
        self._groups: dict[str, Group] = {}
        self._active: dict[str, str] = {}
        self._of_session: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def on_asr_final(
        self, session: str, trace_id: str, utterance: int, text: str, now_ms: int
    ) -> Placed:
        """Put a recognised sentence into the session's group; open one if need be."""
        group, opening = self._target_group(session, now_ms)
        part = self._append(group, trace_id, utterance, text)
        return self._place(group, part, opening)

    def on_nmt_done(
        self, group_id: str, part_index: int, text: str | None, error: str | None
    ) -> bool:
        """Add the translation, or why there is none; False if the part was trimmed since."""
        group = self._groups.get(group_id)
        if group is None:
            return False
        for part in group.parts:
            if part.index == part_index:
                part.translated = text
                part.error = error
                return True
        return False

    def on_result(
        self,
        session: str,
        trace_id: str,
        utterance: int,
        text: str,
        translated: str | None,
        error: str | None,
        now_ms: int,
    ) -> Placed:
        """Both of the above in one go (W9)."""
        group, opening = self._target_group(session, now_ms)
        part = self._append(group, trace_id, utterance, text)
        if self._merged_context is MergedContext.TOGETHER:
            part.translated = translated
            part.error = error
            return self._place(group, part, opening)
        placed = self._place(group, part, opening)
        part.translated = translated
        part.error = error
        return placed

    def active_group(self, session: str) -> str | None:
        """The group that the session's next sentence would join, if its window still runs then."""
        return self._active.get(session)

    def is_tts_playing(self, group_id: str, now_ms: int) -> bool:
        """
        Whether the group's translated speech is being played.

        `correct`: it started and has not ended since, in the order in which we heard of it.
        `reference`: start <= now <= last end; while playback runs, the last end is the one before
        it, so the answer is no (domain 3). A start whose end got lost counts until the next
        sentence opens a new group, at most one window later.
        """
        group = self._groups.get(group_id)
        if group is None:
            return False
        if self._playback is Playback.CORRECT:
            return group.playing
        start_ms = group.last_tts_start_ms
        return start_ms is not None and start_ms <= now_ms <= group.last_tts_end_ms

    def active_and_playing(self, session: str, now_ms: int) -> tuple[str | None, bool]:
        """Both answers in one read (W23)."""
        group_id = self._active.get(session)
        return group_id, group_id is not None and self.is_tts_playing(group_id, now_ms)

    def on_tts_started(self, group_id: str, now_ms: int) -> bool:
        """Playback began, by the scheduler's clock; False for an unknown group."""
        group = self._groups.get(group_id)
        if group is None:
            return False
        group.last_tts_start_ms = now_ms
        group.playing = True
        return True

    def on_tts_ended(self, group_id: str, client_ms: int, now_ms: int) -> bool:
        """
        Playback ended; False for an unknown group.

        The reference stores the client's stamp although it compares it with its own clock; the
        correct form takes the scheduler's.
        """
        group = self._groups.get(group_id)
        if group is None:
            return False
        group.last_tts_end_ms = client_ms if self._playback is Playback.REFERENCE else now_ms
        group.playing = False
        return True

    def end_session(self, session: str) -> int:
        """Forget the session's groups; return how many there were."""
        self._active.pop(session, None)
        group_ids = self._of_session.pop(session, [])
        for group_id in group_ids:
            del self._groups[group_id]
        return len(group_ids)

    def _target_group(self, session: str, now_ms: int) -> tuple[Group, Opening]:
        active_id = self._active.get(session)
        if active_id is None:
            return self._create(session, now_ms), Opening.NEW
        group = self._groups[active_id]
        if now_ms - group.last_tts_end_ms > self._settings.window_ms:
            return self._create(session, now_ms), Opening.REPLACED
        return group, Opening.REUSED

    def _create(self, session: str, now_ms: int) -> Group:
        group_id = base = f"group_{session}_{now_ms}"
        repeat = 1
        # A client clock far behind closes a group at once: two may begin in one millisecond.
        while group_id in self._groups:
            repeat += 1
            group_id = f"{base}_{repeat}"
        self._groups[group_id] = group = Group(group_id, now_ms)
        self._active[session] = group_id
        own = self._of_session.setdefault(session, [])
        own.append(group_id)
        if len(own) > self._settings.groups_per_session_max:
            del self._groups[own.pop(0)]
        return group

    def _append(self, group: Group, trace_id: str, utterance: int, text: str) -> Part:
        part = Part(group.next_part, trace_id, utterance, text)
        group.next_part += 1
        group.parts.append(part)
        return part

    def _place(self, group: Group, part: Part, opening: Opening) -> Placed:
        """Trim, then build the context. The newest part stays, however long it is."""
        parts, settings = group.parts, self._settings
        while len(parts) > settings.parts_max:
            parts.popleft()
        size = sum(held.bytes_counted() for held in parts)
        while len(parts) > 1 and size > settings.context_bytes_max:
            size -= parts.popleft().bytes_counted()
        context = group.context(settings.context_bytes_max)
        return Placed(group.group_id, context, part.index, opening)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
