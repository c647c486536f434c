"""Leases of slots: renewed in time, taken again when they are lost, given back when it is heard."""

from __future__ import annotations

import pytest

from simsched import releases
from simsched.models.runtime import EPOCH_MS
from simsched.releases import Releases
from simsched.telemetry import SlotTaken
from simsched.units import SECOND
from tests.core.harness import MS, Core
from tests.core.test_coming_back import Moving
from tests.core.test_recovery import two_nodes


def test_a_lease_is_renewed_for_as_long_as_the_job_runs() -> None:
    """A job of 8 s on leases of 2 s: nobody else gets its slot."""
    core = Core("safe,lease_ms=2000")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        for second in range(8):
            await core.at(1_000 * second + 500)
            core.beat("n1", running=0)
        core.utter(0, "s-2")
        await core.at(8_500)
        assert len(core.assigned()) == 1
        core.answer(core.assigned()[0][1], "n1")
        await core.settle(100)

    core.play(scenario)
    assert len(core.assigned()) == 2
    assert "leases_lost" not in core.notes.counts


@pytest.mark.parametrize("taken", [False, True], ids=["forgotten", "another has the job"])
def test_a_lease_that_is_lost_is_taken_again_or_its_job_tried_again(taken: bool) -> None:
    """The store forgets a slot, and maybe grants the job to somebody else meanwhile."""
    core = two_nodes("safe,lease_ms=2000")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        node, job = core.assigned()[0]
        keys, bound = core.stores[0]._keys, f"{{cell}}:bind:{job.job_id}"
        now_us = EPOCH_MS * 1_000 + core.now_ms() * 1_000
        held = keys.command(now_us, "DEL", f"{{cell}}:leases:{node}")
        assert held == 1
        if taken:
            assert keys.command(now_us, "HSET", bound, "owner", "i-9") == 0
        await core.at(2_500)
        assert core.leases(node) == ([] if taken else [f"{job.job_id}:1"])
        assert [message.attempt_id for _, message in core.assigned()] == ([1, 2] if taken else [1])

    core.play(scenario)
    assert core.notes.counts["leases_lost"] == 1


def test_leases_of_all_nodes_are_renewed_in_one_call() -> None:
    """Two jobs on two nodes: a third of a lease of 3 s is over at the scan of the second second."""
    core = Core("safe,lease_ms=3000")
    core.node("n1")
    core.node("n2")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        core.utter(1)
        await core.at(2_500)

    core.play(scenario)
    assert sorted(node for node, _ in core.assigned()) == ["n1", "n2"]
    assert core.stores[0].calls.count(("redis.renew", 0)) == 1
    renewed = [event for event in core.notes.of(SlotTaken) if not event.live]
    assert sorted(event.node for event in renewed) == ["n1", "n2"]


def test_a_renewal_without_an_answer_is_asked_for_again_at_once() -> None:
    """The next scan may come when the lease has run out."""
    core = Core("safe,lease_ms=2000")
    core.node("n1")
    silent = [True]

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        core.stores[0].deaf = lambda step: (
            step.name == "redis.renew" and bool(silent and silent.pop())
        )
        await core.at(1_500)

    core.play(scenario)
    assert core.notes.counts["store_unavailable"] == 1
    assert core.stores[0].calls.count(("redis.renew", 0)) == 2
    assert [event.live for event in core.notes.of(SlotTaken)] == [1, 0]


def test_a_lease_counts_from_the_first_of_its_claims_and_not_from_the_answer() -> None:
    """A repeated claim finds what it has taken, which is as old as the first execution."""
    core = Core("safe,lease_ms=3000", shared=True)
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        core.utter(1)
        await core.at(500)
        core.stores[0].deaf = lambda step: step.name == "redis.claim"
        core.answer(core.assigned()[0][1], "n1")
        await core.at(1_900)
        core.stores[0].deaf = lambda _step: False
        await core.at(4_500)

    core.play(scenario)
    assert [job.utterance_index for _, job in core.assigned()] == [0, 1]
    assert "leases_lost" not in core.notes.counts
    taken, renewed = core.notes.of(SlotTaken)[1:3]
    assert 500 * MS <= taken.expires_ns - 3 * SECOND <= 501 * MS
    assert 1_900 * MS <= taken.at_ns < renewed.at_ns < 2_100 * MS


