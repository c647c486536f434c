"""
What a terminal shows of a run, by the kind of its study: which metrics, and how a verdict reads.

A queue is told by its customers and its exact values, any other study by what a variant saves and
what was promised. It reads `summary.json` alone and prints nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simsched.experiments.comparing import brief
from simsched.experiments.intervals import Estimate

Verdict = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTables:
    """
    The two tables of one kind of study.

    Attributes:
        metrics: shown for every variant, by their names in `summary.json`.
        head: of the table of verdicts; `cells` gives one row of it.
        read_as: whether verdicts say how a variant's scenario was read.

    """

    metrics: tuple[str, ...]
    head: tuple[str, ...]
    cells: Callable[[Verdict], list[str]]
    read_as: bool = False

    def readings(self, verdicts: Sequence[Verdict]) -> dict[str, str]:
        """How each variant was read, where its kind says so."""
        if not self.read_as:
            return {}
        return {row["variant"]: row["read_as"] for row in verdicts if row["read_as"]}


def with_interval(estimate: float, half_width: float | None) -> str:
    """A number for people, with its half width if it has one."""
    width = math.inf if half_width is None else half_width
    return brief(Estimate(estimate=estimate, half_width=width, replications=0, method=""))


def _saving(row: Verdict) -> list[str]:
    promised, saves = row["promised_ms"], row["saves_ms"]
    saved = "-" if saves is None else with_interval(saves, row["half_width_ms"])
    text = "-" if promised is None else " to ".join(f"{end:g}" for end in promised)
    return [row["variant"], row["metric"], saved, text, row["verdict"]]


def _queue(row: Verdict) -> list[str]:
    exact = "-" if row["exact"] is None else f"{row['exact']:.5g}"
    simulated = with_interval(row["simulated"], row["half_width"])
    return [row["variant"], row["metric"], row["unit"], exact, simulated, row["verdict"]]


SAVINGS: Final = RunTables(
    metrics=(
        "create_job_ms", "create_job_ms_p99", "job_result_ms", "audio_chunk_ms", "end_to_end_ms",
    ),
    head=("variant", "metric", "saves, ms", "promised, ms", "verdict"),
    cells=_saving,
)  # fmt: skip

QUEUE: Final = RunTables(
    metrics=("queue:customers", "queue:utilisation"),
    head=("case", "figure", "unit", "exact", "simulated", "exact value is"),
    cells=_queue,
    read_as=True,
)

KINDS: Final[Mapping[str, RunTables]] = {"queue": QUEUE}
"""By the study's `answers`; any other kind is told by its savings."""


def tables_of(answers: str) -> RunTables:
    """The tables of a kind of study."""
    return KINDS.get(answers, SAVINGS)
