"""Units: what people and the wire read."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from simsched.units import rfc3339


@given(st.integers(0, 4_102_444_800))
def test_civil_time_agrees_with_the_calendar(unix_seconds: int) -> None:
    """Any second until 2100 is written as the standard library writes it."""
    assert rfc3339(unix_seconds) == datetime.fromtimestamp(unix_seconds, UTC).isoformat()
