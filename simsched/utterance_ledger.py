"""
What the checker remembers of utterances: which are owed an answer, towards which languages.

An utterance is settled when every target of every language has its answer, or when nobody waits
for it any more: its instance died, its client has left or has connected anew. Asked for again on a
new connection, it is owed again. What breaches a promise is said elsewhere: see `conservation`.
"""

from __future__ import annotations

from collections import deque

from simsched.findings import Tail, forget_oldest
from simsched.ledger_entries import Lane, UtteranceEntry
from simsched.telemetry import ClientGone, Delivered, InstanceDown, SessionResumed, UtteranceCut


class UtteranceLedger:
    """The utterances of one run; `due` has those that are owed, in the order of time."""

    def __init__(self) -> None:
        self.due = deque[UtteranceEntry]()
        self._entries: dict[tuple[str, int], UtteranceEntry] = {}
        self._settled = Tail[tuple[str, int]](self._forget)
        self._homes: dict[str, str] = {}

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {
            "utterances": len(self._entries),
            "answers_due": len(self.due),
            "answered": len(self._settled),
        }

    def entry(self, session: str, index: int, at_ns: int) -> UtteranceEntry:
        """The utterance, owed from now on if it was not known."""
        key = (session, index)
        utterance = self._entries.get(key)
        if utterance is None:
            utterance = self._entries[key] = UtteranceEntry(key, at_ns)
            self.due.append(utterance)
        return utterance

    def lane(self, session: str, index: int, language: str, at_ns: int) -> Lane:
        """The utterance in one language, owed from now on if it was not known."""
        utterance = self.entry(session, index, at_ns)
        lane = utterance.lanes.get(language)
        if lane is None:
            lane = utterance.lanes[language] = Lane()
            self._owe(utterance)
        return lane

    def cut(self, event: UtteranceCut) -> None:
        """An answer is owed; asked for on a new connection, what was sent on the old one is not."""
        utterance = self.entry(event.session, event.utterance, event.at_ns)
        if utterance.is_stale:
            utterance.is_stale = False
            utterance.since_ns = event.at_ns
            for lane in utterance.lanes.values():
                lane.targets, lane.first = (), ""
            self._owe(utterance)
        utterance.instance = event.instance

    def _owe(self, utterance: UtteranceEntry) -> None:
        if utterance.settled:
            utterance.settled = False
            self.due.append(utterance)

    def settle(self, utterance: UtteranceEntry) -> None:
        """Nothing is owed for it any more."""
        if not utterance.settled:
            utterance.settled = True
            self._settled.push(utterance.key)

    def session_resumed(self, event: SessionResumed) -> None:
        """Its client is connected here now: who had it before answers into a dead socket."""
        self._homes.pop(event.session, None)
        self._homes[event.session] = event.instance
        forget_oldest(self._homes)
        for utterance in self._of(event.session):
            utterance.is_stale = True
            self.settle(utterance)

    def is_elsewhere(self, event: Delivered) -> bool:
        """Whether the client of a session has left the instance that answers."""
        return self._homes.get(event.session, event.instance) != event.instance

    def client_gone(self, event: ClientGone) -> None:
        """Nobody waits for the answers of this session any more."""
        for utterance in self._of(event.session):
            self.settle(utterance)

    def instance_down(self, event: InstanceDown) -> None:
        """It owes nothing any more."""
        for utterance in list(self._entries.values()):
            if utterance.instance == event.instance:
                self.settle(utterance)

    def _of(self, session: str) -> list[UtteranceEntry]:
        return [one for one in self._entries.values() if one.key[0] == session]

    def _forget(self, key: tuple[str, int]) -> None:
        utterance = self._entries.get(key)
        if utterance is not None and utterance.settled:
            del self._entries[key]
