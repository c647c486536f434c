"""
What a node does with a job: engines, and how one is named on a command line.

Rules:

- an engine is an object with one method, `run`: it takes a job and returns its `EngineResult`;
- it fails by raising `EngineFailure` with a code; any other exception is its own fault and goes
  out as PROCESSING_ERROR, and the node lives on;
- it is cancelled like any task, and then has to let go of what it holds;
- `formats` says which audio it reads; what it does not say is refused with UNSUPPORTED_FEATURE
  before it is asked.

An engine knows no sockets, slots, attempts or schedulers: the node agent does (`node`).
"""

from __future__ import annotations

import asyncio
import importlib
import shlex
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from simsched.audio import actual_format, duration_ns
from simsched.chance import key_of
from simsched.errors import ConfigError, SimschedError
from simsched.live.engine_command import CommandEngine
from simsched.live.engine_results import EngineFailure, EngineResult, said
from simsched.messages import ErrorCode, JobAssign, ServiceTimings
from simsched.models.service import ServiceModel
from simsched.units import MS, SECOND

PCM16: Final = "pcm16"
OPUS: Final = "opus"
COMMAND_TIMEOUT_S: Final = 60.0


class Engine(Protocol):
    """
    One way of doing a job; many jobs may run at once.

    A class may also have `formats: tuple[str, ...]`, the audio that it reads; without it that is
    `("pcm16",)`: 16 kHz, one channel, 16 bits. Add `"opus"` if it takes the protocol's Opus
    packets apart by itself. A method `async def close()` is awaited when the node leaves.
    """

    async def run(self, job: JobAssign) -> EngineResult:
        """
        Recognise, translate and speak.

        Raises:
            EngineFailure: the job cannot be done; its code goes to the client.

        """


class EchoEngine:
    """Answers at once with how much audio it got."""

    formats: Final = (PCM16, OPUS)

    async def run(self, job: JobAssign) -> EngineResult:
        text = f"{len(job.audio)} bytes of {audio_format(job)}"
        return EngineResult(text_asr=text, text_translated=text)


class SleepEngine:
    """
    Takes as long as the simulator's nodes do, and says nothing new.

    The time is a function of `seed`, session, utterance, language and the length of the audio, by
    the same law as in a simulation: the same job takes as long on any node of the same speed.
    """

    formats: Final = (PCM16, OPUS)

    def __init__(self, service: ServiceModel, *, speed: float = 1.0, seed: int = 1) -> None:
        if not speed > 0:
            raise ConfigError("node", "speed", f"must be above 0, not {speed:g}")
        self._service = service
        self._speed = speed
        self._run_key = key_of("run", seed, 0)

    async def run(self, job: JobAssign) -> EngineResult:
        times = self._service.times(
            self._run_key,
            key_of("session", job.session_id),
            job.utterance_index,
            job.tgt_lang,
            duration_ns(audio_format(job), job.audio) // MS,
            speed=self._speed,
        )
        await asyncio.sleep(times.total_ns / SECOND)
        return EngineResult(
            text_asr=f"utterance {job.utterance_index}",
            text_translated=f"utterance {job.utterance_index} in {job.tgt_lang}",
            timings=ServiceTimings(
                asr_ms=times.asr_ns // MS,
                nmt_ms=times.nmt_ns // MS,
                tts_ms=times.tts_ns // MS,
                total_ms=times.total_ns // MS,
            ),
        )


def audio_format(job: JobAssign) -> str:
    """What the job's audio is: clients that stream PCM are called "opus" all the same."""
    return actual_format(job.audio_format, job.audio)


def formats_of(engine: Engine) -> tuple[str, ...]:
    """The audio that an engine reads."""
    return tuple(getattr(engine, "formats", (PCM16,)))


async def answer(engine: Engine, job: JobAssign) -> EngineResult | EngineFailure:
    """What an engine makes of a job, be it a failure; cancelling it cancels the engine."""
    form = audio_format(job)
    if job.audio and form not in formats_of(engine):
        return EngineFailure(
            ErrorCode.UNSUPPORTED_FEATURE, f"{form} audio: this node reads {formats_of(engine)[0]}"
        )
    try:
        result = await engine.run(job)
    except EngineFailure as failure:
        return failure
    except Exception as error:
        return EngineFailure("PROCESSING_ERROR", said(error))
    if not isinstance(result, EngineResult):
        return EngineFailure("PROCESSING_ERROR", f"the engine returned a {type(result).__name__}")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """
    What a command line says of an engine.

    Attributes:
        command: the program of `command`, as a shell would write it; no shell reads it.
        timeout_s: how long `command` may take.
        speed: how many times faster than the model `sleep` is.
        service: a TOML file with a `[service]` or `[scenario.service]` table, for `sleep`.
        seed: of the draws of `sleep`.

    """

    command: str = ""
    timeout_s: float = COMMAND_TIMEOUT_S
    speed: float = 1.0
    service: Path | None = None
    seed: int = 1


def engine_named(name: str, options: EngineOptions | None = None) -> Engine:
    """
    The engine that `--engine` names: `echo`, `sleep`, `command`, `python:module:Class`.

    Raises:
        ConfigError: no such engine, or it lacks what it needs.

    """
    made = _ENGINES.get(name)
    if made is not None:
        return made(options or EngineOptions())
    if name.startswith("python:"):
        return _python(name)
    known = ", ".join(_ENGINES)
    raise ConfigError("node", "engine", f"{known} or python:module:Class, not {name!r}")


def _sleep(options: EngineOptions) -> Engine:
    return SleepEngine(_service(options.service), speed=options.speed, seed=options.seed)


def _service(path: Path | None) -> ServiceModel:
    if path is None:
        return ServiceModel()
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), "", error.strerror or str(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", f"not TOML: {error}") from None
    scenario = table.get("scenario")
    inner = (scenario if isinstance(scenario, Mapping) else table).get("service", {})
    if not isinstance(inner, Mapping):
        raise ConfigError(str(path), "service", "must be a table of keys")
    return ServiceModel.parse(inner, f"{path}: service")


def _command(options: EngineOptions) -> Engine:
    try:
        words = shlex.split(options.command)
    except ValueError as error:
        raise ConfigError("node", "command", f"{options.command!r}: {error}") from None
    if not words:
        raise ConfigError("node", "command", "the engine `command` needs --command 'PROGRAM ARG'")
    if not options.timeout_s > 0:
        raise ConfigError("node", "timeout", f"must be above 0, not {options.timeout_s:g}")
    return CommandEngine(words, timeout_s=options.timeout_s)


_ENGINES: Final[Mapping[str, Callable[[EngineOptions], Engine]]] = {
    "echo": lambda _options: EchoEngine(),
    "sleep": _sleep,
    "command": _command,
}


def _python(name: str) -> Engine:
    """An engine of somebody's own; a module beside the working directory is found too."""
    _, _, place = name.partition(":")
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise ConfigError("node", "engine", f"written python:module:Class, not {name!r}")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module_name), attribute)()
    except SimschedError:
        raise
    except Exception as error:
        raise ConfigError("node", "engine", f"{name}: {said(error)}") from None
    if not callable(getattr(made, "run", None)):
        raise ConfigError("node", "engine", f"{name}: has no method `async def run(self, job)`")
    return cast("Engine", made)


__all__ = [
    "EchoEngine",
    "Engine",
    "EngineFailure",
    "EngineOptions",
    "EngineResult",
    "SleepEngine",
    "answer",
    "audio_format",
    "engine_named",
    "formats_of",
]
