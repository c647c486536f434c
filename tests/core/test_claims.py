"""The safe scheme: one job per name, a bounded line, exact deadlines, slots that come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.messages import Error, JobAssign, TranslationResult
from simsched.telemetry import JobQueued, SlotFreed, SlotTaken
from tests.core.harness import MS, Core, left_over


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("gap_ms", [0, 1, 3, 20])
def test_a_request_that_comes_twice_is_one_job_and_one_answer(instances: int, gap_ms: int) -> None:
    """At once or a little later, on the same instance or on another."""
    core = Core(instances=instances)
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        last = instances - 1
        for home in range(instances):
            core.open(home=home)
        await core.settle()
        for store in core.stores:
            store.delay_ns = lambda _step: 2 * MS
        core.utter(0, home=0, trace_id="t1")
        await core.settle(gap_ms)
        core.utter(0, home=last, trace_id="t2")
        await core.settle(100)
        for node, job in core.assigned():
            core.answer(job, node)
        await core.settle(200_000)
        for home in range(instances):
            core.close(home=home)
        await core.settle(300)

    core.play(scenario)
    assert len(core.assigned()) == 1
    assert len(core.told(TranslationResult)) == 1
    assert not core.told(Error)
    for scheduler in core.schedulers:
        assert left_over(scheduler) == {}


def test_a_full_house_queues_and_serves_in_the_order_of_arrival() -> None:
    """FULL -> line -> a freed slot serves the first in line at the same instant."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        for index in range(4):
            core.utter(index)
            await core.settle(10)
        for turn in range(4):
            await core.at(1_000 + 100 * turn)
            node, job = core.assigned()[turn]
            core.answer(job, node)
        await core.settle()

    core.play(scenario)
    given = [(at, m.utterance_index) for at, _, m in core.given]
    assert given == [(1, 0), (1_000, 1), (1_100, 2), (1_200, 3)]
    assert [r.utterance_index for r in core.told(TranslationResult)] == [0, 1, 2, 3]


def test_a_wait_ends_exactly_at_its_deadline() -> None:
    """pending_ms, or what the utterance brought along, to the millisecond."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        for session in ("s-1", "s-2", "s-3"):
            core.open(session)
        await core.at(10)
        core.utter(0)
        await core.at(20)
        core.utter(0, "s-2")
        core.utter(0, "s-3", patience_ns=333 * MS)
        await core.at(20_000)

    core.play(scenario)
    ends = [(at, m.code) for at, _, m in core.heard if isinstance(m, Error)]
    assert ends == [(353, "JOB_TIMEOUT"), (10_020, "JOB_TIMEOUT")]
    queued = [(e.deadline_ns - e.at_ns) // MS for e in core.notes.of(JobQueued)]
    assert queued == [10_000, 333]


def test_a_full_line_refuses() -> None:
    """Beyond pending_max the client is told at once that there is no node."""
    core = Core("safe,pending_max=1")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        for session in ("s-2", "s-3"):
            core.open(session)
        await core.settle()
        core.utter(0)
        core.utter(0, "s-2")
        core.utter(0, "s-3")
        await core.settle()

    core.play(scenario)
    assert [error.code for error in core.told(Error)] == ["NO_AVAILABLE_NODE"]
    assert [error.code for error in core.told(Error, "s-3")] == ["NO_AVAILABLE_NODE"]


def test_a_job_that_ended_while_its_claim_was_under_way_gives_the_slot_back() -> None:
    """The deadline strikes between the claim and its answer: the next job gets the slot."""
    core = Core("safe,pending_ms=100")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        core.utter(0, "s-2")
        await core.at(90)
        core.stores[0].delay_ns = lambda step: 30 * MS if step.name == "redis.claim" else 0
        core.answer(core.assigned()[0][1], "n1")
        await core.at(300)
        core.utter(1)
        await core.at(500)

    core.play(scenario)
    assert [error.code for error in core.told(Error, "s-2")] == ["JOB_TIMEOUT"]
    assert [(j.session_id, j.utterance_index) for _, j in core.assigned()] == [
        ("s-1", 0), ("s-1", 1),
    ]  # fmt: skip


def test_a_slot_freed_while_the_store_said_full_is_not_overlooked() -> None:
    """FULL on its way back, a slot freed meanwhile, nobody in line yet: the job asks again."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        await core.settle(10)
        core.stores[0].delay_ns = lambda step: 20 * MS if step.name == "redis.claim" else 0
        core.schedulers[0].state.cluster.observe_load("n1", live=0)
        core.utter(0, "s-2")
        await core.settle(30)
        core.answer(core.assigned()[0][1], "n1")
        await core.settle(200)

    core.play(scenario)
    assert len(core.assigned()) == 2


