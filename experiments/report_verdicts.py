"""
What the report promised against what was measured: savings, safety, verdicts.

A variant is named `phase1/POLICY` or `phase2/POLICY`, and `repeat/GAP ms/POLICY` where clients
repeat requests on the other instance. A verdict is `unsafe` when the policy breaks an invariant
that its base keeps, or breaks one more often by a paired interval above 0, in any variant that
tells about it; otherwise the saving's interval is held against the promised range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from simsched.experiments.figures import PHASES, Proposal, Range, figures
from simsched.experiments.intervals import Estimate, t_interval, zero_upper_bound
from simsched.experiments.runs import Replication, StudyRun, VariantRun
from simsched.experiments.statistics import paired_ratio, verdict
from simsched.invariants import compare_cuts
from simsched.models.journal import Cuts
from simsched.presets import PRESETS, STAGES, parse_policy

PER: Final = 100_000
MIXED: Final = "mixed_sum_ms"
"""The report's own sum over job creation, audio chunk and job result (its section 6)."""

METRICS: Final = ("create_job_ms", "audio_chunk_ms", "job_result_ms")
BASE: Final = "published"
CUTS_EQUAL: Final = "I14"


class Cut(NamedTuple):
    """One cut as the comparison of two runs wants it."""

    session: str
    utterance: int
    audio_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """An invariant that a variant breaks and its base does not, or less often."""

    variant: str
    invariant: str
    count: int
    base_count: int
    out_of: int
    more_per_100k: Estimate

    @property
    def per_100k(self) -> float:
        """Violations per 100,000 jobs (of I14: per 100,000 cuts)."""
        return self.count * PER / max(1, self.out_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One variant under one metric: what it saves, what was promised, what to call it."""

    variant: str
    metric: str
    saving: Estimate
    promised: Range
    verdict: str
    breaches: tuple[Breach, ...]

    def as_row(self) -> dict[str, Any]:
        """As `summary.json` and the runner take it."""
        half_width = self.saving.half_width
        return {
            "variant": self.variant,
            "metric": self.metric,
            "saves_ms": self.saving.estimate,
            "half_width_ms": half_width if math.isfinite(half_width) else None,
            "promised_ms": list(self.promised),
            "verdict": self.verdict,
            "violations_per_100k": max((b.per_100k for b in self.breaches), default=0.0),
        }


def phases(run: StudyRun) -> tuple[int, ...]:
    """The phases of the report that were run."""
    return tuple(phase for phase in PHASES if f"phase{phase}/{BASE}" in run.variants)


def name_of(phase: int, policy: str) -> str:
    """The name of a policy's variant."""
    return f"phase{phase}/{policy}"


def policy_of(variant: str) -> str:
    """The policy that a variant's name ends in."""
    return variant.rpartition("/")[2]


def gap_of(variant: str) -> int | None:
    """After how many ms a request is repeated, where the variant's name says so."""
    kind, _, rest = variant.partition("/")
    return int(rest.partition("ms/")[0]) if kind == "repeat" else None


def repeats(run: StudyRun, policy: str) -> list[str]:
    """The variants in which requests of this policy are repeated, by growing gap."""
    found = [
        (gap, name)
        for name in run.variants
        if (gap := gap_of(name)) is not None and policy_of(name) == policy
    ]
    return [name for _, name in sorted(found)]


def jobs_of(run: VariantRun) -> int:
    """Jobs of all replications."""
    return sum(replication.jobs for replication in run.replications)


def violations_of(run: VariantRun) -> dict[str, int]:
    """Violations of all replications, by invariant."""
    total: dict[str, int] = {}
    for replication in run.replications:
        for invariant, count in replication.violations.items():
            total[invariant] = total.get(invariant, 0) + count
    return total


def pairs_of(run: StudyRun, variant: str) -> list[tuple[Replication, Replication]]:
    """Replications of a variant's base and of the variant, in their order."""
    own = run.variants[variant]
    base = run.variants.get(own.base or "")
    if base is None:
        return []
    return list(zip(base.replications, own.replications, strict=False))


def rows_of(cuts: Cuts) -> list[Cut]:
    """Cuts as rows."""
    numbers = (cuts.utterance.tolist(), cuts.audio_bytes.tolist())
    columns = zip(cuts.session, *numbers, cuts.reason, strict=True)
    return [Cut(*row) for row in columns]


def cut_changes(run: StudyRun, variant: str) -> list[tuple[int, int]]:
    """Per replication: how many cuts differ from the base's, of how many (I14)."""
    changes = []
    for base, own in pairs_of(run, variant):
        found = compare_cuts(rows_of(base.cuts), rows_of(own.cuts))  # type: ignore[arg-type]
        changes.append((found.differing, found.compared))
    return changes


def own_breaches(run: StudyRun, variant: str) -> list[Breach]:
    """What one variant breaks beyond its base."""
    pairs = pairs_of(run, variant)
    if not pairs:
        return []
    own = run.variants[variant]
    counts = violations_of(own)
    found = []
    for invariant, count in sorted(counts.items()):
        before = [base.violations.get(invariant, 0) for base, _ in pairs]
        more = t_interval(
            [
                _rate(after.violations.get(invariant, 0), after) - _rate(base_count, base)
                for base_count, (base, after) in zip(before, pairs, strict=True)
            ]
        )
        if count and (not sum(before) or more.low > 0):
            found.append(
                Breach(
                    variant=variant, invariant=invariant, count=count, base_count=sum(before),
                    out_of=jobs_of(own), more_per_100k=more,
                )
            )  # fmt: skip
    unlike = _unlike_cuts(run, variant)
    return [*found, unlike] if unlike is not None else found


def _unlike_cuts(run: StudyRun, variant: str) -> Breach | None:
    """
    I14, if a variant's cuts differ from its base's by more than chance.

    Any change of latency can move a single cut that lies on the edge of a pause, and the session's
    later ones with it; so the interval over replications has to lie above 0.
    """
    changes = cut_changes(run, variant)
    differing, compared = (sum(column) for column in zip(*changes, strict=True))
    shares = t_interval([PER * count / max(1, of) for count, of in changes])
    if not shares.low > 0 or _cuts_by_another_rule(variant):
        return None
    return Breach(
        variant=variant, invariant=CUTS_EQUAL, count=differing, base_count=0, out_of=compared,
        more_per_100k=shares,
    )  # fmt: skip


def _cuts_by_another_rule(variant: str) -> bool:
    """
    Whether a variant's policy says itself that it cuts otherwise than the report's.

    Its cuts are judged by I13 then; that they differ from the base's is what it is for.
    """
    return parse_policy(policy_of(variant)).pause_cut != PRESETS[BASE].pause_cut


def _rate(count: int, replication: Replication) -> float:
    return count * PER / max(1, replication.jobs)


def witnesses(run: StudyRun, variant: str) -> list[str]:
    """The variants that tell whether this one is safe: itself, and its policy under repeats."""
    policy = policy_of(variant)
    names = [variant]
    if variant.startswith("phase2/"):
        members = [f"{BASE}+{member}" for member in STAGES.get(policy, ())]
        for known in (policy, *members):
            names.extend(repeats(run, known))
    return [name for name in names if name in run.variants]


def breaches(run: StudyRun, variant: str) -> tuple[Breach, ...]:
    """Everything that speaks against a variant's safety."""
    return tuple(found for name in witnesses(run, variant) for found in own_breaches(run, name))


def upper_bound_per_100k(run: VariantRun) -> float:
    """Where no violation was seen: at most so many per 100,000 jobs (95 %)."""
    jobs = jobs_of(run)
    return zero_upper_bound(jobs) * PER if jobs else float(PER)


def saving(run: StudyRun, variant: str, metric: str) -> Estimate | None:
    """What a variant saves against its base in ms; `MIXED` adds the three operations' means."""
    wanted = METRICS if metric == MIXED else (metric,)
    differences = [
        math.fsum(base.metrics[name] - own.metrics[name] for name in wanted)
        for base, own in pairs_of(run, variant)
        if all(name in base.metrics and name in own.metrics for name in wanted)
    ]
    return t_interval(differences, unit="ms", method="paired t") if differences else None


def saving_between(run: StudyRun, before: str, after: str, metric: str) -> Estimate | None:
    """What the second variant saves against the first, neither being the other's base."""
    if before not in run.variants or after not in run.variants:
        return None
    wanted = METRICS if metric == MIXED else (metric,)
    pairs = zip(run.variants[before].replications, run.variants[after].replications, strict=False)
    differences = [
        math.fsum(one.metrics[name] - two.metrics[name] for name in wanted)
        for one, two in pairs
        if all(name in one.metrics and name in two.metrics for name in wanted)
    ]
    return t_interval(differences, unit="ms", method="paired t") if differences else None


def relative_saving(run: StudyRun, variant: str, metric: str) -> Estimate | None:
    """The saving as a share of the base's mean."""
    pairs = [
        (base.metrics[metric], own.metrics[metric])
        for base, own in pairs_of(run, variant)
        if metric in base.metrics and metric in own.metrics
    ]
    if not pairs or not any(before for before, _ in pairs):
        return None
    return paired_ratio([before for before, _ in pairs], [after for _, after in pairs])


def judge(run: StudyRun, variant: str, metric: str, promised: Range) -> Judged | None:
    """The verdict on a variant; None if it was not run or the metric was not measured."""
    if variant not in run.variants:
        return None
    saved = saving(run, variant, metric)
    if saved is None:
        return None
    against = breaches(run, variant)
    word = "unsafe" if against else verdict(saved, promised)
    return Judged(
        variant=variant, metric=metric, saving=saved, promised=promised, verdict=word,
        breaches=against,
    )  # fmt: skip


def judge_proposal(run: StudyRun, proposal: Proposal, phase: int, form: str = "") -> Judged | None:
    """One proposal in one phase, as written or (`form="s"`) in its safe form."""
    variant = name_of(phase, f"{BASE}+{proposal.id}{form}")
    return judge(run, variant, proposal.metric, proposal.saves)


def stage_promises(number: int) -> list[tuple[str, Range]]:
    """What a stage and those before it were to save, by metric."""
    stage = figures().stage[number - 1]
    promised: list[tuple[str, Range]] = [("create_job_ms", stage.cumulative)]
    for metric in METRICS[1:]:
        members = [p for p in figures().proposal if p.stage <= number and p.metric == metric]
        if members:
            low, high = (math.fsum(p.saves[end] for p in members) for end in (0, 1))
            promised.append((metric, (low, high)))
    promised.append((MIXED, stage.cumulative))
    return promised


def all_judged(run: StudyRun) -> list[Judged]:
    """Every proposal, safe form and stage, in every phase that was run."""
    found: list[Judged | None] = []
    for phase in phases(run):
        for form in ("", "s"):
            found.extend(judge_proposal(run, p, phase, form) for p in figures().proposal)
        for stage in figures().stage:
            variant = name_of(phase, f"stage{stage.id}")
            found.extend(
                judge(run, variant, metric, promised)
                for metric, promised in stage_promises(stage.id)
            )
    return [judged for judged in found if judged is not None]


def worst(judged: Iterable[Judged]) -> str:
    """The verdict that counts most: unsafe, then less, more, undecided, confirmed."""
    order: Sequence[str] = ("unsafe", "less", "more", "undecided", "confirmed")
    words = {one.verdict for one in judged}
    return next((word for word in order if word in words), "undecided")
