"""
Cases that the hunt has found: each goes on breaking what it was kept for, and `safe` does not.

`tests/cases/*.toml` break their own policy and nothing of `safe`. `tests/cases/open/*.toml` break
`safe` itself: they wait to be mended, and then move one folder up with `safe` crossed out.
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
OPEN = sorted((FOLDER / "open").glob("*.toml"))
EVENTS_MAX = 10


def breaks(case: Case) -> bool:
    return any(violation.invariant == case.invariant for violation in play(case).violations)


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_a_found_case_goes_on_breaking_its_policy_and_not_safe(file: Path) -> None:
    """In at most ten events, the same every time; the safe design survives it."""
    case = read_case(file)
    assert case.events <= EVENTS_MAX
    assert breaks(case)
    assert not breaks(structs.replace(case, policy=hunted_policy("safe")))


@pytest.mark.xfail(strict=True, reason="found in safe, not mended yet")
@pytest.mark.parametrize("file", OPEN, ids=lambda file: file.stem)
def test_what_is_open_in_safe_is_mended(file: Path) -> None:
    """A case that passes here is no longer open."""
    assert not breaks(read_case(file))
