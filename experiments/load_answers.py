"""
The study `load`: how far each design carries, what it breaks on, and what that means in speakers.

A variant is one policy at one load, named COSTS/NODES/POLICY/LOAD. A run whose backlog grows has no
mean latency: its growth is reported instead. What it breaks on is what its operations wait for
longest, if jobs pile up before they are dispatched; else the nodes, all of them or single ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simsched.experiments.backlog import grows
from simsched.experiments.intervals import Estimate, mean, t_interval
from simsched.experiments.load_texts import text
from simsched.experiments.page import DASH, Curves, Page, figure
from simsched.experiments.runs import Replication, StudyRun, VariantRun
from simsched.experiments.study import Study
from simsched.models.record import RESOURCE_CORE, RESOURCE_REDIS
from simsched.models.world import Scenario
from simsched.telemetry import OpKind
from simsched.units import SECOND, ms_from_ns

P95: Final = "create_job_ms_p95"
FAILED_MAX: Final = 0.01
"""A larger share of jobs that failed is no way to carry a load."""

NODES_BUSY_MIN: Final = 0.7
"""Below this share of all slots it is single nodes that jobs wait for."""

GROWTH_OF_RATE_MIN: Final = 0.05
"""A backlog that grows by less of what arrives is that of nodes which fill up."""

BEGUN_MIN: Final = 0.95
"""Nodes that begin with less of what arrives do not keep up, whatever else is uncertain."""

WORK: Final = (OpKind.AUDIO_CHUNK, OpKind.FINALIZE, OpKind.CREATE_JOB, OpKind.DISPATCH,
               OpKind.JOB_RESULT)  # fmt: skip
"""Operations on jobs: heartbeats and scans wait as well, but nobody waits for them."""

SPEAKERS: Final = (200, 1_000, 3_000, 10_000, 30_000, 80_000)
"""The rows of the sizing table turned round: what it takes for so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    One policy at one load.

    `rate` is utterances per second, as the arrivals' law says; `growth` the certain growth of the
    backlog per second, and `broken_by` what that waits for; `busiest` the resource that was used
    most and `busy` its share. `throughput` is jobs that nodes began with per second of arrivals.
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
    broken_by: str
    busiest: str
    busy: float

    @property
    def keeps_up(self) -> bool:
        """Whether no growth is certain and nodes may begin with nearly all that arrives."""
        begun = self.throughput
        return self.growth is None and (begun is None or begun.high >= BEGUN_MIN * self.rate)

    @property
    def delivers(self) -> bool:
        """Whether next to no job fails."""
        return self.failed is None or self.failed.estimate <= FAILED_MAX

    def carries(self, bound_ms: float) -> bool:
        """Whether it keeps up, loses next to nothing, and keeps the bound for certain."""
        fast = self.p95 is not None and self.p95.high <= bound_ms
        return self.keeps_up and self.delivers and fast


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
        throughput=_begun(own),
        p50=variant.estimate("create_job_ms_p50"), p95=variant.estimate(P95),
        failed=variant.estimate("failed_share", "1"), growth=_overload(own, rate),
        broken_by=_waited_for(own, means.get("nodes", 0.0)),
        busiest=busiest, busy=min(1.0, means.get(busiest, 0.0)),
    )  # fmt: skip


def _last_cut_ns(at_ns: Any) -> int:
    return max(at_ns, default=1)


def _begun(own: Sequence[Replication]) -> Estimate | None:
    """What was cut less what piled up, per second, until the last arrival: no drain in it."""
    rates = []
    for one in own:
        window = one.metrics.get("window_s")
        if window:
            start = _last_cut_ns(one.cuts.at_ns) - round(window * SECOND)
            cuts = sum(moment >= start for moment in one.cuts.at_ns.tolist())
            rates.append(max(0.0, cuts / window - one.metrics["system_growth_per_s"]))
    return t_interval(rates, unit="1/s") if rates else None


def _overload(own: Sequence[Replication], rate: float) -> Estimate | None:
    """A growth that is certain, and no small part of what arrives."""
    growth = grows(own, "system")
    return growth if growth is not None and growth.low >= GROWTH_OF_RATE_MIN * rate else None


def _waited_for(own: Sequence[Replication], nodes_busy: float) -> str:
    """
    What a backlog waits for longest: `lock NAME`, `redis`, `cores`, `nodes`, or `single nodes`.

    A job that is not dispatched waits for a slot (`nodes`) or with an operation in its hands.
    """
    if grows(own, "dispatch") is None:
        return "nodes" if nodes_busy >= NODES_BUSY_MIN else "single nodes"
    waits: dict[str, float] = {"nodes": 0.0}
    for one in own:
        waits["nodes"] += one.metrics.get("queue_wait_ms", 0.0) * one.jobs
        for row in one.steps:
            if row.kind in WORK and row.wait_ns:
                name = _RESOURCES.get(row.resource, f"lock {row.lock}")
                waits[name] = waits.get(name, 0.0) + ms_from_ns(row.wait_ns)
    return max(sorted(waits), key=lambda name: waits[name])


_RESOURCES: Final = {RESOURCE_CORE: "cores", RESOURCE_REDIS: "redis"}


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
    page.sentence(study.question if lang == "en" else text("question", lang), role="note")
    for size in sized:
        page.sentence(sentence(size, bound, lang), role="finding")
    note = text("note", lang)
    share = GROWTH_OF_RATE_MIN
    page.sentence(
        note.format(bound=bound, seconds=seconds, share=share, begun=BEGUN_MIN), role="note"
    )
    page.heading(text("sizing", lang))
    _sizing(page, sized, study, lang)
    page.heading(text("needed", lang).format(bound=bound))
    _needed(page, sized, study, lang)
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
            p95=figure(size.best.p95),
        )  # fmt: skip
    if size.over is None:
        return said + text("open", lang)
    return said + _stopped(size.over, bound_ms, lang)


