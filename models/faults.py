"""
Breaking things: the faults of a case, done to a simulated world at their time or in their step.

Timed faults are calls in the kernel's queue. Faults within a step wait at a probe: every step and
store call of an instance passes its probe, which counts those that somebody waits for and lets the
fault hit at the moment asked for. What was hit, and in which step the instance was, is counted for
the coverage table.

What each kind does is the table `_DO`; how a thing breaks is known by the thing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from simsched.cases import Case
from simsched.faults import Fault, number_of, target_kind
from simsched.models.faulty_links import FaultyNetwork
from simsched.models.faulty_nodes import NodeSocket
from simsched.models.faulty_redis import FaultyRedis, StoreProbe
from simsched.models.runtime import SimRuntime
from simsched.models.tape import Tape
from simsched.models.tasks import Kernel
from simsched.ports import StepGuard
from simsched.steps import CATALOGUE, Kind, Step
from simsched.telemetry import Disturbed, Operation, StoreLost
from simsched.units import MS, US

AFTERMATH_NS: Final = 3_000 * MS
"""How long after a fault has ended its consequences may still show."""


class Tell(Protocol):
    """Takes one line of the story."""

    def __call__(self, who: str, what: str, result: str = "") -> None: ...


class Breakable(Protocol):
    """The world, as far as faults reach into it."""

    kernel: Kernel
    network: FaultyNetwork
    redis: FaultyRedis
    sockets: list[NodeSocket]

    def crash(self, number: int) -> None: ...
    def restart(self, number: int) -> None: ...
    def pause(self, number: int) -> None: ...
    def resume(self, number: int) -> None: ...
    def is_up(self, number: int) -> bool: ...
    def runtime_of(self, number: int) -> SimRuntime: ...
    def sessions_of(self, number: int) -> list[str]: ...
    def store_returned(self) -> None: ...
    def emit(self, event: Any) -> None: ...


class Probe(StoreProbe):
    """What one instance passes on its way: which step it is in, and who waits for it there."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._waiting: dict[tuple[str, str], list[tuple[int, Callable[[str], None]]]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def wait_for(self, step: str, moment: str, nth: int, hit: Callable[[str], None]) -> None:
        """Have `hit` called at the nth time that the instance comes to this point."""
        self._waiting.setdefault((step, moment), []).append((nth, hit))
        self.is_watched = True

    def attach(self, runtime: SimRuntime) -> None:
        """Let every step of the instance that takes a lock or a core pass here."""
        enter, leave = runtime.step, runtime.record
        entered = {step for step, moment in self._waiting if moment in ("before", "held")}
        left = {step for step, moment in self._waiting if moment == "after"}
        left_by_index = {step.index: step.name for step in CATALOGUE if step.name in left}

        def step(
            step: Step, op: Operation, *, site: int = 0, n: int = 0, key: str = ""
        ) -> StepGuard:
            self.current = name = step.name
            if name in entered and step.kind is not Kind.WAIT:
                self._passes(name, "before", 0)
                self._passes(name, "held", US)
            return enter(step, op, site=site, n=n, key=key)

        def record(*columns: Any) -> None:
            if leave is not None:
                leave(*columns)
            if columns[5] in left_by_index:
                self._passes(left_by_index[columns[5]], "after", 0)

        runtime.step = step  # type: ignore[method-assign]
        if left_by_index:
            runtime.record = record  # type: ignore[assignment]

    def _passes(self, step: str, moment: str, delay_ns: int) -> None:
        waiting = self._waiting.get((step, moment))
        if not waiting:
            return
        point = (step, moment)
        self._counts[point] = count = self._counts.get(point, 0) + 1
        for nth, hit in waiting:
            if nth == count:
                at_ns = self._kernel.now + delay_ns
                self._kernel.call_at(at_ns, _hitting(hit, step))

    def before(self, step: Step) -> None:
        """A call sets out."""
        self.current = step.name
        if self.is_watched:
            self._passes(step.name, "before", 0)

    def under_way(self, step: Step, delay_ns: int) -> None:
        """It will arrive at the server after `delay_ns`."""
        self._passes(step.name, "held", delay_ns // 2)

    def executed(self, step: Step) -> None:
        """The server has executed it; the reply is under way."""
        self._passes(step.name, "executed", 0)

    def after(self, step: Step) -> None:
        """The caller has its answer."""
        self._passes(step.name, "after", 0)


def _hitting(hit: Callable[[str], None], step: str) -> Callable[[], None]:
    return lambda: hit(step)


class Faults:
    """The faults of one case, waiting for their moment; `hit` counts those that came."""

    def __init__(self, case: Case, world: Breakable, tape: Tape, tell: Tell) -> None:
        self._case = case
        self._world = world
        self._kernel = world.kernel
        self._tape = tape
        self._tell = tell
        self.hit: dict[tuple[str, str], int] = {}
        self.last_ns = 0
        self._rests = False

    def probe(self, number: int) -> Probe:
        """The probe of an instance, with the faults that wait in its steps."""
        probe = Probe(self._kernel)
        for fault in self._case.faults:
            if fault.is_at_step and number_of(fault.target) == number:
                probe.wait_for(fault.step, fault.moment, fault.nth, self._hitter(fault))
        return probe

    def rest(self) -> None:
        """Nothing breaks any more; what is broken heals in its time."""
        self._rests = True
        for socket in self._world.sockets:
            socket.worker.be_good()

    def _hitter(self, fault: Fault) -> Callable[[str], None]:
        return lambda step: self._do(fault, step)

    def start(self, at_ns: int) -> None:
        """Wind up the clock of those that have a time, counted from `at_ns`."""
        for fault in self._case.faults:
            if not fault.is_at_step:
                self._kernel.call_at(at_ns + fault.at_ms * MS, self._timed(fault))

    def _timed(self, fault: Fault) -> Callable[[], None]:
        return lambda: self._do(fault, "")

    def _do(self, fault: Fault, step: str) -> None:
        if self._rests:
            return
        kind = target_kind(fault.target).partition("/")[0]
        number = number_of(fault.target) if kind != "redis" else 0
        if kind == "instance":
            step = step or self._world.network.probes[number].current
        if not _DO[fault.kind](self, fault, number):
            return
        key = (fault.kind, step or "time")
        self.hit[key] = self.hit.get(key, 0) + 1
        over_ns = self._kernel.now + (fault.for_ms + fault.delay_ms) * MS
        self.last_ns = max(self.last_ns, over_ns)
        until_ns = over_ns + AFTERMATH_NS + self._lingers_ns(fault)
        self._world.emit(
            Disturbed(
                at_ns=self._kernel.now, instance="", until_ns=until_ns, kind=fault.kind,
                target=fault.target, over_ns=over_ns,
            )
        )  # fmt: skip
        where = f" in {step}" if fault.is_at_step else ""
        lasts = f" for {fault.for_ms} ms" if fault.for_ms else ""
        self._tell(fault.target, f"FAULT {fault.kind}{where}{lasts}")

    def _lingers_ns(self, fault: Fault) -> int:
        """What it leaves behind: work in progress, leases that a clock has prolonged."""
        service_ms = self._case.system.service_ms
        if fault.kind == "node_slow":
            worker = self._world.sockets[number_of(fault.target)].worker
            return round(service_ms / worker.spec.speed) * MS
        return abs(fault.by_ms) * MS if fault.kind == "clock_jump" else service_ms * MS

    def _after(self, fault: Fault, action: Callable[[], None]) -> None:
        self._kernel.call_at(self._kernel.now + fault.for_ms * MS, action)

    # Instances

    def instance_crash(self, fault: Fault, number: int) -> bool:
        world = self._world
        if not world.is_up(number):
            return False
        world.crash(number)
        if fault.for_ms:
            self._after(fault, lambda: world.restart(number))
        return True

    def instance_pause(self, fault: Fault, number: int) -> bool:
        world = self._world
        if not world.is_up(number):
            return False
        world.pause(number)
        runtime = world.runtime_of(number)

        def resume() -> None:
            if world.runtime_of(number) is runtime:
                world.resume(number)
                self._tell(fault.target, "goes on")

        self._after(fault, resume)
        return True

    def clock_jump(self, fault: Fault, number: int) -> bool:
        if fault.target == "redis":
            self._world.redis.clock_us += fault.by_ms * 1_000
        else:
            self._world.runtime_of(number).epoch_ms += fault.by_ms
        return True

    # Nodes

    def node_crash(self, fault: Fault, number: int) -> bool:
        socket = self._world.sockets[number]
        if socket.worker.dead:
            return False
        socket.worker.die()
        socket.close()

        def come_back() -> None:
            socket.worker.come_back()
            socket.connect()

        if fault.for_ms:
            self._after(fault, come_back)
        return True

    def node_hang(self, fault: Fault, number: int) -> bool:
        socket = self._world.sockets[number]
        if socket.worker.dead or socket.worker.hung:
            return False
        socket.worker.hang()
        socket.silent(self._kernel.now + fault.for_ms * MS)

        def go_on() -> None:
            if socket.worker.hung:
                socket.worker.go_on()

        self._after(fault, go_on)
        return True

    def node_slow(self, fault: Fault, number: int) -> bool:
        worker = self._world.sockets[number].worker
        worker.slow_down(fault.factor)
        self._after(fault, lambda: worker.slow_down(1 / fault.factor))
        return not worker.dead

    def node_reconnect(self, fault: Fault, number: int) -> bool:
        socket = self._world.sockets[number]
        if socket.worker.dead or socket.home is None:
            return False
        socket.close()
        socket.connect_soon(max(fault.for_ms, 1) * MS)
        return True

    def result_repeat(self, fault: Fault, number: int) -> bool:
        worker = self._world.sockets[number].worker
        worker.repeats.extend([fault.delay_ms * MS] * fault.count)
        return not worker.dead

    def result_late(self, fault: Fault, number: int) -> bool:
        worker = self._world.sockets[number].worker
        worker.delays.extend([fault.delay_ms * MS] * fault.count)
        return not worker.dead

    def result_fail(self, fault: Fault, number: int) -> bool:
        worker = self._world.sockets[number].worker
        worker.failures += fault.count
        return not worker.dead

    # Redis

    def redis_slow(self, fault: Fault, _number: int) -> bool:
        redis = self._world.redis
        redis.slower_ns = fault.delay_ms * MS
        redis.slow_until_ns = self._kernel.now + fault.for_ms * MS
        return True

    def redis_down(self, fault: Fault, _number: int) -> bool:
        return self._down(fault, lambda: None)

    def redis_restart(self, fault: Fault, _number: int) -> bool:
        return self._down(fault, self._lose(self._world.redis.forget))

    def redis_failover(self, fault: Fault, _number: int) -> bool:
        return self._down(fault, self._lose(lambda: self._world.redis.lose(fault.lost)))

    def _lose(self, lost: Callable[[], None]) -> Callable[[], None]:
        def meanwhile() -> None:
            lost()
            self._world.emit(StoreLost(at_ns=self._kernel.now, instance=""))

        return meanwhile

    def _down(self, fault: Fault, meanwhile: Callable[[], None]) -> bool:
        redis = self._world.redis
        redis.down_until_ns = max(redis.down_until_ns, self._kernel.now + fault.for_ms * MS)
        meanwhile()
        self._after(fault, self._world.store_returned)
        return True

    # Links

    def partition(self, fault: Fault, number: int) -> bool:
        until_ns = self._kernel.now + fault.for_ms * MS
        kind = target_kind(fault.target)
        if kind == "instance/redis":
            self._world.network.probes[number].cut_until_ns = until_ns
            self._after(fault, self._world.store_returned)
            return True
        for link in self._links(kind, number):
            self._world.network.cut_until_ns[link] = until_ns
        if kind == "node/instance":
            self._world.sockets[number].silent(until_ns)
        return True

    def link_slow(self, fault: Fault, number: int) -> bool:
        until_ns = self._kernel.now + fault.for_ms * MS
        kind = target_kind(fault.target)
        if kind == "instance/redis":
            probe = self._world.network.probes[number]
            probe.slower_ns, probe.slow_until_ns = fault.delay_ms * MS, until_ns
        for link in self._links(kind, number):
            self._world.network.slower[link] = (fault.delay_ms * MS, until_ns)
        return True

    def _links(self, kind: str, number: int) -> Iterable[tuple[str, str]]:
        if kind == "node/instance":
            return [("node", f"n-{number}")]
        if kind == "client/instance":
            return [("client", session) for session in self._world.sessions_of(number)]
        return []


_DO: Final[dict[str, Callable[[Faults, Fault, int], bool]]] = {
    "instance_crash": Faults.instance_crash,
    "instance_pause": Faults.instance_pause,
    "node_crash": Faults.node_crash,
    "node_hang": Faults.node_hang,
    "node_slow": Faults.node_slow,
    "node_reconnect": Faults.node_reconnect,
    "result_repeat": Faults.result_repeat,
    "result_late": Faults.result_late,
    "result_fail": Faults.result_fail,
    "redis_slow": Faults.redis_slow,
    "redis_down": Faults.redis_down,
    "redis_restart": Faults.redis_restart,
    "redis_failover": Faults.redis_failover,
    "partition": Faults.partition,
    "link_slow": Faults.link_slow,
    "clock_jump": Faults.clock_jump,
}
"""What each kind does; it answers whether there was anything to hit."""
