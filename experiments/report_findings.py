"""
What the numbers say: proposals, stages, the 20-30 %, repeats, contradictions, and what is missed.

Tables that hold the report's promises against the run; the words that judge them are chosen by the
verdicts and filled with figures of the run. `report_answers` puts them into a few lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from simsched.experiments.figures import Proposal, figures
from simsched.experiments.intervals import Estimate, proportion_interval, t_interval
from simsched.experiments.report_appendices import call_totals, hold_per_call_ms
from simsched.experiments.report_tables import (
    DASH,
    Table,
    counted,
    missing,
    phase_label,
    shown,
    span,
)
from simsched.experiments.report_verdicts import (
    BASE,
    CUTS_EQUAL,
    MIXED,
    Breach,
    Judged,
    gap_of,
    jobs_of,
    judge,
    judge_proposal,
    name_of,
    phases,
    policy_of,
    relative_saving,
    repeats,
    saving,
    saving_between,
    stage_promises,
    upper_bound_per_100k,
    violations_of,
)
from simsched.experiments.runs import StudyRun, VariantRun
from simsched.experiments.wording import Wording
from simsched.presets import PROPOSALS
from simsched.telemetry import OpKind

SAFE: Final = "safe"
HELD: Final = "published,pause_cut=held"
"""The report's design, but for its rule on pauses: what it misses is told by this one."""

PAUSE: Final = "Pause"
"""The reason of a cut that a pause between two chunks made."""

LATENCIES: Final = ("create_job_ms", "audio_chunk_ms", "job_result_ms", "end_to_end_ms")


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
        unit=say("unit.cuts" if found.invariant == CUTS_EQUAL else "unit.jobs"),
        count=f"{found.count:,}",
        base=f"{found.base_count:,}",
        more=counted(found.more_per_100k.estimate),
        half=counted(found.more_per_100k.half_width),
        gap=gap,
        out_of=f"{found.out_of:,}",
    )


def worst_first(found: Iterable[Breach]) -> list[Breach]:
    """Breaches, one of each invariant: what weighs most comes first, and where it is seen most."""
    ranked = sorted(found, key=lambda b: (_weight(b), -b.more_per_100k.estimate, b.variant))
    first: dict[str, Breach] = {}
    for breach in ranked:
        first.setdefault(breach.invariant, breach)
    return list(first.values())


def _weight(found: Breach) -> int:
    known = found.invariant in WEIGHTS
    return WEIGHTS.index(found.invariant) if known else len(WEIGHTS)


WEIGHTS: Final = ("I1", "I14", "I13", "I2", "I3", "I6", "I11")
"""Invariants as a decision maker weighs them: double work first, its consequences last."""


def plainly(say: Wording, found: Iterable[Breach]) -> str:
    """What the worst of these breaches means to whoever uses the system; "" if there is none."""
    ranked = worst_first(found)
    return say(f"plain.{ranked[0].invariant}", "plain.other") if ranked else ""


def danger(run: StudyRun, policy: str) -> tuple[int | None, int | None]:
    """The longest gap of a repeated request that doubled its job, and the next tried without."""
    doubled: int | None = None
    free: int | None = None
    for name in repeats(run, policy):
        gap = gap_of(name)
        if violations_of(run.variants[name]).get("I1", 0):
            doubled, free = gap, None
        elif free is None:
            free = gap
    return doubled, free


