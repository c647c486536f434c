"""Frames: the protocol's own examples, lenient reading, hostile input, binary audio."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched import wire
from simsched.errors import MessageError
from simsched.messages import (
    AudioChunk,
    ClientMessage,
    Message,
    NodeMessage,
    NodeRegister,
    ServerToClient,
    ServerToNode,
    ServiceStatus,
    ServiceType,
    SessionInit,
    WebrtcOffer,
)

AUDIO = base64.b64encode(b"\x05\x00audio").decode()

SERVICE = {
    "service_id": "faster-whisper-vad",
    "type": "asr",
    "device": "gpu",
    "status": "running",
}
USAGE = {
    "cpu_percent": 12.5,
    "gpu_percent": 3.0,
    "gpu_mem_percent": 20.0,
    "mem_percent": 40.0,
    "running_jobs": 0,
}
REGISTER: dict[str, Any] = {
    "type": "node_register",
    "node_id": None,
    "version": "2.0.0",
    "capability_schema_version": "2.0",
    "platform": "linux",
    "hardware": {"cpu_cores": 8, "memory_gb": 32, "gpus": [{"name": "GPU", "memory_gb": 8}]},
    "installed_models": [],
    "installed_services": [SERVICE],
    "capability_by_type": [{"type": "asr", "ready": True}],
    "features_supported": {},
    "accept_public_jobs": True,
    "language_capabilities": {
        "asr_languages": ["zh", "en"],
        "tts_languages": ["zh", "en"],
        "semantic_languages": ["zh", "en"],
        "supported_language_pairs": [{"src": "zh", "tgt": "en"}],
    },
}
RESULT: dict[str, Any] = {
    "type": "job_result",
    "job_id": "job-00AA11BB",
    "attempt_id": 1,
    "node_id": "node-9F8E7D6C",
    "session_id": "s-1A2B3C4D",
    "utterance_index": 0,
    "success": True,
    "text_asr": "你好",
    "text_translated": "hello",
    "tts_audio": AUDIO,
    "tts_format": "pcm16",
    "processing_time_ms": 95,
    "node_completed_at_ms": 1768000000123,
    "trace_id": "t-1",
    "extra": {"service_timings": {"asr_ms": 40, "nmt_ms": 30, "tts_ms": 20, "total_ms": 90}},
}
CHUNK: dict[str, Any] = {
    "type": "audio_chunk",
    "session_id": "s-1A2B3C4D",
    "seq": 0,
    "is_final": False,
    "payload": AUDIO,
}
UTTERANCE: dict[str, Any] = {
    "type": "utterance",
    "session_id": "s-1A2B3C4D",
    "utterance_index": 3,
    "manual_cut": True,
    "src_lang": "zh",
    "tgt_lang": "en",
    "audio": AUDIO,
    "audio_format": "opus",
    "sample_rate": 16000,
    "dialect": None,
    "pipeline": {"use_asr": True, "use_nmt": True, "use_tts": False},
}
INIT: dict[str, Any] = {
    "type": "session_init",
    "client_version": "web-client-v1.0",
    "platform": "web",
    "src_lang": "zh",
    "tgt_lang": "en",
    "dialect": None,
    "features": {},
    "pairing_code": None,
    "tenant_id": None,
    "trace_id": "t-1",
}
ASSIGN: dict[str, Any] = {
    "type": "job_assign",
    "job_id": "job-00AA11BB",
    "attempt_id": 1,
    "session_id": "s-1A2B3C4D",
    "utterance_index": 0,
    "src_lang": "zh",
    "tgt_lang": "en",
    "dialect": None,
    "features": None,
    "pipeline": {
        "use_asr": True,
        "use_nmt": True,
        "use_tts": True,
        "use_semantic": False,
        "use_tone": False,
    },
    "audio": AUDIO,
    "audio_format": "opus",
    "sample_rate": 16000,
    "enable_streaming_asr": True,
    "partial_update_interval_ms": 1000,
    "trace_id": "t-1",
    "padding_ms": 280,
    "is_manual_cut": True,
}
TRANSLATION: dict[str, Any] = {
    "type": "translation_result",
    "session_id": "s-1A2B3C4D",
    "utterance_index": 0,
    "job_id": "job-00AA11BB",
    "text_asr": "你好",
    "text_translated": "hello",
    "tts_audio": AUDIO,
    "tts_format": "pcm16",
    "trace_id": "t-1",
    "group_id": "group_s-1A2B3C4D_1768000000",
    "part_index": 0,
    "service_timings": {"asr_ms": 40, "nmt_ms": 30, "tts_ms": 20, "total_ms": 90},
    "network_timings": {"scheduler_to_node_ms": 2, "node_to_scheduler_ms": -1},
    "scheduler_sent_at_ms": 1768000000130,
}

FROM_CLIENT = [INIT, CHUNK, {k: v for k, v in CHUNK.items() if k != "payload"} | {"is_final": True}]
FROM_NODE = [
    REGISTER,
    RESULT,
    {
        "type": "node_heartbeat",
        "node_id": "node-9F8E7D6C",
        "timestamp": 1768000000000,
        "resource_usage": USAGE,
        "installed_services": [SERVICE],
        "capability_by_type": [{"type": "asr", "ready": True}],
    },
    {k: v for k, v in RESULT.items() if k not in ("text_asr", "text_translated", "tts_audio")}
    | {"success": False, "error": {"code": "PROCESSING_ERROR", "message": "out of memory"}},
]
TO_CLIENT = [
    {
        "type": "session_init_ack",
        "session_id": "s-1A2B3C4D",
        "message": "session created",
        "trace_id": "t-1",
        "protocol_version": "1.0",
        "use_binary_frame": False,
        "negotiated_codec": "opus",
        "negotiated_audio_format": "opus",
        "negotiated_sample_rate": 16000,
        "negotiated_channel_count": 1,
    },
    {
        "type": "ui_event",
        "trace_id": "t-1",
        "session_id": "s-1A2B3C4D",
        "job_id": "job-00AA11BB",
        "utterance_index": 0,
        "event": "DISPATCHED",
        "elapsed_ms": 12,
        "status": "ok",
    },
    TRANSLATION,
    {"type": "error", "code": "INVALID_SESSION", "message": "Session does not exist"},
    {"type": "server_heartbeat", "session_id": "s-1A2B3C4D", "timestamp": 1768000000000},
]
TO_NODE = [
    {
        "type": "node_register_ack",
        "node_id": "node-9F8E7D6C",
        "message": "registered",
        "status": "registering",
    },
    ASSIGN,
]

DECODERS: list[tuple[Any, Any]] = [
    (wire.decode_client, ClientMessage),
    (wire.decode_node, NodeMessage),
    (wire.decode_server_to_client, ServerToClient),
    (wire.decode_server_to_node, ServerToNode),
]
EXAMPLES = [
    (decode, example)
    for (decode, _), examples in zip(
        DECODERS, (FROM_CLIENT, FROM_NODE, TO_CLIENT, TO_NODE), strict=True
    )
    for example in examples
]


def frame(message: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(message | changes).encode()


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value]
    return value


def node(message: dict[str, Any], **changes: Any) -> Any:
    return wire.decode_node(frame(message, **changes))


def client(message: dict[str, Any], **changes: Any) -> Any:
    return wire.decode_client(frame(message, **changes))


# The protocol's examples


@pytest.mark.parametrize(
    ("decode", "example"), EXAMPLES, ids=[f"{i}-{e['type']}" for i, (_, e) in enumerate(EXAMPLES)]
)
def test_every_example_survives_reading_and_writing(decode: Any, example: dict[str, Any]) -> None:
    """What was read is written with the same fields; a null and no field are the same."""
    written = json.loads(wire.encode(decode(frame(example))))
    if written["type"] == "translation_result":
        assert written.pop("asr_text") == written["text_asr"]
        assert written.pop("translated_text") == written["text_translated"]

    assert without_nulls(written) == without_nulls(example)


@pytest.mark.parametrize(("decode", "example"), EXAMPLES)
def test_text_and_bytes_read_alike_and_unknown_fields_do_not_matter(
    decode: Any, example: dict[str, Any]
) -> None:
    """A frame may be text or bytes and may carry fields from the future, nested ones too."""
    plain = frame(example)
    extended = {
        key: value | {"zz_new": [1]} if isinstance(value, dict) else value
        for key, value in example.items()
    }

    assert decode(plain.decode()) == decode(plain)
    assert decode(frame(extended, zz_new={"a": None})) == decode(plain)


def test_a_result_goes_out_under_both_names_of_its_texts() -> None:
    """Clients that read `asr_text` and clients that read `text_asr` see the same text."""
    message = wire.decode_server_to_client(frame(TRANSLATION, text_asr='"\\\n', text_translated=""))
    written = json.loads(wire.encode(message))

    assert (written["text_asr"], written["asr_text"]) == ('"\\\n', '"\\\n')
    assert (written["text_translated"], written["translated_text"]) == ("", "")


# Lenient reading


def test_the_node_of_the_python_script_registers() -> None:
    """Upper-case words, models without version, unknown features, no semantic languages."""
    message = node(
        REGISTER,
        installed_models=[{"model_id": "m", "kind": "asr", "src_lang": "zh"}],
        installed_services=[
            {"service_id": "asr", "type": "ASR", "device": "GPU", "status": "Running"},
            {"service_id": "nmt", "type": "NMT", "device": "CPU", "status": "Stopped"},
        ],
        capability_by_type=[{"type": "ASR", "ready": True}, {"type": "Tts", "ready": False}],
        features_supported={"streaming": True, "emotion_detection": False},
        language_capabilities={
            "asr_languages": ["zh"],
            "nmt_capabilities": [{"model_id": "m", "languages": ["zh"], "rule": "ANY_TO_ANY"}],
        },
    )

    assert isinstance(message, NodeRegister)
    assert message.installed_models[0].version == ""
    assert message.installed_services is not None
    assert message.installed_services[0].status is ServiceStatus.RUNNING
    assert [c.type for c in message.capability_by_type] == [ServiceType.ASR, ServiceType.TTS]
    assert message.features_supported.emotion_detection is False
    assert message.language_capabilities is not None
    assert message.language_capabilities.semantic_languages is None


@pytest.mark.parametrize(
    ("status", "success"),
    [("success", True), ("OK", True), ("error", False), ("", False)],
)
def test_a_result_may_say_status_instead_of_success(status: str, success: bool) -> None:
    """The script's result: `status`, `asr_text`, `translated_text` and no `success`."""
    older = {k: v for k, v in RESULT.items() if k not in ("success", "text_asr", "text_translated")}
    message = node(older, status=status, asr_text="a", translated_text="b")

    assert (message.success, message.text_asr, message.text_translated) == (success, "a", "b")


