"""The node agent keeps its slots, its fences and its word, whatever the connection does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched import wire
from simsched.errors import ConfigError
from simsched.live import node as node_module
from simsched.live.dialling import Backoff, Refused, address, token_from
from simsched.live.engines import EngineFailure, EngineResult
from simsched.live.node import NodeAgent, ended
from simsched.live.node_answers import failed
from simsched.live.node_profile import NodeOptions, node_options, registration
from simsched.live.vitals import Vitals, memory_percent
from simsched.messages import (
    Error,
    ErrorCode,
    JobAssign,
    JobCancel,
    LanguagePair,
    NodeRegisterAck,
    Pipeline,
)
from tests.live.fake_scheduler import FakeScheduler, Socket, fake_scheduler, run
from tests.live.live_world import world


class HeldEngine:
    """Works on a job until the test says that it is done; counts who works at once."""

    formats = ("pcm16",)

    def __init__(self) -> None:
        self.release: dict[str, asyncio.Event] = {}
        self.working: list[tuple[str, int]] = []
        self.most = 0
        self.closed = False
        self.stubborn_s = 0.0

    async def run(self, job: JobAssign) -> EngineResult:
        event = self.release.setdefault(job.job_id, asyncio.Event())
        key = (job.job_id, job.attempt_id)
        self.working.append(key)
        self.most = max(self.most, len(self.working))
        try:
            await event.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(self.stubborn_s)
            raise
        finally:
            self.working.remove(key)
        if job.tgt_lang == "xx":
            raise EngineFailure("MODEL_NOT_AVAILABLE", "none", {"service_id": "nmt"})
        return EngineResult(text_asr=f"{job.job_id} attempt {job.attempt_id}")

    def finish(self, job_id: str) -> None:
        self.release.setdefault(job_id, asyncio.Event()).set()

    async def close(self) -> None:
        self.closed = True


def assign(job_id: str, attempt: int = 1, **fields: Any) -> JobAssign:
    given: dict[str, Any] = {
        "job_id": job_id, "attempt_id": attempt, "session_id": "s-1", "utterance_index": 3,
        "src_lang": "en", "tgt_lang": "zh", "pipeline": Pipeline(), "audio": bytes(320),
        "audio_format": "pcm16", "sample_rate": 16_000, "trace_id": "t-1",
    }  # fmt: skip
    return JobAssign(**{**given, **fields})


class Agent:
    """A node agent at work, and the far end of its connection."""

    def __init__(self, agent: NodeAgent, engine: HeldEngine, fake: FakeScheduler) -> None:
        self.agent = agent
        self.engine = engine
        self.fake = fake
        self.stop = asyncio.Event()
        self.socket: Socket
        self.hello: dict[str, Any] = {}

    async def join(self, node_id: str = "node-1") -> Socket:
        """Take its next connection and let it in."""
        self.socket = await self.fake.accept()
        self.hello = await self.socket.hear()
        await self.socket.say(NodeRegisterAck(node_id=node_id))
        beat = await self.socket.hear()
        assert beat["type"] == "node_heartbeat"
        return self.socket


async def _left(working: asyncio.Task[None]) -> BaseException | None:
    """Wait for an agent that was asked to stop."""
    await asyncio.wait({working})
    return working.exception()


@asynccontextmanager
async def agent_at_work(**options: Any) -> AsyncIterator[Agent]:
    async with fake_scheduler() as fake:
        engine = HeldEngine()
        given: dict[str, Any] = {"slots": 2, "drain_s": 5.0, **options}
        agent = NodeAgent(node_options(fake.url, **given), engine)
        held = Agent(agent, engine, fake)
        working = asyncio.create_task(agent.run(held.stop))
        try:
            await held.join()
            yield held
        finally:
            failure = await (_left(working) if held.stop.is_set() else ended(working))
            assert engine.closed
            assert not engine.working
        if failure is not None:
            raise failure


def test_it_registers_with_what_it_was_told_and_beats_at_once() -> None:
    """Languages, slots, services, hardware and the token go out as the protocol has them."""

    async def main() -> None:
        async with agent_at_work(
            languages="en,zh,de", token="secret", node_id="node-7", heartbeat_s=0.05
        ) as held:
            hello = held.hello
            assert hello["type"] == "node_register"
            assert hello["node_id"] == "node-7"
            assert hello["capability_schema_version"] == "2.0"
            assert hello["slots"] == 2
            assert "running" not in hello
            assert hello["hardware"]["gpus"]
            assert {entry["type"] for entry in hello["capability_by_type"] if entry["ready"]} >= {
                "asr", "nmt", "tts",
            }  # fmt: skip
            assert hello["language_capabilities"]["tts_languages"] == ["en", "zh", "de"]
            assert held.socket.path == "/ws/node"
            assert held.socket.headers["Authorization"] == "Bearer secret"
            again = await held.socket.hear("node_heartbeat")
            assert again["node_id"] == "node-1"
            assert again["resource_usage"]["running_jobs"] == 0
            assert 0 <= again["resource_usage"]["mem_percent"] <= 100

    run(main())


def test_a_job_is_acknowledged_started_and_answered() -> None:
    """Ack and start name the attempt; the result carries the text and the times."""

    async def main() -> None:
        async with agent_at_work() as held:
            held.engine.finish("j")
            await held.socket.say(assign("j", 4, group_id="g", part_index=2))
            kinds = [(await held.socket.hear())["type"] for _ in range(2)]
            assert kinds == ["job_ack", "job_started"]
            result = await held.socket.hear("job_result")
            assert result["success"]
            assert result["text_asr"] == "j attempt 4"
            assert (result["node_id"], result["session_id"]) == ("node-1", "s-1")
            assert (result["utterance_index"], result["trace_id"]) == (3, "t-1")
            assert (result["group_id"], result["part_index"]) == ("g", 2)
            assert result["extra"]["service_timings"]["total_ms"] >= 0

    run(main())


def test_a_failure_keeps_its_code_and_details() -> None:
    """The engine's own word reaches the scheduler."""

    async def main() -> None:
        async with agent_at_work() as held:
            held.engine.finish("j")
            await held.socket.say(assign("j", tgt_lang="xx"))
            result = await held.socket.hear("job_result")
            assert not result["success"]
            assert result["error"]["code"] == "MODEL_NOT_AVAILABLE"
            assert result["error"]["details"] == {"service_id": "nmt"}

    run(main())