def proposals(run: StudyRun, say: Wording) -> Table:
    """Section 5: every proposal, as written and in its safe form, in both phases."""
    rows = []
    for proposal in figures().proposal:
        for form in ("", "s") if has_safe_form(proposal) else ("",):
            for phase in phases(run):
                judged = judge_proposal(run, proposal, phase, form)
                if judged is not None:
                    row = _judged_row(say, f"{proposal.id}{form}", phase, judged)
                    rows.append((proposal.section, *row))
    return Table(
        id="proposals", section="5", title=say("proposals.title"), rows=tuple(rows),
        columns=(say("column.section"), *_judged_columns(say, "column.proposal")),
        note=say("proposals.note"),
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


def gained(say: Wording, saved: Estimate | None) -> str:
    """A saving as a sentence says it: `saves 3 ms`, `saves nothing`, or `costs 3 ms`."""
    if saved is None:
        return DASH
    if math.isfinite(saved.half_width) and saved.contains(0.0):
        return say("gain.none", saves=shown(saved))
    if saved.estimate < 0:
        return say("gain.costs", costs=shown(replace(saved, estimate=-saved.estimate)))
    return say("gain.saves", saves=shown(saved))


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
                percent(relative_saving(run, name, metric))
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


def percent(share: Estimate | None) -> str:
    """A share with its interval, in per cent; a dash for none."""
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
    saved = saved_of(run, phase, "published+1", one.metric)
    creations = call_totals(run, base, OpKind.CREATE_JOB, phase, "redis.get_binding")
    values = {
        "chunk_reads": _calls_each(run, base, OpKind.AUDIO_CHUNK, 0, "get_last_chunk_at_ms"),
        "bindings": f"{creations.most}",
        "snapshots": call_totals(run, base, OpKind.CREATE_JOB, phase, "snapshot.read").most,
        "decides": call_totals(run, base, OpKind.CREATE_JOB, phase, "session_runtime.lock").most,
        "clone": f"{hold_per_call_ms(run, base, 'snapshot.clone'):.1f}",
        "read": f"{hold_per_call_ms(run, base, 'snapshot.read'):.1f}",
        "saved": shown(saved),
        "mixed": shown(saved_of(run, phase, "stage3", MIXED)),
        "create": shown(saved_of(run, phase, "stage3", "create_job_ms")),
        "audio": shown(saved_of(run, phase, "stage3", "audio_chunk_ms")),
        "result": shown(saved_of(run, phase, "stage3", "job_result_ms")),
        "percent": percent(share_of(run, phase, "stage3", "create_job_ms")),
        "percent_all": percent(share_of(run, phase, "stage3", "end_to_end_ms")),
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


def saved_of(run: StudyRun, phase: int, policy: str, metric: str) -> Estimate | None:
    """What a policy saves in a phase; None if it was not run."""
    name = name_of(phase, policy)
    return saving(run, name, metric) if name in run.variants else None


def share_of(run: StudyRun, phase: int, policy: str, metric: str) -> Estimate | None:
    """The same as a share of the base; None if it was not run."""
    name = name_of(phase, policy)
    return relative_saving(run, name, metric) if name in run.variants else None


def pauses(run: StudyRun, say: Wording) -> Table:
    """Not in the report: jobs of a session, and how many utterances a pause alone has cut."""
    phase = main_phase(run)
    policies = (BASE, *(f"{BASE}+{one.id}" for one in figures().proposal), HELD, SAFE)
    rows = []
    for policy in policies:
        variant = run.variants.get(name_of(phase, policy))
        if variant is None:
            continue
        own = variant.own()
        by_pause = sum(one.cuts.reason.count(PAUSE) for one in own)
        cuts = sum(len(one.cuts.reason) for one in own)
        disordered = violations_of(variant).get("I6", 0)
        rows.append(
            (policy, shown(jobs_per_session(variant)), f"{by_pause:,} / {cuts:,}",
             str(disordered), shown(variant.estimate("create_job_ms")))
        )  # fmt: skip
    names = ("policy", "jobs_per_session", "cut_by_pause", "disordered", "create")
    return Table(
        id="pauses", section=DASH, title=say("pauses.title", phase=phase), rows=tuple(rows),
        columns=tuple(say(f"column.{name}") for name in names), note=say("pauses.note"),
    )  # fmt: skip


def jobs_per_session(variant: VariantRun) -> Estimate:
    """Jobs for each session that was served, over replications."""
    return t_interval([one.jobs / max(1, one.sessions) for one in variant.own()])
