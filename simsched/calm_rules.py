"""
What must hold while nothing is broken, or nothing that would excuse it (I16; parts of I2-I5, I10).

A scheduler that loses a result, forgets a node's death or keeps a slot heals itself in the end: a
timeout comes, the client gets an error, and every promise is kept to the letter. So these rules
look at what happens in between, and need to be told by the world what it breaks (`Disturbed`) and
what the store holds (`SlotsCounted`): where nothing kept an instance from acting, it has acted.

- I2: an attempt that runs holds its slot; the store never gives more slots than there are.
- I4: a result that came is taken before its attempt is given up.
- I5: the store has a slot back soon after what held it is over.
- I10: a job does not stay with a node that is gone.
- I16: an utterance that is spoken when all is whole gets its translation.

Without a world that tells (`CheckSettings.told`) nothing here is judged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from simsched.findings import CheckSettings, Findings, forget_oldest
from simsched.ledger_entries import ABANDONED, QUEUED, RUNNING, JobEntry
from simsched.telemetry import (
    ClaimRepeated,
    Delivered,
    Disturbed,
    EndAccepted,
    JobAdopted,
    JobAssigned,
    JobCreated,
    JobDispatched,
    JobEnded,
    JobQueued,
    LetterLies,
    NodeGranted,
    NodeOffline,
    NodeRunning,
    ResultAccepted,
    ResultReceived,
    SlotsCounted,
    SlotsTried,
    SlotTaken,
    UtteranceCut,
)

BYSTANDERS: Final = ("node_", "result_")
"""Kinds of faults that keep no instance from acting, nor its store from answering."""

SAID_AGAIN: Final = ("redis_down", "redis_restart", "redis_failover")
"""Kinds that an instance is told the end of, so that it says again at once what it holds."""

ALL: Final = ""
"""Stands for all instances, where a fault hits what they share."""

NO_ROOM: Final = ("QUEUE_FULL", "PENDING_TIMEOUT", "NODE_OVERLOADED")
"""Reasons of errors that a whole system may give: there was no room. I15 knows if there was."""

GIVEN_UP: Final = "gap_timeout"
"""Why an answer is missing whose turn was given up."""


class _Work(NamedTuple):
    """
    The current attempt of a job, as far as it was told.

    `left_ns`: when it was taken off its node and put in line, 0 if it was not; `result_ns`: when
    its first good result came that nobody has taken yet.
    """

    attempt: int
    since_ns: int
    node: str = ""
    instance: str = ""
    left_ns: int = 0
    result_ns: int = 0


class _Left(NamedTuple):
    """A job of a node that is gone: by `due_ns` it must be elsewhere."""

    due_ns: int
    job: str
    attempt: int
    gone: NodeOffline


class CalmRules:
    """Rules for what happens between faults; `jobs` is the ledger's."""

    def __init__(
        self, settings: CheckSettings, findings: Findings, jobs: Mapping[str, JobEntry]
    ) -> None:
        self._grace_ns = settings.scan_ns
        # Who has lost a slot in a fault notices it at the next renewal, when a third of the lease
        # is over (and a scan, which `_hindered_ns` has in it); 0: nobody says how long leases are.
        self._renewed_ns = settings.lease_ns // 3
        self._findings = findings
        self._checked = findings.checked
        self._jobs = jobs
        # Until when something is broken, and something that keeps an instance from acting.
        self._broken_ns = -1
        self._hindered_ns = -1
        self._hindered_by: dict[str, int] = {}
        self._unsaid_ns = -1
        self._work: dict[str, _Work] = {}
        self._left: deque[_Left] = deque()
        self._asked: dict[str, tuple[str, int]] = {}
        self._cut_ns: dict[tuple[str, int], int] = {}
        self._running: dict[str, dict[tuple[str, int], int]] = {}
        self._blamed: dict[str, None] = {}
        self._lies_ns: dict[str, int] = {}

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {
            "attempts": len(self._work),
            "asked": len(self._asked),
            "cuts": len(self._cut_ns),
            "blamed": len(self._blamed),
            "letters": len(self._lies_ns),
            "left": len(self._left),
        }

    def disturbed(self, event: Disturbed) -> None:
        """Something breaks."""
        self._broken_ns = max(self._broken_ns, event.until_ns)
        link = event.target.partition("/")[2]
        if link != "instance" and not event.kind.startswith(BYSTANDERS):
            over_ns = event.over_ns + 2 * self._grace_ns if event.over_ns else event.until_ns
            self._hindered_ns = max(self._hindered_ns, over_ns)
            if event.kind not in SAID_AGAIN:
                self._unsaid_ns = max(self._unsaid_ns, over_ns)
            who = event.target.partition("/")[0]
            who = who if who.startswith("i-") else ALL
            self._hindered_by[who] = max(self._hindered_by.get(who, -1), over_ns)

    def broken_until(self) -> int:
        """Until when something is broken, or its consequences last."""
        return self._broken_ns

    def acts_since(self, instance: str) -> int:
        """Until when something keeps this very instance from acting; `i-0.1` is `i-0` again."""
        hindered = self._hindered_by
        return max(hindered.get(ALL, -1), hindered.get(instance.partition(".")[0], -1))

    # Attempts and their results

    def job_created(self, event: JobCreated) -> None:
        """Which utterance it is for."""
        self._asked[event.job] = (event.session, event.utterance)
        forget_oldest(self._asked)

    def _asked_again(self, job: str, work: _Work) -> bool:
        """Whether the client has asked for the utterance since the attempt began."""
        key = self._asked.get(job)
        return key is not None and self._cut_ns.get(key, -1) >= work.since_ns

    def slot_taken(self, event: SlotTaken) -> None:
        """A slot is given; one that is only renewed begins nothing."""
        renewed = event.expires_ns > 0 and not event.live
        if renewed and event.job not in self._work:
            return
        self._begins(event, event.instance)

    def job_runs(self, event: JobAssigned | JobDispatched) -> None:
        self._begins(event, event.instance)
        work = self._work[event.job]
        if work.attempt == event.attempt and not work.left_ns:
            self._work[event.job] = work._replace(node=event.node, instance=event.instance)

    def _begins(self, event: SlotTaken | JobAssigned | JobDispatched, instance: str) -> None:
        work = self._work.get(event.job)
        if work is not None and work.attempt >= event.attempt:
            return
        if work is not None:
            self._unheard(event.job, work, event.at_ns, instance)
            self._again(event, work)
        self._work[event.job] = _Work(event.attempt, event.at_ns, event.node, instance)
        forget_oldest(self._work)

    def _again(self, event: SlotTaken | JobAssigned | JobDispatched, work: _Work) -> None:
        """I16: nothing was broken, so one attempt is enough."""
        self._checked["I16"] += 1
        if self._broken_ns < work.since_ns and not self._asked_again(event.job, work):
            self._findings.add(
                "I16", event.at_ns, event.job,
                f"{event.job} needed attempt {event.attempt} although nothing was broken",
                event.instance,
            )  # fmt: skip

    def job_adopted(self, event: JobAdopted) -> None:
        """Its session has moved: what another instance has come to with it may be done again."""
        self._work.pop(event.job, None)

    def job_queued(self, event: JobQueued) -> None:
        """It waits again: its attempt is over; who waits beside another instance ends nothing."""
        work = self._work.get(event.job)
        if work is not None and not work.left_ns and work.instance == event.instance:
            self._work[event.job] = work._replace(left_ns=event.at_ns)

    def result_received(self, event: ResultReceived) -> None:
        work = self._work.get(event.job)
        if not event.success and self._is_haunted(event.node):
            self._work.pop(event.job, None)
            return
        current = work is not None and work.attempt == event.attempt and not work.result_ns
        if event.success and current and self._is_alive(event.job):
            assert work is not None
            self._work[event.job] = work._replace(result_ns=event.at_ns)

    def _is_haunted(self, node: str) -> bool:
        """Whether a node works on what nobody waits for: it may refuse what the store gives it."""
        for job_id, attempt in self._running.get(node, ()):
            work = self._work.get(job_id)
            if not self._is_alive(job_id) or work is None or work.attempt > attempt:
                return True
        return False

    def result_accepted(self, event: ResultAccepted) -> None:
        work = self._work.get(event.job)
        if work is not None and work.attempt == event.attempt:
            self._work[event.job] = work._replace(result_ns=0)

    def job_ended(self, event: JobEnded) -> None:
        work = self._work.get(event.job)
        if work is not None and event.status != "completed":
            self._unheard(event.job, work, event.at_ns, event.instance)

    def _unheard(self, job: str, work: _Work, now_ns: int, instance: str) -> None:
        """An attempt is given up: nobody may have its result in hand."""
        if not work.result_ns or now_ns - work.result_ns <= self._grace_ns:
            return
        if self._asked_again(job, work):
            return
        self._checked["I4"] += 1
        if self._hindered_ns < work.result_ns:
            self._blame(
                f"unheard {job}:{work.attempt}", "I4", now_ns, job,
                f"attempt {work.attempt} was given up although its result had come", instance,
            )  # fmt: skip

    def _is_alive(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and job.state in (QUEUED, RUNNING)

    def end_accepted(self, event: EndAccepted) -> None:
        """The store itself takes the current attempt's end, and takes it once."""
        self._checked["I4"] += 1
        self._checked["I12"] += 1
        if event.attempt != event.current_attempt:
            self._findings.add(
                "I4", event.at_ns, event.job,
                f"the store took the end of attempt {event.attempt} while "
                f"{event.current_attempt} is current",
            )  # fmt: skip
        elif not event.first:
            self._findings.add(
                "I12", event.at_ns, event.job,
                f"the store took the end of attempt {event.attempt} twice",
            )  # fmt: skip

    def node_granted(self, event: NodeGranted) -> None:
        """The store itself gives no slot of a node that it was told is gone."""
        self._checked["I10"] += 1
        if event.gone:
            self._findings.add(
                "I10", event.at_ns, event.job,
                f"the store gave a slot of {event.node}, which it was told is gone",
            )  # fmt: skip

    def claim_repeated(self, event: ClaimRepeated) -> None:
        """Whoever did not hear the answer to its claim asks again, and hears it."""
        self._checked["I11"] += 1
        if not event.same:
            self._findings.add(
                "I11", event.at_ns, event.job,
                f"the claim of attempt {event.attempt} came again and was answered otherwise",
            )  # fmt: skip

    def letter_lies(self, event: LetterLies) -> None:
        """Whoever has the session has had time to see that its old instance is gone."""
        self._checked["I4"] += 1
        key = f"{event.inbox} {event.session} {event.instance}"
        since_ns = self._lies_ns.setdefault(key, event.at_ns)
        forget_oldest(self._lies_ns)
        since_ns = max(since_ns, self.acts_since(event.instance))
        if event.at_ns - since_ns > event.limit_ns:
            self._blame(
                f"lies {key}", "I4", event.at_ns, event.session,
                f"a result for {event.session} lies with {event.inbox}, which is gone",
                event.instance,
            )  # fmt: skip

    # Nodes that are gone

    def node_offline(self, event: NodeOffline) -> None:
        """What its instance has given to it must go elsewhere, at once."""
        self._running.pop(event.node, None)
        for job, work in self._work.items():
            theirs = work.node == event.node and work.instance == event.instance
            if theirs and not work.left_ns and self._is_alive(job):
                due_ns = event.at_ns + self._grace_ns
                self._left.append(_Left(due_ns, job, work.attempt, event))

    def passes(self, now_ns: int) -> None:
        """Judge what the clock has passed."""
        while self._left and self._left[0].due_ns <= now_ns:
            left = self._left.popleft()
            job, work = self._jobs.get(left.job), self._work.get(left.job)
            if job is None or work is None or job.state != RUNNING:
                continue
            holds = left.gone.instance in job.holders
            stays = work.attempt == left.attempt and not work.left_ns and holds
            self._checked["I10"] += 1
            if stays and self.acts_since(left.gone.instance) < left.gone.at_ns:
                self._blame(
                    f"left {left.job}:{left.attempt}", "I10", left.due_ns, left.job,
                    f"left with {left.gone.node}, gone since {left.gone.at_ns} "
                    f"({left.gone.reason})",
                    left.gone.instance,
                )  # fmt: skip

    # Slots in truth

    def node_running(self, event: NodeRunning) -> None:
        running = self._running.setdefault(event.node, {})
        if event.started:
            running[event.job, event.attempt] = event.at_ns
        else:
            running.pop((event.job, event.attempt), None)

    def slots_counted(self, event: SlotsCounted) -> None:
        """What the store holds, against what goes on."""
        self.passes(event.at_ns)
        self._checked["I5"] += 1
        newest_ns = 0
        for member in event.held:
            job, _, attempt = member.rpartition(":")
            newest_ns = max(newest_ns, self._kept(event, member, job, int(attempt)))
        lost_ns = self._hindered_ns + (self._renewed_ns if self._hindered_ns >= 0 else 0)
        if len(event.held) > event.slots and lost_ns < newest_ns:
            self._blame(
                f"full {event.node}", "I2", event.at_ns, event.node,
                f"I2a: the store holds {len(event.held)} leases on {event.slots} slots",
            )  # fmt: skip
        for (job, number), since_ns in self._running.get(event.node, {}).items():
            self._has_slot(event, job, number, since_ns)

    def _kept(self, event: SlotsCounted, member: str, job_id: str, attempt: int) -> int:
        """Whether what holds this slot is over; since when it holds it, if not."""
        job, work = self._jobs.get(job_id), self._work.get(job_id)
        if job is None or work is None or job.state == ABANDONED or work.attempt < attempt:
            return 0  # not told yet, or nobody has it any more and the lease runs out
        if work.attempt > attempt:
            over_ns = work.since_ns
        elif job.state not in (QUEUED, RUNNING):
            over_ns = job.ended_ns
        else:
            over_ns = work.left_ns
        if over_ns and event.at_ns - over_ns > self._grace_ns and self._hindered_ns < over_ns:
            ended = job.state not in (QUEUED, RUNNING)
            others = ended and work.attempt == attempt and work.instance != job.ended_by
            why = "another instance has given up" if others else "is over"
            self._blame(
                f"kept {member}", "I5", event.at_ns, event.node,
                f"the store keeps the slot of {job_id} attempt {attempt}, which {why}",
            )  # fmt: skip
        return 0 if over_ns else work.since_ns

    def slots_tried(self, event: SlotsTried) -> None:
        """At the end every slot that is not held can be had, and no other."""
        self._checked["I5"] += 1
        if event.at_ns <= self._hindered_ns:
            return
        if event.given + event.held < event.slots:
            self._findings.add(
                "I5", event.at_ns, event.node,
                f"{event.given} of {event.slots} slots can be had at the end, {event.held} are "
                f"held ({event.refusal})",
            )  # fmt: skip
        elif event.given + event.held > event.slots:
            self._findings.add(
                "I2", event.at_ns, event.node,
                f"I2a: {event.given} slots can be had at the end of {event.slots}, "
                f"{event.held} are held",
            )  # fmt: skip

    def _has_slot(self, event: SlotsCounted, job_id: str, attempt: int, since_ns: int) -> None:
        work, job = self._work.get(job_id), self._jobs.get(job_id)
        if work is None or job is None or work.attempt != attempt or work.left_ns:
            return
        lasts = event.at_ns - since_ns > self._grace_ns
        if job.state != RUNNING or not lasts:
            return
        self._checked["I2"] += 1
        if f"{job_id}:{attempt}" in event.held:
            return
        # What another instance said late of the node may have cost it its slot.
        acts_ns, calm = self.acts_since(work.instance), self._hindered_ns < work.since_ns
        again_ns = max(acts_ns, since_ns, self._unsaid_ns + self._renewed_ns)
        renews = self._renewed_ns > 0 and event.at_ns > again_ns
        if calm or renews:
            self._blame(
                f"bare {job_id}:{attempt}", "I2", event.at_ns, event.node,
                f"I2c: {job_id} attempt {attempt} runs without a slot",
            )  # fmt: skip

    def _blame(
        self, key: str, invariant: str, at_ns: int, subject: str, text: str, instance: str = ""
    ) -> None:
        """Once for each: it is looked at again and again."""
        if key in self._blamed:
            return
        self._blamed[key] = None
        forget_oldest(self._blamed)
        self._findings.add(invariant, at_ns, subject, text, instance)

    # Answers

    def utterance_cut(self, event: UtteranceCut) -> None:
        self._cut_ns[event.session, event.utterance] = event.at_ns
        forget_oldest(self._cut_ns)

    def delivered(self, event: Delivered) -> None:
        """I16: who spoke when all was whole is not told of an error."""
        cut_ns = self._cut_ns.get((event.session, event.utterance), -1)
        if cut_ns <= self._broken_ns:
            return
        self._checked["I16"] += 1
        failed = event.outcome == "error" and event.reason not in NO_ROOM
        if failed or event.reason == GIVEN_UP:
            self._findings.add(
                "I16", event.at_ns, event.session,
                f"utterance {event.utterance} got {event.outcome} ({event.reason}) although "
                "nothing was broken",
                event.instance,
            )  # fmt: skip
