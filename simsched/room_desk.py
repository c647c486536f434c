"""
Rooms: who enters and leaves, what the members are told, and calls passed between them.

The shell around `rooms`: it turns messages into moves of the book and the book's answers into
messages. Descriptions of calls are passed on unread. An instance's rooms hold sessions of that
instance only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import structs

from simsched.messages import (
    Participant,
    RoomCreate,
    RoomCreateAck,
    RoomError,
    RoomErrorCode,
    RoomExpired,
    RoomJoin,
    RoomLeave,
    RoomMembers,
    RoomRawVoicePreference,
    WebrtcAnswer,
    WebrtcIce,
    WebrtcOffer,
)
from simsched.rooms import Member, RoomRefusal
from simsched.state import InstanceState, Session
from simsched.units import MS, rfc3339

Call = WebrtcOffer | WebrtcAnswer | WebrtcIce

ROOM_MESSAGES: Final = (
    RoomCreate, RoomJoin, RoomLeave, RoomRawVoicePreference, WebrtcOffer, WebrtcAnswer, WebrtcIce,
)  # fmt: skip
"""The messages that come to this desk."""


class RoomDesk:
    """Takes the room messages of the sessions of one instance."""

    def __init__(self, state: InstanceState) -> None:
        self._state = state
        self._runtime = state.runtime
        self._rooms = state.rooms
        self._receivers: dict[type, Callable[[Session, Any], None]] = {
            RoomCreate: self._create,
            RoomJoin: self._join,
            RoomLeave: self._leave,
            RoomRawVoicePreference: self._raw_voice,
            WebrtcOffer: self._pass_on,
            WebrtcAnswer: self._pass_on,
            WebrtcIce: self._pass_on,
        }

    def receive(self, session: Session, message: object) -> None:
        """One message of a session."""
        self._receivers[type(message)](session, message)

    def leave(self, session_id: str) -> None:
        """The session ends: it leaves its room, and the others see it go."""
        code = self._rooms.leave(session_id)
        if code is not None:
            self._tell_members(code)

    async def watch(self) -> None:
        """Close rooms in which nobody speaks, for as long as the instance lives."""
        while True:
            await self._runtime.sleep(self._state.settings.room_scan_ns)
            for expired in self._rooms.expire(self._runtime.now()):
                message = RoomExpired(
                    room_code=expired.code, message="Room closed: nobody spoke for 30 minutes"
                )
                for session_id in expired.sessions:
                    self._runtime.links.to_client(session_id, message)

    def _create(self, session: Session, message: RoomCreate) -> None:
        code = self._rooms.create(
            session.session_id, self._runtime.now(), display_name=message.display_name,
            preferred_language=message.preferred_lang,
        )  # fmt: skip
        if isinstance(code, RoomRefusal):
            self._refuse(session, RoomErrorCode(code.value))
            return
        room_id = self._runtime.chance.hex_id("room-", 16, "room", code, self._runtime.now())
        self._send(session.session_id, RoomCreateAck(room_code=code, room_id=room_id))
        self._tell_members(code)

    def _join(self, session: Session, message: RoomJoin) -> None:
        refusal = self._rooms.join(
            session.session_id, message.room_code, self._runtime.now(),
            display_name=message.display_name, preferred_language=message.preferred_lang,
        )  # fmt: skip
        if refusal is not None:
            self._refuse(session, RoomErrorCode(refusal.value))
            return
        self._tell_members(message.room_code)

    def _leave(self, session: Session, message: RoomLeave) -> None:
        if self._is_in(session, message.room_code):
            self.leave(session.session_id)

    def _raw_voice(self, session: Session, message: RoomRawVoicePreference) -> None:
        if not self._is_in(session, message.room_code):
            return
        known = self._rooms.set_raw_voice(
            session.session_id, message.target_session_id, receive=message.receive_raw_voice
        )
        if known:
            self._tell_members(message.room_code)

    def _pass_on(self, session: Session, message: Call) -> None:
        """On the way out, `to` says who it is from."""
        if not self._is_in(session, message.room_code):
            return
        if message.to in self._rooms.others(session.session_id):
            self._send(message.to, structs.replace(message, to=session.session_id))

    def _is_in(self, session: Session, code: str) -> bool:
        """Whether the session is in that room; if not, it is told."""
        inside = self._rooms.code_of(session.session_id) == code
        if not inside:
            self._refuse(session, RoomErrorCode.ROOM_NOT_FOUND)
        return inside

    def _refuse(self, session: Session, code: RoomErrorCode) -> None:
        self._send(session.session_id, RoomError(code=code))

    def _tell_members(self, code: str) -> None:
        members = self._rooms.members(code)
        message = RoomMembers(
            room_code=code, members=tuple(self._participant(member) for member in members)
        )
        for member in members:
            self._send(member.session, message)

    def _participant(self, member: Member) -> Participant:
        ago_ms = (self._runtime.now() - member.joined_ns) // MS
        return Participant(
            participant_id=member.session,
            session_id=member.session,
            joined_at=rfc3339((self._runtime.now_ms() - ago_ms) // 1_000),
            display_name=member.display_name,
            preferred_lang=member.preferred_language,
            raw_voice_preferences=dict(member.raw_voice) or None,
        )

    def _send(self, session_id: str, message: object) -> None:
        self._runtime.links.to_client(session_id, message)
