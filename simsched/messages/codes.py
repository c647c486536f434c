"""The words of the protocol that come from closed lists, and what people are told about codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """The codes that this scheduler itself gives; a node may report others."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    INVALID_SESSION = "INVALID_SESSION"
    SESSION_CLOSED = "SESSION_CLOSED"
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    NODE_OVERLOADED = "NODE_OVERLOADED"
    MODEL_NOT_AVAILABLE = "MODEL_NOT_AVAILABLE"
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED"
    UNSUPPORTED_FEATURE = "UNSUPPORTED_FEATURE"
    INVALID_PAIRING_CODE = "INVALID_PAIRING_CODE"
    NO_AVAILABLE_NODE = "NO_AVAILABLE_NODE"
    WS_DISCONNECTED = "WS_DISCONNECTED"
    NMT_TIMEOUT = "NMT_TIMEOUT"
    TTS_TIMEOUT = "TTS_TIMEOUT"
    JOB_TIMEOUT = "JOB_TIMEOUT"
    MODEL_VERIFY_FAILED = "MODEL_VERIFY_FAILED"
    MODEL_CORRUPTED = "MODEL_CORRUPTED"
    NO_GPU_AVAILABLE = "NO_GPU_AVAILABLE"
    NODE_ID_CONFLICT = "NODE_ID_CONFLICT"
    INVALID_CAPABILITY_SCHEMA = "INVALID_CAPABILITY_SCHEMA"
    SCHEDULER_DEPENDENCY_DOWN = "SCHEDULER_DEPENDENCY_DOWN"


class RoomErrorCode(StrEnum):
    """Why a room request failed."""

    ROOM_NOT_FOUND = "ROOM_NOT_FOUND"
    ALREADY_IN_ROOM = "ALREADY_IN_ROOM"
    INVALID_ROOM_CODE = "INVALID_ROOM_CODE"
    ROOM_FULL = "ROOM_FULL"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class UiEventType(StrEnum):
    """The moments of an utterance that a client may show."""

    INPUT_STARTED = "INPUT_STARTED"
    INPUT_ENDED = "INPUT_ENDED"
    ASR_PARTIAL = "ASR_PARTIAL"
    ASR_FINAL = "ASR_FINAL"
    DISPATCHED = "DISPATCHED"
    NODE_ACCEPTED = "NODE_ACCEPTED"
    NMT_DONE = "NMT_DONE"
    TTS_PLAY_STARTED = "TTS_PLAY_STARTED"
    TTS_PLAY_ENDED = "TTS_PLAY_ENDED"
    ERROR = "ERROR"


class UiStatus(StrEnum):
    """Whether a `ui_event` is good news."""

    OK = "ok"
    ERROR = "error"


class ServiceType(StrEnum):
    """What a node's service does."""

    ASR = "asr"
    NMT = "nmt"
    TTS = "tts"
    TONE = "tone"
    SEMANTIC = "semantic"


class Device(StrEnum):
    """What a service runs on."""

    GPU = "gpu"
    CPU = "cpu"


class ServiceStatus(StrEnum):
    """The state of an installed service."""

    RUNNING = "running"
    STOPPED = "stopped"
    ERROR = "error"


class NodeState(StrEnum):
    """The life of a node as the scheduler sees it."""

    REGISTERING = "registering"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    OFFLINE = "offline"


class PairRule(StrEnum):
    """Which language pairs a translation model covers."""

    ANY_TO_ANY = "any_to_any"
    ANY_TO_EN = "any_to_en"
    EN_TO_ANY = "en_to_any"
    SPECIFIC_PAIRS = "specific_pairs"


class BackpressureAction(StrEnum):
    """What a client is asked to do while the scheduler is behind."""

    BUSY = "BUSY"
    PAUSE = "PAUSE"
    SLOW_DOWN = "SLOW_DOWN"


class MissReason(StrEnum):
    """Why an utterance has no result; receivers must expect others."""

    SILENCE_DETECTED = "silence_detected"
    GAP_TIMEOUT = "gap_timeout"
    PENDING_OVERFLOW_EVICT = "pending_overflow_evict"


_HINTS: Final[dict[str, str]] = {
    ErrorCode.INVALID_MESSAGE: "消息格式有误，请更新客户端",
    ErrorCode.INVALID_SESSION: "会话不存在，请重新连接",
    ErrorCode.SESSION_CLOSED: "会话已结束，请重新开始",
    ErrorCode.NODE_UNAVAILABLE: "处理节点不可用，请重说一遍",
    ErrorCode.NODE_OVERLOADED: "处理节点繁忙，请稍等片刻",
    ErrorCode.NO_AVAILABLE_NODE: "暂无空闲节点，请稍后再试",
    ErrorCode.MODEL_NOT_AVAILABLE: "所需模型尚未就绪，请稍后再试",
    ErrorCode.WS_DISCONNECTED: "连接已断开，正在等待重连",
    ErrorCode.NMT_TIMEOUT: "翻译超时，请重说一遍",
    ErrorCode.TTS_TIMEOUT: "语音合成超时，请先看文字",
    ErrorCode.JOB_TIMEOUT: "处理超时，请重说一遍",
    ErrorCode.INVALID_PAIRING_CODE: "配对码无效或已过期",
    ErrorCode.SCHEDULER_DEPENDENCY_DOWN: "服务暂时受限，请稍后再试",
}
_GENERIC_HINT: Final = "出现错误，请稍后再试"


def user_hint(code: str) -> str:
    """What to tell the speaker about an error code, in Chinese; generic for codes without one."""
    return _HINTS.get(code, _GENERIC_HINT)
