"""Signs of life: who is taken for gone, and who is not."""

from __future__ import annotations

from typing import Any

import pytest

from simsched.inbox import DispatchToNode
from simsched.letters import Letters, common_version
from simsched.messages import JobCancel
from simsched.models.runtime import EPOCH_MS
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import SECOND
from tests.core.harness import Core

CELL = "{cell}:instances"


def two(**more: object) -> Core:
    return Core("safe", instances=2, presence_ns=6 * SECOND, **more)  # type: ignore[arg-type]


def gone(core: Core) -> tuple[str, ...]:
    """Who counts as gone at instance 0."""
    return core.schedulers[0].state.gone_instances


def test_a_silent_instance_is_gone_although_the_clock_of_the_store_was_put_back() -> None:
    """By that clock its last sign holds for another hour."""
    core = two()

    async def scenario(core: Core) -> None:
        await core.at(1_000)
        core.stores[1].down = lambda _step: True
        later = (EPOCH_MS + 3_600_000) * 1_000
        core.stores[0]._keys.command(0, "ZADD", CELL, later, "i-1")
        await core.at(7_500)
        assert gone(core) == ()
        await core.at(12_500)
        assert gone(core) == ("i-1",)
        core.stores[1].down = lambda _step: False
        await core.at(16_500)
        assert gone(core) == ()

    core.play(scenario)


def test_a_pause_of_who_looks_is_not_the_silence_of_others() -> None:
    """It overslept an answer that has the same sign as the one before."""
    core = two()

    async def scenario(core: Core) -> None:
        await core.at(1_900)
        core.stores[1].down = lambda step: step.name == "redis.presence"
        await core.at(2_100)
        core.stores[1].down = lambda _step: False
        script = core.stores[0].script

        async def overslept(step: Step, op: Operation, name: str, *words: Any) -> Any:
            reply = await script(step, op, name, *words)
            if name == "presence" and core.now_ms() < 4_100:
                await core.settle(4_300)
            return reply

        core.stores[0].script = overslept  # type: ignore[assignment]
        for at_ms in range(4_000, 14_000, 500):
            await core.at(at_ms)
            assert gone(core) == ()

    core.play(scenario)


def test_who_is_heard_of_and_gives_no_sign_is_gone() -> None:
    """It died before its first sign of life; what lies in its inbox is read."""
    core = two()

    async def scenario(core: Core) -> None:
        await core.at(1_000)
        presence = core.schedulers[0].presence
        assert presence is not None
        presence.heard_of("i-7")
        presence.heard_of("i-1")
        presence.heard_of("i-0")
        await core.at(6_500)
        assert gone(core) == ()
        await core.at(9_000)
        assert gone(core) == ("i-7",)

    core.play(scenario)


@pytest.mark.parametrize("said", ["0", "-3", "soon"])
def test_nonsense_about_versions_is_the_oldest(said: str) -> None:
    """A cell in which somebody says so goes on writing letters."""
    core = two()

    async def scenario(core: Core) -> None:
        core.stores[0]._keys.command(0, "HSET", "{cell}:versions", "i-9", said)
        core.stores[0]._keys.command(0, "ZADD", CELL, (EPOCH_MS + 60_000) * 1_000, "i-9")
        await core.at(2_500)
        versions = core.schedulers[0].state.store.versions
        assert versions == {"i-0": 2, "i-1": 2, "i-9": 1}
        version = common_version(versions, "i-1")
        cancel = DispatchToNode(node_id="n", message=JobCancel(job_id="j", reason="r"))
        assert Letters("i-0", "a").write(cancel, "i-1", version) is not None

    core.play(scenario)
