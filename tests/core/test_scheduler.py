"""The door of an instance: heartbeats, strangers, partial texts, remote nodes, nothing left."""

from __future__ import annotations

import pytest

from simsched.messages import (
    AsrPartial,
    ClientHeartbeat,
    Error,
    Features,
    JobAck,
    JobStarted,
    NodeAsrPartial,
    NodeError,
    RerunMetrics,
    ServerHeartbeat,
    SessionInitAck,
    TranslationResult,
)
from simsched.messages import SessionInit as Hello
from simsched.results import HOPS_MAX
from simsched.telemetry import Operation, SessionClosed, SessionOpened
from simsched.units import MS
from tests.core.harness import CHUNK, Core, left_over


def test_a_heartbeat_is_answered_and_a_strangers_is_not_welcome() -> None:
    """server_heartbeat, or INVALID_SESSION; stray audio is an INTERNAL_ERROR."""
    core = Core()

    async def scenario(core: Core) -> None:
        core.open()
        core.tell(ClientHeartbeat(session_id="s-1", timestamp=1))
        assert not core.tell(ClientHeartbeat(session_id="s-9", timestamp=1), "s-9")
        assert not core.chunk("s-9")

    core.play(scenario)
    assert [beat.session_id for beat in core.told(ServerHeartbeat)] == ["s-1"]
    assert [e.code for e in core.told(Error)] == ["INVALID_SESSION", "INTERNAL_ERROR"]


