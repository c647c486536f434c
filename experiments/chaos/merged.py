"""
One stream of events out of the recordings of all instances, in the order of this machine's clock.

Every instance records against its own start; the header says when that was on the monotonic clock
that all processes of a machine share. Facts are written as they happen (`record.at_once`), so a
killed instance loses none of its own; what it had not yet said by then never happened. Added are
the world's truths, which no instance can know: who was killed, who left, what was broken.

And what clients asked and heard themselves: by their word it is judged who was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from simsched.errors import SimschedError
from simsched.experiments.chaos.breaking import Hit
from simsched.experiments.chaos.speakers import Notes, Seen
from simsched.experiments.chaos.system import Death
from simsched.experiments.recorded import HEADER, check_settings, header_of
from simsched.invariants import CheckSettings
from simsched.telemetry import (
    AnyEvent,
    ClientAsked,
    ClientGone,
    ClientHeard,
    Delivered,
    Disturbed,
    Event,
    InstanceDown,
    StoreLost,
)
from simsched.units import SECOND

AFTERMATH_NS: Final = 3 * SECOND
"""How long after a fault has ended its consequences may still show, as in the simulated world."""

EVENTS: Final = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Recording:
    """One life of one instance; moments are of the monotonic clock."""

    name: str
    header: dict[str, Any]
    events: list[Event]


def read_recordings(folder: Path) -> list[Recording]:
    """
    Every recording below a folder, by name; one that never began to serve is left out.

    Raises:
        SimschedError: one cannot be read.

    """
    found = []
    for path in sorted(folder.iterdir()):
        if (path / HEADER).is_file():
            header = header_of(path)
            origin_ns = int(header["origin_ns"])
            found.append(Recording(path.name, header, _events(path / EVENTS, origin_ns)))
    return found


def _events(path: Path, origin_ns: int) -> list[Event]:
    decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(AnyEvent)
    events: list[Event] = []
    last_ns = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break  # half written when it was killed
            try:
                event = decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise SimschedError(f"{path}: line {number}: {error}") from None
            # An event may tell of a moment just past; the order of an instance is its file's.
            last_ns = max(last_ns, event.at_ns)
            events.append(_moved(event, last_ns + origin_ns))
    return events


_TIMES: Final = ("expires_ns", "deadline_ns", "until_ns", "first_audio_ns", "last_audio_ns")
"""Moments besides `at_ns`; 0 and below mean none."""


def _moved(event: Event, at_ns: int) -> Event:
    """The event at another moment, and the moments that it tells of moved as far."""
    by_ns = at_ns - event.at_ns
    changes = {"at_ns": at_ns}
    for name in _TIMES:
        value = getattr(event, name, 0)
        if value > 0:
            changes[name] = value + by_ns
    return msgspec.structs.replace(event, **changes)


def settings_of(recordings: Sequence[Recording]) -> CheckSettings:
    """
    The bounds by which the run is judged: every instance was started with the same.

    Raises:
        SimschedError: nothing was recorded.

    """
    if not recordings:
        raise SimschedError("no instance recorded anything")
    return replace(check_settings(recordings[0].header), nodes_alike=True)


def truths(
    deaths: Iterable[Death], hits: Iterable[Hit], forgot: Iterable[int], notes: Notes
) -> list[Event]:
    """What no instance can say of itself; within one moment the world comes before the clients."""
    told: list[Event] = [InstanceDown(at_ns=death.gone_ns, instance=death.name) for death in deaths]
    told += [
        Disturbed(
            at_ns=hit.began_ns, instance="", until_ns=hit.ended_ns + AFTERMATH_NS,
            kind=hit.fault.kind, target=hit.fault.target,
        )
        for hit in hits
    ]  # fmt: skip
    told += [StoreLost(at_ns=at_ns, instance="") for at_ns in forgot]
    return [*told, *words_of_clients(notes)]


def words_of_clients(notes: Notes) -> list[Event]:
    """What clients asked, heard and left."""
    told: list[Event] = [
        ClientAsked(
            at_ns=one.at_ns, instance="", session=one.session, utterance=one.utterance,
            connection=one.connection,
        )
        for one in notes.asked
    ]  # fmt: skip
    told += [
        ClientHeard(
            at_ns=one.at_ns, instance=one.instance, session=one.session, utterance=one.utterance,
            connection=one.connection, outcome=one.outcome,
        )
        for one in notes.seen
    ]  # fmt: skip
    told += [ClientGone(at_ns=at, instance="", session=session) for at, session in notes.left]
    return told


def in_order(*streams: Iterable[Event]) -> list[Event]:
    """All events by their moment; the order within one stream stays."""
    return sorted((event for stream in streams for event in stream), key=lambda one: one.at_ns)


def unseen(events: Iterable[Event], notes: Notes) -> tuple[int, list[Seen]]:
    """
    How many answers left an instance and were seen by nobody; and those seen that none sent.

    An answer that did not reach its client, because the socket broke, is asked for again.
    """
    sent = Counter(
        (event.session, event.utterance, event.outcome, event.instance)
        for event in events
        if type(event) is Delivered
    )
    strange = []
    for one in notes.seen:
        key = (one.session, one.utterance, one.outcome, one.instance)
        if sent[key]:
            sent[key] -= 1
        else:
            strange.append(one)
    return sum(sent.values()), strange
