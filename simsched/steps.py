"""
The catalogue of steps: every piece of work that costs something, by name.

Steps are the joint between the worlds. The simulator charges them, the live server times them,
calibration turns the times into charges, reports name them. Who charges: kinds LOCK and CPU are
charged by `Runtime.step`; kinds REDIS, NET and WAIT by their port alone, the step only names them.

A LEAF step waits for nothing inside its body, so its hold is known on entry and one event serves
it; a SPANNING step contains other waits. `cost` is the key of a cost model that prices the step;
several steps may share one price. `method` is the name under which the reference's call tree and
the report's appendix A count the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """What a step contends for."""

    LOCK = 0
    CPU = 1
    REDIS = 2
    NET = 3
    WAIT = 4


class Mode(IntEnum):
    """How a lock is taken."""

    EXCLUSIVE = 0
    SHARED = 1


class Shape(IntEnum):
    """Whether the body of a step may wait."""

    LEAF = 0
    SPANNING = 1


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One entry of the catalogue; compared by identity."""

    index: int
    name: str
    kind: Kind
    cost: str
    lock: str
    mode: Mode
    shape: Shape
    method: str


_entries: list[Step] = []


def _step(
    name: str,
    kind: Kind,
    *,
    lock: str = "",
    mode: Mode = Mode.EXCLUSIVE,
    shape: Shape = Shape.LEAF,
    cost: str = "",
    method: str = "",
) -> Step:
    step = Step(len(_entries), name, kind, cost or name, lock, mode, shape, method)
    _entries.append(step)
    return step


def _lock(
    name: str,
    lock: str,
    *,
    shared: bool = False,
    spanning: bool = False,
    cost: str = "",
    method: str = "",
) -> Step:
    return _step(
        name,
        Kind.LOCK,
        lock=lock,
        mode=Mode.SHARED if shared else Mode.EXCLUSIVE,
        shape=Shape.SPANNING if spanning else Shape.LEAF,
        cost=cost,
        method=method,
    )


def _redis(name: str, *, cost: str = "", method: str = "") -> Step:
    return _step(name, Kind.REDIS, cost=cost, method=method)


# Audio (report 1.1 and 3.1)
GET_SESSION = _lock("session_manager.get_session", "session_manager", shared=True,
                    method="get_session")  # fmt: skip
ADD_CHUNK = _lock("audio_buffer.add_chunk", "audio_buffer", cost="audio_buffer.call",
                  method="add_chunk")  # fmt: skip
LAST_CHUNK_AT = _lock("audio_buffer.get_last_chunk_at_ms", "audio_buffer",
                      cost="audio_buffer.call", method="get_last_chunk_at_ms")  # fmt: skip
RECORD_CHUNK = _lock("audio_buffer.record_chunk_and_check_pause", "audio_buffer",
                     cost="audio_buffer.call", method="record_chunk_and_check_pause")  # fmt: skip
TAKE_COMBINED = _lock("audio_buffer.take_combined", "audio_buffer", cost="audio_buffer.call",
                      method="take_combined")  # fmt: skip
ACTIVE_GROUP = _lock("group.get_active_group_id", "group_manager", shared=True, cost="group.read",
                     method="get_active_group_id")  # fmt: skip
TTS_PLAYING = _lock("group.is_tts_playing", "group_manager", shared=True, cost="group.read",
                    method="is_tts_playing")  # fmt: skip
ACTIVE_GROUP_AND_TTS = _lock("group.get_active_group_and_tts", "group_manager", shared=True,
                             cost="group.read", method="get_active_group_and_tts")  # fmt: skip
HANGOVER = _step("hangover", Kind.WAIT, method="hangover")

# Job creation (report 1.1, 1.2)
JOBS_READ = _lock("jobs.read", "jobs", shared=True, method="jobs.read")
JOBS_WRITE = _lock("jobs.write", "jobs", method="jobs.write")
JOBS_WRITE_HELD = _lock("jobs.write.held", "jobs", spanning=True, cost="jobs.write",
                        method="jobs.write")  # fmt: skip
SNAPSHOT_READ = _lock("snapshot.read", "snapshot", shared=True, spanning=True,
                      method="get_snapshot")  # fmt: skip
SNAPSHOT_CLONE = _step("snapshot.clone", Kind.CPU, method="snapshot.clone")
SNAPSHOT_WRITE = _lock("snapshot.write", "snapshot", method="snapshot.write")
PHASE3_CONFIG = _lock("phase3.cached", "phase3_cache", shared=True,
                      method="get_phase3_config_cached")  # fmt: skip
PHASE3_READ = _lock("phase3.read", "phase3", shared=True, method="phase3.read")
SESSION_RUNTIME = _lock("session_runtime.lock", "session_runtime", spanning=True,
                        method="decide_pool_for_session")  # fmt: skip
SESSION_RUNTIME_SHARED = _lock("session_runtime.read", "session_runtime", shared=True,
                               spanning=True, cost="session_runtime.lock",
                               method="decide_pool_for_session")  # fmt: skip
SESSION_RUNTIME_STORE = _lock("session_runtime.store", "session_runtime",
                              cost="session_runtime.lock",
                              method="session_runtime.store")  # fmt: skip
POOL_DECIDE = _step("pool.decide", Kind.CPU, method="find_pools_for_lang_pair")
POOL_CACHE = _step("pool.cache", Kind.CPU, method="pool_cache")
NODE_CACHE = _step("node.cache", Kind.CPU, method="node_cache")
MANAGEMENT_READ = _lock("management.read", "management_registry", shared=True,
                        method="is_node_available")  # fmt: skip
