"""The world that breaks: the same case is the same run, and each fault does what it says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from simsched.cases import Case, System, Turn
from simsched.chance import below, key_of, mix
from simsched.faults import KINDS, MOMENTS, Fault
from simsched.models.faulty_redis import FaultyRedis
from simsched.models.hunted import play
from simsched.models.hunted_clients import ScriptedClient
from simsched.models.story import Line
from simsched.models.tape import GROUPS, Tape
from simsched.models.tasks import Kernel
from simsched.units import SECOND

TIMES = ",job_timeout_ms=3000,pending_ms=2000"
SAFE = f"safe{TIMES},lease_ms=4000"
PUBLISHED = f"published{TIMES}"
TARGETS = {
    "instance": "i-0", "node": "n-1", "redis": "redis", "instance/redis": "i-0/redis",
    "node/instance": "n-1/instance", "client/instance": "c-0/instance",
}  # fmt: skip
TURNS = tuple(
    Turn(client=n % 3, at_ms=150 * n, repeat_after_ms=40 if n % 5 == 0 else -1) for n in range(12)
)


def fault_of(kind: str, at_ms: int = 600) -> Fault:
    """One fault of a kind, of a length that matters."""
    target = TARGETS[KINDS[kind].targets[0]]
    return Fault(
        kind=kind, target=target, at_ms=at_ms, for_ms=1_200, delay_ms=20, lost=3, by_ms=5_000
    )


def broken(case: Case, tape: Tape | None = None) -> list[str]:
    return [f"{v.invariant} {v.text}" for v in play(case, tape=tape).violations]


def told(case: Case) -> list[Line]:
    lines: list[Line] = []
    play(case, tell=lines.append)
    return lines


def does(lines: Iterable[Line], who: str, what: str) -> list[Line]:
    return [line for line in lines if line.who == who and line.what.startswith(what)]


@pytest.mark.parametrize("policy", [SAFE, PUBLISHED])
def test_the_same_case_is_the_same_run(policy: str) -> None:
    """Event by event; what was departed from while searching replays from the case's tape."""
    faults = tuple(fault_of(kind, 300 * n) for n, kind in enumerate(KINDS))
    case = Case(policy=policy, turns=TURNS, faults=faults)
    rates = dict.fromkeys(GROUPS, 0.05)
    found = play(case, tape=Tape.drawing(7, rates))
    assert found == play(case, tape=Tape.drawing(7, rates))
    assert found.tape
    again = play(case, tape=Tape(found.tape))
    assert (again.digest, again.violations) == (found.digest, found.violations)
    assert play(case).digest != found.digest


def test_telling_changes_nothing() -> None:
    """A run that is told is the run that was found."""
    case = Case(policy=SAFE, turns=TURNS, faults=(fault_of("instance_crash"),))
    lines: list[Line] = []
    assert play(case, tell=lines.append) == play(case)
    assert len(lines) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_hits_and_safe_survives_it(kind: str) -> None:
    """One fault of each kind, early and late: it is done, and nothing is broken by it."""
    for at_ms in (0, 400, 1_100):
        case = Case(policy=SAFE, turns=TURNS, faults=(fault_of(kind, at_ms),))
        played = play(case)
        assert sum(played.hit.values()) == 1
        assert played.violations == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_instance_dies_in_the_middle_of_a_step(moment: str) -> None:
    """Before a claim, under way to the store, with its reply under way, and after it."""
    fault = Fault(
        kind="instance_crash", target="i-0", step="redis.claim", nth=2, moment=moment, for_ms=500
    )
    case = Case(policy=SAFE, turns=TURNS, faults=(fault,))
    played = play(case)
    assert played.hit == {("instance_crash", "redis.claim"): 1}
    assert played.violations == []


def test_a_request_of_the_dead_still_executes() -> None:
    """The claim of an instance that died while it was under way holds a slot until it lapses."""
    fault = Fault(kind="instance_crash", target="i-0", step="redis.claim", nth=1, moment="held")
    lines = told(Case(policy=SAFE, turns=(Turn(client=0, at_ms=0),), faults=(fault,)))
    assert does(lines, "i-0", "asks Redis: redis.claim")
    assert not does(lines, "i-0", "redis.claim answered")
    assert not does(lines, "i-0", "creates")


def test_a_pause_stops_timers_and_time_goes_on() -> None:
    """Nothing of a paused instance happens, and then all of it."""
    case = Case(policy=SAFE, turns=TURNS, faults=(fault_of("instance_pause", 500),))
    lines = [line for line in told(case) if line.who == "i-0"]
    paused = next(n for n, line in enumerate(lines) if line.what.startswith("FAULT"))
    assert lines[paused + 1].what == "goes on"
    assert lines[paused + 1].at_ns - lines[paused].at_ns == 1_200_000_000


