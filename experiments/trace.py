"""
`simsched trace DIR`: a run directory or a recording as a trace for Perfetto or chrome://tracing.

The trace is written as it is made: jobs are in memory, steps and operations pass by. The same run
gives the same bytes. docs/trace.md explains every track.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from simsched.errors import SimschedError
from simsched.experiments.loading import Run, load_run
from simsched.experiments.trace_jobs import (
    RUN,
    SESSIONS,
    draw_counters,
    draw_nodes,
    draw_sessions,
)
from simsched.experiments.trace_links import Links
from simsched.experiments.trace_steps import StepTracks
from simsched.experiments.trace_tables import Tables, tables_for
from simsched.experiments.trace_tracks import TraceEvent, Track, Tracks
from simsched.units import ms_from_ns

DEFAULT_FILE: Final = "trace.json"
STANDARD_OUTPUT: Final = "-"

FLUSH_BYTES: Final = 1 << 18
"""The file is written in pieces of about this size."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written where; no `path`: standard output."""

    path: Path | None
    variant: str
    replication: int
    events: int


class Trace:
    """
    The events of one replication, or of one job of it.

    Raises:
        SimschedError: there is no such run, variant, replication or job, or no steps were kept.

    """

    def __init__(
        self,
        directory: str | Path,
        *,
        job: str | None = None,
        variant: str | None = None,
        replication: int = 0,
    ) -> None:
        self.run = load_run(directory)
        self.job = job
        self.tables = tables_for(self.run, variant, replication, job)

    def about(self) -> dict[str, str]:
        """What the trace is of, for the file's head."""
        about = {
            "run": str(self.run.manifest["study"]["name"]),
            "variant": self.tables.variant,
            "replication": str(self.tables.replication),
            "digest": str(self.run.manifest["digest"]),
        }
        return about if self.job is None else {**about, "job": self.job}

    def events(self) -> Iterator[TraceEvent]:
        """All events, one by one."""
        jobs = self.tables.jobs()
        links = Links(jobs, self.tables.operations())
        if self.job is not None:
            jobs = [row for row in jobs if row.job == self.job]
        tracks = Tracks()
        yield from draw_counters(tracks, jobs, links)
        yield from draw_sessions(tracks, jobs, links)
        yield from StepTracks(tracks, links, _names(self.run)).draw(
            self.tables, self._chooser(links)
        )
        yield from draw_nodes(tracks, jobs, links)
        if self.job is None:
            yield from _recorded(tracks, self.tables)

    def _chooser(self, links: Links) -> Callable[[int], bool]:
        job = self.job
        if job is None:
            return lambda _operation: True
        return lambda operation: job in links.jobs_of(operation)


def write_trace(trace: Trace, out: str | Path | None, standard_output: IO[bytes]) -> Written:
    """
    Write a trace to a file, by default into its run directory, or to standard output for `-`.

    Raises:
        SimschedError: the file cannot be written; what was there before stays.

    """
    tables = trace.tables
    if str(out) == STANDARD_OUTPUT:
        events = _write(trace, standard_output)
        return Written(None, tables.variant, tables.replication, events)
    path = tables.path / DEFAULT_FILE if out is None else Path(out)
    with _whole_file(path) as file:
        events = _write(trace, file)
    return Written(path, tables.variant, tables.replication, events)


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when it is complete, and not before."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        if path.is_dir():
            raise SimschedError(f"{path}: is a folder: name a file")
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise SimschedError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _write(trace: Trace, file: IO[bytes]) -> int:
    """The JSON object form of the format, piece by piece; how many events it has."""
    encode = msgspec.json.Encoder().encode
    buffer = bytearray(b'{"displayTimeUnit":"ms","otherData":')
    buffer += encode(trace.about()) + b',"traceEvents":['
    count = 0
    for count, event in enumerate(trace.events(), 1):
        buffer += b",\n" if count > 1 else b"\n"
        buffer += encode(event)
        if len(buffer) >= FLUSH_BYTES:
            file.write(buffer)
            buffer.clear()
    buffer += b"\n]}\n"
    file.write(buffer)
    return count


def _names(run: Run) -> Callable[[int], str]:
    """What the instances are called: a recording is of one, which has a name."""
    recording: dict[str, Any] | None = run.manifest.get("recording")
    if recording is None:
        return lambda instance: f"instance {instance}"
    return lambda _instance: f"instance {recording['instance']}"


def _recorded(tracks: Tracks, tables: Tables) -> Iterator[TraceEvent]:
    """What only recordings have: how late the event loop was, and what befell connections."""
    for at_ns, lag_ns in tables.extra("lag", ("at_ns", "lag_ns")):
        yield from tracks.count(RUN, "event loop late (ms)", at_ns, ms_from_ns(lag_ns))
    columns = ("at_ns", "kind", "name", "what", "detail")
    for at_ns, kind, name, what, detail in tables.extra("connections", columns):
        args = {"kind": kind, "name": name, "detail": detail}
        yield from tracks.mark(Track(SESSIONS, "connections", -1), at_ns, f"{kind} {what}", args)
