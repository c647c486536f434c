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


def rfc3339(unix_seconds: int) -> str:
    """
    A moment as people and the wire write it, in UTC: `2030-01-01T00:00:00+00:00`.

    Civil date from a day count by H. Hinnant, "chrono-compatible low-level date algorithms"; the
    core does without `datetime`, which brings the host's clock along.
    """
    days, second = divmod(unix_seconds, 86_400)
    days += 719_468  # from 0000-03-01, so that leap days end a year
    era, day_of_era = divmod(days, 146_097)
    leaps = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leaps) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = era * 400 + year_of_era + (month <= 2)
    hour, rest = divmod(second, 3_600)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{rest // 60:02}:{rest % 60:02}+00:00"
