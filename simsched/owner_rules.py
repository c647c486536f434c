"""
Whose a session is, by the store's own word, and whether instance and store go by it (I12).

A session that moves is its new instance's at once: the store gives no slot for it to any other, and
takes no end from any other. Whatever else would make up for a lapse, the store itself must not
lapse; so the world looks at what the store knew when it granted something (`GrantedFor`), and
whether it knows where the sessions are that have moved (`OwnerStored`). Both events are the world's
own and in no recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simsched.findings import CheckSettings, Findings, forget_oldest
from simsched.telemetry import Event


class GrantedFor(Event, tag="granted_for"):
    """
    The world's truth: `asker` was given a slot for a job, or has ended it (`what`).

    The store knew `owner` for the instance that has its session.
    """

    job: str
    what: str
    asker: str
    owner: str


class OwnerStored(Event, tag="owner_stored"):
    """The world's truth: a session has moved to `instance`; the store says it is at `owner`."""

    session: str
    owner: str


class OwnerRules:
    """Judges by what the store knew; `acts_since`: until when an instance is kept from acting."""

    def __init__(
        self, settings: CheckSettings, findings: Findings, acts_since: Callable[[str], int]
    ) -> None:
        self._grace_ns = settings.scan_ns
        self._findings = findings
        self._checked = findings.checked
        self._acts_since = acts_since
        self._wrong_ns: dict[tuple[str, str], int] = {}

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {"owners": len(self._wrong_ns)}

    def rules(self) -> dict[type[Event], Callable[[Any], None]]:
        """Which events concern these rules."""
        return {GrantedFor: self.granted_for, OwnerStored: self.owner_stored}

    def granted_for(self, event: GrantedFor) -> None:
        """Only whoever has the session is heard."""
        self._checked["I12"] += 1
        if event.asker != event.owner:
            self._findings.add(
                "I12", event.at_ns, event.job,
                f"the store granted the {event.what} of {event.job} to {event.asker} while its "
                f"session was {event.owner}'s",
            )  # fmt: skip

    def owner_stored(self, event: OwnerStored) -> None:
        """Who has taken a session over has said so."""
        self._checked["I12"] += 1
        key = (event.session, event.instance)
        if event.owner == event.instance:
            self._wrong_ns.pop(key, None)
            return
        since_ns = self._wrong_ns.setdefault(key, event.at_ns)
        forget_oldest(self._wrong_ns)
        # Who had it before may say so once more, late, until the store tells it otherwise.
        acting = (event.instance, event.owner)
        since_ns = max(since_ns, *(self._acts_since(name) for name in acting if name))
        if event.at_ns - since_ns >= self._grace_ns:
            self._findings.add(
                "I12", event.at_ns, event.session,
                f"{event.session} has moved to {event.instance}, and the store takes it for "
                f"{event.owner or 'nobody'}'s",
                event.instance,
            )  # fmt: skip
