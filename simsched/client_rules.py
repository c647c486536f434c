"""
What clients themselves saw: every utterance that they asked for answered once, in order (I3, I6).

The word of the client counts: an instance may have answered into a socket that was already dead.
A client that has lost its connection asks again, on its next one, for what it has no answer to.
Sessions whose clients are not observed are judged by what instances say they sent: see
`conservation`.
"""

from __future__ import annotations

from typing import Final

from simsched.findings import Findings, Tail
from simsched.telemetry import ClientAsked, ClientGone, ClientHeard

REFUSAL: Final = "error"
"""An answer after which a client may ask once more."""


class _Asked:
    """One utterance that a client asked for."""

    __slots__ = ("asks", "connection", "outcome")

    def __init__(self) -> None:
        self.asks = 0
        self.connection = 0
        self.outcome = ""


class _Client:
    """One session of a client: what it asked, and how far its answers have come."""

    __slots__ = ("asked", "connection", "mark")

    def __init__(self) -> None:
        self.asked: dict[int, _Asked] = {}
        self.connection = 0
        self.mark = -1


class ClientRules:
    """Asks and answers, by session."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._checked = findings.checked
        self._clients: dict[str, _Client] = {}
        self._gone: Tail[str] = Tail(self._forget)

    def __contains__(self, session: object) -> bool:
        """Whether the client of a session is observed."""
        return session in self._clients

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {"clients": len(self._clients), "clients_gone": len(self._gone)}

    def asked(self, event: ClientAsked) -> None:
        """An answer is owed from now on, on this connection."""
        client = self._clients.setdefault(event.session, _Client())
        if event.connection != client.connection:
            client.connection, client.mark = event.connection, -1
        entry = client.asked.setdefault(event.utterance, _Asked())
        entry.asks += 1
        entry.connection = event.connection
        if entry.outcome == REFUSAL:
            entry.outcome = ""

    def heard(self, event: ClientHeard) -> None:
        """One answer, to something that was asked, and not after a later one's."""
        client = self._clients.get(event.session)
        entry = client.asked.get(event.utterance) if client is not None else None
        self._checked["I3"] += 1
        self._checked["I6"] += 1
        if client is None or entry is None:
            self._add("I3", event, f"I3 unasked: utterance {event.utterance} was answered")
        elif entry.outcome:
            self._add(
                "I3", event,
                f"I3 twice: the client heard utterance {event.utterance} again "
                f"({event.outcome}, first {entry.outcome})",
            )  # fmt: skip
        else:
            entry.outcome = event.outcome
            self._in_order(client, entry, event)

    def _in_order(self, client: _Client, entry: _Asked, event: ClientHeard) -> None:
        """What is asked again on the same connection may come late; anything else may not."""
        if event.utterance > client.mark:
            client.mark = event.utterance
        elif entry.asks == 1:
            self._add(
                "I6", event, f"the client heard utterance {event.utterance} after a later one"
            )

    def _add(self, name: str, event: ClientHeard, text: str) -> None:
        self._findings.add(name, event.at_ns, event.session, text, event.instance)

    def gone(self, event: ClientGone) -> None:
        """It waits for nothing any more."""
        if event.session in self._clients:
            self._clients[event.session].asked.clear()
            self._gone.push(event.session)

    def _forget(self, session: str) -> None:
        self._clients.pop(session, None)

    def finish(self, now_ns: int) -> None:
        """The run is over: who still waits was forgotten."""
        for session, client in self._clients.items():
            for utterance, entry in client.asked.items():
                if not entry.outcome:
                    self._checked["I3"] += 1
                    self._findings.add(
                        "I3", now_ns, session,
                        f"I3 missing: the client got no answer to utterance {utterance}",
                    )  # fmt: skip
