"""
How long it took until things went on, by what had broken.

    closed socket   a node's socket closes (its process is killed, its link cut): until each of the
                    jobs that it had is sent to another node, or to it again
    hang            a node stops, or nothing passes on its link: the same, where it was noticed
    instance death  until each of its clients has a session again
    Redis away      until the first claim is accepted, from when it went and from when it was back

A job that ended before anybody had to act is none of these. Faults overlap in a chaos run: what
began while nothing else was broken is reported apart (`alone`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from simsched.experiments.chaos.breaking import Hit
from simsched.experiments.chaos.speakers import Moved
from simsched.experiments.chaos.system import Death
from simsched.faults import target_kind
from simsched.telemetry import Event, JobDispatched, JobEnded, SlotTaken

CLOSES: Final = ("node_crash", "node_reconnect")
LATE_NS: Final = 60_000_000_000
"""What comes later than this after a fault has another cause."""


class Spread(NamedTuple):
    """Of how many, and how long, in milliseconds."""

    times: int
    p50: float
    p99: float
    most: float


class Life(NamedTuple):
    """One attempt of a job on a node, until it was sent again or ended."""

    job: str
    node: str
    from_ns: int
    until_ns: int
    sent_again: bool


def spread_of(times_ns: Iterable[int]) -> Spread:
    """The spread of some durations; the p99 of few is their longest."""
    ordered = sorted(times_ns)
    if not ordered:
        return Spread(0, 0.0, 0.0, 0.0)

    def at(share: float) -> float:
        place = max(0, -(-int(share * 100) * len(ordered) // 100) - 1)
        return round(ordered[place] / 1e6, 1)

    return Spread(len(ordered), at(0.5), at(0.99), round(ordered[-1] / 1e6, 1))


def attempts(events: Sequence[Event]) -> list[Life]:
    """Every attempt that was sent to a node, in the order of its start."""
    lives: list[Life] = []
    open_: dict[str, JobDispatched] = {}
    for event in events:
        if type(event) is JobDispatched:
            before = open_.get(event.job)
            if before is not None:
                lives.append(Life(event.job, before.node, before.at_ns, event.at_ns, True))
            open_[event.job] = event
        elif type(event) is JobEnded:
            last = open_.pop(event.job, None)
            if last is not None:
                lives.append(Life(event.job, last.node, last.at_ns, event.at_ns, False))
    return sorted(lives, key=lambda life: life.from_ns)


def sent_again(lives: Sequence[Life], hits: Iterable[Hit]) -> list[int]:
    """For each fault of a node: until each job that it had was sent again."""
    times: list[int] = []
    for hit in hits:
        node = hit.fault.target.partition("/")[0]
        times += [
            life.until_ns - hit.began_ns
            for life in lives
            if life.node == node and life.sent_again
            and life.from_ns <= hit.began_ns < life.until_ns < hit.began_ns + LATE_NS
        ]  # fmt: skip
    return times


def resumed(deaths: Iterable[Death], moved: Sequence[Moved]) -> list[int]:
    """For each instance that died: until each of its clients had a session again."""
    times = []
    for death in deaths:
        for client in death.clients:
            later = (
                one.at_ns - death.began_ns
                for one in moved
                if one.client == client and one.at_ns > death.began_ns
            )
            first = next(later, None)
            if first is not None and first < LATE_NS:
                times.append(first)
    return times


def first_claims(
    events: Sequence[Event], outages: Iterable[tuple[int, int]], *, since_back: bool
) -> list[int]:
    """For each outage of Redis: until a claim was accepted."""
    taken = [event.at_ns for event in events if type(event) is SlotTaken]
    times = []
    for away_ns, back_ns in outages:
        first = next((at for at in taken if at > back_ns), None)
        if first is not None:
            times.append(first - (back_ns if since_back else away_ns))
    return times


def alone(hits: Sequence[Hit], slack_ns: int) -> list[Hit]:
    """The faults that began while nothing else was broken, nor had been a moment before."""
    return [
        hit
        for hit in hits
        if not any(
            other is not hit
            and other.began_ns - slack_ns < hit.began_ns < other.ended_ns + slack_ns
            for other in hits
        )
    ]


def is_closing(hit: Hit) -> bool:
    """Whether it closes a node's socket."""
    return hit.fault.kind in CLOSES


def is_hang(hit: Hit) -> bool:
    """Whether a node falls silent behind an open socket."""
    of_node = target_kind(hit.fault.target) == "node/instance"
    return hit.fault.kind == "node_hang" or (hit.fault.kind == "partition" and of_node)
