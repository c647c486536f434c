"""The study `root-cause`: what it says is what the runs show."""

from __future__ import annotations

from pathlib import Path

import pytest

from simsched.experiments.measure import measure
from simsched.experiments.root_cause import answer, connection_wait, losses, parts
from simsched.experiments.runs import StudyRun, VariantRun, Window
from simsched.experiments.study import Study
from simsched.models.world import SETTLE_NS, simulate

NAMES = ("shipped", "W1", "safe")


@pytest.fixture(scope="module")
def study() -> Study:
    """The packaged study."""
    return Study.load("root-cause", replications=2)


@pytest.fixture(scope="module")
def run(study: Study) -> StudyRun:
    """Two replications of three variants."""
    variants = {}
    for name in NAMES:
        variant = study.variant(name)
        window = Window(SETTLE_NS, None)
        runs = [
            measure(
                simulate(variant.scenario, seed=1, replication=r), name, variant.scenario, window
            )
            for r in range(2)
        ]
        variants[name] = VariantRun(name=name, base=variant.base, replications=runs)
    return StudyRun(study=study.name, seed=1, variants=variants)


def test_the_connection_dominates_as_shipped_and_not_with_its_own(run: StudyRun) -> None:
    """B1 and the lock behind it make a creation; an own connection leaves next to no waiting."""
    shipped, repaired = connection_wait(run, "shipped"), connection_wait(run, "W1")
    assert shipped is not None
    assert repaired is not None
    found = parts(run.variants["shipped"].own())
    whole = sum(part.wait_ms + part.own_ms for part in found)
    assert shipped.estimate > 0.6 * whole
    assert sum(part.own_ms for part in found) < 0.01 * whole
    assert repaired.estimate < 0.001 * shipped.estimate


def test_the_parts_of_a_creation_make_up_its_latency(run: StudyRun) -> None:
    """Step by step, waiting and work come to the latency, where nothing is left unfinished."""
    latency = run.variants["safe"].estimate("create_job_ms")
    assert latency is not None
    found = parts(run.variants["safe"].own())
    assert sum(part.wait_ms + part.own_ms for part in found) == pytest.approx(
        latency.estimate, rel=0.05
    )


def test_losses_are_counted_beside_the_means(run: StudyRun) -> None:
    """Fewer jobs than utterances come of a shipped run, none is lost by the safe design."""
    shipped, safe = losses(run, "shipped"), losses(run, "safe")
    assert shipped["finished"].estimate < safe["finished"].estimate
    assert safe["finished"].estimate == safe["cut"].estimate


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_written_and_every_change_judged(
    run: StudyRun, study: Study, tmp_path: Path, lang: str
) -> None:
    """One verdict per variant with a base; the page is the same every time."""
    rows = answer(run, study, tmp_path, lang)
    page = (tmp_path / "report.html").read_bytes()
    assert [row["variant"] for row in rows] == ["W1", "safe"]
    assert {row["verdict"] for row in rows} == {"saves"}
    assert answer(run, study, tmp_path, lang) == rows
    assert (tmp_path / "report.html").read_bytes() == page
