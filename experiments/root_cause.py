"""
The study `root-cause`: where a job creation spends its time, and what removes most of it.

A creation is taken apart by step, waiting apart from work; every variant's saving is paired with
its base's runs and ranked. The finding is put into words from the numbers, never the other way
round. What the shipped scheduler refuses, loses or leaves unanswered is counted beside its means:
they speak only of the creations that came to an end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from simsched.experiments.figures import figures
from simsched.experiments.intervals import (
    Estimate,
    mean,
    t_interval,
    zero_upper_bound,
)
from simsched.experiments.page import Page, figure
from simsched.experiments.root_cause_texts import label, text
from simsched.experiments.runs import Replication, StudyRun, VariantRun
from simsched.experiments.statistics import paired_ratio, verdict
from simsched.experiments.study import Study
from simsched.models.record import RESOURCE_LOCK, RESOURCE_REDIS
from simsched.steps import BY_NAME, Shape
from simsched.telemetry import OpKind
from simsched.units import ms_from_ns

BASE: Final = "shipped"
REPAIRED: Final = "W1"
SIX: Final = "six proposals"
METRIC: Final = "create_job_ms"
BEHIND_MIN: Final = 0.01
"""A wait for a lock is worth a sentence from this share of a creation on."""

STEPS_SHOWN: Final = 8
"""Steps of a creation that the table names; the rest is one row."""

_LOSSES: Final = (
    "cut", "created", "finished", "unanswered", "stuck", "refused_chunks", "unreadable",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One step's part of a creation: calls, and waiting and own time in ms, per creation."""

    step: str
    redis: bool
    calls: float
    wait_ms: float
    own_ms: float


def parts(replications: Sequence[Replication]) -> list[Part]:
    """
    A job creation by step, the largest part first; calls are those of creations that ended.

    Time per call is over all calls. A lock that is held across other steps counts its waiting
    alone: what it held for is theirs.
    """
    ended = 0
    calls: dict[str, int] = {}
    times: dict[tuple[str, int], list[int]] = {}
    for replication in replications:
        for phase in range(3):
            ended += replication.operations.get((int(OpKind.CREATE_JOB), phase), 0)
            totals = replication.calls.get((int(OpKind.CREATE_JOB), phase), {})
            for step in BY_NAME.values():
                if step.index in totals:
                    calls[step.name] = calls.get(step.name, 0) + totals[step.index].calls
        for row in replication.steps:
            if row.kind == OpKind.CREATE_JOB:
                sums = times.setdefault((row.step, row.resource), [0, 0, 0])
                held = 0 if _spans(row.step, row.resource) else row.hold_ns
                for place, amount in enumerate((row.count, row.wait_ns, held)):
                    sums[place] += amount
    found = []
    for (name, resource), (count, wait_ns, own_ns) in sorted(times.items()):
        if ended and count and name in calls:
            each = calls[name] / ended
            found.append(
                Part(
                    step=name, redis=resource == RESOURCE_REDIS, calls=each,
                    wait_ms=ms_from_ns(wait_ns) / count * each,
                    own_ms=ms_from_ns(own_ns) / count * each,
                )
            )  # fmt: skip
    return sorted(found, key=lambda part: (-part.wait_ms - part.own_ms, part.step))


def _spans(name: str, resource: int) -> bool:
    return resource == RESOURCE_LOCK and BY_NAME[name].shape is Shape.SPANNING


def connection_wait(run: StudyRun, variant: str) -> Estimate | None:
    """Waiting for a Redis connection per job creation, in ms, over replications."""
    waits = []
    for replication in run.variants[variant].own():
        found = parts([replication])
        if found:
            waits.append(math.fsum(part.wait_ms for part in found if part.redis))
    return t_interval(waits, unit="ms") if waits else None


def losses(run: StudyRun, variant: str) -> dict[str, Estimate]:
    """What became of the utterances of a run: means over replications, with intervals."""
    rows: dict[str, list[float]] = {name: [] for name in _LOSSES}
    for one in run.variants[variant].own():
        rows["cut"].append(len(one.cuts.session))
        rows["created"].append(one.conservation.get("created", one.jobs))
        rows["finished"].append(one.conservation.get("finished", 0))
        rows["unanswered"].append(one.violations.get("I3", 0))
        rows["stuck"].append(one.violations.get("I8", 0))
        rows["refused_chunks"].append(one.counters.get("audio_chunks_refused", 0))
        rows["unreadable"].append(one.counters.get("remote_dispatches_unreadable", 0))
    return {name: t_interval(values) for name, values in rows.items()}