def test_an_alias_counts_even_where_the_frame_is_valid_without_it() -> None:
    """A valid result whose text is under the older name does not lose it."""
    older = {k: v for k, v in RESULT.items() if k != "text_asr"}

    assert node(older, asr_text="a").text_asr == "a"
    assert wire.decode_node(frame(older, asr_text="a").decode()).text_asr == "a"  # type: ignore[union-attr]
    assert node(older, text_asr=None, asr_text="a").text_asr == "a"


def test_the_proper_name_wins_over_its_alias() -> None:
    """Both present: `success` and `text_asr` are believed."""
    message = node(RESULT, asr_text="other", status="error", quality_score="0.5")

    assert (message.text_asr, message.success) == ("你好", True)


def test_neither_success_nor_status_is_an_error() -> None:
    """Nobody guesses whether a job succeeded."""
    with pytest.raises(MessageError, match="success"):
        node({k: v for k, v in RESULT.items() if k != "success"})


@pytest.mark.parametrize("audio", ["", "abc", "****", "QQ", "QUJD=", "Q-_=", "é===", 5, ["a"]])
def test_undecodable_audio_is_silence(audio: object) -> None:
    """A chunk or an utterance whose base64 is broken counts as empty, not as an error."""
    assert client(CHUNK, payload=audio).payload == b""
    assert client(UTTERANCE, audio=audio).audio == b""


