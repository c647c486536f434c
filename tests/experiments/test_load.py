"""The study `load`: overload is growth, never a mean; what is carried is certain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simsched.experiments.backlog import grows, steady
from simsched.experiments.load_answers import answer, points, sizes
from simsched.experiments.measure import measure
from simsched.experiments.runs import StudyRun, VariantRun, Window
from simsched.experiments.study import Study
from simsched.models.world import SETTLE_NS, simulate

CONFIGURATION = "reference/100/stage3"
RATES = {"0.1": 2.0, "0.3": 100.0}


@pytest.fixture(scope="module")
def study() -> Study:
    """The packaged study."""
    return Study.load("load")


@pytest.fixture(scope="module")
def run(study: Study) -> StudyRun:
    """One configuration at a trickle and far beyond its four favourite nodes."""
    variants = {}
    for load, rate in RATES.items():
        name = f"{CONFIGURATION}/{load}"
        scenario = study.variant(name).scenario
        workload = scenario.workload.with_rate(rate)
        scenario = replace(scenario, workload=workload, sessions=round(4 * rate) + 20)
        window = Window(SETTLE_NS, None)
        runs = [
            measure(simulate(scenario, seed=1, replication=r), name, scenario, window)
            for r in range(3)
        ]
        variants[name] = VariantRun(name=name, base=None, replications=runs)
    return StudyRun(study=study.name, seed=1, variants=variants)


def test_growth_is_found_under_overload_and_nowhere_else(run: StudyRun) -> None:
    """The trickle is steady; at a hundred a second the backlog grows by nearly all of them."""
    calm, flooded = (run.variants[f"{CONFIGURATION}/{load}"].own() for load in RATES)
    assert grows(calm, "system") is None
    assert steady(calm, "system")
    growth = grows(flooded, "system")
    assert growth is not None
    assert 50 < growth.estimate < 110
    assert not steady(flooded, "system")


def test_the_table_says_what_is_carried_and_what_breaks(run: StudyRun, study: Study) -> None:
    """The trickle is carried; cached choices of nodes break on single ones, others idle."""
    (size,) = sizes(points(run, study), 500, 8.8)
    assert size.best is not None
    assert size.over is not None
    assert (size.best.load, size.over.load) == (0.1, 0.3)
    assert size.over.broken_by == "single nodes"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_an_overloaded_point_has_no_mean_on_the_page(
    run: StudyRun, study: Study, tmp_path: Path, lang: str
) -> None:
    """The page shows growth instead, and is the same every time."""
    rows = answer(run, study, tmp_path, lang)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [row["variant"] for row in rows] == [CONFIGURATION]
    assert "overload" in page or "过载" in page
    answer(run, study, tmp_path, lang)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_what_nodes_begin_with_is_what_comes_in_where_nothing_piles_up(
    run: StudyRun, study: Study
) -> None:
    """The drain at the end of a run takes nothing off it."""
    calm, flooded = points(run, study)
    assert calm.throughput is not None
    assert calm.throughput.estimate == pytest.approx(RATES["0.1"], rel=0.35)
    assert flooded.throughput is not None
    assert flooded.throughput.estimate < 0.5 * RATES["0.3"]
