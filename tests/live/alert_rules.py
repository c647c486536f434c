"""
The part of PromQL that our alert rules use, over samples of two scrapes.

`NAME{label="value"} OP NUMBER`, with `rate(...[5m])`, `sum(...)` and
`histogram_quantile(q, rate())` around the selector. Everything else is refused, so that a rule
cannot silently not be tested.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]
Vector = dict[Labels, float]

COMPARE: dict[str, Callable[[float, float], bool]] = {">": operator.gt, "==": operator.eq}
RULE = re.compile(r"^(?P<value>.+) (?P<how>>|==) (?P<limit>[0-9.]+)$")
SELECTOR = re.compile(r'^(?P<name>[a-z_]+)(?:\{(?P<label>[a-z_]+)="(?P<text>[^"]*)"\})?$')
RATE = re.compile(r"^rate\((?P<of>.+)\[5m\]\)$")
SUM = re.compile(r"^sum\((?P<of>.+)\)$")
QUANTILE = re.compile(r"^histogram_quantile\((?P<share>[0-9.]+), (?P<of>.+)\)$")
SECONDS = 300


def samples_of(page: bytes) -> Samples:
    """The samples of one scrape."""
    families = text_string_to_metric_families(page.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def fires(rule: str, before: Samples, after: Samples) -> bool:
    """Whether a rule holds for anything after five minutes that began and ended like this."""
    found = RULE.match(rule)
    assert found, f"not understood: {rule}"
    values = _vector(found["value"], before, after).values()
    return any(COMPARE[found["how"]](value, float(found["limit"])) for value in values)


def names_of(rule: str) -> list[str]:
    return re.findall(r"simsched_[a-z_]+", rule)


def _vector(text: str, before: Samples, after: Samples) -> Vector:
    if found := QUANTILE.match(text):
        return _quantile(float(found["share"]), _vector(found["of"], before, after))
    if found := SUM.match(text):
        inner = _vector(found["of"], before, after)
        return {(): math.fsum(inner.values())} if inner else {}
    if found := RATE.match(text):
        old, new = _select(found["of"], before), _select(found["of"], after)
        return {labels: (new[labels] - old.get(labels, 0.0)) / SECONDS for labels in new}
    return _select(text, after)


def _select(text: str, samples: Samples) -> Vector:
    found = SELECTOR.match(text)
    assert found, f"not understood: {text}"
    wanted = (found["label"], found["text"])
    return {
        labels: value
        for (name, labels), value in samples.items()
        if name == found["name"] and (found["label"] is None or wanted in labels)
    }


def _quantile(share: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        rest = tuple(pair for pair in labels if pair[0] != "le")
        groups.setdefault(rest, []).append((bound, count))
    return {
        labels: _within(share, sorted(found))
        for labels, found in groups.items()
        if max(found)[1] > 0
    }


def _within(share: float, buckets: list[tuple[float, float]]) -> float:
    rank, low, below = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (rank - below) / max(count - below, 1e-12)
        low, below = bound, count
    return low
