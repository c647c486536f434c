"""The pages over a real socket: health, metrics, the JSON API, and who may read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simsched.live.http import PAGES
from simsched.live.settings import (
    AuthSettings,
    ServerSettings,
    StoreSettings,
)
from tests.conformance.redis_server import redis_server
from tests.live.live_world import run, settings_with
from tests.live.observed import observed


def test_health_pages_say_ok_alive_and_ready() -> None:
    """The reference's `/health` is the text OK; the others are JSON."""

    async def main() -> None:
        async with observed() as world:
            assert await world.get("/health") == (200, "text/plain; charset=utf-8", b"OK")
            assert (await world.json("/healthz"))["status"] == "ok"
            assert await world.json("/readyz") == {"status": "ready"}
            world.observers.metrics.lag(0, 6_000_000_000)
            assert (await world.get("/healthz"))[0] == 503

    run(main())


def test_not_ready_says_why() -> None:
    """Draining and a store that is away are 503 with a code."""

    async def main() -> None:
        async with observed() as world:
            world.instance.connection._wire, kept = None, world.instance.connection._wire
            status, _, body = await world.get("/readyz")
            world.instance.connection._wire = kept
            assert status == 503
            assert json.loads(body)["code"] == "SCHEDULER_DEPENDENCY_DOWN"
            await world.instance.drain(1.0)
            status, _, body = await world.get("/readyz")
            assert (status, json.loads(body)["code"]) == (503, "SERVER_DRAINING")

    run(main())


def test_stats_have_the_shape_of_the_reference() -> None:
    """Field names of domain 10.2, with one node and one client."""

    async def main() -> None:
        async with observed() as world, world.working_node("n1"), world.client():
            told = await world.json("/api/v1/stats")
            assert set(told) == {"web_clients", "nodes", "scheduler"}
            assert told["web_clients"]["active_users"] == 1
            assert told["web_clients"]["language_usage"] == {"en": 1, "zh": 1}
            nodes = told["nodes"]
            assert nodes["connected_nodes"] == 1
            assert nodes["type_node_counts"]["asr"] == 1
            assert set(nodes["available_services"]) == {"asr", "nmt", "tts"}
            assert nodes["compute_power"]["total_slots"] == 4
            assert nodes["compute_power"]["node_power_details"][0]["node_id"] == "n1"
            assert told["scheduler"]["connections"] == {"client": 1, "node": 1}

    run(main())


def test_a_job_tells_why_its_node() -> None:
    """Candidates with reasons, and the job's life from its creation to its end."""

    async def main() -> None:
        async with observed() as world, world.working_node("n1"), world.node("busy") as busy:
            await busy.beat(running=4)
            session = await world.converse(1)
            told = await world.json(f"/api/v1/jobs/{session}:0:en")
            assert (told["node"], told["status"], told["attempts"]) == ("n1", "completed", 1)
            reasons = {node["node"]: node["reason"] for node in told["decisions"][0]["nodes"]}
            assert reasons == {"n1": "candidate", "busy": "capacity_exceeded"}
            names = [entry["event"] for entry in told["timeline"]]
            assert names[0] == "job_created"
            assert {"job_dispatched", "job_accepted", "result_accepted", "job_ended"} <= set(names)
            recent = await world.json("/api/v1/decisions?limit=5")
            assert recent["decisions"][0]["chosen"][0] == "n1"
            assert [job["job"] for job in recent["jobs"]] == [f"{session}:0:en"]

    run(main())


def test_a_dry_run_chooses_as_the_scheduler_would() -> None:
    """The selection and every node's reason; nothing is changed by asking."""

    async def main() -> None:
        async with observed() as world, world.node("n1"), world.node("n2"):
            turn = world.instance.scheduler.state.turn
            query = "session_id=s&src_lang=zh&tgt_lang=en&required=asr&required=nmt"
            told = await world.json(f"/api/v1/phase3/simulate?{query}&exclude_node_id=n1")
            assert told["candidates"] == ["n2"]
            assert told["outcome"]["node_id"] == "n2"
            assert told["request"]["required"] == ["asr", "nmt"]
            reasons = {node["node"]: node["reason"] for node in told["nodes"]}
            assert reasons == {"n2": "candidate", "n1": "excluded"}
            nobody = await world.json("/api/v1/phase3/simulate?tenant_id=t&src_lang=ja&tgt_lang=en")
            assert nobody["outcome"]["node_id"] is None
            assert nobody["breakdown"]["best_reason"] == "lang_pair_unsupported"
            assert world.instance.scheduler.state.turn == turn

    run(main())


