"""
Frames to messages and back: JSON text frames, and the optional binary audio frames.

Rules:

- strict in what is sent, lenient in what is read: the typed decoder goes first; only a frame that
  it refuses, or that uses an older name, is read as plain JSON, normalised once and converted;
- all leniency is in that one normalising pass, most of it as tables;
- whatever a frame holds, reading it returns a message or raises `MessageError`, one line long;
- fields that the protocol does not know are ignored, and a null means the same as no field.

This file does not know sessions, sockets or the size of a frame: limits on size belong before it.
"""

from __future__ import annotations

import struct
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from simsched.errors import MessageError
from simsched.messages import (
    AudioChunk,
    ClientMessage,
    Error,
    ErrorCode,
    JobResult,
    NodeMessage,
    ServerToClient,
    ServerToNode,
    TranslationResult,
    valid_id,
)
from simsched.messages.values import Message

M = TypeVar("M")

MAX_ERROR_TEXT: Final = 200
"""Characters of a `MessageError`: it may quote a hostile frame."""

_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


class _Direction(Generic[M]):
    """What may arrive from one side: a decoder of the union, and each type by its tag."""

    __slots__ = ("decode", "types")

    def __init__(self, union: Any) -> None:
        self.decode: Callable[[bytes | str], M] = msgspec.json.Decoder(union).decode
        self.types: dict[object, type[M]] = {
            kind.__struct_config__.tag: kind for kind in get_args(union)
        }


_FROM_CLIENT: Final = _Direction[ClientMessage](ClientMessage)
_FROM_NODE: Final = _Direction[NodeMessage](NodeMessage)
_TO_CLIENT: Final = _Direction[ServerToClient](ServerToClient)
_TO_NODE: Final = _Direction[ServerToNode](ServerToNode)


def decode_client(frame: bytes | str) -> ClientMessage:
    """
    What a client says in a text frame.

    Raises:
        MessageError: not JSON, an unknown type, or a field that is missing or wrong.
    """
    return _decode(frame, _FROM_CLIENT)


def decode_node(frame: bytes | str) -> NodeMessage:
    """
    What a node says in a text frame.

    Raises:
        MessageError: as `decode_client`.
    """
    message = _decode(frame, _FROM_NODE)
    if type(message) is JobResult and _hides_text(message, frame):
        return _decode_leniently(frame, _FROM_NODE)
    return message


def decode_server_to_client(frame: bytes | str) -> ServerToClient:
    """What a client hears in a text frame; raises as `decode_client`."""
    return _decode(frame, _TO_CLIENT)


def decode_server_to_node(frame: bytes | str) -> ServerToNode:
    """What a node hears in a text frame; raises as `decode_client`."""
    return _decode(frame, _TO_NODE)


_JSON: Final = msgspec.json.Encoder()


def encode(message: Message) -> bytes:
    """A message as the text of a frame; a result's texts go out under both of their names."""
    if type(message) is not TranslationResult:
        return _JSON.encode(message)
    frame = bytearray()
    _JSON.encode_into(message, frame)
    frame.pop()  # the closing brace
    for alias, name in _TEXT_ALIASES:
        frame += b',"%b":' % alias.encode()
        _JSON.encode_into(getattr(message, name), frame, -1)
    frame += b"}"
    return bytes(frame)


def refusal(error: MessageError) -> Error:
    """The answer to a frame that could not be understood."""
    return Error(code=ErrorCode.INVALID_MESSAGE, message=f"Invalid message format: {error}")


def _decode(frame: bytes | str, direction: _Direction[M]) -> M:
    try:
        return direction.decode(frame)
    except _UNREADABLE:
        return _decode_leniently(frame, direction)


def _decode_leniently(frame: bytes | str, direction: _Direction[M]) -> M:
    try:
        raw = msgspec.json.decode(frame)
        if not isinstance(raw, dict):
            raise MessageError("a message is a JSON object")
        tag = raw.get("type")
        kind = direction.types.get(tag) if isinstance(tag, str) else None
        if kind is None:
            raise MessageError(_cut(f"unknown message type {tag!r}"))
        return msgspec.convert(_normalised(raw, str(tag)), kind, strict=False)
    except _UNREADABLE as error:
        raise MessageError(_cut(str(error) or "unreadable")) from None


def _cut(text: str) -> str:
    return text[:MAX_ERROR_TEXT]  # quotes are `repr`s already, ours and msgspec's


# The normalising pass

_TEXT_ALIASES: Final = (("asr_text", "text_asr"), ("translated_text", "text_translated"))
_SUCCESS_WORDS: Final = frozenset({"success", "ok"})
_AUDIO_FIELDS: Final = {
    "audio_chunk": "payload",
    "utterance": "audio",
    "job_assign": "audio",
    "job_result": "tts_audio",
    "translation_result": "tts_audio",
}
# Blank is how forms say "none".
_BLANK_IS_NONE: Final = {
    "session_init": ("tenant_id", "lang_a", "lang_b", "resume_session_id"),
    "utterance": ("lang_a", "lang_b"),
    "room_create": ("preferred_lang",),
    "room_join": ("preferred_lang",),
    "node_register": ("node_id",),
}
_FOLDED: Final = {
    "installed_services": ("type", "device", "status"),
    "capability_by_type": ("type",),
    "nmt_capabilities": ("rule",),
}
# Passed on unread, so left as they came.
_OPAQUE: Final = frozenset({"sdp", "candidate", "details"})
_WHOLE_SUFFIXES: Final = ("_ms", "_ts", "timestamp")


