"""
Jobs: what they are, the states they pass through, and the book that one instance keeps of them.

A job is one utterance into one language. Its lifecycle is a table (`TRANSITIONS`); a move that is
not in the table is a fault of ours and asserts. The book holds jobs by id, the local idempotency
maps of the reference (by request, by job key), and the queue of jobs that wait for a node. It
decides nothing and waits for nothing: the shells in `dispatch` and `results` do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from typing import Final

import msgspec

from simsched.units import SECOND


class JobStatus(IntEnum):
    """Where a job stands, in the reference's words (domain 4.4)."""

    PENDING = 0
    ASSIGNED = 1
    PROCESSING = 2
    COMPLETED = 3
    COMPLETED_NO_TEXT = 4
    FAILED = 5


TERMINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.COMPLETED_NO_TEXT, JobStatus.FAILED})
"""States in which a job owes nothing more."""

ENDED: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})
"""States that nothing leaves: `COMPLETED_NO_TEXT` is not among them, see `TRANSITIONS`."""

TRANSITIONS: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    # A job in line for its next attempt may still get the answer of the one before.
    JobStatus.PENDING: frozenset({JobStatus.ASSIGNED, *TERMINAL}),
    JobStatus.ASSIGNED: frozenset(
        {JobStatus.PENDING, JobStatus.ASSIGNED, JobStatus.PROCESSING, *TERMINAL}
    ),
    JobStatus.PROCESSING: frozenset({JobStatus.PENDING, JobStatus.ASSIGNED, *TERMINAL}),
    JobStatus.COMPLETED: frozenset(),
    # The reference does not count it as terminal: such a job may time out and run again (B10).
    JobStatus.COMPLETED_NO_TEXT: frozenset({JobStatus.ASSIGNED, *TERMINAL}),
    JobStatus.FAILED: frozenset(),
}

JOB_KEY_TTL_NS: Final = 300 * SECOND
"""The reference remembers a job key for 5 minutes (domain 4.1)."""

REQUEST_LEASE_NS: Final = 90 * SECOND
"""The reference's local request binding lives for 90 s (domain 4.5)."""


def request_id(session_id: str, utterance: int, language: str, trace_id: str) -> str:
    """The reference's name of a request; its trace makes a client's retry another one (4.1)."""
    return f"{session_id}:{utterance}:{language}:{trace_id}"


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance to be translated into one language: what a creation is asked for."""

    request_id: str
    session_id: str
    session_key: int
    utterance: int
    source_language: str
    target_language: str
    audio: bytes
    audio_format: str
    audio_ms: int
    trace_id: str
    tenant_id: str | None = None
    preferred_node: str | None = None
    targets: tuple[str, ...] = ()
    padding_ms: int = 0
    cut: str = ""
    first_audio_ms: int = 0
    features: tuple[str, ...] = ()
    pending_ns: int | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """Source and target language: the line in which a job of this request waits."""
        return (self.source_language, self.target_language)

    @property
    def job_key(self) -> str:
        """The request without its trace: what a client's retry keeps (domain 4.1)."""
        tenant = self.tenant_id or "default"
        return f"{tenant}:{self.session_id}:{self.utterance}:translation:{self.target_language}"


def job_name(session_id: str, utterance: int, language: str) -> str:
    """The id of a job of the safe design: asking for it again names the same job."""
    return f"{session_id}:{utterance}:{language}"


