"""
Who is there: signs of life, and what an instance does when another has gone.

Every instance gives a sign three times within `presence_ns`. Who has given none for so long counts
as gone, by the store's clock or, should that be put back, by our own: its nodes are not chosen any
more, and what they had of ours goes elsewhere at once. It may only have been paused: then its own
jobs go on when it wakes, fenced by their attempts, and its nodes count again as soon as it
announces them.

A session moves when its client resumes it here. It is ours from then on, in the store, so that its
old instance cannot answer for it any more; and what lies unread in the inbox of an instance that is
gone, for a session that is here now, is read from there. Jobs follow with their results: see
`ResultHandler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simsched import steps
from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.inbox import DispatchToNode, ForwardResult
from simsched.telemetry import Operation, OpKind
from simsched.units import MS, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from simsched.inbox import InboxEvent
    from simsched.recovery import Recovery
    from simsched.state import InstanceState

FORGOTTEN_NS: Final = 600 * SECOND
"""How long somebody who is gone is remembered, here as in `presence.lua`."""

SIGNS: Final = 3
"""How many signs of life an instance gives within the time after which it counts as gone."""


class Presence:
    """One instance's signs of life, and its watch over the others'."""

    def __init__(
        self,
        state: InstanceState,
        recovery: Recovery,
        take: Callable[[InboxEvent], None],
    ) -> None:
        self._state = state
        self._recovery = recovery
        self._take = take
        self._runtime = state.runtime
        self._store = state.store
        self._entity = key_of("presence", state.runtime.instance_id)
        # The last sign of everybody, and when it was first seen here.
        self._seen: dict[str, tuple[str, int]] = {}
        self._watched: dict[str, None] = {}
        self.on_forgotten: Callable[[], None] = lambda: None
        """Told that the store knows nothing of us any more."""

    async def run(self) -> None:
        """Give signs for as long as the instance lives."""
        while True:
            await self.look()
            await self._runtime.sleep(self._state.settings.presence_ns // SIGNS)

    async def look(self) -> None:
        """One sign, and one look at who gives none; a sign may be missed without harm."""
        if self._runtime.point("sign missed"):
            return
        op = self._runtime.begin(OpKind.BACKGROUND, self._entity, self._runtime.now())
        try:
            asked_ns = self._runtime.now()
            gone = await self._store.be_present(op, self._state.settings.presence_ns // MS)
            if self._store.forgot:
                self._runtime.telemetry.count("store_forgot")
                self.on_forgotten()
            await self._look_after(op, list(dict.fromkeys((*gone, *self._silent(asked_ns)))))
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    async def leave(self) -> None:
        """The last sign of life, and that it is the last."""
        op = self._runtime.begin(OpKind.CONTROL, self._entity, self._runtime.now())
        try:
            await self._store.be_gone(op)
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    def _silent(self, asked_ns: int) -> list[str]:
        """
        Who had given no new sign for too long when they were asked for, by our own clock.

        A store that forgot knows no dead, and one whose clock was put back knows them late.
        """
        now, signs, seen = self._runtime.now(), self._store.signs, self._seen
        for name, sign in signs.items():
            if name not in seen or seen[name][0] != sign:
                seen[name] = (sign, now)
        for name in [name for name, (_, at_ns) in seen.items() if now - at_ns > FORGOTTEN_NS]:
            if name not in signs:
                del seen[name]
        limit_ns, me = self._state.settings.presence_ns, self._runtime.instance_id
        return [
            name for name, (_, at_ns) in seen.items() if asked_ns - at_ns > limit_ns and name != me
        ]

    def heard_of(self, instance_id: str) -> None:
        """
        An instance has left something to us; it may have died before its first sign of life.

        If it gives none from now on, it is taken for gone like any other.
        """
        if instance_id != self._runtime.instance_id:
            self._seen.setdefault(instance_id, ("", self._runtime.now()))

    async def _look_after(self, op: Operation, gone: list[str]) -> None:
        before, self._state.gone_instances = self._state.gone_instances, tuple(gone)
        for name in gone:
            if name not in before:
                self._runtime.telemetry.count("instances_gone")
                await self._lose_nodes_of(name)
            await self.read_inbox_of(op, name)

    async def _lose_nodes_of(self, instance_id: str) -> None:
        """Its sockets are gone with it: our jobs on its nodes go elsewhere."""
        for node_id in self._state.cluster.lose_home(instance_id):
            await self._recovery.node_unreachable(node_id, "INSTANCE_GONE")

    async def read_inbox_of(self, op: Operation, instance_id: str) -> None:
        """What a gone instance has not read, as far as it is for sessions that are here now."""
        sessions = self._state.moved_here
        if not sessions:
            return
        events = await self._runtime.links.letters_of(
            steps.INBOX_APPEND, op, instance_id, tuple(sessions)
        )
        for event in events:
            if not isinstance(event, DispatchToNode):
                self._take(event)

    # Sessions that move

    async def session_moved(self, session_id: str, left: str = "") -> None:
        """
        A client goes on here: the session is ours, and what waits for it elsewhere too.

        `left` is where it was, if that is known: its inbox is looked at, whether it lives or not.
        """
        op = self._runtime.begin(OpKind.CONTROL, self._entity, self._runtime.now())
        self._state.moved_here[session_id] = None
        if left:
            self.heard_of(left)
        try:
            await self._store.own(op, "session", session_id)
            for name in dict.fromkeys((*self._state.gone_instances, *([left] if left else []))):
                await self.read_inbox_of(op, name)
            if left and left not in self._watched:
                self._runtime.start(self._watch_inbox_of(left), name=f"inbox of {left}")
        except StoreUnavailable:
            # The next claim or end of a job that meets the old owner says it again.
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)

    async def _watch_inbox_of(self, instance_id: str) -> None:
        """
        Look once a second into the inbox of an instance that may be dead, until that is known.

        Others who know no better than its claims still send it what is for sessions that left it.
        """
        self._watched[instance_id] = None
        op = self._runtime.begin(OpKind.BACKGROUND, self._entity, self._runtime.now())
        for _ in range(self._state.settings.presence_ns // SECOND + SIGNS):
            await self._runtime.sleep(SECOND)
            if instance_id in self._state.gone_instances or not self._state.moved_here:
                break
            try:
                await self.read_inbox_of(op, instance_id)
            except StoreUnavailable:
                self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)
        del self._watched[instance_id]


def session_of(event: InboxEvent) -> str:
    """The session that an entry of an inbox is for; "" if it is for none."""
    if isinstance(event, ForwardResult):
        return event.message.session_id
    return getattr(event, "session_id", "")
