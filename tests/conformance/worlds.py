"""The two worlds, behind one door: `world.runtime` and `world.run(main)`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from simsched.models.charges import FixedCharge
from simsched.models.record import OperationRecorder, StepRecorder
from simsched.models.runtime import SimRuntime
from simsched.models.tasks import Cancelled, Kernel, Ties
from simsched.ports import Runtime
from simsched.steps import CATALOGUE
from simsched.telemetry import Event, Operation, OpKind
from tests.conformance.asyncio_runtime import JumpingRuntime

T = TypeVar("T")

CANCELLED = (Cancelled, asyncio.CancelledError)


@dataclass
class Notes:
    """A telemetry port that keeps everything."""

    events: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


class World(Protocol):
    runtime: Runtime

    def run(self, main: Coroutine[Any, Any, T]) -> T: ...
    def close(self) -> None: ...


class SimWorld:
    """One instance without costs: what both worlds promise does not depend on them."""

    def __init__(self, ties: Ties = "fifo") -> None:
        self.kernel = Kernel(ties=ties, seed=1)
        operations = OperationRecorder()
        self.steps = StepRecorder(operations=operations)
        self.runtime: Runtime = SimRuntime(
            self.kernel,
            "s1",
            charges=[FixedCharge(0)] * len(CATALOGUE),
            steps=self.steps,
            operations=operations,
            telemetry=Notes(),
            run_key=1,
        )

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.kernel.run(main)

    def close(self) -> None:
        self.kernel.close()


class AsyncioWorld:
    def __init__(self) -> None:
        self._runtime = JumpingRuntime()
        self.runtime: Runtime = self._runtime

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self._runtime.run(main)

    def close(self) -> None:
        self._runtime.close()


WORLDS: dict[str, Callable[[], World]] = {
    "sim": SimWorld,
    "sim-shuffled": lambda: SimWorld("shuffle"),
    "asyncio": AsyncioWorld,
}


def operation(runtime: Runtime) -> Operation:
    return runtime.begin(OpKind.CONTROL, 1, 1)
