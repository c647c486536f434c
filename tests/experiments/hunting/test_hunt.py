"""The hunt: the same schedules for everybody, small cases, and words that can be followed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from simsched.cases import Case, System, Turn, read_case
from simsched.cli import main
from simsched.experiments.hunting.causes import Cause, cause_of
from simsched.experiments.hunting.coverage import covered, possible, table
from simsched.experiments.hunting.draw import (
    CALM_AFTER_MS,
    CALM_TURNS,
    SIZES,
    draw_case,
    hunted_policy,
)
from simsched.experiments.hunting.search import Found, Hunt, HuntFailed, Tally, search
from simsched.experiments.hunting.shrink import shrink
from simsched.experiments.hunting.telling import parting, progress, story
from simsched.faults import KINDS, Fault
from simsched.findings import Violation
from simsched.models import hunted
from simsched.models.hunted import Played
from simsched.models.tape import Tape

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


@pytest.mark.parametrize("number", range(12))
def test_the_last_words_of_a_schedule_come_when_all_is_whole(number: int) -> None:
    """After the last fault that has a time; so a schedule shows what its faults left behind."""
    case, _ = draw_case("safe", 1, number, "small")
    ends = [fault.at_ms + fault.for_ms for fault in case.faults if not fault.is_at_step]
    late = [turn.at_ms for turn in case.turns[-CALM_TURNS:]]
    assert min(late) >= case.system.calm_ms + CALM_AFTER_MS
    assert case.system.calm_ms >= max(ends, default=0)
    assert max(turn.at_ms for turn in case.turns[:-CALM_TURNS]) < SIZES["small"]["span_ms"]


def test_nothing_departs_or_breaks_any_more_once_all_is_calm() -> None:
    """Neither a tape that draws nor a fault that still waits for its step."""
    case, rates = draw_case(hunted_policy("safe"), 1, 3, "small")
    tape, departs = Tape.drawing(case.seed, dict.fromkeys(rates, 0.3)), []
    world = hunted.HuntedWorld(case, tape)
    usual = tape.on_departure

    def noted(label: str, value: int) -> None:
        departs.append(world.kernel.now)
        usual(label, value)

    tape.on_departure = noted
    world.run()
    calm_ns = hunted.START_NS + case.system.calm_ms * 10**6
    assert departs
    assert max(departs) <= calm_ns


def test_ties_are_choices_like_any_other() -> None:
    """What is due at the same instant goes in another order, and does so again in a replay."""
    case, _ = draw_case(hunted_policy("safe"), 1, 3, "small")
    straight = hunted.play(case)
    shuffled = hunted.play(case, tape=Tape.drawing(1, {"tie": 0.5}))
    assert shuffled.tape
    assert {label.partition(" ")[0] for label in shuffled.tape} == {"tie"}
    assert shuffled.digest != straight.digest
    assert hunted.play(case, tape=Tape(shuffled.tape)).digest == shuffled.digest


def test_fault_points_of_the_core_are_choices_like_any_other() -> None:
    """Rare paths are taken, by name; `safe` keeps its promises on them."""
    names, broken = set(), []
    for number in range(4):
        case, _ = draw_case(hunted_policy("safe"), 1, number, "small")
        played = hunted.play(case, tape=Tape.drawing(number, {"point": 0.3}))
        names |= {label.split(" ", 2)[2].rpartition(" ")[0] for label in played.tape}
        broken += played.violations
    assert {"wake lost", "no candidate", "node unreachable", "completion waits"} <= names
    assert not broken


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


class Deadly(str):
    """A policy that ends the process which it is sent to."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (3,)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_hunt_that_fails_names_the_schedule(jobs: int) -> None:
    """In one line, whichever process it was in."""
    hunt = Hunt(policy="nonsense", schedules=10, seed=5)
    with pytest.raises(HuntFailed, match=r"^schedule 0 of seed 5 \(nonsense\) .*ConfigError: "):
        search(hunt, jobs=jobs, limit_s=0, first=False, tell=lambda *_: None)


def test_a_process_that_dies_is_one_line() -> None:
    """And says which schedules it may have been."""
    hunt = Hunt(policy=Deadly("safe"), schedules=20, seed=5)
    with pytest.raises(HuntFailed, match="schedules 0 to 19 of seed 5"):
        search(hunt, jobs=2, limit_s=0, first=False, tell=lambda *_: None)


def test_coverage_counts_the_pairs_that_are_possible() -> None:
    """Of a policy: `safe` takes no request lock, `published` makes no claim."""
    pairs = possible("safe")
    assert ("instance_crash", "redis.claim") in pairs
    assert ("instance_crash", "redis.set_nx_lock") not in pairs
    assert ("instance_crash", "redis.set_nx_lock") in possible("published")
    assert ("node_crash", "time") in pairs
    assert ("node_crash", "redis.claim") not in pairs
    hits = Counter({("instance_crash", "redis.claim"): 3, ("node_crash", "time"): 2,
                    ("instance_pause", "hangover"): 1})  # fmt: skip
    assert covered(hits, "safe") == (2, len(pairs))
    lines = table(hits, "safe")
    rows = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert rows["redis.claim"].endswith("| 3 |")
    assert rows["hangover"].endswith("| 1 |")
    assert rows["all"].endswith("| 6 |")
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_the_nearest_passing_run_goes_along_the_longest() -> None:
    """Of two events that are both needed, the later one is what is taken away."""
    case = read_case(Path(__file__).parents[2] / "cases" / "over-admission-after-a-heartbeat.toml")
    cause = next(cause_of(v) for v in hunted.play(case).violations if v.invariant == "I2")
    first, *ends = parting(case, cause)
    assert "it passes; after" in first
    assert [line.split()[0] for line in ends] == ["fails:", "passes:"]


