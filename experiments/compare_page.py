"""
The page of a study without an answer of its own: every metric per variant, and what each saves.

No difference stands there without its interval, no mean where the runs had no steady state to
speak of without a word about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from simsched.experiments.intervals import Estimate, format_estimate, zero_upper_bound
from simsched.experiments.measure import JOBS_PER_RATE
from simsched.experiments.metrics import metric_of
from simsched.experiments.overloads import overloads_of
from simsched.experiments.page import Page
from simsched.experiments.results import REPORT, metric_names
from simsched.experiments.runs import StudyRun, VariantRun
from simsched.experiments.statistics import paired_counts
from simsched.experiments.study import Study, Variant
from simsched.units import SECOND

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "setting": ("What was run", "运行设置"),
    "savings": ("What each variant saves against its base", "各变体相对基准的节省"),
    "metrics": ("All metrics", "全部指标"),
    "safety": ("Invariants", "不变量"),
    "variant": ("variant", "变体"),
    "base": ("base", "基准"),
    "policy": ("policy", "策略"),
    "load": ("load", "负载"),
    "warmup": ("warm-up ends at, s", "预热结束, s"),
    "replications": ("replications", "重复次数"),
    "metric": ("metric", "指标"),
    "saves": ("saves", "节省"),
    "verdict": ("verdict", "结论"),
    "violations": ("violations", "违反"),
    "jobs": ("jobs", "任务"),
    "at_most": (
        "none seen: at most {bound:.3g} per 100,000 jobs",
        "未见：每十万任务至多 {bound:.3g}",
    ),
    "none": ("no interval", "无区间"),
    "unsettled": (
        "The warm-up of {names} did not settle within half of the run: run longer.",
        "{names} 的预热在半程内未稳定：请延长运行。",
    ),
    "intervals": (
        "All intervals are at 95 %, over independent replications; savings are paired by "
        "replication (common random numbers).",
        "所有区间均为95%，基于独立重复；节省按重复配对（公共随机数）。",
    ),
    "saves_time": ("saves", "节省"),
    "costs_time": ("costs", "增加"),
    "no difference": ("no difference shown", "未显示差异"),
    "undecided": ("undecided", "未定"),
    "unsafe": ("unsafe", "不安全"),
    "overload": ("overload", "过载"),
    "overloaded": (
        "Overload in {name}: {growth}. Its latencies grow with the length of the run, so they have "
        "no mean.",
        "{name} 过载：{growth}。其延迟随运行时长增长，均值无意义。",
    ),
}


def answer(run: StudyRun, study: Study, out: Path, lang: str) -> list[dict[str, Any]]:
    """Write the page; the verdicts are what each variant saves in its metric."""
    page = Page(study.question or study.name, lang)

    def text(key: str) -> str:
        return _TEXTS[key][lang == "zh"]

    page.sentence(text("intervals"), role="note")
    unsettled = [name for name, window in run.windows.items() if not window.settled]
    if unsettled:
        page.sentence(text("unsettled").format(names=", ".join(unsettled)), role="note")
    for name, over in overloads_of(run).items():
        growth = over.text(lang, sign="±")
        page.sentence(text("overloaded").format(name=name, growth=growth), role="note")
    verdicts = verdict_rows(run, study)
    if verdicts:
        head = [text(key) for key in ("variant", "base", "metric", "saves", "verdict")]
        rows = [_saving_row(run, study.variant(row["variant"]), row, text) for row in verdicts]
        page.table(text("savings"), head, rows)
    page.table(text("metrics"), *_metric_table(run, study, lang))
    head = [text(key) for key in ("variant", "jobs", "violations")]
    page.table(text("safety"), head, [_safety_row(v, text) for v in run.variants.values()])
    head = [text(key) for key in ("variant", "policy", "load", "warmup", "replications")]
    page.table(text("setting"), head, [_setting_row(run, v) for v in study.variants])
    page.write(out / REPORT)
    return verdicts


def verdict_rows(run: StudyRun, study: Study) -> list[dict[str, Any]]:
    """One row per variant with a base: what it saves in its metric, and whether it is as safe."""
    rows = []
    overloads = overloads_of(run)
    for variant in study.variants:
        found = run.saving(variant.name, variant.metric)
        if found is None or variant.base is None:
            continue
        mine = run.variants[variant.name]
        broken = broken_more(mine, run.variants[variant.base])
        is_over = variant.name in overloads or variant.base in overloads
        word = "overload" if is_over and not broken else _verdict(found.saving, broken)
        rows.append(
            {
                "variant": variant.name,
                "metric": variant.metric,
                "saves_ms": found.saving.estimate,
                "half_width_ms": found.saving.half_width,
                "promised_ms": None,
                "verdict": word,
                "violations_per_100k": violations_per_100k(mine),
            }
        )
    return rows


def violations_per_100k(run: VariantRun) -> float:
    """All violations together per 100,000 jobs of the variant's own replications."""
    jobs = sum(replication.jobs for replication in run.own())
    count = sum(sum(replication.violations.values()) for replication in run.own())
    return count * JOBS_PER_RATE / max(1, jobs)


