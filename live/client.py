"""
A client of the scheduler: send speech, hear what becomes of it.

    async with Client("ws://127.0.0.1:5010", src="en", tgt="zh") as session:
        await session.send_audio(pcm16)
        await session.finish()
        async for event in session:
            print(event)

Rules:

- events are the structs of `simsched.messages`, in the order in which they came; heartbeats of the
  server are kept back, and a final answer that comes a second time is dropped;
- a lost connection is made again, at the next address that was given, with growing pauses; a
  server that can resumes the session, and the chunk that was on its way goes out again. Else a new
  session begins: `session_id` changes, and what was streamed and not answered yet never will be;
- utterances that the caller cut and numbered (`send(Utterance(...))`) are sent again until they
  are answered, whichever session that takes; each is answered once;
- a server that ends the session unasked, because it leaves, is taken for a lost connection;
- `send_audio` does what the server asks by `backpressure`: it waits;
- events wait in a bounded queue: who sends for long has to listen at the same time.

Audio is 16 kHz mono pcm16, unless the session says otherwise. Knows no files and no microphones.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Final

from msgspec import structs
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from simsched import wire
from simsched.errors import ConfigError, MessageError, SimschedError
from simsched.live.asking import Asking
from simsched.live.dialling import (
    FOR_NOW,
    Backoff,
    Refused,
    address,
    check_close,
    dial,
    reason_of,
    refused,
)
from simsched.live.pace import Pace
from simsched.messages import (
    AudioChunk,
    Backpressure,
    ClientHeartbeat,
    Error,
    Features,
    MissingResult,
    ServerHeartbeat,
    ServerToClient,
    SessionClose,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    TranslationResult,
    TtsPlayEnded,
    TtsStarted,
    UiEvent,
    UiEventType,
    Utterance,
)
from simsched.messages.values import Message

CLIENT_PATH: Final = "/ws/session"
HEARTBEAT_S: Final = 20.0
ACK_LIMIT_S: Final = 10.0
RESUME_LIMIT_S: Final = 30.0
"""How long a lost connection is tried to be made again."""

CHUNK_BYTES_MAX: Final = 32_000
"""One second; more is sent in pieces, so that the server's frame limit never matters."""

BYTES_PER_S: Final = 32_000
EVENTS_MAX: Final = 1_000
FRAME_BYTES_MAX: Final = 64 << 20

_Make = Callable[[], Message]
"""Makes a message for the session as it is now."""


class _Dismissed(Exception):
    """The server has ended the session unasked: it leaves, or has forgotten us."""


class ConnectionLost(SimschedError):
    """The server cannot be reached any more."""


