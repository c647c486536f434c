"""The simulator's key space: the same on every machine, and the safe scripts keep their word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.models.keyspace import LuaKeySpace, ScriptError
from simsched.ports import Reply

NOW_US = 1_893_456_000_123_456
SLOTS = 2
NODES = ("n1", "n2", "n3")
LEASE_MS = 100
TTL_MS = 1_000_000

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def ready_space(nodes: tuple[str, ...] = NODES) -> LuaKeySpace:
    space = LuaKeySpace()
    for node in nodes:
        space.script(
            NOW_US, "heartbeat_keep", [f"node:{node}"], [SLOTS, 0, "ready", TTL_MS, "i1", 0]
        )
    return space


def claim(
    space: LuaKeySpace,
    now_us: int,
    job: str,
    expected: int,
    token: str,
    nodes: tuple[str, ...] = NODES,
    *,
    again: bool = False,
) -> list[Reply]:
    places = [*(f"lease:{n}" for n in nodes), *(f"node:{n}" for n in nodes)]
    args: list[str | int] = [job, expected, "i1", token, LEASE_MS, TTL_MS, int(again), *nodes]
    answer = space.script(now_us, "claim", [f"bind:{job}", "owner:session", *places], args)
    assert isinstance(answer, list)
    return answer


def complete(
    space: LuaKeySpace, now_us: int, job: str, attempt: int, token: str, node: str = "n1"
) -> Reply:
    keys = [f"bind:{job}", f"lease:{node}", "owner:session"]
    return space.script(now_us, "complete", keys, [job, attempt, "ok", token, TTL_MS, "i1"])


def test_a_script_cannot_enumerate_in_table_order() -> None:
    """`pairs`, whose order differs in every process, is no name a script knows."""
    space = LuaKeySpace()
    space.load("planted", "local t = {a = 1, b = 2}; for k in pairs(t) do return k end")
    with pytest.raises(ScriptError, match="nonexistent global variable 'pairs'"):
        space.script(NOW_US, "planted", ["k"], [])


def test_a_cleared_space_is_a_new_one() -> None:
    """Neither keys nor expiries nor the ids of a stream outlive it; later calls answer alike."""
    used, new = ready_space(), LuaKeySpace()
    claim(used, NOW_US, "j-1", 0, "t-1")
    used.command(NOW_US + 5, "XADD", "inbox", "*", "payload", "x")
    used.command(NOW_US + 5, "SET", "short", "1", "PX", 50)
    used.clear()
    assert used.dump() == {}
    for space in (used, new):
        for node in NODES:
            space.script(
                NOW_US, "heartbeat_keep", [f"node:{node}"], [SLOTS, 0, "ready", TTL_MS, "i1", 0]
            )
        space.command(NOW_US, "HSET", "short", "field", 1)
        space.command(NOW_US, "XADD", "inbox", "*", "payload", "y")
        claim(space, NOW_US + 60_000, "j-1", 0, "t-2")
        space.sweep(NOW_US + 70_000)
    assert used.dump() == new.dump()
    assert used.command(NOW_US + 70_000, "PTTL", "short") == -1


def test_times_keep_their_microseconds() -> None:
    """A time is stored and answered in full, though Lua's own text of it is rounded."""
    space = LuaKeySpace()
    space.load(
        "planted",
        "redis.call('SET', KEYS[1], 1893456000123456); "
        "redis.call('ZADD', KEYS[2], 1893456000123456, 'm'); "
        "return {redis.call('GET', KEYS[1]), redis.call('ZSCORE', KEYS[2], 'm'), "
        "1893456000123456, now_us(), tostring(1893456000123456)}",
    )
    full = b"1893456000123456"
    answer = space.script(NOW_US, "planted", ["s", "z"], [])
    assert answer == [full, full, NOW_US, NOW_US, b"1.8934560001235e+15"]


