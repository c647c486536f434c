"""Promises of the distributions: right moments, monotone inverses, whole numbers, clear errors."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.chance import key_of, mix
from simsched.errors import ConfigError
from simsched.models.distribution_fields import KINDS, parse_distribution
from simsched.models.distributions import Constant, Distribution, Lognormal
from simsched.models.quantiles import QuantileTable, compiled

LAWS: dict[str, dict[str, object]] = {
    "constant": {"kind": "constant", "value": "250 ms"},
    "uniform": {"kind": "uniform", "low_ms": 1, "high_ms": 5},
    "exponential": {"kind": "exponential", "mean_ms": 5},
    "erlang": {"kind": "erlang", "k": 4, "mean_ms": 5},
    "hyperexponential": {"kind": "hyperexponential", "mean_ms": 5, "scv": 4},
    "weighted phases": {"kind": "hyperexponential", "means_ms": [1, 9], "weights": [3, 1]},
    "lognormal": {"kind": "lognormal", "mean_ms": 3, "p999_ms": 15},
    "pareto": {"kind": "pareto", "minimum_ms": 1, "alpha": 6},
    "quantiles": {
        "kind": "quantiles",
        "probabilities": [0, 0.5, 0.95, 0.99, 1],
        "values_ms": [0.11, 0.19, 0.36, 4.8, 6],
    },
    "recorded": {"kind": "recorded", "values_ms": [3, 3, 1, 1, 2]},
    "shifted": {"kind": "exponential", "mean_ms": 5, "offset_ms": 2},
    "clipped": {"kind": "lognormal", "mean_ms": 5, "scv": 1, "least_ms": 2, "most_ms": 9},
}
INVERSES = [name for name in LAWS if name not in ("erlang", "hyperexponential", "weighted phases")]
INVERSES.remove("recorded")
DRAWS = 40_000
bits64 = st.integers(0, 2**64 - 1)


def law(name: str) -> Distribution:
    return parse_distribution(LAWS[name], "study.toml", "cost")


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_stated_mean_and_scv(name: str) -> None:
    """Mean and scv of many draws agree with what the law says of itself, within sampling error."""
    of = law(name)
    key = key_of("moments", name)
    values = [of.ns(mix(key, k)) for k in range(DRAWS)]
    mean = statistics.fmean(values)
    error = math.sqrt(of.scv / DRAWS) * of.mean_ns

    assert abs(mean - of.mean_ns) <= 4 * error + 1
    assert statistics.pvariance(values, mean) / mean**2 == pytest.approx(of.scv, rel=0.25, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "mean_ms", "scv"),
    [
        ("uniform", 3, 16 / 12 / 9),
        ("exponential", 5, 1),
        ("erlang", 5, 1 / 4),
        ("hyperexponential", 5, 4),
        ("weighted phases", 3, 2 * (0.75 * 1 + 0.25 * 81) / 9 - 1),
        ("pareto", 1.2, 1 / 24),
        ("recorded", 2, 0.2),
        ("shifted", 7, 25 / 49),
    ],
)
def test_moments_are_those_of_the_textbook(name: str, mean_ms: float, scv: float) -> None:
    """Mean and scv equal the closed forms."""
    assert law(name).mean_ns == pytest.approx(mean_ms * 1e6, rel=1e-6)
    assert law(name).scv == pytest.approx(scv, rel=1e-5)


def test_a_lognormal_through_mean_and_p999_has_both() -> None:
    """The fit that the report's lock holds need keeps its mean and its p99.9."""
    fitted = law("lognormal")

    assert fitted.mean_ns == pytest.approx(3e6, rel=1e-9)
    assert fitted.quantile(0.999) == pytest.approx(15e6, rel=1e-9)


@pytest.mark.parametrize("name", INVERSES)
@given(pair=st.tuples(bits64, bits64))
@settings(max_examples=60)
def test_inverse_transforms_never_fall(name: str, pair: tuple[int, int]) -> None:
    """More bits never give less time, in the exact form and in the table."""
    low, high = sorted(pair)
    exact, table = law(name), compiled(law(name))

    assert exact.ns(low) <= exact.ns(high)
    assert table.ns(low) <= table.ns(high)


@pytest.mark.parametrize("name", LAWS)
def test_the_ends_of_the_bits_are_drawn_safely(name: str) -> None:
    """No bits give an error, a negative time or anything but a whole number."""
    for bits in (0, 1, 2**12, 2**63, 2**64 - 2**12, 2**64 - 1):
        for form in (law(name), compiled(law(name))):
            value = form.ns(bits)
            assert type(value) is int
            assert value >= 0


