"""
The invariant checker: reads events one by one, in a simulated run or a live recording.

`Checker` hands each event to the rules that it concerns, by the table `Checker._rules`. The rules
on jobs and answers are in `conservation`, those on sessions and the comparison of two runs (I14)
in `utterance_rules`; here are those on nodes and locks (I2, I5, I9, I10). Synchronous, and it
never raises on what it reads: a breach is written down, and the run goes on.

It knows no policy, and may join a recording in the middle: what began before is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from simsched.calm_rules import CalmRules
from simsched.client_rules import ClientRules
from simsched.conservation import JobLedger
from simsched.findings import (
    CONSERVATION,
    INVARIANTS,
    REMEMBERED_MAX,
    VIOLATIONS_MAX,
    CheckSettings,
    Findings,
    Invariant,
    Violation,
    forget_oldest,
)
from simsched.gone_rules import GoneRules
from simsched.ledger_entries import ABANDONED
from simsched.line_rules import LineRules
from simsched.owner_rules import OwnerRules
from simsched.telemetry import (
    AnsweredAlone,
    ClaimRepeated,
    ClientAsked,
    ClientGone,
    ClientHeard,
    Delivered,
    Disturbed,
    EndAccepted,
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
    JobYielded,
    LetterLies,
    NodeGranted,
    NodeOffline,
    NodeRegistered,
    NodeRunning,
    RequestLock,
    ResultAccepted,
    ResultReceived,
    ResultSuppressed,
    SessionClosed,
    SessionOpened,
    SessionResumed,
    SlotFreed,
    SlotsCounted,
    SlotsForgotten,
    SlotsTried,
    SlotTaken,
    StoreLost,
    UtteranceCut,
)
from simsched.utterance_rules import CutComparison, SessionRules, compare_cuts, same_cuts

__all__ = [
    "CONSERVATION",
    "INVARIANTS",
    "REMEMBERED_MAX",
    "VIOLATIONS_MAX",
    "CheckSettings",
    "Checker",
    "CutComparison",
    "Invariant",
    "Violation",
    "compare_cuts",
    "same_cuts",
]

HELD_MAX: Final = 1_024
"""Slots remembered of one node: far beyond any node's, so only a leak gets there."""

GAVE_UP: Final = ("PENDING_TIMEOUT", "JOB_TIMEOUT")
"""Why a job without a node ends."""


class _Held(NamedTuple):
    """
    A slot that is taken: since when, and until when at most (0: no limit, only a counter).

    `forgotten`: the store's counter lost it while its job went on (B4).
    """

    taken_ns: int
    expires_ns: int
    forgotten: bool = False


class _Lock(NamedTuple):
    """A request lock: who holds it, and whether two ever held it at a time."""

    owner: str = ""
    shared: bool = False


