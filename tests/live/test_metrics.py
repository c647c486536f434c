"""Metrics: every one is documented and fed, labels stay few, and every alert can fire."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from simsched import telemetry as facts
from simsched.canary import Canary
from simsched.live.metric_catalogue import CATALOGUE, GROUPS, REPORT, page
from simsched.live.metrics import CHILDREN_MAX, VALUES_MAX, Metrics
from simsched.presets import parse_policy
from simsched.steps import BY_NAME
from simsched.telemetry import Operation, OpKind
from simsched.units import MS, SECOND
from tests.live.alert_rules import fires, names_of, samples_of
from tests.live.live_world import run
from tests.live.observed import observed

ROOT = Path(__file__).parent.parent.parent


def creation(metrics: Metrics, number: int, took_ns: int, session: str = "s") -> None:
    op = Operation(int(OpKind.CREATE_JOB), 1, number, session, 0)
    metrics.operation(op, took_ns, 0)


def step_in_creation(metrics: Metrics, name: str, number: int, *, wait: int, own: int) -> None:
    op = Operation(int(OpKind.CREATE_JOB), 1, number, "s", 0)
    metrics.step(BY_NAME[name], op, 0, wait, own, 1, 0)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples_of(metrics.render()).get((name, tuple(sorted(labels.items()))), 0.0)


def test_the_page_of_metrics_says_what_the_code_has() -> None:
    """docs/metrics.md is the table of the code; the report's five come first."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == page()
    assert GROUPS[0][1] is REPORT
    assert len(REPORT) == 5


def test_names_follow_the_conventions_and_every_metric_is_exposed() -> None:
    """Base units, `_total` for counters only; nothing is scraped that is not documented."""
    for spec in CATALOGUE:
        assert spec.kind != "histogram" or spec.name.endswith("_seconds")
        assert (spec.kind == "counter") == spec.name.endswith("_total")
        assert spec.text.endswith("."), spec.name
    text = Metrics().render().decode()
    found = {family.name for family in text_string_to_metric_families(text)}
    assert found == {spec.full_name.removesuffix("_total") for spec in CATALOGUE}


def test_a_job_through_a_real_server_feeds_the_metrics_of_its_way() -> None:
    """The report's five, every stage of the dispatch, claims, slots, store and connections."""

    async def main() -> None:
        async with observed() as world, world.working_node("n1"):
            await world.converse(3)
            status, kind, body = await world.get("/metrics")
            assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
            samples = samples_of(body)
            base = (("policy", "base"),)
            for spec in REPORT:
                assert samples[f"{spec.full_name}_count", base] == 3, spec
            assert samples["simsched_node_selection_seconds_sum", base] > 0
            for stage in ("created", "assigned", "sent", "acked", "result", "delivered"):
                labels = (*base, ("stage", stage))
                assert samples["simsched_dispatch_stage_seconds_count", labels] == 3, stage
            assert samples["simsched_end_to_end_seconds_count", base] == 3
            assert samples["simsched_claims_total", (("outcome", "claimed"),)] == 3
            assert samples["simsched_results_total", (("outcome", "accepted"), *base)] == 3
            ended = (*base, ("reason", ""), ("status", "completed"))
            assert samples["simsched_jobs_ended_total", ended] == 3
            claims = samples["simsched_redis_round_trip_seconds_count", (("call", "redis.claim"),)]
            assert claims == 3
            assert samples["simsched_store_up", ()] == 1
            assert samples["simsched_connections", (("kind", "node"),)] == 1
            slots = {dict(labels)["state"]: count for (name, labels), count in samples.items()
                     if name == "simsched_slots" and dict(labels)["class"] != "none"}  # fmt: skip
            assert not slots or slots == {"used": 0, "free": 4, "leaked": 0}
            assert samples["simsched_sessions_closed_total", base] == 1

    run(main())


