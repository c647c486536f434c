"""
Redis in modelled time: one single-threaded server, and each instance's way to it.

State is real: commands and scripts run in a `LuaKeySpace`. Time is modelled: a call travels half
of its network time, waits until the server is free, keeps it busy for the server's share, and
travels back. A call takes effect when it reaches the server, whatever becomes of its caller: one
that was cancelled or whose instance died has still been executed.

How calls share connections is the policy's: a pool of them, or (the reference, B1) one, which the
inbox worker's blocking read holds for up to a second whenever it gets it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from simsched.chance import key_of, mix
from simsched.models.keyspace import LuaKeySpace
from simsched.models.locks import TimedLock
from simsched.models.prices import CostModel
from simsched.models.record import RESOURCE_REDIS, StepRecorder
from simsched.models.runtime import EPOCH_MS
from simsched.models.tasks import Kernel
from simsched.models.waits import SimMailbox, within
from simsched.models.wakes import SUSPEND, Group, SimTask, Wake
from simsched.ports import Reply
from simsched.steps import CATALOGUE, Kind, Step
from simsched.telemetry import Operation
from simsched.units import SECOND, US

BLOCK_NS: Final = SECOND
"""XREADGROUP BLOCK of the reference's inbox worker (domain 5.4)."""

SWEEP_EVERY: Final = 256
"""Calls between two sweeps of lapsed keys, so that memory stays flat."""


class RedisServer:
    """The one thread that executes everybody's commands, in the order of their arrival."""

    def __init__(self, kernel: Kernel, keys: LuaKeySpace | None = None) -> None:
        self.kernel = kernel
        self.keys = keys if keys is not None else LuaKeySpace()
        self._free_ns = 0
        self._calls = 0
        self.busy_ns = 0

    @property
    def behind_ns(self) -> int:
        """How long a call that arrives now waits for those before it."""
        return max(0, self._free_ns - self.kernel.now)

    def execute(self, action: Callable[[int], Reply], server_ns: int) -> tuple[Reply, int, int]:
        """Run one call that has just arrived; returns reply, start and end of its service."""
        now = self.kernel.now
        start = self._free_ns if self._free_ns > now else now
        self._free_ns = end = start + server_ns
        self.busy_ns += server_ns
        now_us = EPOCH_MS * 1_000 + start // US
        reply = action(now_us)
        self._calls += 1
        if self._calls % SWEEP_EVERY == 0:
            self.keys.sweep(now_us)
        return reply, start, end


class _Request(Wake):
    """A call under way to the server."""

    __slots__ = (
        "_action", "_back_ns", "_server", "_server_ns", "end_ns", "error", "reply", "start_ns",
        "task",
    )  # fmt: skip

    def __init__(
        self,
        server: RedisServer,
        group: Group,
        task: SimTask[Any],
        action: Callable[[int], Reply],
        server_ns: int,
        back_ns: int,
    ) -> None:
        self.group = group
        self.task: SimTask[Any] | None = task
        self._server = server
        self._action = action
        self._server_ns = server_ns
        self._back_ns = back_ns
        self.reply: Reply = None
        self.error: Exception | None = None
        self.start_ns = self.end_ns = 0

    @property
    def name(self) -> str:
        """For the message about a deadlock."""
        return "a Redis call"

    def withdraw(self, _task: SimTask[Any]) -> None:
        """The caller was cancelled: the call goes on without it."""
        self.task = None

    def fire(self) -> None:
        self.reply, self.start_ns, self.end_ns = self._server.execute(self._action, self._server_ns)
        if self.task is not None:
            self.task.arm(self.end_ns + self._back_ns)


class Connections:
    """At most `limit` calls of one instance under way; the others wait in line."""

    def __init__(self, kernel: Kernel, limit: int) -> None:
        self._kernel = kernel
        self._free = limit
        self._line: deque[SimTask[Any]] = deque()
        self.name = "a Redis connection"

    def take_free(self) -> bool:
        """Take a connection, if one is free and nobody waits for it."""
        if self._free and not self._line:
            self._free -= 1
            return True
        return False

    async def take(self) -> None:
        """Wait for a connection."""
        task = self._kernel.current()
        self._line.append(task)
        task.owner = self
        await SUSPEND

    def give(self) -> None:
        """Hand the connection to the first in line."""
        if self._line:
            self._line.popleft().arm(self._kernel.now)
        else:
            self._free += 1

    def withdraw(self, task: SimTask[Any]) -> None:
        """A cancelled caller leaves the line."""
        self._line.remove(task)


