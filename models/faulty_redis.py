"""
A Redis that breaks, and an instance's way to it that gives up waiting.

The server may be slow, not reachable, come back empty, or come back as a replica that lacks the
last writes: it keeps what it has executed and, at a failover, plays that again without the lost
end. A call may be late, or be held up by a partition; its caller waits for `TIMEOUT_NS` and then
knows nothing: the call may have been executed, may be executed later, or never. This file does not
know when anything of this happens: see `simsched.models.faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from heapq import heappush
from typing import Any, Final

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.models.keyspace import LuaKeySpace
from simsched.models.links import LATE_NS
from simsched.models.redis import RedisServer, SimStore
from simsched.models.runtime import EPOCH_MS
from simsched.models.store_history import StoreHistory
from simsched.models.tape import Tape
from simsched.models.tasks import Kernel
from simsched.models.wakes import NORMAL, SUSPEND, Call, Group, SimTask, Wake
from simsched.ports import Reply
from simsched.steps import Step
from simsched.telemetry import Event, Operation
from simsched.units import MS, US

TIMEOUT_NS: Final = 500 * MS
"""How long an instance waits for an answer: the default of `simsched serve`."""

REFUSED_NS: Final = MS
"""How soon a server that is down is known not to answer."""

READS: Final = frozenset(
    (steps.GET_BINDING, steps.OWNER_READ, steps.CAPABILITY_READ, steps.POOL_MEMBERS)
)
"""Steps whose calls change nothing: a failover cannot lose them."""

GIVES_SLOTS: Final = frozenset((steps.CLAIM, steps.RENEW))
"""Steps whose calls may have a slot taken; all others leave the leases or take some away."""

Action = Callable[[int], Reply]


class FaultyRedis(RedisServer):
    """
    The one server; who breaks it sets its attributes.

    `remembers` false: it will never fail over, so that it need not keep what it has executed.
    """

    def __init__(self, kernel: Kernel, keys: LuaKeySpace | None = None) -> None:
        super().__init__(kernel, keys)
        self.down_until_ns = 0
        self.slow_until_ns = 0
        self.slower_ns = 0
        self.clock_us = 0
        self.remembers = True
        self._done: list[tuple[int, Action]] = []
        self.given = 0
        """How often a slot may have been taken."""
        self._free: dict[str, tuple[int, int]] = {}

    @property
    def is_down(self) -> bool:
        """Whether nobody can reach it now."""
        return self.kernel.now < self.down_until_ns

    def call(self, action: Action, server_ns: int, *, writes: bool) -> tuple[Reply, int, int]:
        """Execute one call that has just arrived, as `execute` does, and remember a write."""
        if self.kernel.now < self.slow_until_ns:
            server_ns += self.slower_ns
        if self.clock_us or (writes and self.remembers):
            action = self._noted(action, writes)
        return self.execute(action, server_ns)

    def _noted(self, action: Action, writes: bool) -> Action:
        def noted(now_us: int) -> Reply:
            now_us += self.clock_us
            if writes:
                self._done.append((now_us, action))
            return action(now_us)

        return noted

    @property
    def now_us(self) -> int:
        """What its clock says."""
        return EPOCH_MS * 1_000 + self.kernel.now // US + self.clock_us

    def heed(self, now_ns: Callable[[], int], emit: Callable[[Event], None]) -> None:
        """Tell from now on what the store grants."""
        self.keys = StoreHistory(self.keys, now_ns, emit)  # type: ignore[assignment]

    def leases_of(self, node: str) -> tuple[str, ...]:
        """Which attempts hold a slot of a node now: its leases that live."""
        since = (self.given, self.clock_us)
        if self._free.get(node) == since:
            return ()  # nobody has taken one since there was none
        now_us = self.now_us
        held: Any = self.keys.command(
            now_us, "ZRANGEBYSCORE", f"{{cell}}:leases:{node}", now_us, "+inf"
        )
        if not held:
            self._free[node] = since
            return ()
        return tuple(member.decode() for member in held)

    def owner_of(self, session: str) -> str:
        """Whose it takes a session for; "": nobody's."""
        key = f"{{cell}}:session:owner:{session}"
        found: Any = self.keys.command(self.now_us, "HMGET", key, "expires_us", "owner")
        alive = found[0] is not None and int(found[0]) >= self.now_us
        return found[1].decode() if alive else ""

    def forget(self) -> None:
        """It restarts and has kept nothing."""
        self.given += 1
        self.keys.clear()
        self._done.clear()

    def lose(self, writes: int) -> None:
        """A replica takes over that lacks the last `writes` writes."""
        kept = self._done[: max(0, len(self._done) - writes)]
        self.forget()
        for now_us, action in kept:
            action(now_us)
        self._done = kept


