"""
What the numbers say: proposals, stages, the 20-30 %, contradictions, and the three decisions.

Every sentence is chosen by the verdicts and filled with figures of the run; none is an opinion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from simsched.experiments.figures import Proposal, figures
from simsched.experiments.intervals import Estimate, proportion_interval
from simsched.experiments.report_tables import (
    DASH,
    Table,
    call_totals,
    counted,
    hold_per_call_ms,
    missing,
    phase_label,
    shown,
    span,
)
from simsched.experiments.report_verdicts import (
    BASE,
    CUTS_EQUAL,
    METRICS,
    MIXED,
    Breach,
    Judged,
    breaches,
    gap_of,
    jobs_of,
    judge,
    judge_proposal,
    name_of,
    phases,
    policy_of,
    relative_saving,
    saving,
    saving_between,
    stage_promises,
    upper_bound_per_100k,
    violations_of,
    worst,
)
from simsched.experiments.runs import StudyRun
from simsched.experiments.wording import Wording
from simsched.presets import PROPOSALS
from simsched.telemetry import OpKind

SAFE: Final = "safe"
APPROVED: Final = ("1", "2", "3", "4")
"""What stages 1 and 2 hold."""

LATENCIES: Final = ("create_job_ms", "audio_chunk_ms", "job_result_ms", "end_to_end_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the answer: what was asked, in a word, in a sentence, and where it is shown."""

    asked: str
    word: str
    tone: str
    text: str
    evidence: str


def main_phase(run: StudyRun) -> int:
    """The phase that headlines speak of: several instances, where it was run."""
    return phases(run)[-1]


def judged_of(run: StudyRun, proposal: Proposal) -> dict[int, Judged]:
    """A proposal as written, in every phase that was run."""
    found = {phase: judge_proposal(run, proposal, phase) for phase in phases(run)}
    return {phase: one for phase, one in found.items() if one is not None}


def has_safe_form(proposal: Proposal) -> bool:
    """Whether the safe form differs from the proposal as it is written."""
    return PROPOSALS[proposal.id] != PROPOSALS[f"{proposal.id}s"]


def told(say: Wording, found: Breach) -> str:
    """One breach in words, with how much more often than under the base."""
    gap = gap_of(found.variant)
    return say(
        "breach.repeat" if gap is not None else "breach.plain",
        rule=found.invariant,
        meaning=say(f"rule.{found.invariant}", "rule.other"),
        count=found.count,
        base=found.base_count,
        more=counted(found.more_per_100k.estimate),
        half=counted(found.more_per_100k.half_width),
        gap=gap,
        out_of=found.out_of,
    )


def proposals(run: StudyRun, say: Wording) -> Table:
    """Section 5: every proposal, as written and in its safe form, in both phases."""
    rows = []
    for proposal in figures().proposal:
        for form in ("", "s") if has_safe_form(proposal) else ("",):
            for phase in phases(run):
                judged = judge_proposal(run, proposal, phase, form)
                if judged is not None:
                    rows.append(_judged_row(say, f"{proposal.id}{form}", phase, judged))
    return Table(
        id="proposals", section="5", title=say("proposals.title"), rows=tuple(rows),
        columns=_judged_columns(say, "column.proposal"), note=say("proposals.note"),
    )  # fmt: skip


def _judged_columns(say: Wording, first: str) -> tuple[str, ...]:
    names = ("phase", "metric", "promised", "saves", "more_than_base", "verdict")
    return (say(first), *(say(f"column.{name}") for name in names))


def _judged_row(say: Wording, name: str, phase: int, judged: Judged) -> tuple[str, ...]:
    more = max((found.more_per_100k.estimate for found in judged.breaches), default=0.0)
    return (
        name,
        str(phase),
        say(f"metric.{judged.metric}"),
        span(judged.promised),
        shown(judged.saving),
        counted(more),
        worded(say, judged),
    )


