"""
How a job enters the books of its instance: created, repeated, put in line, counted on a node.

Both ways of creating jobs (`creation`, `claims`) end here, so that a job is counted exactly once
however it came about: what is counted here is taken off again by `JobDispatcher.end`.
"""

from __future__ import annotations

from simsched.errors import SimschedError
from simsched.jobs import Job, JobRequest
from simsched.messages import JobResult
from simsched.state import InstanceState, Session
from simsched.telemetry import (
    AnswerLost,
    JobAdopted,
    JobCreated,
    JobQueued,
    JobRefused,
    JobRepeated,
    SlotTaken,
)
from simsched.units import MS


class CreationFailed(SimschedError):
    """No job could be made for a request; `code` is what the client is told."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def created(state: InstanceState, job: Job) -> None:
    """A new job exists: its session and its utterance have one more to wait for."""
    request = job.request
    job.announced = True
    session = state.sessions.get(request.session_id)
    if session is not None:
        session.jobs_open += 1
    key = (request.session_id, request.utterance)
    state.utterance_jobs[key] = state.utterance_jobs.get(key, 0) + 1
    state.emit(
        JobCreated(
            at_ns=state.runtime.now(), instance=state.runtime.instance_id, job=job.job_id,
            request=request.request_id, session=request.session_id, utterance=request.utterance,
            target=request.target_language, node=job.node_id, attempt=job.attempt,
            phase=job.phase,
        )
    )  # fmt: skip


def adopted(state: InstanceState, session: Session, result: JobResult) -> Job:
    """
    A job of an instance that is gone, as far as its result tells: it runs, and this is its end.

    Its audio went with its instance, so it cannot be tried again.
    """
    now, language = state.runtime.now(), result.job_id.rpartition(":")[2]
    request = JobRequest(
        request_id=result.job_id, session_id=session.session_id, session_key=session.key,
        utterance=result.utterance_index, source_language=session.source_language,
        target_language=language, audio=b"", audio_format=session.audio_format, audio_ms=0,
        trace_id=result.trace_id or session.trace_id,
    )  # fmt: skip
    job = Job(result.job_id, request, now, phase=2)
    job.assign(result.node_id, result.attempt_id, reserved=False)
    job.dispatched, job.dispatched_ns, job.announced = True, now, True
    job.failovers = state.policy_of(session.session_id).failover_max
    state.book.add(job)
    session.jobs_open += 1
    key = (session.session_id, result.utterance_index)
    state.utterance_jobs[key] = state.utterance_jobs.get(key, 0) + 1
    state.emit(
        JobAdopted(
            at_ns=now, instance=state.runtime.instance_id, job=job.job_id,
            session=session.session_id, utterance=result.utterance_index, target=language,
            node=job.node_id, attempt=job.attempt,
        )
    )  # fmt: skip
    return job


def answer_lost(state: InstanceState, request: JobRequest) -> None:
    """What was answered has not arrived: nobody is taken to have the answer any more."""
    session = state.sessions.get(request.session_id)
    if session is not None:
        session.silenced.pop((request.utterance, request.target_language), None)
        for target in request.targets or (request.session_id,):
            session.answered.pop((request.utterance, request.target_language, target), None)
    state.emit(
        AnswerLost(
            at_ns=state.runtime.now(), instance=state.runtime.instance_id,
            session=request.session_id, utterance=request.utterance,
            language=request.target_language,
        )
    )  # fmt: skip


def repeated(state: InstanceState, job: Job, request: JobRequest) -> Job:
    """The request came before: it gets the job that it got then."""
    state.emit(
        JobRepeated(
            at_ns=state.runtime.now(), instance=state.runtime.instance_id, job=job.job_id,
            request=request.request_id, session=request.session_id,
            utterance=request.utterance, target=request.target_language,
        )
    )  # fmt: skip
    return job


def line_up(state: InstanceState, job: Job) -> None:
    """
    A new job without a node waits its turn, unless the line is full: then it has its reason.

    Under `pending = expire` nobody looks at it again; the scan ends it after `pending_ms`.
    """
    request, now = job.request, state.runtime.now()
    policy = state.policy_of(request.session_id)
    if policy.pending == "expire":
        return
    if state.pending.full:
        job.reason = "QUEUE_FULL"
        state.emit(
            JobRefused(
                at_ns=now, instance=state.runtime.instance_id, request=request.request_id,
                session=request.session_id, utterance=request.utterance,
                target=request.target_language, reason="QUEUE_FULL",
            )
        )  # fmt: skip
        return
    patience = request.pending_ns
    job.deadline_ns = now + (policy.pending_ms * MS if patience is None else patience)
    state.pending.push(request.pair, job)
    state.emit(
        JobQueued(
            at_ns=now, instance=state.runtime.instance_id, job=job.job_id,
            session=request.session_id, deadline_ns=job.deadline_ns, reason="NO_FREE_NODE",
        )
    )  # fmt: skip


def slot_counted(state: InstanceState, job_id: str, attempt: int, node: str) -> None:
    """
    The store's counter of a node holds one attempt more; `JobDispatcher.uncount` takes it off.

    How many it holds is not asked for (0): whoever reads the events counts for itself, and so sees
    what a heartbeat makes the counter forget (B4).
    """
    state.emit(
        SlotTaken(
            at_ns=state.runtime.now(), instance=state.runtime.instance_id, node=node, job=job_id,
            attempt=attempt, live=0, slots=0, expires_ns=0,
        )
    )  # fmt: skip