@pytest.mark.parametrize("success", [True, False], ids=["completed", "failed"])
def test_a_slot_of_a_job_is_given_back_as_soon_as_the_store_hears_of_it(success: bool) -> None:
    """It was away when the attempt was over; nobody waits for the lease of 90 s to run out."""
    core = Core("safe,node_failure=report")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(500)
        _, job = core.assigned()[0]
        core.stores[0].down = lambda _step: True
        core.answer(job, "n1", success=success)
        await core.at(2_500)
        assert core.leases("n1") == [f"{job.job_id}:1"]
        core.utter(1)
        core.stores[0].down = lambda _step: False
        await core.at(3_500)

    core.play(scenario)
    assert [job.utterance_index for _, job in core.assigned()] == [0, 1]
    assert core.leases("n1") == [f"{core.assigned()[1][1].job_id}:1"]


def test_a_slot_of_an_attempt_is_given_back_as_soon_as_the_store_hears_of_it() -> None:
    """It was away when the job went on to another node."""
    core = Core("safe,job_timeout_ms=1000")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(500)
        core.node("n2")
        core.beat("n2")
        await core.settle()
        core.stores[0].down = lambda step: step.name == "redis.release"
        await core.at(2_500)
        assert [node for node, _ in core.assigned()] == ["n1", "n2"]
        assert len(core.leases("n1")) == 1
        core.stores[0].down = lambda _step: False
        await core.at(3_500)
        assert core.leases("n1") == []

    core.play(scenario)


def test_a_slot_that_its_job_holds_again_is_not_given_back() -> None:
    """A session that has come back goes on with the attempt that was given up here before."""
    core = Core("safe")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        job = core.assigned()[0][1].job_id
        kept = core.schedulers[0].recovery.releases
        kept.unheard(job, 1, "n1")
        kept.unheard(job, 2, "n1")
        await core.at(1_500)
        assert len(kept) == 0
        assert core.leases("n1") == [f"{job}:1"]

    core.play(scenario)


def test_what_was_not_heard_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is left to its lease, and counted."""
    monkeypatch.setattr(releases, "UNHEARD_MAX", 2)
    core = Core("safe")
    kept = Releases(core.schedulers[0].state)
    for attempt in (1, 2, 1, 3):
        kept.unheard("j", attempt, "n1")
    assert len(kept) == 2
    assert core.notes.counts == {"releases_forgotten": 1}


def test_a_store_that_has_forgotten_a_release_hears_of_it_again() -> None:
    """A failover loses its last writes: the lease of an attempt that is over is back."""
    core = Core("safe", shared=True)
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(500)
        _, job = core.assigned()[0]
        core.answer(job, "n1")
        await core.settle()
        core.utter(1)
        await core.settle()
        over, runs = (f"{message.job_id}:1" for _, message in core.assigned())
        far = EPOCH_MS * 1_000_000
        core.stores[0]._keys.command(0, "ZADD", "{cell}:leases:n1", far, over)
        assert core.leases("n1") == [runs, over]
        await core.schedulers[0].store_returned()
        assert core.leases("n1") == [runs]

    core.play(scenario)


def test_what_is_said_again_takes_few_calls() -> None:
    """Many slots, on many nodes, in one script each five hundred."""
    core = Core("safe")

    async def scenario(core: Core) -> None:
        await core.settle()
        for number in range(1_200):
            core.schedulers[0].recovery.releases.unheard(f"s-9:{number}:zh", 1, f"n{number % 7}")
        await core.at(1_500)

    core.play(scenario)
    assert core.stores[0].calls.count(("redis.release", 0)) == 3


def test_a_store_that_comes_back_is_not_told_of_a_job_whose_session_has_moved() -> None:
    """It is the other instance's to say; here it is forgotten, and its slot runs out or is used."""
    core = Moving("safe", instances=2)
    core.node("n1")

    async def scenario(core: Core) -> None:
        assert isinstance(core, Moving)
        core.open()
        await core.settle(50)
        core.utter(0)
        await core.at(200)
        core.move(1)
        await core.settle(50)
        core.stores[0]._keys.command(0, "DEL", "{cell}:leases:n1")
        await core.schedulers[0].store_returned()
        assert core.leases("n1") == []
        assert not core.schedulers[0].state.book.jobs

    core.play(scenario)
