"""What messages are made of: ids, numbers with bounds, and the values nested in messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from simsched.messages.codes import Device, PairRule, ServiceStatus, ServiceType

T = TypeVar("T")

MAX_ID_LENGTH: Final = 128
_ID_FORM: Final = r"\A[A-Za-z0-9._:-]+\Z"
_ID_OR_EMPTY_FORM: Final = r"\A[A-Za-z0-9._:-]*\Z"
_matches_id: Final = re.compile(_ID_FORM).match

Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH, pattern=_ID_FORM)]
"""An id or a language: what may become part of a key."""

TraceId = Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH, pattern=_ID_OR_EMPTY_FORM)]
"""An id that the protocol demands but that peers leave empty."""

# The protocol says u64; 63 bits keep every number inside a column of a table.
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Attempt = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Millis = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
# The bounds are there to refuse NaN and infinities, which JSON cannot carry.
Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Size = Count | Number


def valid_id(text: str) -> bool:
    """Whether `text` may become part of a key: 1 to 128 of `A-Z a-z 0-9 . _ : -`."""
    return len(text) <= MAX_ID_LENGTH and _matches_id(text) is not None


def sent(value: T) -> T:
    """A default that is written all the same: `omit_defaults` leaves out plain defaults only."""
    default: Callable[[], T] = lambda: value  # noqa: E731
    field: T = msgspec.field(default_factory=default)
    return field


def _tag(class_name: str) -> str:
    """`SessionInitAck` -> `session_init_ack`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class Value(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Root of what messages are made of. Trees without cycles, so the collector may skip them."""


class Message(Value, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag=_tag):
    """Root of all messages; the tag is the class's name in snake case."""


class Features(Value, kw_only=True, frozen=True):
    """Optional analysis that a session asks for or a node offers."""

    emotion_detection: bool | None = None
    voice_style_detection: bool | None = None
    speech_rate_detection: bool | None = None
    speech_rate_control: bool | None = None
    speaker_identification: bool | None = None
    persona_adaptation: bool | None = None


class Pipeline(Value, kw_only=True, frozen=True, omit_defaults=False):
    """Which services a job goes through; all five are always written."""

    use_asr: bool = True
    use_nmt: bool = True
    use_tts: bool = True
    use_semantic: bool = False
    use_tone: bool = False


class Gpu(Value, kw_only=True, frozen=True):
    """One graphics card."""

    name: str
    memory_gb: Size


class Hardware(Value, kw_only=True, frozen=True):
    """What a node is built of."""

    cpu_cores: Count
    memory_gb: Size
    gpus: tuple[Gpu, ...] | None = None


class RunningJob(Value, kw_only=True, frozen=True):
    """An attempt that a node works on while it registers: only its connection broke."""

    job_id: Id
    attempt_id: Attempt


class InstalledModel(Value, kw_only=True, frozen=True):
    """One model on a node."""

    model_id: str
    kind: str
    version: str = sent("")
    src_lang: str | None = None
    tgt_lang: str | None = None
    dialect: str | None = None
    enabled: bool | None = None


class InstalledService(Value, kw_only=True, frozen=True):
    """One service on a node."""

    service_id: str
    type: ServiceType
    device: Device
    status: ServiceStatus
    version: str | None = None
    model_id: str | None = None
    engine: str | None = None
    mem_mb: Size | None = None
    warmup_ms: Count | None = None
    last_error: str | None = None


class Capability(Value, kw_only=True, frozen=True):
    """Whether a node can do one type of service now."""

    type: ServiceType
    ready: bool
    reason: str | None = None
    ready_impl_ids: tuple[str, ...] | None = None


class LanguagePair(Value, kw_only=True, frozen=True):
    """A direction of translation."""

    src: str
    tgt: str


class NmtCapability(Value, kw_only=True, frozen=True):
    """The language pairs of one translation model."""

    model_id: str
    languages: tuple[str, ...]
    rule: PairRule
    blocked_pairs: tuple[LanguagePair, ...] | None = None
    supported_pairs: tuple[LanguagePair, ...] | None = None


class LanguageCapabilities(Value, kw_only=True, frozen=True):
    """The languages of a node, by service."""

    asr_languages: tuple[str, ...] | None = None
    tts_languages: tuple[str, ...] | None = None
    semantic_languages: tuple[str, ...] | None = None
    nmt_capabilities: tuple[NmtCapability, ...] | None = None
    supported_language_pairs: tuple[LanguagePair, ...] | None = None
    semantic_core_ready: bool | None = None


class ResourceUsage(Value, kw_only=True, frozen=True):
    """How busy a node is; percentages 0 to 100."""

    cpu_percent: Number
    mem_percent: Number
    running_jobs: Count
    gpu_percent: Number | None = None
    gpu_mem_percent: Number | None = None


class RerunMetrics(Value, kw_only=True, frozen=True, rename="camel"):
    """A node's repeats of recognition since it started (cumulative)."""

    total_reruns: Count = 0
    successful_reruns: Count = 0
    failed_reruns: Count = 0
    timeout_reruns: Count = 0
    quality_improvements: Count = 0


class AsrMetrics(Value, kw_only=True, frozen=True, rename="camel"):
    """Superseded by `ProcessingMetrics`."""

    processing_efficiency: Number | None = None


class ProcessingMetrics(Value, kw_only=True, frozen=True, rename="camel"):
    """Seconds of audio per second of work, by service id."""

    service_efficiencies: dict[str, Number] = {}


class ServiceTimings(Value, kw_only=True, frozen=True):
    """Milliseconds of work on the node."""

    asr_ms: Count | None = None
    nmt_ms: Count | None = None
    tts_ms: Count | None = None
    total_ms: Count | None = None


class NetworkTimings(Value, kw_only=True, frozen=True):
    """Milliseconds between the parties; clocks differ, so a value may be negative."""

    web_to_scheduler_ms: Millis | None = None
    scheduler_to_node_ms: Millis | None = None
    node_to_scheduler_ms: Millis | None = None
    scheduler_to_web_ms: Millis | None = None


class Extra(Value, kw_only=True, frozen=True):
    """What a node found out besides the text."""

    emotion: str | None = None
    speech_rate: Number | None = None
    voice_style: str | None = None
    service_timings: ServiceTimings | None = None
    language_probability: Number | None = None
    language_probabilities: dict[str, Number] | None = None
    reason: str | None = None


class SegmentsMeta(Value, kw_only=True, frozen=True):
    """The segments of an utterance; gap and duration in seconds."""

    count: Count | None = None
    max_gap: Number | None = None
    avg_duration: Number | None = None


class NodeFailure(Value, kw_only=True, frozen=True):
    """Why a job failed. `code` is the node's own word; few are codes of ours."""

    code: str
    message: str
    details: Any = None


class Participant(Value, kw_only=True, frozen=True):
    """A member of a room; `joined_at` is RFC 3339."""

    participant_id: str
    session_id: str
    joined_at: str
    display_name: str | None = None
    preferred_lang: str | None = None
    raw_voice_preferences: dict[str, bool] | None = None
