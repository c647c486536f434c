"""
What the core asks of its world: a handful of small protocols.

Two worlds implement them: `simsched.models` on SimPy and `simsched.live` on asyncio. The core is
plain `async def` code over these and imports neither simulator, event loop, Redis nor sockets.

Rules that both worlds keep (stated and checked once, in `tests/conformance/`):

- time is a whole number of nanoseconds and never goes back;
- locks, mailboxes and simultaneous timers are first come, first served;
- cancelling a waiter withdraws it; a broad `except Exception` cannot swallow a cancellation;
- a scope leaves only when all its tasks have ended, and one failure cancels the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from simsched.steps import Step
    from simsched.telemetry import Event, Operation

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Reply = int | bytes | None | list["Reply"]
"""What a store command or script answers: Redis' own reply types."""

StepGuard = AbstractAsyncContextManager[object, None]
"""The `async with` of one named piece of work."""


class Task(Protocol[T_co]):
    """A running coroutine."""

    def cancel(self) -> None:
        """Ask it to stop at its next wait; cleanup (`finally`) still runs and may wait."""

    async def join(self) -> T_co:
        """Wait for its end, then return or raise its outcome; cancelling the waiter leaves it."""
        ...


class Scope(Protocol):
    """Owns the tasks spawned in it, as `asyncio.TaskGroup` does."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, error_type: Any, error: Any, traceback: Any, /) -> bool | None: ...
    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> Task[T]: ...


class Timer(Protocol):
    """One movable deadline. Setting it again replaces the old deadline; a passed one fires once."""

    def set(self, at_ns: int) -> None: ...
    def cancel(self) -> None: ...


class Mailbox(Protocol[T]):
    """An unbounded first-in first-out queue with one consumer; who fills it keeps its bound."""

    def put(self, item: T) -> None: ...
    async def get(self) -> T: ...
    def __len__(self) -> int: ...


class Store(Protocol):
    """
    The shared state of all instances: Redis, or a model of it.

    `op` and `step` name the call in telemetry; `site` tells the calls of one operation apart.

    Raises:
        StoreUnavailable: no answer within the limit; the outcome is unknown.

    """

    async def command(
        self, step: Step, op: Operation, *words: str | int | bytes, site: int = 0
    ) -> Reply:
        """One plain Redis command, e.g. `command(steps.GET_BINDING, op, "GET", key)`."""
        ...

    async def script(
        self,
        step: Step,
        op: Operation,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | int],
        *,
        site: int = 0,
    ) -> Reply:
        """Run `lua/<name>.lua` atomically."""
        ...

    async def pipeline(
        self, step: Step, op: Operation, commands: Sequence[Sequence[str | int]]
    ) -> list[Reply]:
        """Several plain commands in one round trip; not atomic."""
        ...


class Links(Protocol):
    """Messages out of this instance. Sending never waits for the other side to act."""

    def to_client(self, session_id: str, message: object) -> bool:
        """Queue a message towards a client connected here; False if it is not connected here."""
        ...

    def has_client(self, session_id: str) -> bool:
        """Whether the client of a session is connected here at this moment."""
        ...

    def to_node(self, node_id: str, message: object) -> bool:
        """Queue a message towards a node connected here; False if it is not connected here."""
        ...

    def broadcast(self, event: object) -> None:
        """Tell every other instance something that may get lost without harm."""

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        """Append an event to another instance's inbox; False if there is no such instance."""
        ...

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[Any]:
        """Take what is for these sessions out of the inbox of an instance that is gone."""
        ...


class Chance(Protocol):
    """Every choice that is left to chance, keyed by what it is for."""

    def below(self, bound: int, *labels: str | int) -> int:
        """A whole number in [0, bound)."""
        ...

    def hex_id(self, prefix: str, digits: int, *labels: str | int) -> str:
        """`prefix` and then `digits` upper-case hexadecimal digits."""
        ...


class Telemetry(Protocol):
    """What is recorded. Synchronous, typed, never raises, never decides."""

    def event(self, event: Event) -> None:
        """One fact of the domain: feeds invariants, digest and tables."""

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a named counter."""


class Runtime(Protocol):
    """
    The handle of one scheduler instance to its world: everything it starts is made through it.

    So a world can pause, resume or abandon a whole instance between any two of its steps.
    """

    instance_id: str
    store: Store
    links: Links
    chance: Chance
    telemetry: Telemetry

    def now(self) -> int:
        """Nanoseconds since the world's epoch."""
        ...

    def now_ms(self) -> int:
        """Unix milliseconds, for stamps on the wire."""
        ...

    async def sleep(self, delay_ns: int) -> None: ...

    def begin(self, kind: int, entity: int, index: int, session_id: str = "") -> Operation:
        """Open an operation (see `telemetry.Operation`); `entity` and `index` key its draws."""
        ...

    def end(self, op: Operation, outcome: int = 0) -> None:
        """Close it: its latency is now minus its start."""

    def step(
        self, step: Step, op: Operation, *, site: int = 0, n: int = 0, key: str = ""
    ) -> StepGuard:
        """
        Do one named piece of work of kind `lock`, `cpu` or `wait`.

        Args:
            step: the entry of the catalogue.
            op: the operation that it is part of.
            site: tells several calls of one step in one operation apart, so that dropping one
                call does not change what the others cost.
            n: what its cost grows with (nodes, keys, bytes), known on entry.
            key: which of the locks, where the world keeps one per session.

        """
        ...

    def point(self, name: str) -> bool:
        """
        Whether to take a rare path here that is always allowed: a cooperative fault point.

        False wherever nobody looks for faults, so always when live.
        """
        ...

    def forget(self, key: str) -> None:
        """The locks of `key` will not be used again."""

    def scope(self) -> Scope: ...
    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> Task[T]:
        """Start a task that the instance itself owns; its failure is a failure of the instance."""
        ...

    async def within(self, limit_ns: int, coro: Coroutine[Any, Any, T]) -> T:
        """Run `coro` for at most `limit_ns`, else cancel it and raise TimeoutError."""
        ...

    def timer(self, callback: Callable[[], None]) -> Timer: ...
    def mailbox(self) -> Mailbox[Any]: ...
