"""Creating jobs the reference's way: the report's call trees, locks, bindings, second jobs."""

from __future__ import annotations

import pytest

from simsched.invariants import Checker, CheckSettings
from simsched.messages import Error, UiEvent
from simsched.presets import PROPOSALS
from simsched.telemetry import JobCreated, JobRepeated, RequestLock, SlotFreed, SlotTaken
from simsched.telemetry import OpKind as Op
from tests.core.harness import MS, Core, StepNote

SNAPSHOT = ["snapshot.read", "snapshot.clone"]
LEARN = [*SNAPSHOT, "phase3.cached", "session_runtime.lock", "pool.decide"]
AGAIN = [*SNAPSHOT, "phase3.cached"]
PHASE_1 = ["jobs.read", *LEARN, *AGAIN, "select.filter", "jobs.write"]
GET = "redis.get_binding"
PHASE_2 = [
    GET, "jobs.read", GET, "jobs.read", *LEARN, *AGAIN, "select.filter.phase2",
    "redis.set_nx_lock", GET, "redis.lua_reserve", "redis.set_binding", "redis.unlock",
    "jobs.write",
]  # fmt: skip
"""The report's sections 1.1 and 1.2, with the writes that it does not draw (decision 6)."""


def creation(policy: str, *, shared: bool) -> list[str]:
    core = Core(policy, shared=shared)
    core.node("n1", slots=4)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()

    core.play(scenario)
    assert len(core.assigned()) == 1
    return core.sequence(Op.CREATE_JOB)


def test_phase_1_follows_the_reports_tree() -> None:
    """Section 1.1, call by call."""
    assert creation("published", shared=False) == PHASE_1


def test_phase_2_follows_the_reports_tree() -> None:
    """Section 1.2, call by call: three GETs, one SET NX, one script, the binding, the unlock."""
    assert creation("published", shared=True) == PHASE_2


def test_each_proposal_changes_its_own_calls_and_no_other() -> None:
    """Proposals 1, 2, 5, 6 drop or replace calls of job creation; 3 and 4 leave it alone."""
    snapshot = PHASE_2.index("select.filter.phase2")
    wanted = {
        "1": [s for i, s in enumerate(PHASE_2) if not (s in SNAPSHOT and i > 7 and i < snapshot)],
        "2": [s for i, s in enumerate(PHASE_2) if i not in (2, 3, PHASE_2.index(GET, 5))],
        "2s": [s for i, s in enumerate(PHASE_2) if i not in (2, 3)],
        "3": PHASE_2,
        "3s": PHASE_2,
        "4": PHASE_2,
        "4s": PHASE_2,
    }
    wanted["1s"] = wanted["1"]
    for name, steps in wanted.items():
        assert creation(f"published+{name}", shared=True) == steps, name
    for name in sorted(set(PROPOSALS) - set(wanted)):
        store = [s for s in creation(f"published+{name}", shared=True) if s.startswith("redis")]
        assert store == [s for s in PHASE_2 if s.startswith("redis")], name


def test_proposal_5_takes_the_lock_shared_and_decides_outside() -> None:
    """A read, the decision without any lock, a short write for what changed."""
    steps = creation("published+5", shared=False)
    start = steps.index("session_runtime.read")
    assert steps[start : start + 3] == [
        "session_runtime.read", "pool.decide", "session_runtime.store",
    ]  # fmt: skip


def same_request(
    policy: str, gap_ms: float, delay_ms: float, **settings: int
) -> tuple[list[JobCreated], Core]:
    """One request on two instances, `gap_ms` apart, over a store of `2 * delay_ms` a call."""
    changes = "".join(f",{name}={value}" for name, value in settings.items())
    core = Core(policy + changes, instances=2)
    for number in range(4):
        core.node(f"n{number}", home=number % 2, slots=4)

    async def scenario(core: Core) -> None:
        core.open(home=0, trace_id="t")
        core.open(home=1, trace_id="t")
        await core.settle()
        for store in core.stores:
            store.delay_ns = lambda step: (
                0 if step.name == "redis.get_owner" else int(delay_ms * MS)
            )
        core.utter(0, home=0)
        await core.settle(gap_ms)
        core.utter(0, home=1)
        await core.settle(8_000)

    core.play(scenario)
    return core.notes.of(JobCreated), core


def jobs_made(events: list[JobCreated]) -> int:
    return len({event.job for event in events})


@pytest.mark.parametrize("gap_ms", [0, 3, 7, 12, 30])
def test_the_check_under_the_lock_keeps_a_request_to_one_job(gap_ms: float) -> None:
    """`published`, 2s, SET NX and the claim make one job however close the repeat comes."""
    for policy in ("published", "published+2s", "published,request_guard=set_nx", "safe"):
        events, core = same_request(policy, gap_ms, 2)
        assert jobs_made(events) == 1, (policy, gap_ms)
        assert len(core.assigned()) == 1
        if policy == "safe" or gap_ms:
            assert core.notes.of(JobRepeated)


