"""
The sessions of one instance and the sockets they speak through: opened, lost, resumed, ended.

Rules:

- the acknowledgement is the first frame that a session's socket gets, whatever happens;
- a socket carries one session at a time: the next `session_init` ends the one before as
  `session_close` would, and its last answers still come;
- a client that asked for a resume key may come back within `resume_s` after its socket was lost:
  what was said goes on meanwhile, and what was answered waits for it. Without a key, or after
  that time, the session is closed as if the client had closed it;
- with a store that instances share, a client that numbers its utterances itself may come back to
  any of them (`resumption`). Who streams audio may not: the numbers of its utterances are its
  instance's;
- a session that has gone to another instance is over here: its client asks there for what it lacks.

When an utterance ends and what becomes of it is the core's business.
"""

from __future__ import annotations

import asyncio

from msgspec import structs

from simsched.errors import StoreUnavailable
from simsched.live import refusals
from simsched.live.admission import Admission
from simsched.live.connection import Connection
from simsched.live.departures import Departures
from simsched.live.links import LiveLinks
from simsched.live.refusals import Refusal
from simsched.live.resumption import Keys, SessionRecords
from simsched.messages import SessionClose, SessionInit, SessionInitAck
from simsched.scheduler import Scheduler


class Sessions:
    """
    The book of sessions and sockets.

    Args:
        scheduler: the core.
        links: where messages for a session go.
        admission: what is counted and bounded.
        resume_s: how long a lost client may take to come back.
        records: what the instances of a cell know of each other's sessions; None if it is alone.

    """

    def __init__(
        self,
        scheduler: Scheduler,
        links: LiveLinks,
        admission: Admission,
        *,
        resume_s: float,
        records: SessionRecords | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._links = links
        self._admission = admission
        self._resume_s = resume_s
        self._keys = Keys()
        self._records = records
        self._departures = Departures(scheduler, links)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        if records is not None:
            records.on_moved = self.moved_away
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
            key = self._keys.make(ack.session_id)
            if self._records is not None:
                self._records.opened(ack.session_id, key)
        self._greet(ack, init, connection)
        return None

    def _resume(self, init: SessionInit, session_id: str, connection: Connection) -> Refusal | None:
        opens = self._keys.opens(session_id, init.resume_token or "")
        session = self._scheduler.state.sessions.get(session_id)
        if not (opens and self._links.knows(session_id)) or session is None or session.closing:
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
        self._scheduler.client_returned(session_id)
        self._greet(
            SessionInitAck(
                session_id=session_id, trace_id=session.trace_id, message="session resumed"
            ),
            init,
            connection,
        )
        return None

    # Sessions that come and go

    def is_elsewhere(self, init: SessionInit) -> bool:
        """Whether a client asks to go on with a session that is not here, but may be elsewhere."""
        session_id = init.resume_session_id
        if session_id is None or self._records is None:
            return False
        return not self._links.knows(session_id)

    async def come_here(self, init: SessionInit, connection: Connection) -> Refusal | None:
        """Go on with a session of another instance; None if that is what happens now."""
        session_id, key = init.resume_session_id, init.resume_token
        assert self._records is not None
        assert session_id is not None
        refusal = self._admission.may_open_session(connection.client)
        if refusal is not None:
            return refusal
        if not key:
            return refusals.NO_RESUME
        try:
            before = await self._records.take(session_id, key)
        except StoreUnavailable:
            return refusals.NO_STORE
        if before is None:
            return refusals.NO_RESUME
        if self._links.knows(session_id):  # its client was quicker, on another socket
            return self._resume(init, session_id, connection)
        if connection.name:
            self.close(connection.name, "replaced")
        me = self._scheduler.runtime.instance_id
        left = "" if before == me else before
        ack = self._scheduler.open_session(init, session_id=session_id, resumes=True, left=left)
        self._keys.put(session_id, key)
        self._links.come_back(session_id)
        self._admission.session_opened(session_id, connection.client)
        self._greet(structs.replace(ack, message="session resumed"), init, connection)
        self._departures.tell(session_id, left)
        return None

    def moved_away(self, session_id: str, to: str) -> None:
        """The client goes on at another instance, and asks there for what it lacks."""
        if to == self._scheduler.runtime.instance_id or not self._links.knows(session_id):
            return
        peer = self._links.peer_of(session_id)
        if isinstance(peer, Connection):
            self._links.part(session_id, peer, peer.take_back())
            peer.close(refusals.REPLACED)
        self._keys.drop(session_id)
        self._links.depart(session_id)
        self._admission.session_ended(session_id)
        timer = self._timers.pop(session_id, None)
        if timer is not None:
            timer.cancel()
        self.close(session_id, "moved to another instance")

    def streams(self, session_id: str) -> Refusal | None:
        """A client streams audio: from now on its session cannot move; why it may not, if so."""
        if session_id in self._scheduler.state.moved_here:
            return refusals.NO_STREAM
        if self._records is not None:
            self._records.over(session_id)
        return None

    # Greeting, losing and closing

    def _greet(self, ack: SessionInitAck, init: SessionInit, connection: Connection) -> None:
        """The acknowledgement, and only then whatever else there is."""
        connection.send(
            structs.replace(
                ack,
                use_binary_frame=bool(init.accept_binary_frame),
                resume_token=self._keys.get(ack.session_id),
            )
        )
        connection.opened(ack.session_id)
        self._links.join(ack.session_id, connection, again=init.resume_session_id is not None)

    def parted(self, connection: Connection) -> None:
        """A socket is gone: its sessions wait for their client, or end."""
        left = connection.take_back()
        for session_id in self._links.sessions_of(connection):
            own = [message for message in left if _is_for(message, session_id, connection.name)]
            self._links.part(session_id, connection, own)
            if session_id in self._keys and not self._admission.draining:
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
            if self._records is not None:
                self._records.over(session_id)
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
        self._keys.drop(session_id)
        if self._records is not None:
            self._records.over(session_id)
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