def _stopped(over: Point, bound_ms: float, lang: str) -> str:
    rate = f"{over.rate:,.4g}"
    if over.growth is not None:
        return text("breaks", lang).format(
            rate=rate, growth=figure(over.growth), on=_resource(over.broken_by, lang)
        )
    if not over.keeps_up:
        on = _resource(over.broken_by, lang)
        return text("short", lang).format(rate=rate, begun=figure(over.throughput), on=on)
    if not over.delivers:
        assert over.failed is not None
        return text("fails", lang).format(rate=rate, failed=over.failed.estimate)
    return text("slow", lang).format(rate=rate, p95=figure(over.p95), bound=bound_ms)


def _verdict(size: Size, run: StudyRun) -> dict[str, Any]:
    prefix = f"{size.costs}/{size.nodes}/{size.policy}"
    own = [r for name, v in run.variants.items() if name.startswith(f"{prefix}/") for r in v.own()]
    jobs = max(1, sum(one.jobs for one in own))
    counts: dict[str, int] = {}
    for one in own:
        for invariant, count in one.violations.items():
            counts[invariant] = counts.get(invariant, 0) + count
    over = size.over
    broken = "not reached" if over is None else "too slow" if over.keeps_up else over.broken_by
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


def _resource(name: str, lang: str) -> str:
    """A resource in the page's language."""
    kind, _, lock = name.partition(" ")
    if kind == "lock":
        return text("lock", lang).format(name=lock)
    return text({"nodes": "nodes_full", "cores": "cores_full"}.get(name, name), lang)


def _stops(size: Size, lang: str) -> str:
    """What stops a configuration: a resource, the bound, or nothing that was tried."""
    if size.over is None:
        return text("not_reached", lang)
    if size.over.keeps_up:
        return text("bound", lang)
    return _resource(size.over.broken_by, lang)


def _scenario(study: Study, size: Size) -> Scenario:
    prefix = f"{size.costs}/{size.nodes}/{size.policy}/"
    return next(v.scenario for v in study.variants if v.name.startswith(prefix))


def _sizing(page: Page, sized: list[Size], study: Study, lang: str) -> None:
    rows = []
    for size in sized:
        scenario = _scenario(study, size)
        best = size.best
        rows.append(
            [
                f"{size.costs}, {size.nodes:,}, {size.policy}",
                f"{scenario.instances} x {scenario.cores}",
                DASH if best is None else f"{best.rate:,.4g}",
                DASH if size.speakers is None else _people(size.speakers),
                figure(best.p95 if best else None),
                _cores(size.speakers, scenario.instances * scenario.cores),
                _stops(size, lang),
            ]
        )
    keys = ("configuration", "instances", "rate", "speakers", "p95", "cores", "breaks_on")
    page.table("", [text(key, lang) for key in keys], rows)


def _needed(page: Page, sized: list[Size], study: Study, lang: str) -> None:
    """The sizing table turned round: the smallest configuration for a number of speakers."""
    rows = []
    for costs, policy in dict.fromkeys((size.costs, size.policy) for size in sized):
        mine = [size for size in sized if (size.costs, size.policy) == (costs, policy)]
        cells = []
        for number in SPEAKERS:
            fit = [size for size in mine if size.speakers and size.speakers[0] >= number]
            if not fit:
                cells.append(DASH)
                continue
            size = min(fit, key=lambda one: one.nodes)
            scenario = _scenario(study, size)
            each = f"{scenario.instances} x {scenario.cores}"
            cells.append(text("n_nodes", lang).format(n=size.nodes, size=each))
        rows.append([f"{costs}, {policy}", *cells])
    heads = [text("n_speakers", lang).format(n=number) for number in SPEAKERS]
    page.table("", [text("policy_costs", lang), *heads], rows)
    page.sentence(text("needed.note", lang), role="note")


def _people(speakers: tuple[float, float | None]) -> str:
    """How many are carried, and from how many on they are not."""
    low, high = speakers
    return f"≥ {low:,.0f}" if high is None else f"{low:,.0f}–{high:,.0f}"


def _cores(speakers: tuple[float, float | None] | None, cores: int) -> str:
    """Cores per 1,000 speakers, at most; and more than, where more speakers were tried."""
    if speakers is None:
        return DASH
    low, high = speakers
    each = 1_000 * cores / low
    return f"≤ {each:.3g}" if high is None else f"{1_000 * cores / high:.3g}–{each:.3g}"


def _growth(page: Page, mine: list[Point], lang: str) -> None:
    title = f"{mine[0].costs}, {mine[0].nodes:,} {text('nodes', lang)}"
    page.heading(title)
    rows = [
        [
            point.policy,
            f"{point.load:g}",
            f"{point.rate:,.4g}",
            figure(point.throughput),
            *(
                (figure(point.p50), figure(point.p95))
                if point.growth is None
                else (text("grows", lang), figure(point.growth))
            ),
            f"{_resource(point.busiest, lang)} {point.busy:.0%}",
            DASH if point.failed is None else f"{point.failed.estimate:.1%}",
        ]
        for point in mine
    ]
    keys = ("policy", "load", "rate", "throughput", "p50", "p95", "busiest", "failed")
    page.table("", [text(key, lang) for key in keys], rows)
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for point in mine:
        if point.growth is None and point.p95 is not None:
            width = point.p95.half_width if math.isfinite(point.p95.half_width) else 0.0
            curves.setdefault(point.policy, []).append((point.rate, point.p95.estimate, width))
    drawn: Curves = curves
    page.lines(title, text("rate", lang), text("p95", lang), drawn, xscale="log", yscale="log")
