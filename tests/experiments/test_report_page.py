"""The page: complete in both languages, the same bytes again, and true to its run."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

from simsched.errors import ConfigError
from simsched.experiments.figures import figures
from simsched.experiments.intervals import Estimate
from simsched.experiments.report import all_tables, answer
from simsched.experiments.report_answers import answers
from simsched.experiments.report_appendices import calls, locks, redis
from simsched.experiments.report_findings import claim, danger, pauses, proposals
from simsched.experiments.report_tables import issues, safety, shown, sums
from simsched.experiments.results import summary
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
    assert "gets two jobs" in line.text
    assert "Approve 1, 2s (saves 11.5 ± 1.2 ms), 3, 4 instead" in line.text


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


def page_text(run: StudyRun, folder: Path, lang: str = "en") -> str:
    answer(run, None, folder, lang)
    return unescape((folder / "report.html").read_text(encoding="utf-8"))


def quick_run(saves: tuple[float, float, float]) -> StudyRun:
    """Proposal 1 in phase 2 alone, asked for with `--quick`."""
    name = "phase2/published+1"
    run = study_run(variant(name, "phase2/published", {"create_job_ms": saves}))
    run.quick, run.command = True, "simsched experiment run report --seed 1 --quick --set 'a b=1'"
    return run


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_and_the_summary_name_the_same_digest(
    run: StudyRun, tmp_path: Path, lang: str
) -> None:
    """Whoever compares a page with a run directory compares one fingerprint."""
    assert f"<code>{summary(run, [])['digest']}</code>" in page_text(run, tmp_path, lang)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_quick_page_says_so_and_repeats_the_commands_own_line(
    tmp_path: Path, lang: str
) -> None:
    """The rough form at the top, words instead of dashes, and the line that the command printed."""
    run = quick_run((30, 31, 29))
    say = Wording(lang)
    text = page_text(run, tmp_path, lang)
    assert f'<p class="rough">{say("page.rough")}</p>' in text
    assert f"<code>{run.command}</code>" in text
    left_out = say("not_quick")
    assert issues(run, say).rows[5][4:] == (left_out, left_out)
    assert sums(run, say).rows[0][3:] == (left_out, left_out)
    assert claim(run, say).rows[0][3:] == (left_out,) * 3


def test_the_whole_study_is_not_called_rough(run: StudyRun, tmp_path: Path) -> None:
    """Only the quick form carries the warning."""
    text = page_text(run, tmp_path)
    assert EN("page.rough") not in text
    assert EN("not_quick") not in text


@pytest.mark.parametrize(
    ("saves", "words"),
    [((30, 31, 29), "confirmed"), ((-10, 5, 20), "confirmed, not told from 0")],
)
def test_a_saving_that_may_be_zero_is_not_plainly_confirmed(
    saves: tuple[float, float, float], words: str
) -> None:
    """The verdict stands by its definition; its words say that 0 fits as well."""
    (row,) = proposals(quick_run(saves), EN).rows
    assert row[-1] == words


def test_the_bound_of_zero_is_that_of_the_jobs_beside_it(tmp_path: Path) -> None:
    """Each phase has its own number of jobs and three over that number."""
    name = "phase1/published+1"
    run = quick_run((30, 31, 29))
    run.variants[name] = variant(name, "phase1/published", jobs=1_000)
    text = page_text(run, tmp_path)
    for phase, jobs, bound in ((1, "3,000", "100"), (2, "300", "1,000")):
        assert f"phase {phase}: 0 in {jobs} jobs, so at most {bound} per 100,000" in text


def test_more_than_promised_is_counted_apart() -> None:
    """Only less and unsafe are promises that are not borne out."""
    line = answers(quick_run((90, 91, 89)), EN)[2]
    assert line.text.startswith("0 of 1 promises")
    assert "1 save more than promised" in line.text


def test_safe_breaks_none_or_some_but_never_zero_times() -> None:
    """Breaches elsewhere, as under repeated requests, count as well."""
    safe = variant("phase2/safe", "phase2/published")
    assert "breaks no invariant here (300 jobs:" in answers(study_run(safe), EN)[4].text
    repeat = "repeat/5ms/published"
    broken = variant("repeat/5ms/safe", repeat, violations=[{"I1": 2}] * 3)
    run = study_run(safe, variant(repeat, None), broken)
    assert "but broke invariants 6 times" in answers(run, EN)[4].text


def test_the_excess_over_the_base_is_what_counts() -> None:
    """What the base breaks too is taken off, replication by replication."""
    run = study_run(
        variant(
            "phase2/published+1",
            "phase2/published",
            violations=[{"I6": 12}, {"I6": 13}, {"I6": 12}],
        )
    )
    run.variants["phase2/published"] = variant("phase2/published", None, violations=[{"I6": 2}] * 3)
    (row,) = proposals(run, EN).rows
    assert row[-2:] == ("10,300", "unsafe")


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [(83.3333333, 0.0, "83.33 ms"), (0.0, 0.0, "0 ms"), (162.88, 0.22, "162.9 ± 0.2 ms"),
     (25.91, 0.14, "25.91 ± 0.14 ms"), (83.33333, 1e-9, "83.33 ± 0.01 ms"),
     (-0.004, 0.001, "0.00 ± 0.01 ms"), (1470.0, 220.0, "1470 ± 220 ms"),
     (1470.04, 0.02, "1470 ± 1 ms"), (145.0, 5.0, "145 ± 5 ms")],
)  # fmt: skip
def test_figures_have_four_digits_at_most(value: float, half_width: float, text: str) -> None:
    """No more than anybody can act on; no interval where all replications gave the same."""
    found = Estimate(
        estimate=value, half_width=half_width, replications=3, method="paired t", unit="ms"
    )
    assert shown(found) == text


def test_chinese_sentences_end_in_chinese(run: StudyRun, tmp_path: Path) -> None:
    """No Latin full stop after a value, and a word on sources that stay in their language."""
    text = page_text(run, tmp_path, "zh")
    assert not re.search(r" ms\.(?:\s|<|$)", text)
    assert "按原文" in text


def test_every_stage_has_a_card_with_its_reason(run: StudyRun, tmp_path: Path) -> None:
    """A stage is unsafe because of a proposal, in words, with weeks, effort, risk and evidence."""
    text = page_text(run, tmp_path)
    for stage in (1, 2, 3):
        assert f'id="card-stage{stage}"' in text
    assert "Not safe: proposal 2, because a request that reaches both instances" in text
    assert "1–2 weeks (stage 1)" in text
    assert "proposal 2: low (local)" in text


def test_the_end_of_the_danger_is_told(run: StudyRun, tmp_path: Path) -> None:
    """The longest gap with doubles and the first without, on the card."""
    assert danger(run, "published+2") == (0, 150)
    assert "up to a repeat after 0 ms, none from 150 ms on" in page_text(run, tmp_path)


def test_what_no_proposal_mends_is_an_answer_of_its_own() -> None:
    """Fewer jobs under the other rule on pauses: a line with its share, and a table."""
    held = variant("phase2/published,pause_cut=held", "phase2/published", jobs=60)
    run = study_run(held, variant("phase2/published+1", "phase2/published"))
    line = answers(run, EN)[-1]
    assert line.evidence == "pauses"
    assert "40" in line.text
    assert "None of the six proposals" in line.text
    assert [row[0] for row in pauses(run, EN).rows] == [
        "published", "published+1", "published,pause_cut=held",
    ]  # fmt: skip
    assert len(answers(study_run(), EN)) == 5


def test_one_replication_has_no_interval_in_any_language() -> None:
    """A figure of one run says so in the same words everywhere."""
    one = Estimate(
        estimate=12.34, half_width=float("inf"), replications=1, method="paired t", unit="ms"
    )
    assert shown(one) == "12.34 ms (n = 1)"


def test_a_loss_is_never_called_a_saving() -> None:
    """A negative saving is a cost in the answer's words."""
    name = "phase2/published+5"
    run = study_run(variant(name, "phase2/published", {"create_job_ms": (-3, -3.1, -2.9)}))
    text = answers(run, EN)[1].text
    assert "proposal 5 saves nothing, it costs 3.0" in text
