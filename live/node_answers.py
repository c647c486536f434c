"""A node's answers to a job, from what its engine made of it. Knows no sockets."""

from __future__ import annotations

import time

from simsched.live.engine_results import EngineFailure, EngineResult
from simsched.messages import Extra, JobAssign, JobResult, NodeFailure, ServiceTimings


def unix_ms() -> int:
    """Now, by this machine's clock."""
    return time.time_ns() // 1_000_000


def done(job: JobAssign, node_id: str, found: EngineResult, took_ms: int) -> JobResult:
    """The job is done; `took_ms` stands for the timings that the engine does not give."""
    return JobResult(
        job_id=job.job_id,
        attempt_id=job.attempt_id,
        node_id=node_id,
        session_id=job.session_id,
        utterance_index=job.utterance_index,
        success=True,
        trace_id=job.trace_id,
        text_asr=found.text_asr,
        text_translated=found.text_translated,
        tts_audio=found.tts_audio or None,
        tts_format=found.tts_format if found.tts_audio else None,
        extra=Extra(
            service_timings=found.timings or ServiceTimings(total_ms=took_ms),
            language_probability=found.language_probability,
            language_probabilities=found.language_probabilities,
        ),
        processing_time_ms=took_ms,
        group_id=job.group_id,
        part_index=job.part_index,
        node_completed_at_ms=unix_ms(),
    )


def failed(job: JobAssign, node_id: str, failure: EngineFailure) -> JobResult:
    """The job could not be done here."""
    return JobResult(
        job_id=job.job_id,
        attempt_id=job.attempt_id,
        node_id=node_id,
        session_id=job.session_id,
        utterance_index=job.utterance_index,
        success=False,
        trace_id=job.trace_id,
        error=NodeFailure(code=failure.code, message=failure.message, details=failure.details),
        node_completed_at_ms=unix_ms(),
    )