class NodeRules:
    """Slots, nodes that are gone, and locks."""

    def __init__(self, settings: CheckSettings, findings: Findings, ledger: JobLedger) -> None:
        self._scan_ns = settings.scan_ns
        self._creation_ns = settings.binding_ttl_ns
        self._findings = findings
        self._checked = findings.checked
        self._ledger = ledger
        self._slots: dict[str, int] = {}
        self._homes: dict[str, str] = {}
        self._locks: dict[str, _Lock] = {}
        self._gone: dict[str, NodeOffline] = {}
        self._held: dict[str, dict[tuple[str, int], _Held]] = {}
        self._nodes_alike = settings.nodes_alike
        self._free_since_ns = -1
        self._disturbed_ns = -1

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {
            "nodes": len(self._slots),
            "nodes_gone": len(self._gone),
            "locks": len(self._locks),
            "slots_held": sum(len(held) for held in self._held.values()),
        }

    def node_registered(self, event: NodeRegistered) -> None:
        self._slots[event.node] = event.slots
        self._homes[event.node] = event.instance
        self._gone.pop(event.node, None)

    def node_offline(self, event: NodeOffline) -> None:
        """Its leases end with it; who hears late of a node that is elsewhere now takes none."""
        if self._homes.get(event.node, event.instance) != event.instance:
            return
        self._homes.pop(event.node, None)
        if event.node not in self._gone:
            self._gone[event.node] = event
        self._slots.pop(event.node, None)
        self._held.pop(event.node, None)
        forget_oldest(self._gone)

    def job_dispatched(self, event: JobDispatched) -> None:
        """Not to a node that is gone; news needs up to a scan, and a sound store, to get around."""
        self._checked["I10"] += 1
        gone = self._gone.get(event.node)
        if gone is None:
            return
        late_ns = max(gone.at_ns + self._scan_ns, self._disturbed_ns)
        travels = event.instance != gone.instance and event.at_ns <= late_ns
        if not travels:
            self._findings.add(
                "I10", event.at_ns, event.job,
                f"sent to {event.node}, gone since {gone.at_ns} ({gone.reason})", event.instance,
            )  # fmt: skip

    def slot_taken(self, event: SlotTaken) -> None:
        """
        I2a: leases by the store's own count, counters by ours.

        A counter that a heartbeat set to 0 lets jobs in beside those that it forgot.
        """
        self._checked["I2"] += 1
        self._checked["I5"] += 1
        slots = event.slots or self._slots.get(event.node, 0)
        held = self._held.setdefault(event.node, {})
        held[event.job, event.attempt] = _Held(event.at_ns, event.expires_ns)
        counted = 0 if event.expires_ns else self._occupied(held, event.job)
        if slots and event.live > slots:
            self._findings.add(
                "I2", event.at_ns, event.node,
                f"I2a: the store counts {event.live} jobs on {slots} slots", event.instance,
            )  # fmt: skip
        elif slots and counted > slots:
            self._findings.add(
                "I2", event.at_ns, event.node,
                f"I2a: {counted} jobs hold {slots} slots, some forgotten by a counter",
                event.instance,
            )  # fmt: skip
        if len(held) > HELD_MAX:
            oldest = next(iter(held))
            self._judge_slot(event.node, oldest, held.pop(oldest), event.at_ns)

    def _occupied(self, held: Mapping[tuple[str, int], _Held], newcomer: str) -> int:
        """Jobs that go on and hold a slot; who is about to be created counts only as newcomer."""
        others = [job for job, _ in held if job != newcomer and self._ledger.goes_on(job)]
        return len(dict.fromkeys(others)) + 1

    def slot_freed(self, event: SlotFreed) -> None:
        held = self._held.get(event.node)
        if held is not None:
            held.pop((event.job, event.attempt), None)

    def slots_forgotten(self, event: SlotsForgotten) -> None:
        """The counter is 0 again: a leak ends here, and who still runs is held all the same."""
        kept = {}
        for key, slot in self._held.pop(event.node, {}).items():
            if self._ledger.goes_on(key[0]):
                kept[key] = slot._replace(forgotten=True)
            elif key[0] in self._ledger.jobs:
                self._judge_slot(event.node, key, slot, event.at_ns)
            elif event.at_ns - slot.taken_ns < self._creation_ns:
                kept[key] = slot._replace(forgotten=True)
        if kept:
            self._held[event.node] = kept

    def disturbed(self, event: Disturbed) -> None:
        """Something is broken: waits that reach into it say nothing."""
        self._disturbed_ns = max(self._disturbed_ns, event.until_ns)

    def watch_free(self, event: Event) -> None:
        """Since when some node has had a free slot without a break."""
        if not self._nodes_alike:
            return
        free = any(
            slots > _alive(self._held.get(node, {}), event.at_ns)
            for node, slots in self._slots.items()
        )
        if not free:
            self._free_since_ns = -1
        elif self._free_since_ns < 0:
            self._free_since_ns = event.at_ns

    def job_ended(self, event: JobEnded) -> None:
        """I15: who gave up waiting must have had nothing to wait for."""
        since_ns = self._ledger.waits_since(event.job)
        if not self._nodes_alike or event.reason not in GAVE_UP or since_ns < 0:
            return
        self._checked["I15"] += 1
        since_ns = max(since_ns, self._free_since_ns)
        long_free = self._free_since_ns >= 0 and event.at_ns - since_ns > 2 * self._scan_ns
        if long_free and self._disturbed_ns < since_ns:
            self._findings.add(
                "I15", event.at_ns, event.job,
                f"gave up waiting ({event.reason}) while slots were free since {since_ns}",
                event.instance,
            )  # fmt: skip

    def node_running(self, event: NodeRunning) -> None:
        """I2b: what the node really does."""
        if not event.started:
            return
        self._checked["I2"] += 1
        slots = event.slots or self._slots.get(event.node, 0)
        if slots and event.running > slots:
            self._findings.add(
                "I2", event.at_ns, event.node,
                f"I2b: the node runs {event.running} jobs on {slots} slots", event.instance,
            )  # fmt: skip

    def how_made(self, event: JobCreated) -> str:
        """What kept the creation of a job apart from others of the same request."""
        if event.phase == 1:
            return "past the request lock"
        lock = self._locks.get(event.request)
        if lock is None:
            return "without a lock"
        return "under a lock that was not its own alone" if lock.shared else "under a sound lock"

    def _lock_moves(self, event: RequestLock) -> None:
        lock = self._locks.pop(event.request, _Lock())
        shared = bool(lock.owner) if event.taken else not event.released_by_owner
        owner = event.owner if event.taken else ""
        self._locks[event.request] = _Lock(owner, lock.shared or shared)
        forget_oldest(self._locks)

    def request_lock(self, event: RequestLock) -> None:
        self._lock_moves(event)
        if event.taken:
            return
        self._checked["I9"] += 1
        if not event.released_by_owner:
            self._findings.add(
                "I9", event.at_ns, event.request,
                f"{event.owner} gave a lock back that was not its own any more", event.instance,
            )  # fmt: skip

    def finish(self, now_ns: int) -> None:
        """Every slot that is still held must belong to a job that still runs."""
        for node, held in self._held.items():
            for key, slot in held.items():
                self._judge_slot(node, key, slot, now_ns)
        self._held.clear()

    def _judge_slot(self, node: str, key: tuple[str, int], slot: _Held, now_ns: int) -> None:
        """
        Whether a slot outlived its job.

        A lease that has run out is free again, as is what a counter forgot; what ended just now
        may be on its way back.
        """
        if 0 < slot.expires_ns <= now_ns or slot.forgotten:
            return
        job, attempt = key
        limit_ns = now_ns - self._scan_ns
        if slot.taken_ns <= limit_ns and self._ledger.ended_before(job, limit_ns):
            entry = self._ledger.jobs.get(job)
            orphan = entry is not None and entry.state == ABANDONED
            why = "its owner died" if orphan else "its job is over"
            text = f"the slot of {job} attempt {attempt} was never freed: {why}"
            self._findings.add("I5", now_ns, node, text)


