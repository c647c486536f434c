"""Running a study: what is counted, when enough is run, what survives an interruption."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

import simsched
from simsched.errors import SimschedError
from simsched.experiments import finished as finished_files
from simsched.experiments.compare_page import broken_more
from simsched.experiments.comparing import difference, welch
from simsched.experiments.finished import write_whole
from simsched.experiments.load_share import pilots
from simsched.experiments.measure import measure
from simsched.experiments.replicate import Finished, Task, run_task
from simsched.experiments.results import as_json, summary
from simsched.experiments.run_study import RunOptions, run_to_directory
from simsched.experiments.runner import Runner, find_window
from simsched.experiments.runs import Replication, StudyRun, VariantRun, Window
from simsched.experiments.study import Study
from simsched.experiments.workers import DaskCluster, HereAlone, LocalProcesses
from simsched.models.world import SETTLE_NS, simulate
from simsched.telemetry import OpKind
from tests.golden.renew import STUDY

SCHEMA = Path(__file__).with_name("summary.schema.json")


class Counting(HereAlone):
    """Runs tasks here, notes them, and may give up after some."""

    def __init__(self, give_up_after: int | None = None, error: BaseException | None = None):
        self.tasks: list[tuple[str, int]] = []
        self._left = give_up_after
        self._error = error or KeyboardInterrupt()

    def finished(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        for task in tasks:
            if self._left == 0:
                raise self._error
            if self._left is not None:
                self._left -= 1
            self.tasks.append((task.variant, task.replication))
            yield run_task(task)


def small(*variants: str, **settings: object) -> Study:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return Study.load(STUDY, settings={**dotted, "quick.variants": list(variants)}, quick=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    study = small("one snapshot", "safe")
    run_to_directory(study, out, RunOptions(jobs=1), "simsched experiment run small.toml")
    return out


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was finished stays, is not run again, and the bytes are those of one go."""
    study = small("one snapshot")
    first, second = Counting(give_up_after=3), Counting()
    with pytest.raises(KeyboardInterrupt):
        Runner(study, tmp_path, first).run()

    resumed = Runner(study, tmp_path, second).run()

    assert len(first.tasks) == 3
    assert len(second.tasks) == 1
    assert not set(first.tasks) & set(second.tasks)
    whole = Runner(study, tmp_path / "other", HereAlone()).run()
    assert as_json(summary(resumed, [])) == as_json(summary(whole, []))


