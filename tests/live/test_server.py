"""The server end to end: real sockets, a real store, and every rule of the protocol's doors."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from simsched import wire
from simsched.live.inbox import Inbox
from simsched.live.instance import Instance, InstanceFailed
from simsched.live.server import Server
from simsched.live.settings import (
    AuthSettings,
    HealthSettings,
    ServerSettings,
    StoreSettings,
)
from simsched.messages import AudioChunk
from tests.conformance.redis_server import NO_SERVER, redis_server, server_path
from tests.live.live_world import (
    INIT,
    REGISTER,
    CountingSink,
    Peer,
    World,
    limits,
    run,
    settings_with,
    until,
    world,
)

PCM = bytes(3_200)
"""100 ms."""

OPUS = b"\x02\x00\x08\x01" * 5
"""Five packets of one frame of 20 ms each, with their lengths."""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def speak(client: Peer, payload: bytes, chunks: int = 3) -> None:
    for _ in range(chunks):
        await client.chunk(b64(payload))
    await client.chunk(final=True)


# Clients


def test_an_utterance_goes_to_a_node_and_its_result_comes_back() -> None:
    """The normal exchange, with the texts of the result under both of their names."""

    async def main() -> None:
        async with world() as w, w.node() as node, w.client() as client:
            assert node.name.startswith("node-")
            await speak(client, PCM)
            job = await node.hear_type("job_assign")
            assert base64.b64decode(job["audio"]) == PCM * 3
            identity = {k: job[k] for k in ("job_id", "attempt_id", "session_id", "trace_id")}
            await node.say({"type": "job_ack", "node_id": node.name, **identity})
            await node.answer(job, "nihao")
            result = await client.hear_type("translation_result")
            assert (result["text_asr"], result["asr_text"]) == ("nihao", "nihao")
            assert (result["text_translated"], result["translated_text"]) == ("NIHAO", "NIHAO")
            events = [m["event"] for m in client.seen if m["type"] == "ui_event"]
            assert events == ["DISPATCHED", "NODE_ACCEPTED", "ASR_FINAL", "NMT_DONE"]
            assert client.seen[0]["type"] == "session_init_ack"
            await client.say(
                {"type": "client_heartbeat", "session_id": client.name, "timestamp": 1}
            )
            assert (await client.hear())["type"] == "server_heartbeat"
            await client.say({"type": "session_close", "session_id": client.name, "reason": "done"})
            assert (await client.hear())["type"] == "session_close_ack"
            assert len(w.instance.sessions) == 0

    run(main())


@pytest.mark.parametrize(("audio", "name"), [(PCM, "pcm16"), (OPUS, "opus")])
@pytest.mark.parametrize("binary", [False, True])
def test_audio_is_named_what_it_is(audio: bytes, name: str, binary: bool) -> None:
    """PCM and Opus are told apart, in JSON and in binary frames, which only who asks for gets."""

    async def main() -> None:
        async with world() as w, w.node() as node, w.client(accept_binary_frame=binary) as client:
            assert client.ack["use_binary_frame"] is binary
            if binary:
                for final in (False, False, True):
                    chunk = AudioChunk(session_id=client.name, seq=0, is_final=final, payload=audio)
                    await client.say(wire.encode_binary_chunk(chunk))
            else:
                await speak(client, audio)
            job = await node.hear_type("job_assign")
            assert job["audio_format"] == name
            assert base64.b64decode(job["audio"]) == audio * 3

    run(main())


def test_a_message_for_no_session_is_told_so() -> None:
    """A stray heartbeat has one code, stray audio another, somebody else's session a third."""

    async def main() -> None:
        async with world() as w, w.socket("/ws/session") as early, w.client() as other:
            early.name = "s-00000000"
            await early.chunk("AAAA")
            assert (await early.hear())["code"] == "INTERNAL_ERROR"
            await early.say({"type": "client_heartbeat", "session_id": "s-1", "timestamp": 1})
            assert (await early.hear())["code"] == "INVALID_SESSION"
            await early.say({"type": "room_create", "client_ts": 1})
            assert (await early.hear())["code"] == "INVALID_SESSION"
            await early.say(INIT)
            assert (await early.hear())["type"] == "session_init_ack"
            early.name = other.name
            await early.chunk("AAAA")
            assert (await early.hear())["code"] == "INVALID_SESSION"
            await early.say({"type": "session_close", "session_id": other.name, "reason": "x"})
            assert (await early.hear())["code"] == "INVALID_SESSION"
            assert w.instance.links.knows(other.name)

    run(main())


