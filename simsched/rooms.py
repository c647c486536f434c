"""
Rooms: who listens to whom, and in which language.

Rules: a session is in at most one room; members stand in the order in which they joined, and
everything derived from them keeps that order; a room ends with its last member or after half an
hour without speech (domain 1.3). A refusal is an answer, not an exception.

The book knows neither messages nor sockets; codes come from an injected chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from simsched.units import MINUTE

CODE_FIRST: Final = 100_000
CODE_COUNT: Final = 900_000
"""Codes are the six-digit numbers 100000 to 999999."""

DRAWS_MAX: Final = 4
"""One draw and three more after collisions; then the next free code above the last draw."""

ROOMS_MAX: Final = CODE_COUNT // 2
"""Rooms of one instance: at most half of the codes, so that a draw fails half the time at worst."""

EXPIRY_NS: Final = 30 * MINUTE
"""A room without speech for this long is closed (domain 1.3)."""


class RoomRefusal(Enum):
    """Why not; the values are the codes of `room_error`."""

    NOT_FOUND = "ROOM_NOT_FOUND"
    ALREADY_IN = "ALREADY_IN_ROOM"
    TOO_MANY = "INTERNAL_ERROR"


@dataclass(slots=True, kw_only=True)
class Member:
    """A session in a room. `raw_voice`: whose own voice it wants to hear, or not, by session."""

    session: str
    display_name: str | None
    preferred_language: str | None
    joined_ns: int
    raw_voice: dict[str, bool]


class Room:
    """Members by session, in the order in which they joined."""

    __slots__ = ("code", "last_speech_ns", "members")

    def __init__(self, code: str, now_ns: int) -> None:
        self.code = code
        self.last_speech_ns = now_ns
        self.members: dict[str, Member] = {}


class ExpiredRoom(NamedTuple):
    """A room that ended for want of speech, and who was in it."""

    code: str
    sessions: tuple[str, ...]


class RoomBook:
    """All rooms of one instance. `chance(attempt)` is a whole number in [0, CODE_COUNT)."""

    __slots__ = ("_chance", "_expiry_ns", "_room_of", "_rooms", "_rooms_max")

    def __init__(
        self,
        chance: Callable[[int], int],
        *,
        expiry_ns: int = EXPIRY_NS,
        rooms_max: int = ROOMS_MAX,
    ) -> None:
        assert 0 < rooms_max < CODE_COUNT
        self._chance = chance
        self._expiry_ns = expiry_ns
        self._rooms_max = rooms_max
        self._rooms: dict[str, Room] = {}
        self._room_of: dict[str, Room] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def create(
        self,
        session: str,
        now_ns: int,
        *,
        display_name: str | None = None,
        preferred_language: str | None = None,
    ) -> str | RoomRefusal:
        """Open a room with its first member; return its code."""
        if session in self._room_of:
            return RoomRefusal.ALREADY_IN
        if len(self._rooms) >= self._rooms_max:
            return RoomRefusal.TOO_MANY
        room = Room(self._free_code(), now_ns)
        self._rooms[room.code] = room
        self._enter(room, session, now_ns, display_name, preferred_language)
        return room.code

    def join(
        self,
        session: str,
        code: str,
        now_ns: int,
        *,
        display_name: str | None = None,
        preferred_language: str | None = None,
    ) -> RoomRefusal | None:
        """Enter a room; None if it worked."""
        room = self._rooms.get(code)
        if room is None:
            return RoomRefusal.NOT_FOUND
        if session in self._room_of:
            return RoomRefusal.ALREADY_IN
        self._enter(room, session, now_ns, display_name, preferred_language)
        return None

    def leave(self, session: str) -> str | None:
        """Leave the room, which ends with its last member; return its code, None if in none."""
        room = self._room_of.pop(session, None)
        if room is None:
            return None
        del room.members[session]
        for member in room.members.values():
            member.raw_voice.pop(session, None)
        if not room.members:
            del self._rooms[room.code]
        return room.code

    def code_of(self, session: str) -> str | None:
        """The code of the session's room."""
        room = self._room_of.get(session)
        return room.code if room else None

    def members(self, code: str) -> tuple[Member, ...]:
        """Members in the order in which they joined; none for an unknown room."""
        room = self._rooms.get(code)
        return tuple(room.members.values()) if room else ()

    def others(self, session: str) -> tuple[str, ...]:
        """The other members of the session's room, in the order in which they joined."""
        room = self._room_of.get(session)
        return tuple(name for name in room.members if name != session) if room else ()

    def set_raw_voice(self, session: str, target: str, *, receive: bool) -> bool:
        """Say whether `session` wants to hear `target` itself; False if they share no room."""
        room = self._room_of.get(session)
        if room is None or target == session or target not in room.members:
            return False
        room.members[session].raw_voice[target] = receive
        return True

    def hears_raw_voice(self, listener: str, speaker: str) -> bool:
        """Whether the listener gets the speaker's own voice: yes, unless it said no."""
        room = self._room_of.get(listener)
        if room is None or listener == speaker or speaker not in room.members:
            return False
        return room.members[listener].raw_voice.get(speaker, True)

    def targets(self, session: str, default_language: str) -> dict[str, tuple[str, ...]]:
        """
        Who gets an utterance of `session`, by language: one job each (domain 4.2).

        Languages stand in the order of their first member, members in the order of joining. The
        speaker is no target. Outside a room, or alone in one, there is one job in the default
        language with no targets named: its result goes to the speaker.
        """
        room = self._room_of.get(session)
        if room is None or len(room.members) == 1:
            return {default_language: ()}
        grouped: dict[str, list[str]] = {}
        for name, member in room.members.items():
            if name != session:
                language = member.preferred_language or default_language
                grouped.setdefault(language, []).append(name)
        return {language: tuple(names) for language, names in grouped.items()}

    def spoke(self, session: str, now_ns: int) -> None:
        """Note speech: the session's room lives on."""
        room = self._room_of.get(session)
        if room is not None:
            room.last_speech_ns = now_ns

    def expire(self, now_ns: int) -> list[ExpiredRoom]:
        """Close the rooms without speech for the whole expiry; scanned every 60 s (domain 1.3)."""
        due = [r for r in self._rooms.values() if now_ns - r.last_speech_ns >= self._expiry_ns]
        expired: list[ExpiredRoom] = []
        for room in due:
            sessions = tuple(room.members)
            for session in sessions:
                del self._room_of[session]
            del self._rooms[room.code]
            expired.append(ExpiredRoom(room.code, sessions))
        return expired

    def _enter(
        self, room: Room, session: str, now_ns: int, name: str | None, language: str | None
    ) -> None:
        room.members[session] = Member(
            session=session,
            display_name=name,
            preferred_language=language,
            joined_ns=now_ns,
            raw_voice={},
        )
        self._room_of[session] = room

    def _free_code(self) -> str:
        number = 0
        for attempt in range(DRAWS_MAX):
            number = self._chance(attempt)
            assert 0 <= number < CODE_COUNT, "chance must stay below CODE_COUNT"
            if str(CODE_FIRST + number) not in self._rooms:
                break
        # Bounded: fewer rooms than codes. The reference falls back to six letters of a UUID here.
        while str(CODE_FIRST + number) in self._rooms:
            number = (number + 1) % CODE_COUNT
        return str(CODE_FIRST + number)
