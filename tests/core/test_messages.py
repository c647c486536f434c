"""The structs: what each message looks like on the wire, and what building one costs."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched import messages
from simsched.messages import (
    ClientMessage,
    ErrorCode,
    JobAssign,
    NodeMessage,
    NodeRegisterAck,
    Pipeline,
    ServerToClient,
    ServerToNode,
    SessionInitAck,
    UiEvent,
    UiEventType,
    UiStatus,
    user_hint,
    valid_id,
)

TAGS = {
    "client": (
        ClientMessage,
        "session_init audio_chunk utterance client_heartbeat tts_started tts_play_ended"
        " session_close room_create room_join room_leave room_raw_voice_preference"
        " webrtc_offer webrtc_answer webrtc_ice",
    ),
    "to client": (
        ServerToClient,
        "session_init_ack server_heartbeat asr_partial translation_result missing_result ui_event"
        " session_close_ack error room_create_ack room_members room_error room_expired"
        " webrtc_offer webrtc_answer webrtc_ice backpressure",
    ),
    "node": (
        NodeMessage,
        "node_register node_heartbeat job_ack job_started asr_partial job_result node_error",
    ),
    "to node": (
        ServerToNode,
        "node_register_ack error node_status job_assign job_cancel node_control",
    ),
}


def on_wire(message: msgspec.Struct) -> object:
    return msgspec.json.decode(msgspec.json.encode(message))


def assign(**fields: object) -> JobAssign:
    base: dict[str, object] = {
        "job_id": "job-1",
        "attempt_id": 1,
        "session_id": "s-1",
        "utterance_index": 0,
        "src_lang": "zh",
        "tgt_lang": "en",
        "pipeline": Pipeline(),
        "audio": b"abc",
        "audio_format": "opus",
        "sample_rate": 16_000,
        "trace_id": "t-1",
    }
    return JobAssign(**(base | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("side", TAGS)
def test_every_message_of_the_protocol_has_a_struct_under_its_tag(side: str) -> None:
    """Each direction knows exactly the types that the protocol lists for it."""
    union, tags = TAGS[side]

    known = [kind.__struct_config__.tag for kind in get_args(union)]

    assert known == tags.split()


def test_every_struct_is_frozen_and_left_alone_by_the_collector() -> None:
    """No message costs a collector's visit, and none changes after it was built."""
    kinds = [k for union, _ in TAGS.values() for k in get_args(union)]

    assert all(k.__struct_config__.frozen and not k.__struct_config__.gc for k in kinds)


def test_an_assignment_writes_what_nodes_rely_on() -> None:
    """Dialect, features and streaming are written even when they say nothing; the rest is not."""
    assert on_wire(assign()) == {
        "type": "job_assign",
        "job_id": "job-1",
        "attempt_id": 1,
        "session_id": "s-1",
        "utterance_index": 0,
        "src_lang": "zh",
        "tgt_lang": "en",
        "pipeline": {
            "use_asr": True,
            "use_nmt": True,
            "use_tts": True,
            "use_semantic": False,
            "use_tone": False,
        },
        "audio": "YWJj",
        "audio_format": "opus",
        "sample_rate": 16_000,
        "trace_id": "t-1",
        "dialect": None,
        "features": None,
        "enable_streaming_asr": True,
        "partial_update_interval_ms": 1_000,
    }


@pytest.mark.parametrize("flag", ["is_manual_cut", "is_pause_triggered", "is_timeout_triggered"])
def test_a_cut_flag_is_written_only_when_true(flag: str) -> None:
    """A false cut flag is no field at all."""
    raised, lowered = on_wire(assign(**{flag: True})), on_wire(assign(**{flag: False}))

    assert isinstance(raised, dict)
    assert raised.pop(flag) is True
    assert raised == lowered


def test_acknowledgements_write_their_constants() -> None:
    """What a session or a node negotiates is written although it never varies."""
    session = on_wire(SessionInitAck(session_id="s-1", trace_id="t-1"))
    node = on_wire(NodeRegisterAck(node_id="node-1"))

    assert session == {
        "type": "session_init_ack",
        "session_id": "s-1",
        "message": "session created",
        "trace_id": "t-1",
        "protocol_version": "1.0",
        "use_binary_frame": False,
        "negotiated_codec": "opus",
        "negotiated_audio_format": "opus",
        "negotiated_sample_rate": 16_000,
        "negotiated_channel_count": 1,
    }
    assert node == {
        "type": "node_register_ack",
        "node_id": "node-1",
        "message": "registered",
        "status": "registering",
    }


def test_an_error_event_carries_code_and_hint_and_a_good_one_neither() -> None:
    """Optional fields of a ui_event are left out, not null."""
    event = UiEvent(
        trace_id="t-1",
        session_id="s-1",
        job_id="job-1",
        utterance_index=0,
        event=UiEventType.DISPATCHED,
        status=UiStatus.OK,
        elapsed_ms=12,
    )
    failed = msgspec.structs.replace(
        event,
        event=UiEventType.ERROR,
        status=UiStatus.ERROR,
        error_code=ErrorCode.JOB_TIMEOUT,
        hint=user_hint(ErrorCode.JOB_TIMEOUT),
    )

    assert set(msgspec.to_builtins(failed)) - set(msgspec.to_builtins(event)) == {
        "error_code",
        "hint",
    }


def test_every_code_has_a_hint() -> None:
    """A dozen codes have a hint of their own; all others share one, unknown ones too."""
    hints = {code: user_hint(code) for code in ErrorCode}
    generic = user_hint("PROCESSING_ERROR")

    assert generic
    assert len({hint for hint in hints.values() if hint != generic}) >= 12
    assert all(not hint.isascii() for hint in hints.values())


def test_the_package_exports_what_it_lists() -> None:
    """`__all__` names everything once, and all of it exists."""
    assert len(set(messages.__all__)) == len(messages.__all__)
    assert all(hasattr(messages, name) for name in messages.__all__)


@given(st.from_regex(r"\A[A-Za-z0-9._:-]{1,128}\Z"))
def test_ids_of_the_allowed_form_are_valid(text: str) -> None:
    """Every text of 1 to 128 allowed characters may become part of a key."""
    assert valid_id(text)


@given(st.text(min_size=1), st.characters().filter(lambda c: not (c.isascii() and c.isalnum())))
def test_ids_with_any_other_character_are_not(text: str, odd: str) -> None:
    """Braces, blanks, line ends, controls and letters beyond ASCII never reach a key."""
    assert valid_id(text + odd) == (
        odd in "._:-" and all(c.isascii() and (c.isalnum() or c in "._:-") for c in text)
    )


@pytest.mark.parametrize("text", ["", "a" * 129, "a\n", "{a}", "a b", "会话", "a/b", "a*"])
def test_texts_that_are_no_ids(text: str) -> None:
    """The cases that matter for keys, by name."""
    assert not valid_id(text)