def answer(run: StudyRun, study: Study, out_dir: Path, lang: str) -> list[dict[str, Any]]:
    """
    Write `report.html` and give the verdicts.

    Returns:
        A row for every variant with a base; `promised_ms` is None for what the report does not
        promise, and the verdict is then `saves`, `costs` or `no difference`.

    """
    page = Page(text("title", lang), lang)
    page.sentence(study.question if lang == "en" else text("question", lang), role="note")
    for finding in findings(run, lang):
        page.sentence(finding, role="finding")
    page.sentence(text("note", lang), role="note")
    page.heading(text("savings", lang))
    _savings(page, run, study, lang)
    page.heading(text("parts", lang))
    for name in (BASE, REPAIRED, "safe"):
        if name in run.variants:
            _parts(page, run, name, lang)
    page.heading(text("losses", lang))
    _losses(page, run, lang)
    page.write(out_dir / "report.html")
    return verdicts(run)


def findings(run: StudyRun, lang: str) -> list[str]:
    """What the numbers say, in sentences; those whose variants were not run are left out."""
    said = []
    base = run.variants[BASE]
    total, found = base.estimate(METRIC), parts(base.own())
    if total is not None and found:
        own = math.fsum(part.own_ms for part in found)
        waited = math.fsum(part.wait_ms for part in found if part.redis)
        whole = own + math.fsum(part.wait_ms for part in found)
        said.append(
            text("dominates", lang).format(
                total=_plain(total), own=f"{own:.3g}",
                calls=math.fsum(part.calls for part in found if part.redis),
                share=waited / whole,
            )
        )  # fmt: skip
        lock = max((part for part in found if not part.redis), key=lambda part: part.wait_ms)
        if lock.wait_ms > BEHIND_MIN * whole:
            said.append(
                text("behind", lang).format(
                    share=lock.wait_ms / whole, step=lock.step, wait=f"{lock.wait_ms:,.0f}"
                )
            )
    w1, six = _saved(run, REPAIRED), _saved(run, SIX)
    if w1 is not None and six is not None:
        said.append(
            text("compare", lang).format(
                w1=_plain(w1), w1_share=_percent(run, REPAIRED),
                six=_plain(six), six_share=_percent(run, SIX),
            )
        )  # fmt: skip
    reads = _saved(run, "W7")
    if reads is not None:
        said.append(text("reads", lang).format(w7=_plain(reads), w7_share=_percent(run, "W7")))
    w7, after = _saved(run, "W1 and W7"), _saved(run, "W1 and six")
    left = run.variants[REPAIRED].estimate(METRIC) if REPAIRED in run.variants else None
    if left is not None and w7 is not None and after is not None:
        said.append(text("after", lang).format(left=_plain(left), w7=_plain(w7), six=_plain(after)))
    copied = _saved(run, "W1 and W3")
    if copied is not None:
        said.append(text("copy", lang).format(w3=_plain(_negative(copied))))
    return [*said, _lost(run, lang)]


def _lost(run: StudyRun, lang: str) -> str:
    lost = losses(run, BASE)
    own = run.variants[BASE].own()
    other = losses(run, REPAIRED)["cut"] if REPAIRED in run.variants else None
    return text("lost", lang).format(
        other=_plain(other), finished=_plain(lost["finished"]),
        created=_plain(lost["created"]), cut=_plain(lost["cut"]),
        chunks=_plain(lost["refused_chunks"]), unanswered=_plain(lost["unanswered"]),
        stuck=_count(lost["stuck"], sum(one.sessions for one in own)),
        sessions=mean([float(one.sessions) for one in own]),
    )  # fmt: skip


def verdicts(run: StudyRun) -> list[dict[str, Any]]:
    """A row for every variant with a base, in the study's order."""
    promises = {f"P{one.id}": one.saves for one in figures().proposal if one.metric == METRIC}
    rows = []
    for name, variant in run.variants.items():
        saved = _saved(run, name)
        if saved is None:
            continue
        promised = promises.get(name)
        jobs = sum(one.jobs for one in variant.own())
        worst = max(
            (sum(one.violations.get(key, 0) for one in variant.own()) for key in _broken(variant)),
            default=0,
        )
        rows.append(
            {
                "variant": name,
                "metric": METRIC,
                "saves_ms": saved.estimate,
                "half_width_ms": saved.half_width if math.isfinite(saved.half_width) else None,
                "promised_ms": list(promised) if promised else None,
                "verdict": verdict(saved, promised) if promised else word(saved),
                "violations_per_100k": worst * 100_000 / max(1, jobs),
            }
        )
    return rows


def word(saved: Estimate) -> str:
    """What to call a saving that nobody promised."""
    if not math.isfinite(saved.half_width):
        return "undecided"
    if saved.low > 0:
        return "saves"
    return "costs" if saved.high < 0 else "no difference"


def _broken(variant: VariantRun) -> list[str]:
    return sorted({key for one in variant.own() for key in one.violations})


