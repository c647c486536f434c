"""
The story of a run: events of the core, calls of the store and faults as lines for a reader.

Only what matters to follow a fault is told: not every step, not every heartbeat. A line says who
did what, when, and with which result; the words are those of the event catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from simsched.telemetry import (
    ClientAsked,
    ClientHeard,
    Delivered,
    Event,
    InstanceDown,
    JobAdopted,
    JobAssigned,
    JobCreated,
    JobDispatched,
    JobEnded,
    JobQueued,
    JobRefused,
    JobRepeated,
    NodeOffline,
    NodeRegistered,
    NodeRunning,
    ResultAccepted,
    ResultReceived,
    ResultSuppressed,
    SessionClosed,
    SessionOpened,
    SessionResumed,
    SlotFreed,
    SlotsForgotten,
    SlotTaken,
    UtteranceCut,
)


class Line(NamedTuple):
    """One thing that happened."""

    at_ns: int
    who: str
    what: str
    result: str


Story = Callable[[Line], None]
"""Takes the lines of a run in their order."""

_WORDS: Final[dict[type[Event], Callable[[Any], tuple[str, str]]]] = {
    SessionOpened: lambda e: (f"opens session {e.session}", ""),
    SessionResumed: lambda e: (f"goes on with session {e.session}", ""),
    ClientAsked: lambda e: (f"{e.session} asks for utterance {e.utterance}", ""),
    ClientHeard: lambda e: (f"{e.session} hears the answer to utterance {e.utterance}", e.outcome),
    SessionClosed: lambda e: (f"closes session {e.session}", ""),
    UtteranceCut: lambda e: (f"cuts utterance {e.utterance} of {e.session}", e.reason),
    JobCreated: lambda e: (
        f"creates {e.job} for utterance {e.utterance} of {e.session}",
        f"attempt {e.attempt} on {e.node}" if e.node else "no node",
    ),
    JobRepeated: lambda e: (f"finds that utterance {e.utterance} of {e.session} has", e.job),
    JobRefused: lambda e: (f"refuses utterance {e.utterance} of {e.session}", e.reason),
    JobQueued: lambda e: (f"puts {e.job} in line", e.reason),
    JobAssigned: lambda e: (f"gives {e.job}", f"attempt {e.attempt} to {e.node}"),
    JobDispatched: lambda e: (f"sends {e.job}", f"attempt {e.attempt} to {e.node}"),
    JobAdopted: lambda e: (f"follows {e.job}", f"attempt {e.attempt} on {e.node}"),
    JobEnded: lambda e: (f"ends {e.job}", f"{e.status} {e.reason}".strip()),
    ResultReceived: lambda e: (
        f"hears {e.node} answer {e.job} attempt {e.attempt}",
        "success" if e.success else "failure",
    ),
    ResultAccepted: lambda e: (f"accepts the result of {e.job} attempt {e.attempt}", ""),
    ResultSuppressed: lambda e: (f"drops the result of {e.job} attempt {e.attempt}", e.reason),
    Delivered: lambda e: (
        f"answers utterance {e.utterance} of {e.session}", f"{e.outcome} {e.reason}".strip()
    ),
    SlotTaken: lambda e: (f"takes a slot of {e.node} for {e.job}", f"{e.live} of {e.slots}"),
    SlotFreed: lambda e: (f"frees the slot of {e.job} attempt {e.attempt}", e.node),
    SlotsForgotten: lambda e: (f"resets the reservations of {e.node}", ""),
    NodeRegistered: lambda e: (f"registers {e.node}", f"{e.slots} slots"),
    NodeOffline: lambda e: (f"takes {e.node} for gone", e.reason),
    NodeRunning: lambda e: (
        f"{'starts' if e.started else 'stops'} {e.job} attempt {e.attempt}",
        f"{e.running} of {e.slots}",
    ),
    InstanceDown: lambda _: ("is dead", ""),
}  # fmt: skip


def line_of(event: Event) -> Line | None:
    """What the event tells a reader; None if it is not worth a line."""
    words = _WORDS.get(type(event))
    if words is None:
        return None
    what, result = words(event)
    who = event.instance or getattr(event, "node", "") or "world"
    return Line(event.at_ns, who, what, result)
