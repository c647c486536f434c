"""A session that goes to another instance and comes back: what is followed, and what is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simsched.errors import StoreUnavailable
from simsched.messages import SessionInit
from simsched.telemetry import OpKind
from simsched.units import SECOND
from tests.core.harness import MS, Core

JOB = "s-1:0:zh"


class Moving(Core):
    """Instances whose clients come and go."""

    def __init__(self, policy: str, **more: Any) -> None:
        super().__init__(policy, presence_ns=60 * SECOND, **more)
        self._away: list[bool] = [False] * len(self.schedulers)
        for number, scheduler in enumerate(self.schedulers):
            scheduler.runtime.links.has_client = self._has_client(number)  # type: ignore[assignment]

    def _has_client(self, number: int) -> Callable[[str], bool]:
        sessions = self.schedulers[number].state.sessions
        return lambda session_id: session_id in sessions and not self._away[number]

    def move(self, to: int) -> None:
        """The client is at this instance now, and was at the other one."""
        self._away = [number != to for number in range(len(self.schedulers))]
        hello = SessionInit(client_version="1", platform="web", src_lang="en", tgt_lang="zh")
        self.schedulers[to].open_session(
            hello, session_id="s-1", resumes=True, left=f"i-{1 - to}"
        )  # fmt: skip

    def jobs(self) -> list[tuple[str, int]]:
        """What was given to which node, as attempts."""
        return [(node, message.attempt_id) for node, message in self.assigned()]


@pytest.mark.parametrize("store_down", ["slow", "refuse"])
def test_what_was_left_to_another_instance_is_followed_when_the_store_answers(
    store_down: str,
) -> None:
    """The first time that it is asked about gets no answer; nothing is given away meanwhile."""
    core = Moving(f"safe,lease_ms=9000,store_down={store_down}", instances=2)
    core.node("n1")
    core.node("n2")

    async def scenario(core: Core) -> None:
        assert isinstance(core, Moving)
        core.open()
        await core.settle(50)
        core.utter(0)
        await core.at(200)
        core.move(1)
        await core.at(4_100)
        assert not core.schedulers[0].state.book.jobs
        core.move(0)
        await core.at(4_200)
        store, real, silent = core.stores[0], core.stores[0].command, [True]

        async def command(step: Any, op: Any, *words: Any, site: int = 0) -> Any:
            if words[0] == "ZSCORE" and silent:
                silent.pop()
                raise StoreUnavailable("no answer")
            return await real(step, op, *words, site=site)

        store.command = command  # type: ignore[method-assign]
        core.utter(0)
        await core.at(4_700)
        if store_down == "refuse":
            core.schedulers[0].client_returned("s-1")
            core.utter(0)
        await core.at(7_500)

    core.play(scenario)
    (only,) = core.jobs()
    assert core.leases(only[0]) == [f"{JOB}:1"]


def test_what_has_failed_is_not_followed() -> None:
    """Its node had reported a failure, and the store had not heard that its slot is free."""
    core = Moving("safe,lease_ms=3000,job_timeout_ms=20000", instances=2)
    core.node("n1")
    core.node("n2")

    async def scenario(core: Core) -> None:
        assert isinstance(core, Moving)
        core.open()
        await core.at(50)
        core.utter(0)
        await core.at(2_050)
        node, message = core.assigned()[0]
        core.move(1)
        await core.at(2_100)
        core.stores[0].down = lambda step: step.name == "redis.release"
        core.fail(message, node, "PROCESSING_ERROR")
        await core.at(2_300)
        core.move(0)
        await core.at(2_400)
        core.utter(0)
        await core.at(2_600)
        core.stores[0].down = lambda _step: False
        await core.at(4_500)

    core.play(scenario)
    (first, _), (second, attempt) = core.jobs()
    assert attempt == 2
    assert core.leases(first) == ([f"{JOB}:2"] if first == second else [])


def test_who_is_told_that_a_session_has_moved_has_not_lost_its_claim() -> None:
    """The lease that it has had since a claim without an answer is as old as that claim."""
    core = Moving("safe,lease_ms=3000,store_down=slow", instances=2)
    core.node("n1")

    async def scenario(core: Core) -> None:
        assert isinstance(core, Moving)
        core.open()
        await core.at(50)
        core.move(0)
        await core.at(200)
        core.stores[0].deaf = lambda step: step.name == "redis.claim"
        core.utter(0)
        await core.at(2_050)
        other = core.schedulers[1]
        op = other.runtime.begin(OpKind.BACKGROUND, 1, 1)
        await other.state.store.own(op, "session", "s-1")
        core.stores[0].deaf = lambda _step: False
        await core.at(5_000)

    core.play(scenario)
    assert core.jobs() == [("n1", 1)]
    assert "leases_lost" not in core.notes.counts


def test_a_release_that_is_said_again_spares_a_claim_under_way() -> None:
    """The same job, attempt and node: the utterance was refused, and is asked for once more."""
    core = Moving("safe,store_down=refuse,lease_ms=6000", shared=True)
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        core.open()
        await core.at(100)
        store = core.stores[0]
        store.deaf = lambda step: step.name == "redis.claim"
        core.utter(0)
        await core.at(150)
        store.deaf = lambda _step: False
        store.down = lambda step: step.name == "redis.release"
        await core.at(1_300)
        assert core.leases("n1") == [f"{JOB}:1"]
        store.delay_ns = lambda step: 500 * MS if step.name == "redis.claim" else 0
        store.down = lambda _step: False
        core.schedulers[0].client_returned("s-1")
        core.utter(0)
        await core.at(2_700)

    core.play(scenario)
    assert core.jobs() == [("n1", 1)]
    assert core.leases("n1") == [f"{JOB}:1"]


def test_a_claim_that_was_never_heard_of_gives_its_slot_back_to_who_asks_again() -> None:
    """Nobody was sent: the next attempt is made at once, and the first keeps no slot."""
    core = Moving("safe,store_down=refuse,lease_ms=60000", instances=2)
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        assert isinstance(core, Moving)
        core.open()
        await core.at(50)
        core.move(0)
        await core.at(100)
        answered = [True]  # the question whether another instance has begun it
        core.stores[0].deaf = lambda step: (
            step.name == "redis.claim" and not (answered and answered.pop())
        )
        core.utter(0)
        await core.at(150)
        core.stores[0].deaf = lambda _step: False
        assert core.leases("n1") == [f"{JOB}:1"]
        core.schedulers[0].client_returned("s-1")
        core.utter(0)
        await core.at(300)

    core.play(scenario)
    assert core.jobs() == [("n1", 2)]
    assert core.leases("n1") == [f"{JOB}:2"]


def test_an_old_silence_is_settled_once_the_job_has_got_an_answer() -> None:
    """It was refused, asked for again and sent; its client goes and comes back: it still runs."""
    core = Moving("safe,store_down=refuse,lease_ms=60000", instances=2)
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        assert isinstance(core, Moving)
        core.open()
        await core.at(50)
        core.stores[0].down = lambda step: step.name == "redis.claim"
        core.utter(0)
        await core.at(100)
        core.stores[0].down = lambda _step: False
        core.schedulers[0].client_returned("s-1")
        core.utter(0)
        await core.at(150)
        job = core.schedulers[0].state.book.jobs[JOB]
        core.move(1)
        await core.at(200)
        assert await core.schedulers[0].recovery.leases.leave_if_moved(job)
        core.move(0)
        await core.at(250)
        core.utter(0)
        await core.at(400)

    core.play(scenario)
    assert core.jobs() == [("n1", 1)]
    assert core.leases("n1") == [f"{JOB}:1"]


def test_claims_of_two_lives_of_an_instance_are_told_apart() -> None:
    """A claim of the life before is not taken for one that is only repeated."""

    def token(life: str) -> object:
        core = Core("safe", life=life)
        core.node("n1")
        found: list[object] = []

        async def scenario(core: Core) -> None:
            core.open()
            await core.settle()
            core.utter(0)
            await core.settle()
            found.append(core.stores[0]._keys.command(0, "HGET", f"{{cell}}:bind:{JOB}", "token"))

        core.play(scenario)
        return found[0]

    assert token("a") == token("a")
    assert token("a") != token("b")
