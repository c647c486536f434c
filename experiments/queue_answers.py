"""
The study `queue-check`: what the simulator says of queues, beside what theory says.

A variant is a case. Its exact value is recognised from its scenario, not written down beside it;
where none is known the same figures stand alone. Intervals are narrowed by what is known of the
arrivals and services that came (control variates), and those that are compared with an exact value
are made wider for their number, so that all of them together cover at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simsched.errors import SimschedError
from simsched.experiments.intervals import LEVEL, Estimate, bonferroni, format_estimate, t_interval
from simsched.experiments.page import Page
from simsched.experiments.queue_cases import Known, known_case
from simsched.experiments.queue_measure import PREFIX, is_queue, known_controls
from simsched.experiments.queue_reading import reading
from simsched.experiments.runs import Replication, StudyRun, VariantRun
from simsched.experiments.statistics import CONTROL_DEGREES_MIN, control_variates
from simsched.experiments.study import Study, Variant

FIGURES: Final[Mapping[str, tuple[str, str, str]]] = {
    "mean_wait": ("wait, mean", "等待，均值", "s"),
    "mean_wait_served": ("wait of the served, mean", "被服务者等待，均值", "s"),
    "wait_p50": ("wait, p50", "等待，p50", "s"),
    "wait_p95": ("wait, p95", "等待，p95", "s"),
    "wait_p99": ("wait, p99", "等待，p99", "s"),
    "mean_sojourn": ("sojourn, mean", "逗留，均值", "s"),
    "sojourn_p50": ("sojourn, p50", "逗留，p50", "s"),
    "sojourn_p95": ("sojourn, p95", "逗留，p95", "s"),
    "sojourn_p99": ("sojourn, p99", "逗留，p99", "s"),
    "mean_queue": ("number in queue", "队列中人数", "1"),
    "mean_number": ("number in system", "系统中人数", "1"),
    "wait_probability": ("probability of waiting", "等待概率", "1"),
    "blocking": ("blocking", "阻塞率", "1"),
    "abandonment": ("abandonment", "放弃率", "1"),
    "throughput": ("throughput", "吞吐量", "1/s"),
    "utilisation": ("utilisation", "利用率", "1"),
}
"""What is told of a case, in this order: in English, in Chinese, the unit."""

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "figure": ("figure", "指标"),
    "exact": ("exact", "精确值"),
    "simulated": ("simulated", "模拟值"),
    "inside": ("inside", "在区间内"),
    "width": ("half width", "半宽"),
    "yes": ("yes", "是"),
    "no": ("NO", "否"),
    "short": ("too few customers", "顾客太少"),
    "customers": ("{n:,.0f} customers in {r} replications", "{r} 次重复共 {n:,.0f} 位顾客"),
    "read": ("read as {queue}", "识别为 {queue}"),
    "unknown": ("no exact value is known", "无已知精确值"),
    "verdict": (
        "{inside} of {all} exact values lie inside their intervals. Intervals that are compared "
        "are at {level:.3%} each, so that all together cover at 95 %; half widths are at 95 %.",
        "{all} 个精确值中有 {inside} 个位于区间内。参与比较的区间各取 {level:.3%}，"
        "合计覆盖率为95%；半宽为95%水平。",
    ),
    "savings": ("Changes, with common random numbers", "变化（公共随机数）"),
}

_COMPARED: Final[tuple[str, ...]] = ("figure", "exact", "simulated", "inside", "width")
"""Columns where an exact value is known."""

QUANTILE_CUSTOMERS_MIN: Final = 8_000
"""
Customers that a replication must count before its quantiles are held against exact ones.

