"""What the registries of peers promise: to the right socket, kept for who comes back, counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from simsched.live.links import KEPT_MAX, LiveLinks
from simsched.messages import Error, JobCancel, SessionCloseAck, UiEvent, UiEventType, UiStatus
from tests.live.live_world import CountingSink


class FakePeer:
    def __init__(self) -> None:
        self.got: list[Any] = []
        self.takes = True

    def send(self, message: Any) -> bool:
        if self.takes:
            self.got.append(message)
        return self.takes


def error(text: str) -> Error:
    return Error(code="X", message=text)


def progress() -> UiEvent:
    return UiEvent(
        trace_id="t", session_id="s", job_id="j", utterance_index=0,
        event=UiEventType.DISPATCHED, status=UiStatus.OK,
    )  # fmt: skip


def test_messages_reach_the_socket_of_their_session_only() -> None:
    """A session's messages go to its socket; nobody else gets them."""
    links, a, b = LiveLinks(CountingSink()), FakePeer(), FakePeer()
    links.join("s-1", a)
    links.join("s-2", b)
    assert links.to_client("s-2", error("two"))
    assert not links.to_client("s-3", error("none"))
    assert (a.got, b.got) == ([], [error("two")])


@given(st.lists(st.sampled_from(["send", "lose", "back", "refuse"]), max_size=30))
def test_nothing_is_lost_between_a_socket_and_the_next(moves: list[str]) -> None:
    """Across losses and returns a session hears every message once and in order."""
    links, heard = LiveLinks(CountingSink()), list[Any]()
    peer: FakePeer | None = FakePeer()
    assert peer is not None
    links.join("s", peer)
    sent = 0
    for move in moves:
        if move == "send":
            assert links.to_client("s", error(str(sent)))
            sent += 1
        elif move == "lose" and peer is not None:
            heard += peer.got
            assert links.part("s", peer, [])
            peer = None
        elif move == "back" and peer is None:
            peer = FakePeer()
            links.join("s", peer)
        elif move == "refuse" and peer is not None:
            peer.takes = False
    if peer is not None:
        heard += peer.got
        links.part("s", peer, [])
    last = FakePeer()
    links.join("s", last)
    assert [one.message for one in heard + last.got] == [str(number) for number in range(sent)]


def test_what_an_outbox_gave_back_comes_before_what_came_later() -> None:
    """The order holds although the later messages were kept first."""
    links, old, new = LiveLinks(CountingSink()), FakePeer(), FakePeer()
    links.join("s", old)
    old.takes = False
    links.to_client("s", error("later"))
    links.part("s", old, [error("earlier")])
    links.join("s", new)
    assert [one.message for one in new.got] == ["earlier", "later"]


def test_what_is_kept_is_bounded_and_the_rest_is_counted() -> None:
    """Beyond the bound an outcome is undelivered, and said to be."""
    sink = CountingSink()
    links, peer = LiveLinks(sink), FakePeer()
    links.join("s", peer)
    links.part("s", peer, [])
    for number in range(KEPT_MAX + 3):
        links.to_client("s", error(str(number)))
    links.to_client("s", progress())
    assert sink.counts == {"results_undelivered": 3}


def test_an_ended_session_counts_the_outcomes_that_nobody_fetched() -> None:
    """The last word of the core ends the session; only outcomes count as undelivered."""
    sink, ended = CountingSink(), list[str]()
    links, peer = LiveLinks(sink), FakePeer()
    links.on_session_end = ended.append
    links.join("s", peer)
    links.part("s", peer, [progress(), error("an answer")])
    links.to_client("s", SessionCloseAck(session_id="s"))
    assert ended == ["s"]
    assert sink.counts == {"results_undelivered": 1}
    assert not links.knows("s")
    assert not links.to_client("s", error("late"))


def test_a_replaced_socket_parts_without_harm() -> None:
    """The old socket's end says nothing about the session or node that moved on."""
    links, old, new = LiveLinks(CountingSink()), FakePeer(), FakePeer()
    links.join("s", old)
    links.join("s", new)
    assert not links.part("s", old, [])
    assert links.sessions_of(new) == ("s",)
    assert links.sessions_of(old) == ()
    links.join_node("n", old)
    links.join_node("n", new)
    assert not links.part_node("n", old)
    assert links.to_node("n", JobCancel(job_id="j"))
    assert links.part_node("n", new)
    assert not links.to_node("n", JobCancel(job_id="j"))
