"""
From what a node says of itself when it registers to what the registry keeps of it.

Pure. Refused are a capability schema other than 2.0 and, unless CPUs will do, a node without a GPU
(domain 8.2); a node that names no schema is let in, because clients and nodes older than the schema
exist. What a node leaves out is taken from what else it says:

- services from the types that it declares;
- pairs of languages from its models, else from what it recognises and speaks.
"""

from __future__ import annotations

from typing import Final

from simsched.languages import LanguageCapabilities, NmtCapability, Pair
from simsched.live.refusals import BAD_SCHEMA, NO_GPU, Refusal
from simsched.messages import LanguageCapabilities as DeclaredLanguages
from simsched.messages import LanguagePair, NodeRegister, ServiceStatus
from simsched.modules import FEATURE_MODULES
from simsched.nodes import SLOTS_DEFAULT, InstalledService, NodeRecord

SCHEMA: Final = "2.0"

SLOTS_MAX: Final = 10_000
"""A node that claims more is believed this much."""

TAKES_RETRIES: Final = "takes_retries"
"""The advanced feature of nodes that take a (session, utterance) again (domain 1.6)."""


def refusal_of(message: NodeRegister, *, needs_gpu: bool = True) -> Refusal | None:
    """Why a node is not let in; None if it is."""
    if message.capability_schema_version not in (None, "", SCHEMA):
        return BAD_SCHEMA
    return NO_GPU if needs_gpu and not message.hardware.gpus else None


def record_of(message: NodeRegister, node_id: str, now_ns: int) -> NodeRecord:
    """The registry's record of a node that registers now."""
    advanced = message.advanced_features or ()
    return NodeRecord(
        node_id=node_id,
        ordinal=0,
        registered_ns=now_ns,
        last_heartbeat_ns=now_ns,
        slots=min(SLOTS_DEFAULT if message.slots is None else message.slots, SLOTS_MAX),
        has_gpu=bool(message.hardware.gpus),
        accepts_public_jobs=message.accept_public_jobs,
        services=_services(message),
        ready_types=tuple(entry.type for entry in message.capability_by_type if entry.ready),
        languages=_languages(message),
        features=tuple(
            name for name in FEATURE_MODULES if getattr(message.features_supported, name)
        ),
        takes_retries=TAKES_RETRIES in advanced,
    )


def _services(message: NodeRegister) -> tuple[InstalledService, ...]:
    if message.installed_services is None:
        return tuple(
            InstalledService(
                service_id=entry.type,
                type=entry.type,
                status=ServiceStatus.RUNNING if entry.ready else ServiceStatus.STOPPED,
            )
            for entry in message.capability_by_type
        )
    return tuple(
        InstalledService(service_id=one.service_id, type=one.type, status=one.status)
        for one in message.installed_services
    )


def _languages(message: NodeRegister) -> LanguageCapabilities:
    said = message.language_capabilities or DeclaredLanguages()
    heard, spoken = said.asr_languages or (), said.tts_languages or ()
    pairs = _pairs(said.supported_language_pairs)
    translates = pairs or said.nmt_capabilities or len(said.semantic_languages or ()) > 1
    if not translates:
        modelled = tuple(
            (model.src_lang, model.tgt_lang)
            for model in message.installed_models
            if model.src_lang and model.tgt_lang
        )
        pairs = modelled or tuple((a, b) for a in heard for b in spoken if a != b)
    return LanguageCapabilities(
        asr=heard or tuple(dict.fromkeys(source for source, _ in pairs)),
        tts=spoken or tuple(dict.fromkeys(target for _, target in pairs)),
        semantic=said.semantic_languages or (),
        nmt=tuple(
            NmtCapability(
                rule=model.rule,
                languages=model.languages,
                supported_pairs=_pairs(model.supported_pairs),
                blocked_pairs=_pairs(model.blocked_pairs),
            )
            for model in said.nmt_capabilities or ()
        ),
        declared_pairs=pairs,
    )


def _pairs(declared: tuple[LanguagePair, ...] | None) -> tuple[Pair, ...]:
    return tuple((pair.src, pair.tgt) for pair in declared or ())
