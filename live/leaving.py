"""`simsched drain`: ask a server's process to leave in good order, and see it go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from simsched.errors import SimschedError

LOOK_S: Final = 0.05


def ask_to_leave(pid: int, wait_s: float, say: Callable[[str], None]) -> int:
    """
    Send SIGTERM, wait for the end.

    Returns:
        The exit code: 0 if it has gone, 1 if it is still there after `wait_s`.

    Raises:
        SimschedError: there is no such process, or it is not ours to ask.

    """
    if pid <= 1:
        raise SimschedError(f"drain: {pid} is no server's process id")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        raise SimschedError(f"drain: there is no process {pid}") from None
    except PermissionError:
        raise SimschedError(f"drain: process {pid} belongs to somebody else") from None
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if not _is_there(pid):
            say(f"process {pid} has left")
            return 0
        time.sleep(LOOK_S)
    say(f"process {pid} is still finishing after {wait_s:g} s")
    return 1


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
