"""Every number has an interval, and every interval says what it promises."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from simsched.experiments.statistics import (
    Estimate,
    batch_means,
    bonferroni,
    control_variates,
    cut_warmup,
    format_estimate,
    mser5,
    overload,
    paired,
    paired_counts,
    paired_ratio,
    proportion_interval,
    quantile,
    quantile_across,
    replications_needed,
    stop_at,
    t_interval,
    t_quantile,
    verdict,
    z_quantile,
    zero_upper_bound,
)

numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)
SECOND = 1_000_000_000


def draws(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def estimate(value: float, half_width: float, unit: str = "ms") -> Estimate:
    return Estimate(
        estimate=value, half_width=half_width, replications=10, method="given", unit=unit
    )


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.995, 0.9999])
def test_quantiles_are_scipys(level: float) -> None:
    """Our own quantiles of t and the normal law agree with scipy to ten digits."""
    assert z_quantile(level) == pytest.approx(scipy_stats.norm.ppf(0.5 + level / 2), rel=1e-10)
    for degrees in (1, 2, 3, 4, 9, 10, 29, 99, 500, 2_000, 2_001, 50_000):
        expected = scipy_stats.t.ppf(0.5 + level / 2, degrees)
        assert t_quantile(level, degrees) == pytest.approx(expected, rel=1e-10)


def test_a_textbook_interval() -> None:
    """1..5 has mean 3 and half width 2.776 x sqrt(2.5 / 5)."""
    interval = t_interval([1, 2, 3, 4, 5], unit="ms")

    assert interval.estimate == 3.0
    assert interval.half_width == pytest.approx(1.963243, rel=1e-6)
    assert (interval.low, interval.high) == (3 - interval.half_width, 3 + interval.half_width)
    assert (interval.replications, interval.unit) == (5, "ms")


def test_one_replication_has_no_interval() -> None:
    """Its half width is infinite, null in JSON, and no verdict can be built on it."""
    alone = t_interval([7.0])

    assert alone.half_width == math.inf
    assert json.loads(json.dumps(alone.as_json(), allow_nan=False))["half_width"] is None
    assert verdict(alone, (1, 2)) == "undecided"


@given(values=numbers, order=st.randoms(use_true_random=False))
def test_the_order_of_replications_does_not_matter(values: list[float], order: object) -> None:
    """Sums are exactly rounded, so that the same bytes come out whoever ran which replication."""
    shuffled = list(values)
    order.shuffle(shuffled)  # type: ignore[attr-defined]

    assert t_interval(values) == t_interval(shuffled)


@given(values=numbers)
def test_a_variant_that_changes_nothing_saves_exactly_nothing(values: list[float]) -> None:
    """Pairs that are equal give 0 +- 0, not a small number."""
    same = paired(values, values)

    assert (same.saving.estimate, same.saving.half_width) == (0.0, 0.0)
    assert same.variance_reduction is None


def test_common_random_numbers_pay() -> None:
    """A shift common to both runs drops out; the reduction says how much it was worth."""
    common = draws(1).normal(100, 10, 200)
    variant = common - 5 + draws(2).normal(0, 1, 200)

    result = paired(common, variant, unit="ms")

    assert result.saving.contains(5)
    assert result.saving.half_width < 0.2
    assert result.variance_reduction == pytest.approx(200, rel=0.3)


def test_a_relative_saving_is_one_of_means() -> None:
    """A variant that takes 3/4 saves 25 % without doubt, whatever the base does."""
    base = draws(3).gamma(2, 5, 30)

    saving = paired_ratio(base, base * 0.75)

    assert saving.estimate == pytest.approx(0.25)
    assert saving.half_width == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="mean is 0"):
        paired_ratio([0, 0], [1, 1])


def test_more_violations_show() -> None:
    """The excess of violations is positive when the variant is worse, and 0 +- 0 for none."""
    assert paired_counts([0] * 10, [3, 2, 4, 3, 2, 5, 3, 2, 3, 4]).low > 0
    assert paired_counts([1, 0, 2, 0], [0, 1, 1, 1]).contains(0)
    assert paired_counts([0, 0, 0], [0, 0, 0]).high == 0


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), q=st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], q: float) -> None:
    """Interpolated between order statistics, as numpy and pandas do by default."""
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), abs=1e-6)


def test_quantiles_are_taken_before_the_interval() -> None:
    """Each replication gives one quantile; integers (nanoseconds) are welcome."""
    interval = quantile_across([np.arange(101), np.arange(101) + 10], 0.95, unit="ns")

    assert interval.estimate == 100.0
    assert interval.method == "p95 per replication, t across"


def with_start(length: int, start: int, seed: int) -> NDArray[np.float64]:
    series = draws(seed).normal(10, 1, length)
    series[:start] -= 8
    return series


def test_a_transient_is_cut() -> None:
    """A biased start is cut to the batch, a flat or constant series not at all."""
    assert mser5(with_start(1_000, 100, 4)) == pytest.approx(100, abs=25)
    assert mser5([0.1] * 500) == 0
    assert mser5(draws(5).normal(0, 1, 2_000)) < 400


def test_the_cut_is_common_and_reported() -> None:
    """One cut for all replications, with its share; the user's own cut wins."""
    series = [with_start(400 + seed, 50, seed) for seed in range(10)]

    warmup = cut_warmup(series)

    assert 50 <= warmup.cut <= 75
    assert warmup.settled
    assert warmup.share == warmup.cut / 400
    assert len(warmup.kept(series[3])) == 403 - warmup.cut
    assert cut_warmup(series, override=7).cut == 7
    assert cut_warmup(series, override=7).method == "given"
    with pytest.raises(ValueError, match="must lie between"):
        cut_warmup(series, override=400)


