"""Sizing: the answer is certain, repeatable, and says what it cannot do."""

from __future__ import annotations

import pytest

from simsched.errors import ConfigError
from simsched.experiments.size import size


def silent(_line: str) -> None:
    """Nobody listens."""


def test_the_answer_keeps_the_bound_with_its_whole_interval_and_repeats_itself() -> None:
    """What is called good has the upper end of its p95 below the bound, twice the same."""
    one = size(10, 500, replications=6, say=silent)
    again = size(10, 500, replications=6, say=silent)
    assert one == again
    assert one.best is not None
    assert one.best.p95 is not None
    assert one.best.p95.high < 500
    assert one.command in str(one)
    assert one.command.endswith("--speakers 10 --p95 500 --replications 6")


def test_a_search_as_the_command_line_asks_is_repeated_by_the_command_line() -> None:
    """No option that the command line does not know."""
    found = size(2, 500, say=silent)
    assert found.command == "simsched experiment size --speakers 2 --p95 500"


def test_more_speakers_never_need_fewer_nodes() -> None:
    """Ten times the speakers need more nodes, and every smaller probe was found wanting."""
    few, many = (
        size(10, 500, replications=6, say=silent),
        size(100, 500, replications=6, say=silent),
    )
    assert few.best is not None
    assert many.best is not None
    assert many.best.nodes > few.best.nodes
    # 11 utterances a second of a good second each: two nodes of four slots cannot do it.
    assert many.best.nodes > 2


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("--speakers", {"speakers": 0, "p95_ms": 5}),
        ("--p95", {"speakers": 1, "p95_ms": 0}),
        ("--metric", {"speakers": 1, "p95_ms": 5, "metric": "nonsense"}),
        ("--replications", {"speakers": 1, "p95_ms": 5, "replications": 1}),
    ],
)
def test_bad_input_is_named(key: str, arguments: dict[str, object]) -> None:
    """The wrong key is in the message."""
    with pytest.raises(ConfigError, match=key):
        size(say=silent, **arguments)  # type: ignore[arg-type]
