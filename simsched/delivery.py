"""
Outcomes on their way to clients: one per utterance, language and target, in order.

Every cut utterance is expected here with its languages; every end of a job (a translation, a miss
with its reason, an error) comes in once and leaves when the session's order allows it. The order
itself is `result_queue`'s. Errors of the reference bypass the queue and leave a gap, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simsched.jobs import JobRequest
from simsched.messages import (
    Error,
    ErrorCode,
    MissingResult,
    MissReason,
    ServerToClient,
    SessionCloseAck,
    UiEvent,
    UiEventType,
    UiStatus,
)
from simsched.result_queue import Released, ResultQueue
from simsched.state import InstanceState, Session
from simsched.telemetry import AnsweredAlone, Delivered

SILENT: Final = "elsewhere"
"""The outcome of an utterance that another instance answers; nothing is sent for it."""


ANSWERED_REMEMBERED: Final = 1_024
"""Answers of one session that are remembered, so that none leaves twice."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The one outcome of one job."""

    session_id: str
    utterance: int
    language: str
    job_id: str
    outcome: str
    reason: str
    message: ServerToClient
    targets: tuple[str, ...]


class Delivery:
    """Hands outcomes to clients in the order of their session."""

    def __init__(self, state: InstanceState) -> None:
        self._state = state
        self._runtime = state.runtime

    def expect(self, session: Session, utterance: int, languages: tuple[str, ...]) -> None:
        """An utterance was cut: these languages will each have an outcome."""
        session.results.expect(utterance, languages, self._runtime.now())

    def queue(self, session: Session, answer: Answer) -> list[tuple[Answer, bool]]:
        """
        Line an outcome up; returns those that may leave now, with their gap flag.

        One whose turn was given up, because another instance was to answer, leaves at once.
        """
        key, late = (answer.utterance, answer.language), session.results.late
        released = session.results.add(
            answer.utterance, answer.language, answer, self._runtime.now()
        )
        leaving = [self._answered(session, entry) for entry in released]
        gave_up = key in session.silenced or session.results.late > late
        if gave_up and answer.outcome != SILENT and self._keeps_place(session):
            session.silenced.pop(key, None)
            leaving.insert(0, (answer, True))
        return leaving

    def elsewhere(self, session: Session, utterance: int, language: str) -> None:
        """Another instance answers this utterance: its place here is given up in silence."""
        if self._state.policy_of(session.session_id).result_order == "fcfs":
            return
        session.silenced[utterance, language] = None
        if len(session.silenced) > ANSWERED_REMEMBERED:
            del session.silenced[next(iter(session.silenced))]
        message = SessionCloseAck(session_id=session.session_id)
        silent = Answer(session.session_id, utterance, language, "", SILENT, "", message, ())
        self.send(self.queue(session, silent))

    def asked(self, session: Session, utterance: int) -> None:
        """A client that numbers its utterances asks for one."""
        if session.asked is None:
            return
        session.asked[utterance] = None
        if len(session.asked) > ANSWERED_REMEMBERED:
            del session.asked[next(iter(session.asked))]

    def connected(self, session: Session, results: ResultQueue[Answer]) -> None:
        """
        A client has connected anew, from another instance: it asks again for what it lacks.

        Nothing that was sent to it before counts as heard, and no place in line is its any more.
        """
        session.asked = {}
        session.answered.clear()
        session.silenced.clear()
        session.results = results

    def has_answered(
        self, session: Session, utterance: int, language: str, members: Sequence[str]
    ) -> bool:
        """Whether all targets of an utterance have been answered on their present connection."""
        return self._keeps_place(session) and all(
            (utterance, language, target) in session.answered
            for target in members or (session.session_id,)
        )

    def sweep(self, session: Session) -> list[tuple[Answer, bool]]:
        """Outcomes that time alone lets go."""
        released = session.results.sweep(self._runtime.now())
        return [self._answered(session, entry) for entry in released]

    def _answered(self, session: Session, entry: Released[Answer]) -> tuple[Answer, bool]:
        """An index that the order gave up without an outcome is a miss with its reason."""
        if entry.item is not None:
            return entry.item, entry.gap
        message = MissingResult(
            session_id=session.session_id, utterance_index=entry.index,
            reason=MissReason.GAP_TIMEOUT, created_at_ms=self._runtime.now_ms(),
        )  # fmt: skip
        reason = str(MissReason.GAP_TIMEOUT)
        answer = Answer(
            session.session_id, entry.index, entry.language, "", "missing_result", reason,
            message, (),
        )  # fmt: skip
        return answer, True

    def send(self, answers: list[tuple[Answer, bool]]) -> None:
        """Send released outcomes to their targets: the room's members, else the speaker."""
        for answer, gap in answers:
            if answer.outcome == SILENT:
                continue
            for target in answer.targets or (answer.session_id,):
                if self._is_first(answer, target):
                    self._send_one(answer, target, gap=gap)

    def _is_first(self, answer: Answer, target: str) -> bool:
        """
        Whether the target has no answer yet that left from here.

        Only where each outcome has its place: the reference answers as often as it is asked to.
        """
        session = self._state.sessions.get(answer.session_id)
        if session is None or not self._keeps_place(session):
            return True
        key = (answer.utterance, answer.language, target)
        if key in session.answered:
            self._runtime.telemetry.count("answers_repeated")
            return False
        session.answered[key] = None
        if len(session.answered) > ANSWERED_REMEMBERED:
            del session.answered[next(iter(session.answered))]
        return True

    def _send_one(self, answer: Answer, target: str, *, gap: bool) -> None:
        if not self._runtime.links.to_client(target, answer.message):
            self._runtime.telemetry.count("answers_undeliverable")
            return
        self._state.emit(
            Delivered(
                at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                session=answer.session_id, target=target, utterance=answer.utterance,
                language=answer.language, job=answer.job_id, outcome=answer.outcome,
                reason=answer.reason, gap=gap,
            )
        )  # fmt: skip

    def fail(self, session: Session | None, answer: Answer) -> None:
        """An error outcome: in its turn, or at once where the policy keeps no place for it."""
        if session is not None and self._keeps_place(session):
            self.send(self.queue(session, answer))
        else:
            self.send([(answer, True)])

    def _keeps_place(self, session: Session) -> bool:
        return self._state.policy_of(session.session_id).result_order == "outcome"

    def refuse(self, request: JobRequest, code: str) -> None:
        """A request for which no job could be made: an error towards its targets."""
        session_id, utterance = request.session_id, request.utterance
        self.ui_event(
            session_id, "", utterance, request.trace_id, UiEventType.ERROR, error=ErrorCode(code)
        )
        message = Error(code=code, message=code, utterance_index=utterance)
        if code == ErrorCode.SCHEDULER_DEPENDENCY_DOWN:
            self.alone(request)
        self.fail(
            self._state.sessions.get(session_id),
            Answer(
                session_id, utterance, request.target_language, "", "error", code, message,
                request.targets,
            ),
        )  # fmt: skip

    def alone(self, request: JobRequest) -> None:
        """The store is away, so nobody can tell whether another instance answers this too."""
        if self._state.settings.shared:
            self._state.emit(
                AnsweredAlone(
                    at_ns=self._runtime.now(), instance=self._runtime.instance_id,
                    session=request.session_id, utterance=request.utterance,
                    language=request.target_language,
                )
            )  # fmt: skip

    def drain(self, session: Session) -> None:
        """The session is over: send what waited for its turn (domain 2.7)."""
        held = [entry for entry in session.results.drain() if entry.item is not None]
        self.send([self._answered(session, entry) for entry in held])

    def ui_event(
        self,
        session_id: str,
        job_id: str,
        utterance: int,
        trace_id: str,
        event: UiEventType,
        *,
        elapsed_ms: int | None = None,
        error: ErrorCode | None = None,
    ) -> None:
        """Tell the speaker how far an utterance is."""
        self._runtime.links.to_client(
            session_id,
            UiEvent(
                trace_id=trace_id,
                session_id=session_id,
                job_id=job_id,
                utterance_index=utterance,
                event=event,
                elapsed_ms=elapsed_ms,
                status=UiStatus.ERROR if error else UiStatus.OK,
                error_code=error,
            ),
        )
