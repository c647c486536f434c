"""
A selection among many registered nodes while they go on living: `python -m benchmarks.select`.

Of the nodes 10 % are offline, 10 % full, 10 % too warm or not public; each selection also excludes
the node of an earlier try. Between two selections nodes send heartbeats that change their load, as
often as they would at 200 jobs a second with a heartbeat every 15 s, and the chosen node is given
the job. Every selection is timed alone. Promise: p99 below 200 us at 10,000 nodes, and growing
slower than the number of nodes. Sizes are interleaved, so that they share what the machine does.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass, field
from itertools import permutations

import msgspec
import numpy as np

from simsched.chance import below, mix
from simsched.languages import LanguageCapabilities
from simsched.nodes import Health, NodeView
from simsched.selection import SelectionRequest, SelectionRules, candidates
from simsched.snapshot import ClusterSnapshot

CORE = frozenset(("asr", "nmt", "tts"))
PAIRS = tuple(permutations([f"l{i:02}" for i in range(12)], 2))
PAIRS_PER_NODE = 8
JOBS_PER_S = 200
HEARTBEAT_S = 15
CANDIDATES = 4
SLOTS = 4
BATCH = 200


def draw(bound: int, k: int) -> int:
    """A keyed draw, as the core makes them."""
    return below(mix(7, k), bound)


def node(number: int) -> NodeView:
    """One node; three in ten cannot be chosen, each third for a reason of its own."""
    pairs = tuple(PAIRS[(number * 5 + 13 * i) % len(PAIRS)] for i in range(PAIRS_PER_NODE))
    sources = tuple(dict.fromkeys(source for source, _ in pairs))
    targets = tuple(dict.fromkeys(target for _, target in pairs))
    kind = below(mix(3, number), 10)
    return NodeView(
        node_id=f"node-{number:06}",
        ordinal=number,
        health=Health.OFFLINE if kind == 0 else Health.READY,
        slots=SLOTS,
        current_jobs=SLOTS if kind == 1 else below(mix(5, number), SLOTS - 1),
        gpu_percent=99.0 if kind == 2 and number % 2 else 10.0,
        accepts_public_jobs=not (kind == 2 and number % 2 == 0),
        installed=CORE,
        ready=CORE,
        languages=LanguageCapabilities(asr=sources, tts=targets, declared_pairs=pairs),
    )


@dataclass
class Fleet:
    """A cluster of one size, and how long its selections took."""

    size: int
    snapshot: ClusterSnapshot
    turn: int = 0
    beat: int = 0
    times_ns: list[int] = field(default_factory=list)

    def play(self, selections: int) -> None:
        """Selections with the life between them."""
        beats = max(1, self.size // (HEARTBEAT_S * JOBS_PER_S))
        every = max(1, HEARTBEAT_S * JOBS_PER_S // self.size)
        for _ in range(selections):
            self.turn += 1
            if self.turn % every == 0:
                for _ in range(beats):
                    self._heartbeat()
            self._select()

    def _heartbeat(self) -> None:
        self.beat += 1
        view = self.snapshot.get(f"node-{self.beat * 7919 % self.size:06}")
        assert view is not None
        load = view.current_jobs
        if load < SLOTS:
            load = below(mix(11, self.beat), SLOTS - 1)
        changed = msgspec.structs.replace(view, current_jobs=load, cpu_percent=load * 5.0)
        self.snapshot = self.snapshot.with_node(changed)

    def _select(self) -> None:
        source, target = PAIRS[self.turn % len(PAIRS)]
        excluded = (f"node-{self.turn % self.size:06}",)
        ask = SelectionRequest(source=source, target=target, required=CORE, excluded=excluded)
        begin = time.perf_counter_ns()
        chosen = candidates(self.snapshot, ask, RULES, draw, CANDIDATES)
        self.times_ns.append(time.perf_counter_ns() - begin)
        for node_id in chosen[:1]:
            view = self.snapshot.get(node_id)
            assert view is not None
            if view.current_jobs + 1 < SLOTS:
                more = msgspec.structs.replace(view, current_jobs=view.current_jobs + 1)
                self.snapshot = self.snapshot.with_node(more)


RULES = SelectionRules()


def main() -> None:
    """Measure, interleaved, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000,100000")
    parser.add_argument("--selections", type=int, default=10_000)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    fleets = [Fleet(size, ClusterSnapshot.of(node(k) for k in range(size))) for size in sizes]
    gc.freeze()
    for _ in range(options.selections // BATCH):
        for fleet in fleets:
            fleet.play(BATCH)
    print(f"{'nodes':>9}{'p50 us':>9}{'p99 us':>9}{'p99.9 us':>10}{'p50 x':>8}{'nodes x':>9}")
    first = np.percentile(fleets[0].times_ns, 50)
    for fleet in fleets:
        p50, p99, p999 = np.percentile(fleet.times_ns, [50, 99, 99.9])
        print(
            f"{fleet.size:9,}{p50 / 1e3:9.1f}{p99 / 1e3:9.1f}{p999 / 1e3:10.1f}"
            f"{p50 / first:8.2f}{fleet.size / sizes[0]:9.0f}"
        )


if __name__ == "__main__":
    main()
