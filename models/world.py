"""
The simulated world, wired: instances, Redis, network, nodes, clients; one run of it.

A `Scenario` says everything about a run but its seed; `simulate` plays it and returns a
`RunResult` of plain columns and totals, cheap to send between processes. Same scenario, seed and
replication: same result, to the byte.
"""

from __future__ import annotations

import gc
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from simsched.chance import key_of
from simsched.invariants import Checker, CheckSettings
from simsched.models.clients import Client, Payloads
from simsched.models.journal import Cuts, Journal
from simsched.models.links import Network, SimLinks
from simsched.models.prices import CostModel
from simsched.models.record import (
    RESOURCE_CORE,
    RESOURCE_LOCK,
    CallTotals,
    OperationRecorder,
    Sink,
    StepRecorder,
)
from simsched.models.redis import RedisServer, SimStore
from simsched.models.runtime import EPOCH_MS, Execution, SimRuntime
from simsched.models.service import ServiceModel
from simsched.models.tasks import Kernel, Ties
from simsched.models.wakes import Group
from simsched.models.workers import Worker, WorkerSpec
from simsched.models.workload import SessionPlan, Workload
from simsched.policy import Policy
from simsched.pools import PoolConfig
from simsched.scheduler import Scheduler
from simsched.segmentation import SegmentationSettings
from simsched.state import CoreSettings
from simsched.steps import CATALOGUE, Mode
from simsched.telemetry import OpKind
from simsched.units import MINUTE, MS, SECOND

DRAIN_NS: Final = 3 * MINUTE
"""How long a run goes on after its last arrival: four tries of 30 s and the scans between."""

GC_THRESHOLD: Final = (100_000, 20, 20)
"""Sessions and clients end as cycles: collect them, but a hundred times less often than usual."""

SETTLE_NS: Final = SECOND
"""Nodes register and become ready before the first session arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    One world, fully stated.

    Attributes:
        shared: the instances work together through the store (phase 2).
        sessions: how many sessions arrive, at most; None: as many as the horizon lets in.
        horizon_ns: until when sessions arrive.
        node_languages: every node serves all of these; () takes those of the workload.

    """

    policy: Policy
    costs: CostModel
    workload: Workload
    service: ServiceModel
    instances: int = 1
    shared: bool = False
    execution: Execution = "threads"
    cores: int = 4
    nodes: int = 100
    slots: int = 4
    node_languages: tuple[str, ...] = ()
    node_overflow: str = "queue"
    acknowledges: bool = False
    heartbeat_ns: int = 15 * SECOND
    sessions: int | None = None
    horizon_ns: int | None = None
    drain_ns: int = DRAIN_NS
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    pools: PoolConfig = field(
        default_factory=lambda: PoolConfig(enabled=True, auto_generate_language_pools=True)
    )
    ties: Ties = "fifo"


@dataclass(frozen=True, slots=True)
class StepRow:
    """All executions of one step in one kind and phase of operation; times in ns."""

    step: str
    kind: int
    phase: int
    resource: int
    lock: str
    shared: bool
    count: int
    contended: int
    wait_ns: int
    hold_ns: int
    wait_ns_max: int
    hold_ns_max: int
    wait_ns_p50: int
    wait_ns_p95: int
    wait_ns_p99: int
    hold_ns_p50: int
    hold_ns_p95: int
    hold_ns_p99: int
    hold_ns_p999: int


@dataclass(slots=True)
class RunResult:
    """What one run leaves: columns, totals, verdicts, fingerprint."""

    replication: int
    digest: str
    ended_ns: int
    warm_ns: int
    operations: dict[str, npt.NDArray[Any]]
    jobs: dict[str, npt.NDArray[Any] | list[str]]
    steps: list[StepRow]
    calls: dict[tuple[int, int], dict[int, CallTotals]]
    violations: dict[str, int]
    checked: dict[str, int]
    examples: list[tuple[str, int, str]]
    conservation: dict[str, int]
    cuts: Cuts
    counters: dict[str, int]
    redis_busy_ns: int
    node_busy_ns: int
    steps_recorded: int
    chunks: int
    sessions: int


