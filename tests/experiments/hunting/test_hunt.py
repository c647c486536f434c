"""The hunt: the same schedules for everybody, small cases, and words that can be followed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from simsched.cases import Case, Turn, read_case
from simsched.cli import main
from simsched.experiments.hunting.causes import Cause, cause_of
from simsched.experiments.hunting.draw import SIZES, draw_case, hunted_policy
from simsched.experiments.hunting.search import Hunt, search
from simsched.experiments.hunting.shrink import shrink
from simsched.faults import KINDS, Fault
from simsched.findings import Violation
from simsched.models.hunted import Played

BROKEN = Violation("I1", 0, "s-1", "s-1 has 2 jobs", "i-0")
CAUSE = cause_of(BROKEN)


def player(fails: Callable[[Case], bool]) -> Callable[[Case], Played]:
    """A world that breaks by a rule of ours."""

    def play(case: Case) -> Played:
        found = [BROKEN] if fails(case) else []
        return Played(
            violations=found, digest="", ended_ns=0, tape={}, hit={}, events=0, utterances=0
        )

    return play


def crowd(needed: set[int]) -> Case:
    """Twenty faults, twenty turns, ten departures; only some of them matter."""
    return Case(
        policy="safe",
        turns=tuple(Turn(client=0, at_ms=n, repeat_after_ms=n) for n in range(20)),
        faults=tuple(
            Fault(kind="node_hang", target="n-0", at_ms=n, for_ms=4_000) for n in range(20)
        ),
        tape={f"tie {n}": 1 for n in range(10)},
    )


@given(st.sets(st.integers(0, 19), max_size=5), st.sets(st.integers(0, 9), max_size=3))
def test_shrinking_keeps_what_matters_and_nothing_else(faults: set[int], ties: set[int]) -> None:
    """Whatever the failure needs: the result fails, and no event of it could go."""

    def fails(case: Case) -> bool:
        there = {fault.at_ms for fault in case.faults}
        return faults <= there and {f"tie {n}" for n in ties} <= set(case.tape)

    small = shrink(crowd(faults), CAUSE, player=player(fails))
    assert {fault.at_ms for fault in small.faults} == faults
    assert set(small.tape) == {f"tie {n}" for n in ties}
    assert small.turns == ()
    assert all(fault.for_ms < 200 for fault in small.faults)
    assert small.invariant == "I1"


def test_what_does_not_fail_stays_as_it_is() -> None:
    """Nothing is made of a case that breaks nothing."""
    case = crowd(set())
    assert shrink(case, CAUSE, player=player(lambda _: False)) == case


def test_names_and_numbers_do_not_make_another_cause() -> None:
    """The same breach elsewhere is the same; another one is not."""
    there = Violation("I1", 9, "s-2", "s-20A has 13 jobs", "i-1")
    assert cause_of(there) == CAUSE == Cause("I1", "X has # jobs")
    assert cause_of(Violation("I1", 9, "s-2", "s-2 has no jobs", "i-1")) != CAUSE


@pytest.mark.parametrize("size", [*SIZES, "both"])
def test_a_schedule_hangs_on_seed_and_number_alone(size: str) -> None:
    """The same for every policy, another one for every number; all its faults make sense."""
    one, rates = draw_case("safe", 1, 9, size)
    other, same = draw_case("published", 1, 9, size)
    assert (one.turns, one.faults, rates) == (other.turns, other.faults, same)
    assert draw_case("safe", 1, 8, size)[0].faults != one.faults
    kinds = set()
    for number in range(60):
        for fault in draw_case("safe", 1, number, size)[0].faults:
            fault.check("drawn")
            kinds.add(fault.kind)
    assert kinds == set(KINDS)


def test_small_schedules_are_as_small_as_promised() -> None:
    """2 instances, 3 nodes, 20 utterances, at least 5 faults."""
    for number in range(50):
        case, _ = draw_case("safe", 3, number, "small")
        assert (case.system.instances, case.system.nodes, len(case.turns)) == (2, 3, 20)
        assert len(case.faults) >= 5


def test_times_are_short_where_the_user_has_not_said_otherwise() -> None:
    """His own lease stays."""
    policy = hunted_policy("safe,lease_ms=70000")
    assert policy.startswith("safe,lease_ms=70000,")
    assert policy.count("lease_ms") == 1
    assert "job_timeout_ms=3000" in policy


def test_findings_do_not_depend_on_the_processes() -> None:
    """One or two: the same counts, hits and first schedules."""
    hunt = Hunt(policy=hunted_policy("published"), schedules=30, seed=5)
    alone, _ = search(hunt, jobs=1, limit_s=0, first=False, tell=lambda *_: None)
    spread, _ = search(hunt, jobs=2, limit_s=0, first=False, tell=lambda *_: None)
    assert alone == spread
    assert alone.schedules == 30
    assert alone.found


def test_a_hunt_shows_a_case_that_replays(tmp_path: Path) -> None:
    """Exit code 1, a file, a story, the parting and the command; the command shows it again."""
    out = tmp_path / "out"
    asked = ["hunt", "--policy", "published", "--schedules", "20", "--first", "--jobs", "1"]
    result = CliRunner().invoke(main, [*asked, "--out", str(out)])
    assert result.exit_code == 1, result.output
    assert "simsched hunt replay" in result.output
    files = sorted(out.glob("*.toml"))
    assert files
    summary = json.loads((out / "hunt.json").read_text())
    assert summary["hits"]
    for file in files[:2]:
        again = CliRunner().invoke(main, ["hunt", "replay", str(file), "--story"])
        assert again.exit_code == 1
        assert read_case(file).invariant in again.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "saef"], "did you mean safe"),
        (["--schedules", "0"], "--schedules"),
        (["--size", "huge"], "small"),
        (["replay", "/nowhere.toml"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    """Exit code 2, and nothing is hunted."""
    result = CliRunner().invoke(main, ["hunt", *words], catch_exceptions=False)
    assert result.exit_code == 2
    assert says in result.output