def test_no_more_jobs_run_than_there_are_slots() -> None:
    """Of twenty at once two run, the others are refused with NODE_OVERLOADED; all are answered."""

    async def main() -> None:
        async with agent_at_work() as held:
            for number in range(20):
                await held.socket.say(assign(f"j{number}"))
            results = [await held.socket.hear("job_result") for _ in range(18)]
            assert {result["error"]["code"] for result in results} == {"NODE_OVERLOADED"}
            assert [job.job_id for job in held.agent.running] == ["j0", "j1"]
            for name in ("j0", "j1"):
                held.engine.finish(name)
                assert (await held.socket.hear("job_result"))["success"]
            assert held.engine.most == 2

    run(main())


def test_a_cancelled_job_stops_and_has_no_answer() -> None:
    """Its slot is free for the next job, which never runs beside more than the slots allow."""

    async def main() -> None:
        async with agent_at_work(slots=1) as held:
            held.engine.stubborn_s = 0.05
            await held.socket.say(assign("j"))
            await held.socket.hear("job_started")
            await held.socket.say(JobCancel(job_id="j", reason="job_timeout"))
            await held.socket.say(assign("k"))
            held.engine.finish("k")
            result = await held.socket.hear("job_result")
            assert result["job_id"] == "k"
            assert result["success"]
            assert held.engine.most == 1
            await held.socket.silence()

    run(main())


def test_fences_are_obeyed() -> None:
    """An older attempt is refused, the same again passed over, a newer one takes its place."""

    async def main() -> None:
        async with agent_at_work() as held:
            await held.socket.say(assign("j", 2))
            await held.socket.hear("job_started")
            await held.socket.say(assign("j", 1))
            refused = await held.socket.hear("job_result")
            assert (refused["attempt_id"], refused["success"]) == (1, False)
            await held.socket.say(assign("j", 2))
            await held.socket.silence(0.1)
            await held.socket.say(assign("j", 3))
            await held.socket.hear("job_started")
            assert [(job.job_id, job.attempt_id) for job in held.agent.running] == [("j", 3)]
            held.engine.finish("j")
            result = await held.socket.hear("job_result")
            assert (result["attempt_id"], result["success"]) == (3, True)
            await held.socket.silence(0.1)

    run(main())


@pytest.mark.parametrize("orderly", [True, False])
def test_it_comes_back_says_what_still_runs_and_hands_in_what_ended(orderly: bool) -> None:
    """A broken connection breaks no work: nothing is lost, nothing is answered twice."""

    async def main() -> None:
        async with agent_at_work() as held:
            for name in ("ends", "runs"):
                await held.socket.say(assign(name))
                await held.socket.hear("job_started")
            if orderly:
                await held.socket.close(1012, "service restart")
            else:
                held.socket.cut()
            while held.agent.connected.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            held.engine.finish("ends")
            await held.join()
            assert held.hello["node_id"] == "node-1"
            named = {(entry["job_id"], entry["attempt_id"]) for entry in held.hello["running"]}
            assert ("runs", 1) in named
            result = await held.socket.hear("job_result")
            assert (result["job_id"], result["success"]) == ("ends", True)
            held.engine.finish("runs")
            assert (await held.socket.hear("job_result"))["job_id"] == "runs"
            await held.socket.silence(0.1)

    run(main())


