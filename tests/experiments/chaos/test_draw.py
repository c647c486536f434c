"""Drawn schedules: the same for everybody, often enough, and possible; and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import structs

from simsched.cases import Case, Turn, case_text, read_case
from simsched.cli import main
from simsched.errors import ConfigError
from simsched.experiments.chaos.breaking import KINDS_DONE
from simsched.experiments.chaos.command import check_live
from simsched.experiments.chaos.draw import draw_case, live_kinds
from simsched.faults import KINDS, Fault, target_kind
from simsched.models.hunted import play

ASKED: dict[str, Any] = {"instances": 3, "nodes": 6, "sessions": 20}


def drawn(seed: int = 1, duration_s: int = 120, every_kind: int = 2) -> Case:
    return draw_case(seed=seed, duration_s=duration_s, every_kind=every_kind, **ASKED)


def test_the_same_seed_gives_the_same_file() -> None:
    """Byte for byte, and another seed another one."""
    assert case_text(drawn(seed=4)) == case_text(drawn(seed=4))
    assert case_text(drawn(seed=4)) != case_text(drawn(seed=5))


def test_a_drawn_file_is_read_back_as_the_same_case(tmp_path: Path) -> None:
    """So that what was drawn can be repeated."""
    file = tmp_path / "case.toml"
    file.write_text(case_text(drawn()), encoding="utf-8")
    assert read_case(file) == drawn()


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_comes_so_often_on_every_sort_of_target(seed: int) -> None:
    """No less, and nothing that a process cannot be given."""
    case = drawn(seed, every_kind=3)
    counts = Counter((fault.kind, target_kind(fault.target)) for fault in case.faults)
    assert counts == dict.fromkeys(live_kinds(), 3)
    check_live(case, "drawn")


def test_every_live_kind_of_the_catalogue_can_be_done() -> None:
    """The catalogue says what processes can be given; the breaker does exactly that."""
    assert set(KINDS_DONE) == {name for name, kind in KINDS.items() if kind.live}


@pytest.mark.parametrize("seed", range(5))
def test_no_target_is_hit_while_it_is_being_hit(seed: int) -> None:
    """What is dead cannot be killed: each fault finds its target whole."""
    until: dict[str, int] = {}
    for fault in drawn(seed, every_kind=4).faults:
        holder = "redis" if fault.target.endswith("redis") else fault.target.partition("/")[0]
        assert fault.at_ms >= until.get(holder, 0)
        until[holder] = fault.at_ms + fault.for_ms


def test_too_much_for_the_time_is_refused() -> None:
    """With the two options that decide it."""
    with pytest.raises(
        ConfigError, match=r"--duration.*longer, or --every-kind less: 70 faults .* 20 s"
    ):
        drawn(duration_s=20, every_kind=5)


def test_a_drawn_schedule_plays_in_the_simulated_world_too() -> None:
    """The same file, the same words."""
    case = draw_case(
        seed=2, duration_s=30, instances=2, nodes=3, sessions=2, every_kind=0, policy="safe"
    )
    fault = Fault(kind="node_crash", target="n-1", at_ms=3_000, for_ms=500)
    played = play(structs.replace(case, faults=(fault,)))
    assert played.utterances == len(case.turns) > 5
    assert sum(played.hit.values()) == 1


TURN = (Turn(client=0, at_ms=0),)

REFUSED = {
    "step": (
        Case(policy="safe", turns=TURN, faults=(
            Fault(kind="instance_crash", target="i-0", step="redis.claim"),)),
        "fault 1: step: a time (at_ms): only `hunt replay` can hit redis.claim of i-0",
    ),
    "kind": (
        Case(policy="safe", turns=TURN, faults=(
            Fault(kind="node_hang", target="n-0", at_ms=1, for_ms=1),
            Fault(kind="clock_jump", target="redis", at_ms=1, by_ms=5),)),
        "fault 2: kind: a kind that processes can be given",
    ),
    "tape": (
        Case(policy="safe", turns=TURN, tape={"redis i-0 REQUEST_LOCK 2": 3}),
        "[tape]: absent: only `hunt replay` can depart from first come, first served",
    ),
    "mode": (
        Case(policy="safe", turns=TURN,
             system=structs.replace(Case(policy="safe").system, mode="audio_chunk")),
        "system.mode: utterance for chaos, not audio_chunk",
    ),
    "nobody": (Case(policy="safe"), "turn: there at least once"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_only_a_simulator_can_do_is_refused_by_name(what: str, tmp_path: Path) -> None:
    """One line, exit code 2, and nothing was started or written."""
    case, words = REFUSED[what]
    file, out = tmp_path / "case.toml", tmp_path / "out"
    file.write_text(case_text(case), encoding="utf-8")
    result = CliRunner().invoke(main, ["chaos", str(file), "--out", str(out)])
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.count("\n") == 1
    assert not out.exists()


def test_a_case_says_all_of_it_by_itself(tmp_path: Path) -> None:
    """Options that draw a schedule do not go with one that is given."""
    file = tmp_path / "case.toml"
    file.write_text(case_text(Case(policy="safe", turns=TURN)), encoding="utf-8")
    result = CliRunner().invoke(main, ["chaos", str(file), "--every-kind", "3"])
    assert result.exit_code == 2
    assert "--every-kind" in result.output


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    """Nobody's recording is mixed with another run's."""
    (tmp_path / "mine.txt").write_text("mine")
    asked = ["chaos", "--duration", "20", "--every-kind", "0", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2
    assert "new or empty folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
