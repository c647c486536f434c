"""
A Redis that breaks, and an instance's way to it that gives up waiting.

The server may be slow, not reachable, come back empty, or come back as a replica that lacks the
last writes: it keeps what it has executed and, at a failover, plays that again without the lost
end. A call may be late, or be held up by a partition; its caller waits for `TIMEOUT_NS` and then
knows nothing: the call may have been executed, may be executed later, or never. This file does not
know when anything of this happens: see `simsched.models.faults`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.models.keyspace import LuaKeySpace
from simsched.models.links import LATE_NS
from simsched.models.redis import RedisServer, SimStore
from simsched.models.runtime import EPOCH_MS
from simsched.models.tape import Tape
from simsched.models.tasks import Kernel
from simsched.models.wakes import SUSPEND, Call, Group, SimTask, Wake
from simsched.ports import Reply
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import MS, US

TIMEOUT_NS: Final = 500 * MS
"""How long an instance waits for an answer: the default of `simsched serve`."""

REFUSED_NS: Final = MS
"""How soon a server that is down is known not to answer."""

READS: Final = frozenset(
    (steps.GET_BINDING, steps.OWNER_READ, steps.CAPABILITY_READ, steps.POOL_MEMBERS)
)
"""Steps whose calls change nothing: a failover cannot lose them."""

Action = Callable[[int], Reply]


class FaultyRedis(RedisServer):
    """The one server; who breaks it sets its attributes."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.down_until_ns = 0
        self.slow_until_ns = 0
        self.slower_ns = 0
        self.clock_us = 0
        self._done: list[tuple[int, Action, bool]] = []

    @property
    def is_down(self) -> bool:
        """Whether nobody can reach it now."""
        return self.kernel.now < self.down_until_ns

    def call(self, action: Action, server_ns: int, *, writes: bool) -> tuple[Reply, int, int]:
        """Execute one call that has just arrived, as `execute` does, and remember it."""

        def noted(now_us: int) -> Reply:
            now_us += self.clock_us
            self._done.append((now_us, action, writes))
            return action(now_us)

        if self.kernel.now < self.slow_until_ns:
            server_ns += self.slower_ns
        return self.execute(noted, server_ns)

    @property
    def _now_us(self) -> int:
        return EPOCH_MS * 1_000 + self.kernel.now // US + self.clock_us

    def try_slots(self, node: str, most: int) -> tuple[int, str]:
        """Claim a node's slots, at most so many: how many there were, and the last refusal."""
        for given in range(most):
            keys = [f"{{cell}}:bind:try-{node}-{given}", f"{{cell}}:leases:{node}",
                    f"{{cell}}:node:{node}"]  # fmt: skip
            args: list[str | int] = [f"try-{node}-{given}", 0, "world", "world:1", 1_000, 1_000]
            reply: Any = self.keys.script(self._now_us, "claim", keys, [*args, node])
            if reply[0] != b"CLAIMED":
                return given, reply[1].decode()
        return most, ""

    def leases_of(self, node: str) -> tuple[str, ...]:
        """Which attempts hold a slot of a node now: its leases that live."""
        now_us = self._now_us
        held: Any = self.keys.command(
            now_us, "ZRANGEBYSCORE", f"{{cell}}:leases:{node}", now_us, "+inf"
        )
        return tuple(member.decode() for member in held or ())

    def forget(self) -> None:
        """It restarts and has kept nothing."""
        self.keys = LuaKeySpace()
        self._done.clear()

    def lose(self, writes: int) -> None:
        """A replica takes over that lacks the last `writes` writes."""
        kept = list(self._done)
        while writes and kept:
            writes -= kept.pop()[2]
        self.forget()
        for now_us, action, is_write in kept:
            if is_write:
                action(now_us)
        self._done = kept


class StoreProbe:
    """
    What the way to the store asks about: is the link sound, and who wants to hear of calls.

    `current` is the step that the instance was last seen in.
    """

    def __init__(self) -> None:
        self.current = "idle"
        self.cut_until_ns = 0
        self.slower_ns = 0
        self.slow_until_ns = 0

    def before(self, step: Step) -> None:
        """A call sets out."""

    def under_way(self, step: Step, delay_ns: int) -> None:
        """It will arrive at the server after `delay_ns`."""

    def executed(self, step: Step) -> None:
        """The server has executed it; the reply is under way."""

    def after(self, step: Step) -> None:
        """The caller has its answer."""