def test_nothing_of_another_run_is_taken_over(tmp_path: Path) -> None:
    """Another seed or setting finds none of the replications that lie there."""
    Runner(small("published"), tmp_path, HereAlone()).run()
    for study in (small("published", seed=21), small("published", slots=3)):
        counting = Counting()
        Runner(study, tmp_path, counting).run()
        assert len(counting.tasks) == study.replications


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up: finished replications stay whole, the rest is run when there is room."""
    study = small("one snapshot")
    real: Callable[[Path, bytes], None] = write_whole
    written: list[Path] = []

    def fill_up(path: Path, content: bytes) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(path, content)

    monkeypatch.setattr(finished_files, "write_whole", fill_up)
    with pytest.raises(SimschedError, match="disk is full"):
        Runner(study, tmp_path, HereAlone()).run()
    monkeypatch.undo()

    counting = Counting()
    Runner(study, tmp_path, counting).run()
    assert len(counting.tasks) == 2


def test_half_a_file_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old content, and no rubbish."""
    path = tmp_path / "file"
    write_whole(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        write_whole(path, b"new")

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_precision_adds_pairs_and_changes_no_own_number(tmp_path: Path) -> None:
    """More pairs narrow the saving; the variants' own numbers stay those of the fixed runs."""
    few = Study.load(STUDY, settings={"variant.safe.policy": "safe"})
    more = Study.load(STUDY, settings={"precision.target_ms": 4.0, "precision.most": 5})
    plain = Runner(few, tmp_path / "a", HereAlone()).run()
    precise = Runner(more, tmp_path / "b", HereAlone()).run()

    assert summary(precise, [])["variants"] == summary(plain, [])["variants"]
    widths = {}
    for name, variant in precise.variants.items():
        if variant.base is None:
            continue
        saving = precise.saving(name, "create_job_ms")
        assert saving is not None
        widths[name] = saving.saving
        assert saving.saving.replications == variant.pairs
        assert saving.saving.half_width <= 4.0 or variant.pairs == 5
    assert widths["nothing changed"].replications == 2
    assert max(saving.replications for saving in widths.values()) > 2


def test_load_is_the_share_of_the_tightest_resource(tmp_path: Path) -> None:
    """A rate set for a load keeps the pilot's tightest resource busy for about that share."""
    settings = {
        "quick.variants": ["published"], "load": 0.5, "horizon_s": 100, "sessions": 10_000,
        "replications": 1, "workload.duplicate_share": 0.0,
    }  # fmt: skip
    study = Study.load(STUDY, settings=settings, quick=True)
    pilot = pilots(study)["published"]
    run = Runner(study, tmp_path, HereAlone()).run()

    busy = run.variants["published"].replications[0].busy
    assert pilot.tightest == max(busy, key=lambda name: busy[name])
    # One run of a Poisson process that starts and ends empty: a rough agreement is all there is.
    assert 0.3 < busy[pilot.tightest] < 0.65


def test_variants_of_one_base_meet_the_same_sessions() -> None:
    """All variants of a base share its rate, unless one names another load."""
    settings = {"load": 0.5, "variant.one snapshot.load": 0.25}
    study = Study.load(STUDY, settings=settings)
    found = pilots(study)

    assert found["nothing changed"] == found["published"]
    assert found["safe"] == found["phase 2"]
    assert found["one snapshot"].sessions_per_s < found["published"].sessions_per_s
    assert pilots(study) == found


def test_the_window_decides_what_is_counted() -> None:
    """Operations that began outside the window leave no trace in the latencies."""
    scenario = small("published").variants[0].scenario
    result = simulate(scenario, seed=20)
    starts = result.operations["start_ns"]
    creations = result.operations["kind"] == int(OpKind.CREATE_JOB)
    middle = int(np.median(starts[creations]))

    late = measure(result, "x", scenario, Window(middle, None))
    early = measure(result, "x", scenario, Window(0, middle))
    latencies = result.operations["latency_ns"]
    for found, mine in ((late, starts >= middle), (early, starts < middle)):
        expected = float(latencies[creations & mine].mean()) / 1e6
        assert math.isclose(found.metrics["create_job_ms"], expected, rel_tol=1e-12)
    nothing = measure(result, "x", scenario, Window(result.ended_ns + 1, None))
    assert "create_job_ms" not in nothing.metrics
    assert late.digest == early.digest


def test_numbers_in_the_system_obey_littles_law() -> None:
    """Over a whole run: mean number in system = rate times mean sojourn, exactly."""
    scenario = small("safe").variants[-1].scenario
    result = simulate(scenario, seed=20)
    found = measure(result, "x", scenario, Window(0, None)).metrics

    jobs = len(result.jobs["status"])
    area = found["number_in_system"] * result.ended_ns / 1e6
    assert math.isclose(area, found["sojourn_ms"] * jobs, rel_tol=1e-9)


def test_a_short_run_has_no_warm_up() -> None:
    """Too few observations for MSER-5: nothing is cut, and the window says it did not settle."""
    scenario = small("published").variants[0].scenario
    window = find_window([simulate(scenario, seed=20)], None)

    assert (window.start_ns, window.settled) == (SETTLE_NS, False)


def test_warm_up_can_be_given(tmp_path: Path) -> None:
    """An override counts from the first moment at which sessions may come."""
    run = Runner(small("published", warmup__end_s=2), tmp_path, HereAlone()).run()

    assert run.windows["published"].start_ns == SETTLE_NS + 2_000_000_000
    assert run.windows["published"].method == "given"


def test_a_worker_that_fails_or_dies_says_so(tmp_path: Path) -> None:
    """An error keeps its traceback and place; a killed process is one line, and nothing hangs."""
    study = small("published")
    runner = Runner(study, tmp_path, HereAlone())
    task = runner._task("published", 0)
    broken = dataclasses.replace(task, scenario=None)  # type: ignore[arg-type]
    with (
        LocalProcesses(1) as workers,
        pytest.raises(RuntimeError, match="in variant 'published', replication 0"),
    ):
        list(workers.finished([broken]))
    with LocalProcesses(1) as workers:
        results = workers.finished([task, task, task])
        assert next(results).variant == "published"
        next(iter(workers._workers.values())).kill()
        with pytest.raises(SimschedError, match="worker process was killed"):
            list(results)


def test_a_dask_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two workers of a local cluster run what one process runs."""
    distributed = pytest.importorskip("distributed")
    study = small("one snapshot", keep_steps=False)
    here = Runner(study, tmp_path / "here", HereAlone()).run()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        DaskCluster(cluster.scheduler_address) as workers,
    ):
        there = Runner(study, tmp_path / "there", workers).run()

    assert as_json(summary(there, [])) == as_json(summary(here, []))


def test_the_run_directory_is_complete(directory: Path) -> None:
    """Every table is there, opens as a DataFrame, and names variant and replication."""
    run = simsched.load(directory)

    for name in ("jobs", "operations", "steps", "locks", "redis", "calls", "metrics"):
        table = getattr(run, name)
        assert len(table), name
        assert {"variant", "replication"} <= set(table.columns), name
    assert set(run.steps["replication"]) == {0}
    assert set(run.jobs["replication"]) == {0, 1}
    assert set(run.jobs["variant"]) == {"published", "one snapshot", "phase 2", "safe"}
    assert pq.read_schema(directory / "steps.parquet").field("wait_ns").type == "int64"
    assert "<html" in run.report.read_text(encoding="utf-8")
    assert not list(directory.glob(".*"))
    assert run.manifest["digest"] == run.summary["digest"]
    assert run.manifest["study"]["variants"][0]["scenario"]["nodes"] == 6


def test_the_summary_follows_its_schema(directory: Path) -> None:
    """`summary.json` says what docs/studies.md says, as the schema has it."""
    text = (directory / "summary.json").read_text(encoding="utf-8")
    found, schema = json.loads(text), json.loads(SCHEMA.read_text(encoding="utf-8"))

    assert list(faults(found, schema, schema)) == []
    assert text == as_json(found).decode()
    created = found["variants"]["published"]["calls"]["create_job.phase1"]
    assert created["get_snapshot"]["most"] >= created["get_snapshot"]["mean"] > 0
    assert [v["variant"] for v in found["verdicts"]] == ["one snapshot", "safe"]
    broken = {**found, "digest": "none", "extra": 1}
    assert len(list(faults(broken, schema, schema))) == 2


def faults(value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """What a value has against a JSON schema; knows the few words that ours uses."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        schema = whole["$defs"][reference.rsplit("/", 1)[1]]
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float),
             "integer": int, "null": type(None)}  # fmt: skip
    allowed = schema.get("type", list(kinds))
    names = [allowed] if isinstance(allowed, str) else allowed
    if not any(isinstance(value, kinds[name]) for name in names):
        yield f"{value!r} is none of {names}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is none of {schema['enum']}"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{value!r} is too short"
    if isinstance(value, list) and isinstance(inner := schema.get("items"), dict):
        for item in value:
            yield from faults(item, inner, whole)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        yield from (
            f"{name} is missing" for name in schema.get("required", []) if name not in value
        )
        for name, item in value.items():
            part = known.get(name, rest)
            if part is False:
                yield f"{name} is unknown"
            elif isinstance(part, dict):
                yield from faults(item, part, whole)


