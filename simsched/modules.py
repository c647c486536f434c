"""
Which services a job needs: pipeline flags and feature flags, expanded over module dependencies.

The tables are the rules (domain: module expansion). Expansion is depth first, each module once,
after what it depends on; a cycle in the table is an error that the caller answers by selecting on
features alone. This module knows no nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from simsched.errors import SimschedError

ASR: Final = "asr"
NMT: Final = "nmt"
TTS: Final = "tts"
TONE: Final = "tone"
SEMANTIC: Final = "semantic"

CORE_TYPES: Final = (ASR, NMT, TTS)
"""The service types that pools count and that make a node useful at all."""

SERVICE_TYPES: Final = (ASR, NMT, TTS, TONE, SEMANTIC)
"""Every service type of the wire, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One step of processing: the model that does it ("" for the core ones) and what it needs."""

    model: str = ""
    needs: tuple[str, ...] = ()


MODULES: Final[Mapping[str, Module]] = {
    ASR: Module(),
    NMT: Module(),
    TTS: Module(),
    "emotion_detection": Module(model="emotion-xlm-r", needs=(ASR,)),
    "speaker_identification": Module(model="speaker-id-ecapa"),
    "voice_cloning": Module(model="vc-model-v1", needs=("speaker_identification",)),
    "speech_rate_detection": Module(model="sr-d-v1", needs=(ASR,)),
    "speech_rate_control": Module(model="tts-vocoder-v1", needs=("speech_rate_detection", TTS)),
    "persona_adaptation": Module(model="persona-style-transformer", needs=(ASR,)),
}
"""Module -> model and dependencies."""

FEATURE_MODULES: Final[Mapping[str, str]] = {
    "emotion_detection": "emotion_detection",
    "voice_style_detection": "voice_cloning",
    "speech_rate_detection": "speech_rate_detection",
    "speech_rate_control": "speech_rate_control",
    "speaker_identification": "speaker_identification",
    "persona_adaptation": "persona_adaptation",
}
"""Feature flag of the wire -> module that it asks for."""

TONE_MODELS: Final = ("tone", "speaker", "voice")
"""A model with one of these in its name needs the service type `tone`."""


class ExpansionError(SimschedError):
    """The module table asks for a module that is missing, or that needs itself."""


def expand(names: Iterable[str], table: Mapping[str, Module] = MODULES) -> tuple[str, ...]:
    """
    The modules asked for and everything they need, each after what it needs.

    Raises:
        ExpansionError: a module is not in the table, or the table has a cycle.

    """
    done: dict[str, None] = {}
    for name in names:
        _visit(name, (), done, table)
    return tuple(done)


def _visit(
    name: str, path: tuple[str, ...], done: dict[str, None], table: Mapping[str, Module]
) -> None:
    if name in path:
        raise ExpansionError(f"modules need each other: {' -> '.join((*path, name))}")
    if name in done:
        return
    if name not in table:
        raise ExpansionError(f"no such module: {name}")
    for needed in table[name].needs:
        _visit(needed, (*path, name), done, table)
    done[name] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a job asks of a node: service types and models, each in a fixed order."""

    types: tuple[str, ...]
    models: tuple[str, ...]


def job_needs(
    pipeline: Mapping[str, bool],
    features: Iterable[str] = (),
    *,
    two_level: bool,
    table: Mapping[str, Module] = MODULES,
) -> Needs:
    """
    Service types and models that a job needs.

    Args:
        pipeline: `use_asr`, `use_nmt`, `use_tts`, `use_tone` by name; a missing one is off.
            `use_semantic` is not read: the reference removes it and then adds the type for
            every job under two-level scheduling, for none otherwise.
        features: feature flags that are on; unknown ones are ignored, as on the wire.
        two_level: whether pools are in use.
        table: the modules.

    Raises:
        ExpansionError: the table is broken; the caller selects by features only.

    """
    wanted = (FEATURE_MODULES[name] for name in features if name in FEATURE_MODULES)
    modules = expand((*CORE_TYPES, *wanted), table)
    models = tuple(table[name].model for name in modules if table[name].model)
    asked = {name: pipeline.get(f"use_{name}", False) for name in SERVICE_TYPES}
    asked[TONE] |= any(part in model for model in models for part in TONE_MODELS)
    asked[SEMANTIC] = two_level
    return Needs(types=tuple(name for name in SERVICE_TYPES if asked[name]), models=models)