def test_nonsense_is_answered_and_only_much_of_it_closes_the_socket() -> None:
    """An unreadable frame has a code; a hundred in a row end the socket, with a close code."""

    async def main() -> None:
        deep = "[" * 50_000
        frames: list[str | bytes] = [
            "{",
            "[]",
            deep,
            b"\x01\x02",
            "{}",
            '{"type":"nothing"}',
            '{"type":7}',
        ]
        async with world() as w, w.client() as client:
            for frame in frames:
                await client.say(frame)
                error = await client.hear()
                assert (error["type"], error["code"]) == ("error", "INVALID_MESSAGE")
            await client.say(
                {"type": "client_heartbeat", "session_id": client.name, "timestamp": 1}
            )
            assert (await client.hear())["type"] == "server_heartbeat"
            for _ in range(100):
                await client.say("nonsense")
            for _ in range(100):
                assert (await client.hear())["code"] == "INVALID_MESSAGE"
            assert (await client.closed())[0] == 4400

    run(main())


def test_a_frame_too_large_is_never_parsed() -> None:
    """It closes its socket with 1009; others notice nothing."""

    async def main() -> None:
        small = settings_with(limits=limits(frame_bytes_max=10_000))
        async with world(small) as w, w.client() as client, w.client() as other:
            await client.chunk("A" * 20_000)
            assert (await client.closed())[0] == 1009
            beat = {"type": "client_heartbeat", "session_id": other.name, "timestamp": 1}
            await other.say(beat)
            assert (await other.hear())["type"] == "server_heartbeat"

    run(main())


def test_the_next_session_on_a_socket_ends_the_one_before() -> None:
    """One socket, one session at a time; what was said before is still answered."""

    async def main() -> None:
        async with world() as w, w.node() as node, w.client() as client:
            first = client.name
            await client.chunk(b64(PCM))
            await client.say({**INIT, "src_lang": "en", "tgt_lang": "zh"})
            second = (await client.hear_type("session_init_ack"))["session_id"]
            assert second != first
            job = await node.hear_type("job_assign")
            assert job["session_id"] == first
            await node.answer(job)
            assert (await client.hear_type("translation_result"))["session_id"] == first
            assert (await client.hear_type("session_close_ack"))["session_id"] == first
            assert w.instance.links.sessions == (second,)

    run(main())


# Coming back


def test_a_client_that_comes_back_gets_what_was_answered_meanwhile() -> None:
    """With its key a client goes on with its session; the acknowledgement still comes first."""

    async def main() -> None:
        async with world() as w, w.node() as node:
            async with w.client(accept_resume=True) as client:
                await speak(client, PCM)
                job = await node.hear_type("job_assign")
            await until(lambda: w.instance.sessions.waiting == 1)
            await node.answer(job, "while you were away")
            key = {
                "resume_session_id": client.name, "resume_token": client.ack["resume_token"]
            }  # fmt: skip
            async with w.socket("/ws/session") as thief:
                await thief.say({**INIT, **key, "resume_token": "0" * 32})
                assert (await thief.hear())["code"] == "SESSION_CLOSED"
                await thief.say({**INIT, "resume_session_id": client.name})
                assert (await thief.hear())["code"] == "SESSION_CLOSED"
            async with w.socket("/ws/session") as back:
                await back.say({**INIT, **key})
                ack = await back.hear()
                assert (ack["type"], ack["session_id"]) == ("session_init_ack", client.name)
                result = await back.hear_type("translation_result")
                assert result["text_asr"] == "while you were away"
                back.name = client.name
                await back.utterance(1)
                assert (await node.hear_type("job_assign"))["utterance_index"] == 1
            assert "results_undelivered" not in w.sink.counts

    run(main())


