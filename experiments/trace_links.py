"""
Which operations belong to which job, and the arrow that leads through them.

Tables of a simulated run do not say whose an operation was; moments do: a job exists the very
nanosecond its creation ends. An operation is taken for a job's if it begins or ends exactly when
it should, else if it is the only one in progress then; one that cannot be told apart is left
alone, never guessed. Recordings know the session of each operation, which narrows the search.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from simsched.experiments.trace_tables import JobRow, OperationRow
from simsched.experiments.trace_tracks import FlowPoint

LINKED: Final = ("finalize", "create_job", "dispatch", "job_result")
"""Kinds of operations that belong to a job."""

CLAIMS: Final = ("redis.claim", "redis.lua_reserve")
"""Steps of a creation in which the store gives the job its slot."""

FORWARDED: Final = "forwarded"


@dataclass(slots=True)
class JobLinks:
    """What was found of one job."""

    finalize: OperationRow | None = None
    create: OperationRow | None = None
    dispatch: OperationRow | None = None
    forwarded: OperationRow | None = None
    result: OperationRow | None = None

    def all(self) -> list[OperationRow]:
        """The operations that were found."""
        found = (self.finalize, self.create, self.dispatch, self.forwarded, self.result)
        return [row for row in found if row is not None]


class _Index:
    """Operations of one kind of one session, to be searched by time."""

    def __init__(self, rows: Iterable[OperationRow]) -> None:
        self._by_start = sorted(rows, key=attrgetter("start_ns", "operation"))
        self._starts = [row.start_ns for row in self._by_start]
        self._by_end = sorted(self._by_start, key=attrgetter("end_ns", "operation"))
        self._ends = [row.end_ns for row in self._by_end]
        self._longest = max((row.latency_ns for row in self._by_start), default=0)

    def starting(self, at_ns: int) -> list[OperationRow]:
        low, high = bisect_left(self._starts, at_ns), bisect_right(self._starts, at_ns)
        return self._by_start[low:high]

    def ending(self, at_ns: int) -> list[OperationRow]:
        return self._by_end[bisect_left(self._ends, at_ns) : bisect_right(self._ends, at_ns)]

    def during(self, at_ns: int) -> list[OperationRow]:
        low = bisect_left(self._starts, at_ns - self._longest)
        high = bisect_right(self._starts, at_ns)
        return [row for row in self._by_start[low:high] if row.end_ns >= at_ns]

    def within(self, from_ns: int, until_ns: int) -> list[OperationRow]:
        low, high = bisect_left(self._starts, from_ns), bisect_right(self._starts, until_ns)
        return [row for row in self._by_start[low:high] if row.end_ns <= until_ns]


_NONE: Final = _Index(())


def _only(rows: Iterable[OperationRow]) -> OperationRow | None:
    found = list(rows)
    return found[0] if len(found) == 1 else None


class Links:
    """The links of all jobs, and the arrows made of them."""

    def __init__(self, jobs: list[JobRow], operations: Iterable[OperationRow]) -> None:
        kept: dict[tuple[str, str], list[OperationRow]] = {}
        self.last_ns = max((job.last_ns for job in jobs), default=0)
        for row in operations:
            self.last_ns = max(self.last_ns, row.end_ns)
            if row.kind in LINKED:
                kind = FORWARDED if row.outcome == FORWARDED else row.kind
                kept.setdefault((kind, row.session), []).append(row)
        self._indices = {key: _Index(rows) for key, rows in kept.items()}
        self._knows_sessions = any(session for _, session in kept)
        self._jobs_of: dict[int, list[str]] = {}
        self._flows: dict[int, list[FlowPoint]] = {}
        self._claims: dict[int, list[_Claim]] = {}
        self._ends: dict[int, list[FlowPoint]] = {}
        self._on_node: dict[int, FlowPoint] = {}
        for job in jobs:
            links = self._find(job)
            for row in links.all():
                self._jobs_of.setdefault(row.operation, []).append(job.job)
            self._lead(job, links)

    def jobs_of(self, operation: int) -> list[str]:
        """The jobs that an operation belongs to; several speak of one utterance."""
        return self._jobs_of.get(operation, [])

    def flows_of(self, operation: int) -> list[FlowPoint]:
        """The arrows through an operation."""
        return self._flows.get(operation, [])

    def flows_of_job(self, job: JobRow) -> list[FlowPoint]:
        """The arrow's ends on the job's own track."""
        return self._ends.get(job.number, [])

    def flow_on_node(self, job: JobRow) -> list[FlowPoint]:
        """The arrow through the job's slice on its node."""
        point = self._on_node.get(job.number)
        return [] if point is None else [point]

    def claim_in(self, operation: int, step: str, start_ns: int, end_ns: int) -> list[FlowPoint]:
        """The arrow through a call of the store, if it is the one that gives the job a slot."""
        if step not in CLAIMS:
            return []
        waiting = self._claims.get(operation, [])
        for place, claim in enumerate(waiting):
            if claim.after_ns < start_ns < min(claim.before_ns, end_ns):
                del waiting[place]
                return [FlowPoint("t", claim.number, claim.name, start_ns)]
        return []

    def _find(self, job: JobRow) -> JobLinks:
        session = job.session if self._knows_sessions else ""

        def index(kind: str) -> _Index:
            return self._indices.get((kind, session), _NONE)

        links = JobLinks()
        creations = index("create_job")
        links.create = _only(
            row for row in creations.ending(job.created_ns) if row.start_ns >= job.cut_ns
        ) or _only(row for row in creations.during(job.created_ns) if row.start_ns >= job.cut_ns)
        if job.dispatched_ns >= 0:
            sending = index("dispatch")
            links.dispatch = _only(sending.starting(job.dispatched_ns)) or _only(
                row for row in sending.during(job.dispatched_ns) if row.start_ns >= job.created_ns
            )
        cutting = index("finalize")
        last = links.dispatch or links.create
        until = last.end_ns if last is not None else job.created_ns
        links.finalize = _only(
            row for row in cutting.ending(until) if row.start_ns <= job.cut_ns
        ) or _only(row for row in cutting.during(job.cut_ns) if row.end_ns >= job.created_ns)
        self._find_answer(job, links, index("job_result"), index(FORWARDED))
        return links

    def _find_answer(
        self, job: JobRow, links: JobLinks, answering: _Index, passing: _Index
    ) -> None:
        if job.finished_ns < 0:
            return
        answered = job.delivered_ns if job.delivered_ns >= 0 else job.ended_ns
        links.result = _only(
            row for row in answering.ending(answered) if row.start_ns >= job.dispatched_ns
        ) or _only(
            row for row in answering.during(answered) if row.start_ns >= job.dispatched_ns
        )  # fmt: skip
        if links.result is not None:
            links.forwarded = _only(passing.within(job.finished_ns, links.result.start_ns))

    # The arrow

    def _lead(self, job: JobRow, links: JobLinks) -> None:
        """From the cut through all that was found to the delivery; each point later than before."""
        end_ns = (job.last_ns if job.is_over else self.last_ns) - 1
        if end_ns <= job.cut_ns:
            return
        at_ns = job.cut_ns
        cut = links.finalize
        leads = cut is not None and cut.start_ns < at_ns
        if cut is not None and leads:
            self._through(cut, FlowPoint("s", job.number, job.job, cut.start_ns))
        on_job = [FlowPoint("t" if leads else "s", job.number, job.job, at_ns)]
        on_job.append(FlowPoint("f", job.number, job.job, end_ns))
        self._ends[job.number] = on_job
        at_ns = self._bend(job, links.create, at_ns, end_ns)
        created_ns, at_ns = at_ns, self._bend(job, links.dispatch, at_ns, end_ns)
        if links.create is not None:
            self._claims.setdefault(links.create.operation, []).append(
                _Claim(job.number, job.job, created_ns, min(links.create.end_ns, end_ns))
            )
        if job.finished_ns > job.started_ns > at_ns and job.started_ns < end_ns:
            at_ns = job.started_ns
            self._on_node[job.number] = FlowPoint("t", job.number, job.job, at_ns)
        at_ns = self._bend(job, links.forwarded, at_ns, end_ns)
        self._bend(job, links.result, at_ns, end_ns)

    def _bend(self, job: JobRow, row: OperationRow | None, after_ns: int, before_ns: int) -> int:
        """Lead the arrow through an operation if it can be; the arrow's last moment so far."""
        if row is None:
            return after_ns
        at_ns = max(row.start_ns, after_ns + 1)
        if at_ns >= min(row.end_ns, before_ns):
            return after_ns
        self._through(row, FlowPoint("t", job.number, job.job, at_ns))
        return at_ns

    def _through(self, row: OperationRow, point: FlowPoint) -> None:
        self._flows.setdefault(row.operation, []).append(point)


@dataclass(frozen=True, slots=True)
class _Claim:
    """A job's slot is given between two moments of its creation."""

    number: int
    name: str
    after_ns: int
    before_ns: int
