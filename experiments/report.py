"""
The answer of the study `report`: from its runs to the page and the rows of verdicts.

`answer` is what the runner calls. It collects what the other modules of the report computed and
writes `report.html` in the language asked for; everything on the page comes from the run, the
report's figures, and the orders of store operations tried by `interleaving`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from simsched.errors import ConfigError
from simsched.experiments import report_appendices as appendices
from simsched.experiments import report_tables as tables
from simsched.experiments.figures import PHASES, figures
from simsched.experiments.interleaving import Exploration, explore
from simsched.experiments.plots import Bar, Curve, curves, intervals
from simsched.experiments.report_answers import answers
from simsched.experiments.report_cards import proposal_card, stage_card
from simsched.experiments.report_findings import (
    claim,
    contradictions,
    pauses,
    proposals,
    repeated,
    stages,
)
from simsched.experiments.report_overloads import overloaded_variants
from simsched.experiments.report_page import Page, Race, page_html
from simsched.experiments.report_tables import Table
from simsched.experiments.report_verdicts import (
    BASE,
    PER,
    all_judged,
    gap_of,
    jobs_of,
    judge,
    name_of,
    phases,
    policy_of,
    violations_of,
)
from simsched.experiments.results import study_digest
from simsched.experiments.runs import StudyRun
from simsched.experiments.statistics import proportion_interval
from simsched.experiments.wording import Wording
from simsched.presets import PRESETS

EXPLORED: Final = ("published", "published+2", "published+2s", "safe")
SHORTEST_OF: Final = "published+2"


def answer(run: StudyRun, study: Any, out_dir: Path, lang: str) -> list[dict[str, Any]]:
    """
    Write `out_dir/report.html` and return the rows of `summary.json`'s verdicts.

    Args:
        run: the runs of the study.
        study: what was run, for the words on how it was computed.
        out_dir: the run's directory.
        lang: `en` or `zh`.

    Raises:
        ConfigError: a language that the page is not written in, or nothing to compare with.

    """
    say = Wording(lang)
    if not phases(run):
        wanted = " or ".join(name_of(phase, BASE) for phase in PHASES)
        raise ConfigError(study.name, "variant", f"the report compares with {wanted}: run one")
    text = page_html(page_of(run, study, say), say)
    (out_dir / "report.html").write_text(text, encoding="utf-8", newline="\n")
    return [judged.as_row() for judged in all_judged(run)]


def page_of(run: StudyRun, study: Any, say: Wording) -> Page:
    """Everything on the page, computed."""
    return Page(
        lines=answers(run, say),
        cards=[proposal_card(run, say, proposal) for proposal in figures().proposal],
        stage_cards=[
            stage_card(run, say, stage)
            for stage in figures().stage
            if any(name_of(phase, f"stage{stage.id}") in run.variants for phase in phases(run))
        ],
        stage_pictures=[p for p in (_stage_picture(run, say, n) for n in phases(run)) if p],
        repeat_picture=_repeat_picture(run, say),
        race=_race(say),
        tables=all_tables(run, say),
        method=_method(run, study, say),
        code=_code(run, say),
        subtitle=_subtitle(run, say),
        rough=say("page.rough") if run.quick else "",
    )


def all_tables(run: StudyRun, say: Wording) -> list[Table]:
    """The page's tables in the order of the report's sections."""
    return [
        *overloaded_variants(run, say),
        contradictions(run, say),
        claim(run, say),
        tables.issues(run, say),
        tables.sums(run, say),
        proposals(run, say),
        repeated(run, say),
        stages(run, say),
        tables.safety(run, say),
        tables.monitored(run, say),
        tables.percentiles(run, say),
        appendices.calls(run, say),
        appendices.locks(run, say),
        appendices.redis(run, say),
        pauses(run, say),
        appendices.unpriced(run, say),
    ]


def _stage_picture(run: StudyRun, say: Wording, phase: int) -> str:
    """The three stages of one phase under a job creation's latency."""
    bars = []
    for stage in figures().stage:
        variant = name_of(phase, f"stage{stage.id}")
        judged = judge(run, variant, "create_job_ms", stage.cumulative)
        if judged is not None:
            bars.append(
                Bar(
                    label="+".join(str(number + 1) for number in range(stage.id)),
                    promised=stage.cumulative, saving=judged.saving, verdict=judged.verdict,
                )
            )  # fmt: skip
    return intervals(bars, say("plot.stages", phase=phase), f"s{phase}") if bars else ""


def _repeat_picture(run: StudyRun, say: Wording) -> str:
    """Double jobs against the gap, by policy."""
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, variant in run.variants.items():
        gap = gap_of(name)
        if gap is None:
            continue
        jobs, double = jobs_of(variant), violations_of(variant).get("I1", 0)
        share = proportion_interval(min(double, jobs), jobs)
        points.setdefault(policy_of(name), []).append(
            (gap, share.estimate * PER, share.low * PER, share.high * PER)
        )
    lines = [_curve(policy, sorted(found)) for policy, found in points.items()]
    return curves(lines, say("plot.gap"), say("plot.doubles"), "gap") if lines else ""


def _curve(policy: str, points: list[tuple[float, float, float, float]]) -> Curve:
    x, y, low, high = zip(*points, strict=True)
    tone = "unsafe" if any(y) else "confirmed"
    return Curve(label=policy, x=x, y=y, low=low, high=high, tone=tone)


def _race(say: Wording) -> Race:
    """All orders under each policy, and the shortest way to two jobs under proposal 2."""
    sentences, lead = [], ""
    moves: tuple[tuple[str, str, str], ...] = ()
    for policy in EXPLORED:
        found = _orders(policy)
        sentences.append(_explored(say, policy, found))
        if policy == SHORTEST_OF and found.shortest is not None:
            lead = say("race.shortest", policy=policy, switches=found.shortest.switches)
            moves = tuple((m.actor, m.command, m.reply) for m in found.shortest.moves)
    late = _orders(EXPLORED[0], lock_timeouts=True)
    sentences.append(
        say("race.timeout", policy=EXPLORED[0], orders=late.orders, doubling=late.doubling)
    )
    return Race(sentences=tuple(sentences), lead=lead, moves=moves)


@cache
def _orders(policy: str, *, lock_timeouts: bool = False) -> Exploration:
    """The same for every page: no run changes what a policy allows."""
    return explore(PRESETS[policy], lock_timeouts=lock_timeouts)


def _explored(say: Wording, policy: str, found: Exploration) -> str:
    key = "race.lead" if found.exhausted else "race.open"
    return say(key, policy=policy, orders=found.orders, doubling=found.doubling)


def _subtitle(run: StudyRun, say: Wording) -> str:
    runs = sum(len(variant.replications) for variant in run.variants.values())
    jobs = sum(jobs_of(variant) for variant in run.variants.values())
    return say("method.sizes", jobs=f"{jobs:,}", runs=f"{runs:,}")


def _method(run: StudyRun, study: Any, say: Wording) -> list[tuple[str, str]]:
    texts = []
    variant = study.variants[0] if study is not None else None
    if variant is not None:
        scenario = variant.scenario
        texts.append(
            ("world", say(
                "method.world", costs=scenario.costs.name, load=variant.load,
                nodes=scenario.nodes, cores=scenario.cores,
            ))
        )  # fmt: skip
    most = max(len(variant.replications) for variant in run.variants.values())
    texts.append(("statistics", say("method.statistics", replications=most)))
    return texts


def _code(run: StudyRun, say: Wording) -> list[tuple[str, str]]:
    repeat = [(say("method.repeat"), run.command)] if run.command else []
    return [*repeat, (say("method.digest"), study_digest(run))]
