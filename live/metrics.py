"""
The Prometheus metrics of one instance: a sink that counts, and the page that is scraped.

What exists is the table in `metric_catalogue`; here is what feeds it. Rules: every label has few
values (`Family` folds the rest into `other`), children are looked up once and kept, a job's moments
are remembered while it is open and in bounded numbers. Gauges are not counted along: whoever is
given to `on_scrape` sets them when somebody looks (see `gauges`).

`recent` keeps the last durations of every step, operation and stage as they were, for quantiles
that the dashboard shows: a histogram's buckets are too coarse for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from simsched.canary import BASE, Canary
from simsched.live.job_times import JobTimes
from simsched.live.metric_catalogue import CATALOGUE, COUNTER, GAUGE, PREFIX, SECONDS, Spec
from simsched.live.sinks import NullSink
from simsched.steps import CATALOGUE as STEPS
from simsched.steps import Kind, Shape, Step
from simsched.telemetry import (
    Delivered,
    Event,
    JobCreated,
    JobDispatched,
    JobEnded,
    JobQueued,
    JobRefused,
    JobRepeated,
    NodeOffline,
    NodeRegistered,
    Operation,
    OpKind,
    ResultAccepted,
    ResultSuppressed,
    SessionClosed,
    SessionOpened,
    UtteranceCut,
)
from simsched.units import SECOND

# They would be a second series for each, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

CHILDREN_MAX: Final = 400
"""Combinations of label values of one metric; later ones are folded into `other`."""

VALUES_MAX: Final = 50
"""Different values of one label; later ones are folded into `other`."""

OTHER: Final = "other"
RECENT: Final = 512
"""Durations kept of each step, operation and stage."""

FENCED: Final = frozenset(("stale_attempt", "store_refused"))

COUNTED: Final = {
    "claims_claimed": ("claims", "claimed"),
    "claims_full": ("claims", "full"),
    "claims_bound": ("claims", "bound"),
    "claims_ended": ("claims", "ended"),
    "claims_other": ("claims", OTHER),
    "leases_lost": ("leases_lost",),
    "store_unavailable": ("store_errors",),
    "audio_chunks_refused": ("audio_chunks_refused",),
    "node_errors": ("node_errors",),
    "reruns": ("reruns",),
    "recording_dropped": ("recording_dropped",),
}
"""Counters of the core that have a metric of their own: its name and label values."""

COUNTED_ELSEWHERE: Final = frozenset(("slow_consumers",))
"""Counters whose cause is told as what befell a connection, too."""

CLOSED_AS: Final = {"slow": "slow_consumers", "refused": "refusals"}
"""What befalls a connection, and the counter that has it besides."""

_SNAPSHOT, _SELECTION, _SESSION_WAIT = 1, 2, 3


def _part(step: Step) -> int:
    """What of one job creation a step belongs to; 0: nothing that is measured by itself."""
    if step.name == "snapshot.read":
        return _SNAPSHOT
    if step.name.startswith("select."):
        return _SELECTION
    return _SESSION_WAIT if step.name.startswith("session_runtime.") else 0


_PARTS: Final = tuple(_part(step) for step in STEPS)
_KINDS: Final = tuple(kind.name.lower() for kind in OpKind)


class Family:
    """One metric with its children by label values."""

    def __init__(self, spec: Spec, registry: CollectorRegistry) -> None:
        self.spec = spec
        name = spec.full_name.removesuffix("_total") if spec.kind == COUNTER else spec.full_name
        if spec.kind == COUNTER:
            self._metric: Any = Counter(name, spec.text, spec.labels, registry=registry)
        elif spec.kind == GAUGE:
            self._metric = Gauge(name, spec.text, spec.labels, registry=registry)
        else:
            self._metric = Histogram(
                name, spec.text, spec.labels, registry=registry, buckets=SECONDS
            )
        self._children: dict[tuple[str, ...], Any] = {}
        self._values: tuple[dict[str, None], ...] = tuple({} for _ in spec.labels)

    def of(self, *values: str) -> Any:
        """The child of these label values; made when first asked for."""
        child = self._children.get(values)
        return child if child is not None else self._open(values)

    def _open(self, values: tuple[str, ...]) -> Any:
        if not self.spec.labels:
            child = self._metric
        else:
            full = len(self._children) >= CHILDREN_MAX
            kept = tuple(
                OTHER if full else self._bounded(seen, value)
                for seen, value in zip(self._values, values, strict=True)
            )
            child = self._metric.labels(*kept)
            if kept != values:
                return child
        self._children[values] = child
        return child

    def _bounded(self, seen: dict[str, None], value: str) -> str:
        if value in seen:
            return value
        if len(seen) >= VALUES_MAX:
            return OTHER
        seen[value] = None
        return value

    def forget(self) -> None:
        """Drop all children: a gauge that is set anew at every scrape."""
        if self.spec.labels:
            self._metric.clear()
            self._children.clear()


class Metrics(NullSink):
    """
    Counts what one instance does.

    Args:
        canary: the canary of the instance, for the label `policy`; None: all are `base`.

    """

    def __init__(self, canary: Canary | None = None) -> None:
        self.registry = CollectorRegistry()
        self.families = {
            spec.full_name.removeprefix(PREFIX): Family(spec, self.registry) for spec in CATALOGUE
        }
        self.on_scrape: list[Callable[[], None]] = []
        self.recent: dict[tuple[str, str, str], deque[int]] = {}
        self.jobs = JobTimes(self._stage)
        self.last_lag_ns = 0
        self._canary = canary
        self._creating: dict[int, list[int]] = {}
        self._steps: list[deque[int]] = [self._recent_of("step", step.name, BASE) for step in STEPS]
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            SessionOpened: self._session_opened,
            SessionClosed: self._session_closed,
            UtteranceCut: self._cut,
            JobCreated: self._created,
            JobRepeated: lambda e: self._count("jobs_repeated", self.policy_of(e.session)),
            JobQueued: lambda e: self._count("jobs_queued", self.policy_of(e.session)),
            JobRefused: lambda e: self._count("jobs_refused", self.policy_of(e.session), e.reason),
            JobDispatched: self._dispatched,
            JobEnded: self._ended,
            ResultAccepted: self._accepted,
            ResultSuppressed: self._suppressed,
            Delivered: self._delivered,
            NodeRegistered: lambda _: self._count("nodes_registered"),
            NodeOffline: lambda e: self._count("nodes_lost", e.reason),
        }  # fmt: skip

    def policy_of(self, session_id: str) -> str:
        """`base` or `canary`."""
        return BASE if self._canary is None else self._canary.variant(session_id)

    def render(self) -> bytes:
        """The page in Prometheus' text format, gauges set anew."""
        self.refresh()
        return generate_latest(self.registry)

    def refresh(self) -> None:
        """Let everybody who knows a gauge set it."""
        for refresh in self.on_scrape:
            refresh()

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set one gauge; `name` without the prefix."""
        self.families[name].of(*labels).set(value)

    def quantiles(self) -> Iterator[tuple[str, str, str, list[int]]]:
        """(group, name, policy, last durations in ns) of everything that happened lately."""
        for (group, name, policy), values in self.recent.items():
            if values:
                yield group, name, policy, list(values)

    # What is measured

    def step(
        self, step: Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int, site: int
    ) -> None:
        """One execution of a step."""
        self._steps[step.index].append(wait_ns + own_ns)
        part = _PARTS[step.index]
        if part and op.kind == OpKind.CREATE_JOB:
            parts = self._creating.setdefault(op.id, [0, 0, 0, 0])
            parts[part] += wait_ns if part == _SESSION_WAIT else wait_ns + own_ns
        if step.kind is Kind.REDIS:
            self.families["redis_round_trip_seconds"].of(step.name).observe(own_ns / SECOND)
            self.families["redis_wait_seconds"].of().observe(wait_ns / SECOND)
        elif step.kind is Kind.LOCK and step.shape is Shape.SPANNING:
            self.families["lock_wait_seconds"].of(step.lock).observe(wait_ns / SECOND)

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        """An operation ended."""
        took, policy, kind = ended_ns - op.started_ns, self.policy_of(op.session_id), op.kind
        self._observe("operation", took, policy, _KINDS[kind])
        if kind == OpKind.CREATE_JOB:
            parts = self._creating.pop(op.id, (0, 0, 0, 0))
            self._observe("job_create", took, policy)
            self._observe("snapshot_acquire", parts[_SNAPSHOT], policy)
            self._observe("node_selection", parts[_SELECTION], policy)
            self._observe("session_lock_wait", parts[_SESSION_WAIT], policy)
        elif kind == OpKind.JOB_RESULT:
            self._observe("job_result", took, policy)

    def event(self, event: Event) -> None:
        """One fact of the domain."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        self.jobs.take(event)

    def count(self, name: str, amount: int) -> None:
        """A counter of the core."""
        known = COUNTED.get(name)
        if name in COUNTED_ELSEWHERE:
            return
        if known is None:
            self.families["counted_total"].of(name).inc(amount)
        else:
            self.families[f"{known[0]}_total"].of(*known[1:]).inc(amount)

    def lag(self, at_ns: int, lag_ns: int) -> None:
        """The event loop was late."""
        self.last_lag_ns = lag_ns
        self._observe("loop_lag", lag_ns)

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        """Something befell a connection."""
        if what == "opened":
            self._count("connections_opened", kind)
        elif what == "closed":
            self._count("connections_closed", kind, detail.partition(" ")[0])
        also = CLOSED_AS.get(what)
        if also is not None:
            self._count(also, *((kind, detail) if also == "refusals" else (kind,)))

    # How it is put down

    def _observe(self, name: str, duration_ns: int, *labels: str) -> None:
        self.families[f"{name}_seconds"].of(*labels).observe(duration_ns / SECOND)
        policy = labels[0] if labels else BASE
        self._recent_of(name, labels[-1] if len(labels) > 1 else "", policy).append(duration_ns)

    def _recent_of(self, group: str, name: str, policy: str) -> deque[int]:
        key = (group, name, policy)
        kept = self.recent.get(key)
        if kept is None:
            kept = self.recent[key] = deque(maxlen=RECENT)
        return kept

    def _count(self, name: str, *labels: str, amount: int = 1) -> None:
        self.families[f"{name}_total"].of(*labels).inc(amount)

    def _stage(self, session: str, name: str, duration_ns: int) -> None:
        """A stage of a job's way, as `JobTimes` found it."""
        policy = self.policy_of(session)
        if name in ("dispatch", "end_to_end", "queue_wait"):
            self._observe(name, duration_ns, policy)
        else:
            self._observe("dispatch_stage", duration_ns, policy, name)

    # Events

    def _session_opened(self, event: SessionOpened) -> None:
        self._count("sessions_opened", self.policy_of(event.session))

    def _session_closed(self, event: SessionClosed) -> None:
        self._count("sessions_closed", self.policy_of(event.session))

    def _cut(self, event: UtteranceCut) -> None:
        policy = self.policy_of(event.session)
        self._count("utterances_cut", policy, event.reason)
        self._count("audio_bytes", policy, amount=event.audio_bytes)

    def _created(self, event: JobCreated) -> None:
        self._count("jobs_created", self.policy_of(event.session))

    def _dispatched(self, event: JobDispatched) -> None:
        if event.attempt > 1:
            self._count("redeliveries", self.policy_of(event.session))

    def _ended(self, event: JobEnded) -> None:
        self._count("jobs_ended", self.policy_of(event.session), event.status, event.reason)

    def _accepted(self, event: ResultAccepted) -> None:
        self._count("results", self.policy_of(event.session), "accepted")

    def _suppressed(self, event: ResultSuppressed) -> None:
        policy = self.policy_of(event.session)
        self._count("results", policy, event.reason)
        if event.reason in FENCED:
            self._count("fence_rejects", policy)

    def _delivered(self, event: Delivered) -> None:
        self._count("answers", self.policy_of(event.session), event.outcome)