def worded(say: Wording, judged: Judged) -> str:
    """The verdict in words; one that 0 would meet as well says so."""
    zero = judged.verdict == "confirmed" and judged.saving.contains(0.0)
    return say("verdict.confirmed_zero" if zero else f"verdict.{judged.verdict}")


def stages(run: StudyRun, say: Wording) -> Table:
    """Section 6: the stages with those before them, and what each adds by itself."""
    rows = []
    for stage in figures().stage:
        name = f"stage{stage.id}"
        for phase in phases(run):
            for metric, promised in stage_promises(stage.id):
                judged = judge(run, name_of(phase, name), metric, promised)
                if judged is not None:
                    rows.append(_judged_row(say, say("stage.upto", stage=stage.id), phase, judged))
            if stage.id > 1:
                rows.extend(_added(run, say, phase, stage.id))
    return Table(
        id="stages", section="6", title=say("stages.title"), rows=tuple(rows),
        columns=_judged_columns(say, "column.stage"), note=say("stages.note"),
    )  # fmt: skip


def _added(run: StudyRun, say: Wording, phase: int, number: int) -> list[tuple[str, ...]]:
    before, after = (name_of(phase, f"stage{stage}") for stage in (number - 1, number))
    added = saving_between(run, before, after, MIXED)
    if added is None:
        return []
    promised = span(figures().stage[number - 1].alone)
    what = say("stage.added", stage=number)
    return [(what, str(phase), say(f"metric.{MIXED}"), promised, shown(added), DASH, DASH)]


def claim(run: StudyRun, say: Wording) -> Table:
    """The summary's 20-30 %: of which latency? Against each of them."""
    rows = []
    for phase in phases(run):
        for metric in LATENCIES:
            base = run.variants[name_of(phase, BASE)].estimate(metric)
            cells = [
                _percent(relative_saving(run, name, metric))
                if name in run.variants
                else missing(run, say)
                for name in (name_of(phase, policy) for policy in ("stage2", "stage3", SAFE))
            ]
            rows.append((phase_label(say, phase), say(f"metric.{metric}"), shown(base), *cells))
    names = ("phase", "latency", "published", "stage2", "stage3", "safe")
    return Table(
        id="claim", section="0", title=say("claim.title"), rows=tuple(rows),
        columns=tuple(say(f"column.{name}") for name in names), note=say("claim.note"),
    )  # fmt: skip


def _percent(share: Estimate | None) -> str:
    if share is None:
        return DASH
    half_width = 100 * share.half_width
    spread = f" ± {half_width:.1f}" if math.isfinite(half_width) else ""
    return f"{100 * share.estimate:.1f}{spread} %"


def repeated(run: StudyRun, say: Wording) -> Table:
    """Jobs created twice per 100,000 jobs, against the gap between a request and its repeat."""
    rows = []
    for name, variant in run.variants.items():
        gap = gap_of(name)
        if gap is None:
            continue
        jobs, double = jobs_of(variant), violations_of(variant).get("I1", 0)
        share = proportion_interval(min(double, jobs), jobs)
        interval = (
            f"{counted(share.low * 100_000)}–{counted(share.high * 100_000)}"
            if double
            else f"≤ {counted(upper_bound_per_100k(variant))}"
        )
        rate = counted(double * 100_000 / jobs)
        rows.append((f"{gap} ms", policy_of(name), f"{jobs:,}", str(double), rate, interval))
    names = ("gap", "policy", "jobs", "doubles", "rate", "interval")
    return Table(
        id="repeated", section="5.1", title=say("repeated.title"), rows=tuple(rows),
        columns=tuple(say(f"column.{name}") for name in names), note=say("repeated.note"),
    )  # fmt: skip


