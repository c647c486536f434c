"""
What a study's runs come to: measured replications, by variant, and their paired differences.

A worker process turns each run into a `Replication` (numbers per metric, totals per step, counts of
calls and violations); everything that a report says is computed from these, in the order of the
study's variants and replications, so that it does not depend on who ran what when.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from simsched.experiments.intervals import Estimate
from simsched.experiments.statistics import Paired, paired, t_interval
from simsched.models.journal import Cuts
from simsched.models.record import CallTotals
from simsched.models.world import StepRow


@dataclass(frozen=True, slots=True)
class Window:
    """When an operation has to begin to be counted; ns since the start, `end_ns` None: no end."""

    start_ns: int
    end_ns: int | None
    method: str = "given"
    settled: bool = True

    def holds(self, moments: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the moments lie inside."""
        inside: npt.NDArray[np.bool_] = moments >= self.start_ns
        return inside if self.end_ns is None else inside & (moments < self.end_ns)


@dataclass(frozen=True, slots=True)
class Pilot:
    """A small run that told what an utterance costs, and the rate that follows for a load."""

    load: float
    sessions_per_s: float
    tightest: str
    demand_ns_per_session: dict[str, float]


@dataclass(slots=True)
class Replication:
    """One run, measured."""

    variant: str
    replication: int
    digest: str
    metrics: dict[str, float]
    steps: list[StepRow]
    calls: dict[tuple[int, int], dict[int, CallTotals]]
    violations: dict[str, int]
    checked: dict[str, int]
    examples: list[tuple[str, int, str]]
    conservation: dict[str, int]
    counters: dict[str, int]
    cuts: Cuts
    jobs: int
    sessions: int
    simulated_ns: int
    busy: dict[str, float] = field(default_factory=dict)
    operations: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class VariantRun:
    """
    All replications of one variant; the study's fixed number first.

    Those beyond `fixed` were added to make a comparison precise, and count for that alone;
    `pairs` of them are compared with the base's.
    """

    name: str
    base: str | None
    replications: list[Replication]
    fixed: int | None = None
    pairs: int | None = None

    def own(self) -> list[Replication]:
        """The replications that the variant's own numbers are made from."""
        return self.replications[: self.fixed]

    def estimate(self, metric: str, unit: str = "ms") -> Estimate | None:
        """The metric with its interval over replications; None if it was not measured."""
        values = [r.metrics[metric] for r in self.own() if metric in r.metrics]
        return t_interval(values, unit=unit) if values else None


@dataclass(slots=True)
class StudyRun:
    """
    A study that was run.

    `quick` and `command` say how it was asked for: the rough form or not, and the one command line
    that repeats it; "" where nobody said.
    """

    study: str
    seed: int
    variants: dict[str, VariantRun]
    windows: dict[str, Window] = field(default_factory=dict)
    pilots: dict[str, Pilot] = field(default_factory=dict)
    quick: bool = False
    command: str = ""

    def saving(self, variant: str, metric: str) -> Paired | None:
        """What a variant saves against its base, replication by replication."""
        run = self.variants[variant]
        if run.base is None:
            return None
        base = self.variants[run.base]
        pairs = [
            (b.metrics[metric], v.metrics[metric])
            for b, v in zip(base.replications, run.replications[: run.pairs], strict=False)
            if metric in b.metrics and metric in v.metrics
        ]
        return paired([b for b, _ in pairs], [v for _, v in pairs]) if pairs else None
