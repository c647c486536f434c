"""A run in which work piles up has a growth, and no mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from simsched.cli import main
from simsched.experiments.compare_page import answer, verdict_rows
from simsched.experiments.overloads import overloads_of
from simsched.experiments.runs import Replication, StudyRun, VariantRun, Window
from simsched.experiments.study import Study
from tests.golden.renew import STUDY


def replication(variant: str, number: int, growth: float) -> Replication:
    metrics = {
        "window_s": 100.0, "system_backlog": 50 * growth, "system_growth_per_s": growth,
        "create_job_ms": 100.0 + number, "jobs_per_s": 2.0,
    }  # fmt: skip
    return Replication(
        variant=variant, replication=number, digest="", metrics=metrics, steps=[], calls={},
        violations={}, checked={}, examples=[], conservation={}, counters={},
        cuts=None, jobs=100, sessions=1, simulated_ns=1,  # type: ignore[arg-type]
    )  # fmt: skip


def two_variants(growth: float) -> StudyRun:
    """A base that is steady, and a variant whose backlog grows."""
    made = {"published": 0.0, "one snapshot": growth}
    bases = {"one snapshot": "published"}
    return StudyRun(
        study="small", seed=1, windows={name: Window(0, None) for name in made}, pilots={},
        variants={
            name: VariantRun(
                name=name, base=bases.get(name), fixed=4, pairs=4,
                replications=[replication(name, r, slope * (1 + r / 10)) for r in range(4)],
            )
            for name, slope in made.items()
        },
    )  # fmt: skip


def small() -> Study:
    return Study.load(STUDY, quick=True, settings={"quick.variants": ["one snapshot"]})


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_growth_stands_where_a_mean_would(lang: str, tmp_path: Path) -> None:
    """On the page the growth with its interval, in no cell a latency, and no saving."""
    run = two_variants(3.0)
    answer(run, small(), tmp_path, lang)

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert list(overloads_of(run)) == ["one snapshot"]
    assert "3.4 ± 0.6" in page or "3.5 ± 0.6" in page
    assert page.count("101.5") == 1  # the base's own mean
    assert [row["verdict"] for row in verdict_rows(run, small())] == ["overload"]


def test_what_is_steady_is_no_overload() -> None:
    """Nothing grows: means stand, and savings are judged."""
    run = two_variants(0.0)

    assert overloads_of(run) == {}
    assert [row["verdict"] for row in verdict_rows(run, small())] == ["no difference"]


def test_more_than_is_possible_is_said_on_the_terminal(tmp_path: Path) -> None:
    """`load = 1.5`, in a run too short to prove it: the warning says what is missing."""
    words = [
        "--quick", "--jobs", "1", "--replications", "1", "--set", "load=1.5", "--set",
        "quick.variants=['one snapshot']", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = CliRunner().invoke(main, ["experiment", "run", str(STUDY), *words])

    assert done.exit_code == 0, done.output
    warning = next(line for line in done.stdout.splitlines() if line.startswith("overload"))
    assert warning.startswith("overload  published: ")
    assert "load 1.5" in warning or "backlog grows by" in warning
    row = next(line for line in done.stdout.splitlines() if line.startswith("published"))
    assert row.split()[1:6] == ["overload"] * 5
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Overload in published" in page