def contradictions(run: StudyRun, say: Wording) -> Table:
    """Where the report contradicts itself or the code, with this run's numbers."""
    phase = main_phase(run)
    base = name_of(phase, BASE)
    one = figures().proposal[0]
    saved = saving(run, name_of(phase, "published+1"), one.metric)
    creations = call_totals(run, base, OpKind.CREATE_JOB, phase, "redis.get_binding")
    values = {
        "chunk_reads": _calls_each(run, base, OpKind.AUDIO_CHUNK, 0, "get_last_chunk_at_ms"),
        "bindings": f"{creations.most}",
        "snapshots": call_totals(run, base, OpKind.CREATE_JOB, phase, "snapshot.read").most,
        "decides": call_totals(run, base, OpKind.CREATE_JOB, phase, "session_runtime.lock").most,
        "clone": f"{hold_per_call_ms(run, base, 'snapshot.clone'):.1f}",
        "read": f"{hold_per_call_ms(run, base, 'snapshot.read'):.1f}",
        "saved": shown(saved),
        "mixed": shown(_of(run, phase, "stage3", MIXED)),
        "create": shown(_of(run, phase, "stage3", "create_job_ms")),
        "audio": shown(_of(run, phase, "stage3", "audio_chunk_ms")),
        "result": shown(_of(run, phase, "stage3", "job_result_ms")),
        "percent": _percent(_share(run, phase, "stage3", "create_job_ms")),
        "percent_all": _percent(_share(run, phase, "stage3", "end_to_end_ms")),
    }
    rows = tuple(
        (section, say(f"contra.{key}.says"), say(f"contra.{key}.but", **values),
         say(f"contra.{key}.here", **values))
        for key, section in CONTRADICTIONS
    )  # fmt: skip
    names = ("section", "report_says", "against", "here")
    return Table(
        id="contradictions", section="1–6, A–C", title=say("contradictions.title"), rows=rows,
        columns=tuple(say(f"column.{name}") for name in names), note=say("contradictions.note"),
    )  # fmt: skip


CONTRADICTIONS: Final = (
    ("live", "0"),
    ("chunk_reads", "1.1 / 3.1"),
    ("group_reads", "3.1"),
    ("bindings", "1.2"),
    ("snapshots", "A.1"),
    ("forward", "2.1"),
    ("get_session", "2.1"),
    ("group_writes", "2.1"),
    ("redis", "C.1"),
    ("twice", "4.1"),
    ("mixed", "4.4 / 6"),
    ("unconnected", "0 / 4.4 / 9"),
    ("decides", "1.1 / 1.2"),
)
"""Rows of the table of contradictions, by message, and where in the report they are."""


def _calls_each(run: StudyRun, variant: str, kind: OpKind, phase: int, method: str) -> str:
    totals = call_totals(run, variant, kind, phase, f"audio_buffer.{method}")
    return f"{totals.calls / max(1, totals.operations_with):.2f}"


def _of(run: StudyRun, phase: int, policy: str, metric: str) -> Estimate | None:
    name = name_of(phase, policy)
    return saving(run, name, metric) if name in run.variants else None


def _share(run: StudyRun, phase: int, policy: str, metric: str) -> Estimate | None:
    name = name_of(phase, policy)
    return relative_saving(run, name, metric) if name in run.variants else None


def answers(run: StudyRun, say: Wording) -> list[Line]:
    """The three decisions of section 9, the claim, and the alternative: five lines."""
    return [
        _approve(run, say),
        _evaluate(run, say),
        _monitor(run, say),
        _claimed(run, say),
        _instead(run, say),
    ]


def _members(run: StudyRun, stage_numbers: tuple[int, ...]) -> dict[str, list[Judged]]:
    return {
        p.id: list(judged_of(run, p).values())
        for p in figures().proposal
        if p.stage in stage_numbers
    }