def test_two_slots_freed_while_the_store_is_slow_serve_two() -> None:
    """The second is freed while the first is being given away: it is made up for."""
    core = Core()
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        for number in range(4):
            core.open(f"s-{number}")
        await core.settle()
        for number in range(4):
            core.utter(0, f"s-{number}")
        await core.settle()
        core.stores[0].delay_ns = lambda step: 20 * MS if step.name == "redis.claim" else 0
        for node, job in core.assigned()[:2]:
            core.answer(job, node)
            await core.settle(10)
        await core.settle(200)

    core.play(scenario)
    assert len(core.assigned()) == 4


def test_two_instances_do_not_overfill_a_node_they_share() -> None:
    """Both see it empty; the store lets one in, the other job waits and is served."""
    core = Core(instances=2)
    core.node("n1", home=0)

    async def scenario(core: Core) -> None:
        core.open("s-1", home=0)
        core.open("s-2", home=1)
        await core.settle()
        core.utter(0, "s-1", home=0)
        core.utter(0, "s-2", home=1)
        await core.settle(50)
        assert len(core.assigned()) == 1
        node, job = core.assigned()[0]
        core.answer(job, node)
        await core.settle(500)
        node, job = core.assigned()[1]
        core.answer(job, node)
        await core.settle(100)

    core.play(scenario)
    assert len(core.told(TranslationResult)) == 2


def test_a_job_that_no_node_may_have_does_not_hold_up_the_others() -> None:
    """Its utterance failed on the only node: those behind it are served, it times out alone."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        for session in ("s-1", "s-2", "s-3"):
            core.open(session)
        await core.settle()
        core.utter(0)
        core.utter(0, "s-2")
        await core.settle()
        node, job = core.assigned()[0]
        core.fail(job, node, "PROCESSING_ERROR")
        await core.settle(100)
        core.utter(0, "s-3")
        await core.settle(100)
        node, job = core.assigned()[1]
        core.answer(job, node)
        await core.settle(100)
        core.answer(core.assigned()[2][1], node)
        await core.settle(100)
        core.utter(1, "s-3")
        await core.settle(20_000)

    core.play(scenario)
    assert [job.session_id for _, job in core.assigned()] == ["s-1", "s-2", "s-3", "s-3"]
    assert [error.code for error in core.told(Error)] == ["JOB_TIMEOUT"]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2)), min_size=1, max_size=14),
    st.integers(1, 3), st.integers(0, 5), st.booleans(),
)  # fmt: skip
def test_slots_are_never_overdrawn_and_every_utterance_is_answered_once(
    arrivals: list[tuple[int, int]], slots: int, delay_ms: int, two: bool
) -> None:
    """Whatever comes when, on one or two instances: I2, I3, I5 and nothing left behind."""
    core = Core(instances=2 if two else 1)
    core.node("n1", slots=slots)
    running: set[str] = set()
    most = 0

    async def work(core: Core, node: str, job: JobAssign) -> None:
        nonlocal most
        running.add(job.job_id)
        most = max(most, len(running))
        await core.settle(150)
        running.discard(job.job_id)
        core.answer(job, node)

    async def scenario(core: Core) -> None:
        homes = len(core.schedulers)
        for number in range(3):
            core.open(f"s-{number}", home=number % homes)
        await core.settle()
        for store in core.stores:
            store.delay_ns = lambda _step: delay_ms * MS
        counts = [0, 0, 0]
        for gap_ms, session in arrivals:
            await core.settle(gap_ms)
            core.utter(counts[session], f"s-{session}", home=session % homes)
            counts[session] += 1
        await core.settle(8_000)
        for number in range(3):
            core.close(f"s-{number}", home=number % homes)
        await core.settle(500)

    core.on_given = lambda node, job: (
        core.start(work(core, node, job)) if isinstance(job, JobAssign) else None
    )
    core.play(scenario)
    assert most <= slots
    assert len(core.told(TranslationResult)) == len(arrivals)
    assert not core.told(Error)
    assert len(core.notes.of(SlotTaken)) == len(core.notes.of(SlotFreed)) == len(arrivals)
    for scheduler in core.schedulers:
        assert left_over(scheduler) == {}
