"""The scripts do the same on the simulator's key space, on fakeredis and on a real server.

Every rule runs one script with the same words and the same fixed time everywhere; after it the
answers and the whole state agree. Time also stands exactly on an expiry and one step after it.
`SIMSCHED_HYPOTHESIS=deep` looks longer.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from importlib.resources import files

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from simsched.models.keyspace import LuaKeySpace, script_body
from tests.conformance.redis_server import redis_server
from tests.conformance.stores import (
    ServerStore,
    SimulatedStore,
    fake_store,
    live_fake_store,
    live_store,
    prelude,
    real_store,
    script_names,
)

DEEP = os.environ.get("SIMSCHED_HYPOTHESIS") == "deep"
PROFILE = settings(
    max_examples=600 if DEEP else 30,
    stateful_step_count=80 if DEEP else 30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
EPOCH_US = 1_893_456_000_123_456

JOBS = st.sampled_from(["job-1", "job-2", "job-3"])
NODES = st.sampled_from(["n1", "n2"])
INSTANCES = st.sampled_from(["i1", "i2"])
TOKENS = st.sampled_from(["t1", "t2"])
ATTEMPTS = st.integers(0, 3)
SINCE_US = st.sampled_from([0, 7, 1_700_000_000_000_000])
# Longer than any test runs, so that no server expires natively what only our time has passed.
TTLS_MS = st.sampled_from([60_000, 60_001, 120_000, 3_600_000])
HEALTH = st.sampled_from(["ready", "ready", "ready", "degraded"])
STEPS_US = st.sampled_from([0, 1, 999, 1_000, 30_000_000, 60_000_000, 60_001_000])


def cell(kind: str, *names: str) -> str:
    return ":".join(["{c}", kind, *names])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with redis_server() as unix_socket:
        yield unix_socket


def by_node(held: dict[str, list[str]], attempt: int) -> tuple[list[str], list[int], list[str]]:
    """Keys, counts and members of a script on leases of several nodes."""
    members = [f"{job}:{attempt}" for jobs in held.values() for job in jobs]
    return [cell("lease", node) for node in held], [len(jobs) for jobs in held.values()], members


class Scripts(RuleBasedStateMachine):
    """All scripts, in any order, on the key space and one server."""

    other: ServerStore

    @initialize()
    def start(self) -> None:
        self.other.clear()
        self.space = SimulatedStore()
        self.now_us = EPOCH_US
        self.expiries_us: list[int] = []
        self.lingering: set[bytes] = set()

    def run(self, name: str, keys: Sequence[str], args: Sequence[str | int]) -> None:
        ours = self.space.script(self.now_us, name, keys, args)
        theirs = self.other.script(self.now_us, name, keys, args)
        assert ours == theirs, (name, keys, args)
        self.compare()

    def compare(self) -> None:
        """What our key space let expire may linger on the server; nothing else may differ."""
        ours, theirs = self.space.state(), self.other.state()
        self.lingering -= ours.keys()
        assert ours == {key: theirs[key] for key in theirs if key not in self.lingering}

    def move_to(self, now_us: int) -> None:
        before = self.space.state().keys()
        self.now_us = now_us
        self.space.command(now_us, "TIME")
        self.lingering |= before - self.space.state().keys()

    def lasting(self, ttl_ms: int) -> int:
        """A time to live whose end a later step may hit exactly."""
        self.expiries_us.append(self.now_us + ttl_ms * 1_000)
        return ttl_ms

    @rule(by=STEPS_US)
    def time_passes(self, by: int) -> None:
        self.move_to(self.now_us + by)

    @rule(pick=st.integers(0, 9), beyond=st.integers(0, 1))
    def time_reaches_an_expiry(self, pick: int, beyond: int) -> None:
        coming = [at for at in self.expiries_us if at >= self.now_us]
        if coming:
            self.move_to(coming[pick % len(coming)] + beyond)

    @rule()
    def servers_forget(self) -> None:
        """Native expiry happens on the server, too."""
        self.other.delete(sorted(self.lingering))
        self.lingering.clear()
        self.space.space.sweep(self.now_us)
        self.compare()

    @rule(
        node=NODES,
        slots=st.integers(0, 2),
        health=HEALTH,
        ttl_ms=TTLS_MS,
        classic=st.booleans(),
        instance=INSTANCES,
        since=SINCE_US,
    )
    def heartbeat_keep(
        self, node: str, slots: int, health: str, ttl_ms: int, classic: bool, instance: str,
        since: int,
    ) -> None:  # fmt: skip
        keys = [cell("node", node), cell("cap", node), cell("meta", node)]
        self.run(
            "heartbeat_keep",
            keys[: 3 if classic else 1],
            [slots, 1, health, self.lasting(ttl_ms), instance, since],
        )

    @rule(node=NODES, slots=st.integers(0, 3), health=HEALTH, ttl_ms=TTLS_MS)
    def heartbeat_reset(self, node: str, slots: int, health: str, ttl_ms: int) -> None:
        keys = [cell("cap", node), cell("meta", node)]
        self.run("heartbeat_reset", keys, [slots, 0, health, self.lasting(ttl_ms)])

    @rule(
        job=JOBS,
        expected=ATTEMPTS,
        owner=INSTANCES,
        token=TOKENS,
        lease_ms=TTLS_MS,
        ttl_ms=TTLS_MS,
        again=st.integers(0, 1),
        nodes=st.sampled_from([(), ("n1",), ("n1", "n2"), ("n2", "n1")]),
    )
    def claim(
        self,
        job: str,
        expected: int,
        owner: str,
        token: str,
        lease_ms: int,
        ttl_ms: int,
        again: int,
        nodes: tuple[str, ...],
    ) -> None:
        leases = [cell("lease", node) for node in nodes]
        places = [*leases, *(cell("node", node) for node in nodes)]
        keys = [cell("bind", job), cell("owner", "s"), *places]
        times = [self.lasting(lease_ms), self.lasting(ttl_ms)]
        self.run("claim", keys, [job, expected, owner, token, *times, again, *nodes])

    @rule(job=JOBS, node=NODES, owner=INSTANCES, token=TOKENS, ttl_ms=TTLS_MS)
    def bind(self, job: str, node: str, owner: str, token: str, ttl_ms: int) -> None:
        self.run("bind", [cell("bind", job)], [job, node, owner, token, self.lasting(ttl_ms)])

    @rule(job=JOBS, node=NODES, attempt=ATTEMPTS, token=TOKENS, ttl_ms=TTLS_MS, instance=INSTANCES)
    def complete(
        self, job: str, node: str, attempt: int, token: str, ttl_ms: int, instance: str
    ) -> None:
        keys = [cell("bind", job), cell("lease", node), cell("owner", "s")]
        self.run("complete", keys, [job, attempt, "ok", token, self.lasting(ttl_ms), instance])

    @rule(
        job=JOBS,
        node=NODES,
        attempt=st.integers(1, 3),
        owner=INSTANCES,
        state=st.sampled_from(["claimed", "done"]),
        lease_ms=TTLS_MS,
        ttl_ms=TTLS_MS,
    )
    def restore(
        self, job: str, node: str, attempt: int, owner: str, state: str, lease_ms: int, ttl_ms: int
    ) -> None:
        times = [self.lasting(lease_ms), self.lasting(ttl_ms)]
        keys = [cell("bind", job), cell("lease", node)]
        self.run("restore", keys, [job, attempt, node, owner, "t1", state, "ok", *times])

    @rule(instance=INSTANCES, ttl_ms=TTLS_MS)
    def presence(self, instance: str, ttl_ms: int) -> None:
        keys = [cell("instances", "all"), cell("versions", "all")]
        self.run("presence", keys, [instance, self.lasting(ttl_ms), 2])

    @rule(held=st.dictionaries(NODES, st.lists(JOBS, max_size=3), max_size=3), attempt=ATTEMPTS)
    def release_lease(self, held: dict[str, list[str]], attempt: int) -> None:
        keys, counts, members = by_node(held, attempt)
        self.run("release_lease", keys, [*counts, *members])

    @rule(
        held=st.dictionaries(NODES, st.lists(JOBS, max_size=3), max_size=3),
        ttl_ms=TTLS_MS,
        attempt=ATTEMPTS,
    )
    def renew(self, held: dict[str, list[str]], ttl_ms: int, attempt: int) -> None:
        keys, counts, members = by_node(held, attempt)
        self.run("renew", keys, [self.lasting(ttl_ms), *counts, *members])

    @rule(node=NODES, instance=INSTANCES, since=SINCE_US)
    def node_gone(self, node: str, instance: str, since: int) -> None:
        keys = [cell("lease", node), cell("node", node), cell("owner", "s")]
        self.run("node_gone", keys, [instance, since])

    @rule(owner=INSTANCES, ttl_ms=TTLS_MS, mode=st.sampled_from(["keep", "take"]))
    def own(self, owner: str, ttl_ms: int, mode: str) -> None:
        self.run("own", [cell("owner", "s")], [owner, self.lasting(ttl_ms), mode])

    @rule(job=JOBS, node=NODES, ttl_ms=TTLS_MS)
    def try_reserve(self, job: str, node: str, ttl_ms: int) -> None:
        keys = [cell("cap", node), cell("meta", node), cell("resv", job, node)]
        self.run("try_reserve", keys, [self.lasting(ttl_ms)])

    @rule(name=st.sampled_from(["release", "commit"]), job=JOBS, node=NODES)
    def settle(self, name: str, job: str, node: str) -> None:
        self.run(name, [cell("cap", node), cell("resv", job, node)], [])

    @rule(node=NODES)
    def dec_running(self, node: str) -> None:
        self.run("dec_running", [cell("cap", node)], [])

    @rule(
        owner=INSTANCES,
        ttl_ms=TTLS_MS,
        mode=st.sampled_from(["keep", "take", "forget"]),
        digest=TOKENS,
        epoch=st.sampled_from([0, 1, 1 << 52]),
    )
    def resume(self, owner: str, ttl_ms: int, mode: str, digest: str, epoch: int) -> None:
        args: list[str | int] = [mode, owner, digest, self.lasting(ttl_ms), epoch]
        self.run("resume", [cell("resume", "s")], args)

    @rule(job=JOBS, owner=TOKENS)
    def lock(self, job: str, owner: str) -> None:
        # Its life is native, so it must outlast the test on every side.
        self.servers_forget()  # a plain command finds what lingers on a server
        words = ("SET", cell("lock", job), owner, "NX", "PX", 3_600_000)
        assert self.space.command(self.now_us, *words) == self.other.command(self.now_us, *words)
        self.compare()

    @rule(job=JOBS, owner=TOKENS)
    def unlock(self, job: str, owner: str) -> None:
        self.run("unlock", [cell("lock", job)], [owner])

    @rule(
        step=st.sampled_from(["create", "dispatch", "accept", "run", "finish", "release", "no"]),
        job=JOBS,
        attempt=st.integers(1, 2),
        ttl_ms=TTLS_MS,
    )
    def fsm(self, step: str, job: str, attempt: int, ttl_ms: int) -> None:
        args: list[str | int] = [step, job, "n1", attempt, self.lasting(ttl_ms), 1]
        self.run("fsm", [cell("fsm", job)], args)


def check_scripts(other: ServerStore) -> None:
    machine = type("ScriptsOnBoth", (Scripts,), {"other": other})
    run_state_machine_as_test(machine, settings=PROFILE)


def test_scripts_agree_with_fakeredis() -> None:
    """The simulator's key space and fakeredis answer alike and hold the same state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_scripts(fake_store())


