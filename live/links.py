"""
Messages out of one instance: who is connected here, and what is kept for who will come back.

`LiveLinks` is the core's `Links`. Messages for a session whose socket was lost are kept, bounded,
until the client resumes or the session is over; an answer to an utterance that finds nobody in the
end is counted (`results_undelivered`), never dropped unseen. A node's messages are not kept: its
closed socket re-dispatches its jobs. Other instances are reached through the inbox.

It decides nothing; who may open, resume or close what is the sockets' business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from simsched.inbox import InboxEvent
from simsched.live.sinks import Sink
from simsched.messages import (
    Error,
    MissingResult,
    SessionCloseAck,
    TranslationResult,
    UiEvent,
    UiEventType,
)
from simsched.steps import Step
from simsched.telemetry import Operation

OUTCOMES: Final = (TranslationResult, MissingResult, Error)
"""What a client waits for; the rest is progress that a later outcome makes up for."""

KEPT_MAX: Final = 1_000
"""Messages that are kept for one session without a socket."""

SMALL_BYTES: Final = 512
"""What a message without audio counts for, about."""


class Peer(Protocol):
    """The part of a connection that messages go to."""

    def send(self, message: Any) -> bool:
        """Line a message up; False if it was not taken."""
        ...


class OtherInstances(Protocol):
    """The inboxes of the cell."""

    def broadcast(self, event: object) -> None:
        """Tell every other instance; may get lost."""

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        """Append to one instance's inbox; False if there is no such instance."""
        ...

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[InboxEvent]:
        """Take what is for these sessions out of the inbox of an instance that is gone."""
        ...


def size_of(message: object) -> int:
    """About how many bytes of memory a message holds."""
    return SMALL_BYTES + len(getattr(message, "tts_audio", None) or b"")


