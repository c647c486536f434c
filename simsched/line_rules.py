"""
Who is served when, and how often a job is tried (I15).

Within one instance's line nobody who has never failed is overtaken: not by who was put in line
later, nor by an utterance that was spoken after that. And one that holds a job tries it no more
often than its policy allows, nor tells of a node's failure before it has tried that often. The
first is judged only where every node takes every job (`nodes_alike`, and `told`): elsewhere the
next in line may take what the first must not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from simsched.findings import CheckSettings, Findings, forget_oldest
from simsched.ledger_entries import RETRY
from simsched.telemetry import (
    Delivered,
    Event,
    InstanceDown,
    JobAdopted,
    JobAssigned,
    JobCreated,
    JobEnded,
    JobQueued,
    JobYielded,
    NodeOffline,
    NodeRegistered,
    SessionClosed,
    SlotFreed,
    SlotTaken,
    UtteranceCut,
)
from simsched.units import MS, SECOND

FRESH: Final = 1
"""The attempt of who has never failed."""


class _Waits(NamedTuple):
    """A place in line; `failed`: others may pass."""

    since_ns: int
    deadline_ns: int
    session: str
    failed: bool


NODE_FAILED: Final = "PROCESSING_ERROR"
"""What a node says that could not do a job."""

WAKES_NS: Final = 150 * MS
"""How soon, at the latest, whoever gave a slot back has looked at its line."""


WAKES_ELSEWHERE_NS: Final = SECOND
"""How soon, at the latest, others have: they are told nothing, and look several times meanwhile."""

FEW_NODES: Final = 4
"""Up to so many nodes are looked at at once by who looks for slots that others gave back."""


class _Freed(NamedTuple):
    """A slot that was given back while `job`, queued `since_ns`, was first in a line."""

    at_ns: int
    instance: str
    node: str
    job: str
    since_ns: int


class LineRules:
    """The lines of all instances, and the tries of all jobs; `broken_until`: see `calm_rules`."""

    def __init__(
        self, settings: CheckSettings, findings: Findings, broken_until: Callable[[], int]
    ) -> None:
        self._broken_until = broken_until
        # Slots given back by the instance itself, and by another one: each with its patience.
        self._freed: dict[int, deque[_Freed]] = {WAKES_NS: deque(), WAKES_ELSEWHERE_NS: deque()}
        self._nodes: dict[str, str] = {}
        self._used_ns: dict[str, int] = {}
        self._held: dict[tuple[str, int], tuple[str, int]] = {}
        self._findings = findings
        self._checked = findings.checked
        self._alike = settings.nodes_alike and settings.told
        self._tries_max = settings.failover_max + 1
        self._retries = settings.retries_failures
        self._lines: dict[str, dict[str, _Waits]] = {}
        self._tries: dict[tuple[str, str], int] = {}
        self._cut_ns: dict[tuple[str, str, int], int] = {}
        self._followed: dict[tuple[str, str], None] = {}

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {
            "in_line": sum(map(len, self._lines.values())),
            "tried": len(self._tries),
            "spoken": len(self._cut_ns),
            "followed": len(self._followed),
            "slots_freed": sum(map(len, self._freed.values())),
            "nodes": len(self._nodes),
            "used": len(self._used_ns),
            "leases": len(self._held),
        }

    def rules(self) -> dict[type[Event], Callable[[Any], None]]:
        """Which events concern these rules."""
        return {
            UtteranceCut: self.utterance_cut,
            JobCreated: self.job_created,
            JobAdopted: self.job_adopted,
            JobQueued: self.job_queued,
            JobAssigned: self.job_assigned,
            JobEnded: self.job_left,
            JobYielded: self.job_left,
            SessionClosed: self.session_closed,
            InstanceDown: self.instance_down,
            SlotFreed: self.slot_freed,
            SlotTaken: self.slot_taken,
            NodeOffline: self.node_offline,
            NodeRegistered: self.node_registered,
            Delivered: self.delivered,
        }

    def utterance_cut(self, event: UtteranceCut) -> None:
        """Since when it can be anywhere on its instance; asked for again, it is no younger."""
        self._cut_ns.setdefault((event.instance, event.session, event.utterance), event.at_ns)
        forget_oldest(self._cut_ns)

    def job_created(self, event: JobCreated) -> None:
        """A holder's count begins; who has a node at once has not waited."""
        key = (event.instance, event.job)
        self._tries.pop(key, None)
        self._tries[key] = 1 if event.node else 0
        forget_oldest(self._tries)
        fresh = event.node and event.attempt == FRESH and self._followed.pop(key, "") == ""
        cut_ns = self._cut_ns.get((event.instance, event.session, event.utterance), -1)
        if fresh and cut_ns >= 0:
            self._overtakes(event, cut_ns)

    def job_adopted(self, event: JobAdopted) -> None:
        """The count begins anew: what others have tried is theirs."""
        key = (event.instance, event.job)
        self._leaves(*key)
        self._tries.pop(key, None)
        self._followed[key] = None
        forget_oldest(self._followed)

    def job_queued(self, event: JobQueued) -> None:
        """A place at the end of the line."""
        if self._alike:
            line = self._lines.setdefault(event.instance, {})
            line.pop(event.job, None)
            failed = event.reason == RETRY or (event.instance, event.job) in self._followed
            line[event.job] = _Waits(event.at_ns, event.deadline_ns, event.session, failed)

    def job_assigned(self, event: JobAssigned) -> None:
        """Served, or tried again."""
        self._passes(event.at_ns)
        self._used(event.instance, event.at_ns)
        key = (event.instance, event.job)
        place = self._lines.get(event.instance, {}).get(event.job)
        self._leaves(*key)
        if place is not None:
            self._overtakes(event, place.since_ns)
        if key not in self._tries:
            return  # it began before the recording, or is another one's
        self._tries[key] += 1
        self._checked["I15"] += 1
        if self._tries[key] == self._tries_max + 1:
            self._findings.add(
                "I15", event.at_ns, event.job,
                f"{event.job} is tried more than {self._tries_max} times", event.instance,
            )  # fmt: skip

    def _overtakes(self, event: JobAssigned | JobCreated, since_ns: int) -> None:
        """Whether somebody has waited longer; whose deadline has come is about to be refused."""
        for job, waits in self._lines.get(event.instance, {}).items():
            if waits.since_ns >= since_ns:
                break
            if waits.failed or waits.deadline_ns <= event.at_ns:
                continue
            self._findings.add(
                "I15", event.at_ns, event.job,
                f"{event.job} is served before {job}, which waits since {waits.since_ns}",
                event.instance,
            )  # fmt: skip
            break
        self._checked["I15"] += 1

    def job_left(self, event: JobEnded | JobYielded) -> None:
        """It is in no line any more."""
        self._leaves(event.instance, event.job)
        self._tries.pop((event.instance, event.job), None)
        self._followed.pop((event.instance, event.job), None)

    def delivered(self, event: Delivered) -> None:
        """Who hears of a node's failure has had all tries."""
        tries = self._tries.get((event.instance, event.job), 0)
        if event.reason != NODE_FAILED or not tries or not self._retries:
            return
        self._checked["I15"] += 1
        if tries < self._tries_max:
            self._findings.add(
                "I15", event.at_ns, event.job,
                f"{event.job} is given up ({event.reason}) after {tries} of {self._tries_max}",
                event.instance,
            )  # fmt: skip

    def session_closed(self, event: SessionClosed) -> None:
        """What was in line for it is not wanted any more."""
        for line in self._lines.values():
            for job in [job for job, waits in line.items() if waits.session == event.session]:
                del line[job]

    def instance_down(self, event: InstanceDown) -> None:
        """Its line is gone with it."""
        self._lines.pop(event.instance, None)

    # Slots that are given back

    def slot_freed(self, event: SlotFreed) -> None:
        """The first in line may have it."""
        self._passes(event.at_ns)
        node, until_ns = self._held.pop((event.job, event.attempt), ("", 0))
        if node != event.node or self._broken_until() >= event.at_ns:
            return  # another instance has given it back before
        if until_ns and until_ns < event.at_ns:
            return  # the lease has run out: the slot may long be another job's
        for instance, line in self._lines.items():
            here = instance == event.instance
            if here or len(self._nodes) <= FEW_NODES:
                self._may_have(event, instance, line, WAKES_NS if here else WAKES_ELSEWHERE_NS)

    def _may_have(
        self, event: SlotFreed, instance: str, line: Mapping[str, _Waits], patience_ns: int
    ) -> None:
        for job, waits in line.items():
            if not waits.failed and waits.deadline_ns > event.at_ns + patience_ns:
                self._freed[patience_ns].append(
                    _Freed(event.at_ns, instance, event.node, job, waits.since_ns)
                )
                break

    def slot_taken(self, event: SlotTaken) -> None:
        """Somebody has it, or has it still."""
        self._held[event.job, event.attempt] = (event.node, event.expires_ns)
        forget_oldest(self._held)
        if event.live or not event.expires_ns:  # else it is only renewed
            self._used(event.node, event.at_ns)

    def node_registered(self, event: NodeRegistered) -> None:
        """One more to look for slots on."""
        self._nodes[event.node] = event.instance
        forget_oldest(self._nodes)

    def node_offline(self, event: NodeOffline) -> None:
        """Nobody can have its slots; of an instance that it has left before that says nothing."""
        if self._nodes.get(event.node, event.instance) == event.instance:
            self._used(event.node, event.at_ns)

    def _used(self, name: str, at_ns: int) -> None:
        self._used_ns.pop(name, None)
        self._used_ns[name] = at_ns
        forget_oldest(self._used_ns)

    def _passes(self, now_ns: int) -> None:
        """Who still waits, though a slot was given back, has been forgotten."""
        for patience_ns, slots in self._freed.items():
            while slots and slots[0].at_ns + patience_ns < now_ns:
                self._judge(slots.popleft(), now_ns)

    def _judge(self, freed: _Freed, now_ns: int) -> None:
        used_ns = max(self._used_ns.get(name, -1) for name in (freed.node, freed.instance))
        # The slot was free in the store before this was told: somebody may have been quicker.
        taken = used_ns >= freed.at_ns - WAKES_NS
        place = self._lines.get(freed.instance, {}).get(freed.job)
        # It may have left for another instance, and come back to the end of the line.
        waits = place is not None and place.since_ns == freed.since_ns
        self._checked["I15"] += 1
        if waits and not taken and self._broken_until() < freed.at_ns:
            self._findings.add(
                "I15", now_ns, freed.job,
                f"{freed.job} still waits although a slot of {freed.node} was given back",
                freed.instance,
            )  # fmt: skip

    def _leaves(self, instance: str, job: str) -> None:
        line = self._lines.get(instance)
        if line is not None:
            line.pop(job, None)
