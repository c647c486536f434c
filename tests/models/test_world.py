"""The wired world: every preset plays, nothing gets lost, equal questions get equal answers."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.findings import Tail
from simsched.models.prices import CostModel
from simsched.models.service import ServiceModel
from simsched.models.workload import Workload
from simsched.models.world import RunResult, Scenario, World, demands, simulate
from simsched.policy import FIELDS, Policy
from simsched.pools import PoolConfig, fnv1a
from simsched.presets import PRESETS, parse_policy
from simsched.units import MINUTE

ZERO = CostModel.load("zero")
REPORT = CostModel.load("report")
REFERENCE = CostModel.load("reference")
SHORT = {"speech": "800 ms", "pause": "3500 ms", "utterances": 3}


def scenario(policy: str | Policy = "safe", **changes: Any) -> Scenario:
    workload = {"arrivals": {"kind": "poisson", "rate_per_s": 1.0}, **SHORT}
    workload |= changes.pop("workload", {})
    plain: dict[str, Any] = {
        "policy": parse_policy(policy) if isinstance(policy, str) else policy,
        "costs": changes.pop("costs", REFERENCE),
        "workload": Workload.parse(workload),
        "service": ServiceModel.parse({}),
        "sessions": 12,
        "nodes": 8,
    }
    return Scenario(**(plain | changes))


def two_instances(policy: str | Policy, **changes: Any) -> Scenario:
    return scenario(policy, instances=2, shared=True, **changes)


def lost(result: RunResult) -> int:
    """Jobs that conservation cannot account for."""
    books = result.conservation
    known = ("finished", "failed", "cancelled", "refused", "queued", "running")
    return books["created"] - sum(books[name] for name in known)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "shipped"])
def test_every_preset_plays_and_loses_no_job(preset: str, shared: bool) -> None:
    """Under every preset, on one instance and on two, all jobs created are accounted for."""
    make = two_instances if shared else scenario
    result = simulate(make(preset, costs=REPORT), seed=3)
    assert result.conservation["created"] >= 36
    assert lost(result) == 0
    assert result.violations["conservation"] == 0


def test_the_shipped_preset_stalls_on_its_shared_connection() -> None:
    """B1: with a blocking reader on the one connection, a creation takes seconds."""
    own_connection = "stream_connection=own,connections=16"
    slow = simulate(two_instances("shipped", nodes=2), seed=3)
    own = simulate(two_instances(f"shipped,{own_connection}", nodes=2), seed=3)
    took = {name: created_ms(result) for name, result in (("shared", slow), ("own", own))}
    assert took["shared"] > 1_000
    assert took["own"] < 100


def created_ms(result: RunResult) -> float:
    operations = result.operations
    mine = operations["latency_ns"][operations["kind"] == 2]
    return float(mine.mean()) / 1e6


@settings(max_examples=25)
@given(
    values=st.fixed_dictionaries(
        {
            name: st.sampled_from(field.metadata["choices"])
            for name, field in FIELDS.items()
            if field.metadata["choices"] is not int and name != "stream_connection"
        }
    ),
    shared=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_any_mixture_of_policy_fields_plays(
    values: dict[str, object], shared: bool, seed: int
) -> None:
    """No combination of strategies crashes the core or loses a job."""
    make = two_instances if shared else scenario
    if (values["job_scheme"] == "claim") != (values["slots"] == "lease"):
        values["slots"] = "lease" if values["job_scheme"] == "claim" else "counter"
    result = simulate(make(Policy(**values), sessions=4), seed=seed)  # type: ignore[arg-type]
    assert lost(result) == 0


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1 << 32),
    instances=st.integers(1, 3),
    nodes=st.integers(1, 6),
    slots=st.integers(1, 3),
    duplicates=st.sampled_from([0.0, 0.5]),
    manual=st.sampled_from([0.0, 0.5, 1.0]),
    mode=st.sampled_from(["utterance", "audio_chunk"]),
)
def test_the_safe_policy_breaks_no_invariant(
    seed: int, instances: int, nodes: int, slots: int, duplicates: float, manual: float, mode: str
) -> None:
    """Whatever the size, the overload and the repeats, `safe` violates nothing."""
    workload = {"mode": mode, "manual_cut_share": manual, "duplicate_share": duplicates}
    world = scenario(
        "safe", costs=REPORT, instances=instances, shared=instances > 1, nodes=nodes,
        slots=slots, workload=workload, sessions=8,
    )  # fmt: skip
    result = simulate(world, seed=seed)
    assert {name: n for name, n in result.violations.items() if n} == {}, result.examples
    assert lost(result) == 0


def test_equal_runs_have_equal_digests_and_other_seeds_others() -> None:
    """The digest is a function of scenario, seed and replication."""
    world = two_instances("published", costs=REPORT)
    same = {simulate(world, seed=5, replication=1).digest for _ in range(2)}
    assert len(same) == 1
    assert simulate(world, seed=6, replication=1).digest not in same
    assert simulate(world, seed=5, replication=2).digest not in same


def test_variants_see_the_same_utterances_and_service_times() -> None:
    """Common random numbers: the i-th utterance of a session takes a node equally long."""
    runs = [
        simulate(make(policy, costs=REPORT), seed=9)
        for make, policy in ((scenario, "published"), (two_instances, "published+2"))
    ]
    seen = []
    for run in runs:
        jobs = run.jobs
        rows = zip(
            jobs["session"], jobs["utterance"], jobs["started_ns"], jobs["finished_ns"],
            strict=True,
        )  # fmt: skip
        seen.append({(s, int(u)): int(f - b) for s, u, b, f in rows if b >= 0 and f >= 0})
    assert seen[0].keys() == seen[1].keys()
    assert seen[0] == seen[1]


def test_a_dropped_call_leaves_the_cost_of_the_others() -> None:
    """Proposal 2 saves exactly the costs of the calls it drops: nothing else is drawn anew."""
    idle = {"workload": {"arrivals": {"kind": "constant", "gap": "60 s"}, "utterances": 1}}
    base = simulate(two_instances("published", costs=REPORT, **idle), seed=2)
    cached = simulate(two_instances("published+2", costs=REPORT, **idle), seed=2)
    rows = {name: hold(run, "redis.get_binding", 2) for name, run in (("b", base), ("c", cached))}
    reads = hold(base, "jobs.read", 2) - hold(cached, "jobs.read", 2)
    saved = created_total(base) - created_total(cached)
    assert saved == rows["b"] - rows["c"] + reads
    assert saved > 0


def hold(run: RunResult, step: str, kind: int) -> int:
    return sum(row.hold_ns for row in run.steps if row.step == step and row.kind == kind)


def created_total(run: RunResult) -> int:
    operations = run.operations
    return int(operations["latency_ns"][operations["kind"] == 2].sum())


def test_shuffled_ties_give_the_same_answers() -> None:
    """What happens at one instant may happen in any order: the mean moves by a hair, no more."""
    world = scenario("safe", costs=REPORT, sessions=60)
    fifo = simulate(world, seed=4)
    shuffled = simulate(replace(world, ties="shuffle"), seed=4)
    assert created_ms(shuffled) == pytest.approx(created_ms(fifo), rel=0.05)
    assert shuffled.conservation["created"] == fifo.conservation["created"]


def test_a_nested_snapshot_guard_freezes_the_instance() -> None:
    """B24: a heartbeat's writer between two nested reads of a fair lock stops everything behind."""
    base = simulate(scenario("published", costs=REPORT, sessions=30), seed=1)
    nested = "published,snapshot_guard=nested"
    frozen = simulate(scenario(nested, costs=REPORT, sessions=30), seed=1)
    assert len(frozen.jobs["job"]) < len(base.jobs["job"]) / 2


