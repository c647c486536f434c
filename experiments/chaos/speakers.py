"""
Clients under chaos: they speak by the script of a case, outlive their instance, and note it all.

A client sends whole utterances with numbers of its own, at stated times. It notices a dead socket
(a close, or no answer to its pings), connects again with its session, and asks again for what has
no answer: clients of odd numbers to another instance at once, the others where they were if that
is up, as a load balancer may or may not remember them. Where its session is not taken up it begins
a new one and asks there. What it asked, what it saw and when is kept as it happened: the checker's
view from the outside.

A final answer is a result or a miss; an utterance that is refused gets an error with a reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from simsched import wire
from simsched.cases import Turn
from simsched.errors import MessageError
from simsched.experiments.chaos.system import System
from simsched.messages import (
    Error,
    ErrorCode,
    MissingResult,
    ServerToClient,
    SessionClose,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    TranslationResult,
    Utterance,
)

SAMPLE_RATE_HZ: Final = 16_000
BYTES_PER_MS: Final = 2 * SAMPLE_RATE_HZ // 1_000
OPEN_LIMIT_S: Final = 3.0
CLOSE_LIMIT_S: Final = 10.0
PING_S: Final = 1.0
PING_LIMIT_S: Final = 2.0
AGAIN_S: Final = 0.05
AGAIN_MAX_S: Final = 1.0
"""Pause before a client connects again, and to how much it grows."""

FRAME_BYTES_MAX: Final = 1 << 20

RESULT: Final = "translation_result"
MISSING: Final = "missing_result"
ERROR: Final = "error"
"""What a client sees of an utterance, in the words of the event `Delivered`."""


class Asked(NamedTuple):
    """A client sent an utterance: which `turn` of its script, on which of its connections."""

    at_ns: int
    client: int
    turn: int
    session: str
    utterance: int
    connection: int


class Seen(NamedTuple):
    """A client was told how an utterance ended, by the instance that it was connected to."""

    at_ns: int
    client: int
    instance: str
    session: str
    utterance: int
    connection: int
    outcome: str
    detail: str


class Moved(NamedTuple):
    """A client lost its connection and has a session again: the same one, or a new one."""

    at_ns: int
    client: int
    lost_ns: int
    before: str
    after: str


class Notes:
    """What all clients saw; moments are of this machine's monotonic clock."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.seen: list[Seen] = []
        self.moved: list[Moved] = []
        self.left: list[tuple[int, str]] = []
        """A session that its client has given up, and when."""
        self.unanswered: list[tuple[int, int]] = []
        """Client and turn of what was never answered."""
        self.not_closed: list[str] = []
        """Sessions whose close was not acknowledged."""

    def write(self, file: Path) -> None:
        """Everything as JSON lines, in the order of time, for who wants to know more."""
        lines: list[dict[str, Any]] = [
            {"what": type(one).__name__.lower(), **one._asdict()}
            for notes in (self.asked, self.seen, self.moved)
            for one in notes
        ]
        lines += [{"what": "left", "at_ns": at, "session": session} for at, session in self.left]
        lines.sort(key=lambda line: line["at_ns"])
        file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


class _Wish:
    """One turn of the script: what it is called in the session of now, and whether it is over."""

    def __init__(self, turn: Turn, number: int) -> None:
        self.turn = turn
        self.number = number
        self.utterance = -1
        self.said_in = ""
        self.said_on = 0
        self.settled = False


