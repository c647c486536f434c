"""
From a seed and a number to a case: which faults are on, where and when, and who speaks.

Swarm style: each schedule first draws which kinds of faults may happen at all and how often calls
and messages are late, then everything else; so some schedules are calm but for one kind, and that
is where kinds meet that would drown in the crowd. Draws hang on (seed, number) alone: every policy
meets the same schedules, however many processes look at them.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import structs

from simsched.cases import Case, System, Turn
from simsched.chance import key_of
from simsched.experiments.draws import Draws
from simsched.faults import KINDS, MOMENTS, Fault
from simsched.letters import NEWEST, OLDEST
from simsched.models.tape import GROUPS
from simsched.policy import FIELDS
from simsched.presets import PRESETS, parse_policy

TIMES: Final = {"job_timeout_ms": 3_000, "pending_ms": 3_500, "lease_ms": 4_000}
"""Short times, so that a schedule settles in half a minute; what the user sets himself stays."""

LONG_TIMES: Final = {"job_timeout_ms": 8_000, "lease_ms": 3_000}
LONG_SERVICE_MS: Final = 4_500
"""Of a schedule in which jobs outlive their first lease."""

SIZES: Final = {
    "small": {
        "instances": 2, "nodes": 3, "clients": 4, "turns": 20, "faults": 5, "span_ms": 3_000,
    },
    "large": {
        "instances": 4, "nodes": 9, "clients": 12, "turns": 80, "faults": 12, "span_ms": 6_000,
    },
}  # fmt: skip
"""What there is in a schedule: at least so many faults, and up to half as many more."""

SEEDS: Final = 1_000_000_000
"""Cases have seeds below this, drawn from the hunt's seed and the schedule's number."""

LARGE_EVERY: Final = 10
"""Of the schedules of both sizes, one in so many is large."""

CALM_TURNS: Final = 7
"""Utterances of every schedule that come when all is whole again: they show what is left behind,
and some of them have to wait."""

CALM_AFTER_MS: Final = 4_000
CALM_EVERY_MS: Final = 40

CROWDS: Final = (2, 4, 8)
"""Of the kinds of faults one in so many may happen: in a crowd, some pairs never meet alone."""

RATES: Final = (0.0, 0.02, 0.1, 0.3)
RARE_RATES: Final = (0.0, 0.0, 0.02, 0.1)
RARE: Final = ("tie", "point")
SLOTS: Final = (1, 2, 2, 2)
LINGERS_MS: Final = (20_000, 20_000, 20_000, 0)
SERVICES_MS: Final = (100, 300, 300, 1_000)
LENGTHS_MS: Final = (100, 500, 1_500, 4_000, 6_500)
"""How long faults last: the longest outlives every lease, sign of life and silence (6 s)."""
DELAYS_MS: Final = (20, 200, 1_000, 4_000)
SLOWER_MS: Final = (2, 10, 50)

BOTH_STEPS: Final = (
    "redis.heartbeat", "redis.get_owner", "redis.set_owner", "redis.xadd_inbox",
    "redis.set_binding", "redis.release", "jobs.read", "jobs.write", "result_queue.add",
    "dedup.lookup", "jobs.scan", "node.heartbeat", "snapshot.write", "result.metrics",
)  # fmt: skip
CLAIM_STEPS: Final = (
    "redis.claim", "redis.complete", "redis.renew", "redis.node_gone", "redis.presence",
    "select.index",
)  # fmt: skip
PHASE_STEPS: Final = (
    "redis.get_binding", "redis.set_nx_lock", "redis.unlock", "redis.lua_reserve", "redis.fsm",
    "redis.dec_running", "redis.mark_dispatched",
)  # fmt: skip
STEPS: Final = (*BOTH_STEPS, *CLAIM_STEPS, *PHASE_STEPS)
"""Where an instance may be hit in the middle of its work."""


def steps_of(policy: str) -> tuple[str, ...]:
    """The steps among `STEPS` that a policy comes to."""
    claims = parse_policy(policy).job_scheme == "claim"
    return (*BOTH_STEPS, *(CLAIM_STEPS if claims else PHASE_STEPS))


def hunted_policy(text: str) -> str:
    """
    The policy as the hunt plays it: with short times wherever the text does not say otherwise.

    Raises:
        ConfigError: it is no policy.

    """
    policy = parse_policy(text)
    usual = PRESETS[text.partition(",")[0].strip()]
    named = [name for name in TIMES if name in FIELDS and f"{name}=" not in text]
    plain = [name for name in named if getattr(policy, name) == getattr(usual, name)]
    return ",".join([text, *(f"{name}={TIMES[name]}" for name in plain)])


def draw_case(policy: str, seed: int, number: int, size: str) -> tuple[Case, dict[str, float]]:
    """
    Schedule `number`, and the rates of its tape's groups.

    Args:
        policy: as it is played, see `hunted_policy`.
        seed: of the whole hunt.
        number: of the schedule.
        size: `small`, `large` or `both`.

    """
    key = key_of("schedule", seed, number)
    draws = Draws(key)
    large = size == "large" or (size == "both" and number % LARGE_EVERY == LARGE_EVERY - 1)
    sizes = SIZES["large" if large else "small"]
    streams, takes_long = draws.happens(4), draws.happens(8)
    turns = _turns(draws, sizes, streams=streams)
    one_in = draws.one_of(CROWDS)
    on = [kind for kind in KINDS if draws.happens(one_in)] or [draws.one_of(tuple(KINDS))]
    count = sizes["faults"] + draws.below(sizes["faults"] // 2 + 1)
    faults = tuple(_fault(draws, draws.one_of(on), sizes) for _ in range(count))
    rates = {group: draws.one_of(RARE_RATES if group in RARE else RATES) for group in GROUPS}
    if draws.happens(3):
        rates = dict.fromkeys(GROUPS, 0.0)  # nothing but the faults
    calm_ms = max(_over_ms(fault, sizes) for fault in faults)
    slots, service_ms = draws.one_of(SLOTS), draws.one_of(SERVICES_MS)
    system = System(
        instances=sizes["instances"], nodes=sizes["nodes"], slots=slots,
        service_ms=LONG_SERVICE_MS if takes_long else service_ms,
        mode="audio_chunk" if streams else "utterance", resumes=not draws.happens(4),
        acknowledges=draws.happens(2), calm_ms=calm_ms,
        linger_ms=draws.one_of(LINGERS_MS),
        versions=_versions(draws, sizes["instances"]),
    )  # fmt: skip
    case = Case(
        policy=_with_long_times(policy) if takes_long else policy, seed=key % SEEDS, system=system,
        turns=_some_in_calm(turns, calm_ms + system.service_ms), faults=faults,
    )  # fmt: skip
    return case, rates


def _with_long_times(policy: str) -> str:
    """The policy for long jobs; other times than the hunt's own stay."""
    long = {
        f"{name}={usual}": f"{name}={LONG_TIMES.get(name, usual)}" for name, usual in TIMES.items()
    }
    return ",".join(long.get(part, part) for part in policy.split(","))


