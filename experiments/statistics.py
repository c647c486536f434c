"""
The statistics of a study: what a variant saves, how sure that is, and what to call it.

The door to `intervals` (one number) and `warmup` (steady state), which it re-exports, and the home
of comparisons: differences under common random numbers, control variates, verdicts.

Rules: a difference is paired by replication and is never printed without its interval; how many
replications to run is decided on counts, never by wall time; whatever is chosen by looking at
data (the shorter of two intervals, say) is not chosen here, since it would cost coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from simsched.experiments.intervals import (
    LEVEL,
    Estimate,
    Proportion,
    Values,
    bonferroni,
    finite_floats,
    format_estimate,
    mean,
    proportion_interval,
    quantile,
    quantile_across,
    t_interval,
    t_quantile,
    variance,
    z_quantile,
    zero_upper_bound,
)
from simsched.experiments.warmup import Growth, Warmup, batch_means, cut_warmup, mser5, overload

__all__ = [
    "LEVEL",
    "Controlled",
    "Estimate",
    "Growth",
    "Paired",
    "Proportion",
    "Values",
    "Verdict",
    "Warmup",
    "batch_means",
    "bonferroni",
    "control_variates",
    "cut_warmup",
    "format_estimate",
    "mser5",
    "overload",
    "paired",
    "paired_counts",
    "paired_ratio",
    "proportion_interval",
    "quantile",
    "quantile_across",
    "replications_needed",
    "stop_at",
    "t_interval",
    "t_quantile",
    "verdict",
    "z_quantile",
    "zero_upper_bound",
]

Verdict = Literal["confirmed", "less", "more", "undecided"]

# Fewer degrees than this and the estimated coefficients cost more than the controls save.
CONTROL_DEGREES_MIN: Final = 6
# A pivot of the controls' correlation matrix below this means that one repeats the others.
_PIVOT_MIN: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """
    What a variant saves against its base under common random numbers.

    `saving` is base minus variant, positive when the variant is smaller. `variance_reduction` is
    the variance that independent runs would have had over the one of the pairs: the factor of
    replications saved; None when it is undefined (one pair, or pairs that differ by a constant).
    """

    saving: Estimate
    variance_reduction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """
    A mean adjusted by control variates, beside the plain one.

    `r_squared` is the share of the variance that the controls explain, 0 after falling back.
    """

    estimate: Estimate
    plain: Estimate
    r_squared: float
    coefficients: tuple[float, ...]


def paired(base: Values, variant: Values, level: float = LEVEL, *, unit: str = "") -> Paired:
    """Saving of `variant` against `base`, replication by replication (common random numbers)."""
    pairs = _pairs(base, variant)
    savings = [before - after for before, after in pairs]
    saving = t_interval(savings, level, unit=unit, method="paired t")
    reduction = None
    if len(pairs) > 1 and (spread := variance(savings)) > 0.0:
        independent = variance([before for before, _ in pairs]) + variance(
            [after for _, after in pairs]
        )
        reduction = independent / spread
    return Paired(saving=saving, variance_reduction=reduction)


def paired_ratio(base: Values, variant: Values, level: float = LEVEL) -> Estimate:
    """
    Relative saving 1 - mean(variant) / mean(base), as a fraction (unit "1").

    The ratio of means, not the mean of ratios; its interval by linearising around it (the delta
    method: Cochran, Sampling Techniques, 6.3), which keeps the gain of common random numbers.

    Raises:
        ValueError: if the base's mean is 0, of which nothing can be saved.
    """
    pairs = _pairs(base, variant)
    base_mean = mean([before for before, _ in pairs])
    if base_mean == 0.0:
        raise ValueError("paired ratio: the base's mean is 0")
    ratio = mean([after for _, after in pairs]) / base_mean
    residuals = [(ratio * before - after) / base_mean for before, after in pairs]
    interval = t_interval(residuals, level)
    return Estimate(
        estimate=1.0 - ratio,
        half_width=interval.half_width,
        replications=len(pairs),
        method="paired ratio of means",
        unit="1",
        level=level,
    )


def paired_counts(
    base_counts: Sequence[int], variant_counts: Sequence[int], level: float = LEVEL
) -> Estimate:
    """
    How many more violations per replication the variant has: variant minus base.

    Positive is worse; a variant breaks an invariant more often when `low` > 0. Zero everywhere
    gives 0 +- 0, which proves nothing: print `zero_upper_bound` of the jobs seen instead.
    """
    pairs = _pairs(base_counts, variant_counts)
    return t_interval([after - before for before, after in pairs], level, method="paired counts")


def _pairs(base: Values, variant: Values) -> list[tuple[float, float]]:
    befores, afters = finite_floats(base, "base"), finite_floats(variant, "variant")
    if len(befores) != len(afters):
        raise ValueError(f"paired: {len(befores)} replications against {len(afters)}")
    return list(zip(befores, afters, strict=True))


def control_variates(
    values: Values,
    controls: Sequence[Values],
    known_means: Sequence[float],
    level: float = LEVEL,
    *,
    unit: str = "",
) -> Controlled:
    """
    Mean of `values` with what is known about the controls' means taken out.

    Linear regression on the controls, evaluated at their known means (Lavenberg and Welch,
    Management Science 27:3, 1981); R - k - 1 degrees of freedom. Falls back to the plain interval
    with fewer than 6 degrees, or with controls that are constant or repeat each other.

    Args:
        values: one result per replication (R).
        controls: one row of k controls per replication, e.g. its mean service time.
        known_means: the k expectations that the controls would have.
        level: of the interval.
        unit: of the values.
    """
    results = finite_floats(values, "control variates")
    rows = [finite_floats(row, "controls") for row in controls]
    if len(rows) != len(results) or any(len(row) != len(known_means) for row in rows):
        raise ValueError("control variates: one row per value, one control per known mean")
    plain = t_interval(results, level, unit=unit)
    degrees = len(results) - len(known_means) - 1
    columns = [[row[k] for row in rows] for k in range(len(known_means))]
    fit = _regress(results, columns) if degrees >= CONTROL_DEGREES_MIN else None
    if fit is None:
        none = (0.0,) * len(known_means)
        return Controlled(estimate=plain, plain=plain, r_squared=0.0, coefficients=none)
    gaps = [mean(column) - known for column, known in zip(columns, known_means, strict=True)]
    shift = math.fsum(b * gap for b, gap in zip(fit.coefficients, gaps, strict=True))
    # The known point lies off the sample's centre: its distance, in the controls' own metric,
    # adds to 1/R. `_regress` gives the inverse of the controls' sums of squares.
    distance = math.fsum(
        gaps[i] * fit.inverse[i][j] * gaps[j] for i in range(len(gaps)) for j in range(len(gaps))
    )
    spread = math.sqrt(fit.residual / degrees * (1 / len(results) + max(0.0, distance)))
    adjusted = Estimate(
        estimate=plain.estimate - shift,
        half_width=t_quantile(level, degrees) * spread,
        replications=len(results),
        method=f"{len(known_means)} control variates, t over replications",
        unit=unit,
        level=level,
    )
    return Controlled(
        estimate=adjusted,
        plain=plain,
        r_squared=fit.r_squared,
        coefficients=fit.coefficients,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    coefficients: tuple[float, ...]
    inverse: list[list[float]]
    residual: float
    r_squared: float


def _regress(values: Sequence[float], columns: Sequence[Sequence[float]]) -> _Fit | None:
    """Least squares of values on columns; None when the columns are degenerate."""
    centred = [[value - mean(column) for value in column] for column in columns]
    results = [value - mean(values) for value in values]
    scales = [math.sqrt(_dot(column, column)) for column in centred]
    # Rounding leaves a constant column with a spread of a few last bits: that is no control.
    if any(
        scale <= 1e-12 * math.sqrt(_dot(column, column))
        for scale, column in zip(scales, columns, strict=True)
    ):
        return None
    unit = [[value / scale for value in c] for c, scale in zip(centred, scales, strict=True)]
    inverse = _inverse([[_dot(one, other) for other in unit] for one in unit])
    if inverse is None:
        return None
    projections = [_dot(column, results) for column in unit]
    slopes = [_dot(row, projections) for row in inverse]
    fitted = [_dot(slopes, [column[i] for column in unit]) for i in range(len(results))]
    residual = math.fsum((y - f) ** 2 for y, f in zip(results, fitted, strict=True))
    total = _dot(results, results)
    order = range(len(scales))
    return _Fit(
        coefficients=tuple(slope / scale for slope, scale in zip(slopes, scales, strict=True)),
        inverse=[[inverse[i][j] / (scales[i] * scales[j]) for j in order] for i in order],
        residual=residual,
        r_squared=1.0 - residual / total if total > 0.0 else 0.0,
    )


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _inverse(matrix: list[list[float]]) -> list[list[float]] | None:
    """
    Gauss-Jordan inverse of a correlation matrix; None when it is (nearly) singular.

    Written out because LAPACK's last bits depend on the machine. No pivoting: the matrix is
    symmetric and positive definite, its pivots are the parts of each control not yet explained.
    """
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for at in range(size):
        pivot = rows[at][at]
        if pivot < _PIVOT_MIN:
            return None
        rows[at] = [value / pivot for value in rows[at]]
        for other in range(size):
            if other != at:
                factor = rows[other][at]
                rows[other] = [v - factor * p for v, p in zip(rows[other], rows[at], strict=True)]
    return [row[size:] for row in rows]


def verdict(saving: Estimate, promised: tuple[float, float]) -> Verdict:
    """
    Judge a saving against a promised range, both in the same unit.

    Confirmed when the interval meets the range; less or more when it lies wholly below or above.
    Undecided when there is no interval (one replication): infinity would meet every promise.
    """
    low, high = promised
    if low > high:
        raise ValueError(f"promised: {low} to {high}: the low end comes first")
    if not math.isfinite(saving.half_width):
        return "undecided"
    if saving.high < low:
        return "less"
    if saving.low > high:
        return "more"
    return "confirmed"


def stop_at(estimate: Estimate, half_width_target: float) -> bool:
    """
    Whether a sequential run may stop: the interval is as narrow as was asked for.

    Decided on replications alone, in their order, so that it does not depend on how many workers
    ran them. Looking after every replication costs some coverage: look after batches of them.
    """
    return estimate.half_width <= half_width_target


def replications_needed(estimate: Estimate, half_width_target: float) -> int:
    """
    Replications in all (not in addition) that should bring the half width to the target.

    From the spread seen so far, by Student's t at the new count; never fewer than were run.

    Raises:
        ValueError: if the target is not positive, or one replication has shown no spread.
    """
    if half_width_target <= 0.0:
        raise ValueError(f"half width: {half_width_target}: must be positive")
    if not math.isfinite(estimate.half_width):
        raise ValueError("replications needed: at least two replications show a spread")
    done = estimate.replications
    if estimate.half_width <= half_width_target:
        return done
    deviation = estimate.half_width * math.sqrt(done) / t_quantile(estimate.level, done - 1)

    def enough(count: int) -> bool:
        width = t_quantile(estimate.level, count - 1) * deviation / math.sqrt(count)
        return width <= half_width_target

    few, many = done, done * 2
    while not enough(many):
        few, many = many, many * 2
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many
