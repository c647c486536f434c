"""
Worker nodes: what the registry knows of one, its lifecycle, and the view that selection sees.

`NodeRecord` is the registry's value: what the node said of itself, and how it has been doing.
`advance` moves it through the lifecycle; the lifecycle is the table `TRANSITIONS`, nothing else.
`NodeView` is what a snapshot holds: only what a decision reads. Both are immutable.

The node's load is what the node itself reported last (`current_jobs`); what an instance has
reserved since is not known here. This module knows no messages, sockets, store or clock: times
come in as nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from simsched.languages import NO_LANGUAGES, LanguageCapabilities, Pair
from simsched.modules import CORE_TYPES
from simsched.units import SECOND

SLOTS_DEFAULT: Final = 4
"""Jobs that a node runs at once: the reference sets 4 at registration and reads no other."""


class Health(StrEnum):
    """The states of a node, by their names on the wire (`node_status.status`)."""

    REGISTERING = "registering"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    OFFLINE = "offline"


ONLINE: Final = (Health.READY, Health.DEGRADED, Health.DRAINING)
"""States that the reference's snapshot calls online, and therefore offers to selection (B23)."""


class Trigger(Enum):
    """What moves a node from one state to another; the value is the reason that is reported."""

    WARMED_UP = "health_check_passed"
    WARMUP_EXPIRED = "warmup_timeout"
    FAILING = "consecutive_failures"
    RECOVERED = "health_recovered"
    SILENT = "heartbeat_timeout"
    DISCONNECTED = "connection_closed"
    REGISTERED = "re_registered"
    POOL_ASSIGNED = "pool_assigned"
    DRAIN_ASKED = "drain_requested"
    SEEN_READY_ELSEWHERE = "merged_ready"


TRANSITIONS: Final[dict[tuple[Health, Trigger], Health]] = {
    (Health.REGISTERING, Trigger.WARMED_UP): Health.READY,
    (Health.REGISTERING, Trigger.POOL_ASSIGNED): Health.READY,
    (Health.REGISTERING, Trigger.WARMUP_EXPIRED): Health.DEGRADED,
    (Health.READY, Trigger.FAILING): Health.DEGRADED,
    (Health.DEGRADED, Trigger.RECOVERED): Health.READY,
    (Health.READY, Trigger.DRAIN_ASKED): Health.DRAINING,
    (Health.DEGRADED, Trigger.DRAIN_ASKED): Health.DRAINING,
    (Health.REGISTERING, Trigger.SILENT): Health.OFFLINE,
    (Health.READY, Trigger.SILENT): Health.OFFLINE,
    (Health.DEGRADED, Trigger.SILENT): Health.OFFLINE,
    (Health.DRAINING, Trigger.SILENT): Health.OFFLINE,
    (Health.REGISTERING, Trigger.DISCONNECTED): Health.OFFLINE,
    (Health.READY, Trigger.DISCONNECTED): Health.OFFLINE,
    (Health.DEGRADED, Trigger.DISCONNECTED): Health.OFFLINE,
    (Health.DRAINING, Trigger.DISCONNECTED): Health.OFFLINE,
    (Health.REGISTERING, Trigger.SEEN_READY_ELSEWHERE): Health.READY,
    (Health.OFFLINE, Trigger.SEEN_READY_ELSEWHERE): Health.READY,
    (Health.READY, Trigger.REGISTERED): Health.REGISTERING,
    (Health.DEGRADED, Trigger.REGISTERED): Health.REGISTERING,
    (Health.DRAINING, Trigger.REGISTERED): Health.REGISTERING,
    (Health.OFFLINE, Trigger.REGISTERED): Health.REGISTERING,
}
"""The lifecycle. A trigger that has no row for a state leaves the node as it is: above all, a
heartbeat does not bring an offline node back; it has to register again or to be merged in from
another instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """
    Thresholds of the lifecycle; the defaults are the reference's configuration.

    Attributes:
        healthy_needed: healthy heartbeats until a registering node is ready
            (`health_check_count`).
        failures_max: failures in a row that degrade a ready node
            (`consecutive_failure_count`; its window rule never adds anything, because any
            success clears the window).
        warmup_ns: how long a node may register (`warmup_timeout_seconds`).
        silence_ns: age of the last heartbeat that means offline (`heartbeat_timeout_seconds`,
            three heartbeats of 15 s).
        needs_gpu: whether a node without a GPU is unhealthy and never chosen, as in the reference.

    """

    healthy_needed: int = 1
    failures_max: int = 3
    warmup_ns: int = 60 * SECOND
    silence_ns: int = 45 * SECOND
    needs_gpu: bool = True

    def __post_init__(self) -> None:
        if min(self.healthy_needed, self.failures_max, self.warmup_ns, self.silence_ns) < 1:
            raise ValueError("health limits are positive")


class InstalledService(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One service of a node; `type` and `status` (running, stopped, error) in lower case."""

    service_id: str
    type: str
    status: str = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableMark:
    """
    A service that the node could not offer lately (MODEL_NOT_AVAILABLE), until `until_ns`.

    `type` is the service type that it blocks, "" if the service is not among those installed:
    then it blocks the node for every job, since nobody knows which part is missing.
    """

    service_id: str
    version: str
    type: str
    until_ns: int


