"""Every order of two creations of one request: what each policy lets happen."""

from __future__ import annotations

import pytest

from simsched.experiments.interleaving import Exploration, explore
from simsched.presets import PRESETS


@pytest.mark.parametrize("policy", ["published", "published+2s", "safe"])
def test_no_order_gives_two_jobs_while_the_lock_is_waited_for(policy: str) -> None:
    """With the look at the binding under the lock, or one claim, all orders end in one job."""
    found = explore(PRESETS[policy])
    assert found.exhausted
    assert (found.doubling, found.shortest) == (0, None)


@pytest.mark.parametrize("policy", ["published+2", "stage1", "stage2", "stage3"])
def test_without_the_second_look_an_order_gives_two_jobs(policy: str) -> None:
    """Proposal 2 as written doubles as soon as both have looked before either has bound."""
    found = explore(PRESETS[policy])
    assert found.exhausted
    assert 0 < found.doubling < found.orders
    assert found.shortest is not None
    assert found.shortest.doubles


def shortest_of_proposal_2() -> Exploration:
    return explore(PRESETS["published+2"])


def test_the_shortest_order_is_told_move_by_move() -> None:
    """It names who did what with which reply: two empty looks, two locks one after the other."""
    found = shortest_of_proposal_2().shortest
    assert found is not None
    assert found.switches == 2
    assert found.jobs == ("job-A", "job-B")
    looks = [move for move in found.moves if move.command == "GET bind"]
    assert [(move.actor, move.reply) for move in looks] == [("A", "nil"), ("B", "nil")]
    locks = [move for move in found.moves if move.command == "SET lock NX"]
    assert [(move.actor, move.reply) for move in locks] == [("B", "OK"), ("A", "OK")]


def test_a_lock_timeout_doubles_even_as_published() -> None:
    """Who waits for the lock in vain falls through to phase 1 and makes a job of its own (B3)."""
    found = explore(PRESETS["published"], lock_timeouts=True)
    assert found.exhausted
    assert found.doubling > 0


def test_one_claim_needs_no_lock_and_survives_any_wait() -> None:
    """The safe scheme is one operation each, so there are two orders and no timeout to lose."""
    found = explore(PRESETS["safe"], lock_timeouts=True)
    assert (found.orders, found.doubling) == (2, 0)


def test_the_exploration_says_when_it_gave_up() -> None:
    """A bound that is too small is not taken for a proof."""
    found = explore(PRESETS["published"], limit=10)
    assert found.orders == 10
    assert not found.exhausted


def test_exploring_again_gives_the_same() -> None:
    """No order depends on chance or on earlier explorations."""
    assert shortest_of_proposal_2() == shortest_of_proposal_2()
