"""The live runtime on a loop whose clock jumps to the next timer when all sleep."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from simsched.live.runtime import LiveRuntime
from simsched.live.sinks import NullSink
from simsched.models.runtime import SimChance

T = TypeVar("T")
SECOND = 1_000_000_000


class _JumpingSelector(selectors.DefaultSelector):
    now_ns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.now_ns += max(1, round(timeout * SECOND))
        return ready


class AutojumpLoop(asyncio.SelectorEventLoop):
    """Time passes only while nothing is ready."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_ns / SECOND


class JumpingRuntime(LiveRuntime):
    """What it starts and what fails ends the run, as in the simulator."""

    def __init__(self, instance_id: str = "live", loop: AutojumpLoop | None = None) -> None:
        self.jumping = loop or AutojumpLoop()
        super().__init__(
            instance_id,
            NullSink(),
            loop=self.jumping,
            clock_ns=lambda: self.jumping.selector.now_ns,
            epoch_ms=0,
        )
        self.on_failure = self._fail
        self._main: asyncio.Task[Any] | None = None
        self._failure: BaseException | None = None

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        async def guarded() -> T:
            self._main = asyncio.current_task()
            try:
                return await main
            except asyncio.CancelledError:
                if self._failure is not None:
                    raise self._failure from None
                raise

        with asyncio.Runner(loop_factory=lambda: self.jumping) as runner:
            return runner.run(guarded())

    def close(self) -> None:
        self.jumping.close()

    def _fail(self, _name: str, error: BaseException) -> None:
        if self._main is not None:
            self._failure = error
            self._main.cancel()


class SeededRuntime(JumpingRuntime):
    """Chance repeats itself, and several instances share one loop."""

    def __init__(self, instance_id: str, loop: AutojumpLoop | None = None) -> None:
        super().__init__(instance_id, loop)
        self.chance = SimChance(1)
