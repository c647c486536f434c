"""
Cases that the hunt has found: each goes on breaking what it was kept for, and `safe` does not.

`tests/cases/*.toml` break their own policy and nothing of `safe`. `tests/cases/mended/*.toml` have
broken `safe` itself once.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from simsched.cases import Case, read_case
from simsched.experiments.hunting.draw import hunted_policy
from simsched.models.hunted import play

FOLDER = Path(__file__).parents[1] / "cases"
KEPT = sorted(FOLDER.glob("*.toml"))
MENDED = sorted((FOLDER / "mended").glob("*.toml"))
EVENTS_MAX = 10

BASES = {"duplicate-of-the-cached-binding": ("published+2", "published")}
"""Cases of a proposal's own fault: the design that it changes does not have it."""


def breaks(case: Case) -> bool:
    return any(violation.invariant == case.invariant for violation in play(case).violations)


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_a_found_case_goes_on_breaking_its_policy_and_not_safe(file: Path) -> None:
    """In at most ten events, the same every time; the safe design survives it."""
    case = read_case(file)
    assert case.events <= EVENTS_MAX
    assert breaks(case)
    assert not breaks(structs.replace(case, policy=hunted_policy("safe")))


@pytest.mark.parametrize("name", BASES)
def test_a_fault_of_a_proposal_is_not_in_what_it_changes(name: str) -> None:
    """The cached binding makes the duplicate, and not the faults beside it."""
    case = read_case(FOLDER / f"{name}.toml")
    proposal, base = BASES[name]
    policy = case.policy.replace(f"{proposal},", f"{base},")
    assert policy != case.policy
    assert not breaks(structs.replace(case, policy=policy))


def test_a_dead_owners_slots_need_nothing_but_its_death() -> None:
    """No store that is away, no late call: an instance dies, and its slots stay taken."""
    case = read_case(FOLDER / "slots-of-a-dead-owner.toml")
    assert {fault.kind for fault in case.faults} == {"instance_crash"}
    assert not case.tape
    assert any("its owner died" in violation.text for violation in play(case).violations)


@pytest.mark.parametrize("file", MENDED, ids=lambda file: file.stem)
def test_what_was_mended_in_safe_stays_mended(file: Path) -> None:
    assert not play(read_case(file)).violations
