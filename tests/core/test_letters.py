"""Entries between instances of two versions: read by whom they are for, once, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.inbox import DispatchToNode, ForwardResult, InboxEvent, SendToSession, SessionMoved
from simsched.letters import (
    BROKEN,
    KINDS,
    NEWER,
    NEWEST,
    OLDEST,
    REPEATED,
    Letters,
    Read,
)
from simsched.messages import Error, ErrorCode, JobAck, JobCancel

VERSIONS = st.integers(OLDEST, NEWEST)
EVENTS: list[InboxEvent] = [
    DispatchToNode("n1", JobCancel(job_id="j", trace_id="t", reason="r")),
    ForwardResult(JobAck(job_id="j", attempt_id=1, node_id="n1", session_id="s", trace_id="t")),
    SendToSession("s", Error(code=ErrorCode.INTERNAL_ERROR, message="m")),
    SessionMoved("s", "i-2"),
]


@given(st.sampled_from(EVENTS), VERSIONS, VERSIONS, st.dictionaries(st.binary(), st.binary()))
def test_any_two_versions_understand_each_other(
    event: InboxEvent, writer: int, reader: int, more: dict[bytes, bytes]
) -> None:
    """In the lower of the two; fields that nobody knows are passed over."""
    fields = Letters("a", "1", writer).write(event, "b", reader)
    since = next(kind.since for kind in KINDS.values() if kind.type is type(event))
    if since > min(writer, reader):
        assert fields is None
        return
    assert fields is not None
    assert int(fields.get(b"version", b"1")) == min(writer, reader)
    assert Letters("b", "1", reader).read({**more, **fields}) == Read(event)


def test_what_is_newer_is_refused_and_not_guessed() -> None:
    """By its version alone: what looks the same may mean something else."""
    fields = Letters("a", "1", 2).write(EVENTS[2], "b", 2)
    assert fields is not None
    assert Letters("b", "1", 1).read(fields) == Read(None, NEWER)
    for version in (b"3", b"x", b"", b"-1", b"9" * 30):
        assert Letters("b", "1", 2).read({**fields, b"version": version}).why_not == NEWER


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12"), st.integers(1, 20))))
def test_an_entry_counts_once_however_often_and_late_it_comes(
    arrivals: list[tuple[str, str, int]],
) -> None:
    """Told by writer, life and number; one that was overtaken is no repeat."""
    written = {
        (who, life, number): fields
        for who in "ab"
        for life in "12"
        for hand in [Letters(who, life)]
        for number in range(1, 21)
        if (fields := hand.write(EVENTS[2], "c", NEWEST)) is not None
    }
    reader, seen = Letters("c", "1"), set()
    for arrival in arrivals:
        found = reader.read(written[arrival])
        assert found == (Read(None, REPEATED) if arrival in seen else Read(EVENTS[2]))
        seen.add(arrival)


def test_version_1_has_no_numbers() -> None:
    """What comes twice is handled twice there, as it always was."""
    fields = Letters("a", "1", 1).write(EVENTS[2], "b", 2)
    assert fields is not None
    assert set(fields) == {b"kind", b"body"}
    reader = Letters("b", "1")
    assert [reader.read(fields), reader.read(fields)] == [Read(EVENTS[2])] * 2


@pytest.mark.parametrize(
    "fields", [{}, {b"kind": b"nonsense"}, {b"kind": b"client", b"body": b"\xc1"}]
)
def test_what_is_broken_is_told_from_what_is_newer(fields: dict[bytes, bytes]) -> None:
    """It is nobody's, in whatever version."""
    assert Letters("b", "1").read(fields) == Read(None, BROKEN)
