"""
The cards of the page: a proposal or a stage on one card, with all that a decision about it needs.

What it saves beside what was promised, whether it is safe and why in plain words, effort, duration,
risk with its mitigation, and where the evidence is. Facts are texts; `report_page` lays them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from simsched.experiments.figures import Proposal, Stage, figures
from simsched.experiments.plots import Bar, intervals
from simsched.experiments.report_findings import (
    danger,
    has_safe_form,
    judged_of,
    main_phase,
    plainly,
    saved_of,
    told,
    worded,
    worst_first,
)
from simsched.experiments.report_tables import counted, phase_label, shown, span
from simsched.experiments.report_verdicts import (
    METRICS,
    MIXED,
    Breach,
    Judged,
    jobs_of,
    judge,
    judge_proposal,
    name_of,
    phases,
    saving_between,
    upper_bound_per_100k,
    worst,
)
from simsched.experiments.runs import StudyRun
from simsched.experiments.wording import Wording

CARD_INCHES: Final = 3.3
BREACHES_SHOWN: Final = 3
"""The worst breaches of a card; the tables have all."""

REPEATED: Final = "2"
"""The proposal that repeated requests decide about."""

REMOVES_CALLS: Final = ("1", "2", "3", "4")
"""The proposals that section 4's list of repeated calls is about."""

Facts = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """
    One proposal or stage: headline, badges by phase, a picture ("" for none), facts.

    `evidence` holds ids of the page's parts with their titles.
    """

    id: str
    number: str
    section: str
    title: str
    badges: tuple[tuple[str, str, str], ...]
    tone: str
    picture: str
    facts: Facts
    evidence: tuple[tuple[str, str], ...]


def proposal_card(run: StudyRun, say: Wording, proposal: Proposal) -> Card:
    """The card of one proposal as it is written, its safe form beside it."""
    judged = judged_of(run, proposal)
    bars = [
        Bar(
            label=phase_label(say, phase), promised=proposal.saves, saving=one.saving,
            verdict=one.verdict,
        )
        for phase, one in judged.items()
    ]  # fmt: skip
    metric = say(f"metric.{proposal.metric}")
    promised = say("card.promised_of", saves=span(proposal.saves), metric=metric)
    facts = [
        (say("card.promised"), (promised,)),
        (say("card.measured"), _measured(say, proposal, judged)),
        (say("card.safety"), _safety(run, say, proposal, judged)),
        *_safe_form(run, say, proposal),
        (say("card.effort"), (say(f"effort.{proposal.effort}"),)),
        (say("card.duration"), (_weeks(say, proposal.stage),)),
        (say("card.risk"), (say(f"risk.{proposal.risk}"),)),
        (say("card.mitigation"), (say(f"mitigation.{proposal.risk}"),)),
    ]
    more = ("part-race", "repeated") if proposal.id == REPEATED and _repeats_ran(run) else ()
    calls = ("issues",) if proposal.id in REMOVES_CALLS else ()
    return Card(
        id=proposal.id,
        number=proposal.id,
        section=proposal.section,
        title=say(f"proposal.{proposal.id}"),
        badges=_badges(say, judged),
        tone=worst(judged.values()),
        picture=intervals(bars, say("plot.saving"), f"p{proposal.id}", width=CARD_INCHES),
        facts=tuple(facts),
        evidence=_evidence(say, "proposals", *calls, *more, "safety"),
    )


def stage_card(run: StudyRun, say: Wording, stage: Stage) -> Card:
    """The card of one stage together with those before it, as the report promises them."""
    judged: dict[int, Judged] = {}
    for phase in phases(run):
        one = judge(run, name_of(phase, f"stage{stage.id}"), "create_job_ms", stage.cumulative)
        if one is not None:
            judged[phase] = one
    own = [one for one in figures().proposal if one.stage == stage.id]
    risks = dict.fromkeys(one.risk for one in own)
    facts = [
        (say("card.contains"), tuple(_member(run, say, one) for one in own)),
        (say("card.promised"), (say("card.stage_promised", saves=span(stage.cumulative)),)),
        (say("card.measured"), tuple(_stage_saved(run, say, phase, stage) for phase in judged)),
        *_alone(run, say, stage),
        (say("card.safety"), _stage_safety(run, say, stage, judged)),
        (say("card.effort"), tuple(
            say("card.stage_effort", id=one.id, effort=say(f"effort.{one.effort}")) for one in own
        )),
        (say("card.duration"), (_weeks(say, stage.id),)),
        (say("card.risk"), tuple(say(f"risk.{risk}") for risk in risks)),
        (say("card.mitigation"), tuple(say(f"mitigation.{risk}") for risk in risks)),
    ]  # fmt: skip
    title = say("card.stage_title" if stage.id > 1 else "card.stage_first", stage=stage.id)
    return Card(
        id=f"stage{stage.id}",
        number="",
        section="6",
        title=title,
        badges=_badges(say, judged),
        tone=worst(judged.values()),
        picture="",
        facts=tuple((label, texts) for label, texts in facts if texts),
        evidence=_evidence(say, "stages", "safety"),
    )


def _badges(say: Wording, judged: Mapping[int, Judged]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (phase_label(say, phase), one.verdict, worded(say, one)) for phase, one in judged.items()
    )