def test_a_chunk_may_have_a_null_payload_but_an_utterance_has_audio() -> None:
    """Null is no field: optional in a chunk, missing in an utterance."""
    assert client(CHUNK, payload=None).payload == b""
    with pytest.raises(MessageError, match="audio"):
        client(UTTERANCE, audio=None)


@given(st.binary(max_size=40))
def test_audio_reads_the_same_whether_or_not_the_frame_needs_normalising(audio: bytes) -> None:
    """The strict and the lenient path decode the same bytes."""
    text = base64.b64encode(audio).decode()

    assert client(CHUNK, payload=text).payload == audio
    assert client(CHUNK, payload=text, seq="7").payload == audio


def test_a_pipeline_is_completed() -> None:
    """Absent or null members: recognise, translate and speak, nothing else."""
    pipeline = client(UTTERANCE, pipeline={"use_tts": False, "use_nmt": None}).pipeline

    assert msgspec.to_builtins(pipeline) == {
        "use_asr": True,
        "use_nmt": True,
        "use_tts": False,
        "use_semantic": False,
        "use_tone": False,
    }


def test_numbers_may_be_text_or_have_a_fraction_where_they_are_stamps() -> None:
    """`"7"` is 7, `7.0` is 7, and a stamp in fractional milliseconds is rounded."""
    assert client(CHUNK, seq="7").seq == 7
    assert client(CHUNK, seq=7.0).seq == 7
    assert client(CHUNK, client_timestamp_ms=1768000000123.7).client_timestamp_ms == 1768000000124
    assert node(RESULT, processing_time_ms=95.4).processing_time_ms == 95


