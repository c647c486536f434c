"""
What a client is told about a result: the translation with its timings, or that there was nothing.

Pure functions of what the node answered and what the job knows (domain 9.1 steps 9 to 12).
"""

from __future__ import annotations

from simsched.jobs import Job
from simsched.messages import (
    JobResult,
    MissingResult,
    MissReason,
    NetworkTimings,
    ServiceTimings,
    TranslationResult,
)
from simsched.ports import Runtime
from simsched.units import MS


def message_of(
    runtime: Runtime, result: JobResult, job: Job | None, group_id: str | None, part: int | None
) -> TranslationResult | MissingResult:
    """The one message that a result becomes; without text and speech it is a miss."""
    now_ms = runtime.now_ms()
    if not (result.text_asr or result.text_translated or result.tts_audio):
        return MissingResult(
            session_id=result.session_id, utterance_index=result.utterance_index,
            reason=MissReason.SILENCE_DETECTED, created_at_ms=now_ms,
            trace_id=result.trace_id,
        )  # fmt: skip
    return TranslationResult(
        session_id=result.session_id,
        utterance_index=result.utterance_index,
        job_id=result.job_id,
        text_asr=result.text_asr or "",
        text_translated=result.text_translated or "",
        tts_audio=result.tts_audio or b"",
        tts_format=result.tts_format or "pcm16",
        trace_id=result.trace_id,
        scheduler_sent_at_ms=now_ms,
        extra=result.extra,
        group_id=group_id,
        part_index=part,
        service_timings=_service_timings(result),
        network_timings=network_timings(runtime, result, job),
        asr_quality_level=result.asr_quality_level,
        reason_codes=result.reason_codes,
        quality_score=result.quality_score,
        rerun_count=result.rerun_count,
        segments_meta=result.segments_meta,
    )


def network_timings(runtime: Runtime, result: JobResult, job: Job | None) -> NetworkTimings | None:
    """How long each leg took, as far as it is known (domain 9.1 step 10)."""
    if job is None or not job.dispatched_ns:
        return None
    now_ms, done_ms = runtime.now_ms(), result.node_completed_at_ms
    created_ms = now_ms - (runtime.now() - job.created_ns) // MS
    first_ms = job.request.first_audio_ms
    return NetworkTimings(
        web_to_scheduler_ms=max(0, created_ms - first_ms) if first_ms else None,
        scheduler_to_node_ms=max(0, (job.dispatched_ns - job.created_ns) // MS),
        node_to_scheduler_ms=max(0, now_ms - done_ms) if done_ms else None,
    )


def _service_timings(result: JobResult) -> ServiceTimings | None:
    if result.extra is not None and result.extra.service_timings is not None:
        return result.extra.service_timings
    if result.processing_time_ms is None:
        return None
    return ServiceTimings(total_ms=result.processing_time_ms)