def test_pools_are_shown_with_their_sizes() -> None:
    """Members, ready ones, slots, and the configuration they follow from."""

    async def main() -> None:
        async with observed() as world, world.node("n1"):
            told = await world.json("/api/v1/phase3/pools")
            assert told["flavour"] in ("hash", "language")
            assert sum(pool["nodes"] for pool in told["pools"]) <= 1
            assert told["config"]["pool_count"] >= 1

    run(main())


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("/api/v1/phase3/simulate", 400, "routing_key"),
        ("/api/v1/phase3/simulate?session_id=a&tenant_id=b", 400, "routing_key"),
        ("/api/v1/phase3/simulate?session_id=a&required=ocr", 400, "asr, nmt, tts"),
        ("/api/v1/phase3/simulate?session_id=a&accept_public=maybe", 400, "true or false"),
        ("/api/v1/phase3/simulate?session_id=a&colour=red", 400, "one of"),
        ("/api/v1/phase3/simulate?session_id=a&src_lang=zh&src_lang=en", 400, "once"),
        ("/api/v1/phase3/simulate?" + "a" * 5_000, 400, "at most"),
        ("/api/v1/phase3/simulate?session_id=%ff", 400, "name=value"),
        ("/api/v1/decisions?limit=0", 400, "whole number"),
        ("/api/v1/decisions?limit=9999999999999", 400, "whole number"),
        ("/api/v1/jobs/nobody", 404, "no such job"),
        ("/api/v1/cluster", 503, "redis_url"),
        ("/api/v1/nothing", 404, "no such page"),
        ("/../live/http.py", 404, "no such page"),
    ],
)
def test_a_bad_question_gets_one_clear_line(target: str, status: int, says: str) -> None:
    """JSON with a code and what would be right."""

    async def main() -> None:
        async with observed() as world:
            found, kind, body = await world.get(target)
            assert (found, kind) == (status, "application/json")
            told = json.loads(body)
            assert set(told) == {"code", "message"}
            assert says in told["message"]
            assert "\n" not in told["message"]

    run(main())


def test_the_cluster_names_instances_and_their_nodes() -> None:
    """With a shared store: who knows which node."""

    async def main(url: str) -> None:
        settings = settings_with(store=StoreSettings(redis_url=url))
        async with observed(settings) as world, world.node("n1"):
            told = await world.json("/api/v1/cluster")
            assert told["instances"] == [
                {"instance_id": world.instance.instance_id, "nodes": 1, "is_self": True}
            ]
            assert told["totals"] == {"nodes": 1, "slots": 4, "jobs": 0, "instances": 1}
            assert told["nodes"][0]["instance"] == world.instance.instance_id

    with redis_server() as socket:
        run(main(f"unix://{socket}"))


def test_beyond_loopback_the_api_asks_for_a_token(tmp_path: Path) -> None:
    """Health and the dashboard's files stay open; a wrong token opens nothing."""
    tokens = tmp_path / "tokens"
    tokens.write_text("ann:geheim\n", encoding="utf-8")
    settings = settings_with(
        server=ServerSettings(host="0.0.0.0"),
        auth=AuthSettings(client_tokens_file=str(tokens), node_tokens_file=str(tokens)),
    )

    async def main() -> None:
        async with observed(settings) as world:
            for page in ("/health", "/readyz", "/", "/dashboard.js"):
                assert (await world.get(page))[0] == 200, page
            for page in ("/metrics", "/api/v1/stats", "/api/v1/jobs/x"):
                assert (await world.get(page))[0] == 401, page
                assert (await world.get(page, Authorization="Bearer wrong"))[0] == 401, page
            right = {"Authorization": "Bearer geheim"}
            assert (await world.get("/metrics", **right))[0] == 200
            assert (await world.get("/api/v1/stats", **right))[0] == 200

    run(main())


def test_the_dashboard_needs_nothing_from_elsewhere() -> None:
    """All its files are served here, and none names another host."""

    async def main() -> None:
        async with observed() as world:
            for page in PAGES:
                status, _, body = await world.get(page)
                assert status == 200
                if page != "/uPlot.iife.min.js":
                    assert b"http://" not in body
                    assert b"https://" not in body

    run(main())