def replication(number: int, count: int) -> Replication:
    return Replication(
        variant="v", replication=number, digest="", metrics={"m": float(number)}, steps=[],
        calls={}, violations={"I1": count}, checked={}, examples=[], conservation={}, counters={},
        cuts=None, jobs=10, sessions=1, simulated_ns=1,  # type: ignore[arg-type]
    )  # fmt: skip


def test_breaking_an_invariant_more_often_is_unsafe() -> None:
    """New violations always count, more of the same only by a paired interval above 0."""

    def run(*counts: int) -> VariantRun:
        rows = [replication(number, count) for number, count in enumerate(counts)]
        return VariantRun("v", None, rows)

    assert broken_more(run(0, 1, 0), run(0, 0, 0)) == ["I1"]
    assert broken_more(run(5, 6, 5), run(1, 1, 1)) == ["I1"]
    assert broken_more(run(1, 2, 0), run(1, 1, 1)) == []
    assert broken_more(run(0, 0, 0), run(1, 1, 1)) == []


def test_one_run_says_nothing_of_what_compares_two(directory: Path) -> None:
    """No count, no zero and no rate of I14 in a variant's numbers; all others are there."""
    found = simsched.load(directory).summary["variants"]["safe"]
    names = [*(f"I{number}" for number in range(1, 14)), "I15", "conservation"]

    assert sorted(found["violations"]) == sorted(names)
    rates = [name for name in found["metrics"] if name.endswith("_per_100k")]
    assert sorted(rates) == sorted(f"{name}_per_100k" for name in names)


def test_own_numbers_and_pairs_are_kept_apart() -> None:
    """Replications beyond the fixed number count for pairs alone, up to each comparison's own."""
    rows = [replication(number, 0) for number in range(6)]
    run = StudyRun(
        "s", 1,
        {
            "base": VariantRun("base", None, rows, fixed=2, pairs=2),
            "wide": VariantRun("wide", "base", rows[:4], fixed=2, pairs=4),
            "near": VariantRun("near", "base", rows[:6], fixed=2, pairs=3),
        },
    )  # fmt: skip

    counts = {name: run.saving(name, "m") for name in ("wide", "near")}
    assert {n: p and p.saving.replications for n, p in counts.items()} == {"wide": 4, "near": 3}
    for variant in run.variants.values():
        found = variant.estimate("m")
        assert found is not None
        assert (found.replications, found.estimate) == (2, 0.5)


def test_runs_are_compared_with_an_interval() -> None:
    """Same seed: paired; other seeds: Welch's; one replication: no interval, and it says so."""
    one, other = {0: 1.0, 1: 3.0, 2: 5.0}, {0: 0.0, 1: 2.0, 2: 4.0}

    assert difference(one, other, paired_by_replication=True) == "1"
    assert difference(one, other, paired_by_replication=False) == "1 +- 5"
    assert "no interval" in difference({0: 1.0}, {0: 2.0}, paired_by_replication=False)
    # Textbook: equal spreads and counts give 2 (n - 1) degrees of freedom.
    width = welch([1, 3, 5], [0, 2, 4]).half_width
    assert math.isclose(width, 2.776445 * math.sqrt(8 / 3), rel_tol=1e-6)
