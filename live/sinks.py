"""
Where everything that is measured goes: one small protocol, and how it is shared out.

Rules: a sink is synchronous and cheap, is called on the event loop's thread and never waits. It
may not raise; `Fanout` is the guard for those that do anyway: a failing sink is skipped for that
call and counted, the core never notices. A sink decides nothing.

All times are whole nanoseconds of the runtime's own clock (`Runtime.now`), durations included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simsched.steps import Step
from simsched.telemetry import Event, Operation


class Sink(Protocol):
    """Takes in what one instance measures."""

    def step(
        self, step: Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int, site: int
    ) -> None:
        """
        One execution of a step.

        Args:
            step: the entry of the catalogue.
            op: the operation that it is part of.
            start_ns: when it was asked for.
            wait_ns: how long it queued before it could start (a lock, a full connection).
            own_ns: how long the work itself took from then on.
            n: what its cost grows with (nodes, keys, bytes).
            site: tells several calls of one step in one operation apart.

        """

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        """One operation ended; its latency is `ended_ns - op.started_ns`."""

    def event(self, event: Event) -> None:
        """One fact of the domain."""

    def count(self, name: str, amount: int) -> None:
        """Add to a named counter."""

    def lag(self, at_ns: int, lag_ns: int) -> None:
        """The event loop was `lag_ns` late for a timer."""

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        """
        Something befell a connection.

        Args:
            at_ns: when.
            kind: `client` or `node`.
            name: the session's or node's id, "" before it is known.
            what: `opened`, `closed`, `refused`, `slow`, ...
            detail: the close code or the reason.

        """


class NullSink:
    """Ignores everything: the base of sinks that care for a part only."""

    def step(
        self, step: Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int, site: int
    ) -> None:
        """Ignore it."""

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        """Ignore it."""

    def event(self, event: Event) -> None:
        """Ignore it."""

    def count(self, name: str, amount: int) -> None:
        """Ignore it."""

    def lag(self, at_ns: int, lag_ns: int) -> None:
        """Ignore it."""

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        """Ignore it."""


class Fanout(NullSink):
    """Passes everything on to several sinks, in their order; `failures` counts what they raised."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self.failures = 0
        self.last_failure: Exception | None = None

    def step(
        self, step: Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int, site: int
    ) -> None:
        """To each sink."""
        for sink in self._sinks:
            try:
                sink.step(step, op, start_ns, wait_ns, own_ns, n, site)
            except Exception as error:
                self._failed(error)

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        """To each sink."""
        for sink in self._sinks:
            try:
                sink.operation(op, ended_ns, outcome)
            except Exception as error:
                self._failed(error)

    def event(self, event: Event) -> None:
        """To each sink."""
        for sink in self._sinks:
            try:
                sink.event(event)
            except Exception as error:
                self._failed(error)

    def count(self, name: str, amount: int) -> None:
        """To each sink."""
        for sink in self._sinks:
            try:
                sink.count(name, amount)
            except Exception as error:
                self._failed(error)

    def lag(self, at_ns: int, lag_ns: int) -> None:
        """To each sink."""
        for sink in self._sinks:
            try:
                sink.lag(at_ns, lag_ns)
            except Exception as error:
                self._failed(error)

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        """To each sink."""
        for sink in self._sinks:
            try:
                sink.connection(at_ns, kind, name, what, detail)
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.last_failure = error


class SinkTelemetry:
    """The core's telemetry port over a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def event(self, event: Event) -> None:
        """One fact of the domain."""
        self._sink.event(event)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a named counter."""
        self._sink.count(name, amount)