class _Call(Wake):
    """A call under way; its caller may have given it up."""

    __slots__ = (
        "_action", "_back_ns", "_limit", "_server_ns", "_step", "_store", "end_ns", "error",
        "reply", "start_ns", "task",
    )  # fmt: skip

    def __init__(
        self,
        store: FaultyStore,
        step: Step,
        task: SimTask[Any],
        action: Action,
        server_ns: int,
        back_ns: int,
    ) -> None:
        self.group = store.kernel.root
        self.task: SimTask[Any] | None = task
        self._store = store
        self._step = step
        self._action = action
        self._server_ns = server_ns
        self._back_ns = back_ns
        self._limit: Call | None = None
        self.reply: Reply = None
        self.error: StoreUnavailable | None = None
        self.start_ns = self.end_ns = store.kernel.now

    @property
    def name(self) -> str:
        """For the message about a deadlock."""
        return f"a Redis call, {self._step.name}"

    def limit(self, at_ns: int, group: Group) -> None:
        """Give up at `at_ns`; the limit belongs to the caller and sleeps with it."""
        self._limit = self._store.kernel.call_at(at_ns, self._give_up, group)

    def withdraw(self, _task: SimTask[Any]) -> None:
        """The caller was cancelled: the call goes on without it."""
        self._leave()

    def _give_up(self) -> None:
        self._answer(StoreUnavailable("no answer in time"), self._store.kernel.now)

    def _leave(self) -> SimTask[Any] | None:
        task, self.task = self.task, None
        if self._limit is not None:
            self._limit.cancel()
        return task

    def _answer(self, error: StoreUnavailable | None, at_ns: int) -> None:
        self.error = error
        task = self._leave()
        if task is not None:
            task.arm(at_ns)

    def fire(self) -> None:
        server, now = self._store.server, self._store.kernel.now
        if server.is_down:
            self._answer(StoreUnavailable("connection refused"), now + REFUSED_NS)
            return
        writes = self._step not in READS
        try:
            self.reply, self.start_ns, self.end_ns = server.call(
                self._action, self._server_ns, writes=writes
            )
        finally:
            self._store.probe.executed(self._step)
        back_ns = max(self.end_ns + self._back_ns, self._store.probe.cut_until_ns)
        self._store.kernel.call_at(back_ns, self._came_back)

    def _came_back(self) -> None:
        self._answer(None, self._store.kernel.now)


class FaultyStore(SimStore):
    """One instance's `Store` whose calls may be late, lost or without an answer."""

    server: FaultyRedis
    kernel: Kernel
    probe: StoreProbe
    tape: Tape
    who: str

    def equip(self, server: FaultyRedis, probe: StoreProbe, tape: Tape, who: str) -> None:
        """Say what breaks it, and under which name its calls stand on the tape."""
        self.server, self.kernel = server, server.kernel
        self.probe, self.tape, self.who = probe, tape, who

    async def _round_trip(
        self, step: Step, op: Operation, site: int, n: int, action: Action, asked: int
    ) -> Reply:
        plan = self._plans[step.index]
        assert plan is not None, f"{step.name} is no Redis step"
        probe, kernel, now = self.probe, self.kernel, self.kernel.now
        probe.before(step)
        latency_ns, server_ns = plan.draw(op.key, site, n)
        out_ns = (latency_ns - server_ns) // 2
        back_ns = latency_ns - server_ns - out_ns
        late = self.tape.next(f"redis {self.who} {step.name}", 2 * len(LATE_NS) - 1)
        extra_ns = probe.slower_ns if now < probe.slow_until_ns else 0
        out_ns += extra_ns + (LATE_NS[(late + 1) // 2] if late % 2 else 0)
        back_ns += extra_ns + (0 if late % 2 else LATE_NS[late // 2])
        task = kernel.current()
        call = _Call(self, step, task, action, server_ns, max(back_ns, US))
        arrives_ns = max(now + max(out_ns, US), probe.cut_until_ns)
        kernel.push(call, arrives_ns)
        probe.under_way(step, arrives_ns - now)
        task.owner = call
        call.limit(now + TIMEOUT_NS, self._group)
        await SUSPEND
        self._note(step, op, site, n, asked, min(call.start_ns, kernel.now), kernel.now)
        probe.after(step)
        if call.error is not None:
            raise call.error
        return call.reply
