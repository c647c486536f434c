"""Messages between clients and the scheduler, rooms included."""

from __future__ import annotations

from typing import Any

from simsched.messages.codes import (
    BackpressureAction,
    ErrorCode,
    RoomErrorCode,
    UiEventType,
    UiStatus,
)
from simsched.messages.values import (
    Count,
    Extra,
    Features,
    Id,
    Message,
    Millis,
    NetworkTimings,
    Number,
    Participant,
    Pipeline,
    SegmentsMeta,
    ServiceTimings,
    TraceId,
    sent,
)

# Client -> scheduler


class SessionInit(Message, kw_only=True, frozen=True):
    """
    Open a session. `src_lang` may be "auto"; `mode` is one_way or two_way_auto.

    Ours, unknown to the reference's clients: `accept_binary_frame` asks for binary audio frames,
    `token` says who the client is, `accept_resume` asks for a key with which a later
    `session_init` goes on with the session after a lost socket (`resume_session_id` and
    `resume_token`).
    """

    client_version: str
    platform: str
    src_lang: Id
    tgt_lang: Id
    dialect: str | None = None
    features: Features | None = None
    pairing_code: str | None = None
    tenant_id: Id | None = None
    mode: str | None = None
    lang_a: Id | None = None
    lang_b: Id | None = None
    auto_langs: tuple[Id, ...] | None = None
    enable_streaming_asr: bool | None = None
    partial_update_interval_ms: Count | None = None
    trace_id: TraceId | None = None
    accept_binary_frame: bool | None = None
    accept_resume: bool | None = None
    token: str | None = None
    resume_session_id: Id | None = None
    resume_token: str | None = None


class AudioChunk(Message, kw_only=True, frozen=True):
    """A piece of the microphone's stream; an undecodable payload arrives as empty."""

    session_id: Id
    seq: Count
    is_final: bool
    payload: bytes = b""
    client_timestamp_ms: Millis | None = None


class Utterance(Message, kw_only=True, frozen=True):
    """
    A whole utterance, cut and numbered by the client.

    Ours, unknown to the reference's clients: `again` says that it was sent before, on a connection
    that was lost, and that its answer has not arrived.
    """

    session_id: Id
    utterance_index: Count
    manual_cut: bool
    src_lang: Id
    tgt_lang: Id
    audio: bytes
    audio_format: str
    sample_rate: Count
    dialect: str | None = None
    features: Features | None = None
    mode: str | None = None
    lang_a: Id | None = None
    lang_b: Id | None = None
    auto_langs: tuple[Id, ...] | None = None
    enable_streaming_asr: bool | None = None
    partial_update_interval_ms: Count | None = None
    trace_id: TraceId | None = None
    pipeline: Pipeline | None = None
    again: bool | None = None


class ClientHeartbeat(Message, kw_only=True, frozen=True):
    """The client is alive."""

    session_id: Id
    timestamp: Millis


class TtsStarted(Message, kw_only=True, frozen=True):
    """The client began to play the speech of a group."""

    session_id: Id
    trace_id: TraceId
    group_id: TraceId
    ts_start_ms: Count


class TtsPlayEnded(Message, kw_only=True, frozen=True):
    """The client finished playing the speech of a group."""

    session_id: Id
    trace_id: TraceId
    group_id: TraceId
    ts_end_ms: Count


class SessionClose(Message, kw_only=True, frozen=True):
    """The client ends its session."""

    session_id: Id
    reason: str


class RoomCreate(Message, kw_only=True, frozen=True):
    """Open a room and enter it."""

    client_ts: Count
    display_name: str | None = None
    preferred_lang: Id | None = None


class RoomJoin(Message, kw_only=True, frozen=True):
    """Enter a room."""

    room_code: str
    display_name: str | None = None
    preferred_lang: Id | None = None


class RoomLeave(Message, kw_only=True, frozen=True):
    """Leave a room."""

    room_code: str


class RoomRawVoicePreference(Message, kw_only=True, frozen=True):
    """Whether to hear a member's own voice."""

    room_code: str
    target_session_id: Id
    receive_raw_voice: bool


# The three below go both ways: on the way out, `to` is the sender.


