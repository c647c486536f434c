"""Results: the report's order, repeats, failures, silence, and what the client is told."""

from __future__ import annotations

import pytest

from simsched.messages import Error, MissingResult, MissReason, TranslationResult
from simsched.models.runtime import EPOCH_MS
from simsched.telemetry import OpKind, ResultAccepted, ResultSuppressed
from tests.core.harness import Core


def steps_of_a_result(policy: str, *, shared: bool) -> list[str]:
    core = Core(policy, shared=shared)
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.answer(core.assigned()[0][1], "n1")
        await core.settle()

    core.play(scenario)
    return core.sequence(OpKind.JOB_RESULT)


GROUP = ["group.on_asr_final", "group.on_nmt_done"]
RESULT = [
    "dedup.lookup", "jobs.read", "jobs.write", *GROUP, "session_manager.get_session",
    "result.metrics", "result_queue.add", "session_manager.get_session",
]  # fmt: skip
STORE = ["redis.release", "redis.dec_running", "redis.fsm", "redis.fsm"]


def test_a_result_is_handled_in_the_reports_order() -> None:
    """Section 2.1; with several instances the binding is read and the job's end is stored."""
    assert steps_of_a_result("published", shared=False) == RESULT
    shared = ["dedup.lookup", "redis.get_binding", "jobs.read", *STORE, *RESULT[2:]]
    assert steps_of_a_result("published", shared=True) == shared


def test_proposal_4_merges_the_two_group_writes_and_nothing_else() -> None:
    """One write where there were two (W9)."""
    merged = ["group.on_asr_final_and_nmt_done" if s == GROUP[0] else s for s in RESULT]
    merged.remove(GROUP[1])
    assert steps_of_a_result("published+4", shared=False) == merged


def test_a_repeat_of_a_result_is_dropped() -> None:
    """Also if it comes while the store is asked about the first (I12)."""
    core = Core("safe", shared=True)
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.stores[0].delay_ns = lambda _step: 1_000_000
        node, job = core.assigned()[0]
        core.answer(job, node)
        core.answer(job, node)
        await core.settle(20)
        core.answer(job, node)
        await core.settle(20)

    core.play(scenario)
    assert len(core.told(TranslationResult)) == 1
    assert len(core.notes.of(ResultAccepted)) == 1
    assert len(core.notes.of(ResultSuppressed)) == 2


def test_silence_is_a_miss_with_its_reason() -> None:
    """Nothing recognised, nothing translated, nothing spoken."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.answer(core.assigned()[0][1], "n1", text_asr=None, text_translated=None)
        await core.settle()

    core.play(scenario)
    (miss,) = core.told(MissingResult)
    assert miss.reason == MissReason.SILENCE_DETECTED
    assert core.story() == ["DISPATCHED 0", "MissingResult"]


def test_a_nodes_failure_is_told_with_its_code() -> None:
    """ui ERROR and `error`; a code that the wire knows is passed through."""
    core = Core("published")
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        for index, code in enumerate(("NMT_TIMEOUT", "PROCESSING_ERROR")):
            core.utter(index)
            await core.settle()
            node, job = core.assigned()[index]
            core.fail(job, node, code)
            await core.settle()

    core.play(scenario)
    assert [e.code for e in core.told(Error)] == ["NMT_TIMEOUT", "INTERNAL_ERROR"]
    assert "ERROR NMT_TIMEOUT 0" in core.story()


@pytest.mark.parametrize(("heeds", "nodes"), [(True, 1), (False, 2)])
def test_a_node_that_lacks_a_model_is_avoided_for_a_while(heeds: bool, nodes: int) -> None:
    """MODEL_NOT_AVAILABLE marks the node for 60 s; the reference never looks at it (B18)."""
    core = Core(f"safe,heed_unavailable={str(heeds).lower()},node_failure=report,balance=first")
    core.node("n1", slots=9)
    core.node("n2", slots=9)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        node, job = core.assigned()[0]
        core.fail(job, node, "MODEL_NOT_AVAILABLE", service_id="asr-1")
        await core.settle()
        for index in range(1, 9):
            core.open(f"s-{index}")
            core.utter(0, f"s-{index}")
            await core.settle()

    core.play(scenario)
    first, *later = [node for node, _ in core.assigned()]
    assert (first in later) is not heeds
    assert nodes in (1, 2)


def test_a_result_says_how_long_each_leg_took() -> None:
    """web -> scheduler -> node -> scheduler, and the node's own stages."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.at(1_000)
        core.chunk(final=True, client_timestamp_ms=EPOCH_MS + 900)
        await core.at(2_000)
        core.answer(
            core.assigned()[0][1], "n1", node_completed_at_ms=EPOCH_MS + 1_950,
            processing_time_ms=77,
        )  # fmt: skip
        await core.settle()

    core.play(scenario)
    (result,) = core.told(TranslationResult)
    legs = result.network_timings
    assert (legs.web_to_scheduler_ms, legs.scheduler_to_node_ms) == (300, 0)
    assert legs.node_to_scheduler_ms == 50
    assert result.service_timings.total_ms == 77
    assert result.scheduler_sent_at_ms == EPOCH_MS + 2_000


@pytest.mark.parametrize(
    ("order", "heard"), [("outcome", ["result 0 x", "result 1 x"]), ("fcfs", ["result 1 x"])]
)
def test_results_leave_in_the_order_of_the_policy(order: str, heard: list[str]) -> None:
    """Strict by outcome waits for utterance 0; first come, first served does not."""
    core = Core(f"safe,result_order={order}")
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        core.utter(1)
        await core.settle()
        jobs = {job.utterance_index: job for _, job in core.assigned()}
        core.answer(jobs[1], "n1")
        await core.settle(100)
        if order == "outcome":
            core.answer(jobs[0], "n1")
            await core.settle(100)

    core.play(scenario)
    assert [line for line in core.story() if line.startswith("result")] == heard


def test_an_empty_text_is_no_progress() -> None:
    """ASR_FINAL and NMT_DONE are told only with text."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.answer(core.assigned()[0][1], "n1", text_translated=None)
        await core.settle()

    core.play(scenario)
    assert core.story() == ["DISPATCHED 0", "ASR_FINAL 0", "result 0 "]