@given(st.permutations([b"\xc3\xa9", b"a", b"B", b"10", b"9", b"\xff", b""]))
@PROPERTY
def test_sets_enumerate_in_byte_order(members: list[bytes]) -> None:
    """SMEMBERS and HGETALL answer in byte order, however the members came."""
    space = LuaKeySpace()
    for member in members:
        space.command(NOW_US, "SADD", "s", member)
        space.command(NOW_US, "HSET", "h", member, b"v")
    assert space.command(NOW_US, "SMEMBERS", "s") == sorted(members)
    fields = space.command(NOW_US, "HGETALL", "h")
    assert isinstance(fields, list)
    assert fields[::2] == sorted(members)


def test_a_key_lives_to_its_expiry_and_not_beyond() -> None:
    """At its expiry a key is there, a millisecond later it is not."""
    space = LuaKeySpace()
    start = NOW_US - NOW_US % 1_000
    space.command(start, "SET", "k", "v", "PX", 10)
    assert space.command(start + 10_999, "GET", "k") == b"v"
    assert space.command(start + 11_000, "GET", "k") is None


def test_replies_convert_as_in_redis() -> None:
    """nil and false are None, true is 1, numbers are cut, a list ends at its first nil."""
    space = LuaKeySpace()
    for source, want in (
        ("return nil", None),
        ("return false", None),
        ("return true", 1),
        ("return -3.9", -3),
        ("return {1, {'a', false, {2}}, nil, 4}", [1, [b"a", None, [2]]]),
        ("return {}", []),
        ("return redis.status_reply('PONG')", b"PONG"),
    ):
        space.load("planted", source)
        assert space.script(NOW_US, "planted", [], []) == want, source


def test_long_replies_arrive_whole() -> None:
    """A reply longer than a C stack holds is as complete as a short one."""
    space = LuaKeySpace()
    members = [f"{i:05}" for i in range(10_000)]
    for member in members:
        space.command(NOW_US, "SADD", "s", member)
    assert space.command(NOW_US, "SMEMBERS", "s") == [member.encode() for member in members]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "write the global variable 'x'"),
        ("return y", "nonexistent global variable 'y'"),
        ("return redis.call('FLUSHALL')", "unknown command 'FLUSHALL'"),
        ("return redis.call('GET', nil)", "must be strings or integers"),
        ("return redis.error_reply('ERR so')", "ERR so"),
        ("redis.call('SADD', 's', 'm'); return redis.call('GET', 's')", "WRONGTYPE"),
    ],
)
def test_a_failing_script_says_why(source: str, message: str) -> None:
    """Globals, unknown commands and wrong types are errors with Redis' words."""
    space = LuaKeySpace()
    space.load("planted", source)
    with pytest.raises(ScriptError, match=message):
        space.script(NOW_US, "planted", [], [])


@pytest.mark.parametrize("name", ["no_such", "prelude", "../models/keyspace"])
def test_an_unknown_script_is_named(name: str) -> None:
    """A script that is not packaged is an error that names its file."""
    with pytest.raises(ScriptError, match="no such script: lua/"):
        LuaKeySpace().script(NOW_US, name, [], [])


def test_sweep_gives_memory_back_in_bounded_bites() -> None:
    """Swept keys go, renewed ones stay, and one call looks at no more than its limit."""
    space = LuaKeySpace()
    for i in range(100):
        space.command(NOW_US, "SET", f"k{i}", "v", "PX", 10 + i)
    space.command(NOW_US, "PEXPIRE", "k0", 10_000)
    later = NOW_US + 1_000_000
    assert space.sweep(later, limit=30) == 29
    assert space.sweep(later) == 70
    assert list(space.dump()) == [b"k0"]
    assert space.sweep(later + 60_000_000) == 1
    assert space.dump() == {}


steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "complete", "release", "renew", "gone"]),
        st.integers(0, 5),
        st.integers(0, 3),
        st.sampled_from(["t1", "t2"]),
        st.sampled_from(NODES),
        st.sampled_from([0, 1, LEASE_MS * 1_000, LEASE_MS * 1_000 + 1]),
    ),
    max_size=60,
)


