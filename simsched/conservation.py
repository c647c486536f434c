"""
Jobs and answers: none lost, none twice (I1, I3, I11 and conservation).

Two ledgers. A *job* is alive from its creation to its end and must end within the bound. A *lane*
is one utterance towards one language: it has at most one job that has not failed and is answered
exactly once to each target. Whatever was neither ended nor answered in time is written down when
the clock passes its bound; whatever is still within it when the run ends is censored.

Ended jobs and answered utterances are remembered in a bounded tail, so that a late repeat is
recognised and memory stays flat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container

from simsched.findings import CONSERVATION, CheckSettings, Findings, Tail
from simsched.ledger_entries import (
    ABANDONED,
    ACCOUNTS,
    ENDS,
    LOST,
    QUEUED,
    REFUSED,
    RETRY,
    RUNNING,
    JobEntry,
    Lane,
    UtteranceEntry,
    why_silent,
)
from simsched.result_rules import ResultRules
from simsched.telemetry import (
    AnsweredAlone,
    Delivered,
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
    SlotTaken,
    StoreLost,
    UtteranceCut,
)
from simsched.utterance_ledger import UtteranceLedger


class JobLedger:
    """The account of jobs and answers; one method per kind of event. `jobs`: the remembered."""

    def __init__(
        self, settings: CheckSettings, findings: Findings, clients: Container[str] = ()
    ) -> None:
        self._settings, self._bound_ns = settings, settings.answer_bound_ns
        self._findings, self._checked = findings, findings.checked
        self._clients = clients
        self._account = dict.fromkeys(ACCOUNTS, 0)
        self.jobs: dict[str, JobEntry] = {}
        self._jobs = self.jobs
        self.results = ResultRules(self.jobs, findings)
        self.how_made: Callable[[JobCreated], str] = lambda event: f"by phase {event.phase}"
        self._ended, self._jobs_due = Tail[str](self._forget_job), deque[JobEntry]()
        self.utterances = UtteranceLedger()

    def sizes(self) -> dict[str, int]:
        """How much is remembered, by kind: to see that it stays bounded."""
        return {
            "jobs": len(self._jobs),
            "jobs_due": len(self._jobs_due),
            "jobs_ended": len(self._ended),
            **self.utterances.sizes(),
        }

    def account(self) -> dict[str, int]:
        """Jobs by what became of them; `created` is the sum of the others."""
        return dict(self._account)

    def ended_before(self, job_id: str, limit_ns: int) -> bool:
        """Whether a job is over since before `limit_ns`, or so long that it is forgotten."""
        job = self._jobs.get(job_id)
        return job is None or (job.state not in (QUEUED, RUNNING) and job.ended_ns <= limit_ns)

    def goes_on(self, job_id: str) -> bool:
        """Whether a job is known and not over."""
        job = self._jobs.get(job_id)
        return job is not None and job.state in (QUEUED, RUNNING)

    def waits_since(self, job_id: str) -> int:
        """Since when a job in line has waited for any node; -1 if it does not."""
        job = self._jobs.get(job_id)
        return job.queued_ns if job is not None and job.state == QUEUED else -1

    # Utterances and requests

    def utterance_cut(self, event: UtteranceCut) -> None:
        """An answer is owed from now on."""
        self._pass(event.at_ns)
        self.utterances.cut(event)

    def store_lost(self, _event: StoreLost) -> None:
        """What it knew may be done once more; no answer may be given twice for that (I1)."""
        for job in self._jobs.values():
            job.forgotten = True

    def instance_down(self, event: InstanceDown) -> None:
        """Its jobs end with it, and it owes nothing; what comes all the same must still be one."""
        for job in list(self._jobs.values()):
            self._let_go(job, event.instance, event.at_ns)
        self.utterances.instance_down(event)

    def _let_go(self, job: JobEntry, instance: str, at_ns: int) -> None:
        """An instance has the job no more; without another one it is abandoned."""
        if instance not in job.holders:
            return
        was_first = next(iter(job.holders)) == instance
        del job.holders[instance]
        if job.state not in (QUEUED, RUNNING):
            return
        if job.holders:
            if was_first and job.state == QUEUED:
                self._move(job, RUNNING)
            return
        job.ended_ns = at_ns
        self._close(job)
        self._move(job, ABANDONED)
        if job.lane.job == job.job_id:
            job.lane.job = ""

    def answered_alone(self, event: AnsweredAlone) -> None:
        """Without the store two instances cannot know of each other's answer."""
        where = (event.session, event.utterance, event.language)
        self.utterances.lane(*where, event.at_ns).alone = True

    def job_yielded(self, event: JobYielded) -> None:
        """An instance leaves the job to another."""
        job = self._jobs.get(event.job)
        if job is not None:
            self._let_go(job, event.instance, event.at_ns)

    def job_adopted(self, event: JobAdopted) -> None:
        """Another instance goes on with a job: it must end now like any other."""
        job = self._jobs.get(event.job)
        if job is None:
            return
        if job.state not in (QUEUED, RUNNING):
            self._revive(job, event.instance, event.at_ns)
        job.left_by |= job.gave_up | job.holders
        job.left_by.pop(event.instance, None)
        job.gave_up = {}
        job.holders = {event.instance: None}

    def job_created(self, event: JobCreated) -> None:
        """A job was made: the only one of its lane, and the only one of its request."""
        self._pass(event.at_ns)
        lane = self.utterances.lane(event.session, event.utterance, event.target, event.at_ns)
        self._same_request(event, lane)
        self._checked["I1"] += 1
        if lane.job and lane.job != event.job:
            self._findings.add(
                "I1", event.at_ns, event.job,
                f"{event.session} utterance {event.utterance} to {event.target}: a second job, "
                f"{self.how_made(event)}, while {lane.job} has not failed",
                event.instance,
            )  # fmt: skip
        else:
            lane.job = event.job
        known = self._jobs.get(event.job)
        if known is not None and known.state in (QUEUED, RUNNING):
            known.holders[event.instance] = None
            known.left_by.pop(event.instance, None)  # it has it anew
            return
        job = JobEntry(event.job, lane, event.at_ns, event.attempt)
        job.holders[event.instance] = None
        job.forgotten = known is not None and known.forgotten
        self._jobs[event.job] = job
        self._jobs_due.append(job)
        lane.jobs += 1
        lane.open += 1
        self._account["created"] += 1
        self._account[RUNNING] += 1
        if not event.node:
            self._move(job, QUEUED)
            job.queued_ns = event.at_ns
            job.deadline_ns = event.at_ns + self._settings.pending_ns

    def job_repeated(self, event: JobRepeated) -> None:
        """A request came again: it must get what it got before."""
        self._same_request(
            event, self.utterances.lane(event.session, event.utterance, event.target, event.at_ns)
        )

    def job_refused(self, event: JobRefused) -> None:
        """An utterance is turned away; a job that was made for it ends as refused."""
        lane = self.utterances.lane(event.session, event.utterance, event.target, event.at_ns)
        job = self._jobs.get(lane.job)
        if job is not None:
            job.refused = True

    def _same_request(self, event: JobCreated | JobRepeated, lane: Lane) -> None:
        fresh = event.at_ns - lane.request_ns <= self._settings.binding_ttl_ns
        if lane.request != event.request or not fresh:
            lane.request = event.request
            lane.request_job = event.job
            lane.request_ns = event.at_ns
            return
        self._checked["I11"] += 1
        if lane.request_job != event.job:
            self._findings.add(
                "I11", event.at_ns, event.request,
                f"the same request got {event.job} after {lane.request_job}", event.instance,
            )  # fmt: skip

    # The life of a job

    def job_queued(self, event: JobQueued) -> None:
        """A new job waits for a node; one that is tried again just goes on."""
        job = self._held_by(event)
        if job is not None and job.state in (QUEUED, RUNNING) and event.reason != RETRY:
            if job.state != QUEUED:
                job.queued_ns = event.at_ns
            self._move(job, QUEUED)
            job.deadline_ns = event.deadline_ns

    def job_runs(self, event: JobAssigned | JobDispatched) -> None:
        """A job has a node."""
        job = self._held_by(event)
        if job is None:
            return
        if job.state == QUEUED:
            self._move(job, RUNNING)
        self._attempt(job, event.attempt)

    def _held_by(self, event: JobQueued | JobAssigned | JobDispatched) -> JobEntry | None:
        """
        The job, if the instance that speaks is the one that has it.

        Another instance may have been asked for the same job, and waits for it beside the first;
        when that one dies it goes on by itself.
        """
        job = self._jobs.get(event.job)
        if job is not None and job.state == ABANDONED:
            self._revive(job, event.instance, event.at_ns)
        first = next(iter(job.holders), "") if job is not None else ""
        return job if first == event.instance else None

    def _revive(self, job: JobEntry, instance: str, at_ns: int) -> None:
        job.holders = {instance: None}
        job.gave_up.pop(instance, None)
        job.since_ns = at_ns
        job.lane.open += 1
        job.lane.job = job.job_id
        self._jobs_due.append(job)
        self._move(job, RUNNING)

    def slot_taken(self, event: SlotTaken) -> None:
        """A new attempt began, even if its creation is told later."""
        job = self._jobs.get(event.job)
        if job is not None:
            self._attempt(job, event.attempt)

    def job_ended(self, event: JobEnded) -> None:
        """A job is over, once."""
        job = self._jobs.get(event.job)
        if job is None or job.left_by.pop(event.instance, "") is None:
            return
        if event.status != "completed" and self._beside(job, event):
            return
        apart = job.lane.alone or job.forgotten
        if apart and job.state not in (QUEUED, RUNNING, LOST, ABANDONED):
            return  # without the store, two instances cannot know of each other's end
        if job.state == "failed" and job.ended_by != event.instance:
            return  # one gave it up, another one has done it: what the client gets is I3's affair
        self._checked[CONSERVATION] += 1
        if job.state not in (QUEUED, RUNNING, LOST, ABANDONED):
            self._findings.add(
                CONSERVATION, event.at_ns, event.job,
                f"ended again as {event.status} after it was {job.state}", event.instance,
            )  # fmt: skip
            return
        job.holders.pop(event.instance, None)
        job.ended_by = event.instance
        job.gave_up |= job.holders
        job.holders = {}
        job.ended_ns = event.at_ns
        if job.state not in (LOST, ABANDONED):
            self._close(job)
        self._move(job, REFUSED if job.refused else ENDS.get(event.status, "failed"))
        if event.status != "completed" and job.lane.job == event.job:
            job.lane.job = ""

    def _beside(self, job: JobEntry, event: JobEnded) -> bool:
        """Whether somebody gave up waiting beside another instance that has, or had, the job."""
        if job.gave_up.pop(event.instance, "") is None:
            return True
        others = len(job.holders) - (event.instance in job.holders)
        if not others or job.state not in (QUEUED, RUNNING):
            return False
        self._let_go(job, event.instance, event.at_ns)
        return True

    def _attempt(self, job: JobEntry, attempt: int) -> None:
        if attempt > job.attempt:
            job.attempt = attempt
            job.received = job.suppressed = 0

    def _move(self, job: JobEntry, state: str) -> None:
        self._account[job.state] -= 1
        self._account[state] = self._account.get(state, 0) + 1
        job.state = state

    def _close(self, job: JobEntry) -> None:
        job.lane.open -= 1
        self._ended.push(job.job_id)

    def _forget_job(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.state not in (QUEUED, RUNNING):
            del self._jobs[job_id]

    # Answers

    def delivered(self, event: Delivered) -> None:
        """A target got its answer."""
        if event.session in self._clients or self.utterances.is_elsewhere(event):
            return
        utterance = self.utterances.entry(event.session, event.utterance, event.at_ns)
        language = event.language
        if not language:
            # The answer to a job that the instance had forgotten does not say its language.
            language = utterance.language_of(self._jobs.get(event.job))
        lane = utterance.lanes.get(language)
        if lane is None:
            lane = utterance.lanes[language] = Lane()
        if event.target in lane.targets:
            if lane.alone:
                return
            self._findings.add(
                "I3", event.at_ns, event.session,
                f"I3 twice: utterance {event.utterance} in {language or 'some language'} reached "
                f"{event.target} again ({event.outcome}, first {lane.first})",
                event.instance,
            )  # fmt: skip
            return
        self._checked["I3"] += 1
        if not lane.targets:
            lane.first = event.outcome
        lane.targets = (*lane.targets, event.target)
        if all(one.targets for one in utterance.lanes.values()):
            self.utterances.settle(utterance)

    # Bounds

    def _pass(self, now_ns: int) -> None:
        """Judge what the clock has passed; both lines are in the order of time."""
        jobs, answers, limit_ns = self._jobs_due, self.utterances.due, now_ns - self._bound_ns
        while jobs and (jobs[0].state not in (QUEUED, RUNNING) or jobs[0].since_ns < limit_ns):
            job = jobs.popleft()
            if job.state in (QUEUED, RUNNING):
                self._lose(job, now_ns, "neither ended nor given up within its bound")
        while answers and (answers[0].settled or answers[0].since_ns < limit_ns):
            utterance = answers.popleft()
            if not utterance.settled:
                self._miss(utterance, now_ns)

    def _lose(self, job: JobEntry, now_ns: int, text: str) -> None:
        self._checked[CONSERVATION] += 1
        self._findings.add(CONSERVATION, now_ns, job.job_id, f"{job.state}: {text}")
        job.ended_ns = now_ns
        self._move(job, LOST)
        self._close(job)

    def _miss(self, utterance: UtteranceEntry, now_ns: int) -> None:
        """Each lane without an answer is a breach; so is an utterance without any lane."""
        session, index = utterance.key
        self.utterances.settle(utterance)
        if session in self._clients:
            return
        silent = [name for name, lane in utterance.lanes.items() if not lane.targets]
        for language in silent if utterance.lanes else ["any language"]:
            self._checked["I3"] += 1
            why = why_silent(utterance.lanes.get(language), self._jobs)
            self._findings.add(
                "I3", now_ns, session,
                f"I3 missing: utterance {index} in {language} got no answer ({why})",
            )  # fmt: skip

    def finish(self, now_ns: int, closed: frozenset[str]) -> None:
        """
        The end of the run: judge what is past its bound, leave the rest undecided.

        In a `closed` session nothing holds an answer back any more: a lane whose jobs have all
        ended without one will never get it, whatever its bound.
        """
        self._pass(now_ns)
        for job in list(self._jobs_due):
            if job.state == QUEUED and job.deadline_ns < now_ns - 2 * self._settings.scan_ns:
                self._lose(job, now_ns, "still in line after its deadline")
        for utterance in list(self.utterances.due):
            if utterance.settled or utterance.key[0] not in closed:
                continue
            lanes = utterance.lanes.values()
            over = all(lane.targets or (lane.jobs and not lane.open) for lane in lanes)
            if utterance.lanes and over:
                self._miss(utterance, now_ns)
