"""How busy the machine is that a node runs on, from what its operating system says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

MEMORY_FILE: Final = Path("/proc/meminfo")

SPAN_MIN_S: Final = 1.0
"""Less time than this says nothing: systems count in ticks of 10 ms, and a start is busy."""


class Vitals:
    """The work of this process and of its ended children, since the last look."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._wall_s, self._busy_s = clock_s(), _busy_s()
        self._percent = 0.0

    def cpu_percent(self) -> float:
        """Their share of all cores, 0 to 100; looks that follow too soon repeat the last answer."""
        wall_s, busy_s = self._clock_s(), _busy_s()
        span_s = wall_s - self._wall_s
        if span_s >= SPAN_MIN_S:
            share = (busy_s - self._busy_s) / span_s / (os.cpu_count() or 1)
            self._wall_s, self._busy_s = wall_s, busy_s
            self._percent = min(100.0, max(0.0, 100.0 * share))
        return self._percent


def _busy_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def memory_percent(file: Path = MEMORY_FILE) -> float:
    """Used share of the machine's memory, 0 to 100; 0 where the system does not tell (Linux)."""
    sizes: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            sizes[name] = int(rest.split()[0])
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    return 100.0 * (total - free) / total if total else 0.0