@pytest.mark.parametrize("name", LAWS)
def test_the_table_agrees_with_its_law(name: str) -> None:
    """Mean within a thousandth; median, p99 and p99.9 within half a percent."""
    exact = law(name)
    table = QuantileTable(exact)

    assert table.mean_ns == pytest.approx(exact.mean_ns, rel=1e-3)
    if name != "recorded":  # its steps are drawn as short slopes
        for p in (0.1, 0.5, 0.9, 0.99, 0.999):
            assert table.quantile(p) == pytest.approx(exact.quantile(p), rel=5e-3)


def test_the_tables_own_mean_is_that_of_its_draws() -> None:
    """A mean used for a load computation is the mean of what is drawn."""
    table = QuantileTable(law("hyperexponential"))
    shares = 1 << 14
    drawn = statistics.fmean(table.ns(((i << 1) + 1) << 49) for i in range(shares))

    assert drawn == pytest.approx(table.mean_ns, rel=2e-3)


def test_the_tail_of_a_table_goes_on_beyond_p999() -> None:
    """One draw in a million is as far out as the law says, not the end of a coarse table."""
    exact = Lognormal(1e6, 1.0)

    assert QuantileTable(exact).quantile(1 - 1e-6) == pytest.approx(
        exact.quantile(1 - 1e-6), rel=0.02
    )


def test_equal_laws_share_one_table() -> None:
    """Compiling is done once for a law, and never for what is whole-number arithmetic already."""
    assert compiled(law("lognormal")) is compiled(law("lognormal"))
    assert compiled(law("uniform")) == law("uniform")


@given(k=st.integers(0, 100), bits=bits64)
def test_a_recorded_list_is_read_in_order_and_again(k: int, bits: int) -> None:
    """Value k is the k-th of the list, whatever the bits."""
    assert law("recorded").at(k, bits) == [3, 3, 1, 1, 2][k % 5] * 1_000_000


@given(bits=bits64)
def test_a_clip_holds_for_every_draw(bits: int) -> None:
    """`least` and `most` are bounds, not tendencies."""
    assert 2_000_000 <= law("clipped").ns(bits) <= 9_000_000


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("250 ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        ("3 us", 3000),
        ("0 ms", 0),
        ("2e3 ns", 2000),
    ],
)
def test_a_text_with_a_unit_is_a_constant(value: str, ns: int) -> None:
    """The short way to write a time."""
    assert parse_distribution(value, "f", "k") == Constant(ns)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (5, "has no unit: write cost_ms = 5 or cost = '5 ms'"),
        ("5", "unknown unit"),
        ("5 sec", "known are: ns, us, ms, s, min, h"),
        ("soon", "no number with a unit"),
        ("-1 ms", "at least 0"),
        ({"kind": "exponental", "mean_ms": 5}, "did you mean 'exponential'?"),
        ({"kind": "exponential", "meen_ms": 5}, "mean: is missing"),
        ({"kind": "exponential", "mean_ms": 5, "scvv": 1}, "cost: scvv: unknown key"),
        ({"kind": "exponential", "mean_ms": -5}, "mean_ms: must be a finite time of at least 0"),
        ({"kind": "exponential", "mean_ms": 5, "mean_us": 5}, "is given twice"),
        ({"kind": "exponential", "mean_ms": math.inf}, "finite"),
        ({"kind": "exponential", "mean_h": 1e9}, "30 years"),
        ({"kind": "exponential", "mean_ms": True}, "must be a number"),
        ({"kind": "hyperexponential", "mean_ms": 5, "scv": 0.5}, "at least 1"),
        ({"kind": "hyperexponential", "means_ms": [5], "weights": [1, 2]}, "one for each"),
        ({"kind": "erlang", "k": 0, "mean_ms": 5}, "k: must be at least 1"),
        ({"kind": "uniform", "low_ms": 5, "high_ms": 1}, "must not be below `low`"),
        ({"kind": "lognormal", "mean_ms": 1, "p999_ms": 500}, "118 times the mean"),
        ({"kind": "pareto", "minimum_ms": 1, "alpha": 1}, "above 1"),
        ({"kind": "quantiles", "values_ms": [2, 1]}, "must not fall"),
        ({"kind": "recorded", "values_ms": []}, "list of at least one value"),
        ({"mean_ms": 5}, "kind: is missing"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(value: object, says: str) -> None:
    """Every mistake is one `ConfigError` that names the place, the key and the remedy."""
    with pytest.raises(ConfigError) as caught:
        parse_distribution(value, "study.toml", "cost")

    assert str(caught.value).startswith("study.toml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_kind_is_tried_here() -> None:
    """A kind added later joins the promises above."""
    assert {str(table["kind"]) for table in LAWS.values()} == set(KINDS)
