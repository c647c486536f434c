"""
The letter that tells an instance that the client of one of its sessions has gone to another one.

Nothing is sent after the client: it asks there for what it has no answer to.
"""

from __future__ import annotations

from simsched import steps
from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.inbox import SessionMoved
from simsched.live.links import LiveLinks
from simsched.scheduler import Scheduler
from simsched.telemetry import OpKind


class Departures:
    """The letters of one instance."""

    def __init__(self, scheduler: Scheduler, links: LiveLinks) -> None:
        self._runtime = scheduler.runtime
        self._links = links
        self._entity = key_of("departures", scheduler.runtime.instance_id)

    def tell(self, session_id: str, left: str) -> None:
        """Tell the instance that had a session that its client is here now."""
        if left:
            event = SessionMoved(session_id, self._runtime.instance_id)
            self._runtime.start(self._send(left, event), name=f"came from {left}")

    async def _send(self, to: str, letter: SessionMoved) -> None:
        op = self._runtime.begin(OpKind.CONTROL, self._entity, 0)
        try:
            await self._links.to_instance(steps.INBOX_APPEND, op, to, letter)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)
