"""
The report's tables, recomputed: each is a function of the study's run and a language.

A table carries the section number of the report that it answers, so that both can be read side by
side. Cells are texts, made once here; every number in them is either the report's own (`figures`)
or computed from the run. This file draws nothing and judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from simsched.experiments.figures import Range, figures
from simsched.experiments.intervals import Estimate, format_estimate, t_interval
from simsched.experiments.report_verdicts import (
    BASE,
    METRICS,
    cut_changes,
    jobs_of,
    name_of,
    phases,
    saving,
    upper_bound_per_100k,
    violations_of,
)
from simsched.experiments.runs import StudyRun
from simsched.experiments.wording import Wording

SWITCHES: Final = {
    "snapshot_read": "published+1",
    "snapshot_clone": "published+1",
    "binding_reads": "published+2",
    "buffer_calls": "published+3",
    "group_writes": "published+4",
    "config_reads": "published,config_reads=once",
    "session_reads": "published,session_reads=once",
    "group_reads": "published,group_reads=merged",
}
"""The policy that removes each repeated call of section 4, alone."""

MONITORED: Final = (
    "create_job_ms",
    "snapshot_read_ms",
    "node_selection_ms",
    "session_lock_wait_ms",
    "job_result_ms",
)
"""Section 8.1's five metrics."""

NS_PER_MS: Final = 1_000_000
DIGITS: Final = 4
"""Significant digits of an estimate at most; a rate has one less."""

PLACES_MAX: Final = 2
"""Decimals of an interval at most: nobody acts on microseconds."""

DASH: Final = "–"
ONE_RUN: Final = " (n = 1)"
"""After a figure of a single replication, which has no interval: the same in every language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the page; `section` is the report's own number, `note` may be empty."""

    id: str
    section: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


TableMaker = Callable[[StudyRun, Wording], Table]


def span(of: Range, unit: str = "ms") -> str:
    """A range as people write it: `10-50 ms`, or one figure."""
    low, high = of
    text = f"{low:g}" if low == high else f"{low:g}–{high:g}"
    return f"{text} {unit}".strip()


def shown(estimate: Estimate | None) -> str:
    """An estimate with its interval, or a dash; alone if every replication gave the same."""
    if estimate is None:
        return DASH
    if estimate.half_width == 0.0:
        return f"{estimate.estimate:.{DIGITS}g} {estimate.unit}".strip()
    if not math.isfinite(estimate.half_width):
        return f"{estimate.estimate:.{DIGITS}g} {estimate.unit}".strip() + ONE_RUN
    text = format_estimate(estimate, sign="±")
    whole = len(str(int(abs(estimate.estimate))))
    places = min(PLACES_MAX, max(0, DIGITS - whole))
    if _decimals(text) <= places:
        return text
    half_width = max(estimate.half_width, 10.0**-places)
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    centre = round(estimate.estimate, places) + 0.0
    return f"{centre:.{places}f} ± {half_width:.{places}f} {estimate.unit}".strip()


def _decimals(text: str) -> int:
    """Decimals of the number that a text begins with."""
    return len(text.split(" ", 1)[0].partition(".")[2])


def counted(rate: float) -> str:
    """A rate per 100,000, with the digits that it deserves."""
    return f"{float(f'{rate:.{DIGITS - 1}g}'):,.0f}"


def missing(run: StudyRun, say: Wording) -> str:
    """What a cell says of a variant that was not run: in the quick form it was left out."""
    return say("not_quick") if run.quick else DASH


def headed(
    say: Wording, table: str, *columns: str, **values: object
) -> tuple[str, tuple[str, ...]]:
    """The title and the columns of a table."""
    return say(f"{table}.title", **values), tuple(say(f"column.{column}") for column in columns)


def phase_label(say: Wording, phase: int) -> str:
    """`phase 1` in the page's language."""
    return say("phase", phase=phase)


def _per_phase(run: StudyRun, cell: Callable[[int], str]) -> tuple[str, ...]:
    """One cell for each of the report's phases; a dash for one that was not run."""
    ran = phases(run)
    return tuple(cell(phase) if phase in ran else DASH for phase in (1, 2))


def _saved(run: StudyRun, say: Wording, policy: str, metric: str, phase: int) -> str:
    variant = name_of(phase, policy)
    known = variant in run.variants
    return shown(saving(run, variant, metric)) if known else missing(run, say)