def test_blank_optional_ids_are_none() -> None:
    """A form's empty field is no tenant and no node id."""
    init = client(INIT, tenant_id="  ", lang_a="")

    assert isinstance(init, SessionInit)
    assert (init.tenant_id, init.lang_a) == (None, None)
    assert node(REGISTER, node_id="").node_id is None


def test_what_is_passed_on_unread_keeps_its_nulls_and_numbers() -> None:
    """Session descriptions and details of a failure leave as they came, whichever path reads."""
    unread = {"a": None, "b": [1.0, {"c_ms": 1.5}]}
    offer = {"type": "webrtc_offer", "room_code": "123456", "to": "s-2", "sdp": unread}
    failed = {"code": "PROCESSING_ERROR", "message": "", "details": unread}
    strict, lenient = (node(RESULT, error=failed, rerun_count=n) for n in (1, "1"))

    assert client(offer) == WebrtcOffer(room_code="123456", to="s-2", sdp=unread)
    assert strict == lenient
    assert lenient.error.details == unread


def test_an_assignment_without_its_nullable_fields_is_read() -> None:
    """A node agent reads assignments of schedulers that leave nulls out."""
    lean = {k: v for k, v in ASSIGN.items() if v is not None}

    assert wire.decode_server_to_node(frame(lean)) == wire.decode_server_to_node(frame(ASSIGN))