def test_a_session_moves_from_a_socket_that_nobody_reads() -> None:
    """The key takes a session over from a half-open socket, which is closed with a code."""

    async def main() -> None:
        async with (
            world() as w,
            w.client(accept_resume=True) as client,
            w.socket("/ws/session") as back,
        ):
            resume = {
                "resume_session_id": client.name,
                "resume_token": client.ack["resume_token"],
            }
            await back.say({**INIT, **resume})
            assert (await back.hear())["session_id"] == client.name
            assert (await client.closed())[0] == 4409
            await until(lambda: len(w.instance.connections) == 1)
            assert w.instance.links.knows(client.name)

    run(main())


@pytest.mark.parametrize("asks", [True, False])
def test_a_client_that_stays_away_loses_its_session_and_it_is_counted(asks: bool) -> None:
    """After the grace, or at once without a key, the session ends; its answer is undelivered."""

    async def main() -> None:
        async with world(resume_s=0.05) as w, w.node() as node:
            async with w.client(accept_resume=asks or None) as client:
                await client.chunk(b64(PCM))
                assert ("resume_token" in client.ack) is asks
            job = await node.hear_type("job_assign")
            await node.answer(job)
            await until(lambda: len(w.instance.sessions) == 0)
            assert w.sink.counts["results_undelivered"] == 1
            assert not w.instance.scheduler.state.sessions

    run(main())


# Nodes


def test_nodes_of_the_older_kind_are_let_in() -> None:
    """The aliases of the reference's test node: cases, missing versions, older names of texts."""

    async def main() -> None:
        older: dict[str, Any] = {
            "type": "node_register", "version": "1", "platform": "linux",
            "hardware": {"cpu_cores": 4, "memory_gb": 16.0, "gpus": [{"name": "", "memory_gb": 8}]},
            "installed_models": [{"model_id": "m", "kind": "asr"}],
            "installed_services": [
                {"service_id": kind, "type": kind, "device": "GPU", "status": "Running"}
                for kind in ("ASR", "NMT", "TTS")
            ],
            "capability_by_type": [{"type": kind, "ready": True} for kind in ("ASR", "NMT", "TTS")],
            "features_supported": {"asr": True, "nmt": True}, "accept_public_jobs": True,
            "language_capabilities": {"asr_languages": ["zh"], "tts_languages": ["en"]},
        }  # fmt: skip
        async with world() as w, w.socket("/ws/node") as node, w.client() as client:
            await node.say(older)
            ack = await node.hear()
            assert (ack["type"], ack["status"]) == ("node_register_ack", "registering")
            node.name = ack["node_id"]
            await node.beat()
            status = await node.hear()
            assert (status["type"], status["status"]) == ("node_status", "ready")
            await client.utterance(0)
            job = await node.hear_type("job_assign")
            answer = {"asr_text": "ni", "translated_text": "you", "status": "success"}
            keys = ("job_id", "attempt_id", "session_id", "utterance_index", "trace_id")
            same = {key: job[key] for key in keys}
            await node.say({"type": "job_result", "node_id": node.name, **same, **answer})
            result = await client.hear_type("translation_result")
            assert (result["text_asr"], result["text_translated"]) == ("ni", "you")

    run(main())