def _alive(held: Mapping[tuple[str, int], _Held], now_ns: int) -> int:
    """How many slots are held: a lease that has run out holds none."""
    return sum(not 0 < slot.expires_ns <= now_ns for slot in held.values())


class Checker:
    """
    Checks one run: `observe` every event in its order, then `finish` once.

    `violations` keeps the first breaches, `counts` and `checked` have a number for every
    invariant, zero included. I14 compares two runs: see `compare_cuts`.
    """

    def __init__(self, settings: CheckSettings) -> None:
        self._findings = Findings()
        self._clients = clients = ClientRules(self._findings)
        self._jobs = jobs = JobLedger(settings, self._findings, clients)
        self._sessions = sessions = SessionRules(settings, self._findings)
        self._nodes = nodes = NodeRules(settings, self._findings, jobs)
        jobs.how_made = nodes.how_made
        self._rules: dict[type[Event], tuple[Callable[[Any], None], ...]] = {
            SessionOpened: (sessions.session_opened,),
            SessionClosed: (sessions.session_closed,),
            UtteranceCut: (sessions.utterance_cut, jobs.utterance_cut),
            JobCreated: (jobs.job_created,),
            JobRepeated: (jobs.job_repeated,),
            JobRefused: (jobs.job_refused, sessions.job_refused),
            JobQueued: (jobs.job_queued,),
            JobAssigned: (jobs.job_runs,),
            JobDispatched: (jobs.job_runs, nodes.job_dispatched),
            JobEnded: (nodes.job_ended, jobs.job_ended, sessions.job_ended),
            ResultReceived: (jobs.results.result_received,),
            ResultAccepted: (jobs.results.result_accepted,),
            ResultSuppressed: (jobs.results.result_suppressed,),
            Delivered: (jobs.delivered, sessions.delivered),
            SlotTaken: (jobs.slot_taken, nodes.slot_taken, nodes.watch_free),
            SlotFreed: (nodes.slot_freed, nodes.watch_free),
            SlotsForgotten: (nodes.slots_forgotten, nodes.watch_free),
            NodeRegistered: (nodes.node_registered, nodes.watch_free),
            NodeOffline: (nodes.node_offline, nodes.watch_free),
            NodeRunning: (nodes.node_running,),
            RequestLock: (nodes.request_lock,),
            Disturbed: (nodes.disturbed, sessions.disturbed),
            InstanceDown: (jobs.instance_down, sessions.instance_down),
            JobAdopted: (jobs.job_adopted,),
            JobYielded: (jobs.job_yielded,),
            AnsweredAlone: (jobs.answered_alone,),
            SessionResumed: (jobs.utterances.session_resumed, sessions.session_resumed),
            StoreLost: (jobs.store_lost,),
            ClientAsked: (clients.asked,),
            ClientHeard: (clients.heard,),
            ClientGone: (jobs.utterances.client_gone, clients.gone),
        }
        self._calm = calm = CalmRules(settings, self._findings, jobs.jobs)
        self._more = (
            LineRules(settings, self._findings, calm.broken_until),
            OwnerRules(settings, self._findings, calm.acts_since),
            GoneRules(settings, self._findings, calm.acts_since),
        )
        for rules in self._more:
            self._add_rules(rules.rules())
        if settings.told:
            self._judge_calm(calm)

    def _judge_calm(self, calm: CalmRules) -> None:
        """Rules for a world that says what it breaks; they come before those that move jobs on."""
        judged: dict[type[Event], Callable[[Any], None]] = {
            Disturbed: calm.disturbed,
            UtteranceCut: calm.utterance_cut,
            SlotTaken: calm.slot_taken,
            JobCreated: calm.job_created,
            JobAssigned: calm.job_runs,
            JobDispatched: calm.job_runs,
            JobAdopted: calm.job_adopted,
            JobQueued: calm.job_queued,
            JobEnded: calm.job_ended,
            ResultReceived: calm.result_received,
            ResultAccepted: calm.result_accepted,
            NodeOffline: calm.node_offline,
            NodeRunning: calm.node_running,
            SlotsCounted: calm.slots_counted,
            SlotsTried: calm.slots_tried,
            LetterLies: calm.letter_lies,
            EndAccepted: calm.end_accepted,
            ClaimRepeated: calm.claim_repeated,
            NodeGranted: calm.node_granted,
            Delivered: calm.delivered,
        }
        self._add_rules(judged)

    def _add_rules(self, rules: Mapping[type[Event], Callable[[Any], None]]) -> None:
        for kind, rule in rules.items():
            self._rules[kind] = (rule, *self._rules.get(kind, ()))

    @property
    def violations(self) -> list[Violation]:
        return self._findings.violations

    @property
    def counts(self) -> dict[str, int]:
        return self._findings.counts

    @property
    def checked(self) -> dict[str, int]:
        return self._findings.checked

    def rules_of(self, kind: type[Event]) -> tuple[Callable[[Any], None], ...]:
        """What an event of this kind is handed to, for a reader that sorts events itself."""
        return self._rules.get(kind, ())

    def observe(self, event: Event) -> None:
        """Take one event in."""
        for rule in self._rules.get(type(event), ()):
            rule(event)

    def finish(self, now_ns: int) -> None:
        """The run ends: judge what is left. Work that is still within its bound is censored."""
        self._calm.passes(now_ns)
        self._jobs.finish(now_ns, self._sessions.closed())
        self._nodes.finish(now_ns)
        self._clients.finish(now_ns)

    def conservation(self) -> dict[str, int]:
        """Jobs by what became of them; `created` is the sum of the others, `lost` must be 0."""
        return self._jobs.account()

    def sizes(self) -> dict[str, int]:
        """How much is remembered, by kind: bounded by the work in progress and fixed tails."""
        rules = (self._jobs, self._sessions, self._nodes, self._calm, self._clients, *self._more)
        return {name: size for one in rules for name, size in one.sizes().items()}
