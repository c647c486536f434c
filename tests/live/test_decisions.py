"""The decision log: bounded, in order, and telling why even when a snapshot is gone."""

from __future__ import annotations

from simsched.filters import SelectionRequest, SelectionRules
from simsched.jobs import JobRequest
from simsched.languages import LanguageCapabilities
from simsched.live.decisions import JOBS_KEPT, LOOKS_KEPT, NODES_SHOWN, DecisionLog, explained
from simsched.nodes import Health, NodeView
from simsched.placement import Choice
from simsched.snapshot import ClusterSnapshot
from simsched.telemetry import JobCreated, JobDispatched, JobEnded, JobRefused

CORE = frozenset(("asr", "nmt", "tts"))
BOTH = LanguageCapabilities(asr=("zh", "en"), tts=("zh", "en"), semantic=("zh", "en"))


def node(number: int, **fields: object) -> NodeView:
    given = {"health": Health.READY, "installed": CORE, "ready": CORE, "languages": BOTH} | fields
    return NodeView(node_id=f"n{number}", ordinal=number, **given)  # type: ignore[arg-type]


def choice(utterance: int, views: list[NodeView], chosen: tuple[str, ...]) -> Choice:
    request = JobRequest(
        request_id="r", session_id="s", session_key=0, utterance=utterance, source_language="zh",
        target_language="en", audio=b"", audio_format="opus", audio_ms=0, trace_id="t",
    )  # fmt: skip
    return Choice(
        at_ns=utterance, request=request, rules=SelectionRules(), chosen=chosen,
        asked=SelectionRequest(source="zh", target="en", required=CORE),
        snapshot=ClusterSnapshot.of(views),
    )  # fmt: skip


def created(utterance: int) -> JobCreated:
    return JobCreated(
        at_ns=utterance, instance="i", job=f"s:{utterance}:en", request="r", session="s",
        utterance=utterance, target="en", node="n0", attempt=1, phase=1,
    )  # fmt: skip


def test_every_node_has_the_reason_for_which_it_was_not_taken() -> None:
    """Filters by their name, lower ranks by theirs, candidates first and in order."""
    views = [
        node(0), node(1, current_jobs=1), node(2, current_jobs=4), node(3, health=Health.DEGRADED),
        node(4, has_gpu=False), node(5, languages=LanguageCapabilities()), node(6, current_jobs=2),
    ]  # fmt: skip
    told = explained(choice(0, views, ("n0", "n1")))
    assert [entry["node"] for entry in told[:2]] == ["n0", "n1"]
    assert {entry["node"]: entry["reason"] for entry in told} == {
        "n0": "candidate", "n1": "candidate", "n2": "capacity_exceeded", "n3": "status_not_ready",
        "n4": "gpu_unavailable", "n5": "lang_pair_unsupported", "n6": "ranked_lower",
    }  # fmt: skip
    assert [entry["score"] for entry in told] == [0, 1, 4, 0, 0, 0, 2]


def test_many_nodes_are_listed_up_to_a_bound() -> None:
    """Ten thousand nodes make no page of ten thousand lines."""
    told = explained(choice(0, [node(number) for number in range(400)], ("n399",)))
    assert len(told) == NODES_SHOWN
    assert told[0]["node"] == "n399"


def test_the_log_is_bounded_and_the_latest_jobs_are_kept() -> None:
    """Rings: jobs, choices, snapshots."""
    log, views = DecisionLog(), [node(0)]
    for number in range(JOBS_KEPT + 500):
        log.choice(choice(number, views, ("n0",)))
        log.event(created(number))
    assert log.job("s:0:en") is None
    last = log.job(f"s:{JOBS_KEPT + 499}:en")
    assert last is not None
    assert last["decisions"][0]["nodes"][0]["reason"] == "candidate"
    older = log.job(f"s:{JOBS_KEPT + 499 - LOOKS_KEPT}:en")
    assert older is not None
    assert older["decisions"][0]["chosen"] == ["n0"]
    assert "no longer kept" in older["decisions"][0]["note"]
    assert len(log._jobs) == len(log._looks) == JOBS_KEPT
    assert len(log.recent(10_000)) == LOOKS_KEPT


def test_a_jobs_life_is_told_in_order() -> None:
    """Created, sent, ended: with the moments since its creation."""
    log = DecisionLog()
    log.event(created(0))
    log.event(JobDispatched(at_ns=2_000_000, instance="i", job="s:0:en", session="s", node="n1",
                            attempt=2))  # fmt: skip
    log.event(JobEnded(at_ns=5_000_000, instance="i", job="s:0:en", session="s", utterance=0,
                       target="en", node="n1", attempt=2, status="failed", reason="X"))  # fmt: skip
    told = log.job("s:0:en")
    assert told is not None
    assert [entry["event"] for entry in told["timeline"]] == [
        "job_created", "job_dispatched", "job_ended",
    ]  # fmt: skip
    assert [entry["after_ms"] for entry in told["timeline"]] == [0, 2, 5]
    assert (told["node"], told["attempts"], told["status"], told["reason"]) == (
        "n1", 2, "failed", "X",
    )  # fmt: skip
    assert told["took_ms"] == 5


def test_a_refused_utterance_shows_among_the_decisions() -> None:
    """No job, no node, but a reason."""
    log = DecisionLog()
    log.event(JobRefused(at_ns=0, instance="i", request="r", session="s", utterance=3, target="en",
                         reason="QUEUE_FULL"))  # fmt: skip
    assert log.recent(1)[0]["refused"] == "QUEUE_FULL"
