"""
The checker is checked: every planted fault is found by its recorded schedule, and only with it.

The full search is `python -m tests.mutants`; here the shrunk cases that it has recorded are played.
"""

from __future__ import annotations

import pytest

from simsched.cases import read_case
from simsched.models import keyspace
from simsched.models.hunted import play
from simsched.recovery import Recovery
from tests.mutants.planting import Code, Lua, NotThere, planted
from tests.mutants.searching import CASES
from tests.mutants.table import MUTANTS

LEAST = 20


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found_by_its_case_and_only_with_it(name: str) -> None:
    """The recorded case breaks what it is kept for with the mutant, and nothing without it."""
    mutant, case = MUTANTS[name], read_case(CASES / f"{name}.toml")
    assert case.invariant in mutant.invariants
    with planted(mutant.plants):
        broken = {violation.invariant for violation in play(case).violations}
    assert case.invariant in broken, f"anew: python -m tests.mutants --record --only {name}"
    assert not [v for v in play(case).violations if v.invariant == case.invariant]


def test_there_are_enough_and_each_case_has_its_mutant() -> None:
    assert len(MUTANTS) >= LEAST
    assert {file.stem for file in CASES.glob("*.toml")} == set(MUTANTS)


@pytest.mark.parametrize(
    "plant",
    [
        Lua("claim", "what was never there", ""),
        Lua("claim", "redis.call", ""),
        Code("recovery:Recovery.run", "what was never there", ""),
        Code("recovery:Recovery.nothing", "a", "b"),
    ],
    ids=["gone", "not only once", "gone from a method", "no method"],
)
def test_a_plant_whose_place_is_gone_fails_loudly(plant: Lua | Code) -> None:
    """No mutant dies in silence because the code was rewritten."""
    with pytest.raises(NotThere), planted((plant,)):
        pass


def test_a_plant_leaves_nothing_behind() -> None:
    """After an error, too."""
    before, body = Recovery.node_lost, keyspace.script_body
    plants = (*MUTANTS["no-redispatch"].plants, *MUTANTS["claim-ignores-slots"].plants)

    def fails() -> None:
        assert Recovery.node_lost is not before
        assert "if true then" in keyspace.script_body("claim")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), planted(plants):
        fails()
    assert Recovery.node_lost is before
    assert keyspace.script_body is body