def test_a_case_of_clients_alone_parts_from_a_run_with_one_utterance_less() -> None:
    """What a client does is an event like any other."""
    turns = tuple(Turn(client=n % 3, at_ms=1_000 + 40 * n) for n in range(5))
    policy = "published,job_timeout_ms=8000,pending_ms=3500,lease_ms=3000"
    system = System(slots=1, service_ms=4_500, heartbeat_ms=2_000, calm_ms=500, linger_ms=0)
    case = Case(policy=policy, seed=9, system=system, turns=turns)
    cause = cause_of(hunted.play(case).violations[-1])
    small = shrink(case, cause)
    assert not small.faults
    assert not small.tape
    assert "it passes; after" in parting(small, cause)[0]


def test_a_long_story_is_told_around_its_events_and_its_breach() -> None:
    """The middle that matters is there; `whole` leaves nothing out."""
    case = read_case(Path(__file__).parents[2] / "cases" / "lock-of-another.toml")
    whole = story(case, whole=True)
    told = story(case)
    at_ms = next(v.at_ns for v in hunted.play(case).violations if v.invariant == "I9") / 1e6
    events = [line for line in whole if " FAULT " in line or " DEPARTS " in line]
    assert len(events) == len(case.faults) + len(case.tape)
    assert set(events) <= set(told)
    assert any(line.startswith(f"{at_ms:10.1f}") for line in told)
    assert len(told) < len(whole)
    assert not any("..." in line for line in whole)


def test_a_case_is_kept_with_one_command_and_none_is_overwritten(tmp_path: Path) -> None:
    """Kept as it was found; once more is no harm; another one needs a name of its own."""
    cases = Path(__file__).parents[2] / "cases"
    one, other = cases / "lock-of-another.toml", cases / "retry-swallowed.toml"

    def keep(file: Path, name: str) -> int:
        words = ["hunt", "keep", str(file), "--to", str(tmp_path), "--as", name]
        return CliRunner().invoke(main, words, catch_exceptions=False).exit_code

    assert keep(one, "a") == 0
    assert read_case(tmp_path / "a.toml") == read_case(one)
    assert keep(one, "a") == 0
    assert keep(other, "a") == 2
    assert read_case(tmp_path / "a.toml") == read_case(one)
    assert keep(other, "b") == 0


def test_progress_fits_a_narrow_terminal() -> None:
    """A line that wraps would fill the screen."""
    hits = Counter(dict.fromkeys(possible("safe"), 1_000))
    tally = Tally(schedules=20_000, hits=hits, found={CAUSE: Found(1, 0)})
    line = progress(tally, 20_000, 200.0, "safe")
    assert "20000/20000 schedules, 100/s" in line
    assert len(line) < 80


def test_times_that_the_user_has_set_stay_in_schedules_of_long_jobs() -> None:
    """A time that begins with the same digits is another time."""
    policy = hunted_policy("safe,lease_ms=40000,job_timeout_ms=30000")
    cases = [draw_case(policy, 1, number, "small")[0] for number in range(40)]
    assert any(case.system.service_ms == 4_500 for case in cases)
    assert {case.policy for case in cases} == {policy}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("zork = 1", "case.toml: tape: zork"),
        ("'redis i-0 x' = 1", "ends with a number"),
        ("'redis i-0 x 1' = 0", "must be 1 or more"),
    ],
)
def test_a_tape_that_says_nothing_is_refused_by_label(tmp_path: Path, text: str, says: str) -> None:
    """The line names the file and the label."""
    file = tmp_path / "case.toml"
    file.write_text(f"policy = 'safe'\n[tape]\n{text}\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["hunt", "replay", str(file)], catch_exceptions=False)
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "saef"], "did you mean safe"),
        (["--schedules", "0"], "--schedules"),
        (["--size", "huge"], "small"),
        (["--seed", "-1"], "--seed"),
        (["--time", "-1"], "--time"),
        (["--jobs", "0"], "--jobs"),
        (["--policy", "safe,lease_ms=short"], "lease_ms"),
        (["--out", "FILE/out"], "cannot be written"),
        (["replay", "/nowhere.toml"], "cannot be read"),
        (["replay", "FILE"], "FILE"),
        (["keep", "FILE"], "FILE"),
        (["coverage", "FILE"], "is no hunt.json"),
        (["coverage", "/nowhere.json"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    """Exit code 2, and nothing is hunted."""
    file = tmp_path / "FILE"
    file.write_text("nothing of the kind", encoding="utf-8")
    words = [word.replace("FILE", str(file)) for word in words]
    result = CliRunner().invoke(main, ["hunt", *words], catch_exceptions=False)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.count("\n") == 1
