"""What docs/analysis.md promises: its blocks run in order, every table is as described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import simsched
from simsched.errors import SimschedError
from simsched.experiments.loading import Run
from tests.experiments.analysis_page import PAGE, blocks, played

TEXT = PAGE.read_text(encoding="utf-8")
TABLES = ("jobs", "operations", "steps", "locks", "redis", "calls", "metrics")


@pytest.fixture(scope="module")
def page() -> list[tuple[str, str | None, str, Any]]:
    """The page, run once."""
    return list(played(TEXT))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The page's study, as the page runs it."""
    out = tmp_path_factory.mktemp("analysis") / "run"
    return simsched.run(PAGE.with_name("analysis.toml"), out=out)


def described(table: str) -> list[str]:
    """The columns that the page lists for a table; suffixes like `_p95` are written out."""
    for section in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
        if f"`run.{table}`" not in section.splitlines()[0]:
            continue
        names: list[str] = []
        for cell, meaning in re.findall(r"^\| (`[^|]*) \| (.*) \|$", section, re.MULTILINE):
            for name in re.findall(r"`(\w+)`", cell):
                whole = f"{names[-1].rsplit('_', 1)[0]}{name}" if name[0] == "_" else name
                only = re.match(r"(operations|steps) only", meaning)
                if only is None or only[1] == table:
                    names.append(whole)
        return names
    raise AssertionError(f"the page does not describe run.{table}")


def numbers(text: str) -> list[float]:
    """Every number in an output."""
    return [float(found) for found in re.findall(r"(?<![\w-])-?\d+(?:\.\d+)?(?![\w-])", text)]


def words(text: str) -> list[str]:
    """Every name in an output: variants, columns, steps."""
    return re.findall(r"[A-Za-z_][\w./+-]*", text)


def test_every_block_runs_and_what_it_shows_has_the_shape_that_the_page_shows(
    page: list[tuple[str, str | None, str, Any]],
) -> None:
    """The page is a program: the same names and as many figures come out of it as it prints."""
    assert len(page) == len(blocks(TEXT)) > 6
    for code, shown, written, value in page:
        assert (shown or "") == "" or written, code
        assert words(written) == words(shown or ""), code
        assert len(numbers(written)) == len(numbers(shown or "")), code
        if isinstance(value, pd.DataFrame | pd.Series):
            assert len(value) > 1, code
            assert not value.isna().to_numpy().any(), code


def test_the_answers_are_what_the_page_says_of_them(
    page: list[tuple[str, str | None, str, Any]],
) -> None:
    """By hand and summary agree; each sentence that interprets a figure holds."""
    values = {code: (written, value) for code, _, written, value in page}

    def answer(part: str) -> tuple[str, Any]:
        (found,) = (pair for code, pair in values.items() if part in code)
        return found

    written, _ = answer("by hand")
    by_hand, from_summary = (numbers(line) for line in written.splitlines())
    assert by_hand == from_summary
    share = answer('rename("share")')[1]
    assert share["phase1/published"] > 1.5 * share["phase1/published+3"]
    locks = answer('xs("phase2/published")')[1]
    assert locks.hold_ms.idxmax() == "snapshot"
    assert (locks.wait_ms < 0.1 * locks.hold_ms).all()
    assert answer('"I13"')[1] > 0
    assert answer("late_s.sort_values")[1].iloc[0] > 1
    redis = answer("hold_ms=redis")[1]["count"]
    assert redis["phase2/published", "redis.get_binding"] == 3
    assert redis.xs("phase2/safe").to_dict() == {"redis.claim": 1}


@pytest.mark.parametrize("table", TABLES)
def test_the_page_describes_every_column(run: Run, table: str) -> None:
    """The columns of a table are those of the page, no more and no fewer."""
    assert sorted(getattr(run, table).columns) == sorted(
        ["variant", "replication", *described(table)]
    )


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_plain_to_work_with(run: Run, table: str) -> None:
    """Rows are numbered, variants come in the study's order, times are whole and not negative."""
    frame = getattr(run, table)
    assert len(frame)
    assert isinstance(frame.index, pd.RangeIndex)
    order = [variant["name"] for variant in run.manifest["study"]["variants"]]
    assert list(frame.variant.cat.categories) == order
    assert set(frame.variant) <= set(order)
    for name, column in frame.items():
        if str(name).endswith("_ns"):
            assert pd.api.types.is_integer_dtype(column.dtype), name
            assert not (column < 0).any(), name
        assert column.dtype != object, name


def test_a_moment_that_never_came_is_missing(run: Run) -> None:
    """No mean of moments can swallow a -1: jobs that never waited have no `queued_ns`."""
    jobs = run.jobs
    assert jobs.queued_ns.isna().any()
    completed = jobs[jobs.status == "completed"]
    assert completed.finished_ns.notna().all()
    assert (completed.ended_ns >= completed.created_ns).all()


def test_a_wrong_directory_or_a_table_that_was_not_kept_is_one_clear_line(tmp_path: Path) -> None:
    """The error names the place, and for steps the key to set."""
    with pytest.raises(SimschedError, match=r"nowhere: is no run directory"):
        simsched.load(tmp_path / "nowhere")
    with pytest.raises(SimschedError, match=r"no complete run directory: no manifest\.json"):
        simsched.load(tmp_path)
    bare = simsched.run(
        PAGE.with_name("analysis.toml"), out=tmp_path / "bare", replications=1,
        settings={"scenario.horizon_s": 10, "keep_steps": False},
    )  # fmt: skip
    with pytest.raises(SimschedError, match=r"steps\.parquet: .*keep_steps = true"):
        _ = bare.steps