def test_the_parts_of_a_creation_are_its_own() -> None:
    """Snapshot and selection count their waits, the session lock its wait alone."""
    metrics = Metrics()
    step_in_creation(metrics, "snapshot.read", 1, wait=1 * MS, own=2 * MS)
    step_in_creation(metrics, "select.index", 1, wait=0, own=4 * MS)
    step_in_creation(metrics, "session_runtime.lock", 1, wait=8 * MS, own=16 * MS)
    step_in_creation(metrics, "select.index", 2, wait=0, own=32 * MS)
    creation(metrics, 1, 100 * MS)
    for name, seconds in (("snapshot_acquire", 0.003), ("node_selection", 0.004),
                          ("session_lock_wait", 0.008), ("job_create", 0.1)):  # fmt: skip
        found = value(metrics, f"simsched_{name}_seconds_sum", policy="base")
        assert found == pytest.approx(seconds), name


def test_canary_sessions_have_their_label() -> None:
    """Metrics are labelled by the policy that the session runs."""
    canary = Canary(policy=parse_policy("safe"), share_ppm=500_000)
    metrics = Metrics(canary)
    names = [f"s{number}" for number in range(200)]
    for number, name in enumerate(names):
        creation(metrics, number, MS, session=name)
    mine = sum(canary.takes(name) for name in names)
    assert 0 < mine < 200
    assert value(metrics, "simsched_job_create_seconds_count", policy="canary") == mine
    assert value(metrics, "simsched_job_create_seconds_count", policy="base") == 200 - mine


def test_no_label_grows_without_bound() -> None:
    """What peers make up (codes, reasons) is folded into `other` beyond the first values."""
    metrics = Metrics()
    for number in range(10 * VALUES_MAX):
        metrics.connection(0, "client", f"c{number}", "refused", f"CODE_{number}")
        metrics.count(f"counter_{number}", 1)
        metrics.event(
            facts.JobEnded(
                at_ns=0, instance="i", job=f"j{number}", session="s", utterance=0, target="en",
                node="n", attempt=1, status="failed", reason=f"R{number}",
            )
        )  # fmt: skip
    samples = samples_of(metrics.render())
    for name in ("simsched_refusals_total", "simsched_counted_total", "simsched_jobs_ended_total"):
        children = {key: count for key, count in samples.items() if key[0] == name}
        assert len(children) <= VALUES_MAX + 1 <= CHILDREN_MAX
        assert sum(children.values()) == 10 * VALUES_MAX


def test_feeding_a_metric_is_cheap() -> None:
    """A step costs microseconds: generous bound, a tenth of what one EVALSHA costs."""
    metrics = Metrics()
    op = Operation(int(OpKind.BACKGROUND), 1, 1, "s", 0)
    step = BY_NAME["redis.claim"]
    begin = time.process_time()
    for _ in range(20_000):
        metrics.step(step, op, 0, 0, 1_000_000, 1, 0)
    assert (time.process_time() - begin) / 20_000 < 50e-6


def test_a_leaked_slot_is_seen_and_a_freed_one_is_not() -> None:
    """Taken, job ended, never freed: leaked after a moment."""
    metrics = Metrics()
    for job in ("kept", "freed"):
        metrics.event(
            facts.SlotTaken(at_ns=0, instance="i", node="n", job=job, attempt=1, live=1, slots=4,
                            expires_ns=90 * SECOND)
        )  # fmt: skip
        if job == "freed":
            metrics.event(facts.SlotFreed(at_ns=1, instance="i", node="n", job=job, attempt=1))
        metrics.event(
            facts.JobEnded(at_ns=2, instance="i", job=job, session="s", utterance=0, target="en",
                           node="n", attempt=1, status="completed", reason="")
        )  # fmt: skip
    assert metrics.jobs.leaked(SECOND) == {}
    assert metrics.jobs.leaked(10 * SECOND) == {"n": 1}
    metrics.event(facts.NodeOffline(at_ns=3, instance="i", node="n", reason="r"))
    assert metrics.jobs.leaked(10 * SECOND) == {}


# Alerts

Change = Callable[[Metrics], None]


def quantiles(name: str, took_ns: int) -> Change:
    return lambda metrics: metrics._observe(name, took_ns, "base")


def lag(lag_ns: int) -> Change:
    return lambda metrics: metrics.lag(0, lag_ns)


def gauge(name: str, number: float, *labels: str) -> Change:
    return lambda metrics: metrics.gauge(name, number, *labels)


