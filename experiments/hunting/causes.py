"""Findings by what broke and how: the same breach with other names and numbers is the same."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from simsched.findings import Violation

_NAMES: Final = re.compile(r"\b(?:s|n|i|c|job)-[\w:.\-]+")
_NUMBERS: Final = re.compile(r"\d+")


class Cause(NamedTuple):
    """What broke, and the words that tell one way of breaking it from another."""

    invariant: str
    words: str


def cause_of(violation: Violation) -> Cause:
    """The group that a breach belongs to."""
    rule = (
        violation.text.partition(":")[0] if violation.text.startswith(violation.invariant) else ""
    )
    words = _NUMBERS.sub("#", _NAMES.sub("X", violation.text.removeprefix(rule).lstrip(": ")))
    return Cause(violation.invariant, f"{rule}: {words}" if rule else words)
