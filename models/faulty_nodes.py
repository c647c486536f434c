"""
A node that breaks: it dies and comes back empty, hangs, slows down, repeats or delays its results.

And its socket: to the instance of its number, or the next one that lives. An instance pings its
nodes (where its policy acts on sockets) and hangs up on one that has been silent for
`PING_LIMIT_NS`; a node that finds its socket closed connects again, registers, and says what it
still runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from simsched.messages import JobAssign, JobResult
from simsched.models.faulty_links import FaultyNetwork
from simsched.models.wakes import Call, Group
from simsched.models.workers import Worker
from simsched.scheduler import Scheduler
from simsched.units import MS, SECOND

PING_LIMIT_NS: Final = 3 * SECOND
"""A node that has answered no ping for so long is taken for gone: three pings of 1 s."""

RECONNECT_NS: Final = 200 * MS


class FaultyWorker(Worker):
    """A worker that may stop, for a while or for good."""

    hung = False
    dead = False
    factor = 1.0

    def prepare(self) -> None:
        """Before its first job."""
        self._waiting: list[object] = []
        self._postponed: list[Callable[[], None]] = []
        self.repeats: list[int] = []
        self.delays: list[int] = []
        self.failures = 0
        self.disturbs: Callable[[str], None] = lambda _kind: None
        """Told of what a fault does to a result, which may be long after it."""

    def receive(self, message: object) -> None:
        """The scheduler's message; a process that hangs reads it later."""
        if self.dead:
            return
        if self.hung:
            self._waiting.append(message)
            return
        if isinstance(message, JobAssign):
            self._drop_older(message)
        super().receive(message)

    def _drop_older(self, job: JobAssign) -> None:
        """A newer attempt of a job ends an older one, whatever that has done so far."""
        for job_id, attempt in list(self._running):
            if job_id == job.job_id and attempt < job.attempt_id:
                self._cancel(job_id)

    def _done(self, job: JobAssign, times: Any) -> None:
        if self.hung:
            self._postponed.append(lambda: self._done(job, times))
            return
        if (job.job_id, job.attempt_id) in self._running:
            super()._done(job, times)

    def _result(self, job: JobAssign, times: Any) -> JobResult:
        if self.failures:
            self.failures -= 1
            self.disturbs("result_fail")
            return self._failure(job, "PROCESSING_ERROR")
        return super()._result(job, times)

    def held(self) -> tuple[tuple[str, int], ...]:
        """The attempts that it has, running or in its own line."""
        if not self._line:
            return tuple(self._running)
        waiting = ((job.job_id, job.attempt_id) for job in self._line)
        return (*self._running, *waiting)

    def slow_down(self, factor: float) -> None:
        """Jobs that begin from now on take `factor` times as long."""
        self.spec = replace(self.spec, speed=self.spec.speed / factor)

    def be_good(self) -> None:
        """Its next results are like any other's."""
        self.repeats.clear()
        self.delays.clear()
        self.failures = 0

    def hang(self) -> None:
        """Nothing is read, ended or sent any more; time passes."""
        self.hung = True

    def go_on(self) -> None:
        """What ended meanwhile ends now, then what was sent meanwhile is read."""
        self.hung = False
        postponed, self._postponed = self._postponed, []
        waiting, self._waiting = self._waiting, []
        for action in postponed:
            action()
        for message in waiting:
            self.receive(message)

    def die(self) -> None:
        """The process is gone with its work."""
        self.dead = True
        self.hung = False
        self._line.clear()
        for job_id, _ in list(self._running):
            self._cancel(job_id)
        self._waiting.clear()
        self._postponed.clear()

    def come_back(self) -> None:
        """A new process, with nothing to do."""
        self.dead = False


class Instances(Protocol):
    """Who can be connected to."""

    schedulers: list[Scheduler]

    def is_up(self, number: int) -> bool:
        """Whether an instance takes connections."""
        ...


