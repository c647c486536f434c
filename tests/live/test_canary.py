"""The canary: who runs it, what it may change, and what a recording says of it."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simsched
from simsched.canary import Canary, canary_of
from simsched.errors import ConfigError, SimschedError
from simsched.experiments import canary as comparison
from simsched.live.settings import CanarySettings, RecordSettings
from simsched.policy import FIELDS, PER_CELL, Policy
from simsched.presets import parse_policy
from tests.core.harness import Core
from tests.live.live_world import run, settings_with
from tests.live.observed import observed

SAFE = Policy()


@given(st.integers(0, 100))
def test_the_share_of_sessions_is_the_one_asked_for(percent: int) -> None:
    """Within what chance allows for 5,000 sessions (five sigma), and exactly at both ends."""
    canary = canary_of(SAFE, parse_policy("safe,candidates=2"), percent / 100)
    share = percent / 100
    mine = sum(canary.takes(f"s-{number:08X}") for number in range(5_000))
    assert abs(mine - 5_000 * share) <= 5 * math.sqrt(5_000 * share * (1 - share)) + 1e-9


@given(st.text(), st.integers(0, 1_000_000), st.integers(0, 1_000_000))
def test_a_session_stays_and_a_larger_share_keeps_the_smaller(
    session: str, one: int, other: int
) -> None:
    """The hash is of the id alone: same answer everywhere, and shares only add sessions."""
    low, high = sorted((one, other))
    small = Canary(policy=SAFE, share_ppm=low)
    assert small.takes(session) is small.takes(session)
    assert not small.takes(session) or Canary(policy=SAFE, share_ppm=high).takes(session)


def test_a_canary_may_differ_in_fields_per_session_only() -> None:
    """One clear line names the field."""
    for name, entry in FIELDS.items():
        choices = entry.metadata["choices"]
        now = getattr(SAFE, name)
        other = now + 1 if choices is int else next((c for c in choices if c != now), now)
        if name in ("slots", "job_scheme"):
            continue
        text = f"safe,{name}={str(other).lower() if isinstance(other, bool) else other}"
        policy = parse_policy(text)
        if name in PER_CELL:
            with pytest.raises(ConfigError, match=f"{name}.*per cell"):
                canary_of(SAFE, policy, 0.5)
        else:
            assert canary_of(SAFE, policy, 0.5).policy is policy
    with pytest.raises(ConfigError, match="between 0 and 1"):
        canary_of(SAFE, SAFE, 1.5)


def test_each_session_runs_its_own_policy() -> None:
    """On one instance: those of the share write the group twice, the others once."""
    canary = canary_of(SAFE, parse_policy("safe,group_updates=separate"), 0.5)
    core = Core("safe", canary=canary)
    core.node("n1", slots=20)
    names = [f"s-{number}" for number in range(12)]

    async def scenario(core: Core) -> None:
        for name in names:
            core.open(name)
            core.utter(0, name)
            await core.settle(20)
            core.answer(core.assigned()[-1][1], "n1")
            await core.settle(20)

    core.play(scenario)
    written = [note.name for note in core.steps if note.name.startswith("group.on_")]
    twice = sum(canary.takes(name) for name in names)
    assert 0 < twice < len(names)
    assert written.count("group.on_asr_final") == twice
    assert written.count("group.on_asr_final_and_nmt_done") == len(names) - twice


def test_a_recording_with_a_canary_is_compared_session_by_session(tmp_path: Path) -> None:
    """Both sides are there, the merged and the separate writes are seen, and a verdict is given."""
    folder = tmp_path / "run"
    settings = settings_with(
        record=RecordSettings(dir=str(folder)),
        canary=CanarySettings(policy="safe,group_updates=separate", share=0.5),
    )

    async def main() -> None:
        async with observed(settings) as world, world.working_node("n1"):
            for _ in range(6):
                await asyncio.gather(*(world.converse(1) for _ in range(6)))
            told = await world.json("/api/v1/metrics")
            assert set(told["canary"]["job_create"]) == {"base", "canary"}

    run(main())
    loaded = simsched.load(folder)
    whose = dict(zip(loaded.operations["operation"], loaded.operations["policy"], strict=True))
    for step, policy in (("group.on_asr_final", "canary"),
                         ("group.on_asr_final_and_nmt_done", "base")):  # fmt: skip
        rows = loaded.steps[loaded.steps["step"] == step]
        assert len(rows) > 0, step
        assert {whose[op] for op in rows["operation"]} == {policy}
    found = {row.metric: row for row in comparison.compare(folder)}
    assert sum(found["end_to_end"].sessions) == 36
    assert found["failed_share"].difference == 0
    assert comparison.overall(list(found.values()))
    assert len(comparison.table(list(found.values()))) == len(found)


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says() -> None:
    """Welch's interval on skewed sessions of unequal spread: 95 % within what 400 tries allow."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        base = rng.gamma(4.0, 2.5, 40)
        canary = rng.gamma(9.0, 1.0, 25)
        difference, half = comparison.welch(list(base), list(canary), 0.95)
        hits += abs(difference - (9.0 - 10.0)) <= half
    assert 0.92 <= hits / 400 <= 0.98


def test_verdicts_say_stop_wait_or_go() -> None:
    """One metric that got worse is enough to stop."""
    worse = comparison._difference("a", "ms", [1.0, 1.1, 0.9] * 5, [2.0, 2.1, 1.9] * 5, 0.95)
    better = comparison._difference("b", "ms", [2.0, 2.1, 1.9] * 5, [1.0, 1.1, 0.9] * 5, 0.95)
    same = comparison._difference("c", "ms", [1.0, 1.1, 0.9] * 5, [1.0, 1.1, 0.9] * 5, 0.95)
    few = comparison._difference("d", "ms", [1.0], [2.0], 0.95)
    assert [row.verdict for row in (worse, better, same, few)] == [
        "worse", "better", "no difference shown", "too few sessions",
    ]  # fmt: skip
    assert comparison.overall([worse, better]).startswith("stop")
    assert comparison.overall([better, same]).startswith("go")
    assert comparison.overall([same]).startswith("no difference")
    assert comparison.overall([few]).startswith("wait")


def test_a_run_without_canary_is_refused_in_one_line(tmp_path: Path) -> None:
    """No recording, or nothing to compare."""
    with pytest.raises(SimschedError, match="no recording"):
        comparison.compare(tmp_path)
