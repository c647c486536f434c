"""A store whose calls are told: who asked what, and what came of it."""

from __future__ import annotations

from typing import Any

from simsched.models.faulty_redis import FaultyStore
from simsched.models.story import Line, Story
from simsched.ports import Reply
from simsched.steps import Step
from simsched.telemetry import Operation


class ToldStore(FaultyStore):
    """A store whose calls are told."""

    story: Story

    async def _round_trip(
        self, step: Step, op: Operation, site: int, n: int, action: Any, asked: int
    ) -> Reply:
        self._tell(f"asks Redis: {step.name}", "")
        try:
            reply = await super()._round_trip(step, op, site, n, action, asked)
        except Exception as error:
            self._tell(f"{step.name} failed", str(error))
            raise
        self._tell(f"{step.name} answered", _short(reply))
        return reply

    def _tell(self, what: str, result: str) -> None:
        self.story(Line(self.kernel.now, self.who, what, result))


def _short(reply: object) -> str:
    text = repr(reply).replace("b'", "'")
    return text if len(text) <= 60 else text[:57] + "..."
