"""
Two run directories side by side: every difference with its interval, or none at all.

Two runs with the same seed met the same speakers, so they are compared replication by replication;
others as independent samples, by Welch's interval.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from simsched.experiments.intervals import Estimate, format_estimate, mean, t_quantile, variance
from simsched.experiments.loading import Run
from simsched.experiments.metrics import metric_of
from simsched.experiments.statistics import paired

Values = dict[int, float]

DIGITS: Final = 4
PLACES_MAX: Final = 6
"""What a table can use: digits of a number, and decimals of one below 1."""


def brief(estimate: Estimate) -> str:
    """
    An estimate with its interval for a table on a terminal, without its unit.

    As many digits as the half width supports, `DIGITS` at most: a narrower interval is printed as
    wide as the last of them. Alone if every replication gave the same.
    """
    whole = len(str(int(abs(estimate.estimate))))
    places = max(0, DIGITS - whole) if abs(estimate.estimate) >= 1 else PLACES_MAX
    if estimate.half_width == 0.0:
        return f"{estimate.estimate:.{DIGITS}g}" if whole <= DIGITS else f"{estimate.estimate:.0f}"
    text = format_estimate(replace(estimate, unit=""))
    decimals = len(text.split(" ", 1)[0].partition(".")[2])
    if not math.isfinite(estimate.half_width) or decimals <= places:
        return text
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    centre = round(estimate.estimate, places) + 0.0
    half_width = max(estimate.half_width, 10.0**-places)
    return f"{centre:.{places}f} +- {half_width:.{places}f}"


def compare_runs(one: Run, other: Run) -> list[list[str]]:
    """Rows of variant, metric, both estimates, and `one` minus `other`."""
    same_seed = one.summary["seed"] == other.summary["seed"]
    mine, theirs = _values(one), _values(other)
    rows = []
    for (variant, metric), values in mine.items():
        if (variant, metric) not in theirs:
            continue
        others = theirs[variant, metric]
        found = difference(values, others, paired_by_replication=same_seed)
        cells = [_cell(run, variant, metric) for run in (one, other)]
        rows.append([variant, f"{metric} [{metric_of(metric).unit}]", *cells, found])
    return rows


def difference(one: Values, other: Values, *, paired_by_replication: bool) -> str:
    """`one` minus `other` for people, with its interval."""
    common = [number for number in one if number in other]
    if paired_by_replication and common:
        found = paired([one[n] for n in common], [other[n] for n in common]).saving
    else:
        found = welch(list(one.values()), list(other.values()))
    return brief(found)


def welch(one: list[float], other: list[float]) -> Estimate:
    """Difference of the means of two independent samples (Welch, Biometrika 34, 1947)."""
    gap = mean(one) - mean(other)
    if min(len(one), len(other)) < 2:
        return Estimate(estimate=gap, half_width=math.inf, replications=1, method="Welch")
    parts = [variance(values) / len(values) for values in (one, other)]
    total = math.fsum(parts)
    counts = (len(one), len(other))
    weights = math.fsum(
        part * part / (count - 1) for part, count in zip(parts, counts, strict=True)
    )
    # Rounded down: fewer degrees are a wider, so an honest, interval.
    degrees = max(1, math.floor(total * total / weights)) if weights else min(counts) - 1
    width = t_quantile(0.95, degrees) * math.sqrt(total)
    return Estimate(estimate=gap, half_width=width, replications=min(counts), method="Welch")


def _cell(run: Run, variant: str, metric: str) -> str:
    entry: dict[str, Any] = run.summary["variants"][variant]["metrics"][metric]
    width = math.inf if entry["half_width"] is None else entry["half_width"]
    return brief(Estimate(estimate=entry["estimate"], half_width=width, replications=0, method=""))


def _values(run: Run) -> dict[tuple[str, str], Values]:
    """By variant and metric: the value of every own replication."""
    own = {name: entry["own"] for name, entry in run.manifest["replications"].items()}
    found: dict[tuple[str, str], Values] = {}
    table = run.metrics
    columns = [table[name].tolist() for name in ("variant", "metric", "replication", "value")]
    for variant, metric, replication, value in zip(*columns, strict=True):
        if replication < own[variant]:
            found.setdefault((variant, metric), {})[replication] = value
    return found
