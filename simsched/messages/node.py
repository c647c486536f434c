"""Messages between nodes and the scheduler."""

from __future__ import annotations

from typing import Any

from simsched.messages.codes import NodeState
from simsched.messages.values import (
    AsrMetrics,
    Attempt,
    Capability,
    Count,
    Extra,
    Features,
    Hardware,
    Id,
    InstalledModel,
    InstalledService,
    LanguageCapabilities,
    Message,
    Millis,
    NodeFailure,
    Number,
    Pipeline,
    ProcessingMetrics,
    RerunMetrics,
    ResourceUsage,
    RunningJob,
    SegmentsMeta,
    TraceId,
    sent,
)

# Node -> scheduler


class NodeRegister(Message, kw_only=True, frozen=True):
    """
    A node offers its services; without `node_id` the scheduler names it.

    `slots` is how many jobs it runs at once, `running` what it still works on, `token` who it is;
    the reference's nodes say none of these.
    """

    version: str
    platform: str
    hardware: Hardware
    installed_models: tuple[InstalledModel, ...]
    capability_by_type: tuple[Capability, ...]
    accept_public_jobs: bool
    node_id: Id | None = None
    capability_schema_version: str | None = None
    installed_services: tuple[InstalledService, ...] | None = None
    features_supported: Features = sent(Features())
    advanced_features: tuple[str, ...] | None = None
    language_capabilities: LanguageCapabilities | None = None
    slots: Count | None = None
    running: tuple[RunningJob, ...] | None = None
    token: str | None = None


class NodeHeartbeat(Message, kw_only=True, frozen=True):
    """What a node is and does now; `timestamp` in Unix milliseconds."""

    node_id: Id
    timestamp: Millis
    resource_usage: ResourceUsage
    installed_services: tuple[InstalledService, ...]
    capability_by_type: tuple[Capability, ...]
    installed_models: tuple[InstalledModel, ...] | None = None
    rerun_metrics: RerunMetrics | None = None
    asr_metrics: AsrMetrics | None = None
    processing_metrics: ProcessingMetrics | None = None
    language_capabilities: LanguageCapabilities | None = None


class JobAck(Message, kw_only=True, frozen=True):
    """The node took the job."""

    job_id: Id
    attempt_id: Attempt
    node_id: Id
    session_id: Id
    trace_id: TraceId


class JobStarted(Message, kw_only=True, frozen=True):
    """The node works on the job."""

    job_id: Id
    attempt_id: Attempt
    node_id: Id
    session_id: Id
    trace_id: TraceId


class NodeAsrPartial(Message, kw_only=True, frozen=True, tag="asr_partial"):
    """Text so far; the client gets it as an `AsrPartial`."""

    job_id: Id
    node_id: Id
    session_id: Id
    utterance_index: Count
    text: str
    is_final: bool
    trace_id: TraceId


class JobResult(Message, kw_only=True, frozen=True):
    """How a job ended. `node_completed_at_ms` is by the node's clock."""

    job_id: Id
    attempt_id: Attempt
    node_id: Id
    session_id: Id
    utterance_index: Count
    success: bool
    trace_id: TraceId
    text_asr: str | None = None
    text_translated: str | None = None
    tts_audio: bytes | None = None
    tts_format: str | None = None
    extra: Extra | None = None
    processing_time_ms: Count | None = None
    error: NodeFailure | None = None
    group_id: str | None = None
    part_index: Count | None = None
    node_completed_at_ms: Millis | None = None
    asr_quality_level: str | None = None
    reason_codes: tuple[str, ...] | None = None
    quality_score: Number | None = None
    rerun_count: Count | None = None
    segments_meta: SegmentsMeta | None = None


class NodeError(Message, kw_only=True, frozen=True):
    """Trouble on the node outside any job."""

    node_id: Id
    code: str
    message: str
    details: Any = None


# Scheduler -> node


class NodeRegisterAck(Message, kw_only=True, frozen=True):
    """The node is known under `node_id`."""

    node_id: str
    message: str = sent("registered")
    status: NodeState = sent(NodeState.REGISTERING)


class NodeStatus(Message, kw_only=True, frozen=True):
    """The scheduler's view of the node changed; `timestamp` in Unix seconds."""

    node_id: str
    status: NodeState
    reason: str
    timestamp: Millis


class JobAssign(Message, kw_only=True, frozen=True):
    """One attempt at one job. `attempt_id` starts at 1 and is its fence."""

    job_id: str
    attempt_id: Attempt
    session_id: str
    utterance_index: Count
    src_lang: str
    tgt_lang: str
    pipeline: Pipeline
    audio: bytes
    audio_format: str
    sample_rate: Count
    trace_id: str
    dialect: str | None = sent(None)
    features: Features | None = sent(None)
    enable_streaming_asr: bool = sent(True)
    partial_update_interval_ms: Count = sent(1_000)
    mode: str | None = None
    lang_a: str | None = None
    lang_b: str | None = None
    auto_langs: tuple[str, ...] | None = None
    group_id: str | None = None
    part_index: Count | None = None
    context_text: str | None = None
    padding_ms: Count | None = None
    is_manual_cut: bool = False
    is_pause_triggered: bool = False
    is_timeout_triggered: bool = False


class JobCancel(Message, kw_only=True, frozen=True):
    """The node's answer to this job is no longer wanted."""

    job_id: str
    trace_id: str | None = None
    reason: str | None = None


class NodeControl(Message, kw_only=True, frozen=True):
    """An order to the node itself."""

    command: str
    reason: str | None = None