def test_a_refused_node_hears_why_and_may_mend_it() -> None:
    """Each refusal of a registration has its code, and leaves the socket open."""

    async def main() -> None:
        bad_schema = {**REGISTER, "capability_schema_version": "1.0"}
        no_gpu = {**REGISTER, "hardware": {"cpu_cores": 1, "memory_gb": 1, "gpus": []}}
        async with world() as w, w.socket("/ws/node") as node:
            for message, code in (
                ({"type": "node_error", "node_id": "n", "code": "X", "message": "y"},
                 "INVALID_MESSAGE"),
                (bad_schema, "INVALID_CAPABILITY_SCHEMA"),
                (no_gpu, "NO_GPU_AVAILABLE"),
                ({**REGISTER, "node_id": "a{b}\n"}, "INVALID_MESSAGE"),
            ):  # fmt: skip
                await node.say(message)
                assert (await node.hear())["code"] == code
            await node.register("n-1", capability_schema_version=None)
            node.name = "n-2"
            await node.beat()
            assert (await node.hear())["code"] == "NODE_ID_CONFLICT"
            await node.say({**REGISTER, "node_id": "n-2"})
            assert (await node.hear())["code"] == "NODE_ID_CONFLICT"
            assert w.instance.links.nodes == ("n-1",)

    run(main())


def test_a_node_without_a_gpu_works_where_cpus_will_do() -> None:
    """With health.require_gpu off it registers, gets ready, is chosen, and its answer arrives."""

    async def main() -> None:
        settings = settings_with(health=HealthSettings(require_gpu=False))
        plain = {"cpu_cores": 1, "memory_gb": 1, "gpus": None}
        async with (
            world(settings) as w,
            w.node("cpu-1", hardware=plain) as node,
            w.client() as client,
        ):
            await client.utterance(0)
            await node.answer(await node.hear_type("job_assign"))
            result = await client.hear_type("translation_result")
            assert result["text_translated"] == "HELLO"

    run(main())


def test_a_living_node_keeps_its_name_and_a_dead_one_loses_it() -> None:
    """The same id again is a conflict while the first one answers pings, else a takeover."""

    async def main() -> None:
        server = ServerSettings(ping_s=0.3, ping_timeout_s=0.3)
        async with (
            world(settings_with(server=server)) as w,
            w.node("n-1") as first,
            w.socket("/ws/node") as second,
        ):
            await second.say({**REGISTER, "node_id": "n-1"})
            assert (await second.hear())["code"] == "NODE_ID_CONFLICT"
            first.socket.transport.pause_reading()
            await second.register("n-1")
            await until(lambda: len(w.instance.connections) == 1)
            assert w.instance.links.nodes == ("n-1",)
            first.socket.transport.abort()

    run(main())


@pytest.mark.parametrize("how", ["closed", "hung"])
def test_a_lost_node_has_its_jobs_done_elsewhere_at_once(how: str) -> None:
    """A closed socket, or one that answers no pings, re-dispatches; one result, the other late."""

    async def main() -> None:
        server = ServerSettings(ping_s=0.1, ping_timeout_s=0.3)
        async with (
            world(settings_with(server=server)) as w,
            w.node("n-1") as one,
            w.client() as client,
        ):
            await client.utterance(0)
            job = await one.hear_type("job_assign")
            async with w.node("n-2") as two:
                if how == "closed":
                    one.socket.transport.abort()
                else:
                    one.socket.transport.pause_reading()
                again = await two.hear_type("job_assign")
                assert (again["job_id"], again["attempt_id"]) == (job["job_id"], 2)
                await two.answer(again)
                await two.answer(again, "twice")
                assert (await client.hear_type("translation_result"))["text_asr"] == "hello"
                await client.utterance(1)
                await two.answer(await two.hear_type("job_assign"), "next")
                assert (await client.hear_type("translation_result"))["text_asr"] == "next"
                one.socket.transport.abort()

    run(main())


def test_a_node_that_comes_back_keeps_what_is_current() -> None:
    """It says what it works on: the current attempt stays, a stale one is cancelled."""

    async def main() -> None:
        async with world() as w, w.node("n-1") as node, w.client() as client:
            await client.utterance(0)
            job = await node.hear_type("job_assign")
            running = [
                {"job_id": job["job_id"], "attempt_id": 1},
                {"job_id": "gone", "attempt_id": 1},
            ]
            await node.register("n-1", running=running)
            cancel = await node.hear_type("job_cancel")
            assert (cancel["job_id"], cancel["reason"]) == ("gone", "stale_attempt")
            await node.answer(job)
            assert (await client.hear_type("translation_result"))["utterance_index"] == 0
            await node.beat()
            await client.utterance(1)
            lost = await node.hear_type("job_assign")
            async with w.node("n-2") as other:
                await node.register("n-1", running=[])
                again = await other.hear_type("job_assign")
                assert (again["job_id"], again["attempt_id"]) == (lost["job_id"], 2)

    run(main())


