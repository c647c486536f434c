"""
Leaving in good order: nobody new, what was said is answered, everybody is told, then the end.

The order: readiness goes false and new sockets are refused; clients are asked to pause; a session
ends as soon as it is between two utterances, or after half of the time wherever it stands, and
what it has said until then is finished; nodes stay until the last job is done, since they do the
work; then all sockets are closed with "service restart". What was not done by the deadline is
reported, never dropped without a word: its session's socket is closed with that code too.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from simsched.live import refusals
from simsched.messages import Backpressure, BackpressureAction, NodeControl

if TYPE_CHECKING:
    from simsched.live.instance import Instance
    from simsched.state import Session

LOOK_S: Final = 0.02
"""How often the sessions are looked at."""

GOODBYE_LIMIT_S: Final = 3.0
"""How long all sockets together may take to close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """
    What a drain did and left.

    Attributes:
        sessions: how many there were.
        sessions_left: of these, not finished by the deadline.
        jobs_left: jobs without an outcome then.
        nodes: how many were sent away.
        seconds: how long it took.

    """

    sessions: int
    sessions_left: int
    jobs_left: int
    nodes: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing was left."""
        return not (self.sessions_left or self.jobs_left)

    def text(self) -> str:
        """One line for a person."""
        if self.is_clean:
            left = "nothing left"
        else:
            left = f"{self.sessions_left} sessions and {self.jobs_left} jobs left"
        return (
            f"drained {self.sessions} sessions, {self.nodes} nodes in {self.seconds:.1f} s: {left}"
        )


async def drain(instance: Instance, limit_s: float) -> DrainReport:
    """Finish what was said, for at most `limit_s`, then send everybody away."""
    started = time.monotonic()
    instance.admission.draining = True
    sessions = len(instance.scheduler.state.sessions)
    _ask_for_a_pause(instance, limit_s)
    try:
        async with asyncio.timeout(limit_s):
            await _finish_sessions(instance, started + limit_s / 2)
    except TimeoutError:
        pass
    state = instance.scheduler.state
    left, jobs = len(state.sessions), len(state.book.active())
    nodes = len(instance.links.nodes)
    await _send_away(instance)
    return DrainReport(
        sessions=sessions, sessions_left=left, jobs_left=jobs, nodes=nodes,
        seconds=time.monotonic() - started,
    )  # fmt: skip


def _ask_for_a_pause(instance: Instance, limit_s: float) -> None:
    pause = Backpressure(
        action=BackpressureAction.PAUSE, resume_after_ms=max(0, round(limit_s * 1_000))
    )
    for session_id in instance.links.sessions:
        instance.links.to_client(session_id, pause)


async def _finish_sessions(instance: Instance, cut_at: float) -> None:
    """Until none is left: end those between two utterances, and all of them at `cut_at`."""
    sessions = instance.scheduler.state.sessions
    while sessions:
        late = time.monotonic() >= cut_at
        for session_id, session in list(sessions.items()):
            if late or not _is_speaking(session):
                instance.sessions.close(session_id, "service restart")
        await asyncio.sleep(LOOK_S)
    while instance.scheduler.state.book.active():  # noqa: ASYNC110  # of sessions that are gone
        await asyncio.sleep(LOOK_S)


def _is_speaking(session: Session) -> bool:
    """Whether audio waits that no cut has taken yet."""
    return session.actor is not None and session.actor.buffer.held_bytes > 0


async def _send_away(instance: Instance) -> None:
    """Close every socket with its reason; nodes hear an order besides."""
    for node_id in instance.links.nodes:
        instance.links.to_node(node_id, NodeControl(command="reconnect", reason="service restart"))
    for connection in list(instance.connections):
        if connection.is_open:
            connection.refuse(refusals.RESTART)
    ends = [asyncio.ensure_future(connection.is_gone.wait()) for connection in instance.connections]
    if ends:
        _, waiting = await asyncio.wait(ends, timeout=GOODBYE_LIMIT_S)
        for task in waiting:
            task.cancel()


class StopSignals:
    """SIGTERM and SIGINT: the first asks to leave in good order, the second at once."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.now = asyncio.Event()

    def install(self) -> None:
        """Take the signals over from Python."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.asked)

    def remove(self) -> None:
        """Give them back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def asked(self) -> None:
        """Somebody asks us to leave, perhaps not for the first time."""
        (self.now if self.leave.is_set() else self.leave).set()
