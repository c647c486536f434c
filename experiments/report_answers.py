"""
The answer in a few lines: section 9's three decisions, the claim, the alternative, what is missed.

Every sentence is chosen by the verdicts and filled with figures of the run; none is an opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simsched.experiments.figures import figures
from simsched.experiments.report_findings import (
    HELD,
    LATENCIES,
    SAFE,
    gained,
    has_safe_form,
    jobs_per_session,
    judged_of,
    main_phase,
    percent,
    plainly,
    saved_of,
    share_of,
    worded,
)
from simsched.experiments.report_tables import DASH, counted, shown, span
from simsched.experiments.report_verdicts import (
    BASE,
    CUTS_EQUAL,
    METRICS,
    Judged,
    breaches,
    jobs_of,
    judge_proposal,
    name_of,
    upper_bound_per_100k,
    violations_of,
    worst,
)
from simsched.experiments.runs import StudyRun
from simsched.experiments.statistics import paired_ratio
from simsched.experiments.wording import Wording


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the answer: what was asked, in a word, in a sentence, and where it is shown."""

    asked: str
    word: str
    tone: str
    text: str
    evidence: str


def answers(run: StudyRun, say: Wording) -> list[Line]:
    """The three decisions of section 9, the claim, the alternative, and what the report misses."""
    return [
        _approve(run, say),
        _evaluate(run, say),
        _monitor(run, say),
        _claimed(run, say),
        _instead(run, say),
        *_missed(run, say),
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
    unsafe = {number: judged for number, judged in members.items() if worst(judged) == "unsafe"}
    whys = {
        number: plainly(say, [found for one in judged for found in one.breaches])
        for number, judged in unsafe.items()
    }
    values = {
        "create": shown(saved_of(run, phase, "stage2", "create_job_ms")),
        "audio": shown(saved_of(run, phase, "stage2", "audio_chunk_ms")),
        "result": shown(saved_of(run, phase, "stage2", "job_result_ms")),
        "unsafe": say.clauses(
            say("answer.approve.why", id=number, why=why) for number, why in whys.items()
        ),
        "instead": say.listed(_instead_of(run, say, number, unsafe) for number in members),
        "phase": phase,
    }
    key, tone = ("no", "bad") if unsafe else ("yes", "good")
    return Line(
        asked=say("answer.approve.asked"), word=say(f"answer.approve.{key}.word"), tone=tone,
        text=say(f"answer.approve.{key}", **values), evidence="proposals",
    )  # fmt: skip


def _instead_of(
    run: StudyRun, say: Wording, number: str, unsafe: Mapping[str, list[Judged]]
) -> str:
    """What to approve in place of a proposal: itself, or its safe form with what that saves."""
    if number not in unsafe:
        return number
    proposal = next(one for one in figures().proposal if one.id == number)
    safe = judge_proposal(run, proposal, main_phase(run), "s")
    if not has_safe_form(proposal) or safe is None:
        return f"{number}s"
    return say("answer.approve.form", id=number, saves=shown(safe.saving))


def _evaluate(run: StudyRun, say: Wording) -> Line:
    phase = main_phase(run)
    parts = []
    words = []
    for proposal in figures().proposal[4:]:
        judged = judge_proposal(run, proposal, phase)
        words.append(judged.verdict if judged else "undecided")
        parts.append(
            say(
                "answer.evaluate.one", id=proposal.id, promised=span(proposal.saves),
                gain=gained(say, judged.saving if judged else None),
                verdict=worded(say, judged) if judged else DASH,
                why=_because(say, judged),
            )
        )  # fmt: skip
    safe = gained(say, saved_of(run, phase, "published+6s", "create_job_ms"))
    tone = "bad" if "unsafe" in words else "mixed"
    return Line(
        asked=say("answer.evaluate.asked"), word=say("answer.evaluate.word"), tone=tone,
        text=say("answer.evaluate", parts=say.clauses(parts), gain6s=safe, phase=phase),
        evidence="stages",
    )  # fmt: skip


def _because(say: Wording, judged: Judged | None) -> str:
    why = plainly(say, judged.breaches) if judged else ""
    return say("because", why=why) if why else ""


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
    shares = {metric: share_of(run, phase, "stage3", metric) for metric in LATENCIES}
    low, high = figures().claim.percent
    held = [
        metric
        for metric, share in shares.items()
        if share is not None and 100 * share.low <= high and 100 * share.high >= low
    ]
    values = {metric: percent(share) for metric, share in shares.items()}
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
        create=shown(saved_of(run, phase, SAFE, "create_job_ms")),
        percent=percent(share_of(run, phase, SAFE, "create_job_ms")),
        audio=shown(saved_of(run, phase, SAFE, "audio_chunk_ms")),
        result=shown(saved_of(run, phase, SAFE, "job_result_ms")),
        jobs=f"{jobs_of(variant):,}",
        bound=counted(upper_bound_per_100k(variant)),
        broken=broken,
        phase=phase,
    )
    return Line(
        asked=say("answer.safe.asked"), word=say("answer.safe.word"),
        tone="bad" if broken else "good", text=text, evidence="safety",
    )  # fmt: skip


def _missed(run: StudyRun, say: Wording) -> list[Line]:
    """What no proposal mends: a pause cuts one chunk as an utterance of its own."""
    phase = main_phase(run)
    before, after = (run.variants.get(name_of(phase, policy)) for policy in (BASE, HELD))
    if before is None or after is None:
        return []
    pairs = list(zip(before.own(), after.own(), strict=False))
    share = paired_ratio(
        [float(one.jobs) for one, _ in pairs], [float(two.jobs) for _, two in pairs]
    )
    if not share.low > 0:
        return []
    text = say(
        "answer.missed",
        share=percent(share),
        jobs=shown(jobs_per_session(before)),
        held=shown(jobs_per_session(after)),
        disordered=violations_of(before).get("I6", 0),
        ordered=violations_of(after).get("I6", 0),
        touched=_touched(run, say, phase),
        phase=phase,
    )
    return [
        Line(
            asked=say("answer.missed.asked"), word=say("answer.missed.word"), tone="bad",
            text=text, evidence="pauses",
        )
    ]  # fmt: skip


def _touched(run: StudyRun, say: Wording, phase: int) -> str:
    """Which proposals change how many jobs a session makes."""
    names = {one.id: name_of(phase, f"{BASE}+{one.id}") for one in figures().proposal}
    base = run.variants[name_of(phase, BASE)]
    changed = []
    for number, name in names.items():
        if name not in run.variants:
            continue
        pairs = list(zip(base.own(), run.variants[name].own(), strict=False))
        share = paired_ratio(
            [float(one.jobs) for one, _ in pairs], [float(two.jobs) for _, two in pairs]
        )
        if share.half_width > 0 and not share.contains(0.0):
            changed.append(number)
    if not changed:
        return say("answer.missed.none")
    return say("answer.missed.some", who=say.listed(say("proposal.short", id=n) for n in changed))