@given(steps)
@PROPERTY
def test_live_leases_never_exceed_slots_and_a_job_completes_once(
    history: list[tuple[str, int, int, str, str, int]],
) -> None:
    """Whatever happens in whatever order: slots hold, attempts only grow, one end is accepted."""
    space, now_us = ready_space(), NOW_US
    current: dict[str, int] = {}
    ended: dict[str, str] = {}
    for action, index, attempt, token, node, passes in history:
        now_us, job = now_us + passes, f"job-{index}"
        if action == "claim":
            answer = claim(space, now_us, job, attempt, token)
            if answer[0] == b"CLAIMED":
                assert job not in ended
                number = answer[3]
                assert isinstance(number, int)
                assert number >= current.get(job, 0)
                current[job] = number
        elif action == "complete":
            reply = complete(space, now_us, job, attempt, token, node)
            assert isinstance(reply, list)
            if reply[0] == b"ACCEPTED":
                # A job that the store does not know is believed, once.
                assert attempt == current.get(job, attempt)
                assert ended.setdefault(job, token) == token
            elif job in current and attempt < current[job]:
                assert reply == [b"STALE", current[job], b"i1"]
        elif action == "release":
            space.script(now_us, "release_lease", [f"lease:{node}"], [1, f"{job}:{attempt}"])
        elif action == "renew":
            member = f"{job}:{attempt}"
            space.script(now_us, "renew", [f"lease:{node}"], [LEASE_MS, 1, member])
        else:
            keys = [f"lease:{node}", f"node:{node}", f"owner:{node}"]
            space.script(now_us, "node_gone", keys, ["i1", 0])
        for name in NODES:
            live = space.command(now_us, "ZCOUNT", f"lease:{name}", now_us, "+inf")
            assert isinstance(live, int)
            assert live <= SLOTS


@given(st.integers(0, 3), st.integers(0, LEASE_MS * 1_000))
@PROPERTY
def test_a_repeated_claim_gets_its_first_answer_and_writes_nothing(
    others: int, later_us: int
) -> None:
    """The same claim again is the same claim, whoever claimed in between."""
    space = ready_space()
    first = claim(space, NOW_US, "job", 0, "t")
    for i in range(others):
        claim(space, NOW_US, f"other-{i}", 0, "t")
    before = space.dump()
    assert claim(space, NOW_US + later_us, "job", 0, "t") == first
    assert space.dump() == before
    assert claim(space, NOW_US, "job", 0, "another")[0] == b"BOUND"


def test_a_refused_claim_names_each_reason_and_writes_nothing() -> None:
    """FULL lists a reason per candidate in their order; no binding is left behind."""
    space = ready_space(("n1",))
    space.script(NOW_US, "heartbeat_keep", ["node:n2"], [SLOTS, 0, "degraded", TTL_MS, "i1", 0])
    space.script(NOW_US, "heartbeat_keep", ["node:n4"], [0, 0, "ready", TTL_MS, "i1", 0])
    for i in range(SLOTS):
        claim(space, NOW_US, f"job-{i}", 0, "t", ("n1",))
    before = space.dump()
    answer = claim(space, NOW_US, "late", 0, "t", ("n1", "n2", "n3", "n4"))
    assert answer == [b"FULL", b"FULL", b"NOT_READY", b"NOT_READY", b"NO_CAPACITY"]
    assert space.dump() == before
    after = NOW_US + LEASE_MS * 1_000
    assert claim(space, after, "late", 0, "t", ("n1",))[0] == b"FULL"
    assert claim(space, after + 1, "late", 0, "t", ("n1",))[0] == b"CLAIMED"