def counter(name: str, amount: int, *labels: str) -> Change:
    return lambda metrics: metrics._count(name, *labels, amount=amount)


SCENARIOS: dict[str, tuple[Change, Change]] = {
    "SimschedStoreDown": (gauge("store_up", 0), gauge("store_up", 1)),
    "SimschedStoreErrors": (counter("store_errors", 400), counter("store_errors", 200)),
    "SimschedJobCreationSlow": (quantiles("job_create", 90 * MS), quantiles("job_create", 4 * MS)),
    "SimschedJobResultSlow": (quantiles("job_result", 90 * MS), quantiles("job_result", 4 * MS)),
    "SimschedSnapshotSlow": (
        quantiles("snapshot_acquire", 40 * MS), quantiles("snapshot_acquire", 4 * MS)
    ),
    "SimschedSelectionSlow": (
        quantiles("node_selection", 15 * MS), quantiles("node_selection", MS)
    ),
    "SimschedSessionLockContended": (
        quantiles("session_lock_wait", 15 * MS), quantiles("session_lock_wait", MS)
    ),
    "SimschedLoopLagging": (lag(150 * MS), lag(5 * MS)),
    "SimschedQueueWaits": (gauge("queue_oldest_seconds", 6), gauge("queue_oldest_seconds", 1)),
    "SimschedNoSlots": (gauge("slots", 0, "p", "free"), gauge("slots", 1, "p", "free")),
    "SimschedSlotsLeaked": (gauge("slots", 1, "p", "leaked"), gauge("slots", 0, "p", "leaked")),
    "SimschedNoNodes": (gauge("nodes", 0, "p", "ready"), gauge("nodes", 1, "p", "ready")),
    "SimschedRedeliveries": (
        counter("redeliveries", 400, "base"), counter("redeliveries", 200, "base")
    ),
    "SimschedJobsFailing": (
        counter("jobs_ended", 400, "base", "failed", "JOB_TIMEOUT"),
        counter("jobs_ended", 4_000, "base", "completed", ""),
    ),
    "SimschedFenceRejects": (
        counter("fence_rejects", 400, "base"), counter("fence_rejects", 200, "base")
    ),
    "SimschedSlowConsumers": (
        counter("slow_consumers", 60, "client"), counter("slow_consumers", 6, "client")
    ),
    "SimschedRefusing": (
        counter("refusals", 400, "client", "FULL"), counter("refusals", 200, "client", "FULL")
    ),
    "SimschedRecordingDrops": (counter("recording_dropped", 1), counter("recording_dropped", 0)),
}  # fmt: skip
"""One scenario in which each rule fires, and one in which it does not."""


def alert_rules() -> dict[str, str]:
    text = (resources.files("simsched.live") / "alerts.yml").read_text(encoding="utf-8")
    return {
        rule["alert"]: rule["expr"]
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    }


def test_every_alert_rule_has_its_scenarios_and_speaks_of_known_metrics() -> None:
    """A rule over a metric that does not exist would never fire."""
    known = {name for spec in CATALOGUE for name in (spec.full_name, f"{spec.full_name}_bucket")}
    rules = alert_rules()
    assert set(rules) == set(SCENARIOS)
    for rule in rules.values():
        assert set(names_of(rule)) <= known, rule


@pytest.mark.parametrize("alert", SCENARIOS)
def test_an_alert_fires_when_it_should_and_only_then(alert: str) -> None:
    """Five minutes of trouble fire it, five ordinary minutes do not."""
    rule = alert_rules()[alert]
    for change, expected in zip(SCENARIOS[alert], (True, False), strict=True):
        metrics = Metrics()
        before = samples_of(metrics.render())
        change(metrics)
        assert fires(rule, before, samples_of(metrics.render())) is expected


def test_without_any_node_the_alerts_on_nodes_fire() -> None:
    """An empty vector would compare with nothing: the gauges keep a zero."""

    async def main() -> None:
        async with observed() as world:
            samples = samples_of(world.observers.metrics.render())
            for alert in ("SimschedNoNodes", "SimschedNoSlots"):
                assert fires(alert_rules()[alert], samples, samples)
            assert not fires(alert_rules()["SimschedStoreDown"], samples, samples)

    run(main())
