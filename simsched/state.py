"""
Everything that one scheduler instance keeps in memory, in one place.

The shells (`session`, `creation`, `claims`, `dispatch`, `results`, `recovery`) share this state and
pass it no further. It holds data and the pure objects that guard it; it waits for nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simsched.canary import Canary
from simsched.cluster import Cluster
from simsched.groups import GroupBook, Playback
from simsched.jobs import Job, JobBook, JobRequest, PendingQueue
from simsched.letters import NEWEST
from simsched.messages import JobResult
from simsched.nodes import HealthLimits
from simsched.policy import Policy
from simsched.pools import PoolConfig, RememberedPool
from simsched.ports import Runtime, Task
from simsched.result_queue import ResultQueue
from simsched.rooms import CODE_COUNT, RoomBook
from simsched.segmentation import SegmentationSettings
from simsched.selection import SelectionRules
from simsched.store import CellStore
from simsched.telemetry import Event
from simsched.units import MINUTE, MS, SECOND

if TYPE_CHECKING:
    from simsched.session import SessionActor

SCAN_NS: Final = SECOND
"""Period of the timeout scan (domain 8.5)."""

ENDED_REMEMBERED: Final = 1_024
"""Ends of jobs that are said again to a store that comes back, the latest ones."""

LEFT_REMEMBERED: Final = 1_024
"""Attempts that other instances have taken over which are remembered, the latest ones."""

INBOX_MAX: Final = 200
"""Events of one session that may wait; audio beyond it is refused (domain 2.7)."""

DEDUP_WINDOW_NS: Final = 30 * SECOND
"""How long the reference remembers a result (domain 9.1)."""

PENDING_RETRY_NS: Final = 200 * MS
"""How often a waiting job looks for slots that other instances may have freed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """
    What an operator sets, besides the policy.

    Attributes:
        shared: several instances work together through the store (phase 2).
        version: the newest version of the protocol between instances that this one speaks.
        life: tells this start of the instance from others under its name.
        scan_ns: period of the timeout scan.
        node_scan_ns: how often nodes are looked at that have gone silent (domain 8.1).
        room_scan_ns: how often rooms are looked at in which nobody speaks (domain 1.3).
        remote_refresh_ns: how often the reference re-reads nodes of other instances; 0: at once.
        presence_ns: an instance that has given no sign for so long is taken for gone; it gives
            three in that time.
        session_queue_max: events of one session that may wait; audio beyond it is refused.
        canary: the other policy that a share of the sessions runs; None: all run the same.

    """

    shared: bool = False
    cell: str = "cell"
    version: int = NEWEST
    life: str = ""
    pools: PoolConfig = field(default_factory=PoolConfig)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    health: HealthLimits = field(default_factory=HealthLimits)
    scan_ns: int = SCAN_NS
    heartbeat_ns: int = 15 * SECOND
    node_scan_ns: int = 30 * SECOND
    room_scan_ns: int = MINUTE
    remote_refresh_ns: int = 2 * SECOND
    presence_ns: int = 15 * SECOND
    session_queue_max: int = INBOX_MAX
    canary: Canary | None = None


class EndedJob(NamedTuple):
    """A job whose end was accepted: what a store that has forgotten it must be told again."""

    job_id: str
    attempt: int
    node_id: str
    status: str
    at_ns: int


class Session:
    """One client session on the instance that owns it."""

    __slots__ = (
        "actor", "actor_task", "answered", "asked", "audio_bytes_cut", "audio_bytes_in",
        "audio_format", "closed", "closing", "early", "features", "jobs_open", "key", "op_count",
        "owning", "preferred_node", "remembered_pool", "results", "room_code", "session_id",
        "silenced", "source_language", "target_language", "tenant_id", "trace_id",
        "utterance_index", "work_open",
    )  # fmt: skip

    def __init__(
        self,
        session_id: str,
        key: int,
        source_language: str,
        target_language: str,
        *,
        trace_id: str,
        tenant_id: str | None,
        audio_format: str,
        results: ResultQueue[Any],
    ) -> None:
        self.session_id = session_id
        self.key = key
        self.source_language = source_language
        self.target_language = target_language
        self.trace_id = trace_id
        self.tenant_id = tenant_id
        self.audio_format = audio_format
        self.results = results
        self.features: tuple[str, ...] = ()
        self.preferred_node: str | None = None
        self.room_code = ""
        self.utterance_index = 0
        self.remembered_pool: RememberedPool | None = None
        self.jobs_open = 0
        self.work_open = 0
        self.op_count = 0
        self.answered: dict[tuple[int, str, str], None] = {}
        # What the client asked for since it came from another instance; None: it did not.
        self.asked: dict[int, None] | None = None
        self.silenced: dict[tuple[int, str], None] = {}
        self.early: dict[str, JobResult] = {}
        self.owning: Task[None] | None = None
        self.audio_bytes_in = 0
        self.audio_bytes_cut = 0
        self.closing = False
        self.closed = False
        self.actor: SessionActor | None = None
        self.actor_task: Task[None] | None = None