class SimStore:
    """One instance's `Store`: the modelled server behind modelled connections."""

    def __init__(
        self,
        server: RedisServer,
        costs: CostModel,
        recorder: StepRecorder | None,
        *,
        instance: int,
        group: Group,
        connections: int,
        shared_with_reader: bool,
    ) -> None:
        self._server = server
        self._kernel = server.kernel
        self._record = None if recorder is None else recorder.add
        self._instance = instance
        self._group = group
        self._pool = Connections(server.kernel, max(1, connections))
        self._shared = (
            TimedLock(server.kernel, "shared Redis connection") if shared_with_reader else None
        )
        self._costs = costs
        self._plans: list[_Plan | None] = [None] * len(CATALOGUE)
        self.arrivals: SimMailbox[Callable[[], None]] = SimMailbox(server.kernel)

    def command(
        self, step: Step, op: Operation, *words: str | int | bytes, site: int = 0
    ) -> Coroutine[Any, Any, Reply]:
        """One plain command."""
        server = self._server
        return self._call(step, op, site, 0, lambda now_us: server.keys.command(now_us, *words))

    def script(
        self,
        step: Step,
        op: Operation,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | int],
        *,
        site: int = 0,
    ) -> Coroutine[Any, Any, Reply]:
        """One script, atomically."""
        server = self._server
        return self._call(
            step, op, site, 0, lambda now_us: server.keys.script(now_us, name, keys, args)
        )

    async def pipeline(
        self, step: Step, op: Operation, commands: Sequence[Sequence[str | int]]
    ) -> list[Reply]:
        """Several commands in one round trip."""
        server = self._server
        replies: list[Reply] = []

        def run_all(now_us: int) -> Reply:
            replies[:] = [server.keys.command(now_us, *command) for command in commands]
            return None

        await self._call(step, op, 0, len(commands) - 1, run_all)
        return replies

    async def _call(
        self, step: Step, op: Operation, site: int, n: int, action: Callable[[int], Reply]
    ) -> Reply:
        asked = self._kernel.now
        if self._shared is not None:
            async with self._shared.customer(0, spanning=True):
                return await self._round_trip(step, op, site, n, action, asked)
        pool = self._pool
        if not pool.take_free():
            await pool.take()
        try:
            return await self._round_trip(step, op, site, n, action, asked)
        finally:
            pool.give()

    async def _round_trip(
        self,
        step: Step,
        op: Operation,
        site: int,
        n: int,
        action: Callable[[int], Reply],
        asked: int,
    ) -> Reply:
        plan = self._plans[step.index] or self._plan(step)
        latency_ns, server_ns = plan.draw(op.key, site, n)
        kernel = self._kernel
        now = kernel.now
        if not latency_ns:
            reply, start, _ = self._server.execute(action, 0)
            self._note(step, op, site, n, asked, start, now)
            return reply
        out_ns = (latency_ns - server_ns) // 2
        task = kernel.current()
        request = _Request(
            self._server, kernel.root, task, action, server_ns, latency_ns - server_ns - out_ns
        )
        kernel.push(request, now + out_ns)
        task.owner = request
        await SUSPEND
        if request.error is not None:
            raise request.error
        self._note(step, op, site, n, asked, request.start_ns - out_ns, kernel.now)
        return request.reply

    def _plan(self, step: Step) -> _Plan:
        assert step.kind is Kind.REDIS, f"{step.name} is no Redis step"
        self._plans[step.index] = plan = _Plan(self._costs, step)
        return plan

    def _note(
        self, step: Step, op: Operation, site: int, n: int, asked: int, begun: int, ended: int
    ) -> None:
        """Waiting (for a connection, for the server) apart from the call's own time."""
        if self._record is None:
            return
        wait = begun - asked
        self._record(
            begun, wait, ended - begun, op.id, n, step.index, self._instance, site,
            op.kind << 2 | op.phase, RESOURCE_REDIS,
        )  # fmt: skip

    # The inbox

    def deliver(self, event: Callable[[], None], after_ns: int) -> None:
        """An inbox entry becomes readable after `after_ns`; who reads it runs `event`."""
        if self._shared is None:
            self._kernel.call_at(self._kernel.now + after_ns, event, self._group)
        else:
            self._kernel.call_at(
                self._kernel.now + after_ns, lambda: self.arrivals.put(event), self._group
            )

    async def read_blocking(self) -> None:
        """The reference's inbox worker on the shared connection: B1, the dominating latency."""
        assert self._shared is not None
        while True:
            async with self._shared.customer(0, spanning=True):
                try:
                    event = await within(self._kernel, BLOCK_NS, self.arrivals.get())
                except TimeoutError:
                    continue
            event()


class _Plan:
    """What a Redis step costs, both sides."""

    __slots__ = ("_draw", "_fixed", "_salt", "_salts", "_server", "_server_ns")

    def __init__(self, costs: CostModel, step: Step) -> None:
        price = costs.redis(step)
        self._draw = price.latency.ns
        self._server = price.server
        self._salt = key_of("redis", step.name)
        self._salts: dict[int, int] = {}
        latency, server = price.latency.fixed_ns, price.server.fixed_ns
        self._server_ns = server
        self._fixed: tuple[int, int] | None = None
        if latency is not None and server is not None:
            self._fixed = (latency, min(latency, server))

    def draw(self, op_key: int, site: int, n: int) -> tuple[int, int]:
        """Client-seen latency and the server's part of it; by operation, step and site alone."""
        if self._fixed is not None:
            return self._fixed
        salt = self._salts.get(site)
        if salt is None:
            self._salts[site] = salt = mix(self._salt, site)
        key = op_key ^ salt
        latency = self._draw(mix(key), n)
        server = self._server_ns
        if server is None:
            server = self._server.ns(mix(key, 1), n)
        return latency, server if server < latency else latency