def test_a_run_that_never_settles_says_so() -> None:
    """A series that only rises is cut by half at most, and marked; a tiny one is left alone."""
    rising = cut_warmup([np.arange(1_000.0)])

    assert rising.cut == 500
    assert not rising.settled
    assert not cut_warmup([[1.0, 2.0, 3.0]]).settled


def test_batch_means_leave_the_remainder_at_the_start() -> None:
    """Twenty means of equal length, the oldest values left out."""
    interval = batch_means([1_000.0, *([1.0, 3.0] * 20)], batches=20)

    assert interval.estimate == 2.0
    assert interval.half_width == 0.0
    assert (interval.replications, interval.method) == (20, "20 batch means of one run")


def number_in_system(utilisation: float, seed: int) -> NDArray[np.float64]:
    """M/M/1 by a discrete walk of 20,000 steps, read every 100, its first quarter cut."""
    random = draws(seed).random(20_000)
    number, read = 0, []
    for step, chance in enumerate(random):
        number = number + 1 if chance < utilisation / (1 + utilisation) else max(0, number - 1)
        if step % 100 == 0 and step >= 5_000:
            read.append(number)
    return np.array(read, dtype=np.float64)


@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.9])
def test_a_stable_queue_does_not_grow(utilisation: float) -> None:
    """No growth is reported where there is a steady state."""
    times = np.arange(150) * SECOND

    for group in range(10):
        runs = [number_in_system(utilisation, 1_000 * group + seed) for seed in range(5)]
        assert overload(times, runs) is None


def test_overload_is_a_rate() -> None:
    """Above capacity the number grows, at the rate by which arrivals exceed departures."""
    runs = [number_in_system(1.2, seed) for seed in range(5)]

    growth = overload(np.arange(150) * SECOND, runs)

    assert growth is not None
    # (1.2 - 1) / 2.2 per step, 100 steps between readings a second apart.
    assert growth.rate.contains(100 * 0.2 / 2.2)
    assert growth.rate.unit == "1/s"
    assert overload(np.arange(150) * SECOND, runs[:1]) is None


def test_a_certain_but_small_drift_is_no_overload() -> None:
    """The tail of a warm-up, a few per cent of the level, does not void the mean."""
    times = np.arange(150) * SECOND
    runs = [100 + np.arange(150) * 0.05 + draws(seed).normal(0, 1, 150) for seed in range(5)]

    assert overload(times, runs) is None


def test_controls_take_out_what_they_explain() -> None:
    """What is linear in the controls disappears; the truth stays covered."""
    controls = draws(8).normal(5, 1, (30, 2))
    noise = draws(9).normal(0, 0.01, 30)
    values = 3 + 2 * (controls[:, 0] - 5) - (controls[:, 1] - 5) + noise

    result = control_variates(values, list(controls), (5, 5))

    assert result.estimate.contains(3)
    assert result.estimate.half_width < result.plain.half_width / 20
    assert result.coefficients == pytest.approx((2, -1), abs=0.02)
    assert result.r_squared > 0.999


def test_controls_agree_with_a_regression_library() -> None:
    """One control gives the intercept and the standard error that scipy gives."""
    control, values = draws(10).normal(0, 1, 15), draws(11).normal(0, 1, 15) + 4

    result = control_variates(values, [[c] for c in control], (0.0,))
    fit = scipy_stats.linregress(control, values)

    assert result.estimate.estimate == pytest.approx(fit.intercept)
    assert result.estimate.half_width == pytest.approx(
        scipy_stats.t.ppf(0.975, 13) * fit.intercept_stderr
    )
    assert result.r_squared == pytest.approx(fit.rvalue**2)