class NodeView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One node as a decision sees it.

    A struct and not a dataclass: one is made per heartbeat and per change of load, and this
    takes 0.3 us instead of 6 (`msgspec.structs.replace` against `dataclasses.replace`).

    Attributes:
        ordinal: its number in the order of joining: the order of every deterministic walk.
        current_jobs: as last reported.
        installed: service types that it has, in whatever state.
        ready: service types that it declares ready.
        pools: ids of the pools that it is a member of.
        takes_retries: declares that it can take a (session, utterance) that it has had before.

    """

    node_id: str
    ordinal: int
    health: Health = Health.REGISTERING
    slots: int = SLOTS_DEFAULT
    current_jobs: int = 0
    has_gpu: bool = True
    gpu_percent: float = 0.0
    cpu_percent: float = 0.0
    mem_percent: float = 0.0
    accepts_public_jobs: bool = True
    installed: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    languages: LanguageCapabilities = NO_LANGUAGES
    pools: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    takes_retries: bool = False
    unavailable: tuple[UnavailableMark, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The language pairs that it serves."""
        return self.languages.served

    @property
    def is_online(self) -> bool:
        """Whether the reference would call it online."""
        return self.health in ONLINE


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What the registry knows of a node. Times in nanoseconds of the world's clock.

    A struct for the same reason as `NodeView`: a heartbeat makes three of them.
    """

    node_id: str
    ordinal: int
    registered_ns: int
    last_heartbeat_ns: int
    health: Health = Health.REGISTERING
    healthy_in_a_row: int = 0
    failures_in_a_row: int = 0
    slots: int = SLOTS_DEFAULT
    current_jobs: int = 0
    has_gpu: bool = True
    gpu_percent: float = 0.0
    cpu_percent: float = 0.0
    mem_percent: float = 0.0
    accepts_public_jobs: bool = True
    services: tuple[InstalledService, ...] = ()
    ready_types: tuple[str, ...] = ()
    languages: LanguageCapabilities = NO_LANGUAGES
    pools: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    takes_retries: bool = False
    unavailable: tuple[UnavailableMark, ...] = ()

    def __post_init__(self) -> None:
        assert self.slots >= 0
        assert self.current_jobs >= 0

    def view(self) -> NodeView:
        """What a snapshot shows of it."""
        return NodeView(
            node_id=self.node_id,
            ordinal=self.ordinal,
            health=self.health,
            slots=self.slots,
            current_jobs=self.current_jobs,
            has_gpu=self.has_gpu,
            gpu_percent=self.gpu_percent,
            cpu_percent=self.cpu_percent,
            mem_percent=self.mem_percent,
            accepts_public_jobs=self.accepts_public_jobs,
            installed=frozenset([service.type for service in self.services]),
            ready=frozenset(self.ready_types),
            languages=self.languages,
            pools=self.pools,
            features=self.features,
            takes_retries=self.takes_retries,
            unavailable=self.unavailable,
        )


class Signal(Enum):
    """What happens to a node, as the outside tells it."""

    HEARTBEAT = "heartbeat"
    TICK = "tick"
    """Time has passed: the periodic scan (30 s in the reference) looks at warm-up and silence."""
    SOCKET_CLOSED = "socket_closed"
    REGISTER = "register"
    ASSIGN_POOL = "assign_pool"
    DRAIN = "drain"
    MERGE_READY = "merge_ready"
    """Another instance's record of this node says ready."""