def test_kept_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that never comes back does not fill the node's memory."""
    monkeypatch.setattr(node_module, "KEPT_RESULTS_MAX", 3)

    async def main() -> None:
        agent = NodeAgent(NodeOptions(url="ws://127.0.0.1:1"), HeldEngine())
        for number in range(9):
            await agent._deliver(failed(assign(f"j{number}"), "n", EngineFailure("X", "x")))
        assert [result.job_id for result in agent._kept] == ["j6", "j7", "j8"]

    run(main())


def test_asked_to_stop_it_finishes_and_takes_nothing_new() -> None:
    """What runs is answered, what comes is refused with NODE_UNAVAILABLE, then it leaves."""

    async def main() -> None:
        async with agent_at_work() as held:
            await held.socket.say(assign("j"))
            await held.socket.hear("job_started")
            held.stop.set()
            beat = await held.socket.hear("node_heartbeat")
            assert not any(entry["ready"] for entry in beat["capability_by_type"])
            await held.socket.say(assign("k"))
            assert (await held.socket.hear("job_result"))["error"]["code"] == "NODE_UNAVAILABLE"
            held.engine.finish("j")
            assert (await held.socket.hear("job_result"))["success"]
            await held.socket._connection.wait_closed()

    run(main())


def test_asked_to_stop_it_leaves_at_its_deadline() -> None:
    """What could not be finished is handed back, so that somebody else can do it."""

    async def main() -> None:
        async with agent_at_work(drain_s=0.1) as held:
            await held.socket.say(assign("j"))
            await held.socket.hear("job_started")
            held.stop.set()
            result = await held.socket.hear("job_result")
            assert result["error"]["code"] == "NODE_UNAVAILABLE"
            await held.socket._connection.wait_closed()
            assert not held.engine.working

    run(main())


REFUSALS = [
    (Error(code=ErrorCode.INVALID_CAPABILITY_SCHEMA, message="must be 2.0"), "must be 2.0"),
    (Error(code=ErrorCode.NO_GPU_AVAILABLE, message="no GPU"), "NO_GPU_AVAILABLE"),
]


@pytest.mark.parametrize(("error", "says"), REFUSALS)
def test_a_refusal_for_good_ends_it_with_one_line(error: Error, says: str) -> None:
    """Trying again would not help: the scheduler's own words are the last line."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            working = asyncio.create_task(NodeAgent(node_options(fake.url), HeldEngine()).run())
            socket = await fake.accept()
            await socket.hear()
            await socket.say(error)
            with pytest.raises(Refused, match=says):
                await working

    run(main())


def test_a_wrong_token_ends_it_with_one_line() -> None:
    """Whether the server says so by HTTP or by a close code."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            working = asyncio.create_task(NodeAgent(node_options(fake.url), HeldEngine()).run())
            await (await fake.accept()).close(4401, "a valid token is needed")
            with pytest.raises(Refused, match="a valid token is needed"):
                await working
        async with fake_scheduler(
            process_request=lambda c, r: c.respond(401, "no token\n")
        ) as fake:
            with pytest.raises(Refused, match="HTTP 401"):
                await NodeAgent(node_options(fake.url), HeldEngine()).run()

    run(main())


