"""What a saving is called, and what makes a proposal unsafe."""

from __future__ import annotations

import pytest

from simsched.experiments.figures import figures
from simsched.experiments.report_verdicts import (
    MIXED,
    all_judged,
    breaches,
    judge,
    judge_proposal,
    saving,
    stage_promises,
    upper_bound_per_100k,
    worst,
)
from tests.experiments.study_runs import cuts_of, study_run, variant

ONE = "phase2/published+1"
TWO = "phase2/published+2"
BASE = "phase2/published"


@pytest.mark.parametrize(
    ("saved", "word"),
    [((1.0, 1.1, 0.9), "less"), ((30.0, 31.0, 29.0), "confirmed"), ((90.0, 91.0, 89.0), "more"),
     ((8.0, 9.0, 10.0), "confirmed")],
)  # fmt: skip
def test_the_interval_is_held_against_the_promise(saved: tuple[float, ...], word: str) -> None:
    """Below is less, above is more, and touching the promised range is confirmed."""
    run = study_run(variant(ONE, BASE, {"create_job_ms": saved}))
    judged = judge(run, ONE, "create_job_ms", (10, 50))
    assert judged is not None
    assert judged.verdict == word


def test_a_violation_that_the_base_has_not_is_unsafe() -> None:
    """Whatever it saves, breaking what the base keeps is unsafe."""
    broken = [{"I1": 1}, {}, {}]
    run = study_run(variant(ONE, BASE, {"create_job_ms": (30, 31, 29)}, violations=broken))
    judged = judge(run, ONE, "create_job_ms", (10, 50))
    assert judged is not None
    assert judged.verdict == "unsafe"
    assert judged.as_row()["violations_per_100k"] == pytest.approx(100_000 / 300)


def test_a_fault_of_the_base_is_not_blamed_on_the_variant() -> None:
    """As many violations as the base, give or take chance, are the base's own."""
    run = study_run(variant(ONE, BASE, violations=[{"I6": 2}, {"I6": 3}, {"I6": 1}]))
    run.variants[BASE] = variant(BASE, None, violations=[{"I6": 2}, {"I6": 2}, {"I6": 2}])
    assert breaches(run, ONE) == ()


def test_breaking_more_often_is_unsafe_by_the_paired_interval() -> None:
    """The base breaks it too, but always less: the interval of the difference lies above 0."""
    run = study_run(variant(ONE, BASE, violations=[{"I6": 12}, {"I6": 13}, {"I6": 12}]))
    run.variants[BASE] = variant(BASE, None, violations=[{"I6": 2}, {"I6": 2}, {"I6": 2}])
    (breach,) = breaches(run, ONE)
    assert (breach.invariant, breach.base_count) == ("I6", 6)
    assert breach.more_per_100k.low > 0


def test_other_cuts_than_the_base_break_i14() -> None:
    """Equal speech has to be cut equally: one utterance of another size is a difference."""
    name = "phase1/published+3"
    run = study_run(variant(name, "phase1/published", sizes=(10, 50)))
    (breach,) = breaches(run, name)
    assert (breach.invariant, breach.count, breach.out_of) == ("I14", 6, 9)


def test_one_session_cut_otherwise_by_chance_is_no_breach() -> None:
    """A cut on the edge of a pause may fall either way: one replication of three proves nothing."""
    name = "phase1/published+1"
    run = study_run(variant(name, "phase1/published"))
    run.variants[name].replications[1].cuts = cuts_of((10, 50))
    assert breaches(run, name) == ()


def test_a_policy_with_a_cutting_rule_of_its_own_is_not_held_to_the_bases_cuts() -> None:
    """`safe` cuts otherwise on purpose; what it cuts is judged by I13, not by likeness."""
    run = study_run(variant("phase1/safe", "phase1/published", sizes=(10, 50)))
    assert breaches(run, "phase1/safe") == ()


def test_doubles_under_repeats_speak_against_the_proposal_and_its_stages() -> None:
    """Proposal 2 is judged with repeated requests too, and a stage by its members."""
    repeat = "repeat/5ms/published"
    run = study_run(
        variant(TWO, BASE, {"create_job_ms": (6, 7, 5)}),
        variant("phase2/stage1", BASE, {"create_job_ms": (30, 31, 29)}),
        variant("phase2/published+2s", BASE, {"create_job_ms": (4, 5, 3)}),
        variant(repeat, None),
        variant(f"{repeat}+2", repeat, violations=[{"I1": 20}, {"I1": 21}, {"I1": 19}]),
        variant(f"{repeat}+2s", repeat),
    )
    proposal = figures().proposal[1]
    words = [judge_proposal(run, proposal, 2, form) for form in ("", "s")]
    assert [one and one.verdict for one in words] == ["unsafe", "confirmed"]
    stage = judge(run, "phase2/stage1", "create_job_ms", (12, 60))
    assert stage is not None
    assert stage.verdict == "unsafe"


def test_the_mixed_sum_adds_the_three_operations() -> None:
    """As the report adds them: creation, chunk and result of each replication."""
    saves = {"create_job_ms": (30, 31, 29), "audio_chunk_ms": (4, 4, 4), "job_result_ms": (2, 2, 2)}
    run = study_run(variant("phase1/stage2", "phase1/published", saves))
    mixed = saving(run, "phase1/stage2", MIXED)
    assert mixed is not None
    assert mixed.estimate == pytest.approx(36)
    assert mixed.half_width == pytest.approx(2.484, abs=1e-3)


def test_stages_promise_what_the_report_adds_up() -> None:
    """The sums are the report's; the parts of other operations are those of their proposals."""
    assert dict(stage_promises(1)) == {"create_job_ms": (12, 60), MIXED: (12, 60)}
    assert dict(stage_promises(3))[MIXED] == (21, 96)
    assert dict(stage_promises(2))["audio_chunk_ms"] == (2, 6)


def test_rows_have_the_fields_of_the_summary() -> None:
    """One row per proposal, safe form and stage that was run, with plain numbers."""
    run = study_run(variant(ONE, BASE, {"create_job_ms": (30, 31, 29)}))
    (row,) = [judged.as_row() for judged in all_judged(run)]
    assert set(row) == {
        "variant", "metric", "saves_ms", "half_width_ms", "promised_ms", "verdict",
        "violations_per_100k",
    }  # fmt: skip
    assert row["saves_ms"] == pytest.approx(30)
    assert row["promised_ms"] == [10, 50]


def test_zero_seen_is_bounded_by_three_over_n() -> None:
    """300 jobs without a violation allow at most 1 in 100."""
    assert upper_bound_per_100k(variant(ONE, BASE)) == pytest.approx(1_000)


def test_the_worst_verdict_counts() -> None:
    """Nothing judged is undecided."""
    assert worst([]) == "undecided"