PLAIN_TRIGGERS: Final[dict[Signal, Trigger]] = {
    Signal.SOCKET_CLOSED: Trigger.DISCONNECTED,
    Signal.REGISTER: Trigger.REGISTERED,
    Signal.ASSIGN_POOL: Trigger.POOL_ASSIGNED,
    Signal.DRAIN: Trigger.DRAIN_ASKED,
    Signal.MERGE_READY: Trigger.SEEN_READY_ELSEWHERE,
}
"""Signals that need no look at counters or times."""


def is_healthy(record: NodeRecord, *, needs_gpu: bool = True) -> bool:
    """
    Whether what the node last reported passes the health check.

    A degraded node recovers with one running service; any other needs a GPU (unless `needs_gpu`
    is off), GPU usage within 0..100 %, at least one core service type, and every core service
    running.
    """
    if record.health is Health.DEGRADED:
        return any(service.status == "running" for service in record.services)
    core = [service for service in record.services if service.type in CORE_TYPES]
    running = all(service.status == "running" for service in core)
    equipped = record.has_gpu or not needs_gpu
    return equipped and 0 <= record.gpu_percent <= 100 and bool(core) and running


class Advance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The record after a signal; `reason` is "" unless the state changed."""

    record: NodeRecord
    reason: str = ""


def advance(
    record: NodeRecord, signal: Signal, now_ns: int, limits: HealthLimits = HealthLimits()
) -> Advance:
    """
    Move a node through its lifecycle.

    For a heartbeat the record already holds what the heartbeat reported; `advance` judges it,
    counts it and stamps its time. A state that changes comes with the reason to report.
    """
    counted = _counted(record, signal, now_ns, limits)
    trigger = _trigger(counted, signal, now_ns, limits)
    target = TRANSITIONS.get((counted.health, trigger)) if trigger else None
    if target is None or trigger is None:
        return Advance(record=counted)
    moved = replace(counted, health=target)
    return Advance(record=moved, reason=trigger.value)


def _counted(record: NodeRecord, signal: Signal, now_ns: int, limits: HealthLimits) -> NodeRecord:
    if signal is Signal.REGISTER:
        return replace(
            record,
            registered_ns=now_ns,
            last_heartbeat_ns=now_ns,
            healthy_in_a_row=0,
            failures_in_a_row=0,
            unavailable=(),
        )
    if signal is not Signal.HEARTBEAT:
        return record
    healthy = is_healthy(record, needs_gpu=limits.needs_gpu)
    return replace(
        record,
        last_heartbeat_ns=now_ns,
        healthy_in_a_row=record.healthy_in_a_row + 1 if healthy else 0,
        failures_in_a_row=0 if healthy else record.failures_in_a_row + 1,
    )


def _trigger(
    record: NodeRecord, signal: Signal, now_ns: int, limits: HealthLimits
) -> Trigger | None:
    if signal is Signal.TICK:
        if now_ns - record.last_heartbeat_ns > limits.silence_ns:
            return Trigger.SILENT
        return _overdue(record, now_ns, limits)
    if signal is not Signal.HEARTBEAT:
        return PLAIN_TRIGGERS[signal]
    if record.health is Health.DEGRADED:
        return Trigger.RECOVERED if record.healthy_in_a_row else None
    if record.healthy_in_a_row >= limits.healthy_needed:
        return Trigger.WARMED_UP
    if record.failures_in_a_row >= limits.failures_max and record.health is Health.READY:
        return Trigger.FAILING
    return _overdue(record, now_ns, limits)


def _overdue(record: NodeRecord, now_ns: int, limits: HealthLimits) -> Trigger | None:
    late = now_ns - record.registered_ns > limits.warmup_ns
    return Trigger.WARMUP_EXPIRED if late else None


def marked_unavailable(
    record: NodeRecord, service_id: str, version: str, *, now_ns: int, until_ns: int
) -> NodeRecord:
    """
    Remember that a service was not available (B18); marks that have run out are dropped.

    Args:
        record: the node.
        service_id: as the node named it, or a bare service type.
        version: as the node named it, "" if it did not.
        now_ns: now.
        until_ns: when the mark runs out (the reference: 60 s later).

    """
    types = {service.service_id: service.type for service in record.services}
    types |= {service.type: service.type for service in record.services}
    mark = UnavailableMark(
        service_id=service_id,
        version=version,
        type=types.get(service_id, ""),
        until_ns=until_ns,
    )
    kept = tuple(
        old
        for old in record.unavailable
        if old.until_ns > now_ns and (old.service_id, old.version) != (service_id, version)
    )
    return replace(record, unavailable=(*kept, mark))
