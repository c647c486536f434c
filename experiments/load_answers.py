"""
The study `load`: how far each design carries, what it breaks on, and what that means in speakers.

A variant is one policy at one load, named COSTS/NODES/POLICY/LOAD. A run whose backlog grows has no
mean latency: its growth is reported instead. The tightest resource is told by utilisation, and by
the backlog where no resource that all share is near its end: then single nodes are overrun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simsched.experiments.backlog import grows
from simsched.experiments.intervals import Estimate, format_estimate, mean
from simsched.experiments.load_texts import text
from simsched.experiments.page import Curves, Page
from simsched.experiments.runs import StudyRun, VariantRun
from simsched.experiments.study import Study

P95: Final = "create_job_ms_p95"
FAILED_MAX: Final = 0.01
"""A larger share of jobs that failed is no way to carry a load."""

BUSY_MIN: Final = 0.7
"""Below this share no resource explains a growing backlog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    One policy at one load.

    `rate` is utterances per second, as the arrivals' law says; `growth` the certain growth of the
    backlog per second, and `undispatched` whether that waits for the scheduler; `busiest` the
    resource that was used most and `busy` its share.
    """

    costs: str
    nodes: int
    policy: str
    load: float
    rate: float
    throughput: Estimate | None
    p50: Estimate | None
    p95: Estimate | None
    failed: Estimate | None
    growth: Estimate | None
    undispatched: bool
    busiest: str
    busy: float

    def carries(self, bound_ms: float | None = None) -> bool:
        """Whether it is steady, loses next to nothing and keeps the bound for certain."""
        steady = self.growth is None and (self.failed is None or self.failed.estimate <= FAILED_MAX)
        return steady and (bound_ms is None or (self.p95 is not None and self.p95.high <= bound_ms))

    @property
    def broken_by(self) -> str:
        """What a growing backlog waits for: the busiest resource, single nodes, free slots."""
        if self.busy >= BUSY_MIN:
            return self.busiest
        return "free slots" if self.undispatched else "single nodes"


def points(run: StudyRun, study: Study) -> list[Point]:
    """Every variant's numbers, in the study's order."""
    found = []
    for name, variant in run.variants.items():
        workload = study.variant(name).scenario.workload
        if name in run.pilots:
            workload = workload.with_rate(run.pilots[name].sessions_per_s)
        found.append(_point(name, variant, workload.utterances_per_s))
    return found


def _point(name: str, variant: VariantRun, rate: float) -> Point:
    costs, nodes, policy, load = name.split("/")
    own = variant.own()
    busy: dict[str, list[float]] = {}
    for one in own:
        # The drain idles: utilisation is that of the time when work came.
        share = one.simulated_ns / max(1, _last_cut_ns(one.cuts.at_ns))
        for resource, value in one.busy.items():
            busy.setdefault(resource, []).append(value * share)
    means = {resource: mean(values) for resource, values in busy.items()}
    busiest = max(sorted(means), key=lambda resource: means[resource], default="")
    return Point(
        costs=costs, nodes=int(nodes), policy=policy, load=float(load), rate=rate,
        throughput=variant.estimate("jobs_per_s", "1/s"),
        p50=variant.estimate("create_job_ms_p50"), p95=variant.estimate(P95),
        failed=variant.estimate("failed_share", "1"), growth=grows(own, "system"),
        undispatched=grows(own, "dispatch") is not None,
        busiest=busiest, busy=min(1.0, means.get(busiest, 0.0)),
    )  # fmt: skip


def _last_cut_ns(at_ns: Any) -> int:
    return max(at_ns, default=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """
    What one configuration carries.

    `best` is the highest point that keeps the bound, `over` the next above it, which does not:
    what it can carry lies between the two. `speakers` are their rates times the seconds that one
    speaker takes for an utterance.
    """

    costs: str
    nodes: int
    policy: str
    best: Point | None
    over: Point | None
    speakers: tuple[float, float | None] | None


def sizes(found: list[Point], bound_ms: float, seconds_per_utterance: float) -> list[Size]:
    """The sizing table: a row per configuration, in the study's order."""
    rows = []
    for key in dict.fromkeys((point.costs, point.nodes, point.policy) for point in found):
        mine = sorted(
            (p for p in found if (p.costs, p.nodes, p.policy) == key), key=lambda p: p.load
        )
        best = over = None
        for point in mine:
            if not point.carries(bound_ms):
                over = point
                break
            best = point
        speakers = None
        if best is not None:
            beyond = None if over is None else over.rate * seconds_per_utterance
            speakers = (best.rate * seconds_per_utterance, beyond)
        rows.append(
            Size(costs=key[0], nodes=key[1], policy=key[2], best=best, over=over, speakers=speakers)
        )
    return rows


def answer(run: StudyRun, study: Study, out_dir: Path, lang: str) -> list[dict[str, Any]]:
    """
    Write `report.html` and give the verdicts.

    Returns:
        A row per configuration: `saves_ms` is None, the verdict names what it breaks on, and
        `rate_per_s` and `speakers` what it certainly carries; `speakers_below` is where it fails.

    """
    bound = float(study.answer.get("p95_ms", 500))
    seconds = float(study.answer.get("seconds_per_utterance", 8.8))
    found = points(run, study)
    sized = sizes(found, bound, seconds)
    page = Page(text("title", lang), lang)
    page.sentence(study.question, role="note")
    for size in sized:
        page.sentence(sentence(size, bound, lang), role="finding")
    page.sentence(text("note", lang).format(bound=bound, seconds=seconds), role="note")
    page.heading(text("sizing", lang))
    _sizing(page, sized, study, lang)
    for costs, nodes in dict.fromkeys((point.costs, point.nodes) for point in found):
        _growth(page, [p for p in found if (p.costs, p.nodes) == (costs, nodes)], lang)
    page.write(out_dir / "report.html")
    return [_verdict(size, run) for size in sized]


