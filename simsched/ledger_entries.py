"""What the checker remembers of a job, of an utterance, and of an utterance in one language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

QUEUED: Final = "queued"
RUNNING: Final = "running"
LOST: Final = "lost"
REFUSED: Final = "refused"
FINISHED: Final = "finished"
ABANDONED: Final = "abandoned"
"""Its instance died, and nobody has gone on with it."""

RETRY: Final = "RETRY"
"""Why a job is in line that has failed on a node: that one it would rather not have again."""

ENDS: Final = {"completed": FINISHED, "failed": "failed", "cancelled": "cancelled"}
"""The account in which a job ends, by its status."""

ACCOUNTS: Final = ("created", FINISHED, "failed", "cancelled", REFUSED, QUEUED, RUNNING, LOST)


class JobEntry:
    """One job; `state` is the account that it is in."""

    __slots__ = (
        "accepted",
        "attempt",
        "deadline_ns",
        "ended_by",
        "ended_ns",
        "failed_attempt",
        "forgotten",
        "gave_up",
        "holders",
        "job_id",
        "lane",
        "left_by",
        "queued_ns",
        "received",
        "refused",
        "since_ns",
        "state",
        "suppressed",
    )

    def __init__(self, job_id: str, lane: Lane, since_ns: int, attempt: int) -> None:
        self.job_id = job_id
        self.lane = lane
        # The instances that have it; the first one's word is the one that counts.
        self.holders: dict[str, None] = {}
        # Who had it too when it ended: each may still give it up, once.
        self.gave_up: dict[str, None] = {}
        # From whom another instance has taken it over: each may end its own part once, unnoticed.
        self.left_by: dict[str, None] = {}
        self.since_ns = since_ns
        self.attempt = attempt
        self.state = RUNNING
        self.deadline_ns = 0
        self.queued_ns = 0
        self.ended_by = ""
        self.ended_ns = 0
        self.refused = False
        # The store may have forgotten it: it may be done once more, but not answered.
        self.forgotten = False
        self.accepted = 0
        self.failed_attempt = 0
        # Answers of the current attempt that came, and that were dropped.
        self.received = 0
        self.suppressed = 0


class Lane:
    """One utterance towards one language; `job` is the one that has not failed."""

    __slots__ = (
        "alone",
        "first",
        "job",
        "jobs",
        "open",
        "request",
        "request_job",
        "request_ns",
        "targets",
    )

    def __init__(self) -> None:
        self.alone = False
        self.job = ""
        self.jobs = 0
        self.open = 0
        self.first = ""
        self.request = ""
        self.request_job = ""
        self.request_ns = 0
        self.targets: tuple[str, ...] = ()


class UtteranceEntry:
    """
    What is owed for one utterance since `since_ns`.

    `is_stale`: its client has connected anew since, and may ask for it again.
    """

    __slots__ = ("instance", "is_stale", "key", "lanes", "settled", "since_ns")

    def __init__(self, key: tuple[str, int], since_ns: int) -> None:
        self.instance = ""
        self.is_stale = False
        self.key = key
        self.since_ns = since_ns
        self.lanes: dict[str, Lane] = {}
        self.settled = False

    def language_of(self, job: JobEntry | None) -> str:
        """The language of a job of this utterance; where it is not known, the first there is."""
        for language, lane in self.lanes.items():
            if job is not None and lane is job.lane:
                return language
        return next(iter(self.lanes), "")


def why_silent(lane: Lane | None, jobs: Mapping[str, JobEntry]) -> str:
    """What became of the job that was to answer, as far as it is remembered."""
    if lane is None or not lane.jobs:
        return "no job was made for it"
    job = jobs.get(lane.job)
    return f"its job: {job.state}" if job is not None else "its job was given up"