class _Kept:
    """What waits for one client to come back."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: deque[object] = deque()
        self.size = 0


class LiveLinks:
    """
    The registries of one instance's peers.

    Args:
        sink: where losses are counted.
        others: the other instances; None where there are none.
        kept_bytes_max: bytes kept for one session without a socket.

    Attributes:
        on_session_end: told when the core has ended a session, after its last message.

    """

    def __init__(
        self, sink: Sink, others: OtherInstances | None = None, *, kept_bytes_max: int = 8 << 20
    ) -> None:
        self._sink = sink
        self.others = others
        self._kept_bytes_max = kept_bytes_max
        self._clients: dict[str, Peer] = {}
        self._spoken: dict[Peer, dict[str, None]] = {}
        self._nodes: dict[str, Peer] = {}
        self._kept: dict[str, _Kept] = {}
        self._away: dict[str, None] = {}
        self._told: dict[str, dict[int, None]] = {}
        self.on_session_end: Callable[[str], None] = lambda _session: None

    # The core's side

    def to_client(self, session_id: str, message: object) -> bool:
        """Towards a client; kept if it may come back; False if nobody here knows the session."""
        peer = self._clients.get(session_id)
        sent = peer is not None and peer.send(message)
        if sent and session_id in self._told:
            self._note_told(session_id, message)
        kept = not sent and session_id in self._kept and self._keep(session_id, message)
        if not (sent or kept or session_id in self._away):
            self._undelivered(message)
        if type(message) is SessionCloseAck:
            self._end(session_id)
        return sent or kept

    def has_client(self, session_id: str) -> bool:
        """Whether the client of a session is connected here."""
        return session_id in self._clients

    def to_node(self, node_id: str, message: object) -> bool:
        """Towards a node, if its socket is here."""
        peer = self._nodes.get(node_id)
        return peer is not None and peer.send(message)

    def broadcast(self, event: object) -> None:
        """Tell every other instance something that may get lost."""
        if self.others is not None:
            self.others.broadcast(event)

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        """Append to another instance's inbox."""
        others = self.others
        return others is not None and await others.to_instance(step, op, instance_id, event)

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[InboxEvent]:
        """Take what is for these sessions out of the inbox of an instance that is gone."""
        if self.others is None:
            return []
        return await self.others.letters_of(step, op, instance_id, sessions)

    # The sockets' side: clients

    @property
    def sessions(self) -> tuple[str, ...]:
        """Sessions that have a socket here, or may get one again."""
        return tuple(self._kept)

    def sessions_of(self, peer: Peer) -> tuple[str, ...]:
        """The sessions that speak through this connection."""
        return tuple(self._spoken.get(peer, ()))

    def peer_of(self, session_id: str) -> Peer | None:
        """The connection of a session; None if it has none."""
        return self._clients.get(session_id)

    def knows(self, session_id: str) -> bool:
        """Whether the session was opened here and is not over."""
        return session_id in self._kept

    def kept_for(self, session_id: str) -> tuple[object, ...]:
        """What waits for a client to come back."""
        kept = self._kept.get(session_id)
        return tuple(kept.messages) if kept else ()

    def join(self, session_id: str, peer: Peer, *, again: bool = False) -> None:
        """
        The session speaks through this connection from now on; what was kept goes out first.

        `again`: it spoke through another one before, so its client may ask for answers again.
        """
        self._leave(session_id)
        if again:
            self._told[session_id] = {}
        self._clients[session_id] = peer
        self._spoken.setdefault(peer, {})[session_id] = None
        kept = self._kept.get(session_id)
        self._kept[session_id] = _Kept()
        for message in kept.messages if kept else ():
            self.to_client(session_id, message)

    def has_told(self, session_id: str, utterance: int) -> bool:
        """Whether an answer has gone out on the connection on which the client came back."""
        return utterance in self._told.get(session_id, ())

    def _note_told(self, session_id: str, message: object) -> None:
        outcome = isinstance(message, TranslationResult | MissingResult)
        failed = isinstance(message, UiEvent) and message.event is UiEventType.ERROR
        if not (outcome or failed) or getattr(message, "session_id", "") != session_id:
            return
        told = self._told[session_id]
        told[message.utterance_index] = None  # type: ignore[attr-defined]
        if len(told) > KEPT_MAX:
            del told[next(iter(told))]

    def depart(self, session_id: str) -> None:
        """The session goes on at another instance, where its client asks for what it lacks."""
        self._leave(session_id)
        self._told.pop(session_id, None)
        self._away[session_id] = None
        self._kept.pop(session_id, None)

    def come_back(self, session_id: str) -> None:
        """The session is here, whether or not it was away."""
        self._away.pop(session_id, None)

    def part(self, session_id: str, peer: Peer, left: Iterable[object]) -> bool:
        """
        The connection is gone, with messages left in its outbox.

        Returns False if the session is over, or speaks through another connection already.
        """
        if self._clients.get(session_id) is not peer:
            return False
        self._leave(session_id)
        later = self._kept[session_id].messages
        self._kept[session_id] = _Kept()
        for message in (*left, *later):
            self._keep(session_id, message)
        return True

    def _leave(self, session_id: str) -> None:
        peer = self._clients.pop(session_id, None)
        if peer is not None:
            spoken = self._spoken[peer]
            del spoken[session_id]
            if not spoken:
                del self._spoken[peer]

    def _keep(self, session_id: str, message: object) -> bool:
        kept, size = self._kept[session_id], size_of(message)
        if len(kept.messages) >= KEPT_MAX or kept.size + size > self._kept_bytes_max:
            return False
        kept.messages.append(message)
        kept.size += size
        return True

    def _end(self, session_id: str) -> None:
        """The session is over: what nobody fetched will never be."""
        self._leave(session_id)
        self._told.pop(session_id, None)
        self._away.pop(session_id, None)
        kept = self._kept.pop(session_id, None)
        for message in kept.messages if kept else ():
            self._undelivered(message)
        self.on_session_end(session_id)

    def _undelivered(self, message: object) -> None:
        if isinstance(message, OUTCOMES):
            self._sink.count("results_undelivered", 1)

    # The sockets' side: nodes

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes whose socket is here."""
        return tuple(self._nodes)

    def node_peer(self, node_id: str) -> Peer | None:
        """The connection of a node; None if it is not here."""
        return self._nodes.get(node_id)

    def join_node(self, node_id: str, peer: Peer) -> None:
        """The node speaks through this connection from now on."""
        self._nodes[node_id] = peer

    def part_node(self, node_id: str, peer: Peer) -> bool:
        """The connection is gone; False if the node speaks through another already."""
        if self._nodes.get(node_id) is not peer:
            return False
        del self._nodes[node_id]
        return True
