"""Rooms through the scheduler: entering, leaving, calls, languages, and rooms nobody speaks in."""

from __future__ import annotations

import pytest

from simsched.messages import (
    RoomCreate,
    RoomCreateAck,
    RoomError,
    RoomExpired,
    RoomJoin,
    RoomLeave,
    RoomMembers,
    RoomRawVoicePreference,
    TranslationResult,
    WebrtcIce,
    WebrtcOffer,
)
from tests.core.harness import Core, left_over


async def room_of(core: Core, *languages: str) -> str:
    """s-0 opens a room, s-1, s-2, ... join it with their languages."""
    for number in range(len(languages) + 1):
        core.open(f"s-{number}")
    await core.settle()
    core.tell(RoomCreate(client_ts=1, display_name="host", preferred_lang="en"), "s-0")
    code = str(core.told(RoomCreateAck, "s-0")[0].room_code)
    for number, language in enumerate(languages, start=1):
        core.tell(RoomJoin(room_code=code, preferred_lang=language), f"s-{number}")
    return code


def test_everybody_sees_who_is_in_the_room() -> None:
    """room_create_ack, then room_members to all after every change."""
    core = Core()

    async def scenario(core: Core) -> None:
        code = await room_of(core, "zh")
        wish = RoomRawVoicePreference(
            room_code=code, target_session_id="s-0", receive_raw_voice=False
        )
        core.tell(wish, "s-1")
        core.tell(RoomLeave(room_code=code), "s-0")
        await core.settle()

    core.play(scenario)
    seen = [[m.session_id for m in told.members] for told in core.told(RoomMembers, "s-1")]
    assert seen == [["s-0", "s-1"], ["s-0", "s-1"], ["s-1"]]
    wished = core.told(RoomMembers, "s-1")[1].members[1].raw_voice_preferences
    assert wished == {"s-0": False}
    assert core.told(RoomMembers, "s-1")[0].members[0].joined_at.startswith("2030-01-01T00:00:00")


def test_room_requests_that_cannot_be_met_get_their_code() -> None:
    """ROOM_NOT_FOUND and ALREADY_IN_ROOM."""
    core = Core()

    async def scenario(core: Core) -> None:
        code = await room_of(core)
        core.open("s-9")
        core.tell(RoomJoin(room_code="000000"), "s-9")
        core.tell(RoomLeave(room_code=code), "s-9")
        core.tell(RoomCreate(client_ts=1), "s-0")

    core.play(scenario)
    assert [error.code for error in core.told(RoomError, "s-9")] == ["ROOM_NOT_FOUND"] * 2
    assert [error.code for error in core.told(RoomError, "s-0")] == ["ALREADY_IN_ROOM"]


def test_a_call_is_passed_on_with_its_senders_name() -> None:
    """`to` is rewritten to the sender; outsiders get nothing."""
    core = Core()

    async def scenario(core: Core) -> None:
        code = await room_of(core, "zh")
        core.open("s-9")
        core.tell(WebrtcOffer(room_code=code, to="s-1", sdp={"a": None}), "s-0")
        core.tell(WebrtcIce(room_code=code, to="s-9", candidate="c"), "s-0")
        core.tell(WebrtcIce(room_code=code, to="s-0", candidate="c"), "s-9")

    core.play(scenario)
    (offer,) = core.told(WebrtcOffer)
    assert (offer.to, offer.sdp) == ("s-0", {"a": None})
    assert not core.told(WebrtcIce)