def test_a_node_without_heartbeats_is_told_to_register_again() -> None:
    """Its socket may be fine: it hears `offline`, and the close says what to do."""

    async def main() -> None:
        health = HealthSettings(silence_s=0.2, node_scan_s=0.1)
        async with world(settings_with(health=health)) as w, w.node() as node:
            status = await node.hear_type("node_status")
            assert (status["status"], status["reason"]) == ("offline", "heartbeat_timeout")
            assert (await node.closed())[0] == 4410
            await until(lambda: not w.instance.links.nodes)

    run(main())


# Who may come in


def test_tokens_open_the_door_where_they_may_stand(tmp_path: Path) -> None:
    """Header, subprotocol or first frame; a wrong or missing one is refused, one in the URL too."""
    files = {kind: tmp_path / kind for kind in ("client", "node")}
    for kind, path in files.items():
        path.write_text(f"{kind}-1:secret-{kind}\n", encoding="utf-8")
    auth = AuthSettings(
        client_tokens_file=str(files["client"]), node_tokens_file=str(files["node"])
    )

    async def refused(w: World, path: str, status: int, code: str, **options: Any) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with w.socket(path, **options):
                pass
        assert caught.value.response.status_code == status
        assert json.loads(caught.value.response.body or b"")["code"] == code

    async def main() -> None:
        async with world(settings_with(auth=auth)) as w:
            async with w.client(token="secret-client"):
                pass
            header = {"Authorization": "Bearer secret-client"}
            async with w.socket("/ws/session", additional_headers=header) as client:
                await client.say(INIT)
                assert (await client.hear())["type"] == "session_init_ack"
            offered = [Subprotocol("simsched"), Subprotocol("bearer.secret-client")]
            async with w.socket("/ws/session", subprotocols=offered) as client:
                assert client.socket.subprotocol == "simsched"
                await client.say(INIT)
                assert (await client.hear())["type"] == "session_init_ack"
            async with w.socket("/ws/node") as node:
                await node.register("n-1", token="secret-node")
            for path, message in (
                ("/ws/session", {**INIT, "token": "secret-node"}),
                ("/ws/session", INIT),
                ("/ws/node", REGISTER),
            ):
                async with w.socket(path) as peer:
                    await peer.say(message)
                    assert (await peer.hear())["code"] == "UNAUTHENTICATED"
                    assert (await peer.closed())[0] == 4401
            wrong = {"Authorization": "Bearer wrong"}
            await refused(w, "/ws/node", 401, "UNAUTHENTICATED", additional_headers=wrong)
            await refused(w, "/ws/session?token=secret-client", 400, "TOKEN_IN_QUERY")
            evil = {"Origin": "http://evil.example"}
            await refused(w, "/ws/session", 403, "ORIGIN_REFUSED", additional_headers=evil)

    run(main())


def test_every_bound_refuses_with_a_code_after_a_warning() -> None:
    """Sockets, sessions and sessions per client: SLOW_DOWN first, then a code."""

    async def main() -> None:
        few = limits(sessions_max=5, connections_max=6)
        async with world(settings_with(limits=few)) as w:
            peers = [w.client() for _ in range(5)]
            clients = [await peer.__aenter__() for peer in peers]
            warning = await clients[-1].hear()
            assert (warning["type"], warning["action"]) == ("backpressure", "SLOW_DOWN")
            assert warning["resume_after_ms"] > 0
            async with w.socket("/ws/session") as one:
                await one.say(INIT)
                assert (await one.hear())["code"] == "SERVER_BUSY"
                assert (await one.closed())[0] == 1013
            async with w.socket("/ws/session"):
                with pytest.raises(InvalidStatus) as caught:
                    async with w.socket("/ws/session"):
                        pass
                assert caught.value.response.status_code == 503
                assert "Retry-After" in caught.value.response.headers
            for peer in peers:
                await peer.__aexit__(None, None, None)
            await until(lambda: not w.instance.connections)
            assert w.instance.admission.connections == 0
            await until(lambda: not w.instance.admission.sessions)

    run(main())


