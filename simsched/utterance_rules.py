"""
What must hold of a session's utterances: order, numbering, audio and timing (I6, I7, I8, I13).

`compare_cuts` is I14: equal inputs give equal cuts under a policy and its base. What a cut becomes
(jobs, answers) is not known here: see `conservation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Final, NamedTuple

from simsched.findings import REMEMBERED_MAX, CheckSettings, Findings, Tail
from simsched.telemetry import (
    Delivered,
    Disturbed,
    InstanceDown,
    JobEnded,
    JobRefused,
    SessionClosed,
    SessionOpened,
    SessionResumed,
    UtteranceCut,
)

NUMBERED_BY_CLIENT: Final = "Utterance"
"""The reason of an utterance that the client cut and numbered itself (domain 2.9)."""


class _Session:
    """One session: the index it must cut next (None: not known), and how far each target is."""

    __slots__ = ("closed", "failed", "instance", "marks", "next_index", "resumed")

    def __init__(self, next_index: int | None, instance: str = "") -> None:
        self.next_index = next_index
        self.instance = instance
        self.closed = False
        self.resumed = False
        # A failure after which nothing was cut yet.
        self.failed = False
        self.marks: dict[str, int] = {}


class SessionRules:
    """Order, numbering, audio and timing of cuts, by session."""

    def __init__(self, settings: CheckSettings, findings: Findings) -> None:
        self._settings = settings
        self._findings = findings
        self._checked = findings.checked
        self._slack_ns = settings.hangover_ns + settings.scan_ns
        self._sessions: dict[str, _Session] = {}
        self._closed: Tail[str] = Tail(self._forget)
        self._disturbed_ns = -1

    def sizes(self) -> dict[str, int]:
        """How much is remembered."""
        return {"sessions": len(self._sessions), "sessions_closed": len(self._closed)}

    def closed(self) -> frozenset[str]:
        """The sessions that are over, as far as they are remembered."""
        return frozenset(name for name, one in self._sessions.items() if one.closed)

    def session_opened(self, event: SessionOpened) -> None:
        before = self._sessions.get(event.session)
        opened = self._sessions[event.session] = _Session(0, event.instance)
        opened.resumed = before is not None and before.resumed

    def disturbed(self, event: Disturbed) -> None:
        """Something is broken: what was spoken meanwhile may be cut late."""
        self._disturbed_ns = max(self._disturbed_ns, event.until_ns)

    def instance_down(self, event: InstanceDown) -> None:
        """Its sessions are over; who goes on with one elsewhere opens it again there."""
        for name, session in list(self._sessions.items()):
            if session.instance == event.instance and not session.closed:
                session.closed = True
                self._closed.push(name)

    def session_resumed(self, event: SessionResumed) -> None:
        """Its client has come here, and hears nobody else any more."""
        session = self._session(event.session)
        session.instance = event.instance
        session.resumed = True
        session.marks.clear()

    def session_closed(self, event: SessionClosed) -> None:
        """Everything that came in was cut; if not, a failure before it is the likely cause."""
        session = self._session(event.session)
        wedged = session.failed and event.audio_bytes_in > event.audio_bytes_cut
        self._checked["I7"] += 1
        self._checked["I8"] += session.failed
        if event.audio_bytes_in != event.audio_bytes_cut:
            name, why = ("I8", "; nothing was cut since a failure") if wedged else ("I7", "")
            self._findings.add(
                name, event.at_ns, event.session,
                f"{event.audio_bytes_in} bytes of audio came, {event.audio_bytes_cut} were cut"
                + why,
                event.instance,
            )  # fmt: skip
        if not session.closed:
            session.closed = True
            self._closed.push(event.session)

    def utterance_cut(self, event: UtteranceCut) -> None:
        """The next index, at the right moment."""
        session = self._session(event.session)
        if session.failed:
            self._checked["I8"] += 1
            session.failed = False
        if event.reason == NUMBERED_BY_CLIENT:
            return
        if session.next_index is not None:
            self._checked["I7"] += 1
            if event.utterance != session.next_index:
                self._findings.add(
                    "I7", event.at_ns, event.session,
                    f"utterance {event.utterance} was cut, {session.next_index} was next",
                    event.instance,
                )  # fmt: skip
        session.next_index = event.utterance + 1
        timing = CUT_TIMINGS.get(event.reason)
        whole = event.last_audio_ns - event.gap_ns > self._disturbed_ns
        if timing is not None and self._settings.pause_ns and whole:
            self._checked["I13"] += 1
            fault = timing(event, self._settings.pause_ns, self._slack_ns)
            if fault:
                self._findings.add(
                    "I13", event.at_ns, event.session,
                    f"{event.reason} cut of utterance {event.utterance} {fault}", event.instance,
                )  # fmt: skip

    def delivered(self, event: Delivered) -> None:
        """
        Not before an earlier utterance's answer, unless that was given up.

        An error that leaves out of turn (the reference's way) is flagged as a gap and moves no
        mark: what is earlier may still come.
        """
        session = self._session(event.session)
        if session.resumed and session.instance != event.instance:
            return
        if event.outcome == "error":
            session.failed = session.failed or not event.job
            if event.gap:
                return
        mark = session.marks.get(event.target, -1)
        self._checked["I6"] += 1
        if event.utterance >= mark:
            session.marks[event.target] = event.utterance
        elif not event.gap:
            self._findings.add(
                "I6", event.at_ns, event.session,
                f"utterance {event.utterance} reached {event.target} after {mark}",
                event.instance,
            )  # fmt: skip

    def job_refused(self, event: JobRefused) -> None:
        self._session(event.session).failed = True

    def job_ended(self, event: JobEnded) -> None:
        if event.status == "failed":
            self._session(event.session).failed = True

    def _session(self, name: str) -> _Session:
        session = self._sessions.get(name)
        if session is None:
            # Opened before the recording began, or so long closed that it was forgotten.
            session = self._sessions[name] = _Session(None)
            if len(self._sessions) > 16 * REMEMBERED_MAX:
                del self._sessions[next(iter(self._sessions))]
        return session

    def _forget(self, name: str) -> None:
        session = self._sessions.get(name)
        if session is not None and session.closed:
            del self._sessions[name]


def _pause_fault(event: UtteranceCut, pause_ns: int, slack_ns: int) -> str:
    """
    What is wrong with a cut by a chunk that came after silence.

    Late only if audio of the utterance lay waiting through the silence: the first chunk after a
    long one may cut itself at once, and nothing came too late then.
    """
    silence_ns = event.silence_ns or pause_ns
    if event.gap_ns < silence_ns:
        return f"after {event.gap_ns} ns of silence: too early"
    waited = event.first_audio_ns <= event.last_audio_ns - event.gap_ns
    if waited and event.gap_ns > silence_ns + slack_ns:
        return f"after {event.gap_ns} ns of silence: its timeout never cut"
    return ""


def _timeout_fault(event: UtteranceCut, pause_ns: int, slack_ns: int) -> str:
    """What is wrong with a cut by the silence timer."""
    silence_ns = event.silence_ns or pause_ns
    waited_ns = event.at_ns - event.last_audio_ns - event.hangover_ns
    if waited_ns < silence_ns:
        return f"after {waited_ns} ns of silence: too early"
    return _overdue(waited_ns, silence_ns + slack_ns)


def _close_fault(event: UtteranceCut, pause_ns: int, slack_ns: int) -> str:
    """The end of a session finds audio that silence should have cut long before."""
    return _overdue(event.at_ns - event.last_audio_ns - event.hangover_ns, pause_ns + slack_ns)


def _overdue(waited_ns: int, most_ns: int) -> str:
    return f"after {waited_ns} ns of silence: too late" if waited_ns > most_ns else ""


CUT_TIMINGS: Final[dict[str, Callable[[UtteranceCut, int, int], str]]] = {
    "Pause": _pause_fault,
    "Timeout": _timeout_fault,
    "SessionClose": _close_fault,
}
"""How the timing of a cut is judged, by its reason; others cut on a chunk and wait for nothing."""


class CutComparison(NamedTuple):
    """I14: of `compared` cuts, how many differ between two runs."""

    differing: int
    compared: int


def compare_cuts(base: Iterable[UtteranceCut], other: Iterable[UtteranceCut]) -> CutComparison:
    """
    I14: compare the cuts of two runs on equal inputs, session by session in their order.

    Two cuts are the same if index, size and reason are. A cut that the other run lacks differs.
    Moments are not compared: a policy may be faster than its base.
    """
    ours, theirs = _by_session(base), _by_session(other)
    differing = compared = 0
    for session in ours | theirs:
        nothing: list[tuple[int, int, str]] = []
        pairs = zip_longest(ours.get(session, nothing), theirs.get(session, nothing))
        for one, two in pairs:
            compared += 1
            differing += one != two
    return CutComparison(differing, compared)


def same_cuts(base: Iterable[UtteranceCut], other: Iterable[UtteranceCut]) -> int:
    """I14: how many cuts differ between two runs; 0 is what should be."""
    return compare_cuts(base, other).differing


def _by_session(cuts: Iterable[UtteranceCut]) -> dict[str, list[tuple[int, int, str]]]:
    found: dict[str, list[tuple[int, int, str]]] = {}
    for cut in cuts:
        key = (cut.utterance, cut.audio_bytes, cut.reason)
        found.setdefault(cut.session, []).append(key)
    return found
