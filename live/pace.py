"""How fast a client may speak, as the server's `backpressure` has it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from simsched.messages import Backpressure, BackpressureAction

PAUSE_S: Final = 1.0
"""How long an order holds that does not say for how long."""


class Pace:
    """PAUSE and BUSY hold all speech back; SLOW_DOWN lets through no more than is spoken."""

    def __init__(self) -> None:
        self._hold_until_s = 0.0
        self._slow_until_s = 0.0

    def obey(self, order: Backpressure) -> None:
        """Take note of an order; it holds from now."""
        asked_ms = order.resume_after_ms
        until_s = time.monotonic() + (PAUSE_S if asked_ms is None else asked_ms / 1000)
        if order.action is BackpressureAction.SLOW_DOWN:
            self._slow_until_s = max(self._slow_until_s, until_s)
        else:
            self._hold_until_s = max(self._hold_until_s, until_s)

    async def wait(self, speech_s: float) -> None:
        """Return when so many seconds of speech may be sent."""
        left_s = self._hold_until_s - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)
            await self.wait(speech_s)  # the server may have asked for more meanwhile
        elif time.monotonic() < self._slow_until_s:
            await asyncio.sleep(speech_s)