def test_load_follows_from_demands() -> None:
    """The demand of the tightest resource does not depend on the rate at which it was found."""
    rates = [{"arrivals": {"kind": "poisson", "rate_per_s": rate}} for rate in (0.05, 0.1)]
    worlds = [scenario("published", costs=REPORT, workload=rate) for rate in rates]
    found = [demands(simulate(world, seed=8), world) for world in worlds]
    assert found[0]["lock audio_buffer"] == pytest.approx(found[1]["lock audio_buffer"], rel=0.05)


def test_nothing_is_left_when_everybody_has_gone() -> None:
    """After the last goodbye the instances remember no session, job or slot."""
    world = World(two_instances("safe", costs=REPORT), seed=1, replication=0)
    world.run()
    for scheduler in world.schedulers:
        state = scheduler.state
        assert not state.sessions
        assert not state.book.jobs
        assert not state.node_jobs
        assert not state.utterance_nodes
        assert not len(state.pending)


def test_memory_stays_flat_over_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended is forgotten or on disk: later, no more is held than at half time."""
    for name, small in (("journal.SPILL_ROWS", 256), ("spool.LINES_KEPT", 256)):
        monkeypatch.setattr(f"simsched.models.{name}", small)
    monkeypatch.setattr(Tail.__init__, "__defaults__", (256,))
    plan = scenario(
        "safe", costs=ZERO, sessions=None, horizon_ns=20 * MINUTE,
        workload={"mode": "utterance", "arrivals": {"kind": "poisson", "rate_per_s": 1.0}},
    )  # fmt: skip
    held: list[int] = []
    tracemalloc.start()
    world = World(plan, seed=1, replication=0)

    def weigh() -> None:
        world._recorder.flush()
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])

    for minutes in (10, 19):
        world.kernel.call_at(minutes * MINUTE, weigh)
    world.run_for(20 * MINUTE)
    tracemalloc.stop()
    assert held[1] < 1.1 * held[0]


@pytest.mark.parametrize("policy", ["published", "safe,selection=scan"])
@pytest.mark.parametrize("instances", [1, 2])
def test_a_tenant_is_served_in_its_own_pool(policy: str, instances: int) -> None:
    """Phase 3's override, end to end: the tenant's jobs run there and nowhere else."""

    def pools_used(overrides: tuple[tuple[str, str], ...]) -> list[str]:
        config = PoolConfig(enabled=True, pool_count=4, tenant_overrides=overrides)
        world = scenario(
            policy, instances=instances, shared=instances > 1, pools=config, nodes=24, slots=8,
            workload={"tenants": {"acme": 1.0}},
        )  # fmt: skip
        found = simulate(world, seed=5)
        nodes = [node for node in found.jobs["node"] if node]
        assert len(nodes) == found.conservation["finished"] >= 36
        return sorted({str(fnv1a(node, config.hash_seed) % 4) for node in nodes})

    free = pools_used(())
    for pool in ("1", "2"):
        assert pools_used((("acme", pool),)) == [pool]
        assert pools_used((("other", pool),)) == free
