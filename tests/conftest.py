"""
Hypothesis profiles: repeatable by default, searching on demand (SIMSCHED_HYPOTHESIS=deep).

Neither profile knows a deadline, and slow generation is no failure: how fast the host is says
nothing about a promise.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW_HOST = [HealthCheck.too_slow]

settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=50, suppress_health_check=SLOW_HOST
)
settings.register_profile(
    "deep", deadline=None, max_examples=2_000, print_blob=True, suppress_health_check=SLOW_HOST
)
settings.load_profile(os.environ.get("SIMSCHED_HYPOTHESIS", "default"))