MANAGEMENT_WRITE = _lock("management.write", "management_registry",
                         method="management.write")  # fmt: skip
SELECT_PHASE1 = _step("select.filter", Kind.CPU, method="select_node_for_job_creation")
SELECT_PHASE2 = _step("select.filter.phase2", Kind.CPU, cost="select.filter",
                      method="select_node_for_phase2")  # fmt: skip
SELECT_AGAIN = _step("select.filter.again", Kind.CPU, cost="select.filter",
                     method="select_node_again")  # fmt: skip
SELECT_INDEX = _step("select.index", Kind.CPU, method="select_node_by_index")
EXCLUDE_STATS = _lock("exclude_stats.write", "exclude_stats", method="exclude_stats.write")

# The store (report 1.2 and appendix C; domain 4.9)
GET_BINDING = _redis("redis.get_binding", method="get_request_binding")
SET_BINDING = _redis("redis.set_binding", cost="redis.set", method="set_request_binding")
SET_NX_BINDING = _redis("redis.set_nx_binding", cost="redis.set_nx_lock",
                        method="set_nx_request_binding")  # fmt: skip
REQUEST_LOCK = _redis("redis.set_nx_lock", method="acquire_request_lock")
REQUEST_UNLOCK = _redis("redis.unlock", cost="redis.script", method="release_request_lock")
RESERVE = _redis("redis.lua_reserve", method="reserve_node_slot")
RELEASE = _redis("redis.release", cost="redis.script", method="release_node_slot")
COMMIT = _redis("redis.commit", cost="redis.script", method="commit_node_slot")
DEC_RUNNING = _redis("redis.dec_running", cost="redis.script", method="dec_running")
FSM = _redis("redis.fsm", cost="redis.script", method="job_fsm")
MARK_DISPATCHED = _redis("redis.mark_dispatched", cost="redis.get",
                         method="mark_dispatched_binding")  # fmt: skip
JOB_KEY = _redis("redis.job_key", cost="redis.get", method="job_key")
CAPABILITY_READ = _redis("redis.hgetall_capability", cost="redis.hgetall",
                         method="capability_read")  # fmt: skip
POOL_MEMBERS = _redis("redis.smembers_pool", cost="redis.smembers", method="pool_members")
OWNER_READ = _redis("redis.get_owner", cost="redis.get", method="get_owner")
OWNER_WRITE = _redis("redis.set_owner", cost="redis.set", method="set_owner")
HEARTBEAT_STORE = _redis("redis.heartbeat", cost="redis.script", method="heartbeat_store")
CLAIM = _redis("redis.claim", cost="redis.lua_reserve", method="claim")
COMPLETE = _redis("redis.complete", cost="redis.script", method="complete")
RENEW = _redis("redis.renew", cost="redis.script", method="renew")
NODE_GONE = _redis("redis.node_gone", cost="redis.script", method="node_gone")
SESSION_STATE = _redis("redis.session_state", cost="redis.set", method="session_state")
STREAM_READ = _redis("redis.xreadgroup", cost="redis.xread", method="xreadgroup")
INBOX_APPEND = _redis("redis.xadd_inbox", cost="redis.xadd", method="xadd_inbox")

# Job result (report 2.1)
DEDUP = _lock("dedup.lookup", "job_result_cache", method="check_job_result_deduplication")
ON_ASR_FINAL = _lock("group.on_asr_final", "group_manager", method="on_asr_final")
ON_NMT_DONE = _lock("group.on_nmt_done", "group_manager", method="on_nmt_done")
ON_RESULT_MERGED = _lock("group.on_asr_final_and_nmt_done", "group_manager",
                         cost="group.on_asr_final",
                         method="on_asr_final_and_nmt_done")  # fmt: skip
RESULT_QUEUE = _lock("result_queue.add", "result_queue", method="add_result")
RESULT_METRICS = _step("result.metrics", Kind.CPU, method="create_timings_and_metrics")

# Background work and messages
HEARTBEAT = _step("node.heartbeat", Kind.CPU, method="handle_heartbeat")
TIMEOUT_SCAN = _lock("jobs.scan", "jobs", shared=True, method="timeout_scan")
SEND_NODE = _step("net.scheduler_to_node", Kind.NET, cost="net.node", method="send_to_node")
SEND_CLIENT = _step("net.scheduler_to_client", Kind.NET, cost="net.client",
                    method="send_to_client")  # fmt: skip
FROM_NODE = _step("net.node_to_scheduler", Kind.NET, cost="net.node", method="receive_from_node")
FROM_CLIENT = _step("net.client_to_scheduler", Kind.NET, cost="net.client",
                    method="receive_from_client")  # fmt: skip
INBOX_DELIVER = _step("net.inbox", Kind.NET, cost="net.inbox", method="receive_from_inbox")
PRESENCE = _redis("redis.presence", cost="redis.script", method="presence")

CATALOGUE: Final[tuple[Step, ...]] = tuple(_entries)
BY_NAME: Final[dict[str, Step]] = {step.name: step for step in CATALOGUE}
LOCKS: Final[tuple[str, ...]] = tuple(dict.fromkeys(s.lock for s in CATALOGUE if s.lock))
COST_KEYS: Final[tuple[str, ...]] = tuple(dict.fromkeys(s.cost for s in CATALOGUE))
