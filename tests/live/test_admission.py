"""Who may come in: tokens, origins, bounds, and the word of warning before a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from simsched.errors import ConfigError
from simsched.live import refusals
from simsched.live.admission import Admission, TokenBook, shown_token
from simsched.live.settings import AuthSettings, ServerSettings, Settings
from simsched.messages import BackpressureAction
from simsched.units import MINUTE
from tests.live.live_world import limits


class Clock:
    ns = 0

    def __call__(self) -> int:
        return self.ns


def admission(settings: Settings | None = None) -> Admission:
    return Admission(settings or Settings(), Clock())


def tokens(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tokens"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_token_names_its_owner(tmp_path: Path) -> None:
    """Each line is NAME:TOKEN; a token may hold colons, a wrong one names nobody."""
    book = TokenBook.read(tokens(tmp_path, "# people\n\nanna: one:two \nbert:three\n"))
    assert book.name_of("one:two") == "anna"
    assert book.name_of("three") == "bert"
    assert book.name_of("one") is None
    assert book.name_of("") is None
    assert book.name_of("\ud800") is None


@pytest.mark.parametrize("text", ["", "# nobody\n", "anna\n", "anna:\n", ":token\n"])
def test_a_wrong_file_of_tokens_names_itself(tmp_path: Path, text: str) -> None:
    """An operator reads which file and which line, and what a line is."""
    path = tokens(tmp_path, text)
    with pytest.raises(ConfigError, match="NAME:TOKEN") as caught:
        TokenBook.read(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="readable"):
        TokenBook.read(tmp_path / "none")


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc"}, "abc"),
        ({"authorization": "Basic abc"}, ""),
        ({"sec-websocket-protocol": "simsched, bearer.a.b"}, "a.b"),
        ({"sec-websocket-protocol": "simsched"}, ""),
        ({}, ""),
    ],
)
def test_a_token_is_found_where_it_may_stand(headers: dict[str, str], token: str) -> None:
    """In the Authorization header or among the subprotocols."""
    assert shown_token(headers) == token


@pytest.mark.parametrize("query", ["token=x", "a=1&Access_Token=x", "TOKEN", "key=x"])
def test_a_token_in_the_address_is_refused(query: str) -> None:
    """Addresses end up in logs: whatever looks like a token there is refused, valid or not."""
    refusal = admission().handshake(f"/ws/session?{query}", {}, "a")
    assert refusal is refusals.TOKEN_IN_QUERY
    assert admission().handshake("/ws/session?lang=en", {}, "a") is None


def test_pages_of_other_origins_may_not_connect() -> None:
    """Without a list a page of the same host may; with one only those on it; programs always."""
    host = {"host": "sched.example:5010"}
    own, other = "http://sched.example:5010", "http://evil.example"
    plain = admission()
    assert plain.handshake("/ws/session", host, "a") is None
    assert plain.handshake("/ws/session", {**host, "origin": own}, "a") is None
    refusal = plain.handshake("/ws/session", {**host, "origin": other}, "a")
    assert refusal is refusals.BAD_ORIGIN
    assert plain.handshake("/ws/session", {**host, "origin": "null"}, "a") is refusals.BAD_ORIGIN
    listed = admission(Settings(server=ServerSettings(origins=("http://evil.example",))))
    assert listed.handshake("/ws/session", {**host, "origin": other}, "a") is None
    assert listed.handshake("/ws/session", {**host, "origin": own}, "a") is refusals.BAD_ORIGIN
    every = admission(Settings(server=ServerSettings(origins=("*",))))
    assert every.handshake("/ws/session", {**host, "origin": other}, "a") is None


def test_an_address_with_wrong_tokens_is_shut_out_for_a_minute(tmp_path: Path) -> None:
    """Guessing is bounded per address; after the minute, and elsewhere, the right token works."""
    clock = Clock()
    gate = Admission(
        Settings(
            auth=AuthSettings(node_tokens_file=str(tokens(tmp_path, "n:right\n"))),
            limits=limits(refused_logins_per_min_max=3),
        ),
        clock,
    )
    assert [gate.name_of("node", "wrong", "a") for _ in range(3)] == [None] * 3
    assert gate.name_of("node", "right", "a") is None
    assert gate.handshake("/ws/node", {}, "a") is refusals.SHUT_OUT
    assert gate.name_of("node", "right", "b") == "n"
    assert gate.name_of("client", "anything", "a") == ""
    clock.ns += MINUTE
    assert gate.name_of("node", "right", "a") == "n"


def test_bounds_refuse_and_a_warning_comes_before() -> None:
    """At 80 % of a bound a client is asked to slow down; at the bound it is refused."""
    gate = admission(Settings(limits=limits(sessions_max=10, sessions_per_client_max=5)))
    told, refused = list[int](), 0
    for number in range(12):
        client = f"c{number % 4}"
        if gate.may_open_session(client) is not None:
            refused += 1
            continue
        gate.session_opened(f"s{number}", client)
        asked = gate.pressure(client, 0, 100, is_new=True)
        if asked is not None:
            assert asked.action is BackpressureAction.SLOW_DOWN
            told.append(number)
    assert told == [8, 9]
    assert refused == 2
    gate.session_ended("s0")
    gate.session_ended("s0")
    assert gate.may_open_session("c0") is None


def test_one_client_may_not_take_all_sessions() -> None:
    """The bound per client refuses it alone."""
    gate = admission(Settings(limits=limits(sessions_per_client_max=2)))
    gate.session_opened("a", "greedy")
    gate.session_opened("b", "greedy")
    assert gate.may_open_session("greedy") is refusals.CLIENT_SESSIONS
    assert gate.may_open_session("other") is None


def test_a_full_queue_of_jobs_is_told_before_it_is_full() -> None:
    """BUSY from 80 % of the jobs that may wait."""
    gate = admission()
    assert gate.pressure("c", 79, 100, is_new=False) is None
    asked = gate.pressure("c", 80, 100, is_new=False)
    assert asked is not None
    assert asked.action is BackpressureAction.BUSY
    assert asked.resume_after_ms


def test_a_draining_server_takes_nobody_in() -> None:
    """New sockets, sessions and nodes are sent elsewhere."""
    gate = admission()
    gate.draining = True
    assert gate.handshake("/ws/session", {}, "a") is refusals.RESTART
    assert gate.may_open_session("c") is refusals.RESTART
    assert gate.may_register(0) is refusals.RESTART


def test_every_refusal_says_why_and_fits_its_frame() -> None:
    """A close reason is at most 123 bytes; each refusal has a code or closes."""
    for name, refusal in refusals.TABLE.items():
        assert refusal.text.isascii(), name
        assert len(refusal.text) <= 100, name
        assert refusal.code or refusal.close, name
        assert refusal.close in (0, 1000, 1011, 1012, 1013) or 4000 <= refusal.close < 5000