def test_without_the_check_under_the_lock_two_instances_make_two_jobs() -> None:
    """Proposal 2 as written: both saw no binding before the first was set."""
    assert jobs_made(same_request("published+2", 3, 2)[0]) == 2
    assert jobs_made(same_request("published+2", 300, 2)[0]) == 1


def test_a_busy_lock_falls_through_to_a_second_job_or_not() -> None:
    """`fall_through` makes a second job (B3); reject and await_binding do not."""
    late = {"lock_wait_ms": 10, "lock_retry_ms": 5}
    made = {
        busy: same_request(f"published,lock_busy={busy}", 0, 20, **late)
        for busy in ("fall_through", "reject", "await_binding")
    }
    jobs = {busy: len(core.assigned()) for busy, (_, core) in made.items()}
    assert jobs == {"fall_through": 2, "reject": 1, "await_binding": 1}
    refused = [error.code for error in made["reject"][1].told(Error)]
    assert refused == ["SCHEDULER_DEPENDENCY_DOWN"]


def test_a_lock_whose_lease_ran_out_is_not_released_by_its_old_owner() -> None:
    """The unlock compares the owner (I9); a lock lease that is too short lets two in (4.6)."""
    _, core = same_request("published", 20, 30, lock_ttl_ms=20)
    locks = core.notes.of(RequestLock)
    assert [lock.released_by_owner for lock in locks if not lock.taken] == [False, False]
    assert len([lock for lock in locks if lock.taken]) == 2


def test_a_refused_reservation_falls_through_and_leaves_the_job_waiting() -> None:
    """A full node: phase 2 gives up, phase 1 takes the node without asking (published)."""
    core = Core("published,phase1_reserves=true", shared=True)
    core.node("n1", slots=1)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        core.utter(1)
        await core.settle(12_000)

    core.play(scenario)
    assert len(core.assigned()) == 1
    codes = [event.error_code for event in core.told(UiEvent) if event.error_code]
    assert codes == ["JOB_TIMEOUT"]
    expired = [at_ms for at_ms, _, message in core.heard if isinstance(message, Error)]
    assert 10_000 <= expired[0] <= 11_100


def test_a_waiting_job_of_the_phases_is_placed_when_the_policy_queues() -> None:
    """`pending = queue` looks again when a slot is free; `expire` never does (B8)."""
    got = {}
    for pending in ("queue", "expire"):
        core = Core(f"published,phase1_reserves=true,pending={pending}", shared=True)
        core.node("n1", slots=1)

        async def scenario(core: Core) -> None:
            core.open()
            await core.settle()
            core.utter(0)
            core.utter(1)
            await core.settle(500)
            core.answer(core.assigned()[0][1], "n1")
            await core.settle(500)

        core.play(scenario)
        got[pending] = [job.utterance_index for _, job in core.assigned()]
    assert got == {"queue": [0, 1], "expire": [0]}


@pytest.mark.parametrize("scheme", ["phases,slots=counter", "claim,slots=lease"])
@pytest.mark.parametrize(("how", "code"), [("refuse", "SCHEDULER_DEPENDENCY_DOWN"), ("slow", "")])
def test_a_store_that_is_down_refuses_at_once_or_slowly(scheme: str, how: str, code: str) -> None:
    """At once with its own code, or ten seconds later as a timeout (B22); nothing is left."""
    core = Core(f"published,job_scheme={scheme},store_down={how},job_gc=true", shared=True)
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.stores[0].down = lambda _step: True
        core.utter(0)
        await core.settle(12_000)
        core.close()
        await core.settle(500)

    core.play(scenario)
    ((at_ms, error),) = [(at, m) for at, _, m in core.heard if isinstance(m, Error)]
    assert error.code == (code or "JOB_TIMEOUT")
    assert (at_ms < 100) if code else (at_ms >= 10_000)
    assert not core.schedulers[0].state.sessions
    assert not core.schedulers[0].state.book.jobs


def test_a_creation_without_a_node_can_raise_and_wedge_the_session() -> None:
    """The later design's error path: no node raises, and a wedged session stays so (B2)."""
    heard = {}
    for after in ("wedge", "reset"):
        core = Core(f"safe,create_failure=raise,finalize_error={after}")

        async def scenario(core: Core) -> None:
            core.open()
            for _ in range(2):
                core.chunk(final=True)
                await core.settle(400)

        core.play(scenario)
        heard[after] = [error.code for error in core.told(Error)]
        assert not core.schedulers[0].state.pending
    assert heard == {"wedge": [], "reset": ["NO_AVAILABLE_NODE"] * 2}