Quantiles of few dependent waits are biased, whoever simulates: over 400 runs of 550 customers each
the median wait of an MMPP/M/1 was 7 % too high, with arrivals, services and mean wait right.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One figure of one case; `wide` is its interval corrected for the number of comparisons.

    `long_enough` false: the exact value is told, and not compared.
    """

    variant: str
    figure: str
    simulated: Estimate
    wide: Estimate
    exact: float | None
    long_enough: bool = True

    @property
    def inside(self) -> bool | None:
        """Whether the exact value lies in the corrected interval; None if nothing is compared."""
        if self.exact is None or not self.long_enough:
            return None
        slack = 1e-9 * max(1.0, abs(self.exact))
        return self.wide.low - slack <= self.exact <= self.wide.high + slack


def answer(run: StudyRun, study: Study, out_dir: Path, lang: str) -> list[dict[str, Any]]:
    """Write the page; the verdicts are one row per figure of each case."""
    table, changes = rows(run, study), savings(run, study)
    page = Page(study.question or study.name, lang)
    compared = [row for row in (*table, *changes) if row.inside is not None]
    if compared:
        level = bonferroni(LEVEL, len(compared))
        inside = sum(row.inside is True for row in compared)
        text = _text("verdict", lang).format(inside=inside, all=len(compared), level=level)
        page.sentence(text, role="finding")
    for variant in study.variants:
        own = run.variants[variant.name].own()
        mine = [row for row in table if row.variant == variant.name]
        _case(page, variant, mine, own, lang)
    if changes:
        head = [_text(key, lang) for key in _COMPARED]
        cells = [[change.variant, *_cells(change, _COMPARED, lang)] for change in changes]
        page.table(_text("savings", lang), ["", *head], cells)
    page.write(out_dir / "report.html")
    queues = {variant.name: reading(variant.scenario) for variant in study.variants}
    return [_verdict(row, queues.get(row.variant, "")) for row in (*table, *changes)]


def rows(run: StudyRun, study: Study) -> list[Row]:
    """
    Every measured figure of every case, in the order of the study.

    Raises:
        SimschedError: a variant is not one queue, so that there is nothing to compare.

    """
    for variant in study.variants:
        if not is_queue(variant.scenario):
            raise SimschedError(
                f"{study.where}: variant {variant.name}: not one queue: needs mode 'utterance', "
                "utterances 1, one instance and one language pair"
            )
    found = {v.name: _exact_figures(known_case(v.scenario)) for v in study.variants}
    wide = _level(run, study)
    table = []
    for variant in study.variants:
        own = run.variants[variant.name].own()
        known = known_controls(variant.scenario)
        for name in _measured(run.variants[variant.name]):
            values = [replication.metrics[PREFIX + name] for replication in own]
            table.append(
                Row(
                    variant.name, name,
                    _estimate(own, values, known, FIGURES[name][2], LEVEL),
                    _estimate(own, values, known, FIGURES[name][2], wide),
                    found[variant.name].get(name),
                    _long_enough(run.variants[variant.name], name),
                )
            )  # fmt: skip
    return table


def savings(run: StudyRun, study: Study) -> list[Row]:
    """
    What each variant with a base saves, pair by pair: mean wait, or of a closed case throughput.

    A closed case that gets slower loses throughput, which is then a saving above 0.
    """
    changes, wide = [], _level(run, study)
    for variant in study.variants:
        if variant.base is None:
            continue
        base = study.variant(variant.base)
        before, after = run.variants[base.name].own(), run.variants[variant.name].own()
        name = _saved(base)
        key, unit = PREFIX + name, FIGURES[name][2]
        values = [b.metrics[key] - a.metrics[key] for b, a in zip(before, after, strict=False)]
        known, paired = known_controls(base.scenario), before[: len(values)]
        changes.append(
            Row(
                f"{base.name} - {variant.name}", name,
                _estimate(paired, values, known, unit, LEVEL),
                _estimate(paired, values, known, unit, wide),
                _exact_change(base, variant),
            )
        )  # fmt: skip
    return changes


def _saved(base: Variant) -> str:
    return "throughput" if base.scenario.workload.is_closed else "mean_wait"


def _exact_change(base: Variant, variant: Variant) -> float | None:
    name = _saved(base)
    before, after = (_exact_figures(known_case(one.scenario)) for one in (base, variant))
    return before[name] - after[name] if name in before and name in after else None


def _level(run: StudyRun, study: Study) -> float:
    """The level of each interval that is compared, changes included (Bonferroni)."""
    count = 0
    for variant in study.variants:
        mine, exact = run.variants[variant.name], _exact_figures(known_case(variant.scenario))
        count += sum(name in exact and _long_enough(mine, name) for name in _measured(mine))
        if variant.base is not None:
            count += _exact_change(study.variant(variant.base), variant) is not None
    return bonferroni(LEVEL, max(1, count))


def _exact_figures(known: Known | None) -> dict[str, float]:
    return {} if known is None else known.figures


def _measured(run: VariantRun) -> list[str]:
    """The figures that all replications have."""
    return [name for name in FIGURES if all(PREFIX + name in one.metrics for one in run.own())]


def _long_enough(run: VariantRun, figure: str) -> bool:
    """Whether the figure may be compared: a mean always, a quantile of many customers."""
    counted = min(one.metrics.get(PREFIX + "customers", 0.0) for one in run.own())
    return "_p" not in figure.replace("_probability", "") or counted >= QUANTILE_CUSTOMERS_MIN


def _estimate(
    own: Sequence[Replication],
    values: Sequence[float],
    known: Mapping[str, float],
    unit: str,
    level: float,
) -> Estimate:
    """With control variates where there are replications enough, else the plain interval."""
    varying = [name for name in known if _varies([one.metrics.get(name) for one in own])]
    # As many as leave the regression its degrees of freedom: chosen by number, not by effect.
    names = varying[: max(0, len(own) - CONTROL_DEGREES_MIN - 1)]
    if not names:
        return t_interval(values, level, unit=unit)
    controls = [[one.metrics[name] for name in names] for one in own]
    means = [known[name] for name in names]
    # Never the narrower of the two intervals: a choice made by looking covers less than it says.
    return control_variates(values, controls, means, level, unit=unit).estimate


def _varies(values: Sequence[float | None]) -> bool:
    numbers = [value for value in values if value is not None]
    return len(numbers) == len(values) and len(set(numbers)) > 1


def _text(key: str, lang: str) -> str:
    return _TEXTS[key][lang == "zh"]


def _case(
    page: Page,
    variant: Variant,
    table: Sequence[Row],
    own: Sequence[Replication],
    lang: str,
) -> None:
    page.heading(variant.label or variant.name)
    known = known_case(variant.scenario)
    model = _text("unknown", lang) if known is None else f"{known.model} ({known.source})"
    read = _text("read", lang).format(queue=reading(variant.scenario))
    customers = math.fsum(one.metrics.get(PREFIX + "customers", 0.0) for one in own)
    counted = _text("customers", lang).format(n=customers, r=len(own))
    page.sentence(f"{read}; {model}; {counted}", role="note")
    keys = _COMPARED if known is not None else ("figure", "simulated", "width")
    cells = [_cells(row, keys, lang) for row in table]
    page.table("", [_text(key, lang) for key in keys], cells)


def _cells(row: Row, keys: Sequence[str], lang: str) -> list[str]:
    english, chinese, _ = FIGURES[row.figure]
    cells = {
        "figure": chinese if lang == "zh" else english,
        "exact": "" if row.exact is None else f"{row.exact:.7g}",
        "simulated": format_estimate(row.simulated if row.exact is None else row.wide),
        "inside": _judged(row, lang),
        "width": _relative(row.simulated),
    }
    return [cells[key] for key in keys]


def _judged(row: Row, lang: str) -> str:
    if row.inside is not None:
        return _text("yes" if row.inside else "no", lang)
    return "" if row.exact is None else _text("short", lang)


def _relative(estimate: Estimate) -> str:
    if not estimate.estimate or not math.isfinite(estimate.half_width):
        return ""
    return f"{estimate.half_width / abs(estimate.estimate):.1%}"


def _verdict(row: Row, queue: str) -> dict[str, Any]:
    untold = "no exact value" if row.exact is None else "too few customers"
    words = {None: untold, True: "inside", False: "outside"}
    width = row.simulated.half_width
    return {
        "variant": row.variant,
        "read_as": queue,
        "metric": row.figure,
        "unit": row.simulated.unit,
        "exact": row.exact,
        "simulated": row.simulated.estimate,
        "half_width": width if math.isfinite(width) else None,
        "half_width_corrected": row.wide.half_width if math.isfinite(row.wide.half_width) else None,
        "saves_ms": None,
        "half_width_ms": None,
        "promised_ms": None,
        "verdict": words[row.inside],
        "violations_per_100k": None,
    }