def test_a_lost_attempt_is_stale_and_the_next_one_counts() -> None:
    """After a second claim the first attempt's end is refused, the second's accepted once."""
    space = ready_space()
    claim(space, NOW_US, "job", 0, "t1")
    assert claim(space, NOW_US, "job", 1, "t2")[:4] == [b"CLAIMED", b"job", b"n1", 2]
    assert complete(space, NOW_US, "job", 1, "c1") == [b"STALE", 2, b"i1"]
    assert complete(space, NOW_US, "job", 2, "c2") == [b"ACCEPTED"]
    assert complete(space, NOW_US, "job", 2, "c2") == [b"ACCEPTED"]
    assert complete(space, NOW_US, "job", 2, "c3") == [b"DONE", b"ok", b"c2"]
    assert claim(space, NOW_US, "job", 2, "t3")[0] == b"BOUND"
    assert complete(space, NOW_US, "forgotten", 1, "c") == [b"ACCEPTED"]
    assert complete(space, NOW_US, "forgotten", 1, "d") == [b"DONE", b"ok", b"c"]


def test_a_gone_node_gives_its_members_sorted_and_takes_no_more() -> None:
    """node_gone empties the node's leases and the next claim goes elsewhere."""
    space = ready_space(("n1", "n2"))
    for job in ("b", "a"):
        claim(space, NOW_US, job, 0, "t", ("n1",))
    keys = ["lease:n1", "node:n1", "owner:n1"]
    space.script(NOW_US, "own", ["owner:n1"], ["i2", 10_000, "take"])
    assert space.script(NOW_US, "node_gone", keys, ["i1", 0]) == 0, "it is another's by now"
    gone = space.script(NOW_US, "node_gone", keys, ["i2", 0])
    assert gone == [b"a:1", b"b:1"]
    assert claim(space, NOW_US, "c", 0, "t", ("n1", "n2"))[2] == b"n2"


def test_a_late_word_does_not_end_the_next_connection() -> None:
    """A node that has come back to the same instance keeps its leases: only the old one is gone."""
    space = ready_space(("n1",))
    claim(space, NOW_US, "a", 0, "t", ("n1",))
    keys = ["lease:n1", "node:n1", "owner:n1"]
    space.script(NOW_US, "heartbeat_keep", ["node:n1"], [SLOTS, 1, "ready", TTL_MS, "i1", 9])
    assert space.script(NOW_US, "node_gone", keys, ["i1", 8]) == 0
    assert claim(space, NOW_US, "b", 0, "t", ("n1",))[3:5] == [1, 2], "two hold a slot now"
    assert space.script(NOW_US, "node_gone", keys, ["i1", 9]) == [b"a:1", b"b:1"]


def test_a_heartbeat_forgets_reservations_only_where_the_reference_does() -> None:
    """heartbeat_reset sets `reserved` to 0 (B4), heartbeat_keep leaves it."""
    space = LuaKeySpace()
    report: list[str | int] = [4, 0, "ready", TTL_MS, "i1", 0]
    space.script(NOW_US, "heartbeat_reset", ["cap", "meta"], report)
    assert space.script(NOW_US, "try_reserve", ["cap", "meta", "r"], [TTL_MS]) == [1, b"OK"]
    space.script(NOW_US, "heartbeat_keep", ["node", "cap", "meta"], report)
    assert space.command(NOW_US, "HGET", "cap", "reserved") == b"1"
    space.script(NOW_US, "heartbeat_reset", ["cap", "meta"], report)
    assert space.command(NOW_US, "HGET", "cap", "reserved") == b"0"


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 2), st.booleans()), max_size=30),
    st.integers(-2, 3),
)
@PROPERTY
def test_sorted_sets_rank_by_score_then_bytes(
    history: list[tuple[str, int, bool]], most: int
) -> None:
    """After any additions, moves and removals the order is (score, member) and bounds cut it."""
    space, model = LuaKeySpace(), dict[str, int]()
    for member, score, add in history:
        if add:
            model[member] = score
            space.command(NOW_US, "ZADD", "z", score, member)
        else:
            model.pop(member, None)
            space.command(NOW_US, "ZREM", "z", member)
    ranked = sorted(model, key=lambda member: (model[member], member))
    assert space.command(NOW_US, "ZRANGE", "z", 0, -1) == [m.encode() for m in ranked]
    left = [member.encode() for member in ranked if model[member] > most]
    assert space.command(NOW_US, "ZREMRANGEBYSCORE", "z", "-inf", most) == len(model) - len(left)
    assert space.command(NOW_US, "ZRANGE", "z", 0, -1) == left
    assert space.command(NOW_US, "EXISTS", "z") == int(bool(left))