# Refusals


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ("[]", "JSON object"),
        ('"a"', "JSON object"),
        ("{}", "unknown message type None"),
        ('{"type":5}', "unknown message type 5"),
        ('{"type":"no\\nsuch"}', "unknown message type 'no"),
        ('{"type":"job_result"}', "unknown message type 'job_result'"),
        ('{"type":"session_close","session_id":"s-1"}', "missing required field `reason`"),
        ('{"type":"session_close","session_id":"{a}","reason":""}', r"\$\.session_id"),
        ('{"type":"session_close","session_id":"' + "a" * 129 + '","reason":""}', "128"),
        ('{"type":"session_close","session_id":7,"reason":""}', r"\$\.session_id"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_refusal_says_in_one_line_what_is_wrong(text: str, says: str) -> None:
    """The text goes to the client, so it is short, printable and names the place."""
    with pytest.raises(MessageError, match=says) as caught:
        wire.decode_client(text)

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= wire.MAX_ERROR_TEXT


@pytest.mark.parametrize(
    "junk",
    [b'{"type":"\xff"}', b'{"type":"session_close","\xc0":1}', '{"type":"\ud800"}', "\ud800"],
)
def test_text_that_is_no_text_is_refused(junk: bytes | str) -> None:
    """Broken UTF-8 and lone surrogates are a bad message like any other."""
    with pytest.raises(MessageError):
        wire.decode_client(junk)


def test_a_refusal_that_quotes_the_frame_stays_one_line() -> None:
    """Line ends and controls inside a quoted value do not reach the log."""
    with pytest.raises(MessageError, match="capability_by_type") as caught:
        node(REGISTER, capability_by_type=[{"type": "a\n\x1b[31mb", "ready": True}])

    assert str(caught.value).isprintable()


def test_the_answer_to_a_refused_frame() -> None:
    """Code INVALID_MESSAGE and the wording that clients know."""
    assert json.loads(wire.encode(wire.refusal(MessageError("no type")))) == {
        "type": "error",
        "code": "INVALID_MESSAGE",
        "message": "Invalid message format: no type",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt_id": -1},
        {"attempt_id": 1 << 32},
        {"utterance_index": 1 << 63},
        {"quality_score": "nan"},
        {"quality_score": 1e300},
        {"session_id": "a\n"},
        {"node_id": ""},
    ],
)
def test_numbers_and_ids_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    """Nothing enters that a table, a key or JSON could not hold."""
    with pytest.raises(MessageError, match=next(iter(changes))):
        node(RESULT, **changes)


def one_of_each() -> list[dict[str, Any]]:
    return [e for _, e in EXAMPLES] + [UTTERANCE]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """An example with some of its fields replaced or lost."""
    message = dict(draw(st.sampled_from(one_of_each())))
    for key in draw(st.lists(st.sampled_from(sorted(message)[:-1]), max_size=3)):
        message.pop(key, None)
    for key in draw(st.lists(st.sampled_from(sorted(message)), max_size=3)):
        if key != "type":
            message[key] = draw(JSON_VALUES)
    return json.dumps(message)


JUNK = st.binary() | st.text() | JSON_VALUES.map(json.dumps) | damaged()


@given(st.sampled_from([decode for decode, _ in DECODERS]), JUNK)
def test_junk_never_raises_anything_but_a_message_error(decode: Any, junk: bytes | str) -> None:
    """Any bytes, any text, any JSON, any damaged message: a message or a `MessageError`."""
    try:
        message = decode(junk)
    except MessageError as refused:
        message, text = None, str(refused)
    if message is None:
        assert text.isprintable()
        assert len(text) <= wire.MAX_ERROR_TEXT
    else:
        assert decode(wire.encode(message)) == message


# Round trip of generated messages


def values(annotation: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """What a field of this type may hold."""
    info = msgspec.inspect
    match annotation:
        case info.StrType(pattern=None):
            return st.text(max_size=8)
        case info.StrType():
            return st.from_regex(r"\A[A-Za-z0-9._:-]{1,12}\Z")
        case info.IntType(ge=low, le=high):
            return st.integers(low, high)
        case info.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case info.BoolType():
            return st.booleans()
        case info.BytesType():
            return st.binary(max_size=12)
        case info.NoneType():
            return st.none()
        case info.AnyType():
            return st.none() | st.text(max_size=4) | st.dictionaries(st.text(max_size=3), st.none())
        case info.EnumType(cls=kind):
            return st.sampled_from(list(kind))
        case info.UnionType(types=kinds):
            return st.one_of([values(kind) for kind in kinds])
        case info.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=2).map(tuple)
        case info.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case info.StructType(cls=kind):
            return structs(kind)
    raise AssertionError(annotation)


