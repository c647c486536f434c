"""
The core's world in modelled time: one instance's handle, `simsched.ports.Runtime` on SimPy.

How a step is executed follows from its kind and from how the instance works:

- `threads` (c cores, locks contend): a LOCK step takes its lock and holds it for its cost, a CPU
  step one of the cores;
- `loop` (one thread): LEAF steps of both kinds follow one another on the single core and never
  take a lock, since nothing can come between them; a SPANNING step takes its lock;
- a WAIT step is only named and recorded; REDIS and NET steps are charged by their ports.

A LEAF step's body runs when its cost has passed; a SPANNING step's when the lock was got and the
cost has passed, and the lock is held until the body ends. Which cost is drawn depends on the
operation, the step and the site alone: see `simsched.chance`.

This file does not know the store, the links, or where charges come from.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from simsched.chance import below, key_of, mix
from simsched.models.cores import Cores, Work
from simsched.models.locks import Customer, TimedLock
from simsched.models.record import (
    RESOURCE_CORE,
    RESOURCE_LOCK,
    RESOURCE_NONE,
    OperationRecorder,
    StepRecorder,
)
from simsched.models.tasks import Kernel
from simsched.models.waits import SimMailbox, SimScope, SimTimer, within
from simsched.models.wakes import DONE, Group, SimTask, Trap
from simsched.ports import Chance, Links, StepGuard, Store, Telemetry
from simsched.steps import CATALOGUE, Kind, Mode, Shape, Step
from simsched.telemetry import Operation
from simsched.units import MASK64, MS

T = TypeVar("T")

Execution = Literal["threads", "loop"]

EPOCH_MS = 1_893_456_000_000
"""2030-01-01 UTC: where simulated Unix time starts, so that stamps have their real size."""

_HEX_DIGITS_PER_DRAW = 16


class Charge(Protocol):
    """What one execution of a step costs."""

    @property
    def fixed_ns(self) -> int | None:
        """The cost, if it is always the same."""
        ...

    @property
    def is_drawn(self) -> bool:
        """False if the cost depends on n alone, so that no draw is needed."""
        ...

    def ns(self, bits: int, n: int) -> int:
        """The cost for 64 random bits and a size `n`, in nanoseconds."""
        ...


class SimChance:
    """Choices left to chance: pure functions of the run's key and the labels."""

    def __init__(self, run_key: int) -> None:
        self._run_key = run_key

    def below(self, bound: int, *labels: str | int) -> int:
        """A whole number in [0, bound); the same labels always get the same one."""
        return below(mix(self._run_key ^ key_of(*labels)), bound)

    def hex_id(self, prefix: str, digits: int, *labels: str | int) -> str:
        """`prefix` and `digits` upper-case hexadecimal digits."""
        key = self._run_key ^ key_of(*labels)
        draws = -(-digits // _HEX_DIGITS_PER_DRAW)
        text = "".join(f"{mix(key, draw):016X}" for draw in range(draws))
        return prefix + text[:digits]


class _Salts(dict[int, int]):
    """What tells the draws of one step apart by site; filled when first asked for, for all."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._key = key_of("step", step.name)

    def __missing__(self, site: int) -> int:
        self[site] = salt = mix(self._key, site)
        return salt


_SALTS: Final = [_Salts(step) for step in CATALOGUE]


class _Plan:
    """
    How one step of the catalogue is executed in one runtime.

    Guards are used again: `idle` holds those that no step is using at the moment.
    """

    __slots__ = (
        "charge", "fixed_ns", "guard", "idle", "is_drawn", "lock", "one_lock_per_key",
        "salts", "step",
    )  # fmt: skip

    def __init__(self, step: Step, charge: Charge) -> None:
        self.step = step
        self.charge = charge.ns
        self.fixed_ns = charge.fixed_ns
        self.is_drawn = charge.is_drawn
        self.salts = _SALTS[step.index]
        self.guard: Callable[[SimRuntime, _Plan], _Guard] = _NamedGuard
        self.idle: list[_Guard] = []
        self.lock: TimedLock | None = None
        self.one_lock_per_key = False


class _Guard(Protocol):
    """The `async with` of one execution; its operation, site and size are set before it."""

    op: Operation
    site: int
    n: int


class _LockGuard(Customer):
    """A step that takes a lock."""

    __slots__ = ("_idle", "_index", "_plan", "_runtime", "n", "op", "site")

    op: Operation
    site: int
    n: int

    def __init__(self, runtime: SimRuntime, plan: _Plan) -> None:
        step = plan.step
        # Where there is one lock for each key, `SimRuntime.step` replaces this one.
        lock = plan.lock if plan.lock is not None else TimedLock(runtime.kernel, step.lock)
        super().__init__(lock, 0, step.mode is Mode.SHARED, step.shape is Shape.SPANNING)
        self._runtime = runtime
        self._plan = plan
        self._index = step.index
        self._idle = plan.idle

    if not TYPE_CHECKING:

        def __aenter__(self) -> Trap:
            plan = self._plan
            hold = plan.fixed_ns
            if hold is None:
                bits = mix(self.op.key ^ plan.salts[self.site]) if plan.is_drawn else 0
                hold = plan.charge(bits, self.n)
            self.hold_ns = hold
            return self.lock.enter(self)

        def __aexit__(self, _type: object, error: object, _traceback: object) -> Trap:
            if self.task is not None:
                self.lock.leave(self)
                self.task = None
            runtime = self._runtime
            record = runtime.record
            if record is not None and (error is None or not runtime.group.abandoned):
                op = self.op
                start = self.start_ns
                record(
                    start, start - self.arrived_ns, self.end_ns - start, op.id, self.n,
                    self._index, runtime.index, self.site, op.kind << 2 | op.phase, RESOURCE_LOCK,
                )  # fmt: skip
            self._idle.append(self)
            return DONE


class _CoreGuard(Work):
    """A step that occupies a core."""

    __slots__ = ("_idle", "_index", "_plan", "_runtime", "n", "op", "site")

    op: Operation
    site: int
    n: int

    def __init__(self, runtime: SimRuntime, plan: _Plan) -> None:
        super().__init__(runtime.cores, 0)
        self._runtime = runtime
        self._plan = plan
        self._index = plan.step.index
        self._idle = plan.idle

    if not TYPE_CHECKING:

        def __aenter__(self) -> Trap:
            plan = self._plan
            hold = plan.fixed_ns
            if hold is None:
                bits = mix(self.op.key ^ plan.salts[self.site]) if plan.is_drawn else 0
                hold = plan.charge(bits, self.n)
            self.hold_ns = hold
            return self.cores.enter(self)

        def __aexit__(self, _type: object, error: object, _traceback: object) -> Trap:
            if self.task is not None:
                self.cores.leave(self)
                self.task = None
            runtime = self._runtime
            record = runtime.record
            if record is not None and (error is None or not runtime.group.abandoned):
                op = self.op
                start = self.start_ns
                record(
                    start, start - self.arrived_ns, self.end_ns - start, op.id, self.n,
                    self._index, runtime.index, self.site, op.kind << 2 | op.phase, RESOURCE_CORE,
                )  # fmt: skip
            self._idle.append(self)
            return DONE


class _NamedGuard:
    """A step whose body waits by itself."""

    __slots__ = ("_plan", "_runtime", "_start_ns", "n", "op", "site")

    op: Operation
    site: int
    n: int

    def __init__(self, runtime: SimRuntime, plan: _Plan) -> None:
        self._runtime = runtime
        self._plan = plan

    def __aenter__(self) -> Trap:
        self._start_ns = self._runtime.now()
        return DONE

    def __aexit__(self, _type: object, error: object, _traceback: object) -> Trap:
        runtime, op, start = self._runtime, self.op, self._start_ns
        record = runtime.record
        if record is not None and (error is None or not runtime.group.abandoned):
            record(
                start, 0, runtime.now() - start, op.id, self.n, self._plan.step.index,
                runtime.index, self.site, op.kind << 2 | op.phase, RESOURCE_NONE,
            )  # fmt: skip
        self._plan.idle.append(self)
        return DONE


def _never(_point: str) -> bool:
    return False


class SimRuntime:
    """
    One instance's handle to the simulated world; `store` and `links` are set by the wiring.

    Args:
        kernel: the clock and the tasks.
        instance_id: the instance's name; `index` is its number in records.
        group: what its tasks belong to; its own if left out.
        execution: `threads` or `loop`, see the module's text.
        cores: how many (`loop` has one, whatever is said here).
        charges: what a step costs, by its index.
        session_scoped: the locks of which there is one for each key.
        steps: takes the steps; None: nobody wants them.
        operations: takes the operations.
        telemetry: takes the events.
        run_key: all draws of the run hang on it.

    """

    store: Store
    links: Links

    def __init__(
        self,
        kernel: Kernel,
        instance_id: str,
        *,
        charges: Sequence[Charge],
        steps: StepRecorder | None,
        operations: OperationRecorder,
        telemetry: Telemetry,
        run_key: int,
        execution: Execution = "threads",
        cores: int = 1,
        session_scoped: frozenset[str] = frozenset(),
        group: Group | None = None,
        index: int = 0,
    ) -> None:
        self.instance_id = instance_id
        self.index = index
        self.telemetry = telemetry
        self.chance: Chance = SimChance(run_key)
        self.kernel = kernel
        self.epoch_ms = EPOCH_MS
        self.point: Callable[[str], bool] = _never
        self.group = group or Group(kernel, instance_id)
        self.cores = Cores(kernel, cores if execution == "threads" else 1)
        self.record = None if steps is None else steps.add
        self._operations = operations
        self._run_key = run_key
        self._session_scoped = session_scoped
        self._locks: dict[str, TimedLock] = {}
        self._session_locks: dict[str, dict[str, TimedLock]] = {}
        self._charges = charges
        self._execution = execution
        self._plans: list[_Plan | None] = [None] * len(CATALOGUE)

    def _plan(self, step: Step) -> _Plan:
        """How a step is executed, made when it is executed first."""
        self._plans[step.index] = plan = _Plan(step, self._charges[step.index])
        on_loop = self._execution == "loop" and step.shape is Shape.LEAF
        if step.kind is Kind.CPU or (step.kind is Kind.LOCK and on_loop):
            plan.guard = _CoreGuard
        elif step.kind is Kind.LOCK:
            plan.guard = _LockGuard
            plan.one_lock_per_key = step.lock in self._session_scoped
            if not plan.one_lock_per_key:
                plan.lock = self._locks.setdefault(step.lock, TimedLock(self.kernel, step.lock))
        return plan

    def now(self) -> int:
        """Nanoseconds since the start of the run."""
        return self.kernel.now

    def now_ms(self) -> int:
        """Simulated Unix milliseconds."""
        return self.epoch_ms + self.kernel.now // MS

    def sleep(self, delay_ns: int) -> Coroutine[Any, Any, None]:
        """Wait; a delay of 0 or less lets others go first."""
        return self.kernel.sleep(delay_ns)

    def begin(self, kind: int, entity: int, index: int, session_id: str = "") -> Operation:
        """Open an operation; its draws hang on the run, its kind, `entity` and `index`."""
        kind = int(kind)  # an IntEnum is slow to shift, and every step does
        key = mix(self._run_key ^ mix(entity & MASK64, index), kind)
        return Operation(kind, key, self._operations.begin(), session_id, self.kernel.now)

    def end(self, op: Operation, outcome: int = 0) -> None:
        """Close an operation."""
        self._operations.end(op, self.kernel.now, outcome)

    def step(
        self, step: Step, op: Operation, *, site: int = 0, n: int = 0, key: str = ""
    ) -> StepGuard:
        """Execute one step of kind `lock`, `cpu` or `wait`, see the module's text."""
        plan = self._plans[step.index] or self._plan(step)
        idle = plan.idle
        guard: Any = idle.pop() if idle else plan.guard(self, plan)
        guard.op = op
        guard.site = site
        guard.n = n
        if plan.one_lock_per_key:
            guard.lock = self._session_lock(step.lock, key)
        return guard  # type: ignore[no-any-return]

    def _session_lock(self, name: str, key: str) -> TimedLock:
        locks = self._session_locks.get(key)
        if locks is None:
            self._session_locks[key] = locks = {}
        lock = locks.get(name)
        if lock is None:
            locks[name] = lock = TimedLock(self.kernel, f"{name} of {key}")
        return lock

    def forget(self, key: str) -> None:
        """Drop the locks of `key`."""
        self._session_locks.pop(key, None)

    def scope(self) -> SimScope:
        """A scope for tasks of this instance."""
        return SimScope(self.kernel, self.group)

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> SimTask[T]:
        """Start a task of the instance; if it fails and nobody joins it, the run fails."""
        return self.kernel.start(coro, name, self.group)

    async def within(self, limit_ns: int, coro: Coroutine[Any, Any, T]) -> T:
        """Run `coro` for at most `limit_ns`, else cancel it and raise TimeoutError."""
        return await within(self.kernel, limit_ns, coro)

    def timer(self, callback: Callable[[], None]) -> SimTimer:
        """A movable deadline, not set yet."""
        return SimTimer(self.kernel, callback, self.group)

    def mailbox(self) -> SimMailbox[Any]:
        """An empty queue."""
        return SimMailbox(self.kernel)
