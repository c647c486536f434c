"""A load says what became of every utterance, from when it was due, and nothing else."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simsched.models.journal as simulated
from simsched import wire
from simsched.errors import ConfigError
from simsched.live import load_report
from simsched.live.cuts import CutForecast
from simsched.live.engines import EchoEngine
from simsched.live.load import Load
from simsched.live.load import main as load
from simsched.live.load_options import LoadOptions, load_options, read_load
from simsched.live.load_report import LoadReport, columns
from simsched.live.load_session import Meters
from simsched.live.node import NodeAgent, ended
from simsched.live.node_profile import node_options
from simsched.live.tally import NEVER, Line, SessionTally, Tally, quantiles
from simsched.messages import (
    ErrorCode,
    MissingResult,
    SessionCloseAck,
    SessionInitAck,
    TranslationResult,
    UiEvent,
    UiEventType,
    UiStatus,
)
from simsched.models.workload import Workload
from simsched.segmentation import SegmentationSettings
from simsched.units import MS, SECOND
from tests.live.fake_scheduler import FakeScheduler, Socket, fake_scheduler, run
from tests.live.live_world import world

# What can happen to one utterance, as (what, number of times).
FACTS = ("expect", "event", "result", "missed", "refused")
happenings = st.lists(st.tuples(st.sampled_from(FACTS), st.integers(0, 4)), max_size=40)


def booked(facts: list[tuple[str, int]]) -> SessionTally:
    tally = SessionTally("s", "zh")
    for at, (what, index) in enumerate(facts):
        match what:
            case "expect":
                tally.expect(index, at)
            case "event":
                tally.event(index, at, f"job {index}")
            case "result":
                tally.result(index, at, f"job {index}")
            case "missed":
                tally.missed(index, at, "silence_detected")
            case "refused":
                tally.refused(index, at, "JOB_TIMEOUT")
    return tally


def line_by_hand(facts: list[tuple[str, int]], index: int) -> Line:
    """The rules once more, by counting."""
    of = [what for what, number in facts if number == index]
    finals = of.count("result") + of.count("missed")
    if finals > 1:
        return Line.TWICE
    if finals == 1:
        return Line.ANSWERED if "result" in of else Line.MISSED
    return Line.REFUSED if "refused" in of else Line.LOST


@given(happenings)
def test_every_utterance_is_in_exactly_one_line(facts: list[tuple[str, int]]) -> None:
    """The lines add up to the utterances, and each is what the facts say."""
    entries = booked(facts).entries()
    assert [entry.utterance for entry in entries] == sorted({index for _, index in facts})
    for entry in entries:
        assert entry.line is line_by_hand(facts, entry.utterance)
        assert bool(entry.reason) >= (entry.line in (Line.MISSED, Line.REFUSED))
        assert entry.unforeseen == (("expect", entry.utterance) not in facts)
    tally = Tally()
    tally.add(entries)
    assert sum(tally.lines.values()) == tally.utterances == len(entries)
    assert tally.is_clean == (
        not any(entry.line in (Line.LOST, Line.TWICE) or entry.out_of_order for entry in entries)
    )


@given(happenings, st.randoms(use_true_random=False))
def test_the_line_does_not_depend_on_the_order_of_booking(
    facts: list[tuple[str, int]], chance: Any
) -> None:
    """An answer that is booked before its cut is no other answer."""
    mixed = facts.copy()
    chance.shuffle(mixed)
    lines = [(entry.utterance, entry.line) for entry in booked(facts).entries()]
    assert lines == [(entry.utterance, entry.line) for entry in booked(mixed).entries()]


@given(st.permutations(range(6)))
def test_out_of_order_is_whoever_comes_after_a_later_one(order: list[int]) -> None:
    """In order there is none; else exactly those below the highest that came before."""
    tally = booked([("result", index) for index in order])
    late = {index for place, index in enumerate(order) if any(o > index for o in order[:place])}
    assert {entry.utterance for entry in tally.entries() if entry.out_of_order} == late


@given(st.lists(st.integers(0, 10**9), max_size=200))
def test_quantiles_are_times_that_were_measured(times: list[int]) -> None:
    """Nearest rank: at least that share is no longer than the figure, and it is one of them."""
    found = quantiles(times)
    assert found.n == len(times)
    if not times:
        assert math.isnan(found.p50_ms)
        return
    for share, value in ((0.5, found.p50_ms), (0.95, found.p95_ms), (0.99, found.p99_ms)):
        assert value in {time / 1e6 for time in times}
        assert sum(time / 1e6 <= value for time in times) >= share * len(times)
        assert sum(time / 1e6 < value for time in times) < share * len(times)


@given(
    chunks=st.lists(
        st.tuples(st.integers(1, 8_000), st.integers(0, 4_000), st.booleans()), max_size=30
    ),
    pause_ms=st.sampled_from([0, 500, 3_000]),
    most_ms=st.sampled_from([1_000, 10_000]),
)
def test_all_that_is_said_is_foreseen_to_be_cut(
    chunks: list[tuple[int, int, bool]], pause_ms: int, most_ms: int
) -> None:
    """Cuts are due in order, none before its silence and hangover, and nothing stays uncut."""
    rules = SegmentationSettings(pause_ms=pause_ms, max_duration_ms=most_ms)
    forecast, at_ns, spoken = CutForecast(rules), 0, 0
    cuts: list[int] = []
    for audio_ms, gap_ms, final in chunks:
        at_ns += gap_ms * MS
        cuts += forecast.chunk(at_ns, 32 * audio_ms, audio_ms * MS, is_final=final)
        spoken += 1
    cuts += forecast.close(at_ns + 10 * SECOND)
    assert not forecast.holds_audio
    assert cuts == sorted(cuts)
    assert (not chunks) or 1 <= len(cuts) <= spoken
    finals = sum(final for _, _, final in chunks)
    assert len(cuts) >= finals
    assert not cuts or cuts[0] >= rules.hangover_auto_ms * MS


def test_a_turn_that_ends_in_silence_is_cut_after_the_silence() -> None:
    """Three seconds and the hangover after the last chunk, and only when they have passed."""
    forecast = CutForecast(SegmentationSettings())
    assert forecast.chunk(SECOND, 3_200, 100 * MS, is_final=False) == []
    assert forecast.until(4 * SECOND) == []
    assert forecast.until(4 * SECOND + 1) == [4 * SECOND + 150 * MS]
    assert forecast.until(9 * SECOND) == []
    assert forecast.chunk(10 * SECOND, 3_200, 100 * MS, is_final=True) == [10 * SECOND + 200 * MS]


FILE = """
name = "a study"

