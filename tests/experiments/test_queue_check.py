"""Queues played by the core, its store and its nodes agree with what theory knows exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import simsched
from simsched.cli import main
from simsched.errors import SimschedError
from simsched.experiments.intervals import LEVEL, bonferroni, t_quantile
from simsched.experiments.queue_answers import FIGURES, Row, answer, rows, savings
from simsched.experiments.queue_cases import known_case
from simsched.experiments.queue_measure import (
    CONTROL,
    PREFIX,
    known_controls,
    measure_queue,
    tail_quantile,
)
from simsched.experiments.queue_reading import reading
from simsched.experiments.queueing import lindley_waits
from simsched.experiments.runs import Replication, StudyRun, VariantRun, Window
from simsched.experiments.study import Study, Variant
from simsched.jobs import Job, JobRequest, PendingQueue
from simsched.models.world import SETTLE_NS, RunResult, Scenario, simulate
from simsched.units import SECOND

POLICY = (
    "safe,pending_ms=1000000000,pending_max={places},job_timeout_ms=1000000000,lease_ms=4000000000"
)
EXPONENTIAL = '{ kind = "exponential", mean_ms = 100 }'


def case(
    tmp_path: Path,
    arrivals: str,
    service: str,
    *,
    more: str = "",
    servers: int = 1,
    places: int = 1_000_000,
    horizon_s: int = 120,
    utterances: str = "utterances = 1",
    text: str = "",
) -> Study:
    """A study file with one case, as a user would write it."""
    body = f"""
answers = "queue"
replications = 8
[scenario]
costs = "zero"
nodes = 1
slots = {servers}
horizon_s = {horizon_s}
drain_s = 10000
[scenario.workload]
arrivals = {arrivals}
{utterances}
mode = "utterance"
languages = [{{ source = "zh", target = "en" }}]
{more}
[scenario.service]
service = {service}
[warmup]
end_s = 20
[[variant]]
name = "case"
policy = "{POLICY.format(places=places)}"
"""
    path = tmp_path / "case.toml"
    path.write_text(body + text, encoding="utf-8")
    return Study.load(path)


def measured(variant: Variant, result: RunResult, scenario: Scenario, warm_ns: int) -> Replication:
    """One run as the runner would hand it on."""
    horizon = scenario.horizon_ns
    assert horizon is not None
    window = Window(SETTLE_NS + warm_ns, SETTLE_NS + horizon)
    return Replication(
        variant=variant.name,
        replication=result.replication,
        digest=result.digest,
        metrics=measure_queue(result, scenario, window),
        steps=[],
        calls={},
        violations=result.violations,
        checked={},
        examples=[],
        conservation=result.conservation,
        counters={},
        cuts=result.cuts,
        jobs=len(result.jobs["status"]),
        sessions=result.sessions,
        simulated_ns=result.ended_ns,
    )


def played(study: Study) -> StudyRun:
    """All replications of all variants."""
    runs = {}
    for variant in study.variants:
        results = [
            simulate(variant.scenario, seed=study.seed, replication=r)
            for r in range(study.replications)
        ]
        replications = [
            measured(variant, result, variant.scenario, study.warmup_ns or 0) for result in results
        ]
        runs[variant.name] = VariantRun(variant.name, variant.base, replications)
    return StudyRun("queue", study.seed, runs)


def by_figure(table: list[Row], variant: str = "case") -> dict[str, Row]:
    return {row.figure: row for row in table if row.variant == variant}


def test_a_trace_by_hand_is_reproduced_to_the_bit() -> None:
    """Five recorded customers wait 0, 2, 4, 4, 0 s and leave at 3, 6, 7, 8, 12 s, exactly."""
    trace = Study.load("queue-check").variant("hand trace").scenario
    jobs = simulate(trace, seed=1).jobs
    arrived, started, finished = (
        np.asarray(jobs[f"{name}_ns"], np.int64) for name in ("cut", "started", "finished")
    )
    assert (started - arrived).tolist() == [0, 2 * SECOND, 4 * SECOND, 4 * SECOND, 0]
    assert (finished - SETTLE_NS).tolist() == [at * SECOND for at in (3, 6, 7, 8, 12)]


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_recorded_times_follow_lindley_to_the_bit(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One server, recorded arrivals and services, in ms: every wait is Lindley's, bit by bit."""
    size = data.draw(st.integers(1, 12))
    numbers = st.integers(0, 3_000)
    arrivals = sorted(data.draw(st.lists(numbers, min_size=size, max_size=size)))
    services = data.draw(st.lists(st.integers(1, 900), min_size=size, max_size=size))
    study = case(
        tmp_path_factory.mktemp("trace"),
        f'{{ kind = "recorded", times_ms = {arrivals} }}',
        f'{{ kind = "recorded", values_ms = {services} }}',
    )
    jobs = simulate(study.variants[0].scenario, seed=1).jobs
    order = np.argsort(np.asarray([int(name.split(":")[0][2:], 16) for name in jobs["job"]]))
    waits = (np.asarray(jobs["started_ns"]) - np.asarray(jobs["cut_ns"]))[order]
    ms = 1_000_000
    assert waits.tolist() == lindley_waits([a * ms for a in arrivals], [s * ms for s in services])


