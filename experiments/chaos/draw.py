"""
From a seed to a schedule for a live system: who speaks when, and every kind of fault often enough.

Faults come one after the other at an even pace, in an order of chance, each on a target that
nothing else is done to at that time; so all of them can happen, and they overlap all the same. The
same arguments give the same case, byte for byte. Links of every sort count as kinds of their own:
`partition` and `link_slow` are drawn for each.
"""

from __future__ import annotations

from typing import Any, Final

from simsched.cases import Case, System, Turn
from simsched.chance import key_of
from simsched.errors import ConfigError
from simsched.experiments.draws import Draws
from simsched.faults import KINDS, Fault

POLICY: Final = "safe,job_timeout_ms=8000,pending_ms=5000,lease_ms=5000"
"""Short times, so that what hangs on them is seen, and longer than a hang that goes by."""

SLOTS: Final = 6
SERVICE_MS: Final = 1_000
HEARTBEAT_MS: Final = 2_000
SETTLE_MS: Final = 60_000

FIRST_FAULT_MS: Final = 2_000
"""When everybody has said hello."""

QUIET_MS: Final = 4_000
"""Before the end nothing new breaks."""

PAUSE_MS: Final = 6_000
"""Between two utterances of a client, about."""

AUDIO_MS: Final = (100, 200, 400)

LENGTHS_MS: Final = {
    "instance_crash": (200, 1_000, 3_000),
    "instance_pause": (200, 1_000, 3_000, 7_000),
    "node_crash": (100, 500, 2_000),
    "node_hang": (300, 1_500, 6_000, 8_000),
    "node_reconnect": (50, 300, 1_500),
    "redis_down": (200, 800, 2_000),
    "redis_restart": (100, 500, 1_500),
    "redis_failover": (100, 500, 1_000),
    "partition": (300, 1_500, 5_000, 7_000),
    "link_slow": (1_000, 3_000, 6_000),
}
"""How long each may last: shorter and longer than what notices it."""

DELAYS_MS: Final = (5, 40, 150, 400)
LOST_MAX: Final = 8

RESTS_MS: Final = {"instance_crash": 4_000, "node_crash": 3_000, "redis_failover": 2_000}
"""How long what was hit needs to be whole again, besides the second that everything is given."""

REST_MS: Final = 1_000

REDIS_TURN_MS: Final = 5_000
"""What a fault of Redis, or of a link to it, takes on the average with its rest."""

WAIT_MS: Final = 100
"""The least between two faults."""


def live_kinds() -> list[tuple[str, str]]:
    """Every kind that a live system can be given, with each sort of target."""
    return [(name, target) for name, kind in KINDS.items() if kind.live for target in kind.targets]


def draw_case(
    *, seed: int, duration_s: int, instances: int, nodes: int, sessions: int, every_kind: int,
    policy: str = POLICY,
) -> Case:  # fmt: skip
    """
    A case of so many seconds, with each kind of fault at least `every_kind` times.

    Raises:
        ConfigError: there is no time for so many faults.

    """
    draws = Draws(key_of("chaos", seed))
    turns = _turns(draws, sessions, duration_s * 1_000)
    faults = _faults(draws, instances, nodes, sessions, duration_s * 1_000, every_kind)
    system = System(
        instances=instances, nodes=nodes, slots=SLOTS, service_ms=SERVICE_MS,
        heartbeat_ms=HEARTBEAT_MS, settle_ms=SETTLE_MS,
    )  # fmt: skip
    return Case(policy=policy, seed=seed, system=system, turns=turns, faults=faults)


def _turns(draws: Draws, sessions: int, span_ms: int) -> tuple[Turn, ...]:
    turns = []
    for client in range(sessions):
        at_ms = draws.below(min(PAUSE_MS, max(1, span_ms // 2)))
        while at_ms < span_ms:
            turns.append(Turn(client=client, at_ms=at_ms, audio_ms=draws.one_of(AUDIO_MS)))
            at_ms += PAUSE_MS // 2 + draws.below(PAUSE_MS)
    return tuple(sorted(turns, key=lambda turn: (turn.at_ms, turn.client)))


def _faults(
    draws: Draws, instances: int, nodes: int, sessions: int, span_ms: int, every_kind: int
) -> tuple[Fault, ...]:
    sizes = {"instance": instances, "node": nodes, "client": sessions}
    waiting = draws.shuffled(live_kinds() * every_kind)
    room_ms = span_ms - FIRST_FAULT_MS - QUIET_MS
    if not waiting:
        return ()
    pace_ms = room_ms // len(waiting)
    if pace_ms < 1:
        raise _too_short(every_kind, span_ms)
    busy: dict[str, int] = {}
    faults: list[Fault] = []
    at_ms = FIRST_FAULT_MS
    while waiting:
        wanted_ms = FIRST_FAULT_MS + len(faults) * pace_ms + draws.below(pace_ms)
        at_ms = max(wanted_ms, at_ms + WAIT_MS)
        if at_ms > span_ms - QUIET_MS // 2:
            raise _too_short(every_kind, span_ms)
        for_redis = [one for one in waiting if one[1].endswith("redis")]
        if len(for_redis) * REDIS_TURN_MS > span_ms - QUIET_MS - at_ms:
            # There is but one Redis, and much to be done to it: that comes first now.
            waiting = for_redis + [one for one in waiting if one not in for_redis]
        found = _first_free(draws, waiting, sizes, busy, at_ms)
        if found is not None:
            kind, target = found
            fault = _fault(draws, kind, target, at_ms)
            rest_ms = REST_MS + RESTS_MS.get(kind, 0)
            busy[_holder(target)] = at_ms + fault.for_ms + rest_ms
            faults.append(fault)
    return tuple(faults)


def _too_short(every_kind: int, span_ms: int) -> ConfigError:
    wanted = len(live_kinds()) * every_kind
    want = f"longer, or --every-kind less: {wanted} faults do not fit into {span_ms // 1_000} s"
    return ConfigError("chaos", "--duration", want)


def _first_free(
    draws: Draws,
    waiting: list[tuple[str, str]],
    sizes: dict[str, int],
    busy: dict[str, int],
    at_ms: int,
) -> tuple[str, str] | None:
    """Take the first that waits and has a target to which nothing is done now."""
    for place, (kind, sort) in enumerate(waiting):
        free = [one for one in _targets(sort, sizes) if busy.get(_holder(one), 0) <= at_ms]
        if free:
            del waiting[place]
            return kind, draws.one_of(free)
    return None


def _targets(sort: str, sizes: dict[str, int]) -> list[str]:
    first, slash, second = sort.partition("/")
    if first == "redis":
        return ["redis"]
    return [f"{first[0]}-{number}{slash}{second}" for number in range(sizes[first])]


def _holder(target: str) -> str:
    """What a fault needs for itself, as the breaker sees it."""
    return "redis" if target.endswith("redis") else target.partition("/")[0]


def _fault(draws: Draws, kind: str, target: str, at_ms: int) -> Fault:
    values: dict[str, Any] = {
        "for_ms": draws.one_of(LENGTHS_MS[kind]),
        "delay_ms": draws.one_of(DELAYS_MS),
        "lost": 1 + draws.below(LOST_MAX),
    }
    taken = {name: value for name, value in values.items() if name in KINDS[kind].takes}
    return Fault(kind=kind, target=target, at_ms=at_ms, **taken)
