"""Results: only the current attempt's counts, once, and none is swallowed (I4, I12)."""

from __future__ import annotations

from collections.abc import Mapping

from simsched.findings import Findings
from simsched.ledger_entries import QUEUED, RUNNING, JobEntry
from simsched.telemetry import ResultAccepted, ResultReceived, ResultSuppressed


class ResultRules:
    """What becomes of the answers of nodes; `jobs` is the ledger's."""

    def __init__(self, jobs: Mapping[str, JobEntry], findings: Findings) -> None:
        self._jobs = jobs
        self._findings = findings
        self._checked = findings.checked

    def result_received(self, event: ResultReceived) -> None:
        """A node answered."""
        job = self._jobs.get(event.job)
        if job is not None and job.attempt == event.attempt:
            job.received += 1
        if job is not None and not event.success:
            job.failed_attempt = event.attempt

    def result_accepted(self, event: ResultAccepted) -> None:
        """
        An answer counts: the current attempt's, once.

        A failure is no answer: two instances may both hear of it while a job changes hands.
        """
        self._checked["I4"] += 1
        self._checked["I12"] += 1
        if event.attempt != event.current_attempt:
            self._findings.add(
                "I4", event.at_ns, event.job,
                f"attempt {event.attempt} accepted while {event.current_attempt} is current",
                event.instance,
            )  # fmt: skip
        job = self._jobs.get(event.job)
        if job is None:
            return
        excused = job.lane.alone or job.forgotten or job.failed_attempt == event.attempt
        if job.accepted == event.attempt and not excused:
            self._findings.add(
                "I12", event.at_ns, event.job,
                f"the result of attempt {event.attempt} was accepted twice", event.instance,
            )  # fmt: skip
        if job.failed_attempt != event.attempt:
            job.accepted = max(job.accepted, event.attempt)  # who is alone may be late

    def result_suppressed(self, event: ResultSuppressed) -> None:
        """
        An answer was dropped: right for a repeat, wrong for all the current attempt has.

        A job that ended by a timeout may drop what comes after; only an older attempt's accepted
        result, or a mere memory of one, must not (B5).
        """
        job = self._jobs.get(event.job)
        if job is None or event.reason not in ("duplicate", "terminal"):
            return
        if job.forgotten or job.failed_attempt == event.attempt:
            return  # a store that forgot may have given the number twice; a failure is no answer
        self._checked["I4"] += 1
        if event.attempt != job.attempt:
            return
        job.suppressed += 1
        if event.reason == "terminal":
            swallowed = bool(job.accepted) and job.accepted != event.attempt
        else:
            alive = job.state in (QUEUED, RUNNING)
            swallowed = alive and job.accepted != event.attempt and job.suppressed >= job.received
        if swallowed:
            self._findings.add(
                "I4", event.at_ns, event.job,
                f"the result of the current attempt {event.attempt} was dropped as "
                f"{event.reason}, and none of it was accepted",
                event.instance,
            )  # fmt: skip