def test_the_last_customer_of_an_idle_system_is_served(tmp_path: Path) -> None:
    """A run does not end between the last arrival and that client's first message."""
    study = case(tmp_path, '{ kind = "recorded", times_s = [0, 50] }', '"1 s"')
    assert len(simulate(study.variants[0].scenario, seed=1).jobs["status"]) == 2


def test_slots_that_are_freed_together_are_all_given_away(tmp_path: Path) -> None:
    """Three services that end in one instant let three waiting customers begin in that instant."""
    study = case(tmp_path, f'{{ kind = "recorded", times_s = {[0] * 7} }}', '"1 s"', servers=3)
    jobs = simulate(study.variants[0].scenario, seed=1).jobs
    waits = np.asarray(jobs["started_ns"]) - np.asarray(jobs["cut_ns"])
    assert sorted(waits.tolist()) == [s * SECOND for s in (0, 0, 0, 1, 1, 1, 2)]


def test_customers_give_up_exactly_at_the_end_of_their_patience(tmp_path: Path) -> None:
    """Whoever is not served within 2 s leaves after 2 s, to the bit; the first is served."""
    study = case(
        tmp_path, f'{{ kind = "recorded", times_s = {[0] * 4} }}', '"5 s"', more='patience = "2 s"'
    )
    jobs = simulate(study.variants[0].scenario, seed=1).jobs
    stays = np.asarray(jobs["ended_ns"]) - np.asarray(jobs["cut_ns"])
    assert sorted(stays.tolist()) == [2 * SECOND] * 3 + [5 * SECOND]


def test_a_full_line_refuses_at_once(tmp_path: Path) -> None:
    """One in service, two in line, the fourth and fifth are refused on arrival."""
    study = case(tmp_path, f'{{ kind = "recorded", times_s = {[0] * 5} }}', '"1 s"', places=2)
    variant = study.variants[0]
    result = simulate(variant.scenario, seed=1)
    metrics = measured(variant, result, variant.scenario, 0).metrics
    assert metrics[f"{PREFIX}blocking"] == 2 / 5
    assert metrics[f"{PREFIX}throughput"] == pytest.approx(1.0)
    assert metrics[f"{PREFIX}utilisation"] == pytest.approx(1.0)


