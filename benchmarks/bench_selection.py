"""
What a decision and an update cost in real time: `python benchmarks/bench_selection.py`.

100 language pairs, 8 a node, 16 hash pools, nodes equally loaded (the largest buckets there can
be). Prints the best of five rounds in microseconds per call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import permutations

import msgspec

from simsched.chance import below, mix
from simsched.languages import LanguageCapabilities
from simsched.nodes import Health, NodeView
from simsched.selection import SelectionRequest, SelectionRules, candidates, explain, select
from simsched.snapshot import ClusterSnapshot

CORE = frozenset(("asr", "nmt", "tts"))
PAIRS = tuple(permutations([f"l{i:02}" for i in range(11)], 2))[:100]
SIZES = (100, 1_000, 10_000, 100_000)
ROUNDS = 5


def cluster(count: int) -> ClusterSnapshot:
    """A cluster of `count` ready and idle nodes."""
    offers = []
    for first in range(len(PAIRS)):
        pairs = tuple(PAIRS[(first + 13 * i) % len(PAIRS)] for i in range(8))
        sources = tuple(dict.fromkeys(source for source, _ in pairs))
        targets = tuple(dict.fromkeys(target for _, target in pairs))
        offers.append(LanguageCapabilities(asr=sources, tts=targets, declared_pairs=pairs))
    return ClusterSnapshot.of(
        NodeView(
            node_id=f"node-{i:06}",
            ordinal=i,
            health=Health.READY,
            installed=CORE,
            ready=CORE,
            languages=offers[i % len(offers)],
            pools=(str(i % 16),),
        )
        for i in range(count)
    )


def draw(bound: int, k: int) -> int:
    """A keyed draw, as the core makes them."""
    return below(mix(7, k), bound)


def best_us(call: Callable[[], object], repeats: int) -> float:
    """The fastest round's microseconds per call."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (time.perf_counter() - started) / repeats)
    return best * 1e6


def measure(count: int) -> dict[str, float]:
    """Every figure for one size, in microseconds."""
    snapshot = cluster(count)
    pair = PAIRS[0]
    pools = tuple(str(i) for i in range(16))
    ask = SelectionRequest(source=pair[0], target=pair[1], required=CORE, pools=pools)
    view = snapshot.views[0]
    busier = msgspec.structs.replace(view, current_jobs=1)
    warmer = msgspec.structs.replace(view, gpu_percent=50.0)
    safe = SelectionRules()
    reference = SelectionRules(two_level=True, indexed=False, language_match="exact_set")
    one_level = SelectionRules(indexed=False)
    quick = 2_000
    slow = max(1, 20_000 // count)
    return {
        "least_loaded k=1": best_us(lambda: snapshot.least_loaded(pair, 1, (), 12345), quick),
        "least_loaded k=4": best_us(lambda: snapshot.least_loaded(pair, 4, (), 12345), quick),
        "select, index": best_us(lambda: select(snapshot, ask, safe, draw), quick),
        "candidates k=4, index": best_us(lambda: candidates(snapshot, ask, safe, draw, 4), quick),
        "select, pools, sample 20": best_us(lambda: select(snapshot, ask, reference, draw), 200),
        "select, one level, scan": best_us(lambda: select(snapshot, ask, one_level, draw), slow),
        "explain, one level": best_us(lambda: explain(snapshot, ask, safe, draw), slow),
        "with_node, load changed": best_us(lambda: snapshot.with_node(busier), 200),
        "with_node, load same": best_us(lambda: snapshot.with_node(warmer), 200),
    }


def main() -> None:
    """Print the table."""
    columns = [measure(size) for size in SIZES]
    print(f"{'us per call':28}" + "".join(f"{size:>10,}" for size in SIZES))
    for name in columns[0]:
        print(f"{name:28}" + "".join(f"{column[name]:10.1f}" for column in columns))


if __name__ == "__main__":
    main()