@pytest.mark.parametrize("results", ["by_language", "overwrite"])
def test_one_utterance_is_a_job_per_language_and_reaches_its_listeners(results: str) -> None:
    """Members hear their language, the speaker hears nothing; `overwrite` loses some (B13)."""
    core = Core(f"safe,room_results={results}")
    core.node("n1", slots=8, languages=("de", "en", "fr", "zh"))

    async def scenario(core: Core) -> None:
        await room_of(core, "zh", "de", "zh", "fr")
        core.chunk("s-0", final=True)
        await core.settle(300)
        core.chunk("s-0", final=True)
        await core.settle(300)
        for node, job in sorted(core.assigned(), key=lambda entry: -entry[1].utterance_index):
            core.answer(job, node, f"{job.tgt_lang}{job.utterance_index}")
            await core.settle()

    core.play(scenario)
    assert [job.tgt_lang for _, job in core.assigned()] == ["zh", "de", "fr"] * 2
    heard = {
        s: [r.text_translated for r in core.told(TranslationResult, s)]
        for s in ("s-0", "s-1", "s-2", "s-3", "s-4")
    }
    if results == "by_language":
        assert heard == {
            "s-0": [], "s-1": ["zh0", "zh1"], "s-2": ["de0", "de1"], "s-3": ["zh0", "zh1"],
            "s-4": ["fr0", "fr1"],
        }  # fmt: skip
    else:
        assert sum(len(texts) for texts in heard.values()) < 8


def test_a_room_in_which_nobody_speaks_is_closed() -> None:
    """After 30 minutes without speech, seen by the scan; speech keeps it open."""
    core = Core()
    core.node("n1", slots=8)

    async def scenario(core: Core) -> None:
        await room_of(core, "zh")
        await core.at(20 * 60_000)
        core.beat("n1")
        core.chunk("s-0", final=True)
        await core.at(49 * 60_000)
        assert not core.told(RoomExpired)
        await core.at(52 * 60_000)

    core.play(scenario)
    assert len(core.told(RoomExpired, "s-0")) == len(core.told(RoomExpired, "s-1")) == 1
    assert len(core.schedulers[0].state.rooms) == 0


def test_who_closes_the_session_leaves_the_room() -> None:
    """The others see it go."""
    core = Core()

    async def scenario(core: Core) -> None:
        await room_of(core, "zh")
        core.close("s-0")
        await core.settle(300)

    core.play(scenario)
    assert [m.session_id for m in core.told(RoomMembers, "s-1")[-1].members] == ["s-1"]


def test_a_room_is_served_by_nodes_of_other_instances() -> None:
    """Each language is one job, whosever node runs it; answers find the members of the room."""
    core = Core(instances=2)
    core.node("n1", slots=1, languages=("en", "zh"))
    core.node("n2", home=1, slots=1, languages=("de", "en"))
    core.node("n3", home=1, slots=1, languages=("en", "fr"))

    async def scenario(core: Core) -> None:
        await room_of(core, "zh", "de", "zh", "fr")
        core.chunk("s-0", final=True)
        await core.settle(300)
        for node, job in sorted(core.assigned(), key=lambda entry: entry[0], reverse=True):
            core.answer(job, node, job.tgt_lang)
            await core.settle()
        for number in range(5):
            core.close(f"s-{number}")
        await core.settle(300)

    core.play(scenario)
    assert sorted((node, job.tgt_lang) for node, job in core.assigned()) == [
        ("n1", "zh"), ("n2", "de"), ("n3", "fr"),
    ]  # fmt: skip
    heard = {
        s: [r.text_translated for r in core.told(TranslationResult, s)]
        for s in ("s-0", "s-1", "s-2", "s-3", "s-4")
    }
    assert heard == {"s-0": [], "s-1": ["zh"], "s-2": ["de"], "s-3": ["zh"], "s-4": ["fr"]}
    assert [left_over(scheduler) for scheduler in core.schedulers] == [{}, {}]


def test_a_room_of_another_instance_is_not_found() -> None:
    """Rooms live on one instance: who asks elsewhere is told so (decision 11), nobody is lost."""
    core = Core(instances=2)
    core.node("n1")

    async def scenario(core: Core) -> None:
        code = await room_of(core)
        core.open("s-far", home=1)
        await core.settle()
        core.tell(RoomJoin(room_code=code, preferred_lang="zh"), "s-far", home=1)
        core.chunk("s-0", final=True)
        await core.settle(300)
        core.answer(core.assigned()[0][1], "n1")
        await core.settle()

    core.play(scenario)
    assert [str(error.code) for error in core.told(RoomError, "s-far")] == ["ROOM_NOT_FOUND"]
    assert [s for _, s, m in core.heard if isinstance(m, TranslationResult)] == ["s-0"]
