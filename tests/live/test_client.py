"""The client library speaks the protocol, keeps its promises over broken connections, and obeys."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched import wire
from simsched.errors import ConfigError, SimschedError
from simsched.live import client as client_module
from simsched.live.client import Client, ConnectionLost
from simsched.live.dialling import Refused
from simsched.live.engines import EchoEngine, EngineResult
from simsched.live.node import NodeAgent, ended
from simsched.live.node_profile import node_options
from simsched.live.pace import Pace
from simsched.live.talk import TalkOptions, lines_of
from simsched.live.talk import main as talk
from simsched.live.wav import WavError, parse_wav, wav_bytes
from simsched.messages import (
    AudioChunk,
    Backpressure,
    BackpressureAction,
    Error,
    JobAssign,
    MissingResult,
    ServerToClient,
    SessionCloseAck,
    SessionInitAck,
    TranslationResult,
)
from tests.live.fake_scheduler import FakeScheduler, Socket, fake_scheduler, run
from tests.live.live_world import world


def result(index: int, session: str = "s-1") -> TranslationResult:
    return TranslationResult(
        session_id=session, utterance_index=index, job_id=f"{session}:{index}:zh",
        text_asr="hello", text_translated="你好", tts_audio=b"\1\0" * 8, tts_format="pcm16",
        trace_id="t", scheduler_sent_at_ms=1,
    )  # fmt: skip


async def greet(fake: FakeScheduler, session: str = "s-1", **ack: Any) -> tuple[Socket, Any]:
    """Take the next connection in; returns it and the client's hello."""
    socket = await fake.accept()
    hello = await socket.hear()
    await socket.say(SessionInitAck(session_id=session, trace_id="t", **ack))
    return socket, hello


async def opened(
    fake: FakeScheduler, client: Client, session: str = "s-1", **ack: Any
) -> tuple[Socket, Any]:
    entering = asyncio.create_task(client.__aenter__())
    socket, hello = await greet(fake, session, **ack)
    await entering
    return socket, hello


async def rest(client: Client) -> list[ServerToClient]:
    return [event async for event in client]


def test_it_says_hello_as_it_was_told() -> None:
    """Languages, tenant, binary frames and resuming are asked for, the token is in a header."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh", token="secret", tenant="acme")
            socket, hello = await opened(fake, client, use_binary_frame=True)
            assert (hello["type"], hello["src_lang"], hello["tgt_lang"]) == (
                "session_init", "en", "zh",
            )  # fmt: skip
            assert hello["tenant_id"] == "acme"
            assert hello["accept_binary_frame"] is True
            assert hello["accept_resume"] is True
            assert "token" not in hello
            assert socket.headers["Authorization"] == "Bearer secret"
            assert socket.path == "/ws/session"
            assert client.binary
            assert client.session_id == "s-1"
            await client.__aexit__(None, None, None)

    run(main())


@pytest.mark.parametrize("binary", [True, False])
@given(audio=st.binary(max_size=200_000))
@settings(max_examples=10, deadline=None)
def test_all_audio_arrives_in_order_and_in_pieces(binary: bool, audio: bytes) -> None:
    """Bytes out are bytes in, numbered, no frame over a second, and the end is said."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh", binary=binary)
            socket, _ = await opened(fake, client, use_binary_frame=binary)
            await client.send_audio(audio)
            await client.finish()
            heard, numbers, final = b"", [], False
            while not final:
                frame = await socket.hear_frame()
                if binary:
                    assert isinstance(frame, bytes)
                    chunk = wire.decode_binary_chunk(frame)
                else:
                    message = wire.decode_client(frame)
                    assert isinstance(message, AudioChunk)
                    chunk = message
                assert len(chunk.payload) <= 32_000
                assert chunk.session_id == "s-1"
                heard += chunk.payload
                numbers.append(chunk.seq)
                final = chunk.is_final
            assert heard == audio
            assert numbers == list(range(len(numbers)))
            assert (await socket.hear())["type"] == "session_close"
            await client.__aexit__(None, None, None)

    run(main())


def test_events_come_in_order_and_end_with_the_session() -> None:
    """Heartbeats are kept back; the acknowledgement of the close is the last event."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh")
            socket, _ = await opened(fake, client)
            await client.finish()
            sent = [result(0), result(1), SessionCloseAck(session_id="s-1")]
            await socket.say({"type": "server_heartbeat", "session_id": "s-1", "timestamp": 1})
            await socket.say('{"type":"of_the_future"}')
            for message in sent:
                await socket.say(message)
            assert await rest(client) == sent
            assert await rest(client) == []
            await client.__aexit__(None, None, None)

    run(main())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=20))
@settings(max_examples=15, deadline=None)
def test_an_answer_that_comes_again_is_dropped(said: list[tuple[bool, int]]) -> None:
    """Of every utterance the first final answer is heard, and no other."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh")
            socket, _ = await opened(fake, client)
            await client.finish()
            for missing, index in said:
                await socket.say(
                    MissingResult(
                        session_id="s-1", utterance_index=index, reason="silence_detected",
                        created_at_ms=1,
                    )
                    if missing
                    else result(index)
                )  # fmt: skip
            await socket.say(SessionCloseAck(session_id="s-1"))
            heard = [
                event.utterance_index
                for event in await rest(client)
                if isinstance(event, TranslationResult | MissingResult)
            ]
            assert heard == list(dict.fromkeys(index for _, index in said))
            assert client.duplicates == len(said) - len(heard)
            await client.__aexit__(None, None, None)

    run(main())