@pytest.mark.parametrize("protocol", [2, 3])
def test_scripts_agree_with_a_real_server(server: str, protocol: int) -> None:
    """The simulator's key space and a real server answer alike over both protocols."""
    store = real_store(server, protocol)
    try:
        check_scripts(store)
    finally:
        store.client.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_scripts_agree_through_the_live_store(server: str, protocol: int) -> None:
    """The same words through the live world's own connection: the same answers and state."""
    with live_store(server, protocol) as store:
        check_scripts(store)


def test_scripts_agree_through_the_live_store_with_fakeredis() -> None:
    """What an instance without a server falls back to does the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with live_fake_store() as store:
            check_scripts(store)


def test_a_script_at_the_servers_own_time_uses_the_real_prelude(server: str) -> None:
    """With the packaged prelude a claim's lease ends by the server's clock."""
    store = ServerStore(real_store(server, 2).client, prelude_text=prelude())
    store.clear()
    store.script(0, "heartbeat_keep", ["{c}:n"], [1, 0, "ready", 60_000, "i", 0])
    args: list[str | int] = ["j", 0, "i", "t", 10_000, 60_000, 0, "n1"]
    answer = store.script(0, "claim", ["{c}:b", "{c}:o", "{c}:l", "{c}:n"], args)
    seconds, micros = (int(part) for part in store.client.execute_command("TIME"))
    score = int(store.client.execute_command("ZSCORE", "{c}:l", "j:1"))
    store.client.close()
    assert answer == [b"CLAIMED", b"j", b"n1", 1, 1, 1]
    assert 0 <= seconds * 1_000_000 + micros + 10_000_000 - score < 5_000_000


KEY = st.sampled_from(["k1", "k2"])
WORD = st.sampled_from(["a", "b", "10", "9", "-1", "2.5", "1893456000123456", "(9", "-inf", "+inf"])
COMMANDS = st.one_of(
    st.tuples(st.sampled_from(["GET", "EXISTS", "DEL", "INCR", "HGETALL", "SMEMBERS"]), KEY),
    st.tuples(st.sampled_from(["SCARD", "ZCARD", "XLEN"]), KEY),
    st.tuples(st.sampled_from(["SET", "INCRBY", "HGET", "HMGET", "HDEL", "HEXISTS"]), KEY, WORD),
    st.tuples(st.sampled_from(["SADD", "SREM", "SISMEMBER", "ZREM", "ZSCORE"]), KEY, WORD),
    st.tuples(st.sampled_from(["HSET", "HMSET", "HINCRBY", "ZADD"]), KEY, WORD, WORD),
    st.tuples(st.just("ZADD"), KEY, WORD, WORD, WORD, WORD),
    st.tuples(st.sampled_from(["ZCOUNT", "ZREMRANGEBYSCORE", "ZRANGEBYSCORE"]), KEY, WORD, WORD),
    st.tuples(
        st.just("ZRANGEBYSCORE"), KEY, WORD, WORD, st.just("LIMIT"), st.integers(-1, 2),
        st.integers(-1, 2),
    ),
    st.tuples(st.just("ZRANGE"), KEY, st.integers(-3, 3), st.integers(-3, 3)),
    st.tuples(st.just("SET"), KEY, WORD, st.sampled_from(["NX", "XX", "KEEPTTL", "PX"])),
    st.tuples(st.just("SET"), KEY, WORD, st.sampled_from(["NX", "XX"]), st.just("EX"),
              st.sampled_from([0, 3_600])),
    st.tuples(st.sampled_from(["PEXPIRE", "EXPIRE"]), KEY, st.sampled_from([-1, 0, 3_600_000])),
    st.tuples(st.just("XADD"), KEY, st.sampled_from(["1-1", "2", "2-5", "0-0"]), WORD, WORD),
    st.tuples(st.just("XADD"), KEY, st.just("MAXLEN"), st.just("1"), st.just("9-9"), WORD, WORD),
    st.tuples(st.just("XRANGE"), KEY, st.sampled_from(["-", "2"]), st.sampled_from(["+", "2"])),
    st.tuples(st.just("XDEL"), KEY, st.sampled_from(["1-1", "2-0"])),
    st.tuples(st.sampled_from(["NO_SUCH", "HSET"]), KEY),
)  # fmt: skip


def agree_on_commands(other: ServerStore, commands: list[tuple[str | int, ...]]) -> None:
    other.clear()
    space = SimulatedStore()
    for words in commands:
        ours, theirs = space.command(EPOCH_US, *words), other.command(EPOCH_US, *words)
        if words[0] == "SMEMBERS" and isinstance(theirs, list):
            theirs = [*sorted(part for part in theirs if isinstance(part, bytes))]
        if words[0] == "HGETALL":
            continue  # in Redis' own order; its content is in the state
        both_fail = isinstance(ours, str) and isinstance(theirs, str)
        assert both_fail or ours == theirs, words  # of two errors, each names one
        assert space.state() == other.state(), words


@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_agree_with_a_real_server(server: str, protocol: int) -> None:
    """Plain commands answer, fail and write as on a real server."""
    store = real_store(server, protocol)

    @settings(PROFILE, max_examples=4_000 if DEEP else 60)
    @given(st.lists(COMMANDS, max_size=30))
    def check(commands: list[tuple[str | int, ...]]) -> None:
        agree_on_commands(store, commands)

    try:
        check()
    finally:
        store.client.close()


@pytest.mark.parametrize("name", script_names())
def test_script_keeps_the_rules_of_its_folder(name: str) -> None:
    """A script opens with its contract, reads time through the prelude only and enumerates
    nothing in an order of its own."""
    text = script_body(name)
    header = text[: text.index("\n\n")] if "\n\n" in text else text
    for word in ("does:", "KEYS:", "ARGV:", "returns:", "atomic with respect to:"):
        assert f"-- {word}" in header, word
    code = re.sub(r"--.*", "", text)
    assert not re.search(r"\b(pairs|next|cjson|random|os|tostring)\b|'TIME'", code)
    assert "KEYS[" in code


def test_package_names_all_scripts() -> None:
    """Every file of lua/ loads on the key space."""
    space = LuaKeySpace()
    for name in script_names():
        space.load(name, script_body(name))
    assert (files("simsched") / "lua" / "prelude.lua").is_file()
