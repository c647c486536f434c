"""
`/ws/session`: what a client's frames mean.

The first thing on a socket is `session_init`; its answer is the acknowledgement, or a refusal.
From then on the socket speaks for that session alone: a message that names another one is refused.
Audio comes as JSON or, if the client asked for it, as binary frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from simsched import wire
from simsched.errors import MessageError
from simsched.live import frames, refusals
from simsched.live.admission import RESUME_AFTER_MS
from simsched.live.connection import Connection
from simsched.live.refusals import Refusal
from simsched.messages import AudioChunk, Error, SessionInit, Utterance
from simsched.scheduler import UNKNOWN_SESSION
from simsched.units import MS

if TYPE_CHECKING:
    from simsched.live.instance import Instance


class ClientSocket:
    """
    One client's socket.

    Args:
        instance: whom it talks to.
        connection: the socket.
        shows_token: whether the opening handshake showed a valid token, or none is needed.

    """

    def __init__(self, instance: Instance, connection: Connection, *, shows_token: bool) -> None:
        self._instance = instance
        self._connection = connection
        self._known = shows_token
        self._binary = False
        self._told_ns = -RESUME_AFTER_MS * MS

    async def serve(self) -> None:
        """Read until the socket is closed, then let its session wait or end."""
        instance, connection = self._instance, self._connection
        server = instance.settings.server
        late = asyncio.get_running_loop().call_later(server.first_frame_s, self._too_late)
        pings = asyncio.create_task(
            connection.ping_regularly(server.client_ping_s, server.client_ping_timeout_s),
            name="client pings",
        )
        try:
            await frames.read(connection, self._take, instance.sink, instance.task_failed)
        finally:
            late.cancel()
            pings.cancel()
            instance.sessions.parted(connection)
            await connection.gone()

    def _too_late(self) -> None:
        if not self._connection.name:
            self._connection.refuse(refusals.NO_FIRST_FRAME)

    def _take(self, frame: bytes | str) -> Awaitable[None] | None:
        if isinstance(frame, str):
            message = wire.decode_client(frame)
            if isinstance(message, SessionInit):
                return self._open(message)
        elif self._binary:
            message = wire.decode_binary_chunk(frame, self._instance.runtime.now_ms())
        else:
            raise MessageError("binary frames were not agreed on (accept_binary_frame)")
        session_id = self._connection.name
        named = getattr(message, "session_id", session_id)
        if named != session_id or not self._instance.links.knows(session_id):
            self._stray(message, named)
            return None
        if isinstance(message, AudioChunk | Utterance):
            self._mind_the_load(is_new=False)
            if not self._is_wanted(session_id, message):
                return None
        self._instance.scheduler.from_client(session_id, message)
        return None

    def _is_wanted(self, session_id: str, message: AudioChunk | Utterance) -> bool:
        """Not so: streamed audio after a move, and what was answered since the client is back."""
        instance = self._instance
        if isinstance(message, AudioChunk):
            refusal = instance.sessions.streams(session_id)
            if refusal is not None:
                self._connection.send(refusal.message())
            return refusal is None
        return not (message.again and instance.links.has_told(session_id, message.utterance_index))

    def _open(self, init: SessionInit) -> Awaitable[None] | None:
        instance, connection = self._instance, self._connection
        if not self._known:
            name = instance.admission.name_of("client", init.token or "", connection.address)
            if name is None:
                connection.refuse(refusals.BAD_TOKEN)
                return None
            connection.client = name or connection.client
            self._known = True
        if instance.sessions.is_elsewhere(init):
            return self._come_here(init)
        self._opened(init, instance.sessions.open(init, connection))
        return None

    async def _come_here(self, init: SessionInit) -> None:
        """Nothing more is read meanwhile: the acknowledgement comes first."""
        self._opened(init, await self._instance.sessions.come_here(init, self._connection))

    def _opened(self, init: SessionInit, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._connection.refuse(refusal)
            return
        self._binary = bool(init.accept_binary_frame)
        self._mind_the_load(is_new=True)

    def _stray(self, message: object, named: str) -> None:
        """A message for no session, or for somebody else's (domain 1.3)."""
        refusal = refusals.NO_SESSION
        if named != self._connection.name and self._instance.links.knows(named):
            refusal = refusals.NOT_YOURS
        elif (code := UNKNOWN_SESSION.get(type(message))) is not None:
            refusal = Refusal(code=code, text=refusal.text)
        self._connection.send(Error(code=refusal.code, message=refusal.text))
        self._instance.sink.count("messages_stray", 1)

    def _mind_the_load(self, *, is_new: bool) -> None:
        """Ask for patience before anything has to be refused; once in a while is enough."""
        instance = self._instance
        now_ns = instance.runtime.now()
        if not is_new and now_ns - self._told_ns < RESUME_AFTER_MS * MS:
            return
        state = instance.scheduler.state
        asked = instance.admission.pressure(
            self._connection.client, len(state.pending), state.policy.pending_max, is_new=is_new
        )
        if asked is not None:
            self._told_ns = now_ns
            instance.sink.count("backpressure_sent", 1)
            self._connection.send(asked)
