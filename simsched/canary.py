"""
The canary: a share of the sessions runs another policy on the same instance.

Who belongs to the share is a keyed hash of the session's id: the same on every instance and after
every restart, and as good as independent of everything else about the session. A canary may differ
from the base in the fields that are `per session`; the others are one truth for the whole cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from simsched.chance import below, key_of, mix
from simsched.errors import ConfigError
from simsched.policy import FIELDS, Policy

BASE: Final = "base"
CANARY: Final = "canary"
VARIANTS: Final = (BASE, CANARY)
"""What the two groups of sessions are called in metrics and recordings."""

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The other policy, and the sessions per million that run it."""

    policy: Policy
    share_ppm: int

    def takes(self, session_id: str) -> bool:
        """Whether a session is one of the share."""
        return _place(session_id) < self.share_ppm

    def variant(self, session_id: str) -> str:
        """`base` or `canary`."""
        return CANARY if self.takes(session_id) else BASE


@lru_cache(maxsize=1 << 14)
def _place(session_id: str) -> int:
    """A session's place among a million; it is asked for many times a job."""
    return below(mix(key_of("canary", session_id)), MILLION)


def canary_of(base: Policy, policy: Policy, share: float) -> Canary:
    """
    A canary beside a base policy.

    Args:
        base: what the other sessions run.
        policy: what the share runs.
        share: of the sessions, in [0, 1].

    Raises:
        ConfigError: the two differ in a field that all sessions of a cell have in common.

    """
    if not 0 <= share <= 1:
        raise ConfigError("canary", "share", f"a share between 0 and 1, not {share}")
    for name, entry in FIELDS.items():
        if entry.metadata["cell"] and getattr(base, name) != getattr(policy, name):
            raise ConfigError(
                "canary", name,
                "a canary may differ only in fields per session (`simsched policy show` tells "
                "which); this one is per cell",
            )  # fmt: skip
    return Canary(policy=policy, share_ppm=round(share * MILLION))
