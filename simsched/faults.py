"""
What can break, by name: the vocabulary that the simulated and the real world share.

A `Fault` is data: a kind, a target, a moment, and how long or how much. Most happen at a time, in
both worlds. Those that name a step hit one instance in the middle of its work, between any two
steps of the core or between a script's execution and its reply: only a simulator can do that, a
live run refuses them by name. Nothing here does anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final, NamedTuple

import msgspec

from simsched.errors import ConfigError
from simsched.steps import CATALOGUE


class Moment(NamedTuple):
    """Where in a step a fault hits."""

    name: str
    doc: str


MOMENTS: Final = {
    "before": "the instance is about to begin the step",
    "held": "it holds the step's lock or core, or its call is under way to the store",
    "executed": "the store has executed the call, and its reply is under way",
    "after": "the step is over, and what it protects is free again",
}
"""Where in a step a fault may hit."""


class Kind(NamedTuple):
    """
    One way to break.

    Attributes:
        targets: what it can hit: instance, node, client, redis, or a link (`i-0/redis`, ...).
        takes: which fields of a fault besides kind, target and moment it reads.
        at_step: it may hit within a step.
        live: a real system of processes can be given it.

    """

    targets: tuple[str, ...]
    takes: tuple[str, ...]
    at_step: bool
    live: bool
    doc: str


KINDS: Final = {
    "instance_crash": Kind(
        ("instance",), ("for_ms",), True, True,
        "the process is gone, and back empty under a new name after for_ms (0: never)",
    ),
    "instance_pause": Kind(
        ("instance",), ("for_ms",), True, True,
        "nothing of it runs for for_ms, timers included, and it does not know",
    ),
    "node_crash": Kind(
        ("node",), ("for_ms",), False, True,
        "its socket closes and its jobs are gone; it comes back empty after for_ms (0: never)",
    ),
    "node_hang": Kind(
        ("node",), ("for_ms",), False, True,
        "its socket stays open, nothing is answered; then it goes on where it was",
    ),
    "node_slow": Kind(
        ("node",), ("for_ms", "factor"), False, False,
        "jobs begun meanwhile take factor times as long",
    ),
    "node_reconnect": Kind(
        ("node",), ("for_ms",), False, True,
        "its socket closes; it works on, and says what it still runs when it is back after for_ms",
    ),
    "result_repeat": Kind(
        ("node",), ("count", "delay_ms"), False, False,
        "each of its next count results is sent again after delay_ms",
    ),
    "result_late": Kind(
        ("node",), ("count", "delay_ms"), False, False,
        "its next count results leave delay_ms late",
    ),
    "result_fail": Kind(
        ("node",), ("count",), False, False,
        "its next count jobs end with a failure that it reports",
    ),
    "redis_slow": Kind(
        ("redis",), ("for_ms", "delay_ms"), False, False,
        "every call keeps the server busy delay_ms longer",
    ),
    "redis_down": Kind(
        ("redis",), ("for_ms",), False, True, "not reachable for for_ms; nothing is forgotten"
    ),
    "redis_restart": Kind(
        ("redis",), ("for_ms",), False, True, "not reachable for for_ms, and back with nothing"
    ),
    "redis_failover": Kind(
        ("redis",), ("for_ms", "lost"), False, True,
        "not reachable for for_ms; a replica takes over that lacks the last lost writes",
    ),
    "partition": Kind(
        ("instance/redis", "node/instance", "client/instance"), ("for_ms",), False, True,
        "nothing passes on the link; what was sent waits until it heals or is given up",
    ),
    "link_slow": Kind(
        ("instance/redis", "node/instance", "client/instance"), ("for_ms", "delay_ms"), False, True,
        "everything on the link takes delay_ms longer each way",
    ),
    "clock_jump": Kind(
        ("instance", "redis"), ("by_ms",), False, False,
        "its wall clock jumps by by_ms; what it measures spans with does not",
    ),
}  # fmt: skip
"""The catalogue, by name."""

PREFIXES: Final = {"i": "instance", "n": "node", "c": "client"}
"""How targets are written: i-0, n-2, c-1, redis; a link as two of them: i-0/redis, n-2/instance."""

TIME_MAX_MS: Final = 86_400_000
"""A day: the latest moment and the longest time of a schedule."""

AMOUNTS: Final = {
    "for_ms": (0, TIME_MAX_MS), "delay_ms": (0, TIME_MAX_MS), "factor": (0.001, 1e6),
    "count": (1, 1_000_000), "lost": (0, 1_000_000), "by_ms": (-TIME_MAX_MS, TIME_MAX_MS),
}  # fmt: skip
"""How long or how much, from and to; a kind takes some of them."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One fault of a schedule.

    Attributes:
        kind: a key of `KINDS`.
        target: `i-0`, `n-2`, `c-1`, `redis`, or a link, e.g. `i-0/redis`, `n-2/instance`.
        at_ms: when, counted from the first client's arrival; or, instead of it,
        step, nth, moment: at the nth execution of that step by the target, see `MOMENTS`.
        for_ms: how long.
        delay_ms, factor, count, lost, by_ms: see the kind.

    """

    kind: str
    target: str
    at_ms: int = -1
    step: str = ""
    nth: int = 1
    moment: str = "before"
    for_ms: int = 0
    delay_ms: int = 0
    factor: float = 2.0
    count: int = 1
    lost: int = 0
    by_ms: int = 0

    @property
    def is_at_step(self) -> bool:
        """Whether it waits for a step and not for a time."""
        return bool(self.step)

    def check(self, where: str) -> None:
        """
        See that the fault makes sense.

        Raises:
            ConfigError: what is wrong, and what would be right.

        """
        known = KINDS.get(self.kind)
        if known is None:
            raise ConfigError(where, "kind", f"one of {', '.join(KINDS)}, not {self.kind!r}")
        if target_kind(self.target) not in known.targets:
            raise ConfigError(
                where,
                "target",
                f"{self.kind} hits {_written(known.targets)}, not {self.target!r}",
            )
        self._check_moment(known, where)
        for name, (least, most) in AMOUNTS.items():
            value = getattr(self, name)
            if value != _PLAIN[name] and name not in known.takes:
                raise ConfigError(where, name, f"{self.kind} takes {', '.join(known.takes)}")
            if not least <= value <= most:
                raise ConfigError(where, name, f"must be {least} to {most}, not {value}")

    def _check_moment(self, known: Kind, where: str) -> None:
        if not self.is_at_step:
            if not 0 <= self.at_ms <= TIME_MAX_MS:
                want = f"a fault needs at_ms (0 to {TIME_MAX_MS}) or a step"
                raise ConfigError(where, "at_ms", want)
            return
        if not known.at_step:
            raise ConfigError(
                where, "step", f"{self.kind} happens at a time (at_ms), not in a step"
            )
        if self.step not in {step.name for step in CATALOGUE}:
            near = get_close_matches(self.step, [step.name for step in CATALOGUE], 3, 0.0)
            want = f"no such step: {self.step!r}; the nearest are {', '.join(near)}"
            raise ConfigError(where, "step", want)
        if self.moment not in MOMENTS:
            raise ConfigError(where, "moment", f"one of {', '.join(MOMENTS)}, not {self.moment!r}")
        if self.nth < 1:
            raise ConfigError(where, "nth", "must be 1 or more")


_PLAIN: Final = dict(
    zip(Fault.__struct_fields__[-len(Fault.__struct_defaults__) :], Fault.__struct_defaults__,
        strict=True)
)  # fmt: skip


def _written(kinds: Iterable[str]) -> str:
    """Kinds of targets with one of each as it is written."""
    letters = {kind: f"{prefix}-0" for prefix, kind in PREFIXES.items()}
    shown = []
    for kind in kinds:
        first, slash, second = kind.partition("/")
        written = f"{letters.get(first, first)}{slash}{second}"
        shown.append(kind if written == kind else f"{kind} ({written})")
    return " or ".join(shown)


def target_kind(target: str) -> str:
    """What a target is, e.g. `instance`, `node/instance`; "" if it is nothing that is known."""
    first, slash, second = target.partition("/")
    kind = _one(first)
    if not slash:
        return kind
    other = _one(second) or (second if second == "instance" else "")
    return f"{kind}/{other}" if kind and other else ""


_NUMBER: Final = re.compile("[0-9]{1,9}")


def _one(name: str) -> str:
    if name == "redis":
        return name
    prefix, dash, number = name.partition("-")
    return PREFIXES.get(prefix, "") if dash and _NUMBER.fullmatch(number) else ""


def number_of(target: str) -> int:
    """The number in `i-3` or `n-3/instance`."""
    return int(target.partition("/")[0].partition("-")[2])