QUEUES = {
    "M/M/1": ('{ kind = "poisson", rate_per_s = 6 }', EXPONENTIAL, {}),
    "M/D/1": ('{ kind = "poisson", rate_per_s = 6 }', '"100 ms"', {}),
    "M/G/5/5": (
        '{ kind = "poisson", rate_per_s = 6 }',
        '{ kind = "lognormal", mean_ms = 700, scv = 1.5 }',
        {"servers": 5, "places": 0},
    ),
    "M/M/2+M": (
        '{ kind = "poisson", rate_per_s = 8 }',
        '{ kind = "exponential", mean_ms = 250 }',
        {"servers": 2, "more": f"patience = {EXPONENTIAL}"},
    ),
    "M^X/M/1": ('{ kind = "batch", rate_per_s = 2, size = [1, 4] }', EXPONENTIAL, {}),
    "MMPP(2)/M/1": (
        '{ kind = "mmpp", rates_per_s = [2, 9], leave_per_s = [2, 2] }', EXPONENTIAL, {}
    ),
    "M/M/2//6": (
        '{ kind = "closed", population = 6, think = { kind = "exponential", mean_ms = 400 } }',
        EXPONENTIAL,
        {"servers": 2, "utterances": ""},
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", QUEUES)
def test_exact_values_lie_inside_the_intervals(model: str, tmp_path: Path) -> None:
    """A short run of a queue is recognised; means and shares miss none of their exact values."""
    arrivals, service, more = QUEUES[model]
    study = case(tmp_path, arrivals, service, **more)  # type: ignore[arg-type]
    known = known_case(study.variants[0].scenario)
    assert known is not None
    assert known.model == model
    run = played(study)
    table = rows(run, study)
    compared = [row for row in table if row.inside is not None]
    assert len(compared) >= 8
    assert not any(row.figure[-3:] in ("p50", "p95", "p99") for row in compared)
    assert [row for row in compared if not row.inside] == []
    assert all(not any(r.violations.values()) for r in run.variants["case"].replications)


@pytest.mark.parametrize("model", ["M/M/1", "M/D/1", "M^X/M/1", "MMPP(2)/M/1"])
def test_every_wait_is_what_lindley_says_of_the_same_times(model: str, tmp_path: Path) -> None:
    """No noise left to hide in: drawn arrivals and services, the waits equal to the bit."""
    arrivals, service, more = QUEUES[model]
    study = case(tmp_path, arrivals, service, horizon_s=60, **more)  # type: ignore[arg-type]
    jobs = simulate(study.variants[0].scenario, seed=2).jobs
    names = ("cut", "started", "finished")
    rows_ns = sorted(zip(*(np.asarray(jobs[f"{n}_ns"]).tolist() for n in names), strict=True))
    assert len(rows_ns) > 100
    services = [done - begun for _, begun, done in rows_ns]
    expected = lindley_waits([came for came, _, _ in rows_ns], services)
    assert [begun - came for came, begun, _ in rows_ns] == expected


def test_a_case_without_a_formula_gets_the_same_figures(tmp_path: Path) -> None:
    """Two servers with Erlang service: no exact value, every figure with an interval, a page."""
    study = case(
        tmp_path, '{ kind = "constant", gap_ms = 70 }',
        '{ kind = "erlang", k = 3, mean_ms = 120 }', servers=2, horizon_s=60,
    )  # fmt: skip
    assert known_case(study.variants[0].scenario) is None
    run = played(study)
    verdicts = answer(run, study, tmp_path, "zh")
    assert {row["verdict"] for row in verdicts} == {"no exact value"}
    assert len(verdicts) == 16
    assert all(row["half_width"] is not None for row in verdicts)
    assert "无已知精确值" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_lock_is_a_queue_and_scaling_all_durations_scales_all_times() -> None:
    """The closed case through the modelled lock: exact, and 10 % more gives 10 % more."""
    study = Study.load(
        "queue-check", replications=8, settings={"variant.closed lock.horizon_s": 500}
    )
    kept = [study.variant(name) for name in ("closed lock", "all 10 % longer")]
    shorter = study.variant("closed lock").scenario
    assert known_case(shorter) is not None
    results = [simulate(variant.scenario, seed=1) for variant in kept]
    windows = [
        Window(SETTLE_NS + round(factor * 100 * SECOND), SETTLE_NS + round(factor * 500 * SECOND))
        for factor in (1, 1.1)
    ]
    base, longer = (
        measure_queue(result, variant.scenario, window)
        for result, variant, window in zip(results, kept, windows, strict=True)
    )
    # Nothing of the instance's own periods (scans, heartbeats) reaches a customer at no cost.
    for name, power in (("throughput", -1), ("mean_sojourn", 1), ("sojourn_p99", 1)):
        ratio = longer[PREFIX + name] / base[PREFIX + name]
        assert ratio == pytest.approx(1.1**power, rel=2e-3), name
    exact = known_case(shorter)
    assert exact is not None
    assert base[f"{PREFIX}mean_sojourn"] == pytest.approx(exact.figures["mean_sojourn"], rel=0.1)
    assert exact.figures["throughput"] == pytest.approx(6.61682, rel=1e-5)


def test_a_faster_service_saves_what_theory_says_pair_by_pair(tmp_path: Path) -> None:
    """Common random numbers: 5 % less service saves 0.0294 s of waiting at load 0.6."""
    text = """
[[variant]]
name = "faster"
base = "case"
service.service = { kind = "exponential", mean_ms = 95 }
"""
    study = case(tmp_path, '{ kind = "poisson", rate_per_s = 6 }', EXPONENTIAL, text=text)
    (change,) = savings(played(study), study)
    assert change.exact is not None
    assert change.exact == pytest.approx(0.15 - 0.57 * 0.095 / 0.43)
    wide = 2 * change.simulated.half_width
    assert abs(change.simulated.estimate - change.exact) <= wide
    assert wide < change.exact, "pairs tell a saving that independent runs of this length could not"


def test_a_change_is_judged_with_all_other_comparisons(tmp_path: Path) -> None:
    """A saving stands beside its exact value, in an interval widened for the number of all."""
    text = """
[[variant]]
name = "faster"
base = "case"
service.service = { kind = "exponential", mean_ms = 95 }
"""
    study = case(
        tmp_path, '{ kind = "poisson", rate_per_s = 6 }', EXPONENTIAL, horizon_s=60, text=text
    )
    run = played(study)
    compared = [row for row in rows(run, study) if row.inside is not None]
    (change,) = savings(run, study)
    degrees = study.replications - 2  # one control at this number of replications
    level = bonferroni(LEVEL, len(compared) + 1)
    ratio = change.wide.half_width / change.simulated.half_width
    assert ratio == pytest.approx(t_quantile(level, degrees) / t_quantile(LEVEL, degrees))
    verdicts = answer(run, study, tmp_path, "en")
    assert verdicts[-1]["verdict"] == "inside"
    assert verdicts[-1]["exact"] == pytest.approx(change.exact)
    counted = f"{len(compared) + 1} of {len(compared) + 1} exact values"
    assert counted in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arrivals", "service", "servers"),
    [
        ('{ kind = "poisson", rate_per_s = 6 }', EXPONENTIAL, 1),
        ('{ kind = "poisson", rate_per_s = 9 }', '{ kind = "erlang", k = 3, mean_ms = 150 }', 2),
        ('{ kind = "constant", gap_ms = 160 }', EXPONENTIAL, 1),
    ],
)
def test_the_rush_control_has_the_expectation_that_is_said(
    arrivals: str, service: str, servers: int, tmp_path: Path
) -> None:
    """Over 12 runs the mean square of work less time is what the laws alone say, within 4 sigma."""
    study = case(tmp_path, arrivals, service, servers=servers)
    (variant,) = study.variants
    name = f"{CONTROL}rush"
    found = [
        measured(variant, simulate(variant.scenario, seed=5, replication=r), variant.scenario, 0)
        for r in range(12)
    ]
    values = np.array([one.metrics[name] for one in found])
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - known_controls(variant.scenario)[name]) <= 4 * error
    assert error / values.mean() < 0.15, "the test could tell"


