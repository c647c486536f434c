"""
`SessionActor`: from chunks to utterances, one event of a session at a time.

One task per session takes events from its mailbox strictly one after another, so the hangover of a
cut delays the session's own later chunks and nobody else's. What to cut and when is decided by the
tables of `segmentation`; this shell reads clocks under their locks, waits, and hands audio over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from simsched import steps
from simsched.audio import AudioBuffer, actual_format, duration_ns, estimated_duration_ns
from simsched.births import CreationFailed
from simsched.delivery import Delivery
from simsched.jobs import Job, JobRequest, request_id
from simsched.messages import Backpressure, BackpressureAction
from simsched.segmentation import (
    ClockReading,
    ClockView,
    CutRule,
    FinalizeError,
    Segmenter,
    Trigger,
    clock_view,
    cut_reason,
    cut_rules,
    suppressed_by_playback,
    timeout_due,
    timer_deadline_ns,
)
from simsched.state import InstanceState, Session
from simsched.telemetry import Operation, OpKind, Outcome, UtteranceCut, UtteranceEmpty
from simsched.units import MS

if TYPE_CHECKING:
    from simsched.dispatch import JobDispatcher

RESUME_AFTER_MS: Final = 1_000
"""What the client is told to wait then: a hangover of 0.2 s and some creations of a job."""


@dataclass(frozen=True, slots=True)
class ChunkReceived:
    """A piece of audio as it reached the server."""

    payload: bytes
    is_final: bool
    received_ns: int
    client_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SilenceTimedOut:
    """The pause timer ran out; `base_ns` is the clock it remembered."""

    base_ns: int


@dataclass(frozen=True, slots=True)
class PlaybackMoved:
    """Playback started or ended: silence counts from now."""


@dataclass(frozen=True, slots=True)
class CloseSession:
    """The client said goodbye."""


SessionEvent = ChunkReceived | SilenceTimedOut | PlaybackMoved | CloseSession


class SessionActor:
    """The single consumer of one session's events."""

    def __init__(
        self,
        state: InstanceState,
        session: Session,
        dispatcher: JobDispatcher,
        delivery: Delivery,
        on_jobs: Callable[[list[Job]], None],
    ) -> None:
        self._state = state
        self._session = session
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._on_jobs = on_jobs
        self._runtime = state.runtime
        self._policy = policy = state.policy_of(session.session_id)
        self._settings = state.settings.segmentation
        self._rules = cut_rules(self._settings)
        self._reading = ClockReading(policy.buffer_clock)
        self._duration = (
            estimated_duration_ns if policy.audio_clock == "estimate" else _exact_duration_ns
        )
        # The reference names every session's audio alike, whatever it is (domain 2.3 step 3).
        self._tells_formats_apart = policy.audio_clock == "exact"
        self._inbox = state.runtime.mailbox()
        self._behind_max = state.settings.session_queue_max
        # From here on the client is asked to slow down, once until half of it is worked off.
        self._behind_slow = self._behind_max // 2
        self._told_to_slow_down = False
        self._first_audio_ms: int | None = None
        self._timer = state.runtime.timer(self._timer_fired)
        self._timer_base: int | None = None
        self._last_gap_ns = 0
        self._measured = b""
        self._measured_ns = 0
        self.buffer = AudioBuffer()
        self.segmenter = Segmenter(FinalizeError(policy.finalize_error))
        self._handlers: dict[type, Callable[..., Awaitable[None]]] = {
            ChunkReceived: self.handle_audio_chunk,
            SilenceTimedOut: self._silence_timed_out,
            PlaybackMoved: self._playback_moved,
        }

    def post(self, event: SessionEvent) -> bool:
        """
        Line an event up; False if the session is too far behind to take more audio.

        The client is asked to slow down long before. The reference's bound never bites (B19).
        """
        behind = len(self._inbox)
        if self._policy.backpressure and isinstance(event, ChunkReceived):
            if behind >= self._behind_max:
                return False
            self._mind_the_backlog(behind)
        self._inbox.put(event)
        return True

    def _mind_the_backlog(self, behind: int) -> None:
        if behind >= self._behind_slow and not self._told_to_slow_down:
            self._told_to_slow_down = True
            self._runtime.links.to_client(
                self._session.session_id,
                Backpressure(action=BackpressureAction.SLOW_DOWN, resume_after_ms=RESUME_AFTER_MS),
            )
        elif behind < self._behind_slow // 2:
            self._told_to_slow_down = False

    async def run(self) -> None:
        """Handle events until the session closes."""
        while True:
            event = await self._inbox.get()
            if isinstance(event, CloseSession):
                await self._close()
                return
            await self._handlers[type(event)](event)

    # A chunk

    async def handle_audio_chunk(self, chunk: ChunkReceived) -> None:
        """One chunk, in the report's order (its section 3.1; domain 2.3)."""
        session, segmenter = self._session, self.segmenter
        session.op_count += 1
        op = self._runtime.begin(
            OpKind.AUDIO_CHUNK, session.key, session.op_count, session.session_id
        )
        index = segmenter.index_for_chunk()
        async with self._runtime.step(steps.GET_SESSION, op):
            audio_ns = self._chunk_ns(chunk.payload)
        async with self._runtime.step(steps.ADD_CHUNK, op, key=session.session_id):
            held = self.buffer.add(index, chunk.payload, chunk.received_ns)
        segmenter.chunk(audio_ns)
        session.audio_bytes_in += len(chunk.payload)
        if self._first_audio_ms is None and chunk.payload:
            self._first_audio_ms = self._stamp_ms(chunk)
        paused, view = False, ClockView(None, None)
        if chunk.payload:
            paused, view = await self._read_clock(op, chunk)
            paused = await self._unless_playing(op, paused=paused)
            waited = held > len(chunk.payload)
            paused = paused and (waited or self._policy.pause_cut == "any")
        self._last_gap_ns = view.gap_ns or 0
        self._runtime.end(op)
        reason = cut_reason(
            self._settings,
            is_final=chunk.is_final,
            pause_exceeded=paused,
            accumulated_ns=segmenter.accumulated_ns,
            buffered_bytes=held,
        )
        if segmenter.in_flight is not None:
            return
        if reason is not None:
            await self.try_finalize(reason)
        elif chunk.payload:
            self._arm_timer(view.timer_base_ns)

    def _stamp_ms(self, chunk: ChunkReceived) -> int:
        """Unix time of a chunk: the client's own word, else when it arrived."""
        if chunk.client_ms is not None:
            return chunk.client_ms
        return self._runtime.now_ms() - (self._runtime.now() - chunk.received_ns) // MS

    def _chunk_ns(self, payload: bytes) -> int:
        """How long a chunk lasts; the very same bytes as before (simulated speech) last as long."""
        if payload is not self._measured:
            self._measured = payload
            self._measured_ns = self._duration(self._session.audio_format, payload)
        return self._measured_ns

    async def _read_clock(self, op: Operation, chunk: ChunkReceived) -> tuple[bool, ClockView]:
        """The reads around recording a chunk: three, or one (P3, W10)."""
        key = self._session.session_id
        async with self._runtime.step(steps.LAST_CHUNK_AT, op, site=1, key=key):
            old = self.buffer.last_chunk_at
        async with self._runtime.step(steps.RECORD_CHUNK, op, key=key):
            paused = self.buffer.record_chunk(chunk.received_ns, self._settings.pause_ns)
        new = chunk.received_ns
        if self._reading is ClockReading.EACH:
            async with self._runtime.step(steps.LAST_CHUNK_AT, op, site=2, key=key):
                new = self.buffer.last_chunk_at or chunk.received_ns
        return paused, clock_view(self._reading, old, new, chunk.received_ns)

    async def _unless_playing(self, op: Operation, *, paused: bool) -> bool:
        """Whether the pause counts although translated speech may be playing."""
        if self._policy.group_reads_when == "pause" and not paused:
            return False
        session = self._session.session_id
        if self._policy.group_reads == "merged":
            async with self._runtime.step(steps.ACTIVE_GROUP_AND_TTS, op):
                group, playing = self._state.groups.active_and_playing(
                    session, self._runtime.now_ms()
                )
        else:
            async with self._runtime.step(steps.ACTIVE_GROUP, op):
                group = self._state.groups.active_group(session)
            async with self._runtime.step(steps.TTS_PLAYING, op):
                playing = group is not None and self._state.groups.is_tts_playing(
                    group, self._runtime.now_ms()
                )
        gated = suppressed_by_playback(pause_exceeded=paused, group_id=group, playing=playing)
        # The report counts a third read on every chunk; the code makes it only for its log.
        logs = gated or self._policy.group_reads_when == "always"
        if self._reading is ClockReading.EACH and logs:
            async with self._runtime.step(steps.LAST_CHUNK_AT, op, site=3, key=session):
                pass
        return paused and not gated

    # Time

    def _arm_timer(self, base_ns: int | None) -> None:
        deadline = timer_deadline_ns(self._settings, self._runtime.now())
        if base_ns is None or deadline is None:
            return
        self._timer_base = base_ns
        self._timer.set(deadline)

    def _timer_fired(self) -> None:
        base = self._timer_base
        if base is not None and timeout_due(base, self.buffer.last_chunk_at):
            self._inbox.put(SilenceTimedOut(base))

    async def _silence_timed_out(self, event: SilenceTimedOut) -> None:
        if timeout_due(event.base_ns, self.buffer.last_chunk_at):
            await self.try_finalize(Trigger.TIMEOUT)

    async def _playback_moved(self, _event: PlaybackMoved) -> None:
        now = self._runtime.now()
        self.buffer.touch(now)
        self._arm_timer(now)

    # A cut

    async def try_finalize(self, trigger: Trigger) -> None:
        """Cut the current utterance, after its hangover, unless a cut is in flight."""
        index = self.segmenter.index
        if not self.segmenter.begin(index):
            return
        rule = self._rules[trigger]
        op = self._runtime.begin(
            OpKind.FINALIZE, self._session.key, index, self._session.session_id
        )
        if rule.hangover_ns:
            async with self._runtime.step(steps.HANGOVER, op):
                await self._runtime.sleep(rule.hangover_ns)
        try:
            made = await self.do_finalize(op, trigger, rule, index)
        except CreationFailed:
            # The reference's error path: the index stays in flight, nobody is told (B2).
            self.segmenter.failed()
            self._runtime.end(op, Outcome.FAILED)
            return
        if made:
            self.segmenter.done()
            self._session.utterance_index = self.segmenter.index
        else:
            self.segmenter.empty()
        self._runtime.end(op, Outcome.DONE if made else Outcome.NOTHING)

    async def do_finalize(self, op: Operation, trigger: Trigger, rule: CutRule, index: int) -> bool:
        """Take the audio and make its jobs; False if there was none."""
        session = self._session
        async with self._runtime.step(steps.GET_SESSION, op):
            pass
        async with self._runtime.step(steps.TAKE_COMBINED, op, key=session.session_id):
            first_ns = self.buffer.first_at(index) or 0
            last_ns = self.buffer.last_at(index) or 0
            audio = self.buffer.take(index) if self._is_open() else b""
        now = self._runtime.now()
        if not audio:
            self._state.emit(
                UtteranceEmpty(
                    at_ns=now, instance=self._runtime.instance_id, session=session.session_id,
                    utterance=index, reason=trigger,
                )
            )  # fmt: skip
            return False
        audio_ms = self._duration(session.audio_format, audio) // MS
        self._state.rooms.spoke(session.session_id, now)
        session.audio_bytes_cut += len(audio)
        waits = trigger in (Trigger.PAUSE, Trigger.TIMEOUT)
        self._state.emit(
            UtteranceCut(
                at_ns=now, instance=self._runtime.instance_id, session=session.session_id,
                utterance=index, reason=trigger, audio_bytes=len(audio), audio_ms=audio_ms,
                first_audio_ns=first_ns, last_audio_ns=last_ns,
                silence_ns=self._settings.pause_ns if waits else 0,
                gap_ns=self._last_gap_ns if trigger is Trigger.PAUSE else 0,
                hangover_ns=rule.hangover_ns,
            )
        )  # fmt: skip
        jobs = await self.create_translation_jobs(trigger, rule, index, audio, audio_ms)
        for job in jobs:
            await self._dispatcher.dispatch(job)
        self._on_jobs(jobs)
        return True

    def _is_open(self) -> bool:
        """Whether the session is still known: the reference drops it before its last cut (B11)."""
        return self._state.sessions.get(self._session.session_id) is self._session

    async def create_translation_jobs(
        self, trigger: Trigger, rule: CutRule, index: int, audio: bytes, audio_ms: int
    ) -> list[Job]:
        """One job per target language: a room's members', or the session's own (domain 4.2)."""
        session = self._session
        targets = self._state.rooms.targets(session.session_id, session.target_language)
        self._delivery.expect(session, index, tuple(targets))
        audio_format = session.audio_format
        if self._tells_formats_apart:
            audio_format = actual_format(audio_format, audio)
        first_ms = self._first_audio_ms or 0
        if self._policy.first_chunk_stamp == "utterance":
            self._first_audio_ms = None
        jobs = []
        for language, members in targets.items():
            request = JobRequest(
                request_id=request_id(session.session_id, index, language, session.trace_id),
                session_id=session.session_id,
                session_key=session.key,
                utterance=index,
                source_language=session.source_language,
                target_language=language,
                audio=audio,
                audio_format=audio_format,
                audio_ms=audio_ms,
                trace_id=session.trace_id,
                tenant_id=session.tenant_id,
                preferred_node=session.preferred_node,
                targets=members,
                padding_ms=rule.padding_ms,
                cut=trigger,
                first_audio_ms=first_ms,
                features=session.features,
            )
            try:
                job = await self._dispatcher.create_job(request)
            except CreationFailed as failure:
                if self._policy.finalize_error == "wedge":
                    raise
                self._delivery.refuse(request, failure.code)
                continue
            if self._state.book.get(job.job_id) is not job:
                self._delivery.elsewhere(session, index, language)
            jobs.append(job)
        return jobs

    # The end

    async def _close(self) -> None:
        """The last audio is cut like any other; then nothing may happen any more (B11)."""
        self._timer.cancel()
        await self.try_finalize(Trigger.SESSION_CLOSE)
        self.buffer.drop_all()
        self.segmenter.close()


def _exact_duration_ns(audio_format: str, payload: bytes) -> int:
    return duration_ns(actual_format(audio_format, payload), payload)