def structs(kind: type[Any]) -> st.SearchStrategy[Any]:
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    fields = {field.name: values(field.type) for field in described.fields}
    return st.builds(kind, **fields)


@pytest.mark.parametrize(
    ("decode", "kind"),
    [(decode, kind) for decode, union in DECODERS for kind in get_args(union)],
    ids=lambda value: value.__name__,
)
@settings(max_examples=30)  # for each of some forty types
@given(data=st.data())
def test_what_was_written_is_read_back(
    decode: Any, kind: type[Message], data: st.DataObject
) -> None:
    """Reading what `encode` wrote gives the same message, for every type and direction."""
    message = data.draw(structs(kind))

    assert decode(wire.encode(message)) == message


# Binary frames

CHUNKS = st.builds(
    AudioChunk,
    session_id=st.from_regex(r"\A[A-Za-z0-9._:-]{1,128}\Z"),
    seq=st.integers(0, (1 << 32) - 1),
    is_final=st.booleans(),
    payload=st.binary(max_size=64),
    client_timestamp_ms=st.integers(0, 1 << 42),
)


@given(CHUNKS, st.integers(-(1 << 31), (1 << 31) - 1))
def test_a_binary_chunk_survives_the_trip(chunk: AudioChunk, skew_ms: int) -> None:
    """Clocks within 24 days of each other give the whole stamp back."""
    assert chunk.client_timestamp_ms is not None
    now_ms = chunk.client_timestamp_ms - skew_ms

    assert wire.decode_binary_chunk(wire.encode_binary_chunk(chunk), now_ms) == chunk


def test_binary_frames_have_the_layout_of_the_protocol() -> None:
    """Twelve bytes of header before a chunk, ten before a final, little-endian."""
    chunk = bytes([1, 3]) + (258).to_bytes(4, "little") + bytes([4, 0, 0, 0, 1, 0]) + b"s-1ab"
    final = bytes([2, 3]) + (259).to_bytes(4, "little") + bytes([5, 0, 0, 0]) + b"s-1"

    assert wire.decode_binary_chunk(chunk) == AudioChunk(
        session_id="s-1", seq=258, is_final=True, payload=b"ab"
    )
    assert wire.decode_binary_chunk(final) == AudioChunk(session_id="s-1", seq=259, is_final=True)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "at least 10"),
        (b"\x01" * 9, "at least 10"),
        (b"\x10" + bytes(9), "0x10"),
        (b"\x11" + bytes(9), "0x11"),
        (b"\x01\x00" + bytes(8), "ends inside"),
        (b"\x02\x05" + bytes(8) + b"s-1", "ends inside"),
        (b"\x02\x00" + bytes(8), "session id"),
        (b"\x02\x02" + bytes(8) + b"\xff\xff", "session id"),
    ],
)
def test_broken_binary_frames_are_refused(data: bytes, says: str) -> None:
    """Too short, a reserved type, or no session id."""
    with pytest.raises(MessageError, match=says):
        wire.decode_binary_chunk(data)


@given(st.binary() | st.binary().map(lambda rest: b"\x01\x02" + rest))
def test_binary_junk_never_raises_anything_but_a_message_error(data: bytes) -> None:
    """Any bytes: a chunk or a `MessageError`."""
    try:
        chunk = wire.decode_binary_chunk(data)
    except MessageError:
        return
    assert wire.decode_binary_chunk(wire.encode_binary_chunk(chunk)).session_id == chunk.session_id


def test_a_session_id_that_is_none_goes_into_no_binary_frame() -> None:
    """The length byte could not hold it."""
    with pytest.raises(MessageError, match="session id"):
        wire.encode_binary_chunk(AudioChunk(session_id="a" * 300, seq=0, is_final=True))
