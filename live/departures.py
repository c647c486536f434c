"""
What follows a session to the instance where its client goes on with it.

The one that takes it over writes to the one that had it; that one sends after it what its client
had not got yet, final answers as such, so that each is given once. Answers that come later find
nobody here and are passed on by the core. Progress is not sent after anybody: answers make up for
it.
"""

from __future__ import annotations

from collections.abc import Iterable

from simsched import steps
from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.inbox import SendToSession, SessionMoved
from simsched.live.links import LiveLinks
from simsched.messages import MissingResult, TranslationResult
from simsched.scheduler import Scheduler
from simsched.telemetry import OpKind


class Departures:
    """The letters that a move needs, both ways."""

    def __init__(self, scheduler: Scheduler, links: LiveLinks) -> None:
        self._runtime = scheduler.runtime
        self._links = links
        self._entity = key_of("departures", scheduler.runtime.instance_id)

    def tell(self, session_id: str, left: str) -> None:
        """Tell the instance that had a session that its client is here now."""
        if left:
            event = SessionMoved(session_id, self._runtime.instance_id)
            self._runtime.start(self._send(left, [event]), name=f"came from {left}")

    def send_after(self, session_id: str, to: str, messages: Iterable[object]) -> None:
        """Send what a client had not got to where it is now."""
        letters = [letter for letter in map(_letter, messages) if letter is not None]
        own = [letter for letter in letters if letter.session_id == session_id]
        if own:
            self._runtime.start(self._send(to, own), name=f"went to {to}")

    async def _send(self, to: str, letters: Iterable[SendToSession | SessionMoved]) -> None:
        """One by one; what cannot be sent is asked for again by the client."""
        op = self._runtime.begin(OpKind.CONTROL, self._entity, 0)
        try:
            for letter in letters:
                if not await self._links.to_instance(steps.INBOX_APPEND, op, to, letter):
                    break
        except StoreUnavailable:
            self._runtime.telemetry.count("store_unavailable")
        self._runtime.end(op)


def _letter(message: object) -> SendToSession | None:
    """A final answer as a letter; None for anything else."""
    if isinstance(message, TranslationResult):
        job, reason = message.job_id or "", ""
        outcome = "translation_result"
    elif isinstance(message, MissingResult):
        job, reason, outcome = "", str(message.reason), "missing_result"
    else:
        return None
    return SendToSession(
        session_id=message.session_id, message=message, utterance=message.utterance_index,
        language=job.rpartition(":")[2], job=job, outcome=outcome, reason=reason,
    )  # fmt: skip
