"""
How many schedules a second the hunt plays, and how much simulated time.

    ./dev python -m benchmarks.hunt [--policy safe] [--schedules 400] [--rounds 3]

Small and large schedules, on one process and on two, searched as `simsched hunt` does; the time
until the first block is done (starting processes, reading cost models) is told apart. In turns with
it, in the same process, the floor: bare SimPy timeouts. The ratio is processor time, of one small
schedule on one process to one timeout, and is limited; schedules a second depend on who else is
using the machine, and are an aim.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Generator
from dataclasses import dataclass

import simpy

from simsched.experiments.hunting.draw import hunted_policy
from simsched.experiments.hunting.search import BLOCK, Hunt, Tally, play_block, search

TIMEOUTS = 200_000
LARGE_SHARE = 2
"""Large schedules cost several times as much: so many times fewer are played."""

RATIO_MAX = 40_000
AIM_PER_S = 100


@dataclass(frozen=True)
class Rate:
    """One measurement: by the wall clock, from the end of the first block on."""

    start_s: float
    per_s: float
    simulated_per_s: float


def floor_us() -> float:
    """Processor time of one bare timeout."""
    env = simpy.Environment(0)

    def process() -> Generator[simpy.Event, None, None]:
        for _ in range(TIMEOUTS):
            yield env.timeout(5)

    env.process(process())
    began_ns = time.process_time_ns()
    env.run()
    return (time.process_time_ns() - began_ns) / TIMEOUTS / 1_000


def schedule_us(hunt: Hunt) -> float:
    """Processor time of one schedule on one process that has already played some."""
    play_block(hunt, range(BLOCK))
    began_ns = time.process_time_ns()
    play_block(hunt, range(hunt.schedules))
    return (time.process_time_ns() - began_ns) / hunt.schedules / 1_000


def rate(hunt: Hunt, jobs: int) -> Rate:
    """Search the schedules and look at the clock after every block."""
    seen: list[tuple[float, int, int]] = []

    def tell(tally: Tally, seconds: float) -> None:
        seen.append((seconds, tally.schedules, tally.simulated_ns))

    search(hunt, jobs=jobs, limit_s=0, first=False, tell=tell)
    start_s, schedules, simulated_ns = seen[0]
    seconds = seen[-1][0] - start_s
    return Rate(
        start_s,
        (seen[-1][1] - schedules) / seconds,
        (seen[-1][2] - simulated_ns) / 1e9 / seconds,
    )


def main() -> int:
    """Measure and print; 1 if a schedule costs too much."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--policy", default="safe")
    parser.add_argument("--schedules", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    policy = hunted_policy(asked.policy)
    sizes = {
        "small": Hunt(policy=policy, schedules=max(asked.schedules, 4 * BLOCK), size="small"),
        "large": Hunt(
            policy=policy, schedules=max(asked.schedules // LARGE_SHARE, 4 * BLOCK), size="large"
        ),
    }
    cost, floor = [], []
    for _ in range(asked.rounds):
        floor.append(floor_us())
        cost.append(schedule_us(sizes["small"]))
        floor.append(floor_us())
    print(f"{'size':6} {'processes':>9} {'schedules/s':>12} {'simulated s/s':>14} {'start s':>8}")
    for name, hunt in sizes.items():
        for jobs in (1, 2):
            rates = [rate(hunt, jobs) for _ in range(asked.rounds)]
            middle = statistics.median_low(one.per_s for one in rates)
            shown = next(one for one in rates if one.per_s == middle)
            aim = f"  (aim {AIM_PER_S})" if (name, jobs) == ("small", 2) else ""
            print(
                f"{name:6} {jobs:9d} {shown.per_s:12.1f} {shown.simulated_per_s:14.0f} "
                f"{shown.start_s:8.1f}{aim}"
            )
    ratio = statistics.median(cost) / statistics.median(floor)
    print(
        f"a small schedule costs {statistics.median(cost) / 1_000:.1f} ms, a bare timeout "
        f"{statistics.median(floor):.2f} us: ratio {ratio:,.0f} (at most {RATIO_MAX:,})"
    )
    return int(ratio > RATIO_MAX)


if __name__ == "__main__":
    raise SystemExit(main())