class InstanceState:
    """The memory of one instance and its handle to the world."""

    def __init__(self, runtime: Runtime, policy: Policy, settings: CoreSettings) -> None:
        self.runtime = runtime
        self.policy = policy
        self.settings = settings
        self.store = CellStore(runtime.store, runtime.instance_id, settings.cell, settings.version)
        self.cluster = Cluster(settings.pools, settings.health, policy.language_match)
        self.rules = _rules(policy, settings)
        self._canary = settings.canary
        self._canary_rules = self.rules
        if self._canary is not None:
            self._canary_rules = _rules(self._canary.policy, settings)
        self.sessions: dict[str, Session] = {}
        self.book = JobBook()
        self.pending = PendingQueue(policy.pending_max)
        self.groups = GroupBook(playback=Playback(policy.tts_gate))
        self.rooms = RoomBook(self._room_code)
        self.seen_results: dict[tuple[str, str, int], int] = {}
        self.utterance_nodes: dict[tuple[str, int], tuple[str, ...]] = {}
        self.utterance_jobs: dict[tuple[str, int], int] = {}
        self.passed_on: dict[str, str] = {}
        self.node_jobs: dict[str, dict[str, None]] = {}
        self.slots_freed = 0
        self.gone_unsaid: dict[str, int] = {}
        self.gone_instances: tuple[str, ...] = ()
        self.moved_here: dict[str, None] = {}
        self.ended: deque[EndedJob] = deque(maxlen=ENDED_REMEMBERED)
        # Attempts that ran when another instance took their jobs over: node and attempt.
        self.left_to_others: dict[str, tuple[str, int]] = {}
        self.turn = 0
        self.draining = False

    def policy_of(self, session_id: str) -> Policy:
        """The policy of a session, for every field that is per session."""
        canary = self._canary
        return self.policy if canary is None or not canary.takes(session_id) else canary.policy

    def rules_of(self, session_id: str) -> SelectionRules:
        """How a node is chosen for a session."""
        canary = self._canary
        return self.rules if canary is None or not canary.takes(session_id) else self._canary_rules

    def _room_code(self, attempt: int) -> int:
        return self.runtime.chance.below(
            CODE_COUNT, "room", self.runtime.instance_id, len(self.rooms), attempt
        )

    def wants(self, request: JobRequest) -> bool:
        """
        Whether anybody waits for an answer, as far as is known here.

        Not a client that has left for good without a goodbye, nor one that came from another
        instance and has not asked for this since; the other members of a room go on waiting.
        """
        session = self.sessions.get(request.session_id)
        if session is None or request.targets:
            return True
        if session.closing and not self.runtime.links.has_client(request.session_id):
            return False
        return session.asked is None or request.utterance in session.asked

    def answers_here(self, session_id: str) -> bool:
        """Whether a session has moved here and its client is connected: who has it answers it."""
        return session_id in self.moved_here and self.runtime.links.has_client(session_id)

    def leave_to_other(self, job: Job) -> None:
        """Another instance goes on with a job; should it come back, so does what runs of it."""
        self.left_to_others.pop(job.job_id, None)
        if job.dispatched:
            self.left_to_others[job.job_id] = (job.node_id, job.attempt)
            if len(self.left_to_others) > LEFT_REMEMBERED:
                del self.left_to_others[next(iter(self.left_to_others))]

    def emit(self, event: Event) -> None:
        """Record one fact."""
        self.runtime.telemetry.event(event)

    def given_to(self, node_id: str) -> int:
        """Jobs of this instance that a node holds, for the least reserved node (W11)."""
        return len(self.node_jobs.get(node_id, ()))


def _rules(policy: Policy, settings: CoreSettings) -> SelectionRules:
    pools = settings.pools
    return SelectionRules(
        two_level=pools.two_level and policy.selection == "scan",
        indexed=policy.selection == "index",
        balance=policy.balance,
        language_match=policy.language_match,
        degraded_selectable=policy.degraded_selectable,
        heed_unavailable=policy.heed_unavailable,
        sample_size=pools.random_sample_size,
        affinity=pools.enable_session_affinity,
        needs_gpu=settings.health.needs_gpu,
    )
