"""
Trace events and the tracks they lie on: what a viewer of Chrome's trace format can show.

A track is a thread of a process, as the format has it. Slices on one thread must nest, so a track
has as many lanes as it takes: a slice goes to the first lane that is free, and to a new one if none
is. Slices may come in any order; they fill few lanes if they come in the order of their ends.

Times come in as whole nanoseconds and leave as microseconds with three decimals, which the format
wants. This file does not know what the tracks mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simsched.units import US

TraceEvent = dict[str, Any]
"""One element of `traceEvents`."""

LANES_MAX: Final = 1 << 16
"""Lanes that sorting keeps together; further ones are shown after other tracks."""


@dataclass(frozen=True, slots=True)
class Process:
    """A group of tracks; `pid` is its number and its place in the list."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Track:
    """A row of the picture, as many lanes as it needs; `order` is its place in its process."""

    process: Process
    name: str
    order: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time: from `start_ns` up to `end_ns`."""

    start_ns: int
    end_ns: int
    name: str
    category: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FlowPoint:
    """One end or bend of an arrow; lies inside a span of its lane."""

    phase: str  # s: begins, t: passes, f: ends
    number: int
    name: str
    at_ns: int


@dataclass(slots=True)
class _Lane:
    """One thread of a track, and until when it is taken."""

    thread: int
    free_ns: int


class Tracks:
    """Hands out lanes, and tells the viewer of each process and lane when it is first used."""

    def __init__(self) -> None:
        self._processes: set[int] = set()
        self._lanes: dict[Track, list[_Lane]] = {}
        self._threads = 0

    def put(
        self, track: Track, spans: Sequence[Span], flows: Sequence[FlowPoint] = ()
    ) -> Iterator[TraceEvent]:
        """
        Draw spans that nest, the outermost first, on one lane.

        Flow points follow the spans, so that a viewer finds those they lie in.
        """
        outer = spans[0]
        lanes = self._lanes.setdefault(track, [])
        lane = next((lane for lane in lanes if lane.free_ns <= outer.start_ns), None)
        if lane is None:
            lane = self._add_lane(lanes)
            yield from self._introduce(track, len(lanes), lane.thread)
        lane.free_ns = outer.end_ns
        where = {"pid": track.process.pid, "tid": lane.thread}
        for span in spans:
            yield _slice(where, span)
        for point in flows:
            yield _flow(where, point)

    def count(self, process: Process, name: str, at_ns: int, value: float) -> Iterator[TraceEvent]:
        """One reading of a counter."""
        yield from self._introduce_process(process)
        yield {"ph": "C", "name": name, "pid": process.pid, "tid": 0,
               "ts": micros(at_ns), "args": {"value": value}}  # fmt: skip

    def mark(
        self, track: Track, at_ns: int, name: str, args: Mapping[str, Any]
    ) -> Iterator[TraceEvent]:
        """Something that took no time."""
        lanes = self._lanes.setdefault(track, [])
        if not lanes:
            self._add_lane(lanes)
            yield from self._introduce(track, 1, lanes[0].thread)
        yield {"ph": "i", "s": "t", "cat": "mark", "name": name, "pid": track.process.pid,
               "tid": lanes[0].thread, "ts": micros(at_ns), "args": dict(args)}  # fmt: skip

    def _add_lane(self, lanes: list[_Lane]) -> _Lane:
        self._threads += 1
        lanes.append(_Lane(self._threads, 0))
        return lanes[-1]

    def _introduce_process(self, process: Process) -> Iterator[TraceEvent]:
        if process.pid not in self._processes:
            self._processes.add(process.pid)
            yield _metadata("process_name", process.pid, 0, {"name": process.name})
            yield _metadata("process_sort_index", process.pid, 0, {"sort_index": process.pid})

    def _introduce(self, track: Track, lane: int, thread: int) -> Iterator[TraceEvent]:
        yield from self._introduce_process(track.process)
        pid = track.process.pid
        name = f"{track.name} ({lane})" if lane > 1 else track.name
        place = track.order * LANES_MAX + min(lane, LANES_MAX - 1)
        yield _metadata("thread_name", pid, thread, {"name": name})
        yield _metadata("thread_sort_index", pid, thread, {"sort_index": place})


def micros(time_ns: int) -> float:
    """Nanoseconds as microseconds; exact to the nanosecond for a hundred days."""
    return time_ns / US


def nested(spans: Sequence[Span]) -> list[list[Span]]:
    """
    Spans in rows in which they nest, each row ordered as it is to be drawn.

    A span that overlaps one of its row goes to a later row. Of equal ones the later given is the
    outer one: what contains others is told after them.
    """
    by_start = sorted(
        range(len(spans)), key=lambda i: (spans[i].start_ns, -spans[i].end_ns, -i)
    )  # fmt: skip
    rows: list[list[Span]] = []
    left = [spans[i] for i in by_start]
    while left:
        row: list[Span] = []
        over: list[Span] = []
        ends: list[int] = []
        for span in left:
            while ends and ends[-1] <= span.start_ns:
                ends.pop()
            if ends and span.end_ns > ends[-1]:
                over.append(span)
            else:
                row.append(span)
                ends.append(span.end_ns)
        rows.append(row)
        left = over
    return rows


def _slice(where: Mapping[str, int], span: Span) -> TraceEvent:
    return {"ph": "X", "cat": span.category, "name": span.name, **where,
            "ts": micros(span.start_ns), "dur": micros(span.end_ns - span.start_ns),
            "args": dict(span.args)}  # fmt: skip


def _flow(where: Mapping[str, int], point: FlowPoint) -> TraceEvent:
    event = {"ph": point.phase, "cat": "job", "name": point.name, "id": point.number, **where,
             "ts": micros(point.at_ns)}  # fmt: skip
    return event if point.phase == "s" else {**event, "bp": "e"}


def _metadata(name: str, pid: int, tid: int, args: Mapping[str, Any]) -> TraceEvent:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": dict(args)}
