"""
The engine `command`: any program that reads a WAV file and prints a result as JSON.

    stdin    a WAV file, 16 kHz, one channel, 16 bits
    stdout   {"text_asr": "...", "text_translated": "...", "tts_audio": "BASE64"}
    argv     {src} and {tgt} stand for the languages; so do SIMSCHED_SRC_LANG, SIMSCHED_TGT_LANG,
             SIMSCHED_JOB_ID, SIMSCHED_SESSION_ID and SIMSCHED_UTTERANCE in the environment

One process per job, in a process group of its own: when the job is cancelled, takes too long or
the program dies, the group is killed, children included. No shell is involved, and a language
never stands where it could be read as an option. A program that fails may print
`{"error": {"code": "...", "message": "..."}}`; else the end of its stderr is the message.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from simsched.live.engine_results import TEXT_MAX, EngineFailure, EngineResult
from simsched.live.wav import wav_bytes
from simsched.messages import ErrorCode, JobAssign, ServiceTimings

OUTPUT_BYTES_MAX: Final = 32 << 20
"""More output than this is no result."""

_READ_BYTES: Final = 1 << 16
_FAILED: Final = "PROCESSING_ERROR"


class _Trouble(msgspec.Struct):
    code: str = _FAILED
    message: str = "the program says no more"
    details: Any = None


class _Printed(msgspec.Struct):
    """What a program prints; fields that it does not know are ignored."""

    text_asr: str = ""
    text_translated: str = ""
    tts_audio: bytes = b""
    tts_format: str = "pcm16"
    service_timings: ServiceTimings | None = None
    language_probability: float | None = None
    language_probabilities: dict[str, float] | None = None
    error: _Trouble | None = None


class CommandEngine:
    """
    Runs a program for every job.

    Args:
        words: the program and its arguments.
        timeout_s: how long it may take, in seconds.

    """

    formats: Final = ("pcm16",)

    def __init__(self, words: Sequence[str], *, timeout_s: float) -> None:
        self._words = tuple(words)
        self._timeout_s = timeout_s
        self._decode = msgspec.json.Decoder(_Printed).decode

    async def run(self, job: JobAssign) -> EngineResult:
        process = await self._start(job)
        try:
            async with asyncio.timeout(self._timeout_s):
                printed, complaint = await _talk(process, wav_bytes(job.audio, job.sample_rate))
                status = await process.wait()
        except TimeoutError:
            text = f"{self._words[0]} took longer than {self._timeout_s:g} s"
            raise EngineFailure(ErrorCode.JOB_TIMEOUT, text) from None
        finally:
            await _end(process)
        return self._result(printed, complaint, status)

    async def _start(self, job: JobAssign) -> Process:
        if job.src_lang.startswith("-") or job.tgt_lang.startswith("-"):
            raise EngineFailure(ErrorCode.UNSUPPORTED_FEATURE, "not a language")
        words = [
            word.replace("{src}", job.src_lang).replace("{tgt}", job.tgt_lang)
            for word in self._words
        ]
        try:
            return await asyncio.create_subprocess_exec(
                *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=_environment(job),
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            text = f"{words[0]}: {error.strerror or error}"
            raise EngineFailure(ErrorCode.MODEL_NOT_AVAILABLE, text) from None

    def _result(self, printed: bytes, complaint: str, status: int) -> EngineResult:
        try:
            answer = self._decode(printed) if printed.strip() or not status else None
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            if not status:
                text = f"{self._words[0]} printed no result: {error}"
                raise EngineFailure(_FAILED, text[:TEXT_MAX]) from None
            answer = None
        if answer is not None and answer.error is not None:
            trouble = answer.error
            raise EngineFailure(trouble.code, trouble.message[:TEXT_MAX], trouble.details)
        if answer is None or status:
            text = f"{self._words[0]} ended with {status}"
            raise EngineFailure(_FAILED, f"{text}: {complaint}" if complaint else text)
        return EngineResult(
            text_asr=answer.text_asr,
            text_translated=answer.text_translated,
            tts_audio=answer.tts_audio,
            tts_format=answer.tts_format,
            timings=answer.service_timings,
            language_probability=answer.language_probability,
            language_probabilities=answer.language_probabilities,
        )


def _environment(job: JobAssign) -> Mapping[str, str]:
    return {
        **os.environ,
        "SIMSCHED_SRC_LANG": job.src_lang,
        "SIMSCHED_TGT_LANG": job.tgt_lang,
        "SIMSCHED_JOB_ID": job.job_id,
        "SIMSCHED_SESSION_ID": job.session_id,
        "SIMSCHED_UTTERANCE": str(job.utterance_index),
    }


async def _talk(process: Process, sound: bytes) -> tuple[bytes, str]:
    """Feed a program and hear it out: what it printed, and the end of what it complained about."""
    async with asyncio.TaskGroup() as group:
        printed = group.create_task(_output(process))
        complained = group.create_task(_complaint(process))
        group.create_task(_feed(process, sound))
    output = printed.result()
    if output is None:
        raise EngineFailure(_FAILED, f"the program printed over {OUTPUT_BYTES_MAX >> 20} MiB")
    return output, complained.result()


async def _feed(process: Process, sound: bytes) -> None:
    """A program need not read its input to the end."""
    assert process.stdin is not None
    with suppress(ConnectionError):
        process.stdin.write(sound)
        await process.stdin.drain()
    process.stdin.close()
    with suppress(ConnectionError):
        await process.stdin.wait_closed()


async def _output(process: Process) -> bytes | None:
    """All that it prints; None once that is too much."""
    assert process.stdout is not None
    held = bytearray()
    while piece := await process.stdout.read(_READ_BYTES):
        held += piece
        if len(held) > OUTPUT_BYTES_MAX:
            _kill(process)
            return None
    return bytes(held)


async def _complaint(process: Process) -> str:
    """The last lines of its stderr, as one."""
    assert process.stderr is not None
    held = b""
    while piece := await process.stderr.read(_READ_BYTES):
        held = (held + piece)[-4 * TEXT_MAX :]
    return " ".join(held.decode("utf-8", "replace").split())[-TEXT_MAX:]


def _kill(process: Process) -> None:
    """The program and what it started: the group lives as long as one of them does."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: Process) -> None:
    """Leave nothing behind; after a normal end there is nothing left to kill."""
    if process.returncode is None or not _heard_out(process):
        _kill(process)
        await asyncio.shield(process.wait())
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


def _heard_out(process: Process) -> bool:
    """Whether both its pipes came to their end: while one is open, a child still holds it."""
    return all(pipe is not None and pipe.at_eof() for pipe in (process.stdout, process.stderr))
