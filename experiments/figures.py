"""
The analysis report's own figures, typed: what it says each thing costs, saves and takes.

Ranges are (low, high) in milliseconds unless the field says otherwise. The numbers are data
(`figures.toml`); nothing here judges them.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

import msgspec

Range = tuple[float, float]

PHASES: Final = (1, 2)


class Claim(msgspec.Struct, frozen=True):
    """The executive summary's claim, in percent of a latency that it does not name."""

    percent: Range
    section: str


class Issue(msgspec.Struct, frozen=True):
    """One row of sections 4.1-4.3: a repeated call, and what it costs per operation."""

    id: str
    section: str
    severity: str
    operation: str
    cost: Range


class Sum(msgspec.Struct, frozen=True):
    """One block of section 4.4; an absent part adds nothing."""

    operation: str
    total: Range
    high: Range = (0, 0)
    medium: Range = (0, 0)
    low: Range = (0, 0)


class Proposal(msgspec.Struct, frozen=True):
    """One proposal of section 5, the metric that it speaks of and its risk of section 7."""

    id: str
    section: str
    saves: Range
    metric: str
    effort: str
    risk: str
    stage: int


class Stage(msgspec.Struct, frozen=True):
    """One stage of section 6: by itself, and together with those before it."""

    id: int
    weeks: tuple[int, int]
    alone: Range
    cumulative: Range


class Call(msgspec.Struct, frozen=True):
    """One row of appendix A: fewest and most calls per operation."""

    section: str
    operation: str
    method: str
    phase1: tuple[int, int]
    phase2: tuple[int, int]

    def of_phase(self, phase: int) -> tuple[int, int]:
        """What it says of phase 1 or 2."""
        return self.phase1 if phase == 1 else self.phase2


class Lock(msgspec.Struct, frozen=True):
    """One row of appendix B."""

    name: str
    mean: Range
    most: Range
    contention: str


class RedisCall(msgspec.Struct, frozen=True):
    """One row of appendix C, and the step of the catalogue that it is here."""

    operation: str
    step: str
    calls: int
    each: Range
    total: Range


class RedisTotal(msgspec.Struct, frozen=True):
    """The last row of appendix C."""

    calls: int
    total: Range


class Figures(msgspec.Struct, frozen=True):
    """Everything that the report states as a number."""

    claim: Claim
    issue: tuple[Issue, ...]
    sum: tuple[Sum, ...]
    proposal: tuple[Proposal, ...]
    stage: tuple[Stage, ...]
    call: tuple[Call, ...]
    lock: tuple[Lock, ...]
    redis: tuple[RedisCall, ...]
    redis_total: RedisTotal


@cache
def figures() -> Figures:
    """The packaged figures."""
    file = resources.files("simsched") / "experiments" / "figures.toml"
    return msgspec.toml.decode(file.read_bytes(), type=Figures)
