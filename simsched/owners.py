"""
Which sessions are connected here, written where every instance can read it.

The reference writes all of its sessions. The safe design writes only those that came from another
instance: of any other the claims of its jobs tell whose it is.
"""

from __future__ import annotations

from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.inbox import SessionMoved
from simsched.state import InstanceState
from simsched.telemetry import OpKind


class Owners:
    """What one instance says of its sessions."""

    def __init__(self, state: InstanceState) -> None:
        self._state = state
        self._runtime = state.runtime
        routing = state.policy.result_routing
        self._owns_all = state.settings.shared and routing == "session_owner"
        self._entity = key_of("instance", state.runtime.instance_id)

    def opened(self, session_id: str) -> None:
        """A session has begun here."""
        if self._owns_all:
            self._runtime.start(self._own(session_id), name=f"own {session_id}")

    async def _own(self, session_id: str) -> None:
        """Say in the store that the session is connected here, so that its results find it."""
        op = self._runtime.begin(OpKind.CONTROL, self._entity, self._runtime.now())
        try:
            await self._state.store.own(op, "session", session_id)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    def moved(self, event: SessionMoved) -> None:
        """Another instance has a session; not so if its letter lay in the inbox of who is gone."""
        if event.to != self._runtime.instance_id:
            self._state.moved_here.pop(event.session_id, None)

    async def run(self) -> None:
        """All local sessions, one by one, every heartbeat (domain 5.5)."""
        while True:
            await self._runtime.sleep(self._state.settings.heartbeat_ns)
            await self.say_again()

    async def say_again(self) -> None:
        """Every session that is ours to say so: one whose client has left is another's now."""
        if self._owns_all:
            for session_id in list(self._state.sessions):
                await self._own(session_id)
            return
        for session_id in list(self._state.moved_here):
            if self._runtime.links.has_client(session_id):
                await self._own(session_id)
            else:
                self._state.moved_here.pop(session_id, None)