def test_a_broken_session_is_resumed_and_nothing_is_heard_twice() -> None:
    """With the key that the server gave; an answer that comes on both sides of the break is one."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh")
            first, _ = await opened(fake, client, resume_token="key")
            await first.say(result(0))
            first.cut()
            second, hello = await greet(fake, resume_token="key-2")
            assert (hello["resume_session_id"], hello["resume_token"]) == ("s-1", "key")
            await second.say(result(0))
            await second.say(result(1))
            await client.send_audio(bytes(64))
            assert (await second.hear("audio_chunk"))["session_id"] == "s-1"
            await client.finish()
            await second.say(SessionCloseAck(session_id="s-1"))
            heard = [e.utterance_index for e in await rest(client) if hasattr(e, "utterance_index")]
            assert heard == [0, 1]
            assert client.reconnects == 1
            await client.__aexit__(None, None, None)

    run(main())


def test_a_session_that_the_server_forgot_begins_anew() -> None:
    """The key is refused once; the next hello asks for a new session, counted from 0 again."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh")
            first, _ = await opened(fake, client, resume_token="key")
            await first.say(result(0))
            await first.close(1012)
            second = await fake.accept()
            assert "resume_token" in await second.hear()
            await second.say(Error(code="SESSION_CLOSED", message="forgotten"))
            third, hello = await greet(fake, "s-2")
            assert "resume_token" not in hello
            await third.say(result(0, "s-2"))
            await client.finish()
            await third.say(SessionCloseAck(session_id="s-2"))
            heard = [e.session_id for e in await rest(client) if isinstance(e, TranslationResult)]
            assert heard == ["s-1", "s-2"]
            await client.__aexit__(None, None, None)

    run(main())


def test_without_reconnecting_a_break_is_told() -> None:
    """Both sides of the session hear of it: who listens and who speaks."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh", reconnect=False)
            socket, _ = await opened(fake, client)
            await socket.say(result(0))
            await socket.close(1011)
            assert await anext(client) == result(0)
            with pytest.raises(ConnectionLost):
                await anext(client)
            with pytest.raises(ConnectionLost):
                await client.send_audio(bytes(2))
            await client.__aexit__(None, None, None)

    run(main())


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit the session is lost, in one line."""
    monkeypatch.setattr(client_module, "RESUME_LIMIT_S", 0.1)

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh")
            await opened(fake, client)
        with pytest.raises(ConnectionLost):
            await rest(client)
        await client.__aexit__(None, None, None)

    run(main())


def test_who_is_refused_hears_the_server_s_words() -> None:
    """An error instead of the acknowledgement, a close code, an HTTP answer, or nobody there."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            for says in (Error(code="SERVER_BUSY", message="full"), '{"type":"backpressure"}'):
                entering = asyncio.create_task(Client(fake.url, src="en", tgt="zh").__aenter__())
                socket = await fake.accept()
                await socket.hear()
                await socket.say(says)
                with pytest.raises(SimschedError):
                    await entering
            entering = asyncio.create_task(Client(fake.url, src="en", tgt="zh").__aenter__())
            await (await fake.accept()).close(4401, "a valid token is needed")
            with pytest.raises(Refused, match="valid token"):
                await entering
            url = fake.url
        with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1"):
            await Client(url, src="en", tgt="zh").__aenter__()
        with pytest.raises(ConfigError):
            Client("ftp://x", src="en", tgt="zh")

    run(main())


@pytest.mark.parametrize(
    ("action", "least_s"),
    [("PAUSE", 0.3), ("BUSY", 0.3), ("SLOW_DOWN", 0.2)],
)
def test_backpressure_is_obeyed(action: str, least_s: float) -> None:
    """Audio waits for as long as asked; slowed down it goes no faster than it is spoken."""

    async def main() -> None:
        async with fake_scheduler() as fake:
            client = Client(fake.url, src="en", tgt="zh")
            socket, _ = await opened(fake, client)
            order = Backpressure(action=BackpressureAction(action), resume_after_ms=350)
            await socket.say(order)
            assert await anext(client) == order
            began_s = time.monotonic()
            await client.send_audio(bytes(6_400))  # 0.2 s
            assert time.monotonic() - began_s >= least_s
            began_s = time.monotonic()
            await asyncio.sleep(0.4)
            await client.send_audio(bytes(6_400))
            assert time.monotonic() - began_s < 10
            await client.__aexit__(None, None, None)

    run(main())


def test_an_order_without_a_time_holds_for_a_while() -> None:
    """A second, and no longer; a second order that comes meanwhile prolongs it."""
    pace = Pace()
    pace.obey(Backpressure(action=BackpressureAction.PAUSE))
    began_s = time.monotonic()

    async def main() -> None:
        waiting = asyncio.create_task(pace.wait(0.0))
        await asyncio.sleep(0.1)
        pace.obey(Backpressure(action=BackpressureAction.PAUSE))
        await waiting

    run(main())
    assert 1.05 <= time.monotonic() - began_s < 10


class Speaking(EchoEngine):
    async def run(self, job: JobAssign) -> EngineResult:
        return EngineResult(text_asr="heard", text_translated="said", tts_audio=job.audio[:640])


def example_of(page: str) -> str:
    """The first Python example of a page of the documentation."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_documented_example_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/client.md: the very code, against a real server with a node."""

    async def main() -> None:
        async with world() as live:
            agent = NodeAgent(node_options(live.url("")), Speaking())
            working = asyncio.create_task(agent.run())
            await agent.connected.wait()
            code = example_of("client.md").replace("ws://127.0.0.1:5010", live.url(""))
            names: dict[str, Any] = {"__name__": "example"}
            exec(compile(code, "docs/client.md", "exec"), names)
            await names["main"](bytes(32_000))
            await ended(working)

    run(main())
    assert "heard -> said" in capsys.readouterr().out