class StoreProbe:
    """
    What the way to the store asks about: is the link sound, and who wants to hear of calls.

    `current` is the step that the instance was last seen in; only a probe that `is_watched` need
    be told more than what begins.
    """

    is_watched = False

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
        "_action", "_back_ns", "_caller", "_limit", "_limit_ns", "_limit_serial", "_server_ns",
        "_step", "_store", "arrives_ns", "end_ns", "error", "reply", "start_ns", "task",
    )  # fmt: skip

    def __init__(
        self,
        store: FaultyStore,
        step: Step,
        action: Action,
        server_ns: int,
        arrives_ns: int,
        back_ns: int,
    ) -> None:
        kernel = store.kernel
        self.group = kernel.root
        self.task: SimTask[Any] | None = kernel.running
        self.arrives_ns = arrives_ns
        self._store = store
        self._step = step
        self._action = action
        self._server_ns = server_ns
        self._back_ns = back_ns
        self.reply: Reply = None
        self.error: StoreUnavailable | None = None
        self.start_ns = self.end_ns = kernel.now

    @property
    def name(self) -> str:
        """For the message about a deadlock."""
        return f"a Redis call, {self._step.name}"

    def set_out(self, limit_ns: int, caller: Group) -> bool:
        """
        Arrive at `arrives_ns` and answer, or give up at `limit_ns`; True if all that is over.

        The limit belongs to the caller and sleeps with it. It stands in the queue only where the
        answer does not come before it; its place among what is due at the same instant is that of
        a limit set now.
        """
        kernel, arrives_ns = self._store.kernel, self.arrives_ns
        self._limit: Call | None = None
        self._limit_ns = limit_ns
        self._limit_serial = kernel.next_serial()
        self._caller = caller
        if arrives_ns < limit_ns and kernel.skip_to(arrives_ns):
            back_ns = self._execute()
            if back_ns < limit_ns and kernel.skip_to(back_ns):
                return True
            self._wait_until(back_ns)
            return False
        kernel.push(self, arrives_ns)
        if arrives_ns >= limit_ns:
            self._set_limit()
        return False

    def _set_limit(self) -> None:
        kernel = self._store.kernel
        self._limit = limit = Call(kernel, self._caller, self._give_up)
        limit.serial = self._limit_serial
        heappush(kernel.queue, (self._limit_ns, NORMAL, limit.serial, limit))

    def withdraw(self, _task: SimTask[Any]) -> None:
        """The caller was cancelled: the call goes on without it."""
        self._leave()

    def _give_up(self) -> None:
        self.error = StoreUnavailable("no answer in time")
        self._go_on(self._store.kernel.now)

    def _leave(self) -> SimTask[Any] | None:
        task, self.task = self.task, None
        if self._limit is not None:
            self._limit.cancel()
        return task

    def _go_on(self, at_ns: int) -> None:
        task = self._leave()
        if task is not None:
            task.arm(at_ns)

    def fire(self) -> None:
        self._wait_until(self._execute())

    def _execute(self) -> int:
        """What the server does with it; when the answer is there."""
        store = self._store
        server = store.server
        if store.kernel.now < server.down_until_ns:
            self.error = StoreUnavailable("connection refused")
            return store.kernel.now + REFUSED_NS
        writes = self._step not in READS
        if self._step in GIVES_SLOTS:
            server.given += 1
        try:
            self.reply, self.start_ns, self.end_ns = server.call(
                self._action, self._server_ns, writes=writes
            )
        finally:
            if store.probe.is_watched:
                store.probe.executed(self._step)
        back_ns, cut_until_ns = self.end_ns + self._back_ns, store.probe.cut_until_ns
        return back_ns if back_ns > cut_until_ns else cut_until_ns

    def _wait_until(self, back_ns: int) -> None:
        if back_ns < self._limit_ns or self.error is not None:
            self._go_on(back_ns)
        elif self.task is not None:
            if self._limit is None:
                self._set_limit()
            self._store.kernel.call_at(back_ns, self._came_back)

    def _came_back(self) -> None:
        """Its caller may have slept past the limit, and not have given up yet."""
        self._go_on(self._store.kernel.now)


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

    async def append(
        self, step: Step, op: Operation, key: str, words: Sequence[bytes], told: Callable[[], None]
    ) -> Reply:
        """Append to a stream; its reader is `told` once it is there, whatever the writer hears."""
        server, readers = self.server, [told]

        def add(now_us: int) -> Reply:
            reply = server.keys.command(now_us, "XADD", key, "MAXLEN", "~", 10_000, "*", *words)
            if readers:  # a replica that takes over does it again, and tells nobody
                readers.pop()()
            return reply

        return await self._call(step, op, 0, 0, add)

    def _call(
        self, step: Step, op: Operation, site: int, n: int, action: Action
    ) -> Coroutine[Any, Any, Reply]:
        return self._round_trip(step, op, site, n, action, self.kernel.now)

    async def _round_trip(
        self, step: Step, op: Operation, site: int, n: int, action: Action, asked: int
    ) -> Reply:
        """One call over a connection of the pool, its wait for one included."""
        if not self._pool.take_free():
            await self._pool.take()
        try:
            call, probe = self._made_call(step, op, site, n, action), self.probe
            if probe.is_watched:
                probe.under_way(step, call.arrives_ns - self.kernel.now)
            if not call.set_out(self.kernel.now + TIMEOUT_NS, self._group):
                self.kernel.current().owner = call
                await SUSPEND
            if self._record is not None:
                now = self.kernel.now
                self._note(step, op, site, n, asked, min(call.start_ns, now), now)
            if probe.is_watched:
                probe.after(step)
            if call.error is not None:
                raise call.error
            return call.reply
        finally:
            self._pool.give()

    def _made_call(self, step: Step, op: Operation, site: int, n: int, action: Action) -> _Call:
        """The call as it sets out: how long its ways are."""
        plan = self._plans[step.index] or self._plan(step)
        probe, now = self.probe, self.kernel.now
        probe.before(step)
        latency_ns, server_ns = plan.draw(op.key, site, n)
        out_ns = (latency_ns - server_ns) // 2
        back_ns = latency_ns - server_ns - out_ns
        if not self.tape.is_idle("redis"):
            late = self.tape.next(f"redis {self.who} {step.name}", 2 * len(LATE_NS) - 1)
            out_ns += LATE_NS[(late + 1) // 2] if late % 2 else 0
            back_ns += 0 if late % 2 else LATE_NS[late // 2]
        if now < probe.slow_until_ns:
            out_ns += probe.slower_ns
            back_ns += probe.slower_ns
        arrives_ns = now + (out_ns if out_ns > US else US)
        if arrives_ns < probe.cut_until_ns:
            arrives_ns = probe.cut_until_ns
        return _Call(self, step, action, server_ns, arrives_ns, back_ns if back_ns > US else US)