def sentence(size: Size, bound_ms: float, lang: str) -> str:
    """What one configuration carries and what stops it, in words."""
    name = {"policy": size.policy, "nodes": f"{size.nodes:,}", "costs": size.costs}
    if size.best is None or size.speakers is None:
        said = text("nothing", lang).format(**name, bound=bound_ms)
    else:
        said = text("carries", lang).format(
            **name, rate=f"{size.best.rate:,.4g}", speakers=_people(size.speakers),
            p95=_shown(size.best.p95),
        )  # fmt: skip
    if size.over is None:
        return said + text("open", lang)
    return said + _stopped(size.over, bound_ms, lang)


def _stopped(over: Point, bound_ms: float, lang: str) -> str:
    rate = f"{over.rate:,.4g}"
    if over.growth is not None:
        return text("breaks", lang).format(
            rate=rate, growth=format_estimate(over.growth), on=over.broken_by, busy=over.busy
        )
    if not over.carries():
        assert over.failed is not None
        return text("fails", lang).format(rate=rate, failed=over.failed.estimate)
    return text("slow", lang).format(rate=rate, p95=_shown(over.p95), bound=bound_ms)


def _verdict(size: Size, run: StudyRun) -> dict[str, Any]:
    prefix = f"{size.costs}/{size.nodes}/{size.policy}"
    own = [r for name, v in run.variants.items() if name.startswith(f"{prefix}/") for r in v.own()]
    jobs = max(1, sum(one.jobs for one in own))
    counts: dict[str, int] = {}
    for one in own:
        for invariant, count in one.violations.items():
            counts[invariant] = counts.get(invariant, 0) + count
    over = size.over
    broken = "not reached" if over is None else over.broken_by if over.growth else "too slow"
    return {
        "variant": prefix,
        "metric": P95,
        "saves_ms": None,
        "half_width_ms": None,
        "promised_ms": None,
        "verdict": broken,
        "violations_per_100k": max(counts.values(), default=0) * 100_000 / jobs,
        "rate_per_s": None if size.best is None else size.best.rate,
        "speakers": None if size.speakers is None else size.speakers[0],
        "speakers_below": None if size.speakers is None else size.speakers[1],
    }


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else format_estimate(estimate)


def _sizing(page: Page, sized: list[Size], study: Study, lang: str) -> None:
    rows = []
    for size in sized:
        scenario = next(
            v.scenario for v in study.variants
            if v.name.startswith(f"{size.costs}/{size.nodes}/{size.policy}/")
        )  # fmt: skip
        best, over = size.best, size.over
        rows.append(
            [
                f"{size.costs}, {size.nodes:,}, {size.policy}",
                f"{scenario.instances} x {scenario.cores}",
                "-" if best is None else f"{best.rate:,.4g}",
                "-" if size.speakers is None else _people(size.speakers),
                _shown(best.p95 if best else None),
                _cores(size.speakers, scenario.instances * scenario.cores),
                "-" if over is None else over.broken_by if over.growth else text("bound", lang),
            ]
        )  # fmt: skip
    keys = ("configuration", "instances", "rate", "speakers", "p95", "cores", "breaks_on")
    page.table(text("sizing", lang), [text(key, lang) for key in keys], rows)


def _people(speakers: tuple[float, float | None]) -> str:
    """How many are carried, and from how many on they are not."""
    low, high = speakers
    return f"{low:,.0f}" if high is None else f"{low:,.0f} (< {high:,.0f})"


def _cores(speakers: tuple[float, float | None] | None, cores: int) -> str:
    """Cores per 1,000 speakers, at most; and more than, where more speakers were tried."""
    if speakers is None:
        return "-"
    low, high = speakers
    each = 1_000 * cores / low
    return f"{each:.3g}" if high is None else f"{each:.3g} (> {1_000 * cores / high:.3g})"


def _growth(page: Page, mine: list[Point], lang: str) -> None:
    title = f"{mine[0].costs}, {mine[0].nodes:,} {text('nodes', lang)}"
    page.heading(title)
    rows = [
        [
            point.policy,
            f"{point.load:g}",
            f"{point.rate:,.4g}",
            _shown(point.throughput),
            *(
                (_shown(point.p50), _shown(point.p95))
                if point.growth is None
                else (text("grows", lang), f"{format_estimate(point.growth)}")
            ),
            f"{point.busiest} {point.busy:.0%}",
            "-" if point.failed is None else f"{point.failed.estimate:.1%}",
        ]
        for point in mine
    ]
    keys = ("policy", "load", "rate", "throughput", "p50", "p95", "busiest", "failed")
    page.table(title, [text(key, lang) for key in keys], rows)
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for point in mine:
        if point.growth is None and point.p95 is not None:
            width = point.p95.half_width if math.isfinite(point.p95.half_width) else 0.0
            curves.setdefault(point.policy, []).append((point.rate, point.p95.estimate, width))
    drawn: Curves = curves
    page.lines(title, text("rate", lang), text("p95", lang), drawn, xscale="log", yscale="log")