@pytest.mark.parametrize(
    "rows",
    [
        [[0.1, float(i)] for i in range(12)],
        [[float(i), 2.0 * i] for i in range(12)],
        [[float(i), float(i * i)] for i in range(8)],
    ],
    ids=["constant", "repeated", "too few replications"],
)
def test_poor_controls_fall_back(rows: list[list[float]]) -> None:
    """Constant or redundant controls, or few replications, give the plain interval."""
    result = control_variates(range(len(rows)), rows, (0.1, 0.0))

    assert result.estimate == result.plain
    assert result.r_squared == 0.0


def test_rare_things_have_a_bound() -> None:
    """Zero seen is not zero: three over n; Wilson's interval agrees in kind."""
    assert zero_upper_bound(1_000) == 0.003
    assert zero_upper_bound(2) == 1.0
    none, some, all_of_them = (proportion_interval(k, 100) for k in (0, 10, 100))

    assert (none.low, all_of_them.high) == (0.0, 1.0)
    assert (some.low, some.high) == pytest.approx((0.05523, 0.17437), abs=1e-5)


@given(trials=st.integers(1, 10_000), data=st.data())
def test_a_share_lies_in_its_interval(trials: int, data: st.DataObject) -> None:
    """The interval of a share holds it and never leaves 0 to 1."""
    share = proportion_interval(data.draw(st.integers(0, trials)), trials)

    assert 0 <= share.low <= share.estimate <= share.high <= 1


@pytest.mark.parametrize(
    ("saving", "expected"),
    [
        (estimate(10, 2), "confirmed"),
        (estimate(3, 2), "confirmed"),
        (estimate(3, 1.9), "less"),
        (estimate(20, 4), "more"),
        (estimate(17, 2), "confirmed"),
    ],
)
def test_verdicts(saving: Estimate, expected: str) -> None:
    """Confirmed when interval and promise (5 to 15) meet, touching included."""
    assert verdict(saving, (5, 15)) == expected


def test_many_intervals_share_the_risk() -> None:
    """Ten intervals at 99.5 % cover together with 95 %."""
    assert bonferroni(0.95, 10) == pytest.approx(0.995)
    assert bonferroni(0.95, 1) == pytest.approx(0.95)


@given(values=st.lists(st.floats(0, 100), min_size=3, max_size=20), share=st.floats(0.05, 2))
def test_the_replications_asked_for_are_just_enough(values: list[float], share: float) -> None:
    """With the spread seen, the predicted number reaches the target and one less does not."""
    seen = t_interval(values)
    target = max(seen.half_width * share, 1e-3)

    count = replications_needed(seen, target)

    deviation = seen.half_width * math.sqrt(len(values)) / t_quantile(0.95, len(values) - 1)
    widths = [t_quantile(0.95, n - 1) * deviation / math.sqrt(n) for n in (count, count - 1)]
    assert widths[0] <= target * (1 + 1e-9)
    assert count == len(values) or widths[1] > target
    assert stop_at(seen, target) == (count == len(values))


@pytest.mark.parametrize(
    ("given_estimate", "text"),
    [
        (estimate(12.345, 0.42), "12.3 +- 0.4 ms"),
        (estimate(12.345, 0.123), "12.35 +- 0.12 ms"),
        (estimate(123_456, 2_345), "123500 +- 2300 ms"),
        (estimate(-0.001, 0.5), "0.0 +- 0.5 ms"),
        (estimate(0.00123, 0.00098, ""), "0.0012 +- 0.0010"),
        (estimate(5.0, 0.0), "5 +- 0 ms"),
        (estimate(4.21, math.inf), "4.21 ms (no interval: one replication)"),
    ],
)
def test_digits_follow_the_half_width(given_estimate: Estimate, text: str) -> None:
    """As many digits as the interval supports, and no -0.0."""
    assert format_estimate(given_estimate) == text


def test_nonsense_is_refused() -> None:
    """Nothing, infinities and unequal pairs raise instead of spreading."""
    with pytest.raises(ValueError, match="no values"):
        t_interval([])
    with pytest.raises(ValueError, match="not finite"):
        t_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="against"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_interval([1, 2], level=95)
    with pytest.raises(ValueError, match="low end comes first"):
        verdict(estimate(1, 1), (3, 2))