class Speaker:
    """
    One client.

    Args:
        number: of the client.
        turns: what it says.
        system: through whose link for this client it connects.
        resumes: whether it goes on with its session when it connects again.
        notes: shared by all clients.

    """

    def __init__(
        self, number: int, turns: Sequence[Turn], system: System, notes: Notes, *, resumes: bool
    ) -> None:
        self.number = number
        self._turns = turns
        self._system = system
        self._notes = notes
        self._resumes = resumes
        self.session = ""
        self._home = ""
        self._connections = 0
        self._is_behind = False
        self._key: str | None = None
        self._socket: ClientConnection | None = None
        self._next = 0
        self._said: list[_Wish] = []
        self._by_index: dict[int, _Wish] = {}
        self._moved = asyncio.Event()
        self._ack = asyncio.Event()
        self._lost_ns = 0
        self._over = False

    @property
    def open(self) -> int:
        """Utterances that it has asked for and that are not over."""
        return sum(not wish.settled for wish in self._said)

    async def run(self, start_s: float, stop: asyncio.Event, patience_s: float) -> None:
        """
        Say everything from `start_s` (of the loop's clock) on, wait for the answers, say goodbye.

        Args:
            start_s: the moment 0 of the script.
            stop: set when nothing is broken any more; from then on patience runs.
            patience_s: how long to wait for the last answers.

        """
        staying = asyncio.create_task(self._stay(), name=f"client {self.number}")
        repeats: list[asyncio.Task[None]] = []
        try:
            for number, turn in enumerate(self._turns):
                await _until(start_s + turn.at_ms / 1_000)
                wish = _Wish(turn, number)
                self._said.append(wish)
                await self._say(wish)
                if turn.repeat_after_ms >= 0:
                    repeats.append(asyncio.create_task(self._repeat(wish)))
            await stop.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    while self.open:
                        await self._change()
                    await self._bye()
        finally:
            self._over = True
            for task in (staying, *repeats):
                task.cancel()
            await asyncio.wait([staying, *repeats])
            if self._socket is not None:
                self._socket.transport.abort()
            self._notes.unanswered += [
                (self.number, wish.number) for wish in self._said if not wish.settled
            ]
        for task in (staying, *repeats):
            if not task.cancelled():
                task.result()

    async def _change(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    # What it says

    async def _say(self, wish: _Wish) -> None:
        if wish.utterance < 0:
            wish.utterance = self._next
            self._next += 1
            self._by_index[wish.utterance] = wish
        if self._socket is not None and not self._is_behind:
            await self._send(wish)  # else it is said when there is a connection again

    async def _send(self, wish: _Wish) -> None:
        socket = self._socket
        if socket is None:
            return
        message = Utterance(
            session_id=self.session, utterance_index=wish.utterance, manual_cut=True,
            src_lang="zh", tgt_lang="en", audio=bytes(wish.turn.audio_ms * BYTES_PER_MS),
            audio_format="pcm16", sample_rate=SAMPLE_RATE_HZ,
            again=(wish.said_in == self.session) or None,
        )  # fmt: skip
        wish.said_in = self.session
        wish.said_on = self._connections
        note = Asked(
            time.monotonic_ns(), self.number, wish.number, self.session, wish.utterance,
            self._connections,
        )  # fmt: skip
        self._notes.asked.append(note)
        with suppress(ConnectionClosed):
            await socket.send(wire.encode(message).decode())

    async def _repeat(self, wish: _Wish) -> None:
        """It goes to another instance, with its session, and asks for the same again."""
        await asyncio.sleep(wish.turn.repeat_after_ms / 1_000)
        self._system.turn_away(self.number)
        if self._socket is not None:
            self._socket.transport.abort()

    async def _bye(self) -> None:
        """Close the session; again on a new connection, should this one be lost."""
        while not self._ack.is_set():
            if self._socket is not None:
                bye = SessionClose(session_id=self.session, reason="done")
                with suppress(ConnectionClosed, TimeoutError):
                    await self._socket.send(wire.encode(bye).decode())
                    async with asyncio.timeout(CLOSE_LIMIT_S):
                        await self._ack.wait()
                    return
                self._notes.not_closed.append(self.session)
                return
            await self._change()

    # Its connections

    async def _stay(self) -> None:
        """Connect, listen, and connect again."""
        pause_s = AGAIN_S
        while not self._over and not self._ack.is_set():
            try:
                socket = await self._connect()
            except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, ConnectionClosed):
                socket = None
            except MessageError:
                socket = None
            if socket is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_MAX_S)
                self._system.turn_away(self.number)
                continue
            pause_s = AGAIN_S
            self._home = self._system.client_at[self.number]
            self._connections += 1
            self._socket = socket
            self._is_behind = True
            self._moved.set()
            asking = asyncio.create_task(self._ask_again())
            await self._listen(socket)
            asking.cancel()
            await asyncio.wait({asking})
            self._socket = None
            self._lost_ns = time.monotonic_ns()
            self._moved.set()
            if self.number % 2:
                self._system.turn_away(self.number)

    async def _ask_again(self) -> None:
        """In their order; what is said meanwhile is said after them."""
        place = 0
        while place < len(self._said):
            wish = self._said[place]
            if not wish.settled and wish.said_on != self._connections:
                await self._send(wish)
            place += 1
        self._is_behind = False

    async def _connect(self) -> ClientConnection | None:
        """A connection with a session; None if it has to be tried again."""
        link = await self._system.link_of_client(self.number)
        socket = await connect(
            f"ws://127.0.0.1:{link.port}/ws/session", compression=None, proxy=None,
            open_timeout=OPEN_LIMIT_S, close_timeout=1, max_size=FRAME_BYTES_MAX,
            ping_interval=PING_S, ping_timeout=PING_LIMIT_S,
        )  # fmt: skip
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                taken = await self._hello(socket)
        except BaseException:
            socket.transport.abort()
            raise
        if not taken:
            socket.transport.abort()
            return None
        return socket

    async def _hello(self, socket: ClientConnection) -> bool:
        """Say who we are; False if we are not taken in now."""
        before = self.session
        goes_on = self._key is not None
        init = SessionInit(
            client_version="simsched-chaos", platform="chaos", src_lang="zh", tgt_lang="en",
            accept_resume=self._resumes or None, trace_id=f"c-{self.number}",
            resume_session_id=before if goes_on else None, resume_token=self._key,
        )  # fmt: skip
        await socket.send(wire.encode(init).decode())
        ack = wire.decode_server_to_client(await socket.recv())
        if isinstance(ack, Error) and goes_on and ack.code == ErrorCode.SESSION_CLOSED:
            self._key = None  # nobody knows this session any more: begin a new one
            return False
        if not isinstance(ack, SessionInitAck):
            return False
        self._key = ack.resume_token if self._resumes else None
        if ack.session_id != before:
            self._begin(ack.session_id)
        if self._lost_ns:
            moved = Moved(time.monotonic_ns(), self.number, self._lost_ns, before, ack.session_id)
            self._notes.moved.append(moved)
        return True

    def _begin(self, session: str) -> None:
        """A new session: what is still open gets new numbers there."""
        if self.session:
            self._notes.left.append((time.monotonic_ns(), self.session))
        self.session = session
        self._by_index.clear()
        self._next = 0
        for wish in self._said:
            if not wish.settled:
                wish.utterance = self._next
                self._by_index[wish.utterance] = wish
                self._next += 1

    # What it hears

    async def _listen(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for frame in socket:
                with suppress(MessageError):
                    self._heard(wire.decode_server_to_client(frame))
                if self._ack.is_set():
                    return

    def _heard(self, message: ServerToClient) -> None:
        if isinstance(message, TranslationResult):
            self._told(message.session_id, message.utterance_index, RESULT, message.job_id)
        elif isinstance(message, MissingResult):
            self._told(message.session_id, message.utterance_index, MISSING, message.reason)
        elif isinstance(message, Error) and message.utterance_index is not None:
            self._told(self.session, message.utterance_index, ERROR, message.code)
        elif isinstance(message, SessionCloseAck) and message.session_id == self.session:
            self._ack.set()
            self._moved.set()

    def _told(self, session: str, utterance: int, outcome: str, detail: str) -> None:
        note = Seen(
            time.monotonic_ns(), self.number, self._home, session, utterance, self._connections,
            outcome, detail,
        )  # fmt: skip
        self._notes.seen.append(note)
        wish = self._by_index.get(utterance) if session == self.session else None
        if wish is not None:
            wish.settled = True
            self._moved.set()


async def _until(at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - asyncio.get_running_loop().time()))
