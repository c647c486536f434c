"""Cases are values and files alike, and a wrong file says where and what would be right."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simsched.cases import Case, System, Turn, case_of, case_text, read_case
from simsched.errors import ConfigError
from simsched.faults import KINDS, MOMENTS, Fault, target_kind

NUMBERS = st.integers(0, 3_000)
TARGETS = {
    "instance": "i-1", "node": "n-2", "redis": "redis", "instance/redis": "i-0/redis",
    "node/instance": "n-1/instance", "client/instance": "c-4/instance",
}  # fmt: skip


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(sorted(KINDS)))
    target = TARGETS[draw(st.sampled_from(KINDS[kind].targets))]
    numbers: dict[str, Any] = {
        name: draw(st.integers(-9_000, 9_000) if name == "by_ms" else NUMBERS.map(lambda n: n + 1))
        for name in KINDS[kind].takes
    }
    if KINDS[kind].at_step and draw(st.booleans()):
        moment = draw(st.sampled_from(sorted(MOMENTS)))
        where: dict[str, Any] = {"step": "redis.claim", "nth": 2, "moment": moment}
    else:
        where = {"at_ms": draw(NUMBERS)}
    return Fault(kind=kind, target=target, **where, **numbers)


TURNS = st.builds(
    Turn, client=st.integers(0, 9), at_ms=NUMBERS, audio_ms=st.integers(1, 5_000),
    repeat_after_ms=st.integers(-1, 500),
)  # fmt: skip
CASES = st.builds(
    Case, policy=st.sampled_from(["safe", "published+2", "safe,lease_ms=4000"]), seed=NUMBERS,
    system=st.builds(
        System, mode=st.sampled_from(["utterance", "audio_chunk"]), resumes=st.booleans()
    ),
    turns=st.lists(TURNS, max_size=4).map(tuple), faults=st.lists(faults(), max_size=4).map(tuple),
    tape=st.dictionaries(st.sampled_from(["tie 1", "redis i-0 redis.claim 2"]), st.integers(1, 5)),
    invariant=st.sampled_from(["", "I3"]), about=st.text(max_size=20),
)  # fmt: skip


@example(Case(policy="safe", about="\x7f"))
@given(CASES)
def test_what_is_written_reads_back_as_it_was(case: Case) -> None:
    """The file says all there is, whatever is in it."""
    assert case_of(tomllib.loads(case_text(case)), "case") == case


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy = 'saef'", "did you mean safe"),
        ("policy = 'safe'\nseeds = 1", "seeds"),
        ("policy = 'safe'\n[system]\nnodes = 0", "system.nodes: must be 1 to 1000"),
        ("policy = 'safe'\n[system]\nslots = 1000000000", "system.slots: must be 1 to 1000"),
        ("policy = 'safe'\n[system]\nheartbeat_ms = 0", "system.heartbeat_ms: must be 1 to"),
        ("policy = 'safe'\n[system]\nsettle_ms = -1", "system.settle_ms: must be 0 to"),
        ("policy = 'safe'\ninvariant = 'I99'", "one of I1, I2"),
        ("policy = 'safe'\n[[fault]]\nkind = 'instance_crash'\ntarget = 'instance-0'\nat_ms = 1",
         "hits instance (i-0), not"),
        ("policy = 'safe'\n[[fault]]\nkind = 'instance_crash'\ntarget = 'i-\u00b2'\nat_ms = 1",
         "hits instance (i-0), not"),
        ("policy = 'safe'\n[[fault]]\nkind = 'instance_crash'\ntarget = 'i-0'\nat_ms = 1\nlost = 3",
         "lost: instance_crash takes for_ms"),
        ("policy = 'safe'\n[[fault]]\nkind = 'redis_down'\ntarget = 'redis'\nat_ms = 1\n"
         "for_ms = 99999999999", "for_ms: must be 0 to 86400000"),
        ("policy = 'safe'\n[[fault]]\nkind = 'redis_down'\ntarget = 'redis'\nat_ms = 99999999999",
         "needs at_ms"),
        ("policy = 'safe'\n[[turn]]\nclient = 0\nat_ms = 99999999999", "turn 1: at_ms: must be"),
        ("policy = 'safe'\n[system]\nmode = 'x'", "utterance or audio_chunk"),
        ("policy = 'safe'\n[[fault]]\nkind = 'fire'\ntarget = 'i-0'", "one of instance_crash"),
        ("policy = 'safe'\n[[fault]]\nkind = 'node_hang'\ntarget = 'i-0'\nat_ms = 1", "hits node"),
        ("policy = 'safe'\n[[fault]]\nkind = 'node_hang'\ntarget = 'n-9'\nat_ms = 1", "no n-9"),
        ("policy = 'safe'\n[[fault]]\nkind = 'node_hang'\ntarget = 'n-0'", "needs at_ms"),
        ("policy = 'safe'\n[[fault]]\nkind = 'node_hang'\ntarget = 'n-0'\nstep = 'jobs.read'",
         "happens at a time"),
        ("policy = 'safe'\n[[fault]]\nkind = 'instance_crash'\ntarget = 'i-0'\nstep = 'x'",
         "no such step: 'x'; the nearest are"),
        ("policy = 'safe'\n[[fault]]\nkind = 'node_hang'\ntarget = 'n-0'\nat = 1", "known are"),
        ("policy = 'safe'\n[[turn]]\nclient = 0\nat_ms = -5", "at_ms: must be 0 to"),
        ("policy = ", "is no TOML"),
    ],
)  # fmt: skip
def test_a_wrong_case_says_where_and_what_would_be_right(
    tmp_path: Path, text: str, says: str
) -> None:
    """One line that names the file."""
    file = tmp_path / "case.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_case(file)
    assert str(file) in str(raised.value)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_targets_say_what_they_are() -> None:
    """One thing or a link of two; anything else is nothing."""
    assert {name: target_kind(target) for name, target in TARGETS.items()} == {
        name: name for name in TARGETS
    }
    assert [target_kind(text) for text in ("x-1", "i-", "i-0/n", "redis/", "i")] == [""] * 5


def test_events_count_what_a_reader_has_to_follow() -> None:
    """Faults, turns, repeats, and departures from first come, first served."""
    case = Case(
        policy="safe", turns=(Turn(client=0, at_ms=0), Turn(client=0, at_ms=1, repeat_after_ms=0)),
        faults=(Fault(kind="redis_down", target="redis", at_ms=0),), tape={"tie 1": 1},
    )  # fmt: skip
    assert case.events == 5
