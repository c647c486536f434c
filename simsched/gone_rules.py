"""
Nodes whose socket has closed: nobody is given a slot of theirs any more (I10).

Whoever a node was connected to tells the store, and the store gives no more slots of it until it is
connected again, however little other instances have heard. Judged where the world tells what it
breaks: an instance that is kept from acting tells nobody, and a store may forget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from simsched.findings import CheckSettings, Findings, forget_oldest
from simsched.telemetry import Event, NodeOffline, NodeRegistered, SlotTaken

CLOSED: Final = "socket_closed"
"""Why a node is gone that only a new connection brings back."""


class GoneRules:
    """Slots of nodes that are gone; `acts_since`: until when an instance is kept from acting."""

    def __init__(
        self, settings: CheckSettings, findings: Findings, acts_since: Callable[[str], int]
    ) -> None:
        self._grace_ns = settings.scan_ns
        self._told = settings.told
        self._findings = findings
        self._checked = findings.checked
        self._acts_since = acts_since
        self._gone: dict[str, NodeOffline] = {}
        self._homes: dict[str, str] = {}

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {"gone": len(self._gone), "homes": len(self._homes)}

    def rules(self) -> dict[type[Event], Callable[[Any], None]]:
        """Which events concern these rules."""
        return {
            NodeOffline: self.node_offline,
            NodeRegistered: self.node_registered,
            SlotTaken: self.slot_taken,
        }

    def node_offline(self, event: NodeOffline) -> None:
        """Its instance has seen it go; one that it has left before has nothing to tell."""
        at_home = self._homes.get(event.node, event.instance) == event.instance
        if event.reason == CLOSED and at_home:
            self._gone[event.node] = event
            forget_oldest(self._gone)

    def node_registered(self, event: NodeRegistered) -> None:
        """It is back, here or elsewhere."""
        self._gone.pop(event.node, None)
        self._homes[event.node] = event.instance
        forget_oldest(self._homes)

    def slot_taken(self, event: SlotTaken) -> None:
        """A slot is given, not renewed."""
        gone = self._gone.get(event.node)
        if gone is None or not event.live or not self._told:
            return
        self._checked["I10"] += 1
        late = event.at_ns - gone.at_ns > self._grace_ns
        if late and self._acts_since(gone.instance) < gone.at_ns:
            del self._gone[event.node]  # once for each time that it goes
            self._findings.add(
                "I10", event.at_ns, event.job,
                f"{event.job} is given a slot of {event.node}, gone since {gone.at_ns}",
                event.instance,
            )  # fmt: skip