def _over_ms(fault: Fault, sizes: dict[str, int]) -> int:
    """When a fault is over; one within a step has hit by the time that the others have."""
    at_ms = sizes["span_ms"] + 500 if fault.is_at_step else fault.at_ms
    return at_ms + fault.for_ms + fault.delay_ms


def _versions(draws: Draws, instances: int) -> tuple[int, ...]:
    """In the middle of an upgrade, now and then: each instance speaks what it speaks."""
    if not draws.happens(4):
        return ()
    return tuple(draws.one_of((OLDEST, NEWEST)) for _ in range(instances))


def _turns(draws: Draws, sizes: dict[str, int], *, streams: bool) -> tuple[Turn, ...]:
    turns = [
        Turn(
            client=draws.below(sizes["clients"]),
            at_ms=draws.below(sizes["span_ms"]),
            repeat_after_ms=draws.below(200) if draws.happens(4) and not streams else -1,
            ends=not (streams and draws.happens(4)),
        )
        for _ in range(sizes["turns"])
    ]
    return tuple(sorted(turns, key=lambda turn: turn.at_ms))


def _some_in_calm(turns: tuple[Turn, ...], calm_ms: int) -> tuple[Turn, ...]:
    """The last few are spoken when everything is whole again."""
    at_ms = calm_ms + CALM_AFTER_MS
    late = [
        structs.replace(turn, at_ms=at_ms + CALM_EVERY_MS * place)
        for place, turn in enumerate(turns[-CALM_TURNS:])
    ]
    return (*turns[:-CALM_TURNS], *late)


def _fault(draws: Draws, kind: str, sizes: dict[str, int]) -> Fault:
    known = KINDS[kind]
    slow = kind == "redis_slow"
    values: dict[str, Any] = {
        "for_ms": draws.one_of(LENGTHS_MS),
        "delay_ms": draws.one_of(SLOWER_MS if slow else DELAYS_MS),
        "lost": 1 + draws.below(6),
        "count": 1 + draws.below(3),
        "factor": float(draws.one_of((2, 8))),
        "by_ms": (draws.below(21) - 10) * 1_000,
    }
    taken = {name: value for name, value in values.items() if name in known.takes}
    target = _target(draws, draws.one_of(known.targets), sizes)
    if known.at_step and draws.happens(2):
        where = {"step": draws.one_of(STEPS), "nth": 1 + draws.below(12)}
        moment = draws.one_of(tuple(MOMENTS))
        return Fault(kind=kind, target=target, moment=moment, **where, **taken)  # type: ignore[arg-type]
    return Fault(kind=kind, target=target, at_ms=draws.below(sizes["span_ms"] + 500), **taken)


def _target(draws: Draws, kind: str, sizes: dict[str, int]) -> str:
    first, slash, second = kind.partition("/")
    counts = {"instance": ("i", "instances"), "node": ("n", "nodes"), "client": ("c", "clients")}
    if first not in counts:
        return first
    prefix, size = counts[first]
    return f"{prefix}-{draws.below(sizes[size])}{slash}{second}"
