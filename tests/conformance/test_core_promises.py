"""The core tells the same story in both worlds: same messages, same order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from simsched.messages import JobAssign
from tests.core.harness import Core, left_over

Story = tuple[list[str], list[str]]


def played(
    world: str, policy: str, scenario: Callable[[Core], Awaitable[None]], instances: int
) -> Story:
    core = Core(policy, world=world, instances=instances)
    core.node("n1", slots=1)
    core.node("n2", slots=1, home=instances - 1)

    async def whole(core: Core) -> None:
        await scenario(core)
        core.close()
        await core.settle(400)

    core.play(whole)
    given = [
        f"{node} {m.job_id} {m.attempt_id}" if isinstance(m, JobAssign) else f"{node} cancel"
        for _, node, m in core.given
    ]
    for scheduler in core.schedulers:
        assert left_over(scheduler) == {}
    return core.story(), given


async def speech_to_translation(core: Core) -> None:
    """Chunks, a manual cut, silence, two results in the wrong order."""
    core.open()
    for _ in range(3):
        await core.settle(100)
        core.chunk()
    core.chunk(final=True)
    await core.settle(1_000)
    core.chunk()
    await core.settle(4_000)
    for node, job in reversed(core.assigned()):
        core.answer(job, node, f"t{job.utterance_index}")
        await core.settle(10)


async def failing_over(core: Core) -> None:
    """The first node hangs up, the second answers; the first one's answer comes too late."""
    core.open()
    await core.settle(10)
    core.utter(0)
    await core.settle(50)
    node, job = core.assigned()[0]
    await core.drop(node)
    await core.settle(500)
    core.answer(job, node, "old")
    await core.settle(10)
    node, job = core.assigned()[1]
    core.answer(job, node, "new")
    await core.settle(10)


async def waiting_in_line(core: Core) -> None:
    """Four utterances on two slots: two wait, one is served, one runs out of time."""
    core.open()
    await core.settle(10)
    for index in range(4):
        core.utter(index)
        await core.settle(20)
    node, job = core.assigned()[0]
    core.answer(job, node)
    await core.settle(12_000)
    for node, job in core.assigned()[1:]:
        core.answer(job, node)
    await core.settle(300)


async def cancelling(core: Core) -> None:
    """One job on its node is not wanted any more, the other is."""
    core.open()
    await core.settle(10)
    core.utter(0)
    await core.settle(20)
    core.utter(1)
    await core.settle(20)
    scheduler = core.schedulers[0]
    first = next(iter(scheduler.state.book.jobs.values()))
    await scheduler.recovery.cancel(first, "not wanted")
    node, job = core.assigned()[1]
    core.answer(job, node)
    await core.settle(300)


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize(
    "scenario", [speech_to_translation, failing_over, waiting_in_line, cancelling]
)
def test_both_worlds_tell_the_same_story(
    scenario: Callable[[Core], Awaitable[None]], instances: int
) -> None:
    """SimPy and asyncio: the same messages to clients and nodes, in the same order."""
    sim = played("sim", "safe", scenario, instances)
    assert sim[0][-1] == "SessionCloseAck"
    assert len(sim[1]) >= 2
    assert played("asyncio", "safe", scenario, instances) == sim


@pytest.mark.parametrize("policy", ["published,job_gc=true", "published+2s,job_gc=true"])
def test_the_reference_tells_the_same_story_in_both_worlds(policy: str) -> None:
    """The phases as well, with the store between two instances."""
    stories = [played(world, policy, speech_to_translation, 2) for world in ("sim", "asyncio")]
    assert stories[0] == stories[1]
    assert any(line.startswith("result") for line in stories[0][0])
