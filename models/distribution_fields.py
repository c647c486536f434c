"""
A distribution of time, read from a study or a cost model.

Three ways to write one, so that the simple case stays simple:

    gap = "250 ms"                                          # a constant
    gap_ms = 250                                            # the same
    gap = { kind = "lognormal", mean_ms = 3, p999_ms = 15 } # any kind of `KINDS`

Every kind also takes `offset` (added first), `least` and `most` (then clipped).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

from simsched.models.distributions import (
    LOGNORMAL_RATIO_MAX,
    Constant,
    Distribution,
    Erlang,
    Exponential,
    Hyperexponential,
    Lognormal,
    Pareto,
    Uniform,
    balanced_hyperexponential,
    lognormal_from_p999,
    lognormal_from_scv,
)
from simsched.models.empirical import Bounded, Quantiles, Recorded
from simsched.models.fields import Fields, duration_from

ERLANG_PHASES_MAX: Final = 1000
"""Each phase costs one mixed draw; beyond this an Erlang is a constant to three digits."""

SIGMA_MAX: Final = 6.0
"""A lognormal with more has a mean of e^18 medians, which no recording has shown."""


def distribution(fields: Fields, name: str, default: Distribution | None = None) -> Distribution:
    """
    The distribution under key `name` of a table.

    Raises:
        ConfigError: missing without a default, unknown kind, key or unit, negative or impossible.

    """
    if default is not None and not fields.has(name):
        fields.raw(name)
        return default
    key, constant_ns = fields.take_quantity(name)
    if constant_ns is not None:
        return Constant(constant_ns)
    return parse_distribution(fields.raw(key), fields.where, key)


def parse_distribution(value: object, where: str, key: str) -> Distribution:
    """The distribution that a text ('250 ms') or a table says; errors name `where` and `key`."""
    if not isinstance(value, Mapping):
        return Constant(duration_from(value, where, key))
    fields = Fields(value, f"{where}.{key}")
    law = KINDS[fields.choice("kind", KINDS)](fields)
    if any(fields.has(name) for name in ("offset", "least", "most")):
        law = _bounded(fields, law)
    fields.close()
    return law


def _bounded(fields: Fields, inner: Distribution) -> Bounded:
    least = fields.duration("least", 0)
    most = fields.duration("most") if fields.has("most") else None
    if most is not None and most < least:
        raise fields.fail("most", "must not be below `least`")
    return Bounded(inner, fields.duration("offset", 0), least, most)


def _constant(fields: Fields) -> Distribution:
    return Constant(fields.duration("value"))


def _uniform(fields: Fields) -> Distribution:
    low, high = fields.duration("low"), fields.duration("high")
    if high < low:
        raise fields.fail("high", "must not be below `low`")
    return Uniform(low, high)


def _exponential(fields: Fields) -> Distribution:
    return Exponential(fields.duration("mean"))


def _erlang(fields: Fields) -> Distribution:
    k = fields.integer("k", least=1)
    if k > ERLANG_PHASES_MAX:
        raise fields.fail("k", f"must be at most {ERLANG_PHASES_MAX}, not {k}")
    return Erlang(k, fields.duration("mean"))


def _hyperexponential(fields: Fields) -> Distribution:
    if fields.has("scv"):
        scv = fields.number("scv")
        if scv < 1:
            raise fields.fail("scv", f"is at least 1 for a hyperexponential, not {scv:g}")
        return balanced_hyperexponential(fields.duration("mean"), scv)
    means, weights = fields.durations("means"), fields.numbers("weights")
    total = math.fsum(weights)
    if len(means) != len(weights):
        raise fields.fail("weights", f"needs one for each of the {len(means)} means")
    if total <= 0:
        raise fields.fail("weights", "must not all be 0")
    return Hyperexponential(means, tuple(w / total for w in weights))


def _lognormal(fields: Fields) -> Distribution:
    if fields.has("median"):
        sigma = fields.number("sigma")
        if sigma > SIGMA_MAX:
            raise fields.fail("sigma", f"must be at most {SIGMA_MAX:g}, not {sigma:g}")
        return Lognormal(float(fields.duration("median")), sigma)
    mean = fields.duration("mean", least=1)
    if not fields.has("p999"):
        return lognormal_from_scv(mean, fields.number("scv"))
    p999 = fields.duration("p999")
    if not mean <= p999 <= mean * LOGNORMAL_RATIO_MAX:
        raise fields.fail(
            "p999", f"must be 1 to {LOGNORMAL_RATIO_MAX:.0f} times the mean for a lognormal"
        )
    return lognormal_from_p999(mean, p999)


def _pareto(fields: Fields) -> Distribution:
    alpha = fields.number("alpha")
    if alpha <= 1:
        raise fields.fail("alpha", f"must be above 1, else there is no mean, not {alpha:g}")
    return Pareto(fields.duration("minimum", least=1), alpha)


def _quantiles(fields: Fields) -> Distribution:
    values = fields.durations("values")
    if len(values) < 2:
        raise fields.fail("values", "needs at least two quantiles")
    if fields.has("probabilities"):
        shares = fields.numbers("probabilities")
    else:
        shares = tuple(i / (len(values) - 1) for i in range(len(values)))
    if len(shares) != len(values) or shares[0] != 0 or shares[-1] != 1:
        raise fields.fail("probabilities", "needs one for each value, from 0 to 1")
    if any(b <= a for a, b in pairwise(shares)) or any(b < a for a, b in pairwise(values)):
        raise fields.fail("probabilities", "must rise, and their values must not fall")
    fields.raw("probabilities")
    return Quantiles(shares, values)


def _recorded(fields: Fields) -> Distribution:
    return Recorded(fields.durations("values"))


KINDS: Final[Mapping[str, Callable[[Fields], Distribution]]] = {
    "constant": _constant,
    "uniform": _uniform,
    "exponential": _exponential,
    "erlang": _erlang,
    "hyperexponential": _hyperexponential,
    "lognormal": _lognormal,
    "pareto": _pareto,
    "quantiles": _quantiles,
    "recorded": _recorded,
}
"""Every kind by its name in a file."""
