"""How busy the machine is that a node runs on, from what its operating system says."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

MEMORY_FILE: Final = Path("/proc/meminfo")


class Vitals:
    """The work of this process and of its ended children, since the last look."""

    def __init__(self) -> None:
        self._wall_s, self._busy_s = time.monotonic(), _busy_s()

    def cpu_percent(self) -> float:
        """Their share of all cores, 0 to 100."""
        wall_s, busy_s = time.monotonic(), _busy_s()
        span_s = max(1e-3, wall_s - self._wall_s)
        share = (busy_s - self._busy_s) / span_s / (os.cpu_count() or 1)
        self._wall_s, self._busy_s = wall_s, busy_s
        return min(100.0, max(0.0, 100.0 * share))


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
