"""
Who is there: signs of life, and what an instance does when another has gone.

Every instance gives a sign three times within `presence_ns`. Who has given none for so long counts
as gone: its nodes are not chosen any more, and what they had of ours goes elsewhere at once. It may
only have been paused: then its own jobs go on when it wakes, fenced by their attempts, and its
nodes count again as soon as it announces them.

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
from simsched.inbox import DispatchToNode, ForwardResult, SendToSession
from simsched.jobs import job_name
from simsched.telemetry import Operation, OpKind
from simsched.units import MS, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from simsched.delivery import Answer, Delivery
    from simsched.dispatch import JobDispatcher
    from simsched.inbox import InboxEvent
    from simsched.recovery import Recovery
    from simsched.state import InstanceState

PASS_ON_TRIES: Final = 30
"""How often, once a second, it is asked where a client has gone before its answer is given up."""

SIGNS: Final = 3
"""How many signs of life an instance gives within the time after which it counts as gone."""


class Presence:
    """One instance's signs of life, and its watch over the others'."""

    def __init__(
        self,
        state: InstanceState,
        recovery: Recovery,
        dispatcher: JobDispatcher,
        delivery: Delivery,
        take: Callable[[InboxEvent], None],
    ) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._recovery = recovery
        self._take = take
        self._runtime = state.runtime
        self._store = state.store
        self._entity = key_of("presence", state.runtime.instance_id)
        self._watched: dict[str, None] = {}
        self.on_forgotten: Callable[[], None] = lambda: None
        """Told that the store knows nothing of us any more."""

    async def run(self) -> None:
        """Give signs for as long as the instance lives."""
        while True:
            await self.look()
            await self._runtime.sleep(self._state.settings.presence_ns // SIGNS)

    async def look(self) -> None:
        """One sign, and one look at who gives none."""
        op = self._runtime.begin(OpKind.BACKGROUND, self._entity, self._runtime.now())
        try:
            gone = await self._store.be_present(op, self._state.settings.presence_ns // MS)
            if self._store.forgot:
                self._runtime.telemetry.count("store_forgot")
                self.on_forgotten()
            await self._look_after(op, gone)
            for session_id in list(self._state.moved_here):
                await self._drop_answered(op, session_id)
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
        while session_id in self._state.moved_here:
            try:
                await self._store.own(op, "session", session_id)
                await self._drop_answered(op, session_id)
                for name in dict.fromkeys((*self._state.gone_instances, *([left] if left else []))):
                    await self.read_inbox_of(op, name)
                if left and left not in self._watched:
                    self._runtime.start(self._watch_inbox_of(left), name=f"inbox of {left}")
                break
            except StoreUnavailable:
                self._runtime.telemetry.count("store_unavailable")
                await self._runtime.sleep(SECOND)
                if not self._runtime.links.has_client(session_id):
                    break  # it has moved on meanwhile
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

    async def _drop_answered(self, op: Operation, session_id: str) -> None:
        """Its client was elsewhere for a while: what was answered there is over here, too."""
        jobs = [job for job in self._state.book.jobs.values() if not job.ended]
        for job in jobs:
            if job.request.session_id == session_id and job.attempt:
                _, _, done = await self._store.claim_of(op, job.job_id)
                if done and not job.ended:
                    self._dispatcher.yield_to_other(job, is_over=True)
        session = self._state.sessions.get(session_id)
        for utterance, language in list(session.held_places) if session is not None else ():
            _, _, done = await self._store.claim_of(op, job_name(session_id, utterance, language))
            if done and session is not None:
                self._delivery.elsewhere(session, utterance, language, is_over=True)

    def answer_elsewhere(self, answer: Answer, target: str) -> None:
        """The client of an answer is not here: pass it on to where its session has moved."""
        if target == answer.session_id:  # a member of a room is where it is
            self._runtime.start(self._pass_on(answer), name=f"pass on to {target}")

    async def _pass_on(self, answer: Answer) -> None:
        """Once a second, until the client is found, here or elsewhere, or is away for long."""
        op = self._runtime.begin(OpKind.CONTROL, self._entity, self._runtime.now())
        for _ in range(PASS_ON_TRIES):
            try:
                if await self._passed_on(op, answer):
                    break
            except StoreUnavailable:
                self._runtime.telemetry.count("store_unavailable")
            await self._runtime.sleep(SECOND)
            if self._delivery.reaches(answer, answer.session_id, gap=True):
                break
        self._runtime.end(op)

    async def _passed_on(self, op: Operation, answer: Answer) -> bool:
        owner = await self._store.owner_of(op, "session", answer.session_id, site=4)
        if owner in ("", self._runtime.instance_id):
            return False
        event = SendToSession(
            session_id=answer.session_id, message=answer.message, utterance=answer.utterance,
            language=answer.language, job=answer.job_id, outcome=answer.outcome,
            reason=answer.reason,
        )  # fmt: skip
        return await self._runtime.links.to_instance(steps.INBOX_APPEND, op, owner, event)


def session_of(event: InboxEvent) -> str:
    """The session that an entry of an inbox is for; "" if it is for none."""
    if isinstance(event, ForwardResult):
        return event.message.session_id
    return getattr(event, "session_id", "")
