"""
The price of one executed step of the core, against SimPy's floor: a bare timeout.

A step here is `async with runtime.step(...)` as the core writes it: a lock among sixteen tasks
that contend for it, a cost drawn from a keyed lognormal, the record and the digest. The floor is
`yield env.timeout()` in one process. Printed is processor time each, as the median over
interleaved rounds, and the ratio of the medians, which must not exceed 6. Garbage collection is
off, as it is in the workers of a sweep.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Generator

import simpy

from simsched import steps
from simsched.models.charges import Charge, charge_for
from simsched.models.distributions import Lognormal
from simsched.models.record import OperationRecorder, StepRecorder
from simsched.models.runtime import SimRuntime
from simsched.models.tasks import Kernel
from simsched.ports import Runtime
from simsched.telemetry import Event, OpKind

TASKS = 16
STEPS_PER_OPERATION = 25
RATIO_MAX = 6.0


class Mute:
    """A telemetry port that drops everything."""

    def event(self, event: Event) -> None:
        """Drop it."""

    def count(self, name: str, amount: int = 1) -> None:
        """Drop it."""


async def operations(runtime: Runtime, entity: int, count: int) -> None:
    """What the core does: operations of 25 steps, on locks that others want too."""
    for index in range(count):
        op = runtime.begin(OpKind.CREATE_JOB, entity, index)
        for site in range(STEPS_PER_OPERATION // 5):
            async with runtime.step(steps.GET_SESSION, op, site=site):
                pass
            async with runtime.step(steps.JOBS_WRITE, op, site=site):
                pass
            async with runtime.step(steps.ACTIVE_GROUP, op, site=site):
                pass
            async with runtime.step(steps.ADD_CHUNK, op, site=site):
                pass
            async with runtime.step(steps.MANAGEMENT_READ, op, site=site, n=100):
                pass
        runtime.end(op)


def executed_steps(count: int, charge: Charge) -> StepRecorder:
    """Run `count` steps or a few less."""
    kernel = Kernel()
    recorder = OperationRecorder()
    record = StepRecorder(operations=recorder)
    runtime = SimRuntime(
        kernel,
        "s1",
        charges=[charge] * len(steps.CATALOGUE),
        steps=record,
        operations=recorder,
        telemetry=Mute(),
        run_key=7,
    )

    async def main() -> None:
        async with runtime.scope() as scope:
            for entity in range(TASKS):
                body = operations(runtime, entity, count // TASKS // STEPS_PER_OPERATION)
                scope.spawn(body, name=f"task {entity}")

    kernel.run(main())
    record.digest()
    return record


def bare_timeouts(count: int) -> None:
    """The floor."""
    env = simpy.Environment(0)

    def process() -> Generator[simpy.Event, None, None]:
        for _ in range(count):
            yield env.timeout(5)

    env.process(process())
    env.run()


def cost_us(work: Callable[[], object], count: int) -> float:
    """Processor time per piece of work."""
    gc.collect()
    gc.disable()
    start = time.process_time_ns()
    work()
    spent_ns = time.process_time_ns() - start
    gc.enable()
    return spent_ns / count / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80_000)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    charge = charge_for(Lognormal(median_ns=20_000, sigma=0.6))
    record = executed_steps(options.steps, charge)
    contended = sum(total.contended for total in record.totals())
    ours, floor = [], []
    for _ in range(options.rounds):
        ours.append(cost_us(lambda: executed_steps(options.steps, charge), record.recorded))
        floor.append(cost_us(lambda: bare_timeouts(options.steps), options.steps))
    ratio = statistics.median(ours) / statistics.median(floor)
    print(f"executed step    {statistics.median(ours):6.2f} us, {contended / record.recorded:.0%}")
    print(f"bare timeout     {statistics.median(floor):6.2f} us")
    print(f"ratio            {ratio:6.2f} (at most {RATIO_MAX})")


if __name__ == "__main__":
    main()