def test_a_second_hello_of_a_session_does_not_lose_the_first() -> None:
    """Opening an open session again is the same session."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        session = core.open()
        core.chunk()
        hello = Hello(client_version="1", platform="web", src_lang="en", tgt_lang="zh")
        ack = core.schedulers[0].open_session(hello, session_id="s-1")
        assert isinstance(ack, SessionInitAck)
        assert core.schedulers[0].state.sessions["s-1"] is session
        core.chunk(final=True)
        await core.settle(300)

    core.play(scenario)
    assert len(core.assigned()[0][1].audio) == 6_400


def test_features_ask_for_more_services() -> None:
    """A session with a feature finds no node that lacks its service."""
    core = Core()
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open(features=Features(speaker_identification=True))
        core.open("s-2", features=Features(speaker_identification=False))
        await core.settle()
        core.utter(0)
        core.utter(0, "s-2")
        await core.settle()

    core.play(scenario)
    assert [job.session_id for _, job in core.assigned()] == ["s-2"]


@pytest.mark.parametrize("instances", [1, 2])
def test_what_a_node_says_of_a_running_job_reaches_the_client(instances: int) -> None:
    """job_ack, job_started and asr_partial, from a node here or on another instance."""
    core = Core(instances=instances)
    core.node("n1", home=instances - 1)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle(10)
        core.utter(0)
        await core.settle(10)
        node, job = core.assigned()[0]
        said = {"job_id": job.job_id, "node_id": node, "session_id": "s-1", "trace_id": "t"}
        desk = core.schedulers[core.homes[node]]
        desk.from_node(node, JobAck(**said, attempt_id=1))
        await core.settle(10)
        desk.from_node(node, JobStarted(**said, attempt_id=1))
        partial = NodeAsrPartial(**said, utterance_index=0, text="he", is_final=False)
        desk.from_node(node, partial)
        desk.from_node(node, NodeError(node_id=node, code="X", message="x"))
        await core.settle(10)
        core.answer(job, node)
        await core.settle(10)

    core.play(scenario)
    assert core.story() == [
        "DISPATCHED 0", "NODE_ACCEPTED 0", "AsrPartial", "ASR_PARTIAL 0", "ASR_FINAL 0",
        "NMT_DONE 0", "result 0 x",
    ]  # fmt: skip
    assert [(p.text, p.job_id) for p in core.told(AsrPartial)] == [("he", "")]
    assert core.notes.counts["node_errors"] == 1


@pytest.mark.parametrize(("policy", "arrived"), [("typed", 1), ("lossy", 0)])
def test_an_assignment_for_another_instances_node(policy: str, arrived: int) -> None:
    """Passed on and answered; `lossy` loses it, because a flag is always false (B7)."""
    core = Core(f"published,remote_dispatch={policy},job_gc=true", instances=2)
    core.node("n1", home=1)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle(10)
        core.chunk(final=True)
        await core.settle(300)
        for node, job in core.assigned():
            core.answer(job, node)
        await core.settle(10)

    core.play(scenario)
    assert len(core.assigned()) == arrived
    assert len(core.told(TranslationResult)) == arrived
    assert core.notes.counts.get("remote_dispatches_unreadable", 0) == 1 - arrived
    assert not core.schedulers[1].state.passed_on


@pytest.mark.parametrize("routing", ["binding", "session_owner", "claim"])
def test_a_result_finds_the_instance_that_waits_for_it(routing: str) -> None:
    """By the request's binding, the session's owner, or the claim."""
    base = "published,job_gc=true" if routing == "binding" else "safe"
    core = Core(f"{base},result_routing={routing}", instances=2)
    core.node("n1", home=1)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle(10)
        core.utter(0)
        await core.settle(10)
        core.answer(core.assigned()[0][1], "n1")
        await core.settle(10)
        core.close()
        await core.settle(300)

    core.play(scenario)
    assert len(core.told(TranslationResult)) == 1
    for scheduler in core.schedulers:
        assert left_over(scheduler) == {}


def test_a_result_that_nobody_knows_any_more_is_not_handed_to_and_fro() -> None:
    """Its claim says i-0, its session i-1, and both have forgotten the job."""
    core = Core("safe", instances=2)
    core.node("n1", home=1)
    forwards: list[int] = []

    def passed_on() -> int:
        return [note.name for note in core.steps].count("redis.xadd_inbox")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle(10)
        core.utter(0)
        await core.settle(10)
        job = core.assigned()[0][1]
        core.answer(job, "n1")
        await core.settle(10)
        core.close()
        await core.settle(300)
        state = core.schedulers[1].state
        await state.store.own(Operation(0, 0, 0, "", 0), "session", "s-1")
        state.seen_results.clear()
        core.schedulers[0].state.seen_results.clear()
        for store in core.stores:
            store.delay_ns = lambda _step: MS
        forwards.append(passed_on())
        core.answer(job, "n1")
        await core.settle(1_000)
        forwards.append(passed_on())

    core.play(scenario)
    assert forwards[1] - forwards[0] == HOPS_MAX
    assert len(core.told(TranslationResult)) == 1


@pytest.mark.parametrize(("how", "count"), [("cumulative", 5), ("added", 8)])
def test_rerun_totals_are_taken_or_added_up_again(how: str, count: int) -> None:
    """A node reports 3, then 5 reruns in all (B20)."""
    core = Core(f"safe,rerun_counters={how}")
    core.node("n1")

    async def scenario(core: Core) -> None:
        for total in (3, 5):
            core.beat("n1", rerun_metrics=RerunMetrics(total_reruns=total))
            await core.settle()

    core.play(scenario)
    assert core.notes.counts["reruns"] == count


@pytest.mark.parametrize("policy", ["safe", "published,job_gc=true"])
def test_after_the_last_goodbye_nothing_is_left(policy: str) -> None:
    """Overlapping utterances, a failure, a timeout, two instances: all maps are empty."""
    core = Core(f"{policy},job_timeout_ms=2000", instances=2)
    for number in range(3):
        core.node(f"n{number}", home=number % 2, slots=3)

    async def scenario(core: Core) -> None:
        for number in range(4):
            core.open(f"s-{number}", home=number % 2)
        await core.settle(10)
        for index in range(3):
            for number in range(4):
                core.utter(index, f"s-{number}", home=number % 2)
            await core.settle(50)
            for place, (node, job) in enumerate(core.assigned()):
                if place % 5 == 1:
                    core.fail(job, node, "PROCESSING_ERROR")
                elif place % 5:
                    core.answer(job, node)
            await core.settle(50)
        await core.settle(30_000)
        for number in range(4):
            core.close(f"s-{number}", home=number % 2)
        await core.settle(60_000)

    core.play(scenario)
    for scheduler in core.schedulers:
        assert left_over(scheduler) == {}


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("policy", ["safe", "published"])
def test_a_client_that_hangs_up_mid_utterance_leaks_nothing(policy: str, returns: bool) -> None:
    """Its words reach nobody; it comes back to the same utterance, or its session is closed."""
    core = Core(policy, instances=2)
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        session = core.open()
        await core.settle()
        links = core.schedulers[0].runtime.links
        reaches = links.to_client
        for _ in range(3):
            core.chunk()
            await core.settle(100)
        links.to_client = lambda *_: False  # type: ignore[method-assign]
        await core.settle(500)
        if returns:
            links.to_client = reaches  # type: ignore[method-assign]
            assert core.open() is session
            core.chunk(final=True)
            await core.settle(1_000)
        core.close()
        await core.settle(1_000)
        for node, job in core.assigned():
            core.answer(job, node, str(len(job.audio)))
        await core.settle(15_000)

    core.play(scenario)
    assert [len(job.audio) for _, job in core.assigned()] == [len(CHUNK) * (4 if returns else 3)]
    assert len(core.told(TranslationResult)) == int(returns)
    assert len(core.notes.of(SessionOpened)) == len(core.notes.of(SessionClosed)) == 1
    left = [left_over(scheduler) for scheduler in core.schedulers]
    kept = {"jobs": 1} if policy == "published" else {}  # it forgets no job (B14)
    assert left == [kept, {}]