@pytest.mark.parametrize("binary", [True, False])
def test_talk_prints_what_comes_back_and_keeps_the_speech(tmp_path: Path, binary: bool) -> None:
    """A WAV of another rate goes in, lines for a person and a WAV come out."""
    file, answer = tmp_path / "in.wav", tmp_path / "out.wav"
    file.write_bytes(wav_bytes(bytes(16_000), 8_000))
    lines: list[str] = []

    async def main() -> int:
        async with world() as live:
            agent = NodeAgent(node_options(live.url("")), Speaking())
            working = asyncio.create_task(agent.run())
            await agent.connected.wait()
            options = TalkOptions(
                file=file, url=live.url(""), fast=True, save_tts=answer, binary=binary
            )
            code = await talk(options, lines.append)
            await ended(working)
            return code

    assert run(main()) == 0
    text = "\n".join(lines)
    assert "1.0 s, 8000 Hz" in lines[0]
    assert ("binary frames" in text) == binary
    assert "heard" in text
    assert "said" in text
    assert "session closed" in lines[-2]
    assert parse_wav(answer.read_bytes()).samples.size == 320


def test_talk_keeps_the_pace_of_speech(tmp_path: Path) -> None:
    """Half a second of speech takes at least half a second to send."""
    file = tmp_path / "in.wav"
    file.write_bytes(wav_bytes(bytes(16_000)))

    async def main() -> None:
        async with fake_scheduler() as fake:
            talking = asyncio.create_task(
                talk(TalkOptions(file=file, url=fake.url, binary=False), lambda _line: None)
            )
            socket, _ = await greet(fake)
            began_s = time.monotonic()
            await socket.hear("session_close")
            assert time.monotonic() - began_s >= 0.45
            assert sum(message["type"] == "audio_chunk" for message in socket.said) == 6
            await socket.say(SessionCloseAck(session_id="s-1"))
            assert await talking == 1  # nothing was answered

    run(main())


def test_talk_names_a_bad_file_before_it_connects(tmp_path: Path) -> None:
    """One line, no traceback, no connection."""
    with pytest.raises(WavError, match=r"none\.wav"):
        run(talk(TalkOptions(file=tmp_path / "none.wav", url="ws://127.0.0.1:1"), print))


def test_every_event_has_lines_a_person_can_read() -> None:
    """No event prints the struct itself, none fails."""
    events = [
        '{"type":"asr_partial","session_id":"s","utterance_index":1,"text":"he","is_final":false,'
        '"trace_id":"t","job_id":""}',
        '{"type":"ui_event","trace_id":"t","session_id":"s","job_id":"j","utterance_index":1,'
        '"event":"ERROR","status":"error","error_code":"JOB_TIMEOUT"}',
        '{"type":"missing_result","session_id":"s","utterance_index":1,'
        '"reason":"silence_detected","created_at_ms":1}',
        '{"type":"error","code":"X","message":"words"}',
        '{"type":"backpressure","action":"PAUSE"}',
    ]
    lines = [line for text in events for line in lines_of(wire.decode_server_to_client(text))]
    assert lines == [
        "#1 so far     he", "#1 error: JOB_TIMEOUT", "#1 no result: silence_detected",
        "error X: words", "the server is behind: PAUSE",
    ]  # fmt: skip
    assert lines_of(wire.decode_server_to_client(json.dumps(
        {"type": "room_expired", "room_code": "1", "message": "m"}
    ))) == []  # fmt: skip
