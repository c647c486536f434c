"""Rooms: one room a session, stable order, and targets that cover every listener once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from simsched.rooms import CODE_COUNT, EXPIRY_NS, RoomBook, RoomRefusal

SESSION = st.sampled_from(["s1", "s2", "s3", "s4", "s5"])
LANGUAGE = st.sampled_from([None, "de", "en", "zh"])


def opened(book: RoomBook, session: str, now_ns: int = 0, language: str | None = None) -> str:
    code = book.create(session, now_ns, preferred_language=language)
    assert isinstance(code, str)
    return code


class Rooms(RuleBasedStateMachine):
    """Rooms under any order of requests, against a list of member lists."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = 0
        self.book = RoomBook(self.draw)
        self.model: dict[str, list[tuple[str, str | None]]] = {}

    def draw(self, attempt: int) -> int:
        # Three codes only: collisions all the time, at the upper edge of the range.
        self.draws += 1
        return CODE_COUNT - 1 - (self.draws + attempt) % 3

    def room_of(self, session: str) -> str | None:
        held = (c for c, members in self.model.items() if session in [m for m, _ in members])
        return next(held, None)

    @rule(session=SESSION, language=LANGUAGE)
    def create(self, session: str, language: str | None) -> None:
        code = self.book.create(session, 0, preferred_language=language)
        if self.room_of(session):
            assert code is RoomRefusal.ALREADY_IN
        else:
            assert isinstance(code, str)
            assert code not in self.model
            assert 100_000 <= int(code) <= 999_999
            self.model[code] = [(session, language)]

    @rule(session=SESSION, language=LANGUAGE, which=st.integers(0, 5))
    def join(self, session: str, language: str | None, which: int) -> None:
        code = [*self.model, "000000"][which % (len(self.model) + 1)]
        refusal = self.book.join(session, code, 0, preferred_language=language)
        if code not in self.model:
            assert refusal is RoomRefusal.NOT_FOUND
        elif self.room_of(session):
            assert refusal is RoomRefusal.ALREADY_IN
        else:
            assert refusal is None
            self.model[code].append((session, language))

    @rule(session=SESSION)
    def leave(self, session: str) -> None:
        code = self.room_of(session)
        assert self.book.leave(session) == code
        if code:
            self.model[code] = [m for m in self.model[code] if m[0] != session]
            if not self.model[code]:
                del self.model[code]

    @invariant()
    def members_and_targets_are_the_models(self) -> None:
        assert len(self.book) == len(self.model)
        for code, members in self.model.items():
            held = [(m.session, m.preferred_language) for m in self.book.members(code)]
            assert held == members
            for speaker, _ in members:
                assert self.book.code_of(speaker) == code
                self.check_targets(speaker, [m for m in members if m[0] != speaker])

    def check_targets(self, speaker: str, others: list[tuple[str, str | None]]) -> None:
        targets = self.book.targets(speaker, "fr")
        assert self.book.others(speaker) == tuple(name for name, _ in others)
        if not others:
            assert targets == {"fr": ()}
            return
        assert list(targets) == list(dict.fromkeys(wanted or "fr" for _, wanted in others))
        for language, names in targets.items():
            assert names == tuple(name for name, wanted in others if (wanted or "fr") == language)


Rooms.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRooms = Rooms.TestCase


def test_a_session_outside_a_room_speaks_to_itself() -> None:
    """One job in its own target language, no targets named."""
    assert RoomBook(lambda _: 0).targets("s", "en") == {"en": ()}


def test_a_room_without_speech_expires_after_half_an_hour() -> None:
    """Speech of any member keeps it; expiry names who was in it and frees them."""
    book = RoomBook(lambda attempt: attempt)
    quiet, lively = opened(book, "a"), opened(book, "c")
    book.join("b", quiet, 5)
    book.spoke("c", 10)
    assert book.expire(EXPIRY_NS - 1) == []
    assert book.expire(EXPIRY_NS) == [(quiet, ("a", "b"))]
    assert (book.code_of("a"), book.code_of("c")) == (None, lively)
    assert book.join("b", lively, 0) is None
    assert book.expire(EXPIRY_NS + 10) == [(lively, ("c", "b"))]
    assert len(book) == 0


def test_raw_voice_is_heard_unless_refused() -> None:
    """A preference holds between members, and ends when its subject leaves."""
    book = RoomBook(lambda _: 7)
    code = opened(book, "a")
    book.join("b", code, 0)
    assert book.hears_raw_voice("a", "b")
    assert not book.hears_raw_voice("a", "a")
    assert book.set_raw_voice("a", "b", receive=False)
    assert not book.hears_raw_voice("a", "b")
    assert book.hears_raw_voice("b", "a")
    assert not book.set_raw_voice("a", "stranger", receive=False)
    assert not book.set_raw_voice("a", "a", receive=False)
    book.leave("b")
    assert not book.hears_raw_voice("a", "b")
    book.join("b", code, 0)
    assert book.hears_raw_voice("a", "b")


def test_rooms_have_a_limit() -> None:
    """Beyond it a room is refused, not an endless search for a code."""
    book = RoomBook(lambda _: 0, rooms_max=2)
    assert [opened(book, "a"), opened(book, "b")] == ["100000", "100001"]
    assert book.create("c", 0) is RoomRefusal.TOO_MANY