def test_a_queue_that_fills_up_is_told_before_utterances_are_refused() -> None:
    """Without nodes jobs wait: BUSY comes before the first NO_AVAILABLE_NODE."""

    async def main() -> None:
        settings = msgspec.structs.replace(settings_with(), policy="safe,pending_max=5")
        async with world(settings) as w, w.client() as client:
            for index in range(6):
                await client.utterance(index)
                await until(
                    lambda n=index: len(w.instance.scheduler.state.pending) >= min(n + 1, 5)  # type: ignore[misc]
                )
            await client.hear_type("ui_event")
            kinds = [message["type"] for message in client.seen[1:]]
            assert kinds == ["backpressure", "ui_event"]
            assert client.seen[1]["action"] == "BUSY"
            assert client.seen[2]["error_code"] == "NO_AVAILABLE_NODE"

    run(main())


def test_audio_that_finds_no_room_is_refused_with_a_code() -> None:
    """A flood into one session: SLOW_DOWN first, then every refused chunk has its error."""

    async def main() -> None:
        async with world() as w, w.client() as client:
            await client.chunk(b64(PCM), final=True)
            for _ in range(300):
                await client.chunk("AAAA")
            error = await client.hear_type("error")
            assert error["code"] == "NODE_OVERLOADED"
            actions = [m["action"] for m in client.seen if m["type"] == "backpressure"]
            assert actions == ["SLOW_DOWN"]
            assert w.sink.counts["audio_chunks_refused"] > 0

    run(main())


def test_a_socket_that_says_nothing_is_closed() -> None:
    """Both kinds of socket have to open something within the limit."""

    async def main() -> None:
        server = ServerSettings(first_frame_s=0.1)
        async with (
            world(settings_with(server=server)) as w,
            w.socket("/ws/session") as client,
            w.socket("/ws/node") as node,
        ):
            assert (await client.closed())[0] == 4408
            assert (await node.closed())[0] == 4408

    run(main())


def test_a_slow_reader_is_cut_off_and_nobody_else_notices() -> None:
    """Its socket is closed once too much waits for it; the other client gets every result."""

    async def main() -> None:
        tight = limits(outbox_bytes_max=23_000_000)
        async with (
            world(settings_with(limits=tight)) as w,
            w.node("n", slots=1_000) as node,
            w.client() as slow,
            w.client() as quick,
        ):
            slow.socket.transport.pause_reading()
            speech, index = b64(bytes(3_000_000)), 0
            while "slow_consumers" not in w.sink.counts:
                for client in (slow, quick):
                    await client.utterance(index)
                    await node.answer(await node.hear_type("job_assign"), tts_audio=speech)
                result = await quick.hear_type("translation_result")
                assert result["utterance_index"] == index
                index += 1
                assert index < 60
            slow.socket.transport.abort()
            whats = [what for kind, name, what, _ in w.sink.connections if name == slow.name]
            assert "slow" in whats

    run(main())


# Several instances


def test_two_instances_share_a_store_and_their_nodes() -> None:
    """A client of one instance is served by a node of another."""

    async def main(url: str) -> None:
        settings = settings_with(store=StoreSettings(redis_url=url, inbox_block_ms=100))
        sink = CountingSink()
        async with world(settings) as one, Instance(settings, sinks=[sink]) as second:
            assert one.instance.instance_id != second.instance_id
            server = Server(second)
            await server.start()
            two = World(second, server, sink)
            async with one.node("n-1") as node, two.client() as client:
                await until(lambda: len(second.scheduler.state.cluster.snapshot) == 1)
                await client.utterance(0)
                await node.answer(await node.hear_type("job_assign"), "far")
                assert (await client.hear_type("translation_result"))["text_asr"] == "far"
            await server.close()

    with redis_server() as path:
        run(main(f"unix://{path}"))


