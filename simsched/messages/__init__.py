"""
The wire protocol as typed values: every message of clients, nodes and the scheduler.

One struct per message, four unions by direction. Both worlds use them: the live server decodes
and encodes them (`simsched.wire`), the simulator only builds and passes them, so building one
does no work beyond storing its fields.

Rules:

- a field without a default, or with a `sent` default, is always written; any other is left out
  while it has its default: an optional null, an empty payload, a cut flag that is false;
- strict here: what is lenient about input lives in `simsched.wire`;
- an id from outside may become part of a key, so its form is part of its type;
- audio is bytes (base64 in JSON); stamps are Unix milliseconds unless named otherwise.

This package does not know sessions, jobs, sockets or who may send what when.
"""

from __future__ import annotations

from typing import TypeAlias

from simsched.messages.client import (
    AsrPartial,
    AudioChunk,
    Backpressure,
    ClientHeartbeat,
    Error,
    MissingResult,
    RoomCreate,
    RoomCreateAck,
    RoomError,
    RoomExpired,
    RoomJoin,
    RoomLeave,
    RoomMembers,
    RoomRawVoicePreference,
    ServerHeartbeat,
    SessionClose,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    TranslationResult,
    TtsPlayEnded,
    TtsStarted,
    UiEvent,
    Utterance,
    WebrtcAnswer,
    WebrtcIce,
    WebrtcOffer,
)
from simsched.messages.codes import (
    BackpressureAction,
    Device,
    ErrorCode,
    MissReason,
    NodeState,
    PairRule,
    RoomErrorCode,
    ServiceStatus,
    ServiceType,
    UiEventType,
    UiStatus,
    user_hint,
)
from simsched.messages.node import (
    JobAck,
    JobAssign,
    JobCancel,
    JobResult,
    JobStarted,
    NodeAsrPartial,
    NodeControl,
    NodeError,
    NodeHeartbeat,
    NodeRegister,
    NodeRegisterAck,
    NodeStatus,
)
from simsched.messages.values import (
    MAX_ID_LENGTH,
    AsrMetrics,
    Capability,
    Extra,
    Features,
    Gpu,
    Hardware,
    InstalledModel,
    InstalledService,
    LanguageCapabilities,
    LanguagePair,
    Message,
    NetworkTimings,
    NmtCapability,
    NodeFailure,
    Participant,
    Pipeline,
    ProcessingMetrics,
    RerunMetrics,
    ResourceUsage,
    RunningJob,
    SegmentsMeta,
    ServiceTimings,
    Value,
    valid_id,
)

ClientMessage: TypeAlias = (
    SessionInit
    | AudioChunk
    | Utterance
    | ClientHeartbeat
    | TtsStarted
    | TtsPlayEnded
    | SessionClose
    | RoomCreate
    | RoomJoin
    | RoomLeave
    | RoomRawVoicePreference
    | WebrtcOffer
    | WebrtcAnswer
    | WebrtcIce
)
"""What a client may send."""

ServerToClient: TypeAlias = (
    SessionInitAck
    | ServerHeartbeat
    | AsrPartial
    | TranslationResult
    | MissingResult
    | UiEvent
    | SessionCloseAck
    | Error
    | RoomCreateAck
    | RoomMembers
    | RoomError
    | RoomExpired
    | WebrtcOffer
    | WebrtcAnswer
    | WebrtcIce
    | Backpressure
)
"""What a client may be sent."""

NodeMessage: TypeAlias = (
    NodeRegister | NodeHeartbeat | JobAck | JobStarted | NodeAsrPartial | JobResult | NodeError
)
"""What a node may send."""

ServerToNode: TypeAlias = NodeRegisterAck | Error | NodeStatus | JobAssign | JobCancel | NodeControl
"""What a node may be sent."""

__all__ = [
    "MAX_ID_LENGTH",
    "AsrMetrics",
    "AsrPartial",
    "AudioChunk",
    "Backpressure",
    "BackpressureAction",
    "Capability",
    "ClientHeartbeat",
    "ClientMessage",
    "Device",
    "Error",
    "ErrorCode",
    "Extra",
    "Features",
    "Gpu",
    "Hardware",
    "InstalledModel",
    "InstalledService",
    "JobAck",
    "JobAssign",
    "JobCancel",
    "JobResult",
    "JobStarted",
    "LanguageCapabilities",
    "LanguagePair",
    "Message",
    "MissReason",
    "MissingResult",
    "NetworkTimings",
    "NmtCapability",
    "NodeAsrPartial",
    "NodeControl",
    "NodeError",
    "NodeFailure",
    "NodeHeartbeat",
    "NodeMessage",
    "NodeRegister",
    "NodeRegisterAck",
    "NodeState",
    "NodeStatus",
    "PairRule",
    "Participant",
    "Pipeline",
    "ProcessingMetrics",
    "RerunMetrics",
    "ResourceUsage",
    "RoomCreate",
    "RoomCreateAck",
    "RoomError",
    "RoomErrorCode",
    "RoomExpired",
    "RoomJoin",
    "RoomLeave",
    "RoomMembers",
    "RoomRawVoicePreference",
    "RunningJob",
    "SegmentsMeta",
    "ServerHeartbeat",
    "ServerToClient",
    "ServerToNode",
    "ServiceStatus",
    "ServiceTimings",
    "ServiceType",
    "SessionClose",
    "SessionCloseAck",
    "SessionInit",
    "SessionInitAck",
    "TranslationResult",
    "TtsPlayEnded",
    "TtsStarted",
    "UiEvent",
    "UiEventType",
    "UiStatus",
    "Utterance",
    "Value",
    "WebrtcAnswer",
    "WebrtcIce",
    "WebrtcOffer",
    "user_hint",
    "valid_id",
]