def _saved(run: StudyRun, variant: str) -> Estimate | None:
    if variant not in run.variants:
        return None
    found = run.saving(variant, METRIC)
    return None if found is None else found.saving


def _percent(run: StudyRun, variant: str) -> str:
    """The saving as a share of the base, with its interval."""
    base = run.variants[variant].base
    if base is None:
        return ""
    pairs = [
        (one.metrics[METRIC], other.metrics[METRIC])
        for one, other in zip(run.variants[base].own(), run.variants[variant].own(), strict=False)
        if METRIC in one.metrics and METRIC in other.metrics
    ]
    if not pairs:
        return ""
    ratio = paired_ratio([before for before, _ in pairs], [after for _, after in pairs])
    percent = Estimate(
        estimate=100 * ratio.estimate, half_width=100 * ratio.half_width,
        replications=ratio.replications, method=ratio.method, unit="%",
    )  # fmt: skip
    return figure(percent)


def _negative(saved: Estimate) -> Estimate:
    return Estimate(
        estimate=-saved.estimate, half_width=saved.half_width, replications=saved.replications,
        method=saved.method, unit="ms",
    )  # fmt: skip


def _plain(estimate: Estimate | None) -> str:
    """Number and interval without the unit, which stands in the head or the sentence."""
    if estimate is None:
        return figure(None)
    return figure(replace(estimate, unit=""))


def _count(estimate: Estimate, chances: int) -> str:
    """A count per run; zero seen is printed with its upper bound by the rule of three."""
    if estimate.estimate == 0 and chances:
        return f"0 (≤ {zero_upper_bound(chances):.2g}, 95 %)"
    return _plain(estimate)


def _savings(page: Page, run: StudyRun, study: Study, lang: str) -> None:
    labels = {
        variant.name: label(variant.name, variant.label or variant.name, lang)
        for variant in study.variants
    }
    ranked = [name for name in run.variants if _saved(run, name) is not None]

    def rank(name: str) -> tuple[bool, float]:
        saved = _saved(run, name)
        return run.variants[name].base != BASE, -(saved.estimate if saved else 0.0)

    rows = [_savings_row(run, name, labels) for name in (BASE, *sorted(ranked, key=rank))]
    keys = ("variant", "base", "latency", "p95", "saves", "percent", "result")
    page.table("", [text(key, lang) for key in keys], rows)


def _savings_row(run: StudyRun, name: str, labels: Mapping[str, str]) -> list[str]:
    variant = run.variants[name]
    return [
        labels.get(name, name),
        variant.base or "-",
        _plain(variant.estimate(METRIC)),
        _plain(variant.estimate(f"{METRIC}_p95")),
        _plain(_saved(run, name)),
        _percent(run, name),
        _plain(variant.estimate("job_result_ms")),
    ]


def _parts(page: Page, run: StudyRun, name: str, lang: str) -> None:
    found = parts(run.variants[name].own())
    total = math.fsum(part.wait_ms + part.own_ms for part in found)
    shown, others = found[:STEPS_SHOWN], found[STEPS_SHOWN:]
    rest = Part(
        step=text("rest", lang), redis=False, calls=math.fsum(part.calls for part in others),
        wait_ms=math.fsum(part.wait_ms for part in others),
        own_ms=math.fsum(part.own_ms for part in others),
    )  # fmt: skip
    whole = Part(
        step=text("total", lang), redis=False, calls=math.fsum(part.calls for part in found),
        wait_ms=math.fsum(part.wait_ms for part in found),
        own_ms=math.fsum(part.own_ms for part in found),
    )  # fmt: skip
    rows = [
        [
            part.step, f"{part.calls:.2f}", f"{part.wait_ms:,.3f}", f"{part.own_ms:,.3f}",
            f"{(part.wait_ms + part.own_ms) / total:.1%}" if total else "-",
        ]
        for part in (*shown, rest, whole)
    ]  # fmt: skip
    waited = connection_wait(run, name)
    caption = f"{name}: {text('wait', lang)} (Redis) {_plain(waited)}"
    keys = ("step", "calls", "wait", "own", "share")
    page.table(caption, [text(key, lang) for key in keys], rows)


def _losses(page: Page, run: StudyRun, lang: str) -> None:
    rows = []
    for name, variant in run.variants.items():
        lost = losses(run, name)
        sessions = sum(one.sessions for one in variant.own())
        cells = [_plain(lost[key]) for key in _LOSSES if key != "stuck"]
        cells.insert(_LOSSES.index("stuck"), _count(lost["stuck"], sessions))
        rows.append([name, *cells])
    head = [text("variant", lang), *(text(key, lang) for key in _LOSSES)]
    page.table("", head, rows)
