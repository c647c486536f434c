"""
`simsched talk`: speak a WAV file to a scheduler, and print what comes back.

The file goes out in chunks of 100 ms at speaking pace, or as fast as the server takes it. What is
printed is for people: one line an event, the translation in words; `--save-tts` keeps its sound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simsched.errors import SimschedError
from simsched.live.client import BYTES_PER_S, Client
from simsched.live.wav import read_wav, wav_bytes
from simsched.messages import (
    AsrPartial,
    Backpressure,
    Error,
    MissingResult,
    ServerToClient,
    SessionCloseAck,
    TranslationResult,
    UiEvent,
    UiEventType,
)

CHUNK_S: Final = 0.1
ANSWER_LIMIT_S: Final = 60.0
"""How long the answers may take, once all is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkOptions:
    """
    What to say, and to whom.

    Attributes:
        fast: do not keep the pace of speech.
        save_tts: write the spoken answer to this WAV file.
        binary: ask for binary audio frames.

    """

    file: Path
    url: str = "ws://127.0.0.1:5010"
    source: str = "en"
    target: str = "zh"
    token: str = ""
    fast: bool = False
    save_tts: Path | None = None
    binary: bool = True


async def main(options: TalkOptions, say: Callable[[str], None]) -> int:
    """
    Speak the file and print the events.

    Returns:
        The exit code: 0, or 1 if an utterance had no answer but an error.

    Raises:
        SimschedError: the file cannot be read, or the server not be reached.

    """
    sound = read_wav(options.file)
    pcm16 = sound.pcm16()
    say(f"{options.file}: {sound.seconds:.1f} s, {sound.rate_hz} Hz, {sound.channels} channel(s)")
    async with Client(
        options.url,
        src=options.source,
        tgt=options.target,
        token=options.token,
        binary=options.binary,
    ) as session:
        say(f"session {session.session_id}, {'binary' if session.binary else 'JSON'} frames")
        listener = _Listener(say)
        async with asyncio.TaskGroup() as group:
            group.create_task(_speak(session, pcm16, fast=options.fast))
            group.create_task(listener.listen(session, len(pcm16) / BYTES_PER_S))
    if options.save_tts is not None:
        listener.save(options.save_tts)
    return 1 if listener.errors or not listener.answers else 0


async def _speak(session: Client, pcm16: bytes, *, fast: bool) -> None:
    """All of it, each chunk when its audio would have been spoken."""
    began_s, size = time.monotonic(), round(CHUNK_S * BYTES_PER_S)
    for start in range(0, len(pcm16), size):
        chunk = pcm16[start : start + size]
        if not fast:
            due_s = began_s + (start + len(chunk)) / BYTES_PER_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        await session.send_audio(chunk)
    await session.finish()


class _Listener:
    """Prints events, counts answers, keeps the speech."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._began_s = time.monotonic()
        self._speech: list[bytes] = []
        self.answers = 0
        self.errors = 0

    async def listen(self, session: Client, audio_s: float) -> None:
        """Until the session has ended."""
        try:
            # Cutting long speech takes the server longer than the speech itself only if it fails.
            async with asyncio.timeout(2 * audio_s + ANSWER_LIMIT_S):
                async for event in session:
                    self._heard(event)
        except TimeoutError:
            text = f"no end within {ANSWER_LIMIT_S:g} s after the speech: gave up waiting"
            raise SimschedError(text) from None

    def _heard(self, event: ServerToClient) -> None:
        if isinstance(event, TranslationResult):
            self.answers += 1
            if event.tts_audio and event.tts_format == "pcm16":
                self._speech.append(event.tts_audio)
        elif isinstance(event, MissingResult):
            self.answers += 1
        elif isinstance(event, Error):
            self.errors += 1
        for line in lines_of(event):
            self._say(f"{time.monotonic() - self._began_s:7.2f} s  {line}")

    def save(self, path: Path) -> None:
        """Write all speech, one answer after another; a file is left alone if there is none."""
        if not self._speech:
            self._say(f"no speech came back: {path} is not written")
            return
        try:
            path.write_bytes(wav_bytes(b"".join(self._speech)))
        except OSError as error:
            raise SimschedError(f"{path}: {error.strerror or error}") from None
        self._say(f"speech of {len(self._speech)} answer(s) in {path}")


def lines_of(event: ServerToClient) -> list[str]:
    """What a person reads of an event; nothing for those that only machines need."""
    if isinstance(event, TranslationResult):
        number = f"#{event.utterance_index}"
        lines = [
            f"{number} heard      {event.text_asr}",
            f"{number} translated {event.text_translated}",
        ]
        if event.tts_audio:
            lines.append(f"{number} speech     {len(event.tts_audio)} bytes of {event.tts_format}")
        return lines
    if isinstance(event, MissingResult):
        return [f"#{event.utterance_index} no result: {event.reason}"]
    if isinstance(event, AsrPartial):
        return [f"#{event.utterance_index} so far     {event.text}"]
    if isinstance(event, UiEvent):
        failed = f": {event.error_code or 'failed'}" if event.event is UiEventType.ERROR else ""
        after = f" after {event.elapsed_ms} ms" if event.elapsed_ms is not None else ""
        return [f"#{event.utterance_index} {event.event.lower()}{failed}{after}"]
    if isinstance(event, Error):
        return [f"error {event.code}: {event.message}"]
    if isinstance(event, Backpressure):
        return [f"the server is behind: {event.action}"]
    return ["session closed"] if isinstance(event, SessionCloseAck) else []
