"""What an engine gives back: a result, or a failure with a code. Knows no engine and no socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from simsched.errors import SimschedError
from simsched.messages import ServiceTimings

TEXT_MAX: Final = 500
"""Characters of an error's text that leave the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """
    A job, done. Without any text or speech the client hears that there was silence.

    Attributes:
        tts_audio: the spoken translation, in `tts_format`.
        timings: milliseconds per service; the node measures the total where there are none.
        language_probabilities: for a session whose language is `auto`.

    """

    text_asr: str = ""
    text_translated: str = ""
    tts_audio: bytes = b""
    tts_format: str = "pcm16"
    timings: ServiceTimings | None = None
    language_probability: float | None = None
    language_probabilities: dict[str, float] | None = None


class EngineFailure(SimschedError):
    """
    A job could not be done.

    Args:
        code: what the client is told: one of `simsched.messages.ErrorCode`, or a word of its own.
        message: one line for a person.
        details: of MODEL_NOT_AVAILABLE: `{"service_id": ..., "reason": ...}`.

    """

    def __init__(self, code: str, message: str, details: Any = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = str(code)
        self.message = message
        self.details = details


def said(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:TEXT_MAX] if text else type(error).__name__