def broken_more(run: VariantRun, base: VariantRun) -> list[str]:
    """Invariants that it breaks and its base does not, or more often by a paired interval."""
    broken = []
    names = dict.fromkeys(name for r in run.own() for name in r.violations)
    for name in names:
        mine = [r.violations.get(name, 0) for r in run.own()]
        theirs = [r.violations.get(name, 0) for r in base.own()][: len(mine)]
        if any(mine) and (not any(theirs) or paired_counts(theirs, mine).low > 0):
            broken.append(name)
    return broken


def _verdict(saving: Estimate, broken: Sequence[str]) -> str:
    if broken:
        return "unsafe"
    if not math.isfinite(saving.half_width):
        return "undecided"
    if saving.low > 0:
        return "saves"
    return "costs" if saving.high < 0 else "no difference"


def _saving_row(run: StudyRun, variant: Variant, row: Mapping[str, Any], text: Any) -> list[str]:
    found = run.saving(variant.name, variant.metric)
    assert found is not None
    verdict = row["verdict"]
    words = text({"saves": "saves_time", "costs": "costs_time"}.get(verdict, verdict))
    if verdict == "unsafe" and variant.base is not None:
        broken = broken_more(run.variants[variant.name], run.variants[variant.base])
        words = f"{words}: {', '.join(broken)}"
    saving = "" if verdict == "overload" else format_estimate(found.saving, sign="±") + " ms"
    return [variant.name, variant.base or "", variant.metric, saving, words]


def _metric_table(run: StudyRun, study: Study, lang: str) -> tuple[list[str], list[list[str]]]:
    names = dict.fromkeys(name for v in run.variants.values() for name in metric_names(v))
    rows = []
    overloads = overloads_of(run)
    for name in names:
        if name.endswith("_per_100k"):
            continue
        metric = metric_of(name)
        cells = [f"{metric.label(lang)} [{metric.unit}]"]
        for variant in run.variants.values():
            found = variant.estimate(name, "")
            if metric.unit == "ms" and variant.name in overloads:
                cells.append(_TEXTS["overload"][lang == "zh"])
                continue
            cells.append("" if found is None else format_estimate(found, sign="±"))
        rows.append(cells)
    return [_TEXTS["metric"][lang == "zh"], *run.variants], rows


def _safety_row(run: VariantRun, text: Any) -> list[str]:
    jobs = sum(replication.jobs for replication in run.own())
    counts = {
        name: sum(r.violations.get(name, 0) for r in run.own())
        for name in dict.fromkeys(name for r in run.own() for name in r.violations)
    }
    broken = [f"{name}: {count}" for name, count in counts.items() if count]
    bound = zero_upper_bound(max(1, jobs)) * JOBS_PER_RATE
    return [run.name, str(jobs), ", ".join(broken) or text("at_most").format(bound=bound)]


def _setting_row(run: StudyRun, variant: Variant) -> list[str]:
    pilot = run.pilots.get(variant.name)
    load = ""
    if pilot is not None:
        load = f"{pilot.load:g} ({pilot.tightest}; {pilot.sessions_per_s:.4g}/s)"
    start = run.windows[variant.name].start_ns / SECOND
    mine = run.variants[variant.name]
    count = f"{len(mine.own())}"
    if mine.pairs is not None and mine.pairs > len(mine.own()):
        count += f" ({mine.pairs})"
    return [variant.name, variant.policy_text, load, f"{start:.1f}", count]
