"""
The search for the schedule that shows a mutant.

A finding counts if it breaks what the mutant is expected to break, if the same schedule without the
mutant does not show it, and if its cause is none that the core shows by itself in the first
schedules of the hunt (`open_causes`; none where the core keeps its promises).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from simsched.cases import Case, case_text
from simsched.experiments.hunting.causes import Cause, cause_of
from simsched.experiments.hunting.draw import hunted_policy
from simsched.experiments.hunting.search import Hunt
from simsched.experiments.hunting.shrink import shrink
from simsched.models.hunted import Played, play
from tests.mutants.planting import NotThere, planted
from tests.mutants.table import MUTANTS, Mutant

SCHEDULES = 6_000
SEED = 1
CASES = Path(__file__).parent / "cases"
PLAYS_MAX = 400
"""How many smaller candidates are tried for a case that is kept."""


class Seen(NamedTuple):
    """The first schedule that showed a mutant."""

    number: int
    cause: Cause
    case: Case


def open_causes(schedules: int, seed: int = SEED) -> frozenset[Cause]:
    """What the core breaks without any mutant, in the first so many schedules."""
    hunt = Hunt(policy=hunted_policy("safe"), schedules=schedules, seed=seed)
    return frozenset(cause for number in range(schedules) for cause in hunt.play(number)[1].found)


def find(
    mutant: Mutant,
    *,
    schedules: int = SCHEDULES,
    seed: int = SEED,
    known: frozenset[Cause] = frozenset(),
) -> Seen | None:
    """The first schedule of `safe` that shows the mutant and not without it."""
    hunt = Hunt(policy=hunted_policy("safe"), schedules=schedules, seed=seed)
    for number in range(schedules):
        with planted(mutant.plants):
            case, tally = hunt.play(number)
        causes = [
            cause
            for cause in tally.found
            if cause.invariant in mutant.invariants and cause not in known
        ]
        if causes:
            without = hunt.play(number)[1].found
            for cause in causes:
                if cause not in without:
                    return Seen(number, cause, case)
    return None


def smallest(mutant: Mutant, seen: Seen, plays_max: int) -> Case:
    """The case made small: it breaks with the mutant, and not without it."""

    def both(case: Case) -> Played:
        with planted(mutant.plants):
            broken = play(case)
        if any(cause_of(violation) == seen.cause for violation in broken.violations):
            whole = play(case)
            if any(cause_of(violation) == seen.cause for violation in whole.violations):
                return replace(broken, violations=[])
        return broken

    return shrink(seen.case, seen.cause, player=both, plays_max=plays_max)


def look(
    name: str, *, schedules: int, seed: int, known: frozenset[Cause], plays: int
) -> tuple[str, bool]:
    """One mutant's line of the table, and whether it was found; `plays` records its case."""
    mutant = MUTANTS[name]
    try:
        seen = find(mutant, schedules=schedules, seed=seed, known=known)
    except NotThere as error:
        return f"{name:32s} NOT PLANTED: {error}", False
    if seen is None:
        return f"{name:32s} NOT FOUND in {schedules} schedules", False
    size = ""
    if plays:
        case = smallest(mutant, seen, plays)
        CASES.mkdir(exist_ok=True)
        (CASES / f"{name}.toml").write_text(case_text(case), encoding="utf-8")
        size = f"  [{case.events} events]"
    words = seen.cause.words
    return f"{name:32s} {seen.number + 1:6d}  {seen.cause.invariant:12s}  {words}{size}", True