def test_a_name_in_use_is_tried_again() -> None:
    """The scheduler may not have noticed yet that the old connection is gone."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            agent = NodeAgent(node_options(fake.url, node_id="n"), HeldEngine())
            working = asyncio.create_task(agent.run())
            socket = await fake.accept()
            await socket.hear()
            await socket.say(Error(code=ErrorCode.NODE_ID_CONFLICT, message="in use"))
            again = await fake.accept()
            assert (await again.hear())["node_id"] == "n"
            await again.say(NodeRegisterAck(node_id="n"))
            await agent.connected.wait()
            await ended(working)

    run(main())


def test_what_it_does_not_understand_does_not_hurt() -> None:
    """Frames of a newer scheduler, or nonsense, are passed over."""

    async def main() -> None:
        async with agent_at_work() as held:
            for frame in ("{", b"\x00\xff", '{"type":"node_dance"}', '{"type":"job_assign"}'):
                await held.socket.say(frame)
            held.engine.finish("j")
            await held.socket.say(assign("j"))
            assert (await held.socket.hear("job_result"))["success"]

    run(main())


def test_a_real_scheduler_takes_it_in_and_gets_its_answers() -> None:
    """Twenty utterances at once on four slots: never more than four, every one answered."""

    async def main() -> None:
        async with world() as live:
            engine = HeldEngine()
            agent = NodeAgent(node_options(live.url(""), slots=4), engine)
            working = asyncio.create_task(agent.run())
            await agent.connected.wait()
            async with live.client() as client:
                for number in range(20):
                    await client.utterance(number)
                answered = 0
                while answered < 20:
                    for event in engine.release.values():
                        event.set()
                    message = await client.hear()
                    answered += message["type"] in ("translation_result", "error")
                assert 1 <= engine.most <= 4
            await ended(working)

    run(main())


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_pauses_grow_stay_bounded_and_differ(draws: list[float]) -> None:
    """Each lies between half of its step and all of it; a success starts anew."""
    drawn = iter(draws)
    backoff = Backoff(lambda: next(drawn), first_s=0.2, most_s=15.0)
    for place in range(len(draws)):
        step_s = min(15.0, 0.2 * 2**place)
        assert step_s / 2 <= backoff.next_s() <= step_s
    backoff.reset()
    drawn = iter([0.0])
    assert backoff.next_s() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("localhost:5010", "ws://localhost:5010/ws/node"),
        ("http://host", "ws://host/ws/node"),
        ("https://host/", "wss://host/ws/node"),
        ("ws://host:1/other/path", "ws://host:1/other/path"),
        ("ws://[::1]:5010", "ws://[::1]:5010/ws/node"),
    ],
)
def test_addresses_are_taken_as_people_write_them(given: str, meant: str) -> None:
    """Scheme and path are filled in."""
    assert address(given, "/ws/node") == meant


@pytest.mark.parametrize(
    "given", ["ftp://host", "ws://", "ws://host:port", "ws://u:p@host", "ws://host/?token=x"]
)
def test_an_address_that_is_none_or_gives_a_token_away_is_refused(given: str) -> None:
    """A token in an address ends up in logs."""
    with pytest.raises(ConfigError):
        address(given, "/ws/node")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"slots": 0}, "slots"),
        ({"node_id": "a b"}, "id"),
        ({"languages": "en", "pairs": "en-zh"}, "not both"),
        ({"pairs": "en"}, "en-zh"),
        ({"pairs": "zh-CN-en"}, "zh-CN:en-US"),
        ({"languages": "en,z{h"}, "no language"),
        ({"services": "asr,magic"}, "magic"),
        ({"heartbeat_s": 0}, "heartbeat"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: dict[str, Any], says: str) -> None:
    """The line names the option and what would be right."""
    with pytest.raises(ConfigError, match=says):
        node_options("localhost", **options)


def test_pairs_say_exactly_what_is_translated() -> None:
    """With pairs, a node hears their sources, speaks their targets, and offers no other way."""
    options = node_options("localhost", pairs="en-zh,de-zh,zh-CN:en-US")
    spoken = registration(options, "", ()).language_capabilities
    assert spoken is not None
    assert spoken.asr_languages == ("de", "en", "zh-CN")
    assert spoken.tts_languages == ("en-US", "zh")
    assert spoken.supported_language_pairs == (
        LanguagePair(src="en", tgt="zh"), LanguagePair(src="de", tgt="zh"),
        LanguagePair(src="zh-CN", tgt="en-US"),
    )  # fmt: skip


@given(st.booleans(), st.integers(1, 100), st.sampled_from(["", "en,zh", "de"]))
@settings(max_examples=20)
def test_every_registration_is_understood(gpu: bool, slots: int, languages: str) -> None:
    """What goes out is what the scheduler's decoder reads."""
    options = node_options("localhost", slots=slots, languages=languages, gpu=gpu)
    hello = registration(options, "n", ())
    assert wire.decode_node(wire.encode(hello)) == hello
    assert bool(hello.hardware.gpus) == gpu


def test_a_token_can_come_from_a_file(tmp_path: Path) -> None:
    """So that no list of processes shows it."""
    file = tmp_path / "token"
    file.write_text("secret\nmore\n")
    assert token_from("", file) == "secret"
    assert token_from("given", file) == "given"
    with pytest.raises(ConfigError):
        token_from("", tmp_path / "none")


def test_vitals_are_percentages(tmp_path: Path) -> None:
    """Whatever the system says, they lie between 0 and 100."""
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 200 kB\nMemAvailable: 50 kB\n")
    assert memory_percent(file) == 75.0
    assert memory_percent(tmp_path / "none") == 0.0
    assert 0.0 <= Vitals().cpu_percent() <= 100.0


def test_a_node_that_has_just_started_does_not_call_itself_overloaded() -> None:
    """A tick of 10 ms in a look of 5 ms is no full core: too short a look says nothing."""
    moments = iter([0.0, 0.005, 1.5, 1.6])
    vitals = Vitals(lambda: next(moments))
    spent = time.process_time()
    while time.process_time() - spent < 0.05:
        pass
    assert vitals.cpu_percent() == 0.0
    share = vitals.cpu_percent()
    assert 0.0 < share < 100.0
    assert vitals.cpu_percent() == share