def test_an_epoch_grows_with_every_change_of_owner() -> None:
    """Renewal keeps the epoch; a takeover or a lapse starts a higher one, also for the same."""
    space, ttl_us = LuaKeySpace(), 10_000

    def own(now_us: int, owner: str, mode: str = "keep") -> Reply:
        return space.script(now_us, "own", ["o"], [owner, 10, mode])

    assert own(NOW_US, "a") == [1, b"a", NOW_US]
    assert own(NOW_US + ttl_us, "a") == [1, b"a", NOW_US]
    assert own(NOW_US + ttl_us, "b") == [0, b"a", NOW_US]
    assert own(NOW_US, "b", "take") == [1, b"b", NOW_US + 1]
    space.command(NOW_US, "PEXPIRE", "o", 3_600_000)
    assert own(NOW_US + ttl_us + 1, "b") == [1, b"b", NOW_US + ttl_us + 1]


def test_a_job_state_moves_by_the_attempt_rules() -> None:
    """Steps in order, repeats succeed, a wrong attempt or a left-out step does not."""
    space = LuaKeySpace()

    def move(step: str, attempt: int) -> Reply:
        return space.script(NOW_US, "fsm", ["f"], [step, "j", "n", attempt, TTL_MS, 1])

    assert move("dispatch", 1) == 0  # no such hash: in the reference every step of a normal job
    moves = [("create", 1, 1), ("accept", 1, 0), ("dispatch", 2, 0), ("dispatch", 1, 1)]
    moves += [("accept", 1, 1), ("dispatch", 1, 1), ("create", 1, 1), ("run", 9, 1)]
    moves += [("release", 1, 0), ("create", 2, 1), ("finish", 1, 0), ("finish", 2, 1)]
    moves += [("release", 9, 1), ("run", 2, 1)]
    assert [move(step, attempt) for step, attempt, _ in moves] == [want for *_, want in moves]
    assert space.command(NOW_US, "HMGET", "f", "state", "finished_ok") == [b"RELEASED", b"1"]


def test_a_lapsed_reservation_leaves_its_count_behind() -> None:
    """B21: after its time a reservation gives nothing back; before, release and commit do once."""
    space = LuaKeySpace()
    report: list[str | int] = [2, 0, "ready", TTL_MS, "i1", 0]
    space.script(NOW_US, "heartbeat_reset", ["cap", "meta"], report)

    def counts() -> Reply:
        return space.command(NOW_US, "HMGET", "cap", "running", "reserved")

    def reserve(key: str) -> Reply:
        return space.script(NOW_US, "try_reserve", ["cap", "meta", key], [10])

    assert reserve("r1") == [1, b"OK"]
    assert reserve("r1") == [0, b"RESV_EXISTS"]
    assert space.script(NOW_US + 10_001, "release", ["cap", "r1"], []) == 0
    assert counts() == [b"0", b"1"]
    assert reserve("r2") == [1, b"OK"]
    assert reserve("r3") == [0, b"FULL"]
    assert space.script(NOW_US + 10_000, "commit", ["cap", "r2"], []) == 1
    assert space.script(NOW_US, "commit", ["cap", "r2"], []) == 0
    assert counts() == [b"1", b"1"]
    assert [space.script(NOW_US, "dec_running", ["cap"], []) for _ in range(2)] == [0, 0]