[scenario]
nodes = 3

[scenario.workload]
arrivals = { kind = "poisson", rate_per_s = 7 }
utterances = 2
codec = "pcm16"

[scenario.segmentation]
pause_ms = 700
"""


def test_a_study_s_own_file_says_the_load(tmp_path: Path) -> None:
    """The same tables as in a simulation give the same speakers."""
    file = tmp_path / "study.toml"
    file.write_text(FILE)
    workload, segmentation = read_load(file)
    own = {
        "arrivals": {"kind": "poisson", "rate_per_s": 7}, "utterances": 2, "codec": "pcm16",
    }  # fmt: skip
    assert workload == Workload.parse(own)
    assert segmentation.pause_ms == 700
    file.write_text(FILE.replace("scenario.", "").replace("[scenario]\nnodes = 3\n", ""))
    assert read_load(file) == (workload, segmentation)
    assert load_options("host", file=file, rate_per_s=3).workload.arrivals.rate_per_s == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[workload]\narrivals = 3", "arrivals"),
        ("[workload]\narrivals = { kind = 'poisson', rate_per_s = 1 }\nutterence = 3", "utterance"),
        ("workload = 3", "table"),
        (
            "[workload]\narrivals = { kind = 'poisson', rate_per_s = 1 }\n"
            "[segmentation]\npause = 3",
            "pause_ms",
        ),
        (
            "[workload]\narrivals = { kind = 'poisson', rate_per_s = 1 }\n[segmentation]\n"
            "pause_ms = '3 s'",
            "whole number",
        ),
        ("[other]", "workload"),
        ("[workload", "not TOML"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    """The line names the file, the key and what would be right."""
    file = tmp_path / "load.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        read_load(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "given",
    [{"duration_s": 0}, {"duration_s": None}, {"sessions": 0}, {"answer_s": 0}, {"url": "ftp://x"}],
)
def test_a_wrong_option_is_one_clear_line(given: dict[str, Any]) -> None:
    """Above all, a load that would never end."""
    with pytest.raises(ConfigError):
        load_options(**{"url": "localhost", **given})


def test_the_table_is_that_of_a_simulated_run() -> None:
    """Same columns, same names of states."""
    assert load_report.TIMES == simulated.TIMES
    assert load_report.STATUSES == simulated.STATUSES
    named = {"variant", "replication", "utterance", "attempts", "phase", "status"}
    named |= {*simulated.TIMES, *simulated.NAMES, *simulated.WORDS}
    assert set(columns([])) == named


SHORT: dict[str, Any] = {
    "arrivals": {"kind": "recorded", "times_s": [0, 0.01, 0.02, 0.05]},
    "utterances": 2,
    "languages": [{"source": "en", "target": "zh"}],
    "speech": {"kind": "constant", "value_ms": 250},
    "pause": {"kind": "constant", "value_ms": 100},
    "manual_cut_share": 1.0,
}


def options_for(url: str, out: Path | None = None, **given: Any) -> LoadOptions:
    workload = Workload.parse({**SHORT, **given.pop("workload", {})})
    return LoadOptions(url=f"{url}/ws/session", workload=workload, out=out, **given)


@pytest.mark.parametrize(
    ("codec", "mode", "binary"),
    [("opus", "audio_chunk", True), ("pcm16", "audio_chunk", False), ("opus", "utterance", True)],
)
def test_a_sound_server_answers_everything_once(
    tmp_path: Path, codec: str, mode: str, binary: bool
) -> None:
    """Chunks or whole turns, binary or JSON: eight of eight, on the table and in the files."""
    lines: list[str] = []

    async def main() -> int:
        async with world() as live:
            agent = NodeAgent(node_options(live.url(""), slots=8), EchoEngine())
            working = asyncio.create_task(agent.run())
            await agent.connected.wait()
            options = options_for(
                live.url(""), tmp_path / "out", binary=binary,
                workload={"codec": codec, "mode": mode},
            )  # fmt: skip
            code = await load(options, lines.append, tell=lines.append)
            await ended(working)
            return code

    assert run(main()) == 0
    figures = json.loads((tmp_path / "out" / "load.json").read_text())
    assert (figures["answered"], figures["utterances"], figures["sessions"]) == (8, 8, 4)
    assert (figures["lost"], figures["twice"], figures["out_of_order"]) == (0, 0, 0)
    assert figures["unforeseen"] == 0
    assert 0 <= figures["cut_to_result_ms"]["p50_ms"] < 5_000
    assert "answered once" in "\n".join(lines)
    table = pq.read_table(tmp_path / "out" / "jobs.parquet").to_pandas()
    assert sorted(table["utterance"]) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (table["delivered_ns"] > table["cut_ns"]).all()
    assert (table["created_ns"] == NEVER).all()
    assert set(table["status"]) == {"completed"}
    assert table["job"].is_unique


class Answers:
    """A far end that answers whole utterances as a test says."""

    def __init__(self, fake: FakeScheduler) -> None:
        self._fake = fake

    async def serve(self, sessions: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(sessions):
                socket = await self._fake.accept()
                group.create_task(self._session(socket, f"s-{number}"))

    async def _session(self, socket: Socket, session: str) -> None:
        hello = await socket.hear()
        await self.hello(socket, hello, session)
        while True:
            message = await socket.hear()
            if message["type"] == "session_close":
                await self.last(socket, session)
                await socket.say(SessionCloseAck(session_id=session))
                return
            await self.utterance(socket, session, message["utterance_index"])

    async def hello(self, socket: Socket, _hello: dict[str, Any], session: str) -> None:
        await socket.say(SessionInitAck(session_id=session, trace_id="t"))

    async def utterance(self, socket: Socket, session: str, index: int) -> None:
        await self.answer(socket, session, index)

    async def answer(self, socket: Socket, session: str, index: int) -> None:
        await socket.say(
            TranslationResult(
                session_id=session, utterance_index=index, job_id=f"{session}:{index}",
                text_asr="a", text_translated="b", tts_audio=b"", tts_format="pcm16",
                trace_id="t", scheduler_sent_at_ms=1,
            )
        )  # fmt: skip

    async def last(self, socket: Socket, session: str) -> None:
        """What comes right before the end."""


class Twice(Answers):
    async def last(self, socket: Socket, session: str) -> None:
        await self.answer(socket, session, 1)


class Silent(Answers):
    async def utterance(self, socket: Socket, session: str, index: int) -> None:
        if index == 0:
            await self.answer(socket, session, index)


class Backwards(Answers):
    async def utterance(self, socket: Socket, session: str, index: int) -> None:
        if index == 1:
            await self.answer(socket, session, 1)
            await self.answer(socket, session, 0)


class Refusing(Answers):
    async def utterance(self, socket: Socket, session: str, index: int) -> None:
        await socket.say(
            UiEvent(
                trace_id="t", session_id=session, job_id="j", utterance_index=index,
                event=UiEventType.ERROR, status=UiStatus.ERROR,
                error_code=ErrorCode.NO_AVAILABLE_NODE,
            )
        )  # fmt: skip


class Missing(Answers):
    async def utterance(self, socket: Socket, session: str, index: int) -> None:
        await socket.say(
            MissingResult(
                session_id=session, utterance_index=index, reason="gap_timeout", created_at_ms=1
            )
        )


class Unwilling(Answers):
    async def _session(self, socket: Socket, session: str) -> None:
        await socket.hear()
        await socket.say({"type": "error", "code": "SERVER_BUSY", "message": "full"})


class Dropping(Answers):
    async def utterance(self, socket: Socket, session: str, index: int) -> None:
        socket.cut()

    async def _session(self, socket: Socket, session: str) -> None:
        with pytest.raises(Exception, match="close frame"):
            await super()._session(socket, session)


CASES: list[tuple[type[Answers], dict[str, int], int]] = [
    (Answers, {"answered": 8}, 0),
    (Twice, {"answered": 4, "twice": 4}, 1),
    (Silent, {"answered": 4, "lost": 4}, 1),
    (Backwards, {"answered": 8, "out_of_order": 4}, 1),
    (Refusing, {"refused": 8}, 0),
    (Missing, {"missed": 8}, 0),
    (Unwilling, {"refused": 8}, 0),
    (Dropping, {"lost": 4}, 1),
]


@pytest.mark.parametrize(("kind", "expected", "code"), CASES)
def test_every_fault_of_a_server_is_on_its_own_line(
    tmp_path: Path, kind: type[Answers], expected: dict[str, int], code: int
) -> None:
    """Lost, twice and out of order fail the load; misses and refusals are counted with reasons."""

    async def main() -> int:
        async with fake_scheduler() as fake:
            serving = asyncio.create_task(kind(fake).serve(4))
            # What is said after the cable was cut depends on who notices first: one turn will do.
            turns = {"utterances": 1 if kind is Dropping else 2, "mode": "utterance"}
            options = options_for(fake.url, tmp_path, answer_s=0.5, workload=turns)
            found = await load(options, lambda _line: None)
            await serving
            return found

    assert run(main()) == code
    figures = json.loads((tmp_path / "load.json").read_text())
    lines = {line.value for line in Line} | {"out_of_order"}
    assert {name: figures[name] for name in lines if figures[name]} == expected
    reasons = {**figures["reasons"]["missed"], **figures["reasons"]["refused"]}
    if kind in (Refusing, Missing, Unwilling):
        assert sum(reasons.values()) == 8
        assert set(reasons) <= {"NO_AVAILABLE_NODE", "gap_timeout", "SERVER_BUSY"}


def test_latency_counts_from_when_it_was_due(tmp_path: Path) -> None:
    """A server that lets nobody in for a while is not measured by what it saw, but from outside."""

    class Late(Answers):
        async def hello(self, socket: Socket, _hello: dict[str, Any], session: str) -> None:
            await asyncio.sleep(0.4)
            await super().hello(socket, _hello, session)

    async def main() -> None:
        async with fake_scheduler() as fake:
            serving = asyncio.create_task(Late(fake).serve(4))
            options = options_for(fake.url, tmp_path, workload={"mode": "utterance"})
            assert await load(options, lambda _line: None) == 0
            await serving

    run(main())
    figures = json.loads((tmp_path / "load.json").read_text())
    assert figures["cut_to_result_ms"]["p50_ms"] >= 290
    assert figures["connect_ms"]["p50_ms"] >= 390


def test_turns_that_wait_for_the_answer_do_wait() -> None:
    """A closed population speaks on only when it was answered, and stops at the horizon."""

    class Slow(Answers):
        async def utterance(self, socket: Socket, session: str, index: int) -> None:
            await asyncio.sleep(0.3)
            await self.answer(socket, session, index)

    async def main() -> LoadReport:
        async with fake_scheduler() as fake:
            serving = asyncio.create_task(Slow(fake).serve(2))
            closed = {
                "kind": "closed", "population": 2, "think": {"kind": "constant", "value_ms": 10},
            }  # fmt: skip
            table = {**SHORT, "mode": "utterance", "arrivals": closed}
            del table["utterances"]
            options = LoadOptions(url=fake.url, workload=Workload.parse(table), duration_s=1.0)
            report = await Load(options).run()
            await serving
            return report

    report = run(main())
    assert report.exit_code == 0
    assert 2 <= report.tally.utterances <= 10


def test_a_load_that_is_broken_off_says_so() -> None:
    """What was on its way is neither lost nor answered."""

    async def main() -> LoadReport:
        async with fake_scheduler() as fake:
            serving = asyncio.create_task(Silent(fake).serve(4))
            stop = asyncio.Event()
            playing = Load(options_for(fake.url, answer_s=60.0, workload={"mode": "utterance"}))
            running = asyncio.create_task(playing.run(stop))
            while playing.meters.answers < 4:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            stop.set()
            report = await running
            await ended(serving)
            return report

    report = run(main())
    assert report.interrupted
    assert report.tally.lines[Line.LOST] == 0
    assert "interrupted" in report.table()
    assert report.figures()["reasons"]["refused"].get("INTERRUPTED", 0) >= 1


def test_a_server_that_cuts_otherwise_is_told_apart() -> None:
    """Utterances that nobody foresaw are counted, and the remark says what to mend."""
    tally = Tally()
    tally.close(booked([("expect", 0), ("result", 0), ("result", 1)]))
    report = LoadReport(tally=tally, meters=Meters(), seconds=1.0, late=quantiles([]))
    assert report.figures()["unforeseen"] == 1
    assert "segmentation" in report.table()
    assert len(tally.result_times()) == 1


def test_a_generator_that_lags_admits_it() -> None:
    """Its figures would be its own, so the table warns."""
    for late_ms, kept_up in ((1, True), (200, False)):
        report = LoadReport(
            tally=Tally(), meters=Meters(), seconds=1.0, late=quantiles([late_ms * MS] * 10)
        )
        assert report.kept_up == kept_up
        assert ("could not keep up" in report.table()) != kept_up


def test_json_frames_are_what_the_codec_would_write() -> None:
    """Put together from parts, yet the very bytes of the encoder."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            playing = asyncio.create_task(
                Load(options_for(fake.url, binary=False, answer_s=0.2, sessions=1)).run()
            )
            socket = await fake.accept()
            await socket.hear()
            await socket.say(SessionInitAck(session_id="s-1", trace_id="t"))
            frame = await socket.hear_frame()
            assert isinstance(frame, str)
            assert wire.encode(wire.decode_client(frame)).decode() == frame
            await ended(playing)

    run(main())
