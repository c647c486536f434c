"""Time and size units. All time in simsched is a whole number of nanoseconds."""

from __future__ import annotations

from typing import Final

US: Final = 1_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND

MASK64: Final = (1 << 64) - 1


def ns_from_ms(milliseconds: float) -> int:
    """Milliseconds as whole nanoseconds, rounded to the nearest."""
    return round(milliseconds * MS)


def ms_from_ns(nanoseconds: int | float) -> float:
    """Nanoseconds as milliseconds, for people to read."""
    return nanoseconds / MS
