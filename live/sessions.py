"""
The sessions of one instance and the sockets they speak through: opened, lost, resumed, ended.

Rules:

- the acknowledgement is the first frame that a session's socket gets, whatever happens;
- a socket carries one session at a time: the next `session_init` ends the one before as
  `session_close` would, and its last answers still come;
- a client that asked for a resume key may come back within `resume_s` after its socket was lost:
  what was said goes on meanwhile, and what was answered waits for it. Without a key, or after
  that time, the session is closed as if the client had closed it;
- a key is a keyed hash of the session's id: nothing to store, nothing to guess.

When an utterance ends and what becomes of it is the core's business.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Final

from msgspec import structs

from simsched.live import refusals
from simsched.live.admission import Admission
from simsched.live.connection import Connection
from simsched.live.links import LiveLinks
from simsched.live.refusals import Refusal
from simsched.messages import SessionClose, SessionInit, SessionInitAck
from simsched.scheduler import Scheduler

KEY_DIGITS: Final = 32


class Sessions:
    """
    The book of sessions and sockets.

    Args:
        scheduler: the core.
        links: where messages for a session go.
        admission: what is counted and bounded.
        resume_s: how long a lost client may take to come back.

    """

    def __init__(
        self, scheduler: Scheduler, links: LiveLinks, admission: Admission, *, resume_s: float
    ) -> None:
        self._scheduler = scheduler
        self._links = links
        self._admission = admission
        self._resume_s = resume_s
        self._secret = secrets.token_bytes(32)
        self._resumable: dict[str, None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        links.on_session_end = self._ended

    def __len__(self) -> int:
        return len(self._admission.sessions)

    @property
    def waiting(self) -> int:
        """Sessions whose client may come back."""
        return len(self._timers)

    def open(self, init: SessionInit, connection: Connection) -> Refusal | None:
        """Open the session that a client asks for, or go on with one; None if it was opened."""
        if init.resume_session_id is not None:
            return self._resume(init, init.resume_session_id, connection)
        refusal = self._admission.may_open_session(connection.client)
        if refusal is not None:
            return refusal
        if connection.name:
            self.close(connection.name, "replaced")
        ack = self._scheduler.open_session(init)
        self._admission.session_opened(ack.session_id, connection.client)
        if init.accept_resume:
            self._resumable[ack.session_id] = None
        self._greet(ack, init, connection)
        return None

    def _resume(self, init: SessionInit, session_id: str, connection: Connection) -> Refusal | None:
        key = self._key(session_id)
        given = (init.resume_token or "").encode()
        known = session_id in self._resumable and self._links.knows(session_id)
        if not hmac.compare_digest(key.encode(), given) or not known:
            return refusals.NO_RESUME
        session = self._scheduler.state.sessions.get(session_id)
        if session is None or session.closing:
            return refusals.NO_RESUME
        if connection.name not in ("", session_id):
            self.close(connection.name, "replaced")
        before = self._links.peer_of(session_id)
        if isinstance(before, Connection) and before is not connection:
            self._links.part(session_id, before, before.take_back())
            before.close(refusals.REPLACED)
        timer = self._timers.pop(session_id, None)
        if timer is not None:
            timer.cancel()
        self._greet(
            SessionInitAck(
                session_id=session_id, trace_id=session.trace_id, message="session resumed"
            ),
            init,
            connection,
        )
        return None

    def _greet(self, ack: SessionInitAck, init: SessionInit, connection: Connection) -> None:
        """The acknowledgement, and only then whatever else there is."""
        resumable = ack.session_id in self._resumable
        connection.send(
            structs.replace(
                ack,
                use_binary_frame=bool(init.accept_binary_frame),
                resume_token=self._key(ack.session_id) if resumable else None,
            )
        )
        connection.opened(ack.session_id)
        self._links.join(ack.session_id, connection)

    def _key(self, session_id: str) -> str:
        return hmac.digest(self._secret, session_id.encode(), "sha256").hex()[:KEY_DIGITS]

    def parted(self, connection: Connection) -> None:
        """A socket is gone: its sessions wait for their client, or end."""
        left = connection.take_back()
        for session_id in self._links.sessions_of(connection):
            own = [message for message in left if _is_for(message, session_id, connection.name)]
            self._links.part(session_id, connection, own)
            if session_id in self._resumable and not self._admission.draining:
                self._timers[session_id] = asyncio.get_running_loop().call_later(
                    self._resume_s, self._give_up, session_id
                )
            else:
                self.close(session_id, "connection lost")

    def _give_up(self, session_id: str) -> None:
        self._timers.pop(session_id, None)
        self.close(session_id, "connection lost")

    def close(self, session_id: str, reason: str) -> None:
        """Finish what was said, then end the session; once is enough."""
        session = self._scheduler.state.sessions.get(session_id)
        if session is not None and not session.closing:
            self._scheduler.from_client(
                session_id, SessionClose(session_id=session_id, reason=reason)
            )

    def failed(self, session_id: str) -> None:
        """The core can do nothing more for a session: its client is told, and it is forgotten."""
        peer = self._links.peer_of(session_id)
        self._scheduler.abandon_session(session_id)
        if isinstance(peer, Connection):
            peer.refuse(refusals.INTERNAL)

    def _ended(self, session_id: str) -> None:
        """The core has said its last word to a session."""
        self._resumable.pop(session_id, None)
        timer = self._timers.pop(session_id, None)
        if timer is not None:
            timer.cancel()
        self._admission.session_ended(session_id)

    def stop(self) -> None:
        """Wait for nobody any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


def _is_for(message: object, session_id: str, current: str) -> bool:
    """Whose a message of a shared outbox is; one that names nobody is for the current session."""
    return getattr(message, "session_id", current) == session_id