@pytest.mark.parametrize(
    ("more", "places", "said"),
    [
        ("", 1_000_000, "M/D/2"),
        ("", 200, "M/D/2, line 200"),
        ("", 0, "M/D/2, no line"),
        ('patience = "3 s"', 5, "M/D/2, patience 3 s, line 5"),
        ('patience = { kind = "exponential", mean_ms = 400 }', 1_000_000,
         "M/D/2, patience M 0.4 s"),
    ],
)  # fmt: skip
def test_a_scenario_is_read_in_kendalls_notation(
    more: str, places: int, said: str, tmp_path: Path
) -> None:
    """Servers, laws and every bound on a wait are named."""
    study = case(
        tmp_path, '{ kind = "poisson", rate_per_s = 6 }', '"100 ms"', more=more, servers=2,
        places=places,
    )  # fmt: skip
    assert reading(study.variants[0].scenario) == said


def test_bounds_that_a_policy_brings_along_are_seen(tmp_path: Path) -> None:
    """A plain `safe` lets nobody wait longer than its `pending_ms`: the reading says so."""
    path = tmp_path / "case.toml"
    case(tmp_path, '{ kind = "poisson", rate_per_s = 6 }', '"100 ms"')
    lines = path.read_text(encoding="utf-8").splitlines()
    plain = ['policy = "safe"' if line.startswith("policy") else line for line in lines]
    path.write_text("\n".join(plain), encoding="utf-8")
    assert reading(Study.load(path).variants[0].scenario) == "M/D/1, patience 10 s"


