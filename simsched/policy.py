"""
The policy: every what-if of the report and of the reference, as one frozen value.

Both worlds read the same `Policy`. A field chooses one of a few small strategies; nothing in the
core asks for the *name* of a policy. Each field is `per cell` (one truth for all sessions: how the
store is laid out, whether slots are counted, what is done about a node) or `per session` (what a
canary may vary).

`W..`, `B..` and `P..` in the descriptions are the what-if switches, the faults and the proposals
that the field stands for. Named policies are in `presets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Final

from simsched.errors import ConfigError


def _choice(default: str, choices: str, doc: str, *, cell: bool = False) -> Any:
    names = tuple(choices.split())
    assert default in names
    return field(default=default, metadata={"choices": names, "doc": doc, "cell": cell})


def _switch(default: bool, doc: str, *, cell: bool = False) -> Any:
    return field(default=default, metadata={"choices": (True, False), "doc": doc, "cell": cell})


def _number(default: int, doc: str, *, cell: bool = False) -> Any:
    return field(default=default, metadata={"choices": int, "doc": doc, "cell": cell})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How one scheduler decides; the defaults are the preset `safe`."""

    # Job creation
    snapshot_reads: str = _choice(
        "once", "each once", "read and copy the snapshot in every callee, or once a job (P1, W2)"
    )
    snapshot_copy: str = _choice(
        "shared",
        "deep pointer shared",
        "a read is a copy that grows with the nodes, a guarded reference, or a reference (W3)",
    )
    config_reads: str = _choice(
        "once", "each once", "read the phase-3 configuration in every callee, or once a job (W21)"
    )
    job_scheme: str = _choice(
        "claim",
        "phases claim",
        "the reference's phase 1 and phase 2, or one claim script (W5)",
        cell=True,
    )
    binding_reads: str = _choice(
        "recheck",
        "every recheck cached",
        "GETs of the binding: three; two, the check under the lock stays (2s); one (P2) (W4)",
    )
    request_guard: str = _choice(
        "set_nx",
        "lock set_nx",
        "what keeps two phase-2 creations apart: lock + GET + SET, or one SET NX (W5)",
        cell=True,
    )
    lock_busy: str = _choice(
        "await_binding",
        "fall_through reject await_binding",
        "when the request lock stays busy (W6, B3)",
    )
    lock_wait_ms: int = _number(1000, "how long to try for the request lock (W6)")
    lock_retry_ms: int = _number(50, "pause between tries for the request lock (W6)")
    lock_ttl_ms: int = _number(1500, "lease of the request lock (W6)")
    session_lock: str = _choice(
        "mutex",
        "mutex read_write",
        "the lock around the pool decision; read_write also decides outside it (P5)",
    )
    caches: str = _choice(
        "none", "none ttl versioned", "caches of pool and node choice by language pair (P6, 6s)"
    )
    cache_ttl_ms: int = _number(5000, "lifetime of a cached choice under caches=ttl (P6)")
    job_key: str = _choice(
        "before",
        "off after before",
        "register the job key after the job exists, or derive the job from it (B25)",
    )

    # Selection
    selection: str = _choice(
        "index",
        "scan index",
        "walk the nodes of a pool, or ask the language index for the least loaded",
    )
    capability_reads: str = _choice(
        "snapshot",
        "snapshot sequential pipelined",
        "where a node's readiness is read: the snapshot, or the store per candidate (W7)",
    )
    second_selection: bool = _switch(False, "repeat an empty selection unchanged (W8)")
    balance: str = _choice(
        "least_jobs",
        "least_jobs least_reserved random round_robin first two_choices",
        "how a node is picked among the usable (W11, B15)",
    )
    pool_affinity: str = _choice(
        "validated",
        "sticky validated",
        "keep a session's pool, with or without a look at its live nodes (W19)",
    )
    language_match: str = _choice(
        "pairs",
        "exact_set pairs",
        "pools of exactly the language set, or an index by pair (B17)",
        cell=True,
    )
    degraded_selectable: bool = _switch(
        False, "offer degraded nodes that can never be reserved (B23)"
    )
    preferred_fallback: bool = _switch(
        True, "choose another node when the preferred one is unusable in phase 2"
    )
    heed_unavailable: bool = _switch(True, "skip nodes that said MODEL_NOT_AVAILABLE lately (B18)")
    candidates: int = _number(4, "nodes offered to one claim")

    # Slots
    slots: str = _choice(
        "lease", "none counter lease", "how a node's slots are counted in the store", cell=True
    )
    phase1_reserves: bool = _switch(True, "reserve a slot in phase 1 too", cell=True)
    heartbeat_reserved: str = _choice(
        "keeps",
        "resets keeps",
        "a heartbeat overwrites the reservations, or leaves them (W12, B4)",
        cell=True,
    )
    slot_release: str = _choice(
        "fenced",
        "counters fenced",
        "free slots by counting down, or by the fenced completion (B21)",
        cell=True,
    )
    lease_ms: int = _number(90_000, "lease of a slot", cell=True)

    # Waiting and failing over
    pending: str = _choice(
        "queue",
        "expire queue",
        "a job without a node is looked at again, or only expires (W13, B8)",
    )
    pending_ms: int = _number(10_000, "longest wait for a node")
    pending_max: int = _number(10_000, "most jobs that wait on one instance", cell=True)
    node_loss: str = _choice(
        "event",
        "timeout event",
        "re-dispatch when a socket closes, or after the job timeout (W14, B9)",
        cell=True,
    )
    ack_timeout_ms: int = _number(
        0, "re-dispatch a job not acknowledged for this long; 0: never (W14)"
    )
    job_timeout_ms: int = _number(30_000, "re-dispatch a job not finished for this long")
    failover_max: int = _number(3, "most re-dispatches of one job")
    failover_lock: str = _choice(
        "released",
        "across_store released",
        "hold the jobs lock across store calls on failover (W18)",
    )
    job_gc: bool = _switch(True, "forget jobs that ended (W17, B14)")
    finalize_error: str = _choice(
        "reset",
        "wedge reset",
        "after a failed finalize the session goes on, or never finalizes again (W20, B2)",
    )
    create_failure: str = _choice(
        "pending",
        "pending raise",
        "a job without a node waits, or the creation fails (the later design's error path, B2)",
    )

    # Results
    group_updates: str = _choice(
        "merged", "separate merged", "one or two group writes a result (P4, W9)"
    )
    session_reads: str = _choice(
        "once", "each once", "read the session once a result, or in every callee (W22)"
    )
    dedup: str = _choice(
        "attempt",
        "job attempt",
        "recognise repeated results by job, or by job and attempt (W15, B5)",
    )
    dedup_recorded: str = _choice(
        "after", "before after", "remember a result before or after it was validated (W15, B5)"
    )
    stale_results: str = _choice(
        "drop", "deliver drop", "what happens to an old attempt's result (B6)"
    )
    result_order: str = _choice(
        "outcome",
        "fcfs gap_timeout outcome",
        "order of results: as they come, strict with a timeout, strict by explicit outcome (W16)",
    )
    gap_ms: int = _number(10_000, "when a hole in the order is given up under gap_timeout")
    node_failure: str = _choice(
        "retry",
        "report retry",
        "a node's failed result goes to the client, or to another node first",
    )
    room_results: str = _choice(
        "by_language",
        "overwrite by_language",
        "results of one utterance for several languages (B13)",
    )
    result_routing: str = _choice(
        "claim",
        "binding session_owner claim",
        "what names a result's owner: the request binding (report), the session (code), the claim",
        cell=True,
    )
    no_text_terminal: bool = _switch(True, "a result without text ends its job (B10)")

    # Audio
    buffer_clock: str = _choice(
        "local",
        "each once_stale local",
        "reads of the buffer's clock: three; one for all (P3); one, then local now (3s) (W10)",
    )
    pause_cut: str = _choice(
        "held",
        "any held",
        "a pause cuts the chunk that ends it too, or only audio that waited through it",
    )
    group_reads: str = _choice(
        "merged", "separate merged", "active group and playback in one read or two (W23)"
    )
    group_reads_when: str = _choice(
        "pause",
        "always pause",
        "look at the group on every chunk (the report) or when a pause was exceeded (the code)",
    )
    tts_gate: str = _choice(
        "correct",
        "reference correct",
        "whether playback is recognised while it runs",
        cell=True,
    )
    audio_clock: str = _choice(
        "exact",
        "estimate exact",
        "audio duration from the packets, or the opus estimate for all bytes",
    )
    session_close: str = _choice(
        "finish",
        "drop finish",
        "what happens to the last audio and results of a closing session (B11)",
    )
    first_chunk_stamp: str = _choice(
        "utterance", "session utterance", "since when web_to_scheduler_ms counts (B12)"
    )
    backpressure: bool = _switch(True, "tell the client before anything is refused (B19)")

    # Connections
    stream_connection: str = _choice(
        "own",
        "shared own",
        "blocking stream reads share the store's connection, or have their own (W1, B1)",
        cell=True,
    )
    connections: int = _number(16, "connections to the store of one instance (W1)", cell=True)
    remote_dispatch: str = _choice(
        "typed",
        "lossy typed",
        "assignments forwarded with a false flag are lost, or not (B7)",
        cell=True,
    )
    store_down: str = _choice(
        "refuse",
        "slow refuse",
        "without the store: refuse at once with its code, or run into the pending timeout (B22)",
    )
    snapshot_guard: str = _choice(
        "released", "nested released", "hold the snapshot guard while another is taken (B24)"
    )
    rerun_counters: str = _choice(
        "cumulative",
        "added cumulative",
        "a node's cumulative rerun counts are added again, or taken as they are (B20)",
        cell=True,
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            check_value(f.name, getattr(self, f.name), "policy")
        if (self.job_scheme == "claim") != (self.slots == "lease"):
            want = "lease where job_scheme is claim; counter or none where it is phases"
            raise ConfigError("policy", "slots", want)


FIELDS: Final = {f.name: f for f in fields(Policy)}

PER_CELL: Final = tuple(name for name, f in FIELDS.items() if f.metadata["cell"])
"""Fields that all sessions of a cell have in common; a canary may differ only in the others."""


def check_value(name: str, value: object, where: str) -> None:
    """
    Check one field's value.

    Raises:
        ConfigError: naming the field and the values it takes.
    """
    known = FIELDS.get(name)
    if known is None:
        near = get_close_matches(name, FIELDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(where, name, f"no such policy field{hint}")
    choices = known.metadata["choices"]
    if choices is int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(where, name, f"a whole number of 0 or more, not {value!r}")
    elif value not in choices or isinstance(value, bool) is not isinstance(choices[0], bool):
        wanted = ", ".join(str(choice) for choice in choices)
        raise ConfigError(where, name, f"one of {wanted}, not {value!r}")