def _evidence(say: Wording, *places: str) -> tuple[tuple[str, str], ...]:
    return tuple((place, say(f"link.{place}")) for place in places)


def _repeats_ran(run: StudyRun) -> bool:
    return any(name.startswith("repeat/") for name in run.variants)


def _measured(say: Wording, proposal: Proposal, judged: Mapping[int, Judged]) -> tuple[str, ...]:
    """The saving in each phase; a proposal that changes nothing in a phase says why."""
    return tuple(
        say("card.saved", phase=phase_label(say, phase), saves=shown(one.saving),
            why=_remark(say, proposal, phase, one)).strip()
        for phase, one in judged.items()
    )  # fmt: skip


def _remark(say: Wording, proposal: Proposal, phase: int, judged: Judged) -> str:
    saved = judged.saving
    if saved.estimate == 0 and saved.half_width == 0 and proposal.id == REPEATED:
        return say("card.nothing", phase=phase)
    if saved.contains(0.0):
        return say("card.zero")
    return say("card.costs") if saved.estimate < 0 else ""


def _safety(
    run: StudyRun, say: Wording, proposal: Proposal, judged: Mapping[int, Judged]
) -> tuple[str, ...]:
    """Why it is not safe, and by how much; else, by phase, the bound of zero."""
    found = worst_first(breach for one in judged.values() for breach in one.breaches)
    if not found:
        return (say("card.safe"), *_clean(run, say, judged))
    why = say("card.unsafe", why=plainly(say, found), cause=say(f"cause.{proposal.id}"))
    return (why, *_danger(run, say, proposal, found), *_counts(say, found))


def _counts(say: Wording, found: list[Breach]) -> tuple[str, ...]:
    return tuple(told(say, breach) for breach in found[:BREACHES_SHOWN])


def _danger(
    run: StudyRun, say: Wording, proposal: Proposal, found: list[Breach]
) -> tuple[str, ...]:
    """Up to which gap a repeated request doubles its job, where both ends were seen."""
    doubled, free = danger(run, f"published+{proposal.id}")
    if found[0].invariant != "I1" or doubled is None or free is None:
        return ()
    return (say("card.danger", doubled=doubled, free=free),)


def _clean(run: StudyRun, say: Wording, judged: Mapping[int, Judged]) -> tuple[str, ...]:
    texts = []
    for phase, one in judged.items():
        variant = run.variants[one.variant]
        jobs, bound = f"{jobs_of(variant):,}", counted(upper_bound_per_100k(variant))
        texts.append(say("card.clean", phase=phase_label(say, phase), jobs=jobs, bound=bound))
    return tuple(texts)


def _safe_form(run: StudyRun, say: Wording, proposal: Proposal) -> Facts:
    if not has_safe_form(proposal):
        return ()
    judged = judge_proposal(run, proposal, main_phase(run), "s")
    if judged is None:
        return ()
    text = say(
        "card.safe_saves", id=proposal.id, how=say(f"safe_form.{proposal.id}"),
        saves=shown(judged.saving), verdict=worded(say, judged),
    )  # fmt: skip
    return ((say("card.safe_form"), (text,)),)


def _weeks(say: Wording, number: int) -> str:
    low, high = figures().stage[number - 1].weeks
    return say("card.weeks", low=low, high=high, stage=number)


def _member(run: StudyRun, say: Wording, proposal: Proposal) -> str:
    """A proposal of the stage with the verdict that counts most."""
    judged = judged_of(run, proposal)
    word = worst(judged.values())
    title = say(f"proposal.{proposal.id}")
    return say("card.stage_member", id=proposal.id, title=title, word=say(f"verdict.{word}"))


def _stage_saved(run: StudyRun, say: Wording, phase: int, stage: Stage) -> str:
    saved = (shown(saved_of(run, phase, f"stage{stage.id}", metric)) for metric in METRICS)
    create, audio, result = saved
    label = phase_label(say, phase)
    return say("card.stage_saved", phase=label, create=create, audio=audio, result=result)


def _alone(run: StudyRun, say: Wording, stage: Stage) -> Facts:
    """What the stage adds to the one before it."""
    texts = []
    for phase in phases(run):
        before = name_of(phase, f"stage{stage.id - 1}")
        added = saving_between(run, before, name_of(phase, f"stage{stage.id}"), MIXED)
        if added is not None:
            saves, promised = shown(added), span(stage.alone)
            texts.append(say("card.alone_of", phase=phase, saves=saves, promised=promised))
    return ((say("card.alone"), tuple(texts)),) if texts else ()


def _stage_safety(
    run: StudyRun, say: Wording, stage: Stage, judged: Mapping[int, Judged]
) -> tuple[str, ...]:
    """The proposals that make it unsafe, in plain words; else its own worst breach, or none."""
    found = worst_first(breach for one in judged.values() for breach in one.breaches)
    if not found:
        return (say("card.safe"), *_clean(run, say, judged))
    causes = []
    for proposal in figures().proposal:
        if proposal.stage <= stage.id:
            mine = [b for one in judged_of(run, proposal).values() for b in one.breaches]
            if mine:
                why = plainly(say, mine)
                causes.append(say("card.stage_cause", id=proposal.id, why=why))
    why = say.clauses(causes) if causes else plainly(say, found)
    return (say("card.stage_unsafe", why=why), *_counts(say, found))
