"""
The world of one case: the simulated world with everything in it that can break.

`play` runs a case to its end and says what it broke. The end: every client has gone, the last
fault is over, and nothing is in progress any more, or `settle_ms` have passed since. Then all must
be answered and every slot free. Same case, same tape: same run, to the byte.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb
from typing import Final

from simsched.cases import Case, Turn
from simsched.chance import key_of
from simsched.findings import CheckSettings, Violation
from simsched.invariants import Checker
from simsched.models.distributions import Constant
from simsched.models.faults import Faults, Probe
from simsched.models.faulty_links import FaultyNetwork
from simsched.models.faulty_nodes import FaultyWorker, NodeSocket
from simsched.models.faulty_redis import FaultyRedis, FaultyStore
from simsched.models.hunted_clients import ScriptedClient
from simsched.models.hunted_sinks import Journal, Operations, Voice
from simsched.models.hunted_truths import PRESENCE_BEATS, Truths
from simsched.models.keyspace import LuaKeySpace
from simsched.models.links import SimLinks
from simsched.models.prices import CostModel
from simsched.models.runtime import EPOCH_MS, SimRuntime
from simsched.models.service import ServiceModel, Stage
from simsched.models.story import Line, Story
from simsched.models.tape import Tape
from simsched.models.tasks import Kernel
from simsched.models.told_store import ToldStore
from simsched.models.wakes import Group
from simsched.models.workers import WorkerSpec
from simsched.nodes import Health, HealthLimits, NodeRecord
from simsched.policy import Policy
from simsched.pools import PoolConfig
from simsched.presets import parse_policy
from simsched.scheduler import Scheduler
from simsched.state import CoreSettings
from simsched.telemetry import Event, InstanceDown
from simsched.units import MS, SECOND

START_NS: Final = 500 * MS
"""Nodes are ready before the first client comes."""

LOOK_NS: Final = 500 * MS
"""How often the end of the run is looked for."""

CORES: Final = 4

FAILURE: Final = "failure"
"""Stands where an invariant's name does when a task of the core has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """
    What a case came to.

    Attributes:
        violations: what broke, in order.
        digest: of all events; "" if it was not asked for.
        tape: the departures that were taken.
        hit: how often a fault of a kind hit an instance in a step (or at a `time` elsewhere).
        events: how many events the run had.

    """

    violations: list[Violation]
    digest: str
    ended_ns: int
    tape: dict[str, int]
    hit: dict[tuple[str, str], int]
    events: int
    utterances: int


class HuntedWorld:
    """One case in the making."""

    def __init__(
        self,
        case: Case,
        tape: Tape,
        story: Story | None = None,
        keys: LuaKeySpace | None = None,
        *,
        hashed: bool = True,
    ) -> None:
        self.case = case
        system = case.system
        self.policy = _policy(case.policy)
        self.kernel = Kernel(ties="fifo")
        self._tape = tape
        self._truths = Truths(self)
        tape.on_departure = self._departs
        if not tape.is_idle("tie"):
            self.kernel.lets_others_go = lambda name: tape.next(f"tie {name}", 2) == 1
        self._story = story
        self._run_key = key_of("case", case.seed)
        self._costs = _costs(system.costs)
        self._charges = self._costs.charges()
        self._operations = Operations()
        self.checker = Checker(_check_settings(self.policy, case))
        self.journal = Journal(self.checker, story, hashed=hashed)
        self.redis = FaultyRedis(self.kernel, keys)
        if self.policy.slots == "lease":
            self.redis.heed(lambda: self.kernel.now, self.emit)
        self.redis.remembers = any(fault.kind == "redis_failover" for fault in case.faults)
        self.network = FaultyNetwork(self.kernel, self._costs, self.redis, tape)
        self.faults = Faults(case, self, tape, self._tell)
        self._probes: list[Probe] = []
        self._incarnations = [0] * system.instances
        self._down: dict[int, None] = {}
        self.graves: list[str] = []
        self.schedulers: list[Scheduler] = []
        for number in range(system.instances):
            self._probes.append(self.faults.probe(number))
            self.network.probes.append(self._probes[number])
            self.schedulers.append(self._instance(number))
        self.network.schedulers = self.schedulers
        self.sockets = [self._node(number) for number in range(system.nodes)]
        self.clients = self._make_clients(case.turns)

    # Who is there

    def _instance(self, number: int) -> Scheduler:
        life = self._incarnations[number]
        name = f"i-{number}" + (f".{life}" if life else "")
        group, system = Group(self.kernel, name), self.case.system
        runtime = SimRuntime(
            self.kernel, name, charges=self._charges, steps=None,
            operations=self._operations, telemetry=Voice(self.journal, group),  # type: ignore[arg-type]
            run_key=self._run_key, cores=CORES, group=group, index=number,
        )  # fmt: skip
        self._probes[number].attach(runtime)
        runtime.point = self._points(number)
        runtime.store = self._store(number, name, group)
        runtime.links = SimLinks(self.network, number)
        settings = CoreSettings(
            shared=True, pools=PoolConfig(enabled=True, auto_generate_language_pools=True),
            heartbeat_ns=system.heartbeat_ms * MS, health=_health(system.heartbeat_ms),
            node_scan_ns=system.heartbeat_ms * MS,
            presence_ns=PRESENCE_BEATS * system.heartbeat_ms * MS,
            version=self.network.join(number, name, life, system.versions),
        )  # fmt: skip
        scheduler = Scheduler(runtime, self.policy, settings)
        if self.policy.node_loss == "event":
            scheduler.nodes.on_transition = self._hangs_up(number)
        runtime.start(scheduler.run(), name="background")
        return scheduler

    def _hangs_up(self, number: int) -> Callable[[NodeRecord, str], None]:
        """Whom an instance takes for gone, it hangs up on: a node that lives connects again."""

        def moved(record: NodeRecord, _reason: str) -> None:
            socket = next(one for one in self.sockets if one.name == record.node_id)
            if record.health is Health.OFFLINE and socket.home == number:
                socket.close(seen=False)
                socket.connect_soon()

        return moved

    def _store(self, number: int, name: str, group: Group) -> FaultyStore:
        kind = FaultyStore if self._story is None else ToldStore
        store = kind(
            self.redis, self._costs, None, instance=number, group=group,
            connections=self.policy.connections, shared_with_reader=False,
        )  # fmt: skip
        store.equip(self.redis, self.network.probes[number], self._tape, name)
        if isinstance(store, ToldStore) and self._story is not None:
            store.story = self._story
        if number < len(self.network.stores):
            self.network.stores[number] = store
        else:
            self.network.stores.append(store)
        return store

    def _points(self, number: int) -> Callable[[str], bool]:
        tape, name = self._tape, f"i-{number}"
        if tape.is_idle("point"):
            return lambda _point: False
        return lambda point: (
            not tape.is_idle("point") and tape.next(f"point {name} {point}", 2) == 1
        )

    def _node(self, number: int) -> NodeSocket:
        system, name = self.case.system, f"n-{number}"
        acts = self.policy.node_loss == "event"
        socket = NodeSocket(number, self.network, self, pings=acts, tells=acts)
        spec = WorkerSpec(
            node_id=name, slots=system.slots, languages=("en", "zh"), home=0,
            overflow="refuse" if self.policy.slots == "lease" else "queue",
            acknowledges=system.acknowledges,
        )  # fmt: skip
        service = ServiceModel(
            asr=Stage(Constant(system.service_ms * MS)), nmt=Stage(), tts=Stage()
        )
        worker = FaultyWorker(
            self.kernel, spec, service, run_key=self._run_key,
            now_ms=lambda: EPOCH_MS + self.kernel.now // MS,
            plan_of=lambda session, _utterance: (key_of("session", session), 0, 500),
            send=socket.send, emit=self.journal.event,
        )  # fmt: skip
        worker.prepare()
        worker.disturbs = lambda kind: self._truths.spoils(kind, name)
        socket.worker = worker
        self.network.workers[name] = worker
        socket.connect()
        self.kernel.start(self._beat(socket), f"heartbeats of {name}")
        return socket

    async def _beat(self, socket: NodeSocket) -> None:
        period = self.case.system.heartbeat_ms * MS
        await self.kernel.sleep(START_NS + period * socket.number // self.case.system.nodes)
        while True:
            await self.kernel.sleep(period)
            socket.beat()

    def _make_clients(self, turns: tuple[Turn, ...]) -> list[ScriptedClient]:
        numbers = sorted({turn.client for turn in turns})
        return [
            ScriptedClient(
                number, [turn for turn in turns if turn.client == number], self.case.system,
                self.network, self,
            )
            for number in numbers
        ]  # fmt: skip

    @property
    def disturbed_until_ns(self) -> int:
        """When the last fault that has come so far is over."""
        return self.faults.last_ns

    def cut_of(self, session_id: str) -> dict[int, None]:
        """What was cut of a session that streams and has no answer yet that its client heard."""
        return self.journal.cut.get(session_id, {})

    # What faults do to instances

    def is_up(self, number: int) -> bool:
        """Whether an instance takes connections; a paused one does not answer."""
        return number not in self._down and self._group(number).held is None

    def is_dead(self, number: int) -> bool:
        """Whether an instance is gone; a paused one is not."""
        return number in self._down

    def _group(self, number: int) -> Group:
        return self.runtime_of(number).group

    def runtime_of(self, number: int) -> SimRuntime:
        """The handle of the instance as it is now."""
        return self.schedulers[number].runtime  # type: ignore[return-value]

    def sessions_of(self, number: int) -> list[str]:
        """Who is connected to an instance."""
        return [client.session_id for client in self.clients if client.home == number]

    def crash(self, number: int) -> None:
        """The process is gone: its tasks are parked for ever, its sockets close."""
        self._group(number).abandon()
        self._down[number] = None
        name = self.runtime_of(number).instance_id
        self.graves.append(name)
        self.emit(InstanceDown(at_ns=self.kernel.now, instance=name))
        for socket in self.sockets:
            if socket.home == number:
                socket.close(seen=False)
                socket.connect_soon()
        for client in self.clients:
            client.lost(number)

    def restart(self, number: int) -> None:
        """A new process under a new name, with nothing in memory."""
        self._incarnations[number] += 1
        del self._down[number]
        probe = self.network.probes[number]
        probe.current = "idle"
        self.schedulers[number] = self._instance(number)
        self._tell(f"i-{number}", "starts", self.runtime_of(number).instance_id)

    def pause(self, number: int) -> None:
        """Nothing of it runs."""
        self._group(number).freeze()

    def resume(self, number: int) -> None:
        """It goes on and does not know."""
        self._group(number).resume()

    def store_returned(self) -> None:
        """Every instance that notices finds its store again."""
        for number, scheduler in enumerate(self.schedulers):
            if number not in self._down and not self.redis.is_down:
                scheduler.runtime.start(scheduler.store_returned(), name="store returned")
                self.network.notify(scheduler.runtime.instance_id)

    def emit(self, event: Event) -> None:
        """The world's own word."""
        self.journal.event(event)

    def _tell(self, who: str, what: str, result: str = "") -> None:
        if self._story is not None:
            self._story(Line(self.kernel.now, who, what, result))

    def _departs(self, label: str, value: int) -> None:
        group, who, *_ = label.split(" ")
        self._tell(who if group != "tie" else "world", f"DEPARTS {label}", str(value))
        self._truths.departs(label, value)

    # The run

    async def _main(self) -> None:
        await self.kernel.sleep(START_NS)
        self.faults.start(self.kernel.now)
        if self.case.system.calm_ms:
            calm_ns = self.kernel.now + self.case.system.calm_ms * MS
            self.kernel.call_at(calm_ns, self._rest)
        if self.policy.slots == "lease":
            self.kernel.start(self._truths.tell(), "truths")
        for client in self.clients:
            self.kernel.start(client.run(self.kernel.now), client.name)
        while not all(client.done for client in self.clients) or not self._faults_over():
            await self.kernel.sleep(LOOK_NS)
        until_ns = self.kernel.now + self.case.system.settle_ms * MS
        while self.kernel.now < until_ns:
            await self.kernel.sleep(LOOK_NS)
            if not self._busy():
                break
        await self.kernel.sleep(2 * SECOND)
        await self._until_leases_end()
        if self.policy.slots == "lease" and not self._busy():
            self._truths.try_slots()

    def _rest(self) -> None:
        """Nothing departs and nothing breaks from now on."""
        self._tape.rest()
        self.kernel.lets_others_go = None
        self.faults.rest()

    async def _until_leases_end(self) -> None:
        """Nobody but time frees the slots of an instance that is dead, or of a job that is left."""
        until_ns = self.kernel.now + self.policy.lease_ms * MS
        while self.kernel.now < until_ns and any(
            self.redis.leases_of(socket.name) for socket in self.sockets
        ):
            await self.kernel.sleep(LOOK_NS)

    def _faults_over(self) -> bool:
        return self.kernel.now >= self.faults.last_ns and all(
            group.held is None or group.abandoned
            for group in map(self._group, range(len(self.schedulers)))
        )

    def _busy(self) -> bool:
        alive = (s for n, s in enumerate(self.schedulers) if n not in self._down)
        return any(one.state.sessions or one.state.book.active() for one in alive) or any(
            socket.worker.held() for socket in self.sockets
        )

    def _failed(self, error: Exception) -> None:
        """A task of the core raised what nobody expected: that breaks every promise at once."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        frames = extract_tb(error.__traceback__)
        where = next((f for f in reversed(frames) if "/simsched/" in f.filename), frames[-1])
        place = f"{Path(where.filename).stem}.{where.name}"
        self.checker.violations.append(
            Violation(FAILURE, self.kernel.now, place, f"{type(error).__name__}: {error}", "")
        )

    def run(self) -> Played:
        """Play the case to its end."""
        try:
            self.kernel.run(self._main())
        except Exception as error:
            self._failed(error)
        finally:
            self.kernel.close()
        ended = self.kernel.now
        self.checker.finish(ended)
        return Played(
            violations=self.checker.violations, digest=self.journal.digest(), ended_ns=ended,
            tape=self._tape.taken, hit=self.faults.hit, events=self.journal.events,
            utterances=len(self.case.turns),
        )  # fmt: skip


def play(
    case: Case, *, tape: Tape | None = None, tell: Story | None = None, hashed: bool = True
) -> Played:
    """
    Play a case; without a tape, with the case's own departures.

    `hashed` false: nobody will compare the run with another one, so it needs no digest.
    """
    keys = SPARE.pop() if SPARE else LuaKeySpace()
    keys.clear()
    gc_was = gc.isenabled()
    gc.disable()  # a world lives and goes as a whole: one look at its remains is enough
    try:
        return HuntedWorld(case, tape or Tape(case.tape), tell, keys, hashed=hashed).run()
    finally:
        SPARE.append(keys)
        if gc_was:
            gc.enable()


SPARE: Final[list[LuaKeySpace]] = []
"""Key spaces that no world uses at the moment: making one costs a tenth of a small run."""


# A hunt plays thousands of cases with one policy and one cost model.
_policy = lru_cache(maxsize=16)(parse_policy)
_costs = lru_cache(maxsize=16)(CostModel.load)


def _health(heartbeat_ms: int) -> HealthLimits:
    return HealthLimits(silence_ns=3 * heartbeat_ms * MS, warmup_ns=4 * heartbeat_ms * MS)


def _check_settings(policy: Policy, case: Case) -> CheckSettings:
    return CheckSettings(
        pending_ns=policy.pending_ms * MS,
        job_timeout_ns=policy.job_timeout_ms * MS,
        failover_max=policy.failover_max,
        gap_ns=policy.gap_ms * MS,
        lease_ns=policy.lease_ms * MS,
        retries_failures=policy.node_failure == "retry",
        nodes_alike=True,
        told=True,
    )