def _approve(run: StudyRun, say: Wording) -> Line:
    phase = main_phase(run)
    members = _members(run, (1, 2))
    unsafe = [number for number, judged in members.items() if worst(judged) == "unsafe"]
    values = {
        "create": shown(_of(run, phase, "stage2", "create_job_ms")),
        "audio": shown(_of(run, phase, "stage2", "audio_chunk_ms")),
        "result": shown(_of(run, phase, "stage2", "job_result_ms")),
        "unsafe": say.listed(say("proposal.short", id=number) for number in unsafe),
        "instead": say.listed(f"{number}s" if number in unsafe else number for number in members),
        "phase": phase,
    }
    key, tone = ("no", "bad") if unsafe else ("yes", "good")
    return Line(
        asked=say("answer.approve.asked"), word=say(f"answer.approve.{key}.word"), tone=tone,
        text=say(f"answer.approve.{key}", **values), evidence="proposals",
    )  # fmt: skip


def _evaluate(run: StudyRun, say: Wording) -> Line:
    phase = main_phase(run)
    values: dict[str, object] = {"phase": phase}
    words = []
    for proposal in figures().proposal[4:]:
        judged = judge_proposal(run, proposal, phase)
        values[f"saves{proposal.id}"] = shown(judged.saving if judged else None)
        values[f"promised{proposal.id}"] = span(proposal.saves)
        values[f"verdict{proposal.id}"] = worded(say, judged) if judged else DASH
        words.append(judged.verdict if judged else "undecided")
    values["safe6"] = shown(_of(run, phase, "published+6s", "create_job_ms"))
    tone = "bad" if "unsafe" in words else "mixed"
    return Line(
        asked=say("answer.evaluate.asked"), word=say("answer.evaluate.word"), tone=tone,
        text=say("answer.evaluate", **values), evidence="stages",
    )  # fmt: skip


def _monitor(run: StudyRun, say: Wording) -> Line:
    judged = [one for p in figures().proposal for one in judged_of(run, p).values()]
    words = [one.verdict for one in judged]
    off, more = words.count("less") + words.count("unsafe"), words.count("more")
    text = say("answer.monitor", off=off, more=more, all=len(judged))
    return Line(
        asked=say("answer.monitor.asked"), word=say("answer.monitor.word"), tone="good",
        text=text, evidence="monitored",
    )  # fmt: skip


def _claimed(run: StudyRun, say: Wording) -> Line:
    phase = main_phase(run)
    shares = {metric: _share(run, phase, "stage3", metric) for metric in LATENCIES}
    low, high = figures().claim.percent
    held = [m for m, s in shares.items() if s is not None and low <= 100 * s.estimate <= high]
    values = {metric: _percent(share) for metric, share in shares.items()}
    return Line(
        asked=say("answer.claim.asked"),
        word=say("answer.claim.word", held=len(held), all=len(METRICS) + 1),
        tone="mixed" if held else "bad",
        text=say("answer.claim", **values, phase=phase),
        evidence="claim",
    )


def _instead(run: StudyRun, say: Wording) -> Line:
    phase = main_phase(run)
    name = name_of(phase, SAFE)
    if name not in run.variants:
        return Line(
            asked=say("answer.safe.asked"), word=DASH, tone="mixed", text=DASH, evidence="safety"
        )
    variant = run.variants[name]
    # Its own breaches are among its violations, but for cuts, which are compared with the base's.
    elsewhere = [b for b in breaches(run, name) if b.variant != name or b.invariant == CUTS_EQUAL]
    broken = sum(violations_of(variant).values()) + sum(found.count for found in elsewhere)
    text = say(
        "answer.safe.broken" if broken else "answer.safe.clean",
        create=shown(_of(run, phase, SAFE, "create_job_ms")),
        percent=_percent(_share(run, phase, SAFE, "create_job_ms")),
        audio=shown(_of(run, phase, SAFE, "audio_chunk_ms")),
        result=shown(_of(run, phase, SAFE, "job_result_ms")),
        jobs=f"{jobs_of(variant):,}",
        bound=counted(upper_bound_per_100k(variant)),
        broken=broken,
        phase=phase,
    )
    return Line(
        asked=say("answer.safe.asked"), word=say("answer.safe.word"),
        tone="bad" if broken else "good", text=text, evidence="safety",
    )  # fmt: skip
