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

from simsched.experiments import report_tables as tables
from simsched.experiments.figures import Proposal, figures
from simsched.experiments.interleaving import Exploration, explore
from simsched.experiments.plots import Bar, Curve, curves, intervals
from simsched.experiments.report_findings import (
    answers,
    claim,
    contradictions,
    has_safe_form,
    judged_of,
    main_phase,
    proposals,
    repeated,
    stages,
    told,
    worded,
)
from simsched.experiments.report_page import Card, Page, Race, page_html
from simsched.experiments.report_tables import Table, counted, phase_label, shown, span
from simsched.experiments.report_verdicts import (
    PER,
    Judged,
    all_judged,
    gap_of,
    jobs_of,
    judge,
    judge_proposal,
    name_of,
    phases,
    policy_of,
    upper_bound_per_100k,
    violations_of,
    worst,
)
from simsched.experiments.results import study_digest
from simsched.experiments.runs import StudyRun
from simsched.experiments.statistics import proportion_interval
from simsched.experiments.wording import Wording
from simsched.presets import PRESETS

EXPLORED: Final = ("published", "published+2", "published+2s", "safe")
SHORTEST_OF: Final = "published+2"
CARD_INCHES: Final = 3.3
BREACHES_SHOWN: Final = 3
"""The worst breaches of a card; the tables have all."""


def answer(run: StudyRun, study: Any, out_dir: Path, lang: str) -> list[dict[str, Any]]:
    """
    Write `out_dir/report.html` and return the rows of `summary.json`'s verdicts.

    Args:
        run: the runs of the study.
        study: what was run, for the words on how it was computed.
        out_dir: the run's directory.
        lang: `en` or `zh`.

    Raises:
        ConfigError: a language that the page is not written in.

    """
    say = Wording(lang)
    text = page_html(page_of(run, study, say), say)
    (out_dir / "report.html").write_text(text, encoding="utf-8", newline="\n")
    return [judged.as_row() for judged in all_judged(run)]


def page_of(run: StudyRun, study: Any, say: Wording) -> Page:
    """Everything on the page, computed."""
    return Page(
        lines=answers(run, say),
        cards=[_card(run, say, proposal) for proposal in figures().proposal],
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
        tables.calls(run, say),
        tables.locks(run, say),
        tables.redis(run, say),
        tables.unpriced(run, say),
    ]


def _card(run: StudyRun, say: Wording, proposal: Proposal) -> Card:
    judged = judged_of(run, proposal)
    bars = [
        Bar(
            label=phase_label(say, phase), promised=proposal.saves, saving=one.saving,
            verdict=one.verdict,
        )
        for phase, one in judged.items()
    ]  # fmt: skip
    facts = [
        (say("card.promised"), (_promised(say, proposal),)),
        (say("card.measured"), _measured(say, proposal, judged)),
        (say("card.safety"), _safety(run, say, judged)),
        *_safe_form(run, say, proposal),
        (say("card.effort"), (say(f"effort.{proposal.effort}"),)),
        (say("card.duration"), (_weeks(say, proposal.stage),)),
        (say("card.risk"), (say(f"risk.{proposal.risk}"),)),
        (say("card.mitigation"), (say(f"mitigation.{proposal.risk}"),)),
    ]
    return Card(
        id=proposal.id,
        title=say(f"proposal.{proposal.id}"),
        badges=tuple(
            (phase_label(say, phase), one.verdict, worded(say, one))
            for phase, one in judged.items()
        ),
        tone=worst(judged.values()),
        picture=intervals(bars, say("plot.saving"), f"p{proposal.id}", width=CARD_INCHES),
        facts=tuple(facts),
    )


def _promised(say: Wording, proposal: Proposal) -> str:
    metric = say(f"metric.{proposal.metric}")
    return say("card.promised_of", saves=span(proposal.saves), metric=metric)


def _measured(say: Wording, proposal: Proposal, judged: dict[int, Judged]) -> tuple[str, ...]:
    """The saving in each phase; a proposal that changes nothing in a phase says why."""
    texts = []
    for phase, one in judged.items():
        nothing = one.saving.estimate == 0 and one.saving.half_width == 0
        if nothing and proposal.id == "2":
            why = say("card.nothing", phase=phase)
        else:
            why = say("card.zero") if one.saving.contains(0.0) else ""
        label = phase_label(say, phase)
        texts.append(say("card.saved", phase=label, saves=shown(one.saving), why=why).strip())
    return tuple(texts)


def _safety(run: StudyRun, say: Wording, judged: dict[int, Judged]) -> tuple[str, ...]:
    """What is broken, by how much more than under the base; else, by phase, the bound of zero."""
    found = sorted(
        (breach for one in judged.values() for breach in one.breaches),
        key=lambda breach: (
            breach.invariant != "I1",
            -breach.more_per_100k.estimate,
            breach.variant,
        ),
    )
    first: dict[str, str] = {}
    for breach in found:
        first.setdefault(breach.invariant, told(say, breach))
    if first:
        return (say("card.more"), *list(first.values())[:BREACHES_SHOWN])
    clean = []
    for phase, one in judged.items():
        variant = run.variants[one.variant]
        jobs, bound = f"{jobs_of(variant):,}", counted(upper_bound_per_100k(variant))
        clean.append(say("card.clean", phase=phase_label(say, phase), jobs=jobs, bound=bound))
    return tuple(clean)


def _safe_form(
    run: StudyRun, say: Wording, proposal: Proposal
) -> list[tuple[str, tuple[str, ...]]]:
    if not has_safe_form(proposal):
        return []
    phase = main_phase(run)
    judged = judge_proposal(run, proposal, phase, "s")
    if judged is None:
        return []
    text = say(
        "card.safe_saves", id=proposal.id, how=say(f"safe_form.{proposal.id}"),
        saves=shown(judged.saving), verdict=worded(say, judged),
    )  # fmt: skip
    return [(say("card.safe_form"), (text,))]


def _weeks(say: Wording, number: int) -> str:
    low, high = figures().stage[number - 1].weeks
    return say("card.weeks", low=low, high=high, stage=number)


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
