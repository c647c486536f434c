"""
Operations with their steps, and what the steps contended for: the bulk of a trace, as a stream.

Every step is drawn twice: inside its operation, where it took its time, and on the track of what
it waited for and then held. Both tables come in the order of ends, so an operation is drawn when
it has ended and only the steps of those in progress are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from simsched.experiments.replicate import KIND_NAMES
from simsched.experiments.trace_links import Links
from simsched.experiments.trace_tables import OperationRow, StepRow, Tables
from simsched.experiments.trace_tracks import (
    FlowPoint,
    Process,
    Span,
    TraceEvent,
    Track,
    Tracks,
    nested,
)
from simsched.steps import BY_NAME, LOCKS, Mode

REDIS: Final = Process(200_000, "Redis")
FIRST_INSTANCE: Final = 10
"""Process of instance 0; each instance has this one and the next, for its locks and cores. All of
them come before Redis and the nodes: a record has room for 65,536 instances."""

OPEN_MAX: Final = 1 << 16
"""Steps kept for operations in progress; beyond that the oldest are drawn by themselves."""

Chooser = Callable[[int], bool]
"""Whether an operation is to be drawn."""


class StepTracks:
    """Draws operations and steps; `names` says what an instance is called."""

    def __init__(self, tracks: Tracks, links: Links, names: Callable[[int], str]) -> None:
        self._tracks = tracks
        self._links = links
        self._names = names
        self._open: dict[int, list[StepRow]] = {}
        self._kept = 0

    def draw(self, tables: Tables, chosen: Chooser) -> Iterator[TraceEvent]:
        """Everything of the two tables, in the order of ends."""
        operations = (row for row in tables.operations() if chosen(row.operation))
        ended = next(operations, None)
        for step in tables.steps():
            if not chosen(step.operation):
                continue
            while ended is not None and ended.end_ns < step.end_ns:
                yield from self._operation(ended)
                ended = next(operations, None)
            yield from self._contended(step)
            self._open.setdefault(step.operation, []).append(step)
            self._kept += 1
            if self._kept > OPEN_MAX:
                yield from self._alone(self._take(next(iter(self._open))))
        while ended is not None:
            yield from self._operation(ended)
            ended = next(operations, None)
        for operation in list(self._open):
            yield from self._alone(self._take(operation))

    def _take(self, operation: int) -> list[StepRow]:
        steps = self._open.pop(operation, [])
        self._kept -= len(steps)
        return steps

    def _operation(self, row: OperationRow) -> Iterator[TraceEvent]:
        steps = self._take(row.operation)
        args: dict[str, Any] = {"operation": row.operation, "outcome": row.outcome}
        if row.phase:
            args["phase"] = row.phase
        if row.session:
            args["session"] = row.session
        args |= self._job_args(row.operation)
        whole = Span(row.start_ns, row.end_ns, row.kind, "operation", args)
        # Last of all: of equal spans the operation is the outer one.
        rows = nested([*_spans(steps), whole])
        instance = min((step.instance for step in steps), default=0)
        track = self._of_kind(instance, row.kind)
        for spans in rows:
            flows = self._links.flows_of(row.operation) if whole in spans else ()
            yield from self._row(track, spans, flows)

    def _alone(self, steps: list[StepRow]) -> Iterator[TraceEvent]:
        """Steps whose operation did not end, or had ended before."""
        for spans in nested(_spans(steps)):
            yield from self._row(self._of_kind(steps[0].instance, steps[0].kind), spans, ())

    def _row(
        self, track: Track, spans: Sequence[Span], flows: Sequence[FlowPoint]
    ) -> Iterator[TraceEvent]:
        """Spans that do not overlap wholly need not share a lane."""
        first = 0
        for place in range(1, len(spans) + 1):
            if place == len(spans) or spans[place].start_ns >= spans[first].end_ns:
                group = spans[first:place]
                inside = [f for f in flows if group[0].start_ns <= f.at_ns < group[0].end_ns]
                yield from self._tracks.put(track, group, inside)
                first = place

    def _contended(self, step: StepRow) -> Iterator[TraceEvent]:
        """The step on the tracks of what it waited for and held."""
        tracks = self._tracks_of(step)
        if tracks is None:
            return
        waiting, holding = tracks
        name = f"{step.kind}: {step.step}"
        args = {"operation": step.operation} | self._job_args(step.operation)
        if step.wait_ns:
            wait = Span(step.start_ns - step.wait_ns, step.start_ns, name, "wait", args)
            yield from self._tracks.put(waiting, [wait])
        known = BY_NAME[step.step]
        if step.resource == "lock":
            args |= {"mode": "shared" if known.mode is Mode.SHARED else "exclusive"}
        hold = Span(step.start_ns, step.end_ns, name, "hold", args)
        flows = self._links.claim_in(step.operation, step.step, step.start_ns, step.end_ns)
        yield from self._tracks.put(holding, [hold], flows)

    def _tracks_of(self, step: StepRow) -> tuple[Track, Track] | None:
        """Where waiting and holding are drawn; None: it contends for nothing."""
        label = self._names(step.instance)
        if step.resource == "redis":
            order = 2 * step.instance
            return (
                Track(REDIS, f"{label} waits", order + 1),
                Track(REDIS, f"{label} calls", order),
            )
        place = FIRST_INSTANCE + 2 * step.instance + 1
        process = Process(place, f"{label}: locks and cores")
        if step.resource == "core":
            return Track(process, "cores: waiting", 1), Track(process, "cores: busy", 0)
        if step.resource == "lock":
            lock = BY_NAME[step.step].lock
            order = 2 + 2 * LOCKS.index(lock)
            return (
                Track(process, f"lock {lock}: waiting", order + 1),
                Track(process, f"lock {lock}: held", order),
            )
        return None

    def _of_kind(self, instance: int, kind: str) -> Track:
        process = Process(FIRST_INSTANCE + 2 * instance, f"{self._names(instance)}: operations")
        return Track(process, kind, KIND_NAMES.index(kind))

    def _job_args(self, operation: int) -> dict[str, Any]:
        jobs = self._links.jobs_of(operation)
        return {"job": ", ".join(jobs)} if jobs else {}


def _spans(steps: Sequence[StepRow]) -> list[Span]:
    """The steps of an operation: what each waited, and its work."""
    spans = []
    for step in steps:
        args: dict[str, Any] = {"site": step.site, "n": step.n, "resource": step.resource}
        if step.wait_ns:
            start = step.start_ns - step.wait_ns
            spans.append(Span(start, step.start_ns, f"wait: {step.step}", "step_wait", args))
        spans.append(Span(step.start_ns, step.end_ns, step.step, "step", args))
    return spans