def test_a_preferred_node_is_looked_up_and_falls_back_as_the_policy_says() -> None:
    """Phase 1 checks and falls back; phase 2 without fallback leaves the job without a node."""
    got = {}
    for name, policy, shared in (
        ("phase 1", "published", False),
        ("phase 2", "published", True),
        ("phase 2 with fallback", "published,preferred_fallback=true", True),
    ):
        core = Core(policy, shared=shared)
        core.node("n1", slots=4)

        async def scenario(core: Core) -> None:
            core.open().preferred_node = "gone"
            await core.settle()
            core.utter(0)
            await core.settle()

        core.play(scenario)
        got[name] = len(core.assigned())
        assert ("management.read" in core.sequence(Op.CREATE_JOB)) is not shared
    assert got == {"phase 1": 1, "phase 2": 0, "phase 2 with fallback": 1}


def test_a_repeated_request_gets_its_first_job_for_as_long_as_it_is_bound() -> None:
    """Replay of a request on one instance: the same job, one assignment (I11)."""
    for policy, shared in (("published", False), ("published", True), ("safe", False)):
        core = Core(policy, shared=shared)
        core.node("n1", slots=4)

        async def scenario(core: Core) -> None:
            core.open()
            await core.settle()
            for _ in range(3):
                core.utter(0, trace_id="t")
                await core.settle(50)

        core.play(scenario)
        assert len(core.assigned()) == 1, policy
        assert len({event.job for event in core.notes.of(JobRepeated)}) == 1


def broken(core: Core) -> dict[str, int]:
    """What the checker finds in everything that was noted."""
    checker = Checker(CheckSettings())
    for event in core.notes.events:
        checker.observe(event)
    checker.finish(core.now_ms() * MS)
    return {name: count for name, count in checker.counts.items() if count}


@pytest.mark.parametrize("scheme", ["published", "shipped", "published,request_guard=set_nx"])
def test_a_counted_slot_is_taken_and_freed_once(scheme: str) -> None:
    """Every reservation is told, before its assignment leaves, and every giving back."""
    core = Core(scheme, shared=True)
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        for index in range(2):
            core.utter(index)
        await core.at(1_000)
        for node, job in core.assigned():
            core.answer(job, node)
        await core.at(3_000)

    core.play(scenario)
    taken, freed = core.notes.of(SlotTaken), core.notes.of(SlotFreed)
    assert [(e.job, e.attempt, e.node) for e in taken] == [
        (job.job_id, job.attempt_id, node) for node, job in core.assigned()
    ]  # fmt: skip
    assert [e.job for e in freed] == [e.job for e in taken]
    assert {(e.live, e.slots, e.expires_ns) for e in taken} == {(0, 0, 0)}
    assert broken(core) == {}


@pytest.mark.parametrize(("how", "found"), [("resets", {"I2": 1}), ("keeps", {})])
def test_a_heartbeat_that_forgets_reservations_lets_too_many_in(
    how: str, found: dict[str, int]
) -> None:
    """Reserved, not yet begun, and a heartbeat says that nothing runs: one too many (B4)."""
    core = Core(f"published,heartbeat_reserved={how}", shared=True)
    core.node("n1", slots=1)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()
        core.beat("n1", running=0)
        await core.settle()
        core.utter(1)
        await core.at(1_000)
        for node, job in core.assigned():
            core.answer(job, node)
        await core.at(3_000)

    core.play(scenario)
    assert broken(core) == found


@pytest.mark.parametrize(("ends_s", "found"), [(100, {"I5": 1}), (50, {})])
def test_a_reservation_that_lapses_is_never_given_back(ends_s: int, found: dict[str, int]) -> None:
    """A job that outlives its reservation leaves the counter one too high for good (B21)."""
    core = Core(
        "published,heartbeat_reserved=keeps,slot_release=fenced,job_timeout_ms=200000", shared=True
    )
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        for moment in range(15, ends_s, 15):
            await core.at(moment * 1_000)
            core.beat("n1", running=1)
        await core.at(ends_s * 1_000)
        node, job = core.assigned()[0]
        core.answer(job, node)
        await core.settle(3_000)

    core.play(scenario)
    assert {name: n for name, n in broken(core).items() if name == "I5"} == found


def test_a_release_without_an_answer_leaves_the_slot_counted() -> None:
    """The store is away when the job ends: the counter holds it until a heartbeat (I5)."""
    core = Core("published", shared=True)
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.at(1_000)
        core.stores[0].down = lambda step: step.name == "redis.release"
        node, job = core.assigned()[0]
        core.answer(job, node)
        await core.at(5_000)

    core.play(scenario)
    assert broken(core) == {"I5": 1}


def test_a_step_note_names_its_operation() -> None:
    """All steps of one creation belong to one operation."""
    core = Core("published", shared=True)
    core.node("n1")

    async def scenario(core: Core) -> None:
        core.open()
        await core.settle()
        core.utter(0)
        await core.settle()

    core.play(scenario)
    notes: list[StepNote] = [note for note in core.steps if note.kind == Op.CREATE_JOB]
    assert len({note.op for note in notes}) == 1
    sites = [(note.name, note.site) for note in notes]
    assert len(set(sites)) == len(sites), "two calls of one step must differ by site"
