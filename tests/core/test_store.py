"""The typed calls to the store: each does what its name says, twice as well as once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from simsched.store import Binding, CellStore
from simsched.telemetry import Operation, OpKind
from tests.core.harness import Core

Calls = Callable[[CellStore, Operation, Core], Awaitable[None]]


def on_a_store(calls: Calls, policy: str = "safe", *, shared: bool = False) -> None:
    core = Core(policy, shared=shared)
    core.node("n1", slots=2)

    async def scenario(core: Core) -> None:
        await core.settle()
        state = core.schedulers[0].state
        await calls(state.store, state.runtime.begin(OpKind.CONTROL, 1, 1), core)

    core.play(scenario)


async def claim(store: CellStore, op: Operation, job: str, expected: int = 0) -> str:
    made = await store.claim(
        op, job, job, expected=expected, token=f"i-0:{expected + 1}", lease_ms=1_000,
        binding_ttl_ms=60_000, nodes=["n1"],
    )  # fmt: skip
    return f"{made.verdict} {made.live}"


def test_a_claim_may_be_repeated_and_takes_one_slot() -> None:
    """Same token, same answer; the node's slots bound the claims."""

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        assert [await claim(store, op, job) for job in ("a", "a", "b", "c")] == [
            "CLAIMED 1", "CLAIMED 1", "CLAIMED 2", "FULL 0",
        ]  # fmt: skip
        await store.release_lease(op, "a", 1, "n1")
        assert await claim(store, op, "c") == "CLAIMED 2"
        assert await store.claimed_by(op, "c") == "i-0"
        assert await store.claimed_by(op, "nobody") == ""

    on_a_store(calls)


def test_an_end_is_accepted_once_and_from_the_current_attempt() -> None:
    """
    ACCEPTED (also to a repeat, and where the store has forgotten the job), STALE, DONE, MOVED.

    OURS where it is this instance's own later claim, or its own end, that stands against it.
    """

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        await claim(store, op, "a")
        await claim(store, op, "a", expected=1)

        async def complete(job: str, attempt: int, by: CellStore = store) -> str:
            return await by.complete(
                op, f"s-{job}", job, attempt=attempt, node="n1", status="completed"
            )

        other = CellStore(store._store, "i-1")
        assert await complete("a", 1) == "OURS"
        assert await complete("a", 1, other) == "STALE"
        assert await complete("a", 2) == "ACCEPTED"
        assert await complete("a", 2) == "ACCEPTED"
        assert await complete("a", 2, other) == "DONE"
        assert await complete("b", 1) == "ACCEPTED"
        await other.own(op, "session", "s-c")
        assert await complete("c", 1) == "MOVED"
        await store.own(op, "session", "s-c")
        assert await complete("c", 1) == "ACCEPTED"

    on_a_store(calls)


def test_a_job_that_was_given_up_is_not_completed_as_if_that_were_a_repeat() -> None:
    """The same instance and attempt, but another end; each end may be said twice."""

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        await claim(store, op, "a")

        async def complete(status: str) -> str:
            return await store.complete(op, "a", "a", attempt=1, node="n1", status=status)

        assert [await complete("failed") for _ in range(2)] == ["ACCEPTED"] * 2
        assert await complete("completed") == "OURS"

    on_a_store(calls)


def test_renewing_keeps_what_lives_and_names_what_is_lost() -> None:
    """A lease lives for as long as it is renewed in time."""

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        await claim(store, op, "a")
        await core.settle(900)
        assert await store.renew(op, 1_000, {"n2": ["y:1"], "n1": ["a:1", "z:1"]}) == ["y:1", "z:1"]
        await core.settle(900)
        assert await store.renew(op, 1_000, {"n1": ["a:1"]}) == []
        await core.settle(1_001)
        assert await store.renew(op, 1_000, {"n1": ["a:1"]}) == ["a:1"]

    on_a_store(calls)


def test_the_request_lock_belongs_to_its_owner() -> None:
    """One at a time; only the owner gives it back (I9); its lease runs out."""

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        assert await store.lock_request(op, "r", "me", 100, site=0)
        assert not await store.lock_request(op, "r", "you", 100, site=1)
        assert not await store.unlock_request(op, "r", "you")
        await core.settle(101)
        assert await store.lock_request(op, "r", "you", 100, site=2)
        assert not await store.unlock_request(op, "r", "me")
        assert await store.unlock_request(op, "r", "you")

    on_a_store(calls)


@given(st.text("abc:-", min_size=1), st.text("n1", max_size=3), st.booleans())
def test_a_binding_survives_its_way_through_the_store(job: str, node: str, sent: bool) -> None:
    """encode, decode; and SET NX keeps the first."""
    binding = Binding(job, node, "i-0", dispatched=sent)
    assert Binding.decode(binding.encode().encode()) == binding


def test_the_first_binding_stays_until_it_is_dropped() -> None:
    """SET NX, GET, DEL."""

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        first, second = (Binding(job, "n1", "i-0", dispatched=False) for job in "ab")
        assert await store.set_binding_if_absent(op, "r", first)
        assert not await store.set_binding_if_absent(op, "r", second)
        assert await store.get_binding(op, "r", site=1) == first
        await store.drop_binding(op, "r")
        assert await store.get_binding(op, "r", site=2) is None

    on_a_store(calls)


def test_the_classic_counters_reserve_commit_release_and_count_down() -> None:
    """The reference's scripts: OK up to the node's slots, RESV_EXISTS on a repeat."""

    async def calls(store: CellStore, op: Operation, core: Core) -> None:
        assert await store.reserve(op, "a", 1, "n1") == "OK"
        assert await store.reserve(op, "a", 1, "n1") == "RESV_EXISTS"
        await store.commit(op, "a", 1, "n1")
        assert not await store.release(op, "a", 1, "n1")
        assert await store.reserve(op, "b", 1, "n1") == "OK"
        assert await store.reserve(op, "c", 1, "n1") == "FULL"
        await store.dec_running(op, "n1")
        assert await store.reserve(op, "c", 1, "n1") == "OK"

    on_a_store(calls, "published", shared=True)
