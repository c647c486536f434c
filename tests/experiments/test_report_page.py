"""The page: complete in both languages, the same bytes again, and true to its run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

from simsched.errors import ConfigError
from simsched.experiments.figures import figures
from simsched.experiments.report import all_tables, answer
from simsched.experiments.report_findings import answers
from simsched.experiments.report_tables import calls, issues, locks, redis, safety, sums
from simsched.experiments.runs import StudyRun
from simsched.experiments.study import Study
from simsched.experiments.wording import LANGUAGES, TEXTS, Wording
from tests.experiments.study_runs import study_run, variant

POLICIES = (
    "published+1", "published+2", "published+3", "published+4", "published+5", "published+6",
    "published+2s", "published+3s", "published+6s", "stage1", "stage2", "stage3", "safe",
)  # fmt: skip


@pytest.fixture(scope="module")
def run() -> StudyRun:
    variants = [
        variant(f"phase{phase}/{policy}", f"phase{phase}/published",
                {"create_job_ms": (5 + place, 6 + place, 5.5 + place)})
        for phase in (1, 2)
        for place, policy in enumerate(POLICIES)
    ]  # fmt: skip
    for gap in (0, 150):
        repeat = f"repeat/{gap}ms/published"
        doubles = [{"I1": 20}] * 3 if not gap else [{}] * 3
        variants += [variant(repeat, None), variant(f"{repeat}+2", repeat, violations=doubles)]
    return study_run(*variants)


EN = Wording("en")


class Tags(HTMLParser):
    """Collects ids, links, and whether every element was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids += [named["id"] or ""] if "id" in named else []
        target = named.get("href") or named.get("xlink:href") or ""
        self.targets += [target] if target else []
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_both_languages_have_every_text_with_the_same_places() -> None:
    """A missing text or place would only show in the other language's page."""
    for message, (english, chinese) in TEXTS.items():
        places = [
            {name for _, name, _, _ in Formatter().parse(text) if name}
            for text in (english, chinese)
        ]
        assert places[0] == places[1], message
        assert english
        assert chinese


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_is_whole_and_needs_nothing_else(run: StudyRun, tmp_path: Path, lang: str) -> None:
    """Elements closed, ids unique, links inside the page, nothing fetched."""
    answer(run, None, tmp_path, lang)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert {target.removeprefix("#") for target in tags.targets} <= set(tags.ids)
    assert not re.search(r"<script|<link|<img|@import|src=", text)


def test_the_same_run_writes_the_same_bytes(run: StudyRun, tmp_path: Path) -> None:
    """No date, no random id in any picture."""
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        answer(run, None, tmp_path / name, "en")
        pages.append((tmp_path / name / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_chinese_rows_have_the_same_sections_and_figures(run: StudyRun) -> None:
    """Both languages show the same tables, by the report's section numbers, row by row."""
    pairs = zip(all_tables(run, EN), all_tables(run, Wording("zh")), strict=True)
    for english, chinese in pairs:
        assert (english.id, english.section) == (chinese.id, chinese.section)
        assert len(english.rows) == len(chinese.rows)
        assert len(english.columns) == len(chinese.columns)


def test_every_table_is_rectangular(run: StudyRun) -> None:
    """A row has as many cells as there are columns."""
    for table in all_tables(run, EN):
        assert {len(row) for row in table.rows} <= {len(table.columns)}, table.id


def test_section_4_has_all_eight_rows_with_the_reports_figures(run: StudyRun) -> None:
    """In the report's order; a switch that was not run shows a dash, never a zero."""
    table = issues(run, EN)
    assert len(table.rows) == len(figures().issue) == 8
    assert table.rows[0][3:] == ("10–50 ms", "5.5 ± 1.2 ms", "5.5 ± 1.2 ms")
    assert table.rows[5][4:] == ("–", "–")


def test_the_sums_count_the_snapshot_once(run: StudyRun) -> None:
    """Of 28-131 ms per creation only 13-65 are of that operation and counted once."""
    row = sums(run, EN).rows[0]
    assert row[1:3] == ("28–131 ms", "13–65 ms")


def test_appendix_a_shows_fewest_to_most_calls(run: StudyRun) -> None:
    """Phase 2 reads the binding three times, phase 1 never; a chunk reads its clock three times."""
    rows = {(row[1], row[0]): row for row in calls(run, EN).rows}
    assert rows["get_request_binding", "A.1"][3:7] == ("0", "0", "3", "3")
    assert rows["get_last_chunk_at_ms", "A.3"][3:7] == ("3", "3", "3", "3")


def test_appendix_b_has_hold_wait_and_contention(run: StudyRun) -> None:
    """Means and longest of all replications; a quarter of the holds had to wait."""
    row = next(row for row in locks(run, EN).rows if row[:2] == ("snapshot", "2"))
    assert row[3:] == ("26.00 ms", "20–50 ms", "78.00 ms", "0.10 ms", "1.00 ms", "low", "25.0 %")


def test_appendix_c_shows_what_the_report_leaves_out(run: StudyRun) -> None:
    """Its own rows first, their sum, then the operations it does not name, then all of them."""
    rows = redis(run, EN).rows
    assert rows[0][:3] == ("GET request_binding", "3", "3.00")
    names = [row[0] for row in rows]
    assert "redis.set_binding" in names
    assert "redis.fsm (dispatch)" in names
    assert rows[-1][2] == "5.00"


def test_zero_violations_are_printed_with_their_bound(run: StudyRun) -> None:
    """Nothing seen in 300 jobs is no more than 1,000 per 100,000."""
    row = next(row for row in safety(run, EN).rows if row[0] == "phase2/safe")
    assert row[1:] == ("300", "0", "0 (≤ 1,000)", "0 / 9")


def test_stages_1_and_2_are_not_approved_with_an_unsafe_proposal(run: StudyRun) -> None:
    """The first line says so, names it, and names what to approve instead."""
    line = answers(run, EN)[0]
    assert line.word == "Not as written"
    assert "proposal 2" in line.text
    assert "1, 2s, 3, 4" in line.text


def test_stages_1_and_2_are_approved_when_nothing_breaks(run: StudyRun) -> None:
    """The same numbers without doubles are a yes."""
    kept = {name: one for name, one in run.variants.items() if not name.startswith("repeat")}
    assert answers(StudyRun("report", 1, kept), EN)[0].word == "Yes"


def test_an_unknown_language_is_refused() -> None:
    """One line names what there is."""
    with pytest.raises(ConfigError, match="en, zh"):
        Wording("fr")


def test_the_study_states_both_phases_and_every_proposal() -> None:
    """The packaged study has each proposal, stage and safe form in both phases, at load 0.5."""
    study = Study.load("report")
    names = {one.name for one in study.variants}
    for phase in (1, 2):
        assert {f"phase{phase}/{policy}" for policy in POLICIES} <= names
    assert {one.load for one in study.variants if one.name.startswith("phase")} == {0.5}
    assert study.variant("phase2/safe").scenario.shared
    assert not study.variant("phase1/safe").scenario.shared
