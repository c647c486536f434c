"""Failing over, timing out, cancelling, renewing: what keeps a job moving."""

from __future__ import annotations

import pytest

from simsched.jobs import Job
from simsched.messages import Error, Extra, JobAck, JobAssign, TranslationResult, UiEvent
from simsched.telemetry import JobEnded, JobYielded, Operation, ResultAccepted, ResultSuppressed
from tests.core.harness import MS, Core, left_over


def two_nodes(policy: str, **more: object) -> Core:
    core = Core(policy, **more)  # type: ignore[arg-type]
    core.node("n1", slots=2)
    core.node("n2", slots=2)
    return core


@pytest.mark.parametrize(("loss", "again_ms"), [("event", 100), ("timeout", 31_000)])
def test_a_closed_socket_moves_its_jobs_at_once_or_after_the_timeout(
    loss: str, again_ms: int
) -> None:
    """W14: a dead node costs nothing or half a minute; the client hears one answer either way."""
    core = two_nodes(f"safe,node_loss={loss}")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(100)
        await core.drop(core.assigned()[0][0])
        await core.at(35_000)
        node, job = core.assigned()[-1]
        core.answer(job, node)
        await core.settle()

    core.play(scenario)
    (_, first, _), (at_ms, second, job) = [e for e in core.given if isinstance(e[2], JobAssign)]
    assert first != second
    assert job.attempt_id == 2
    assert again_ms <= at_ms <= again_ms + 1_000
    assert core.story()[:1] == ["DISPATCHED 0"]
    assert core.story().count("DISPATCHED 0") == 1
    assert len(core.told(TranslationResult)) == 1


def test_an_old_attempts_answer_is_fenced_off_and_hides_nothing() -> None:
    """After attempt 2 left, attempt 1 counts no more and does not suppress attempt 2 (B5, I4)."""
    core = two_nodes("safe,job_timeout_ms=1000")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(2_500)
        (old_node, old), (new_node, new) = core.assigned()
        core.answer(old, old_node, "old")
        core.answer(new, new_node, "new")
        await core.settle()

    core.play(scenario)
    assert [r.text_translated for r in core.told(TranslationResult)] == ["new"]
    assert [(e.attempt, e.reason) for e in core.notes.of(ResultSuppressed)] == [
        (1, "stale_attempt")
    ]
    assert [e.attempt for e in core.notes.of(ResultAccepted)] == [2]


def test_the_reference_lets_an_old_answer_through_and_loses_the_new_one() -> None:
    """Deduplication by job, stale results delivered: B5 and B6."""
    core = two_nodes("published,job_timeout_ms=1000", shared=True)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(2_500)
        (old_node, old), (new_node, new) = core.assigned()
        core.answer(old, old_node, "old")
        await core.settle()
        core.answer(new, new_node, "new")
        await core.settle()

    core.play(scenario)
    assert [r.text_translated for r in core.told(TranslationResult)] == ["old"]
    assert [e.reason for e in core.notes.of(ResultSuppressed)] == ["stale_attempt", "duplicate"]


def test_an_answer_counts_while_its_job_waits_for_another_try() -> None:
    """Timed out, in line again, not given to anybody yet: the late answer ends it."""
    core = Core("safe,job_timeout_ms=1000")
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(2_500)
        core.answer(core.assigned()[0][1], "n1")
        await core.settle()
        core.close()
        await core.settle(300)

    core.play(scenario)
    assert len(core.told(TranslationResult)) == 1
    assert left_over(core.schedulers[0]) == {}


def test_a_timeout_cancels_tries_three_more_and_gives_up() -> None:
    """failover_max re-dispatches, each with a cancellation to the old node; then JOB_TIMEOUT."""
    core = Core("safe,job_timeout_ms=1000")
    for number in range(6):
        core.node(f"n{number}")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(20_000)
        core.close()
        await core.settle(300)

    core.play(scenario)
    nodes = [node for node, _ in core.assigned()]
    assert [job.attempt_id for _, job in core.assigned()] == [1, 2, 3, 4]
    assert len(set(nodes)) == 4, "a node that had the utterance is not asked again"
    assert [node for node, _ in core.cancelled()] == nodes
    assert {cancel.reason for _, cancel in core.cancelled()} == {"job_timeout"}
    assert [e.error_code for e in core.told(UiEvent) if e.error_code] == ["JOB_TIMEOUT"]
    assert left_over(core.schedulers[0]) == {}


