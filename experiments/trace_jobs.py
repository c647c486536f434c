"""
Jobs in a trace: what each went through on its session's track, its work on its node, the counters.

A job's stages add up to its whole time, from the cut to the delivery, to the nanosecond. A job that
was not over at the end of the run is drawn until then, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final

from simsched.experiments.trace_links import Links
from simsched.experiments.trace_tables import JobRow
from simsched.experiments.trace_tracks import Process, Span, TraceEvent, Track, Tracks

RUN: Final = Process(1, "the run")
SESSIONS: Final = Process(2, "sessions")
NODES: Final = Process(200_001, "nodes")

STAGES: Final = {
    "cut_ns": "creating",
    "created_ns": "to be sent",
    "queued_ns": "waiting for a node",
    "dispatched_ns": "on its way to the node",
    "started_ns": "running",
    "finished_ns": "answer taken in",
    "ended_ns": "waiting for its turn",
    "delivered_ns": "delivered, not yet closed",
}
"""What a job does after each of its moments, until the next one."""


def stages(job: JobRow, last_ns: int) -> list[Span]:
    """What the job went through, without gaps: the whole of it first."""
    moments = [(getattr(job, name), place) for place, name in enumerate(STAGES)]
    known = sorted(moment for moment in moments if moment[0] >= 0)
    names = list(STAGES.values())
    starts = [at_ns for at_ns, _ in known]
    until_ns = job.last_ns if job.is_over else max(last_ns, job.last_ns)
    ends = [*starts[1:], until_ns]
    whole = Span(starts[0], until_ns, job.job, "job", _facts(job))
    parts = [
        Span(start, end, names[place], "stage", {})
        for (start, place), end in zip(known, ends, strict=True)
        if end > start
    ]
    return [whole, *parts]


def _facts(job: JobRow) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "session": job.session,
        "utterance": job.utterance,
        "target": job.target,
        "node": job.node,
        "attempts": job.attempts,
        "status": job.status,
    }
    if job.reason:
        facts["reason"] = job.reason
    if not job.is_over:
        facts["not_over"] = True
    return facts


def draw_sessions(tracks: Tracks, jobs: Iterable[JobRow], links: Links) -> Iterator[TraceEvent]:
    """Each session's jobs with their stages, the arrow's ends among them."""
    for job in sorted(jobs, key=lambda job: (job.last_ns, job.number)):
        spans = stages(job, links.last_ns)
        track = Track(SESSIONS, job.session)
        yield from tracks.put(track, spans, links.flows_of_job(job))


def draw_nodes(tracks: Tracks, jobs: Iterable[JobRow], links: Links) -> Iterator[TraceEvent]:
    """
    What each node ran, and what was on its way to it or waited there.

    The table keeps a job's first start, its last finish and its last node: of a job that failed
    over these do not belong together, so it is drawn apart.
    """
    by_finish = sorted(jobs, key=lambda job: (job.finished_ns, job.number))
    for job in (job for job in by_finish if job.dispatched_ns >= 0):
        args = {"job": job.job, "session": job.session}
        end_ns = job.finished_ns
        if end_ns < 0:
            end_ns = job.last_ns if job.is_over else links.last_ns
            args["finished"] = "never said"
        if job.attempts > 1:
            began_ns = min(job.dispatched_ns, end_ns)
            span = Span(began_ns, end_ns, job.job, "several_attempts",
                        {**args, "attempts": job.attempts, "node": job.node})  # fmt: skip
            yield from tracks.put(Track(NODES, "jobs that failed over", 1), [span])
            continue
        came_ns = job.started_ns if job.started_ns >= 0 else end_ns
        if came_ns > job.dispatched_ns:
            span = Span(job.dispatched_ns, came_ns, job.job, "node_wait", args)
            yield from tracks.put(Track(NODES, f"{job.node}: to come"), [span])
        if 0 <= job.started_ns <= end_ns:
            span = Span(job.started_ns, end_ns, job.job, "node", args)
            # The arrow's point needs a slice of some length to lie in.
            flows = links.flow_on_node(job) if end_ns > job.started_ns else ()
            yield from tracks.put(Track(NODES, f"{job.node}: running"), [span], flows)


def draw_counters(tracks: Tracks, jobs: Sequence[JobRow], links: Links) -> Iterator[TraceEvent]:
    """Jobs in flight, jobs that wait for a node, and what each node runs."""
    last_ns = links.last_ns
    alive = [(job.created_ns, _or(job.ended_ns, last_ns)) for job in jobs]
    yield from _counter(tracks, RUN, "jobs in flight", alive)
    waiting = [
        (job.queued_ns, _or(job.dispatched_ns, _or(job.ended_ns, last_ns)))
        for job in jobs
        if job.queued_ns >= 0
    ]
    yield from _counter(tracks, RUN, "jobs waiting for a node", waiting)
    ran = [job for job in jobs if job.node and job.started_ns >= 0 and job.attempts == 1]
    ran.sort(key=attrgetter("node"))
    for node, its in groupby(ran, key=attrgetter("node")):
        running = [(job.started_ns, _or(job.finished_ns, last_ns)) for job in its]
        yield from _counter(tracks, NODES, f"{node} running", running)


def _or(moment_ns: int, otherwise_ns: int) -> int:
    return moment_ns if moment_ns >= 0 else otherwise_ns


def _counter(
    tracks: Tracks, process: Process, name: str, spans: Iterable[tuple[int, int]]
) -> Iterator[TraceEvent]:
    """How many spans are open, at each moment that it changes."""
    changes = [change for start, end in spans for change in ((start, 1), (max(start, end), -1))]
    if changes:
        yield from tracks.count(process, name, 0, 0)
    changes.sort()
    value = 0
    for at_ns, those in groupby(changes, key=itemgetter(0)):
        before, value = value, value + sum(step for _, step in those)
        if value != before:
            yield from tracks.count(process, name, at_ns, value)