class WebrtcOffer(Message, kw_only=True, frozen=True):
    """A session description, passed on unread; `to` is a session."""

    room_code: str
    to: Id
    sdp: Any


class WebrtcAnswer(Message, kw_only=True, frozen=True):
    """The answer to an offer, passed on unread; `to` is a session."""

    room_code: str
    to: Id
    sdp: Any


class WebrtcIce(Message, kw_only=True, frozen=True):
    """A connection candidate, passed on unread; `to` is a session."""

    room_code: str
    to: Id
    candidate: Any


# Scheduler -> client


class SessionInitAck(Message, kw_only=True, frozen=True):
    """The session is open under `session_id`; `resume_token` only for who accepts it."""

    session_id: str
    trace_id: str
    assigned_node_id: str | None = None
    message: str = sent("session created")
    protocol_version: str = sent("1.0")
    use_binary_frame: bool = sent(False)
    negotiated_codec: str = sent("opus")
    negotiated_audio_format: str = sent("opus")
    negotiated_sample_rate: Count = sent(16_000)
    negotiated_channel_count: Count = sent(1)
    resume_token: str | None = None


class ServerHeartbeat(Message, kw_only=True, frozen=True):
    """The scheduler is alive."""

    session_id: str
    timestamp: Millis


class AsrPartial(Message, kw_only=True, frozen=True):
    """Text so far. The protocol blanks `job_id`."""

    session_id: str
    utterance_index: Count
    text: str
    is_final: bool
    trace_id: str
    job_id: str = sent("")


class TranslationResult(Message, kw_only=True, frozen=True):
    """An utterance, recognised and translated; both texts travel under both of their names."""

    session_id: str
    utterance_index: Count
    job_id: str
    text_asr: str
    text_translated: str
    tts_audio: bytes
    tts_format: str
    trace_id: str
    scheduler_sent_at_ms: Millis
    extra: Extra | None = None
    group_id: str | None = None
    part_index: Count | None = None
    service_timings: ServiceTimings | None = None
    network_timings: NetworkTimings | None = None
    asr_quality_level: str | None = None
    reason_codes: tuple[str, ...] | None = None
    quality_score: Number | None = None
    rerun_count: Count | None = None
    segments_meta: SegmentsMeta | None = None


class MissingResult(Message, kw_only=True, frozen=True):
    """There will be no result for this utterance; `reason` is mostly a `MissReason`."""

    session_id: str
    utterance_index: Count
    reason: str
    created_at_ms: Millis
    trace_id: str | None = None


class UiEvent(Message, kw_only=True, frozen=True):
    """A moment in an utterance's life; `elapsed_ms` since the job was made."""

    trace_id: str
    session_id: str
    job_id: str
    utterance_index: Count
    event: UiEventType
    status: UiStatus
    elapsed_ms: Count | None = None
    error_code: ErrorCode | None = None
    hint: str | None = None


class SessionCloseAck(Message, kw_only=True, frozen=True):
    """The session has ended and everything pending was sent."""

    session_id: str


class Error(Message, kw_only=True, frozen=True):
    """
    A refusal, or a node's failure passed on: so `code` is mostly an `ErrorCode`.

    `utterance_index` says which utterance it is the answer to, where it is the answer to one.
    """

    code: str
    message: str
    details: Any = None
    utterance_index: int | None = None


class RoomCreateAck(Message, kw_only=True, frozen=True):
    """The room is open under `room_code`."""

    room_code: str
    room_id: str | None = None


class RoomMembers(Message, kw_only=True, frozen=True):
    """Who is in the room now."""

    room_code: str
    members: tuple[Participant, ...]


class RoomError(Message, kw_only=True, frozen=True):
    """A room request failed."""

    code: RoomErrorCode
    message: str | None = None


class RoomExpired(Message, kw_only=True, frozen=True):
    """The room was closed because nobody spoke."""

    room_code: str
    message: str


class Backpressure(Message, kw_only=True, frozen=True):
    """The scheduler is behind: send less, until `resume_after_ms` from now where given."""

    action: BackpressureAction
    resume_after_ms: Count | None = None
