"""
Variants in which work piles up: what is said of them instead of a mean.

Under an overload every latency grows for as long as the run goes on, so its mean says how long the
run was. What can be said is how fast the backlog grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from simsched.experiments.backlog import grows
from simsched.experiments.intervals import Estimate, format_estimate
from simsched.experiments.loading import Run
from simsched.experiments.runs import StudyRun

FULL: Final = 1.0
"""The load from which on the tightest resource cannot keep up."""

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "grows": ("backlog grows by {growth} jobs/s", "积压每秒增长 {growth} 个任务"),
    "asked": (
        "load {load:g} is more than its tightest resource can do; the run is too short, or has too "
        "few replications, to tell how fast work piles up",
        "负载 {load:g} 超出最紧资源的能力；运行过短或重复过少，无法判断积压增长多快",
    ),
}


@dataclass(frozen=True, slots=True)
class Overload:
    """How fast a variant's backlog grows, per second; None: only its load says that it must."""

    growth: Estimate | None
    load: float

    def text(self, lang: str = "en", *, sign: str = "+-") -> str:
        """In words."""
        place = int(lang == "zh")
        if self.growth is None:
            return _TEXTS["asked"][place].format(load=self.load)
        return _TEXTS["grows"][place].format(growth=format_estimate(self.growth, sign=sign))


@dataclass(frozen=True, slots=True)
class _Measured:
    """The metrics of one replication."""

    metrics: Mapping[str, float]


def overloaded(replications: Sequence[_Measured], load: float | None) -> Overload | None:
    """
    The overload of a variant; None where nothing proves one.

    Args:
        replications: its own runs.
        load: what was asked for, of a variant that has no base: from `FULL` on it is an overload
            even if there are too few replications to prove it.

    """
    growth = grows(replications, "system")  # type: ignore[arg-type]  # only `metrics` is read
    if growth is not None:
        return Overload(replace(growth, unit=""), load or 0.0)
    return None if load is None or load < FULL else Overload(None, load)


def overloads_of(run: StudyRun) -> dict[str, Overload]:
    """The overloaded variants of a run, by name."""
    found = {}
    for name, variant in run.variants.items():
        pilot = run.pilots.get(name)
        load = None if pilot is None or variant.base is not None else pilot.load
        own = [_Measured(replication.metrics) for replication in variant.own()]
        over = overloaded(own, load)
        if over is not None:
            found[name] = over
    return found


def overloads_in(run: Run) -> dict[str, Overload]:
    """The same of a run directory."""
    metrics: dict[str, dict[int, dict[str, float]]] = {}
    table = run.metrics
    columns = [table[name].tolist() for name in ("variant", "replication", "metric", "value")]
    for variant, replication, metric, value in zip(*columns, strict=True):
        metrics.setdefault(variant, {}).setdefault(replication, {})[metric] = value
    found = {}
    for entry in run.manifest["study"]["variants"]:
        name = entry["name"]
        own = run.manifest["replications"][name]["own"]
        pilot = run.manifest["pilots"].get(name)
        load = None if pilot is None or entry["base"] is not None else pilot["load"]
        kept = [_Measured(v) for r, v in sorted(metrics.get(name, {}).items()) if r < own]
        over = overloaded(kept, load)
        if over is not None:
            found[name] = over
    return found
