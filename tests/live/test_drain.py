"""Leaving in good order: nobody new, what was said is answered, everybody is told."""

from __future__ import annotations

import asyncio
import base64
import os
import signal

import pytest
from websockets.exceptions import InvalidStatus

from simsched.live.drain import DrainReport, StopSignals
from simsched.live.instance import InstanceFailed
from simsched.live.server import Server
from simsched.live.settings import ServerSettings
from tests.live.live_world import INIT, LIMIT_S, World, run, settings_with, until, world

PCM = base64.b64encode(bytes(3_200)).decode()


def leave(w: World) -> tuple[asyncio.Task[DrainReport | None], asyncio.Event, asyncio.Event]:
    """A server that serves until it is told to stop; the two events tell it."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    task: asyncio.Task[DrainReport | None] = asyncio.create_task(w.server.serve_until(stop, hurry))
    return task, stop, hurry


def test_a_drain_under_load_loses_nothing() -> None:
    """
    Utterances cut, running and still being spoken are all answered; then all hear why.

    What was said before the drain is finished, the sentence that was under way too.
    """

    async def main() -> None:
        async with (
            world() as w,
            w.node("n", slots=100) as node,
            w.client() as busy,
            w.client() as speaking,
            w.client() as idle,
        ):
            for index in range(5):
                await busy.utterance(index)
            jobs = [await node.hear_type("job_assign") for _ in range(5)]
            await speaking.chunk(PCM)
            state = w.instance.scheduler.state
            actor = state.sessions[speaking.name].actor
            assert actor is not None
            await until(lambda: actor.buffer.held_bytes > 0)
            serving, stop, _ = leave(w)
            stop.set()
            pause = await speaking.hear_type("backpressure")
            assert pause["action"] == "PAUSE"
            assert not w.instance.is_ready
            with pytest.raises(InvalidStatus) as caught:
                async with w.socket("/ws/session"):
                    pass
            assert caught.value.response.status_code == 503
            await speaking.chunk(PCM, final=True)
            last = await node.hear_type("job_assign")
            assert base64.b64decode(last["audio"]) == bytes(6_400)
            for job in [*jobs, last]:
                await node.answer(job)
            for client, count in ((busy, 5), (speaking, 1), (idle, 0)):
                end = await client.hear_type("session_close_ack")
                assert end["session_id"] == client.name
                error = await client.hear_type("error")
                assert error["code"] == "SERVER_DRAINING"
                assert (await client.closed())[0] == 1012
                results = [m for m in client.seen if m["type"] == "translation_result"]
                assert [m["utterance_index"] for m in results] == list(range(count))
            order = await node.hear_type("node_control")
            assert order["command"] == "reconnect"
            assert (await node.closed())[0] == 1012
            report = await serving
            assert report is not None
            assert report.is_clean
            assert (report.sessions, report.nodes) == (3, 1)
            assert "nothing left" in report.text()
            assert "results_undelivered" not in w.sink.counts

    run(main())


def test_a_drain_ends_at_its_deadline_and_says_what_it_left() -> None:
    """A node that never answers does not keep the server; the report names what was left."""

    async def main() -> None:
        settings = settings_with(server=ServerSettings(drain_s=0.3))
        async with world(settings) as w, w.node() as node, w.client() as client:
            await client.utterance(0)
            await node.hear_type("job_assign")
            report = await w.instance.drain()
            assert (report.sessions_left, report.jobs_left) == (1, 1)
            assert not report.is_clean
            assert "1 sessions and 1 jobs left" in report.text()
            assert (await client.closed())[0] == 1012

    run(main())


def test_a_speaker_without_end_is_cut_after_half_of_the_time() -> None:
    """What was said until then is answered; a draining server is not kept by a monologue."""

    async def main() -> None:
        settings = settings_with(server=ServerSettings(drain_s=2.0))
        async with world(settings) as w, w.node() as node, w.client() as client:
            await client.chunk(PCM)
            serving, stop, _ = leave(w)
            stop.set()
            job = await node.hear_type("job_assign")
            await node.answer(job)
            await client.hear_type("translation_result")
            report = await serving
            assert report is not None
            assert report.is_clean

    run(main())


def test_a_second_signal_leaves_at_once() -> None:
    """The first SIGTERM drains; the second does not wait for it."""

    async def main() -> None:
        signals = StopSignals()
        signals.install()
        try:
            async with world() as w, w.node() as node, w.client() as client:
                await client.utterance(0)
                await node.hear_type("job_assign")
                serving = asyncio.create_task(w.server.serve_until(signals.leave, signals.now))
                os.kill(os.getpid(), signal.SIGTERM)
                await client.hear_type("backpressure")
                assert not serving.done()
                os.kill(os.getpid(), signal.SIGTERM)
                async with asyncio.timeout(LIMIT_S):
                    assert await serving is None
                assert (await client.closed())[0] == 1012
        finally:
            signals.remove()

    run(main())


def test_a_failed_background_task_ends_the_server_with_its_reason() -> None:
    """No zombie: whoever serves hears which part failed and why."""

    async def main() -> None:
        async with world() as w, w.client():
            serving, _, _ = leave(w)
            await asyncio.sleep(0)

            async def breaks() -> None:
                raise RuntimeError("out of luck")

            w.instance.supervise(breaks(), "the scan")
            with pytest.raises(InstanceFailed, match="the scan failed: RuntimeError: out of luck"):
                await serving
            assert not w.instance.is_ready

    run(main())


def test_a_draining_instance_closes_lost_sessions_without_waiting_for_them() -> None:
    """Nobody can come back to a server that leaves: its grace does not hold the drain up."""

    async def main() -> None:
        async with world(resume_s=1_000.0) as w:
            async with w.client(accept_resume=True):
                pass
            await until(lambda: w.instance.sessions.waiting == 1)
            report = await w.instance.drain(5.0)
            assert report.is_clean
            assert report.sessions == 1

    run(main())


def test_an_open_socket_without_a_session_is_sent_elsewhere() -> None:
    """Who connected before the drain and says hello during it hears the code."""

    async def main() -> None:
        async with world() as w, w.client() as client, w.socket("/ws/session") as late:
            await client.chunk(PCM)
            draining = asyncio.create_task(w.instance.drain(10.0))
            await client.hear_type("backpressure")
            await late.say(INIT)
            assert (await late.hear())["code"] == "SERVER_DRAINING"
            assert (await late.closed())[0] == 1012
            draining.cancel()
            await asyncio.wait((draining,))

    run(main())


def test_a_server_is_closed_once_and_again_without_harm() -> None:
    """Closing twice, or before the start, does nothing."""

    async def main() -> None:
        async with world() as w:
            await w.server.close()
            await w.server.close()
            await Server(w.instance).close()

    run(main())
