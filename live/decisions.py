"""
The decision log: what became of recent jobs and why they got the nodes they got.

A sink for the core's events, and the listener of its choices (`Placement.on_choice`). Everything is
kept in rings: so many jobs with so many events each, so many looks for nodes. The last looks keep
the cluster snapshot that they were made on (versions share most of their memory), so that every
node's reason can be told afterwards, when somebody asks; older ones keep what was chosen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from simsched.filters import Search
from simsched.live.sinks import NullSink
from simsched.nodes import NodeView
from simsched.placement import Choice
from simsched.telemetry import Event, JobCreated, JobEnded, JobRefused

JOBS_KEPT: Final = 5_000
EVENTS_KEPT: Final = 64
"""Events of one job; a job that is tried four times has about twenty."""

LOOKS_KEPT: Final = 200
"""Looks for nodes that keep their snapshot."""

LOOKS_PER_JOB: Final = 8
NODES_SHOWN: Final = 100
"""Nodes listed with their reasons, the chosen ones first."""

Key = tuple[str, int, str]
"""Session, utterance and target language: what a job and its choices have in common."""


class Look:
    """One look for nodes for one job; `choice` is let go of when later looks need the room."""

    __slots__ = ("at_ns", "choice", "chosen", "excluded", "known", "source")

    def __init__(self, choice: Choice) -> None:
        self.at_ns = choice.at_ns
        self.chosen = choice.chosen
        self.excluded = choice.asked.excluded
        self.source = choice.asked.source
        self.known = len(choice.snapshot)
        self.choice: Choice | None = choice

    def told(self) -> dict[str, Any]:
        """As `/api/v1/jobs/ID` shows it."""
        told: dict[str, Any] = {
            "at_ms": _ms(self.at_ns),
            "chosen": list(self.chosen),
            "excluded": list(self.excluded),
            "nodes_known": self.known,
        }
        if self.choice is None:
            return {**told, "nodes": [], "note": "the snapshot of that moment is no longer kept"}
        nodes = explained(self.choice)
        return {**told, "balance": self.choice.rules.balance, "nodes": nodes}


def explained(choice: Choice) -> list[dict[str, Any]]:
    """Every node of the choice's snapshot with its load and why it was not taken."""
    search = Search(choice.snapshot, choice.asked, choice.rules, lambda _bound, _k: 0)
    rank = {node: place for place, node in enumerate(choice.chosen)}
    views = [view for node in choice.chosen if (view := choice.snapshot.get(node)) is not None]
    others = (view for view in choice.snapshot.nodes() if view.node_id not in rank)
    for view in others:
        if len(views) >= NODES_SHOWN:
            break
        views.append(view)
    return [_node_told(view, rank, search) for view in views]


def _node_told(view: NodeView, rank: dict[str, int], search: Search) -> dict[str, Any]:
    failed = search.first_failing(view)
    if view.node_id in rank:
        place = rank[view.node_id] + 1
        reason, text = "candidate", "first candidate" if place == 1 else f"candidate {place}"
    elif failed is not None:
        reason, text = failed.reason, f"fails the filter {failed.name!r}"
    else:
        reason, text = "ranked_lower", "usable, but others came first in the ranking"
    return {
        "node": view.node_id,
        "reason": reason,
        "text": text,
        "score": search.jobs(view),
        "jobs": view.current_jobs,
        "slots": view.slots,
        "health": str(view.health.value),
        "pools": list(view.pools),
    }


class _Job:
    """What is remembered of one job."""

    __slots__ = ("created", "ended", "events", "key", "looks")

    def __init__(self, created: JobCreated) -> None:
        self.created = created
        self.key: Key = (created.session, created.utterance, created.target)
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.ended: JobEnded | None = None
        self.looks: list[Look] = []