def test_a_failover_loses_the_last_writes_and_no_others() -> None:
    """What came before them is as it was, reads count for nothing."""
    redis = FaultyRedis(Kernel())

    def run(*words: str, writes: bool = True) -> object:
        reply, _, _ = redis.call(lambda at_us: redis.keys.command(at_us, *words), 0, writes=writes)
        return reply

    for number in range(5):
        run("SET", f"k{number}", str(number))
        run("GET", "k0", writes=False)
    redis.lose(2)
    assert [run("GET", f"k{number}", writes=False) for number in range(5)] == [
        b"0", b"1", b"2", None, None,
    ]  # fmt: skip
    redis.forget()
    assert run("GET", "k0", writes=False) is None


def test_slots_are_counted_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without leases is not looked up again and again: what is told is true all the same."""
    seen, leases_of = [], FaultyRedis.leases_of

    def looked_up(redis: FaultyRedis, node: str) -> tuple[str, ...]:
        key, now_us = f"{{cell}}:leases:{node}", redis.now_us
        held: Any = redis.keys.command(now_us, "ZRANGEBYSCORE", key, now_us, "+inf")
        assert leases_of(redis, node) == tuple(member.decode() for member in held)
        seen.append(len(held))
        return leases_of(redis, node)

    monkeypatch.setattr(FaultyRedis, "leases_of", looked_up)
    late = tuple(Turn(client=n % 3, at_ms=6_000 + 200 * n) for n in range(12))
    back = Fault(kind="clock_jump", target="redis", at_ms=2_500, by_ms=-10_000)
    for faults in ((), (fault_of("redis_failover"), back)):
        for system in (System(), System(service_ms=4_500)):
            case = Case(
                policy=SAFE.replace("=3000", "=9000"), system=system, turns=(*TURNS, *late),
                faults=faults,
            )  # fmt: skip
            play(case)
    assert seen.count(0) > 50
    assert len(seen) - seen.count(0) > 50


def test_who_streams_stays_until_all_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the pause that cuts what was not ended; not for as long as without an answer."""
    left: list[int] = []
    monkeypatch.setattr(ScriptedClient, "_bye", lambda client: left.append(client._kernel.now))
    turns = (Turn(client=0, at_ms=0), Turn(client=0, at_ms=800, ends=False))
    for service_ms, soonest_s, latest_s in ((300, 5, 9), (7_000, 11, 16)):
        case = Case(
            policy=SAFE.replace("=3000", "=9000"), turns=turns,
            system=System(mode="audio_chunk", service_ms=service_ms),
        )  # fmt: skip
        lines = told(case)
        assert len(does(lines, "i-0", "answers")) == 2
        assert soonest_s * SECOND < left.pop() < latest_s * SECOND


def test_published_breaks_where_the_reference_breaks() -> None:
    """Jobs let in beside forgotten ones (B4), a retry swallowed (B5); `safe` does neither."""
    faults = (
        Fault(kind="instance_crash", target="i-0", at_ms=1_000, for_ms=2_000),
        Fault(kind="node_hang", target="n-1", at_ms=700, for_ms=4_000),
        Fault(kind="redis_down", target="redis", at_ms=2_200, for_ms=700),
        Fault(kind="partition", target="i-1/redis", at_ms=1_500, for_ms=300),
        Fault(kind="node_crash", target="n-2", at_ms=500, for_ms=1_000),
    )
    turns = tuple(
        Turn(client=n % 4, at_ms=150 * n, repeat_after_ms=30 if n % 3 == 0 else -1)
        for n in range(20)
    )
    case = Case(policy=PUBLISHED, turns=turns, faults=faults)
    assert {"I2", "I4"} <= {violation.invariant for violation in play(case).violations}
    assert broken(Case(policy=SAFE, turns=turns, faults=faults)) == []


@pytest.mark.parametrize("seed", range(12))
def test_safe_survives_two_faults_and_late_messages(seed: int) -> None:
    """Drawn kinds and moments, calls and messages late now and then: nothing is broken."""
    key = key_of("two faults", seed)
    kinds = list(KINDS)
    faults = tuple(
        fault_of(kinds[below(mix(key, n), len(kinds))], below(mix(key, 10 + n), 1_800))
        for n in range(2)
    )
    rates = {"redis": 0.02, "node": 0.02, "inbox": 0.05}
    case = Case(policy=SAFE, seed=seed, turns=TURNS, faults=faults, system=System(resumes=True))
    assert broken(case, Tape.drawing(seed, rates)) == []
