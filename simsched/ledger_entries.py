"""What the checker remembers of a job, of an utterance, and of an utterance in one language."""

from __future__ import annotations

from typing import Final

QUEUED: Final = "queued"
RUNNING: Final = "running"
LOST: Final = "lost"
REFUSED: Final = "refused"
FINISHED: Final = "finished"
ABANDONED: Final = "abandoned"
"""Its instance died, and nobody has gone on with it."""

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
        "gave_up",
        "holders",
        "job_id",
        "lane",
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
        self.since_ns = since_ns
        self.attempt = attempt
        self.state = RUNNING
        self.deadline_ns = 0
        self.queued_ns = 0
        self.ended_by = ""
        self.ended_ns = 0
        self.refused = False
        self.accepted = 0
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
    """What is owed for one utterance since `since_ns`."""

    __slots__ = ("instance", "key", "lanes", "settled", "since_ns")

    def __init__(self, key: tuple[str, int], since_ns: int) -> None:
        self.instance = ""
        self.key = key
        self.since_ns = since_ns
        self.lanes: dict[str, Lane] = {}
        self.settled = False

    def owes_again(self) -> bool:
        """
        Whether an answer is owed anew: it is asked for elsewhere after it was settled here.

        Who was told of an error may be answered anew; who lost its instance without an answer must.
        """
        lanes = list(self.lanes.values())
        unanswered = not lanes or any(not lane.targets for lane in lanes)
        for lane in lanes:
            if lane.first == "error":
                lane.targets, lane.first = (), ""
        return unanswered

    def language_of(self, job: JobEntry | None) -> str:
        """The language of a job of this utterance; where it is not known, the first there is."""
        for language, lane in self.lanes.items():
            if job is not None and lane is job.lane:
                return language
        return next(iter(self.lanes), "")