def _normalised(raw: dict[str, Any], tag: str) -> dict[str, Any]:
    """The same message in the protocol's own names, cases and kinds of number."""
    message = _without_nulls(raw)
    for field in _BLANK_IS_NONE.get(tag, ()):
        value = message.get(field)
        if isinstance(value, str) and not value.strip():
            del message[field]
    audio_field = _AUDIO_FIELDS.get(tag)
    if audio_field is not None and audio_field in message:
        message[audio_field] = _audio(message[audio_field])
    more = _MORE.get(tag)
    if more is not None:
        more(message)
    return message


def _without_nulls(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if key in _OPAQUE else _plain(key, value)
        for key, value in raw.items()
        if value is not None or key in _OPAQUE
    }


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _without_nulls(value)
    if isinstance(value, list):
        return [_plain(key, item) for item in value]
    if isinstance(value, float) and (value.is_integer() or key.endswith(_WHOLE_SUFFIXES)):
        return round(value)
    return value


def _audio(value: Any) -> bytes:
    """Base64 in the standard alphabet; anything else counts as silence, not as an error."""
    if not isinstance(value, str) or len(value) % 4:
        return b""
    try:
        return a2b_base64(value, strict_mode=True)
    except (Base64Error, ValueError):
        return b""


def _older_texts(message: dict[str, Any]) -> None:
    for alias, name in _TEXT_ALIASES:
        if name not in message and alias in message:
            message[name] = message[alias]


def _older_result(message: dict[str, Any]) -> None:
    _older_texts(message)
    status = message.get("status")
    if "success" not in message and isinstance(status, str):
        message["success"] = status.casefold() in _SUCCESS_WORDS


def _older_node(message: dict[str, Any]) -> None:
    if not isinstance(message.get("features_supported", {}), dict):
        del message["features_supported"]
    _fold_words(message)
    languages = message.get("language_capabilities")
    if isinstance(languages, dict):
        _fold_words(languages)


def _fold_words(holder: dict[str, Any]) -> None:
    for list_name, fields in _FOLDED.items():
        entries = holder.get(list_name)
        for entry in entries if isinstance(entries, list) else ():
            for field in fields if isinstance(entry, dict) else ():
                if isinstance(entry.get(field), str):
                    entry[field] = entry[field].casefold()


_MORE: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "job_result": _older_result,
    "translation_result": _older_texts,
    "node_register": _older_node,
    "node_heartbeat": _older_node,
}


def _hides_text(result: JobResult, frame: bytes | str) -> bool:
    """Whether a valid result may carry a text under its older name only."""
    if result.text_asr is not None and result.text_translated is not None:
        return False
    return any(
        alias in frame if isinstance(frame, str) else alias.encode() in frame
        for alias, _ in _TEXT_ALIASES
    )


# Binary audio frames: all integers little-endian

_CHUNK: Final = 0x01
_FINAL: Final = 0x02
_CHUNK_HEADER: Final = struct.Struct("<BBIIBB")
_FINAL_HEADER: Final = struct.Struct("<BBII")
_MASK32: Final = (1 << 32) - 1


def decode_binary_chunk(frame: bytes, now_ms: int | None = None) -> AudioChunk:
    """
    An AUDIO_CHUNK or FINAL frame; FINAL reads as an empty final chunk.

    The frame carries the low 32 bits of the client's Unix milliseconds. With `now_ms` the whole
    stamp is the one nearest to now, else the chunk has none.

    Raises:
        MessageError: too short, of another kind, or with a session id that is none.
    """
    if len(frame) < _FINAL_HEADER.size:
        raise MessageError(f"a binary frame has at least {_FINAL_HEADER.size} bytes")
    kind = frame[0]
    if kind not in (_CHUNK, _FINAL):
        raise MessageError(f"unknown binary frame type 0x{kind:02x}")
    header = _CHUNK_HEADER if kind == _CHUNK else _FINAL_HEADER
    audio_at = header.size + frame[1]
    if len(frame) < audio_at:
        raise MessageError("a binary frame ends inside its header or session id")
    fields = header.unpack_from(frame)
    session_id = frame[header.size : audio_at].decode("utf-8", "replace")
    if not valid_id(session_id):
        raise MessageError("a binary frame's session id has characters or a length of no id")
    return AudioChunk(
        session_id=session_id,
        seq=fields[2],
        is_final=kind == _FINAL or fields[4] != 0,
        payload=frame[audio_at:] if kind == _CHUNK else b"",
        client_timestamp_ms=None if now_ms is None else _nearest(fields[3], now_ms),
    )


def encode_binary_chunk(chunk: AudioChunk) -> bytes:
    """
    The chunk as a binary frame: FINAL if it is final and empty, else AUDIO_CHUNK.

    Raises:
        MessageError: the session id does not fit into a frame.
    """
    session_id = chunk.session_id.encode()
    if not valid_id(chunk.session_id):
        raise MessageError("not a session id")
    seq = chunk.seq & _MASK32
    stamp = (chunk.client_timestamp_ms or 0) & _MASK32
    if chunk.is_final and not chunk.payload:
        return _FINAL_HEADER.pack(_FINAL, len(session_id), seq, stamp) + session_id
    header = _CHUNK_HEADER.pack(_CHUNK, len(session_id), seq, stamp, chunk.is_final, 0)
    return header + session_id + chunk.payload


def _nearest(low_bits: int, now_ms: int) -> int:
    """The stamp with these low 32 bits that is nearest to now."""
    ahead = (low_bits - now_ms) & _MASK32
    return now_ms + ahead - ((1 << 32) if ahead >= 1 << 31 else 0)