class NodeSocket:
    """One node's connection to the instance that it is at."""

    def __init__(
        self, number: int, network: FaultyNetwork, instances: Instances, *, pings: bool, tells: bool
    ) -> None:
        self.number = number
        self.name = f"n-{number}"
        self._network = network
        self._instances = instances
        self._pings = pings
        self._tells = tells
        self.worker: FaultyWorker
        self.home: int | None = None
        self._again: Call | None = None

    @property
    def _group(self) -> Group:
        assert self.home is not None
        return self._instances.schedulers[self.home].runtime.group  # type: ignore[attr-defined,no-any-return]

    def send(self, message: object) -> None:
        """Towards the scheduler; a result may be late or be sent again."""
        worker = self.worker
        if isinstance(message, JobResult) and worker.delays:
            worker.disturbs("result_late")
            self._later(worker.delays.pop(0), message)
            return
        self._send_now(message)
        if isinstance(message, JobResult) and worker.repeats:
            worker.disturbs("result_repeat")
            self._later(worker.repeats.pop(0), message)

    def _later(self, delay_ns: int, message: object) -> None:
        self._network.after(delay_ns, lambda: None if self.worker.dead else self._send_now(message))

    def _send_now(self, message: object) -> None:
        if self.home is None:
            return
        scheduler = self._instances.schedulers[self.home]
        self._network.carry(
            "node", self.name, self._network.from_node_ns,
            lambda: scheduler.from_node(self.name, message), self._group,
        )  # fmt: skip

    def connect(self) -> None:
        """To the instance of its number or the next that is up; else try again soon."""
        self._again = None
        if self.home is not None or self.worker.dead:
            return
        if self.worker.hung:
            self.connect_soon()
            return
        count = len(self._instances.schedulers)
        for step in range(count):
            number = (self.number + step) % count
            if self._instances.is_up(number):
                self._arrive(number)
                return
        self.connect_soon()

    def connect_soon(self, after_ns: int = RECONNECT_NS) -> None:
        """Connect after a while, once."""
        if self._again is None:
            network = self._network
            self._again = network.kernel.call_at(network.kernel.now + after_ns, self.connect)

    def _arrive(self, number: int) -> None:
        network, scheduler = self._network, self._instances.schedulers[number]
        self.home = number
        held, beat = self.worker.held(), self.worker.heartbeat()

        def registered() -> None:
            network.homes[self.name] = number
            scheduler.register_node(self.worker.spec.record())
            if self._tells:
                scheduler.runtime.start(
                    scheduler.node_returned(self.name, held), name=f"{self.name} returned"
                )
            scheduler.from_node(self.name, beat)

        network.carry("node", self.name, network.from_node_ns, registered, self._group)

    def beat(self) -> None:
        """A heartbeat, if it can send one."""
        if not self.worker.dead and not self.worker.hung and self.home is not None:
            self._send_now(self.worker.heartbeat())

    def close(self, *, seen: bool = True) -> None:
        """The socket is gone; `seen`: its instance lives and hears of it."""
        if self.home is None:
            return
        network, home, group = self._network, self.home, self._group
        scheduler = self._instances.schedulers[home]
        self.home = None
        network.hang_up("node", self.name)

        def heard() -> None:
            if network.homes.get(self.name) == home:
                del network.homes[self.name]
            scheduler.runtime.start(
                scheduler.node_disconnected(self.name), name=f"{self.name} gone"
            )

        if seen:
            network.after(network.from_node_ns, heard, group)
        elif network.homes.get(self.name) == home:
            del network.homes[self.name]

    def silent(self, until_ns: int) -> None:
        """It cannot answer until then: an instance that pings hangs up on it after a while."""
        network, kernel = self._network, self._network.kernel
        at_ns = kernel.now + PING_LIMIT_NS
        if not self._pings or until_ns <= at_ns or self.home is None:
            return
        epoch = network.epochs.get(("node", self.name), 0)

        def give_up() -> None:
            if network.epochs.get(("node", self.name), 0) == epoch:
                self.close()
                self.connect_soon(max(0, until_ns - kernel.now) + RECONNECT_NS)

        kernel.call_at(at_ns, give_up, self._group)