class DecisionLog(NullSink):
    """Remembers recent jobs, their events and their choices; `epoch_ms` makes stamps of times."""

    def __init__(self, epoch_ms: int = 0) -> None:
        self.epoch_ms = epoch_ms
        self._jobs: dict[str, _Job] = {}
        self._looks: dict[Key, list[Look]] = {}
        self._fresh: deque[Look] = deque()
        self._recent: deque[dict[str, Any]] = deque(maxlen=LOOKS_KEPT)

    def choice(self, choice: Choice) -> None:
        """The core looked for nodes."""
        look = Look(choice)
        if len(self._fresh) >= LOOKS_KEPT:
            self._fresh.popleft().choice = None
        self._fresh.append(look)
        request = choice.request
        key = (request.session_id, request.utterance, request.target_language)
        looks = self._looks.get(key)
        if looks is None:
            looks = self._looks[key] = []
            if len(self._looks) > JOBS_KEPT:
                del self._looks[next(iter(self._looks))]
        looks.append(look)
        del looks[:-LOOKS_PER_JOB]
        self._recent.append(
            {
                "at_ms": _ms(choice.at_ns),
                "session": request.session_id,
                "utterance": request.utterance,
                "source": request.source_language,
                "target": request.target_language,
                "chosen": list(choice.chosen),
                "nodes_known": len(choice.snapshot),
            }
        )

    def event(self, event: Event) -> None:
        """One fact: those that name a job are kept with it."""
        if type(event) is JobCreated:
            self._open(event)
            return
        if type(event) is JobRefused:
            self._recent.append(
                {
                    "at_ms": _ms(event.at_ns), "session": event.session,
                    "utterance": event.utterance, "target": event.target, "chosen": [],
                    "refused": event.reason,
                }
            )  # fmt: skip
            return
        job = self._jobs.get(getattr(event, "job", ""))
        if job is None:
            return
        job.events.append(event)
        if type(event) is JobEnded:
            job.ended = event

    def _open(self, event: JobCreated) -> None:
        job = self._jobs[event.job] = _Job(event)
        job.events.append(event)
        job.looks = self._looks.setdefault(job.key, [])
        if len(self._jobs) > JOBS_KEPT:
            del self._jobs[next(iter(self._jobs))]

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Everything about one job: why this node; None if it is not remembered."""
        job = self._jobs.get(job_id)
        if job is None:
            return None
        return {
            **_summary(job),
            "decisions": [look.told() for look in job.looks],
            "timeline": [_told(event, job.created.at_ns) for event in job.events],
        }

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last looks for nodes and refusals, newest first."""
        return [dict(entry) for entry, _ in zip(reversed(self._recent), range(limit), strict=False)]

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """The last jobs, newest first."""
        newest = reversed(self._jobs.values())
        return [_summary(job) for job, _ in zip(newest, range(limit), strict=False)]


def _summary(job: _Job) -> dict[str, Any]:
    created, ended = job.created, job.ended
    last = _last_node(job.events) or created.node
    return {
        "job": created.job,
        "session": created.session,
        "utterance": created.utterance,
        "target": created.target,
        "created_ms": _ms(created.at_ns),
        "node": last,
        "attempts": max((getattr(event, "attempt", 0) for event in job.events), default=0),
        "status": ended.status if ended else "open",
        "reason": ended.reason if ended else "",
        "took_ms": _ms(ended.at_ns - created.at_ns) if ended else None,
    }


def _last_node(events: deque[Event]) -> str:
    names: Iterator[str] = (getattr(event, "node", "") for event in reversed(events))
    return next((name for name in names if name), "")


def _told(event: Event, since_ns: int) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(event)
    told = {"event": fields.pop("event"), "after_ms": _ms(fields.pop("at_ns") - since_ns)}
    for known in ("job", "session", "utterance", "target"):
        fields.pop(known, None)
    return {**told, **{name: value for name, value in fields.items() if value not in ("", None)}}


def _ms(duration_ns: int) -> float:
    """Milliseconds to the microsecond."""
    return round(duration_ns / 1_000_000, 3)