class Client:
    """
    One session with a scheduler.

    Args:
        url: `ws://HOST:PORT`, or `wss://`; `/ws/session` is added where it has no path. Several:
            the first that answers, and after a lost connection the next one.
        src: language spoken, or "auto".
        tgt: language wanted.
        token: who this is, where the server asks; travels in a header.
        binary: ask for binary audio frames; the server decides.
        tenant: whom this session belongs to.
        features: optional analysis.
        reconnect: make a lost connection again.

    Attributes:
        session_id: given by the server.
        binary: whether audio goes out in binary frames.
        reconnects: how often the connection was made again.
        duplicates: final answers that came twice, and were dropped.

    Raises (from `async with`):
        Refused: the server will not have this client.
        ConnectionLost: it cannot be reached.
        ConfigError: `url` is no address, or there is none.

    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        src: str,
        tgt: str,
        token: str = "",
        binary: bool = True,
        tenant: str | None = None,
        features: Features | None = None,
        reconnect: bool = True,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ConfigError("address", "", "at least one")
        self._urls = [address(one, CLIENT_PATH) for one in urls]
        self._url = self._urls[0]
        self._token = token
        self._init = SessionInit(
            client_version="simsched", platform="python", src_lang=src, tgt_lang=tgt,
            tenant_id=tenant, features=features, accept_binary_frame=binary or None,
            accept_resume=reconnect or None,
        )  # fmt: skip
        self._reconnect = reconnect
        self.session_id = ""
        self.binary = False
        self.reconnects = 0
        self.duplicates = 0
        self._opens = 0
        self._resume_token: str | None = None
        self._socket: ClientConnection | None = None
        self._up = asyncio.Event()
        self._over = False
        self._failure: SimschedError | None = None
        self._events: asyncio.Queue[ServerToClient | None] = asyncio.Queue(EVENTS_MAX)
        self._asking = Asking()
        self._leaving = False
        self._seq = 0
        self._pace = Pace()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Client:
        await self._first()
        self._tasks = [
            asyncio.create_task(self._listen(), name="client listener"),
            asyncio.create_task(self._beat(), name="client heartbeat"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    # Speaking

    async def send_audio(self, pcm16: bytes) -> None:
        """
        Send speech; returns when it is handed over, or has waited as the server asked.

        Raises:
            ConnectionLost: the session cannot go on.

        """
        for start in range(0, len(pcm16), CHUNK_BYTES_MAX):
            piece = pcm16[start : start + CHUNK_BYTES_MAX]
            await self._pace.wait(len(piece) / BYTES_PER_S)
            await self._send_chunk(piece, is_final=False)

    async def end_utterance(self) -> None:
        """Say that the utterance is complete; without it the server waits for a silence."""
        await self._send_chunk(b"", is_final=True)

    async def finish(self) -> None:
        """Say that all is said: the last answers come, then the events end."""
        if self._seq or not self._asking.numbers_itself:
            await self.end_utterance()
        self._leaving = True
        await self._send(lambda: SessionClose(session_id=self.session_id, reason="done"))

    async def playback_started(self, result: TranslationResult) -> None:
        """Say that the speech of a result is being played."""
        now, of = _unix_ms(), _playback_of(result)
        await self._send(lambda: TtsStarted(session_id=self.session_id, ts_start_ms=now, **of))

    async def playback_ended(self, result: TranslationResult) -> None:
        """Say that the speech of a result has been played."""
        now, of = _unix_ms(), _playback_of(result)
        await self._send(lambda: TtsPlayEnded(session_id=self.session_id, ts_end_ms=now, **of))

    async def send(self, message: Message) -> None:
        """
        Send any other message of the protocol: rooms, signalling, a whole utterance.

        Whatever session an `Utterance` names, it is sent in the one that there is; it is sent
        again after a lost connection until it is answered.
        """
        if isinstance(message, Utterance):
            await self._ask(message)
            return
        self._leaving |= isinstance(message, SessionClose)
        await self._send(lambda: message)

    async def _ask(self, utterance: Utterance) -> None:
        self._asking.ask(utterance)
        # Whoever opened a new connection meanwhile has sent it there already.
        await self._send(
            lambda: structs.replace(utterance, session_id=self.session_id), before=self._opens
        )

    async def _send_chunk(self, payload: bytes, *, is_final: bool) -> None:
        stamp, seq = _unix_ms(), self._seq
        self._seq += 1
        await self._send(
            lambda: AudioChunk(
                session_id=self.session_id, seq=seq, is_final=is_final, payload=payload,
                client_timestamp_ms=stamp,
            )
        )  # fmt: skip

    async def _send(self, make: _Make, *, before: int | None = None) -> None:
        """
        Send; after a lost connection once more, made anew: the session may be another.

        `before`: not on a connection that was opened later than that.
        """
        while True:
            await self._up.wait()
            if before is not None and self._opens > before:
                return
            if self._failure is not None:
                raise self._failure
            socket = self._socket
            if self._over or socket is None:
                raise ConnectionLost("the session is over")
            message = make()
            try:
                if self.binary and isinstance(message, AudioChunk):
                    await socket.send(wire.encode_binary_chunk(message))
                else:
                    await socket.send(wire.encode(message).decode())
                return
            except ConnectionClosed:
                if self._socket is socket:
                    self._up.clear()

    # Listening

    def __aiter__(self) -> AsyncIterator[ServerToClient]:
        return self

    async def __anext__(self) -> ServerToClient:
        """
        The next event; ends after `finish`, when all was answered.

        Raises:
            ConnectionLost: the session broke, and could not be taken up again.
            Refused: it was refused when it was taken up again.

        """
        event = await self._events.get()
        if event is not None:
            return event
        self._events.put_nowait(None)  # whoever else listens, or asks again
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    async def _listen(self) -> None:
        try:
            while not self._over:
                await self._hear_out()
                if not self._over:
                    await self._again()
        except SimschedError as failure:
            self._failure = failure
        finally:
            self._over = True
            self._up.set()
            if self._events.full():
                self._events.get_nowait()
            self._events.put_nowait(None)

    async def _hear_out(self) -> None:
        """Take in events until this connection ends."""
        socket = self._socket
        assert socket is not None
        try:
            async for frame in socket:
                try:
                    await self._heard(wire.decode_server_to_client(frame))
                except MessageError:
                    continue  # a newer server may say more than we understand
                if self._over:
                    return
        except _Dismissed:
            await socket.close()
        except ConnectionClosed as closed:
            check_close(closed)
        finally:
            if not self._over:
                self._up.clear()

    async def _heard(self, event: ServerToClient) -> None:
        if isinstance(event, ServerHeartbeat):
            return
        if isinstance(event, Backpressure):
            self._pace.obey(event)
        if isinstance(event, TranslationResult | MissingResult):
            if self._asking.is_repeated(event, self.session_id):
                self.duplicates += 1
                return
        elif isinstance(event, UiEvent) and event.event is UiEventType.ERROR:
            self._asking.settles(event, self.session_id)
        if isinstance(event, SessionCloseAck) and event.session_id == self.session_id:
            if self._reconnect and not self._leaving:
                self._resume_token = None
                self._up.clear()
                raise _Dismissed
            self._over = True
        await self._events.put(event)

    # The connection

    async def _open(self) -> None:
        """Connect and say hello; with a session at hand, ask to go on with it."""
        socket = await dial(self._url, self._token, frame_bytes_max=FRAME_BYTES_MAX)
        try:
            ack = await self._hello(socket)
            for utterance in self._asking.again(ack.session_id):
                await socket.send(wire.encode(utterance).decode())
        except BaseException:
            await socket.close()
            raise
        self._socket = socket
        self.session_id = ack.session_id
        self._resume_token = ack.resume_token
        self.binary = ack.use_binary_frame
        self._opens += 1
        self._up.set()

    async def _hello(self, socket: ClientConnection) -> SessionInitAck:
        init = self._init
        if self._resume_token:
            init = structs.replace(
                init, resume_session_id=self.session_id, resume_token=self._resume_token
            )
        try:
            async with asyncio.timeout(ACK_LIMIT_S):
                await socket.send(wire.encode(init).decode())
                first = wire.decode_server_to_client(await socket.recv())
        except ConnectionClosed as closed:
            check_close(closed)
            raise
        if isinstance(first, Error) and init.resume_token:
            if first.code not in FOR_NOW:
                # The servers have forgotten it: a new session, on a new connection.
                self._resume_token = None
            raise ConnectionError(first.message)
        if isinstance(first, Error):
            raise refused(first.code, first.message)
        if not isinstance(first, SessionInitAck):
            raise refused("INVALID_MESSAGE", "the server's first word is no session_init_ack")
        return first

    async def _first(self) -> None:
        """Connect for the first time: each address is tried once."""
        for number, url in enumerate(self._urls):
            self._url = url
            try:
                await self._open()
                return
            except (OSError, TimeoutError, ConnectionClosed, MessageError) as error:
                if number == len(self._urls) - 1:
                    raise ConnectionLost(f"{url}: {reason_of(error)}") from None

    async def _again(self) -> None:
        """Connect again: to the next address at once if there is one, then with pauses."""
        if not self._reconnect:
            raise ConnectionLost(f"{self._url}: the connection was closed")
        backoff, deadline_s = Backoff(random.random), time.monotonic() + RESUME_LIMIT_S
        tries = 0
        while True:
            tries += 1
            self._url = self._urls[(self._urls.index(self._url) + 1) % len(self._urls)]
            if tries >= len(self._urls):
                await asyncio.sleep(backoff.next_s())
            try:
                await self._open()
            except Refused:
                raise
            except (OSError, TimeoutError, ConnectionClosed, MessageError) as error:
                if time.monotonic() > deadline_s:
                    text = f"{self._url}: {reason_of(error)}"
                    raise ConnectionLost(text) from None
            else:
                self.reconnects += 1
                return

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._up.is_set() and not self._over:
                await self._send(
                    lambda: ClientHeartbeat(session_id=self.session_id, timestamp=_unix_ms())
                )


def _playback_of(result: TranslationResult) -> dict[str, str]:
    return {"trace_id": result.trace_id, "group_id": result.group_id or ""}


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