def test_a_small_queue_file_is_run_and_told_as_a_queue(tmp_path: Path) -> None:
    """`simsched.run` of a user's file: every figure is there, finite, and told on the terminal."""
    case(tmp_path, '{ kind = "poisson", rate_per_s = 6 }', EXPONENTIAL, horizon_s=40)
    out = tmp_path / "out"
    run = simsched.run(str(tmp_path / "case.toml"), out=str(out), replications=3, jobs=1)
    verdicts = run.summary["verdicts"]
    assert [row["metric"] for row in verdicts] == list(FIGURES)
    numbers = [row[name] for row in verdicts for name in ("simulated", "half_width", "exact")]
    assert all(math.isfinite(number) for number in numbers)
    shown = CliRunner().invoke(main, ["experiment", "show", str(out)]).output
    assert "read as  case: M/M/1\n" in shown
    head = next(line for line in shown.splitlines() if line.startswith("case  figure"))
    assert head.split() == ["case", "figure", "unit", "exact", "simulated", "exact", "value", "is"]
    row = next(line for line in shown.splitlines() if line.startswith("case  mean_wait "))
    assert "+-" in row
    assert row.endswith("inside")
    assert "promised" not in shown


def test_what_is_not_a_queue_is_refused_in_one_line(tmp_path: Path) -> None:
    """Speakers with turns are no queue of one customer each."""
    study = case(
        tmp_path, '{ kind = "poisson", rate_per_s = 1 }', '"1 s"', utterances="utterances = 3"
    )
    with pytest.raises(SimschedError, match=r"case: not one queue"):
        rows(StudyRun("queue", 1, {}), study)


def test_a_tail_of_dependent_values_is_less_biased_than_a_plain_quantile() -> None:
    """A quantile's bias of order 1/n goes: waits of short busy runs, on average over many."""
    rng = np.random.default_rng(7)
    exact = math.log(0.9 / 0.01) / (1 - 0.9)
    plain, mended = [], []
    for _ in range(60):
        gaps, services = rng.exponential(1 / 0.9, 8_000), rng.exponential(1, 8_000)
        walk = np.concatenate(([0.0], np.cumsum(services[:-1] - gaps[1:])))
        waits = ((walk - np.minimum.accumulate(walk)) * SECOND).astype(np.int64)[500:]
        plain.append(float(np.quantile(waits, 0.99)) / SECOND)
        mended.append(tail_quantile(waits, 0.99) / SECOND)
    assert abs(np.mean(mended) - exact) < abs(np.mean(plain) - exact)


def _job(number: int, deadline: int) -> Job:
    request = JobRequest(
        request_id=str(number), session_id=f"s-{number}", session_key=number, utterance=0,
        source_language="zh", target_language="en", audio=b"", audio_format="opus", audio_ms=0,
        trace_id="t",
    )  # fmt: skip
    job = Job(f"j-{number}", request, 0, 1)
    job.deadline_ns = deadline
    return job


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(1, 50), st.integers(0, 1)),
            st.tuples(st.just("leave"), st.integers(0, 30), st.just(0)),
            st.tuples(st.just("due"), st.integers(0, 60), st.just(0)),
        ),
        max_size=60,
    )
)
def test_the_line_is_a_list_whatever_happens_in_it(actions: list[tuple[str, int, int]]) -> None:
    """Order, length, next deadline and those out of time are those of a plain list of jobs."""
    queue, plain = PendingQueue(1_000), []
    pairs = [("zh", "en"), ("en", "zh")]
    for number, (action, value, which) in enumerate(actions):
        if action == "push":
            entry = (pairs[which], _job(number, value))
            queue.push(*entry)
            plain.append(entry)
        elif action == "leave" and plain:
            entry = plain.pop(value % len(plain))
            assert queue.remove(*entry)
            assert not queue.remove(*entry)
        elif action == "due":
            late = [entry for entry in plain if entry[1].deadline_ns <= value]
            found = queue.due(value)
            assert sorted(j.job_id for _, j in found) == sorted(j.job_id for _, j in late)
        assert len(queue) == len(plain)
        assert queue.earliest_deadline() == min((j.deadline_ns for _, j in plain), default=None)
        for pair in pairs:
            line = [job for key, job in plain if key == pair]
            assert queue.waiting(pair) == len(line)
            assert queue.head(pair) is (line[0] if line else None)


def test_intervals_are_widened_for_their_number() -> None:
    """Twenty comparisons at 95 % together are each at 99.75 %."""
    assert bonferroni(LEVEL, 20) == pytest.approx(0.9975)
