"""
Utterances that the client cut and numbered itself: straight to job creation (domain 2.9).

Their index is the client's own and moves no counter of the session's actor; a client that mixes
both kinds collides with itself, as in the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simsched.births import CreationFailed
from simsched.delivery import Delivery
from simsched.dispatch import JobDispatcher
from simsched.jobs import Job, JobRequest, request_id
from simsched.messages import Features, Utterance
from simsched.modules import FEATURE_MODULES
from simsched.result_queue import ResultQueue
from simsched.state import InstanceState, Session
from simsched.telemetry import UtteranceCut


def asked_for(features: Features | None) -> tuple[str, ...]:
    """The names of the features that are switched on."""
    if features is None:
        return ()
    return tuple(name for name in FEATURE_MODULES if getattr(features, name))


class WholeUtterances:
    """Makes the jobs of utterances that come whole."""

    def __init__(
        self,
        state: InstanceState,
        dispatcher: JobDispatcher,
        delivery: Delivery,
        on_jobs: Callable[[list[Job]], None],
    ) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._on_jobs = on_jobs
        self._runtime = state.runtime

    async def take(self, session: Session, message: Utterance, patience_ns: int | None) -> None:
        """An utterance that the client cut and numbered itself (domain 2.9)."""
        now, index = self._runtime.now(), message.utterance_index
        session.audio_bytes_in += len(message.audio)
        session.audio_bytes_cut += len(message.audio)
        self._state.emit(
            UtteranceCut(
                at_ns=now, instance=self._runtime.instance_id, session=session.session_id,
                utterance=index, reason="Utterance", audio_bytes=len(message.audio), audio_ms=0,
                first_audio_ns=now, last_audio_ns=now, silence_ns=0, gap_ns=0, hangover_ns=0,
            )
        )  # fmt: skip
        targets = self._state.rooms.targets(session.session_id, message.tgt_lang)
        self._delivery.asked(session, index)
        self._delivery.expect(session, index, tuple(targets))
        trace = message.trace_id or session.trace_id
        self._state.rooms.spoke(session.session_id, now)
        asked_on = session.results  # a new connection asks anew, in an order of its own
        if session.owning is not None:
            await session.owning.join()  # a claim asks whose the session is
        for language, members in targets.items():
            if session.results is not asked_on:
                break
            if self._delivery.has_answered(session, index, language, members):
                self._runtime.telemetry.count("utterances_repeated")
                continue
            request = JobRequest(
                request_id=request_id(session.session_id, index, language, trace),
                session_id=session.session_id,
                session_key=session.key,
                utterance=index,
                source_language=message.src_lang,
                target_language=language,
                audio=message.audio,
                audio_format=message.audio_format,
                audio_ms=0,
                trace_id=trace,
                tenant_id=session.tenant_id,
                preferred_node=session.preferred_node,
                targets=members,
                first_audio_ms=self._runtime.now_ms(),
                features=asked_for(message.features) or session.features,
                pending_ns=patience_ns,
            )
            await self._make_job(session, request, asked_on)
        session.work_open -= 1
        self._dispatcher.on_drained(session)

    async def _make_job(
        self, session: Session, request: JobRequest, asked_on: ResultQueue[Any]
    ) -> None:
        try:
            job = await self._dispatcher.create_job(request)
        except CreationFailed as failure:
            if self._state.wants(request):
                self._delivery.refuse(request, failure.code)
            return
        if self._state.book.get(job.job_id) is not job and session.results is asked_on:
            self._delivery.elsewhere(session, request.utterance, request.target_language)
        await self._dispatcher.dispatch(job)
        self._on_jobs([job])