@pytest.mark.parametrize(("part", "name"), [("_stay", "presence"), ("_read", "reader")])
def test_an_inbox_that_fails_ends_its_instance(
    monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    """Whoever runs it is told at once: it would be deaf, or gone for the others."""

    async def broken(_self: Inbox) -> None:
        raise KeyError("x")

    monkeypatch.setattr(Inbox, part, broken)

    async def main(url: str) -> None:
        settings = settings_with(store=StoreSettings(redis_url=url, inbox_block_ms=100))
        async with Instance(settings) as instance:
            with pytest.raises(InstanceFailed, match=f"inbox {name} failed"):
                await instance.wait_failed()

    with redis_server() as path:
        run(main(f"unix://{path}"))


@pytest.mark.skipif(server_path() is None, reason=NO_SERVER)
def test_the_store_of_our_own_dies_and_the_server_goes_on() -> None:
    """It is started again and told of the nodes: a later utterance is answered, no restart."""

    async def main() -> None:
        async with world() as w, w.node("n") as node, w.client() as client:
            told = await w.instance.connection.call("INFO", "server")
            assert isinstance(told, bytes)
            (pid,) = (
                int(line.removeprefix(b"process_id:"))
                for line in told.splitlines()
                if line.startswith(b"process_id:")
            )
            losses = w.instance.connection.losses
            os.kill(pid, signal.SIGKILL)
            await until(lambda: w.instance.connection.losses > losses)
            await until(lambda: w.instance.connection.is_up)
            await client.utterance(0)
            await node.answer(await node.hear_type("job_assign"))
            assert (await client.hear_type("translation_result"))["text_asr"] == "hello"
            assert not w.instance.failure

    run(main())


def test_hostile_content_that_is_passed_on_harms_nobody() -> None:
    """A call's description that cannot be written again is dropped; the room goes on."""

    async def main() -> None:
        async with world() as w, w.client() as one, w.client() as two:
            await one.say({"type": "room_create", "client_ts": 1})
            code = (await one.hear_type("room_create_ack"))["room_code"]
            await two.say({"type": "room_join", "room_code": code})
            await two.hear_type("room_members")
            offer = {"type": "webrtc_offer", "room_code": code, "to": two.name}
            for sdp in ("[" * 900 + "]" * 900, "1e999", '"\\ud800"', "1" * 400):
                await one.say(json.dumps({**offer, "sdp": 0})[:-2] + sdp + "}")
            await one.say({**offer, "sdp": "fine"})
            while (heard := await two.hear_type("webrtc_offer"))["sdp"] != "fine":
                pass
            assert heard["to"] == one.name

    run(main())


def test_a_failing_actor_ends_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours costs one session, with a code; the instance and the others go on."""

    async def main() -> None:
        async with world() as w, w.client() as one, w.client() as two:
            actor = w.instance.scheduler.state.sessions[one.name].actor
            assert actor is not None
            monkeypatch.setattr(actor, "buffer", None)
            await one.chunk(b64(PCM))
            assert (await one.closed())[0] == 1011
            await until(lambda: not w.instance.links.knows(one.name))
            await two.say({"type": "client_heartbeat", "session_id": two.name, "timestamp": 1})
            assert (await two.hear())["type"] == "server_heartbeat"
            assert not w.instance.failure

    run(main())


def test_a_port_that_is_taken_names_the_setting() -> None:
    """An operator reads which setting to change."""

    async def main() -> None:
        async with world() as w:
            server = ServerSettings(port=w.server.port)
            settings = msgspec.structs.replace(settings_with(), server=server)
            async with Instance(settings) as instance:
                with pytest.raises(Exception, match=r"server: port: an address that is free"):
                    await Server(instance).start()

    run(main())
