"""
Speed of the whole simulation: many sessions streaming 100 ms chunks, every chunk simulated.

Prints how many times faster than real time one core plays it (promise: 10, aim: 20), beside one
bare `yield env.timeout()` of SimPy measured in the same run, so that machines can be compared.

    python benchmarks/bench_streaming.py --sessions 200 --seconds 60 --policy published
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Generator
from typing import Any

import simpy

from simsched.models.prices import CostModel
from simsched.models.service import ServiceModel
from simsched.models.workload import Workload
from simsched.models.world import Scenario, World
from simsched.presets import parse_policy
from simsched.units import SECOND

TIMEOUTS = 200_000


def bare_timeout_us() -> float:
    """Microseconds of processor time of one timeout in one SimPy process."""
    env = simpy.Environment()

    def process() -> Generator[simpy.Event, Any, None]:
        for _ in range(TIMEOUTS):
            yield env.timeout(1)

    env.process(process())
    begin = time.process_time()
    env.run()
    return (time.process_time() - begin) / TIMEOUTS * 1e6


def scenario(sessions: int, policy: str, costs: str, seconds: int) -> Scenario:
    """Sessions that all talk nearly all the time: 9 s of speech, half a second of pause."""
    return Scenario(
        policy=parse_policy(policy),
        costs=CostModel.load(costs),
        workload=Workload.parse(
            {
                "arrivals": {"kind": "constant", "gap": "5 ms"},
                "utterances": 1000,
                "speech": "9 s",
                "pause": "0.5 s",
                "manual_cut_share": 1.0,
            }
        ),
        service=ServiceModel.parse({}),
        sessions=sessions,
        horizon_ns=seconds * SECOND,
        drain_ns=0,
    )


def streaming(sessions: int, policy: str, costs: str, seconds: int) -> tuple[float, int, int]:
    """Processor seconds, chunks and steps of one play."""
    world = World(scenario(sessions, policy, costs, seconds), seed=1, replication=0)
    begin = time.process_time()
    result = world.run_for(seconds * SECOND)
    spent = time.process_time() - begin
    return spent, result.chunks, result.steps_recorded


def main() -> None:
    """Measure, interleaved, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--policy", default="published")
    parser.add_argument("--costs", default="reference")
    options = parser.parse_args()
    gc.disable()
    speeds, chunk_us, step_ratio = [], [], []
    for _ in range(options.rounds):
        bare = bare_timeout_us()
        spent, chunks, steps = streaming(
            options.sessions, options.policy, options.costs, options.seconds
        )
        speeds.append(options.seconds / spent)
        chunk_us.append(spent / chunks * 1e6)
        step_ratio.append(spent / steps * 1e6 / bare)
    print(f"{options.policy}, costs {options.costs}, {options.sessions} sessions")
    print(f"times real time     {statistics.median(speeds):8.1f}   (promise 10, aim 20)")
    print(f"us per chunk        {statistics.median(chunk_us):8.1f}")
    print(f"bare timeouts/step  {statistics.median(step_ratio):8.2f}   (all work shared by steps)")


if __name__ == "__main__":
    main()
