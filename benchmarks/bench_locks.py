"""
The price of one customer of a lock: arithmetic and a light task, against SimPy's own way.

A customer arrives as a task of its own, waits for its turn, holds the lock and leaves; customers
arrive in bursts of ten, so that nine of ten wait. Both sides play the same schedule. Printed is
processor time per customer, as the median over interleaved rounds, and the ratio of the medians,
which must not exceed 0.5. Garbage collection is off, as it is in the workers of a sweep.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Generator

import simpy

from simsched.models.locks import TimedLock
from simsched.models.tasks import Kernel

BURST = 10
HOLD_NS = 700
GAP_NS = 10_000
RATIO_MAX = 0.5


def timed_lock(customers: int) -> int:
    """Serve them with a `TimedLock`; returns when the last one left."""
    kernel = Kernel()
    lock = TimedLock(kernel, "lock")
    last = 0

    async def customer() -> None:
        nonlocal last
        async with lock.customer(HOLD_NS):
            last = kernel.now

    async def main() -> None:
        for _ in range(customers // BURST):
            for _ in range(BURST):
                kernel.start(customer(), "customer")
            await kernel.sleep(GAP_NS)

    kernel.run(main())
    return last


def simpy_resource(customers: int) -> int:
    """Serve them with a process each and a `simpy.Resource`."""
    env = simpy.Environment(0)
    lock = simpy.Resource(env, capacity=1)
    last = 0

    def customer() -> Generator[simpy.Event, None, None]:
        nonlocal last
        with lock.request() as turn:
            yield turn
            yield env.timeout(HOLD_NS)
            last = int(env.now)

    def main() -> Generator[simpy.Event, None, None]:
        for _ in range(customers // BURST):
            for _ in range(BURST):
                env.process(customer())
            yield env.timeout(GAP_NS)

    env.process(main())
    env.run()
    return last


def cost_us(serve: Callable[[int], int], customers: int) -> float:
    """Processor time per customer."""
    gc.collect()
    gc.disable()
    start = time.process_time_ns()
    serve(customers)
    spent_ns = time.process_time_ns() - start
    gc.enable()
    return spent_ns / customers / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    assert timed_lock(1000) == simpy_resource(1000), "both must play the same schedule"
    ours, theirs = [], []
    for _ in range(options.rounds):
        ours.append(cost_us(timed_lock, options.customers))
        theirs.append(cost_us(simpy_resource, options.customers))
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"TimedLock        {statistics.median(ours):6.2f} us a customer")
    print(f"simpy.Resource   {statistics.median(theirs):6.2f} us a customer")
    print(f"ratio            {ratio:6.2f} (at most {RATIO_MAX})")


if __name__ == "__main__":
    main()