def issues(run: StudyRun, say: Wording) -> Table:
    """Sections 4.1-4.3: each repeated call, and what leaving it out saves."""
    title, columns = headed(
        say, "issues", "section", "problem", "operation", "reported", "saves1", "saves2"
    )
    rows = []
    for issue in figures().issue:
        policy = SWITCHES[issue.id]
        metric = f"{issue.operation}_ms"
        cells = _per_phase(run, lambda phase, p=policy, m=metric: _saved(run, say, p, m, phase))  # type: ignore[misc]
        rows.append(
            (issue.section, say(f"issue.{issue.id}"), say(f"operation.{issue.operation}"),
             span(issue.cost), *cells)
        )  # fmt: skip
    return Table(
        id="issues", section="4.1–4.3", title=title, columns=columns, rows=tuple(rows),
        note=say("issues.note"),
    )  # fmt: skip


def sums(run: StudyRun, say: Wording) -> Table:
    """Section 4.4: the report's sums beside what leaving everything out saves."""
    title, columns = headed(say, "sums", "operation", "reported_sum", "countable", "best1", "best2")
    rows = []
    for total in figures().sum:
        metric = f"{total.operation}_ms"
        mine = [issue for issue in figures().issue if issue.operation == total.operation]
        countable = [issue for issue in mine if issue.id != "snapshot_clone"]
        low, high = (math.fsum(issue.cost[end] for issue in countable) for end in (0, 1))
        cells = _per_phase(run, lambda phase, m=metric: _all_saved(run, say, m, phase))  # type: ignore[misc]
        rows.append(
            (say(f"operation.{total.operation}"), span(total.total), span((low, high)), *cells)
        )
    return Table(
        id="sums", section="4.4", title=title, columns=columns, rows=tuple(rows),
        note=say("sums.note"),
    )  # fmt: skip


def _all_saved(run: StudyRun, say: Wording, metric: str, phase: int) -> str:
    """What the switches of one operation save when their savings are added pair by pair."""
    policies = dict.fromkeys(
        SWITCHES[issue.id] for issue in figures().issue if f"{issue.operation}_ms" == metric
    )
    names = [name_of(phase, policy) for policy in policies]
    if not all(name in run.variants for name in names):
        return missing(run, say)
    base = run.variants[name_of(phase, BASE)]
    differences = [
        math.fsum(
            before.metrics[metric] - run.variants[name].replications[place].metrics[metric]
            for name in names
        )
        for place, before in enumerate(base.own())
    ]
    return shown(t_interval(differences, unit="ms"))


def monitored(run: StudyRun, say: Wording) -> Table:
    """Section 8.1: the five metrics under every variant."""
    return _metric_table(run, say, "monitored", "8.1", MONITORED)


def percentiles(run: StudyRun, say: Wording) -> Table:
    """Latency percentiles of the three operations under every variant."""
    names = tuple(f"{metric}_p{percent}" for metric in METRICS for percent in (50, 95, 99))
    return _metric_table(run, say, "percentiles", "8.1", names)


def _metric_table(
    run: StudyRun, say: Wording, table: str, section: str, metrics: Sequence[str]
) -> Table:
    rows = []
    for name, variant in run.variants.items():
        if name.startswith("phase"):
            rows.append((name, *(shown(variant.estimate(metric)) for metric in metrics)))
    return Table(
        id=table,
        section=section,
        title=say(f"{table}.title"),
        columns=(say("column.variant"), *(say(f"metric.{metric}") for metric in metrics)),
        rows=tuple(rows),
        note=say(f"{table}.note"),
    )


def safety(run: StudyRun, say: Wording) -> Table:
    """Violations per variant; zero is printed with its upper bound."""
    title, columns = headed(say, "safety", "variant", "jobs", "violations", "rate", "cuts")
    rows = []
    for name, variant in run.variants.items():
        seen = {rule: count for rule, count in violations_of(variant).items() if count}
        jobs = jobs_of(variant)
        told = ", ".join(f"{rule}: {count}" for rule, count in sorted(seen.items()))
        rate = (
            counted(sum(seen.values()) * 100_000 / max(1, jobs))
            if seen
            else f"0 (≤ {counted(upper_bound_per_100k(variant))})"
        )
        rows.append((name, f"{jobs:,}", told or "0", rate, _cuts_differ(run, name)))
    return Table(
        id="safety", section="7", title=title, columns=columns, rows=tuple(rows),
        note=say("safety.note"),
    )  # fmt: skip


def _cuts_differ(run: StudyRun, variant: str) -> str:
    """How many cuts are not those of the base (I14), of how many."""
    changes = cut_changes(run, variant)
    if not changes:
        return DASH
    differing, compared = (sum(column) for column in zip(*changes, strict=True))
    return f"{differing:,} / {compared:,}"