def test_an_unacknowledged_job_moves_on_earlier() -> None:
    """ack_timeout_ms applies until the node has taken the job, in every attempt (W14)."""
    core = two_nodes("safe,ack_timeout_ms=2000")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        core.utter(0, "s-2")
        await core.settle()
        for node, job in core.assigned():
            if job.session_id == "s-2":
                ack = JobAck(
                    job_id=job.job_id, attempt_id=1, node_id=node, session_id="s-2", trace_id="t"
                )
                core.schedulers[0].from_node(node, ack)
        await core.at(4_500)

    core.play(scenario)
    again = [(at, m.session_id) for at, _, m in core.given if isinstance(m, JobAssign)][2:]
    assert [session for _, session in again] == ["s-1"]
    assert 2_000 <= again[0][0] <= 3_100
    assert "NODE_ACCEPTED 0" in core.story("s-2")


def test_a_failing_node_is_excluded_from_the_retry() -> None:
    """`retry`: another node; `report`: the client hears the node's own code."""
    for mode in ("retry", "report"):
        core = two_nodes(f"safe,node_failure={mode}")

        async def scenario(core: Core) -> None:
            core.open()
            await core.settle()
            core.utter(0)
            await core.settle()
            node, job = core.assigned()[0]
            core.fail(job, node, "PROCESSING_ERROR")
            await core.settle()

        core.play(scenario)
        nodes = [node for node, _ in core.assigned()]
        assert len(set(nodes)) == (2 if mode == "retry" else 1)
        assert len(core.told(Error)) == (0 if mode == "retry" else 1)


def test_a_failure_that_is_reported_twice_is_one_retry() -> None:
    """The repeat comes while the store is asked about the first."""
    core = two_nodes("safe")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.stores[0].delay_ns = lambda _step: 5 * MS
        node, job = core.assigned()[0]
        core.fail(job, node, "PROCESSING_ERROR")
        await core.settle(1)
        core.fail(job, node, "PROCESSING_ERROR")
        await core.settle(100)

    core.play(scenario)
    assert [job.attempt_id for _, job in core.assigned()] == [1, 2]
    assert [e.reason for e in core.notes.of(ResultSuppressed)] == ["stale_attempt"]


def test_two_reasons_to_retry_at_once_are_one_retry() -> None:
    """The node's own failure and the scan come while the loss of the node is being worked off."""
    core = two_nodes("safe,job_timeout_ms=1000")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(1_900)
        core.stores[0].delay_ns = lambda step: 300 * MS if step.name == "redis.claim" else 0
        node, job = core.assigned()[0]
        core.start(core.drop(node))
        await core.at(1_950)
        core.fail(job, node, "PROCESSING_ERROR")
        await core.at(2_800)

    core.play(scenario)
    assert [job.attempt_id for _, job in core.assigned()] == [1, 2]
    assert not core.cancelled()


def test_an_assignment_that_cannot_be_sent_goes_elsewhere() -> None:
    """The chosen node hung up a moment ago and nobody noticed yet."""
    core = two_nodes("safe")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        first = core.homes.pop("n1")
        core.utter(0)
        core.utter(1)
        await core.settle()
        core.homes["n1"] = first

    core.play(scenario)
    assert [node for node, _ in core.assigned()] == ["n2", "n2"]
    assert core.story() == ["DISPATCHED 0", "DISPATCHED 1"] or core.story() == [
        "DISPATCHED 1", "DISPATCHED 0",
    ]  # fmt: skip


def test_a_silent_node_is_given_up() -> None:
    """45 s without a heartbeat: at the next scan its jobs go elsewhere."""
    core = two_nodes("safe,job_timeout_ms=600000")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        (busy, _), other = core.assigned()[0], {"n1": "n2", "n2": "n1"}
        for turn in range(1, 7):
            await core.at(15_000 * turn)
            core.beat(other[busy])
        await core.at(91_000)

    core.play(scenario)
    (_, first, _), (at_ms, second, _) = core.given
    assert first != second
    assert 45_000 < at_ms <= 75_000


