"""
How a job enters the books of its instance: created, repeated, put in line, counted on a node.

Both ways of creating jobs (`creation`, `claims`) end here, so that a job is counted exactly once
however it came about: what is counted here is taken off again by `JobDispatcher.end`.
"""

from __future__ import annotations

from simsched.errors import SimschedError
from simsched.jobs import Job, JobRequest
from simsched.state import InstanceState
from simsched.telemetry import (
    JobAdopted,
    JobCreated,
    JobQueued,
    JobRefused,
    JobRepeated,
    JobYielded,
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


def followed(state: InstanceState, job: Job, node_id: str, attempt: int) -> None:
    """
    The attempt of another instance runs, and this one has the session: it waits for the result.

    Its slot is this instance's to renew from now on. If nothing comes in time, or the node is lost,
    the job is tried again like any other: its audio is here.
    """
    job.assign(node_id, attempt, reserved=state.policy.slots == "lease")
    job.followed = True
    job.leased_ns = 0  # how old the lease is nobody here knows: renew it soon
    job.dispatched, job.dispatched_ns = True, state.runtime.now()
    state.node_jobs.setdefault(node_id, {})[job.job_id] = None
    taken_over(state, job, node_id, attempt)


def taken_over(state: InstanceState, job: Job, node_id: str, attempt: int) -> None:
    """The instance has the job now, however far another one has come with it."""
    request = job.request
    state.emit(
        JobAdopted(
            at_ns=state.runtime.now(), instance=state.runtime.instance_id, job=job.job_id,
            session=request.session_id, utterance=request.utterance,
            target=request.target_language, node=node_id, attempt=attempt,
        )
    )  # fmt: skip


def let_go(state: InstanceState, job: Job) -> None:
    """The instance has the job no more; another one may, or nobody."""
    state.emit(
        JobYielded(at_ns=state.runtime.now(), instance=state.runtime.instance_id, job=job.job_id)
    )


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
    if state.pending.full or state.runtime.point("line full"):
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
    queued(state, job, "NO_FREE_NODE")


def queued(state: InstanceState, job: Job, reason: str) -> None:
    """The job takes its place at the end of the line."""
    state.pending.push(job.request.pair, job)
    state.emit(
        JobQueued(
            at_ns=state.runtime.now(), instance=state.runtime.instance_id, job=job.job_id,
            session=job.request.session_id, deadline_ns=job.deadline_ns, reason=reason,
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