class Job:
    """One job in progress on the instance that owns its session."""

    __slots__ = (
        "accepted_ns",
        "again",
        "announced",
        "asked_ns",
        "attempt",
        "cancelled",
        "created_ns",
        "deadline_ns",
        "dispatched",
        "dispatched_ns",
        "done",
        "failovers",
        "followed",
        "job_id",
        "leased_ns",
        "node_id",
        "number",
        "phase",
        "reason",
        "request",
        "reserved",
        "status",
        "tried_nodes",
        "yielded",
    )

    def __init__(
        self, job_id: str, request: JobRequest, created_ns: int, phase: int, number: int = 0
    ) -> None:
        self.job_id = job_id
        self.request = request
        self.created_ns = created_ns
        self.phase = phase
        self.number = number
        self.status = JobStatus.PENDING
        self.node_id = ""
        self.attempt = 0
        self.failovers = 0
        self.reserved = False
        self.followed = False
        self.dispatched = False
        self.dispatched_ns = 0
        self.accepted_ns = 0
        self.deadline_ns = 0
        self.tried_nodes: tuple[str, ...] = ()
        self.done = False  # its result counts, and is about to be answered
        self.cancelled = False
        self.yielded = False
        self.again = False
        self.announced = False
        self.asked_ns = 0
        self.leased_ns = 0
        self.reason = ""

    def move(self, status: JobStatus) -> None:
        """Go to another state; a move outside the table is our own fault."""
        assert status in TRANSITIONS[self.status], f"{self.job_id}: {self.status} -> {status}"
        self.status = status

    def assign(self, node_id: str, attempt: int, *, reserved: bool) -> None:
        """Give the job a node; the node counts as tried from now on."""
        self.move(JobStatus.ASSIGNED)
        self.node_id = node_id
        self.attempt = attempt
        self.reserved = reserved
        self.followed = False
        self.dispatched = False
        self.accepted_ns = 0
        self.asked_ns = 0
        if node_id not in self.tried_nodes:
            self.tried_nodes = (*self.tried_nodes, node_id)

    def waits_to_go(self, attempt: int) -> bool:
        """Whether this attempt has still to be sent: nobody has moved the job on meanwhile."""
        return self.attempt == attempt and self.status is JobStatus.ASSIGNED and not self.dispatched

    @property
    def is_picky(self) -> bool:
        """Whether some nodes of its language pair will not do: others may overtake it in line."""
        request = self.request
        return bool(self.failovers or request.features or request.preferred_node)

    @property
    def ended(self) -> bool:
        """Whether a state was reached that nothing leaves."""
        return self.status in ENDED

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to: nothing more is tried for it."""
        return self.done or self.status in ENDED


@dataclass(slots=True)
class JobBook:
    """All jobs of one instance, and the local maps that recognise a repeated request."""

    jobs: dict[str, Job] = field(default_factory=dict)
    by_request: dict[str, tuple[str, int]] = field(default_factory=dict)
    by_job_key: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended_total: int = 0

    def add(self, job: Job) -> None:
        """Keep a new job, replacing one of the same id."""
        self.jobs[job.job_id] = job

    def get(self, job_id: str) -> Job | None:
        """The job of that id, if it is known here."""
        return self.jobs.get(job_id)

    def remember_request(self, request_id: str, job_id: str, now_ns: int) -> None:
        """Bind a request locally for the reference's lease; lapsed ones go first."""
        _drop_lapsed(self.by_request, now_ns)
        self.by_request.pop(request_id, None)  # a renewed one goes to the end of the order
        self.by_request[request_id] = (job_id, now_ns + REQUEST_LEASE_NS)

    def remember_job_key(self, job_key: str, job_id: str, now_ns: int) -> None:
        """Bind a job key locally; lapsed ones go first."""
        _drop_lapsed(self.by_job_key, now_ns)
        self.by_job_key.pop(job_key, None)
        self.by_job_key[job_key] = (job_id, now_ns + JOB_KEY_TTL_NS)

    def of_request(self, request_id: str, now_ns: int) -> Job | None:
        """The job that the same request was given before."""
        return self._bound(self.by_request, request_id, now_ns)

    def of_job_key(self, job_key: str, now_ns: int) -> Job | None:
        """The job that the same utterance and language was given before."""
        return self._bound(self.by_job_key, job_key, now_ns)

    def _bound(self, bound: dict[str, tuple[str, int]], key: str, now_ns: int) -> Job | None:
        job_id, until_ns = bound.get(key, ("", 0))
        return self.jobs.get(job_id) if until_ns >= now_ns else None

    def drop(self, job: Job) -> None:
        """Leave a job to somebody else; another job of the same name stays."""
        if self.jobs.get(job.job_id) is job:
            del self.jobs[job.job_id]

    def forget(self, job: Job) -> None:
        """Let go of an ended job (the reference never does: B14)."""
        if self.jobs.get(job.job_id) is job:
            del self.jobs[job.job_id]
        self.ended_total += 1

    def active(self) -> list[Job]:
        """The jobs that have not ended, oldest first."""
        return [job for job in self.jobs.values() if not job.ended]


def _drop_lapsed(bound: dict[str, tuple[str, int]], now_ns: int) -> None:
    """Entries are in order of their expiry, so only the front can have lapsed."""
    while bound:
        first = next(iter(bound))
        if bound[first][1] >= now_ns:
            return
        del bound[first]


class PendingQueue:
    """
    Jobs that wait for a node, first come first served within a language pair.

    Bounded: `full` says when a further job has to be refused. Joining, leaving anywhere in the line
    and asking for the next deadline cost at most the logarithm of its length.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: dict[tuple[str, str], OrderedDict[str, Job]] = {}
        self._deadlines: list[tuple[int, int, tuple[str, str], Job]] = []
        self._places: dict[str, int] = {}
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def full(self) -> bool:
        """Whether a further job would pass the bound."""
        return len(self._places) >= self._limit

    def waiting(self, pair: tuple[str, str]) -> int:
        """How many wait for this language pair."""
        return len(self._queues.get(pair, ()))

    def pairs(self) -> list[tuple[str, str]]:
        """The language pairs for which somebody waits, in order of their first arrival."""
        return list(self._queues)

    def push(self, pair: tuple[str, str], job: Job) -> None:
        """Line up at the end."""
        assert not self.full, "check `full` before pushing"
        assert job.job_id not in self._places, f"{job.job_id} waits already"
        self._pushed += 1
        self._queues.setdefault(pair, OrderedDict())[job.job_id] = job
        self._places[job.job_id] = self._pushed
        heappush(self._deadlines, (job.deadline_ns, self._pushed, pair, job))

    def head(self, pair: tuple[str, str]) -> Job | None:
        """Who is first in line."""
        queue = self._queues.get(pair)
        return next(iter(queue.values())) if queue else None

    def line(self, pair: tuple[str, str]) -> Iterator[Job]:
        """Who waits for this language pair, in order; do not change the line meanwhile."""
        return iter(self._queues.get(pair, {}).values())

    def remove(self, pair: tuple[str, str], job: Job) -> bool:
        """Leave the line; False if the job was not in it."""
        queue = self._queues.get(pair)
        if queue is None or queue.get(job.job_id) is not job:
            return False
        del queue[job.job_id]
        del self._places[job.job_id]
        if not queue:
            del self._queues[pair]
        return True

    def earliest_deadline(self) -> int | None:
        """When the next wait runs out."""
        heap = self._deadlines
        while heap and not self._waits(heap[0]):
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now_ns: int) -> list[tuple[tuple[str, str], Job]]:
        """Those whose wait has run out, by deadline and then in line order."""
        heap, found = self._deadlines, []
        while heap and heap[0][0] <= now_ns:
            entry = heappop(heap)
            if self._waits(entry):
                found.append(entry)
        for entry in found:
            heappush(heap, entry)  # they leave the line when they are removed
        return [(pair, job) for _, _, pair, job in found]

    def _waits(self, entry: tuple[int, int, tuple[str, str], Job]) -> bool:
        """Whether the entry's job is still at the place in line for which it was made."""
        return self._places.get(entry[3].job_id) == entry[1]