class World:
    """One run in the making; `run` plays it."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: int,
        replication: int,
        sink: Sink | None = None,
    ) -> None:
        self.scenario = scenario
        self._replication = replication
        self._run_key = key_of("run", seed, replication)
        self.kernel = Kernel(ties=scenario.ties, seed=self._run_key)
        self._operations = OperationRecorder()
        self._recorder = StepRecorder(sink=sink, operations=self._operations)
        self.checker = Checker(_check_settings(scenario))
        self.journal = Journal(self._recorder, self.checker, lambda: self.kernel.now)
        self._redis = self._make_redis()
        self._network = self._make_network()
        self._payloads = Payloads()
        self._sessions = 0
        self.schedulers = [self._instance(number) for number in range(scenario.instances)]
        self._network.schedulers = self.schedulers
        self._workers = [self._worker(number) for number in range(scenario.nodes)]

    def _make_redis(self) -> RedisServer:
        return RedisServer(self.kernel)

    def _make_network(self) -> Network:
        return Network(self.kernel, self.scenario.costs)

    def _instance(self, number: int) -> Scheduler:
        scenario, name = self.scenario, f"i-{number}"
        group = Group(self.kernel, name)
        scopes = scenario.costs.scopes
        runtime = SimRuntime(
            self.kernel,
            name,
            charges=scenario.costs.charges(),
            steps=self._recorder,
            operations=self._operations,
            telemetry=self.journal,
            run_key=self._run_key,
            execution=scenario.execution,
            cores=scenario.cores,
            session_scoped=frozenset(lock for lock, scope in scopes.items() if scope == "session"),
            group=group,
            index=number,
        )
        store = SimStore(
            self._redis,
            scenario.costs,
            self._recorder,
            instance=number,
            group=group,
            connections=scenario.policy.connections,
            shared_with_reader=scenario.shared and scenario.policy.stream_connection == "shared",
        )
        self._network.stores.append(store)
        runtime.store = store
        runtime.links = SimLinks(self._network, number)
        if scenario.shared and scenario.policy.stream_connection == "shared":
            runtime.start(store.read_blocking(), name="inbox")
        settings = CoreSettings(
            shared=scenario.shared,
            pools=scenario.pools,
            segmentation=scenario.segmentation,
            heartbeat_ns=scenario.heartbeat_ns,
        )
        scheduler = Scheduler(runtime, scenario.policy, settings)
        runtime.start(scheduler.run(), name="background")
        return scheduler

    def _worker(self, number: int) -> Worker:
        scenario = self.scenario
        home = number % scenario.instances
        spec = WorkerSpec(
            node_id=f"n-{number:05d}",
            slots=scenario.slots,
            languages=scenario.node_languages or _languages(scenario.workload),
            home=home,
            overflow=scenario.node_overflow,
            acknowledges=scenario.acknowledges,
        )
        scheduler, network = self.schedulers[home], self._network

        def send(message: object) -> None:
            network.after(network.from_node_ns, lambda: scheduler.from_node(spec.node_id, message))

        worker = Worker(
            self.kernel, spec, scenario.service, run_key=self._run_key,
            now_ms=lambda: EPOCH_MS + self.kernel.now // MS, plan_of=self._plan_of, send=send,
            emit=self.journal.event,
        )  # fmt: skip
        network.workers[spec.node_id] = worker
        network.homes[spec.node_id] = home
        scheduler.register_node(spec.record())
        self.kernel.start(self._beat(worker, scheduler), f"heartbeats of {spec.node_id}")
        return worker

    async def _beat(self, worker: Worker, scheduler: Scheduler) -> None:
        """Heartbeat at once, then every period, the nodes spread evenly over it."""
        period, network = self.scenario.heartbeat_ns, self._network
        scheduler.from_node(worker.spec.node_id, worker.heartbeat())
        number = int(worker.spec.node_id[2:])
        await self.kernel.sleep(SETTLE_NS + period * number // max(1, self.scenario.nodes))
        while True:
            beat = worker.heartbeat()
            network.after(
                network.from_node_ns,
                lambda sent=beat: scheduler.from_node(worker.spec.node_id, sent),  # type: ignore[misc]
            )
            await self.kernel.sleep(period)

    def _plan_of(self, session_id: str, utterance: int) -> tuple[int, int, int]:
        """Session key, recorded-list order and audio length of an utterance."""
        client = self._network.clients.get(session_id)
        if client is None:
            # It has long gone: a job can come this late where the store is slow (B1).
            index = int(session_id.removeprefix("s-"), 16)
            plan = self.scenario.workload.session(self._run_key, index)
            turn = plan.utterance(utterance)
        else:
            plan, turn = client.plan, client.turn(utterance)
        return plan.key, turn.order, turn.audio_ms

    async def _arrivals(self) -> None:
        scenario = self.scenario
        until = scenario.horizon_ns
        for plan in scenario.workload.sessions(self._run_key, SETTLE_NS):
            if scenario.sessions is not None and self._sessions >= scenario.sessions:
                break
            if until is not None and plan.arrival_ns > until + SETTLE_NS:
                break
            await self.kernel.sleep(plan.arrival_ns - self.kernel.now)
            self._admit(plan)

    def _admit(self, plan: SessionPlan) -> None:
        self._sessions += 1
        client = Client(
            self.kernel, plan, self.schedulers, self._payloads,
            one_way_ns=self._network.from_client_ns, on_closed=self._closed,
        )  # fmt: skip
        self._network.clients[client.session_id] = client
        self.kernel.start(client.run(), f"client {client.session_id}")

    def _closed(self, session_id: str) -> None:
        """A client has gone; its plan is known until its jobs cannot run any more."""
        self.kernel.call_at(self.kernel.now + DRAIN_NS, lambda: self._forget(session_id))

    def _forget(self, session_id: str) -> None:
        self._network.clients.pop(session_id, None)

    async def _main(self) -> None:
        await self._arrivals()
        if self.scenario.workload.is_closed:
            assert self.scenario.horizon_ns is not None, "a closed workload needs a horizon"
            await self.kernel.sleep(self.scenario.horizon_ns + SETTLE_NS - self.kernel.now)
            return
        end = self.kernel.now + self.scenario.drain_ns
        while self.kernel.now < end:
            # Sleep before the look: the last client has not even said hello yet.
            await self.kernel.sleep(min(SECOND, end - self.kernel.now))
            if not self._busy():
                break

    def _busy(self) -> bool:
        return any(
            scheduler.state.sessions or scheduler.state.book.active()
            for scheduler in self.schedulers
        )

    def run(self) -> RunResult:
        """Play the scenario to its end."""
        return self._play(self._main())

    def run_for(self, limit_ns: int) -> RunResult:
        """Play the scenario for so long and no longer."""
        return self._play(self._until(limit_ns))

    async def _until(self, limit_ns: int) -> None:
        self.kernel.start(self._arrivals(), "arrivals")
        await self.kernel.sleep(limit_ns)

    def _play(self, main: Coroutine[Any, Any, None]) -> RunResult:
        usual = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLD)
        try:
            self.kernel.run(main)
        finally:
            self.kernel.close()
            gc.set_threshold(*usual)
        ended = self.kernel.now
        self.checker.finish(ended)
        return self._result(ended)

    def _result(self, ended: int) -> RunResult:
        return RunResult(
            replication=self._replication,
            digest=self._recorder.digest(),
            ended_ns=ended,
            warm_ns=SETTLE_NS,
            operations=self._operations.columns(),
            jobs=self.journal.jobs(),
            steps=step_rows(self._recorder),
            calls={
                (kind, phase): self._operations.calls(kind, phase)
                for kind in OpKind
                for phase in range(3)
            },
            violations=dict(self.checker.counts),
            checked=dict(self.checker.checked),
            examples=[(v.invariant, v.at_ns, v.text) for v in self.checker.violations[:20]],
            conservation=self.checker.conservation(),
            cuts=self.journal.cuts(),
            counters=self.journal.counters,
            redis_busy_ns=self._redis.busy_ns,
            node_busy_ns=sum(worker.busy_ns for worker in self._workers),
            steps_recorded=self._recorder.recorded,
            chunks=self._operations.ended(OpKind.AUDIO_CHUNK),
            sessions=self._sessions,
        )


def _languages(workload: Workload) -> tuple[str, ...]:
    names = [name for pair in workload.languages for name in (pair.source, pair.target)]
    return tuple(sorted(dict.fromkeys(names)))


def _check_settings(scenario: Scenario) -> CheckSettings:
    policy, cut = scenario.policy, scenario.segmentation
    return CheckSettings(
        pause_ns=cut.pause_ns,
        pending_ns=policy.pending_ms * MS,
        hangover_ns=max(cut.hangover_auto_ms, cut.hangover_manual_ms) * MS,
        job_timeout_ns=policy.job_timeout_ms * MS,
        failover_max=policy.failover_max,
        gap_ns=policy.gap_ms * MS,
    )


def step_rows(recorder: StepRecorder) -> list[StepRow]:
    """The totals of a recorder as rows, quantiles included."""
    rows = []
    for total in recorder.totals():
        step = CATALOGUE[total.step]
        waits = [total.wait_quantile_ns(q) for q in (0.5, 0.95, 0.99)]
        holds = [total.hold_quantile_ns(q) for q in (0.5, 0.95, 0.99, 0.999)]
        rows.append(
            StepRow(
                step.name, total.kind, total.phase, total.resource, step.lock,
                step.mode is Mode.SHARED, total.count, total.contended, total.wait_ns,
                total.hold_ns, total.wait_ns_max, total.hold_ns_max, *waits, *holds,
            )
        )  # fmt: skip
    return rows


def simulate(
    scenario: Scenario, *, seed: int, replication: int = 0, sink: Sink | None = None
) -> RunResult:
    """Play one scenario once."""
    return World(scenario, seed=seed, replication=replication, sink=sink).run()


def demands(result: RunResult, scenario: Scenario) -> Mapping[str, float]:
    """
    Busy nanoseconds per utterance of every resource that all sessions share.

    A lock counts its exclusive holds (readers share it), cores count per core, nodes per slot;
    the largest is the tightest resource, and load is the rate of utterances times it.
    """
    utterances = max(1, len(result.cuts.session))
    busy: dict[str, int] = {}
    scopes = scenario.costs.scopes
    for row in result.steps:
        if row.resource == RESOURCE_CORE:
            name, share = "cores", scenario.cores if scenario.execution == "threads" else 1
        elif row.resource == RESOURCE_LOCK and not row.shared and scopes[row.lock] == "global":
            name, share = f"lock {row.lock}", 1
        else:
            continue
        busy[name] = busy.get(name, 0) + row.hold_ns // (share * scenario.instances)
    busy["redis"] = result.redis_busy_ns
    busy["nodes"] = result.node_busy_ns // max(1, scenario.nodes * scenario.slots)
    return {name: total / utterances for name, total in busy.items()}