def test_a_cancelled_job_is_withdrawn_wherever_it_is() -> None:
    """In line or on a node: the node is told, the slot is free, the client hears why."""
    core = Core()
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        for index in range(3):
            core.utter(index)
        await core.settle()
        scheduler = core.schedulers[0]
        jobs = list(scheduler.state.book.jobs.values())
        await scheduler.recovery.cancel(jobs[1], "not wanted")
        await scheduler.recovery.cancel(jobs[0], "not wanted")
        core.beat("n1")
        await core.settle(10)

    core.play(scenario)
    assert [job.utterance_index for _, job in core.assigned()] == [0, 2]
    assert [node for node, _ in core.cancelled()] == ["n1"]
    assert {error.code for error in core.told(Error)} == {"SESSION_CLOSED"}
    assert [event.reason for event in core.notes.of(JobEnded)] == ["CANCELLED"] * 2


@pytest.mark.parametrize("step", ["redis.complete", "redis.release", "redis.node_gone",
                                  "redis.heartbeat", "redis.set_owner", "redis.renew",
                                  "redis.claim"])  # fmt: skip
def test_a_store_that_fails_in_any_shell_kills_nothing(step: str) -> None:
    """Each call fails for a while; afterwards the instance still serves."""
    core = Core("safe,lease_ms=2000", shared=True)
    core.node("n1", slots=2)
    core.node("n2", slots=2)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.stores[0].down = lambda called: called.name == step
        core.beat("n1")
        core.beat("n2")
        core.utter(1)
        await core.at(1_500)
        node, job = core.assigned()[0]
        core.answer(job, node)
        await core.settle(10)
        await core.drop("n2")
        await core.at(16_000)
        core.stores[0].down = lambda _step: False
        core.beat("n1")
        await core.at(30_000)
        core.utter(2)
        await core.settle(10)
        for node, job in core.assigned():
            if node == "n1" and job.utterance_index:
                core.answer(job, node)
        await core.settle(10)

    core.play(scenario)
    results = [r.utterance_index for r in core.told(TranslationResult)]
    assert 0 in results
    assert 2 in results
    errors = [error.code for error in core.told(Error)]
    assert errors == (["SCHEDULER_DEPENDENCY_DOWN"] if step == "redis.claim" else [])


@pytest.mark.parametrize(("terminal", "runs"), [(True, 1), (False, 2)])
def test_an_answer_without_text_ends_its_job_or_haunts_it(terminal: bool, runs: int) -> None:
    """Not terminal: it times out later, is cancelled, fails over and runs again (B10)."""
    core = two_nodes(
        f"published,job_timeout_ms=1000,no_text_terminal={str(terminal).lower()}", shared=True
    )

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        node, job = core.assigned()[0]
        core.answer(
            job, node, text_asr=None, text_translated=None, extra=Extra(reason="NO_TEXT_ASSIGNED")
        )
        await core.at(2_800)

    core.play(scenario)
    assert len(core.assigned()) == runs
    assert len(core.cancelled()) == runs - 1
    assert len(core.notes.of(JobEnded)) == 1
    assert core.story().count("MissingResult") == 1


def test_a_slot_freed_while_a_failed_job_is_told_full_is_not_overlooked() -> None:
    """FULL for the next try on its way back, the other node freed meanwhile: it is asked again."""
    core = Core("safe,pending_ms=10000")
    core.node("n1")
    core.node("n2")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        core.utter(0, "s-2")
        await core.settle(10)
        (failed_on, failed), (other, held) = core.assigned()
        core.stores[0].delay_ns = lambda step: 20 * MS if step.name == "redis.claim" else 0
        state = core.schedulers[0].state
        core.fail(failed, failed_on, "PROCESSING_ERROR")
        # The store is asked although the node looks full, as after a heartbeat of its own.
        state.cluster.observe_load(other, live=0)
        await core.settle(30)
        core.answer(held, other)
        await core.settle(200)
        assert len(core.assigned()) == 3
        node, again = core.assigned()[-1]
        assert (node, again.attempt_id) == (other, 2)
        core.answer(again, node)
        core.close()
        core.close("s-2")
        await core.settle(300)

    core.play(scenario)
    assert left_over(core.schedulers[0]) == {}


