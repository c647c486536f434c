"""
What is recorded: operations (latencies and calls) and events (facts of the domain).

An `Operation` is one unit of work that the report gives a latency to: a chunk, a finalize, a job
creation, a dispatch, a result. Steps belong to operations. Events are what the invariant checker,
the run digest and the tables read; both worlds write the same ones, so the same checker judges a
simulated run and a live recording.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class OpKind(IntEnum):
    """The operations that have a latency of their own."""

    AUDIO_CHUNK = 0
    FINALIZE = 1
    CREATE_JOB = 2
    DISPATCH = 3
    JOB_RESULT = 4
    HEARTBEAT = 5
    BACKGROUND = 6
    CONTROL = 7


class Outcome(IntEnum):
    """How an operation ended."""

    DONE = 0
    NOTHING = 1
    REFUSED = 2
    FAILED = 3
    FORWARDED = 4


class Operation:
    """
    One operation in progress.

    `key` seeds the draws of its steps; `phase` is 1 or 2 once a job creation knows which path it
    takes (0 elsewhere). A world may subclass it to carry its own bookkeeping.
    """

    __slots__ = ("id", "key", "kind", "phase", "session_id", "started_ns")

    def __init__(self, kind: int, key: int, op_id: int, session_id: str, started_ns: int) -> None:
        self.kind = kind
        self.key = key
        self.id = op_id
        self.session_id = session_id
        self.started_ns = started_ns
        self.phase = 0


class Event(msgspec.Struct, gc=False, tag_field="event", kw_only=True):
    """A fact: when (ns since the world's epoch) and on which instance ("" for the world itself)."""

    at_ns: int
    instance: str


class SessionOpened(Event, tag="session_opened"):
    """A client opened a session."""

    session: str


class SessionClosed(Event, tag="session_closed"):
    """The session ended; nothing more is owed to it once its jobs have ended."""

    session: str
    audio_bytes_in: int
    audio_bytes_cut: int


class UtteranceCut(Event, tag="utterance_cut"):
    """
    Audio was cut into an utterance.

    `last_audio_ns` is when its last chunk arrived, `silence_ns` what the policy had to see of
    silence for a pause or timeout cut (0 for other reasons), `scan_ns` the slack of its timer.
    """

    session: str
    utterance: int
    reason: str
    audio_bytes: int
    audio_ms: int
    first_audio_ns: int
    last_audio_ns: int
    silence_ns: int
    gap_ns: int
    hangover_ns: int


class UtteranceEmpty(Event, tag="utterance_empty"):
    """A finalize found no audio: the index does not advance."""

    session: str
    utterance: int
    reason: str


class JobCreated(Event, tag="job_created"):
    """A job exists. `node` is "" while none is assigned; `again` marks an idempotent repeat."""

    job: str
    request: str
    session: str
    utterance: int
    target: str
    node: str
    attempt: int
    phase: int


class JobRepeated(Event, tag="job_repeated"):
    """The same request was asked for again and got the job that exists already."""

    job: str
    request: str
    session: str
    utterance: int
    target: str


class JobRefused(Event, tag="job_refused"):
    """An utterance got no job; the client is told why."""

    request: str
    session: str
    utterance: int
    target: str
    reason: str


class JobQueued(Event, tag="job_queued"):
    """No node is free: the job waits, until `deadline_ns` at most."""

    job: str
    session: str
    deadline_ns: int
    reason: str


class JobAssigned(Event, tag="job_assigned"):
    """A waiting or failed-over job got a node."""

    job: str
    node: str
    attempt: int


class JobDispatched(Event, tag="job_dispatched"):
    """The assignment left for the node."""

    job: str
    session: str
    node: str
    attempt: int


class JobAccepted(Event, tag="job_accepted"):
    """The node said that it has the assignment."""

    job: str
    node: str
    attempt: int


class JobEnded(Event, tag="job_ended"):
    """A job reached a terminal state: `status` is completed, failed or cancelled."""

    job: str
    session: str
    utterance: int
    target: str
    node: str
    attempt: int
    status: str
    reason: str


class ResultReceived(Event, tag="result_received"):
    """A node's answer reached an instance."""

    job: str
    session: str
    node: str
    attempt: int
    success: bool


class ResultAccepted(Event, tag="result_accepted"):
    """The answer was taken as the job's."""

    job: str
    session: str
    attempt: int
    current_attempt: int


class ResultSuppressed(Event, tag="result_suppressed"):
    """The answer was dropped: duplicate, stale_attempt, unknown_job, terminal."""

    job: str
    session: str
    attempt: int
    current_attempt: int
    reason: str


class Delivered(Event, tag="delivered"):
    """
    A final answer left towards one target of an utterance.

    `outcome` is translation_result, missing_result or error; `gap` says that earlier indices
    were given up by a timeout, so that order may jump.
    """

    session: str
    target: str
    utterance: int
    language: str
    job: str
    outcome: str
    reason: str
    gap: bool


class SlotTaken(Event, tag="slot_taken"):
    """The store counts one more job on a node; `expires_ns` 0: only a counter."""

    node: str
    job: str
    attempt: int
    live: int
    slots: int
    expires_ns: int


class SlotFreed(Event, tag="slot_freed"):
    """The store counts one job less on a node."""

    node: str
    job: str
    attempt: int


class SlotsForgotten(Event, tag="slots_forgotten"):
    """A heartbeat overwrote the reservations of a node (domain.md B4's own way)."""

    node: str
    reserved: int


class NodeRegistered(Event, tag="node_registered"):
    """A node is connected."""

    node: str
    slots: int


class NodeOffline(Event, tag="node_offline"):
    """The scheduler knows that a node is gone."""

    node: str
    reason: str


class NodeRunning(Event, tag="node_running"):
    """The world's truth: a node started or ended a job and now runs `running` of `slots`."""

    node: str
    job: str
    attempt: int
    running: int
    slots: int
    started: bool


class RequestLock(Event, tag="request_lock"):
    """A request lock was taken or given back; `owner` must match."""

    request: str
    owner: str
    taken: bool
    released_by_owner: bool


class InstanceDown(Event, tag="instance_down"):
    """
    The world's truth: an instance died, and with it its sockets and whatever it had in memory.

    What its sessions were promised is gone, and the closed socket told them so.
    """


class SessionResumed(Event, tag="session_resumed"):
    """
    A client has come from another instance, with its session.

    What was sent to it before may never have arrived; it asks again for what it lacks.
    """

    session: str


class ClientAsked(Event, tag="client_asked"):
    """A client's own word: it asks for an utterance; `connection` counts its sockets."""

    session: str
    utterance: int
    connection: int


class ClientHeard(Event, tag="client_heard"):
    """A client's own word: the final answer to an utterance has arrived."""

    session: str
    utterance: int
    connection: int
    outcome: str


class StoreLost(Event, tag="store_lost"):
    """The world's truth: the store has forgotten everything, or the last that it was told."""


class ClientGone(Event, tag="client_gone"):
    """The world's truth: a client has left a session for good, so nobody is owed its answers."""

    session: str


class JobAdopted(Event, tag="job_adopted"):
    """An instance goes on with a job of an instance that is gone; its session is here now."""

    job: str
    session: str
    utterance: int
    target: str
    node: str
    attempt: int


class AnsweredAlone(Event, tag="answered_alone"):
    """
    An utterance is answered without the store's word, because the store is away.

    If it was asked for on another instance too, that one may answer as well.
    """

    session: str
    utterance: int
    language: str


class JobYielded(Event, tag="job_yielded"):
    """An instance leaves a job to another one that has it as well."""

    job: str


class Disturbed(Event, tag="disturbed"):
    """
    The world's truth: something is broken; until then nobody is blamed for being slow.

    `kind` is the fault's (see `simsched.faults`), `target` what it hit; "" where nobody knows.
    `over_ns` is when the fault itself is over, 0 where nobody knows; its consequences last longer.
    """

    until_ns: int
    over_ns: int = 0
    kind: str = ""
    target: str = ""


class SlotsCounted(Event, tag="slots_counted"):
    """The world's truth: the leases of a node that live in the store, `job:attempt` each."""

    node: str
    held: tuple[str, ...]
    slots: int


class SlotsTried(Event, tag="slots_tried"):
    """The world's truth: how many leases the store gave beside those `held`, and why no more."""

    node: str
    given: int
    held: int
    slots: int
    refusal: str


class LetterLies(Event, tag="letter_lies"):
    """
    The world's truth: a result lies unread in the inbox of an instance that is gone.

    It is for a session that is at `instance` now, which has `limit_ns` to find out and read it.
    """

    inbox: str
    session: str
    limit_ns: int


class EndAccepted(Event, tag="end_accepted"):
    """The world's truth: the store took a job's end; `first` says that it had taken no other."""

    job: str
    attempt: int
    current_attempt: int
    first: bool


class ClaimRepeated(Event, tag="claim_repeated"):
    """The world's truth: a claim came again whose grant stands; `same`: it was answered alike."""

    job: str
    attempt: int
    same: bool


class NodeGranted(Event, tag="node_granted"):
    """The world's truth: the store gave a slot of a node that it was told is `gone`, or is back."""

    node: str
    job: str
    attempt: int
    gone: bool


AnyEvent = (
    SessionOpened | SessionClosed | UtteranceCut | UtteranceEmpty | JobCreated | JobRepeated
    | JobRefused | JobQueued | JobAssigned | JobDispatched | JobAccepted | JobEnded
    | ResultReceived | ResultAccepted | ResultSuppressed | Delivered | SlotTaken | SlotFreed
    | SlotsForgotten | NodeRegistered | NodeOffline | NodeRunning | RequestLock
    | InstanceDown | ClientGone | JobAdopted | JobYielded | AnsweredAlone | Disturbed
    | SlotsCounted | SlotsTried | SessionResumed | ClientAsked | ClientHeard | StoreLost
)  # fmt: skip
"""Every event, for decoding a recording: `msgspec.json.Decoder(AnyEvent)`."""