def test_a_late_failure_of_an_attempt_that_was_given_up_ends_nothing() -> None:
    """Its job stands in line for the last try; a late success would be welcome."""
    core = Core("safe,failover_max=1,job_timeout_ms=1000,pending_ms=20000")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        await core.settle()
        node, job = core.assigned()[0]
        core.utter(0, "s-2")
        await core.at(2_500)
        core.fail(job, node, "PROCESSING_ERROR")
        await core.settle(10)
        core.answer(core.assigned()[1][1], node)
        core.node("n2")
        core.beat("n2")
        await core.settle(10)
        core.answer(core.assigned()[2][1], "n2")
        await core.settle(10)

    core.play(scenario)
    assert not core.told(Error)
    assert [event.reason for event in core.notes.of(ResultSuppressed)] == ["stale_attempt"]
    assert len(core.told(TranslationResult)) == 2


def test_the_slot_of_an_attempt_that_timed_out_is_the_first_in_lines() -> None:
    """At once, and not when its node gives its next sign of life."""
    core = Core("safe,job_timeout_ms=1000")
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        core.open("s-2")
        await core.settle()
        core.utter(0)
        await core.settle()
        core.utter(0, "s-2")
        await core.at(2_500)

    core.play(scenario)
    assert [job.session_id for _, job in core.assigned()] == ["s-1", "s-2"]


def test_a_job_whose_result_counts_is_not_tried_again() -> None:
    """Its node dies between the result and the answer."""
    core = two_nodes("safe")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.schedulers[0].runtime.point = lambda name: name == "answer waits"  # type: ignore[method-assign]
        node, job = core.assigned()[0]
        core.answer(job, node)
        await core.settle(10)
        await core.drop(node)
        await core.settle(200)

    core.play(scenario)
    assert len(core.assigned()) == 1
    assert len(core.told(TranslationResult)) == 1


def test_an_attempt_that_fails_while_it_is_handed_over_is_tried_again() -> None:
    """The node is quicker than the instance, which is still writing down that it has sent it."""
    core = Core("safe")
    for node in ("n1", "n2", "n3"):
        core.node(node)
    dispatcher = core.schedulers[0].dispatcher
    mark = dispatcher._mark_dispatched

    async def marked_slowly(op: Operation, job: Job) -> None:
        await mark(op, job)
        await core.settle(20)

    def fails(node: str, message: object) -> None:
        if isinstance(message, JobAssign) and message.attempt_id < 3:
            core.fail(message, node, "PROCESSING_ERROR")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle(50)
        core.on_given = fails
        dispatcher._mark_dispatched = marked_slowly  # type: ignore[method-assign]
        core.utter(0)
        await core.settle(200)

    core.play(scenario)
    assert [job.attempt_id for _, job in core.assigned()] == [1, 2, 3]


@pytest.mark.parametrize("slow", ["redis.release", "redis.claim"])
def test_a_result_that_counts_ends_a_retry_that_is_under_way(slow: str) -> None:
    """Its attempt timed out; its slot is being given back, or the next claimed, when it comes."""
    core = two_nodes("safe,job_timeout_ms=1000")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        runtime = core.schedulers[0].runtime
        runtime.point = lambda name: name == "answer waits"  # type: ignore[method-assign]
        core.stores[0].delay_ns = lambda step: 20 * MS if step.name == slow else 0
        node, job = core.assigned()[0]
        await core.at(2_010)
        assert core.cancelled()
        core.answer(job, node)
        await core.settle(500)

    core.play(scenario)
    assert len(core.assigned()) == 1
    assert len(core.told(TranslationResult)) == 1
    assert not core.notes.of(JobYielded)
    assert core.leases("n1") == core.leases("n2") == []
