"""
One session of a load: it plays its plan against a real server, and books what comes back.

Open loop: every message has a moment at which it is due, from the plan alone; what is late is sent
at once and booked from when it was due. Audio frames are made of few parts that are encoded once.
A lost connection is not made again: what it owed is lost, and counted.
"""

from __future__ import annotations

import asyncio
import base64
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)

from simsched import wire
from simsched.audio import OPUS_FRAME_NS
from simsched.errors import MessageError
from simsched.live.cuts import CutForecast
from simsched.live.load_options import LoadOptions
from simsched.live.tally import NEVER, SessionTally
from simsched.messages import (
    AudioChunk,
    Backpressure,
    ClientHeartbeat,
    Error,
    MissingResult,
    ServerToClient,
    SessionClose,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    TranslationResult,
    UiEvent,
    UiStatus,
    Utterance,
)
from simsched.models.speech import Codec
from simsched.models.workload import SessionPlan, UtterancePlan
from simsched.units import MS, SECOND

OPEN_LIMIT_S: Final = 20.0
CLOSE_LIMIT_S: Final = 10.0
HEARTBEAT_NS: Final = 20 * SECOND
SAMPLE_RATE_HZ: Final = 16_000
_TOC_20_MS: Final = OPUS_FRAME_NS.index(20 * MS) << 3
"""First byte of an Opus packet of one 20 ms frame (RFC 6716, 3.1)."""


@dataclass(slots=True)
class Meters:
    """
    What the generator measures besides utterances, in nanoseconds.

    Attributes:
        late: how much later than asked the loop woke: the generator's own share of any delay.
        blocked: the longest that the server kept a message from being sent.

    """

    connects: list[int] = field(default_factory=list)
    late: array[int] = field(default_factory=lambda: array("q"))
    blocked: int = 0
    chunks: int = 0
    answers: int = 0
    open: int = 0
    begun: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    backpressure: int = 0


class Sounds:
    """The few different pieces of audio that sessions send, made and encoded once."""

    def __init__(self) -> None:
        self._raw: dict[tuple[str, int], bytes] = {}
        self._base64: dict[tuple[str, int], str] = {}

    def raw(self, codec: Codec, size: int) -> bytes:
        """Silence of that size in the codec's framing."""
        made = self._raw.get((codec.name, size))
        if made is None:
            made = self._raw[codec.name, size] = _silence(codec, size)
        return made

    def base64(self, codec: Codec, size: int) -> str:
        """The same for a JSON frame."""
        made = self._base64.get((codec.name, size))
        if made is None:
            made = self._base64[codec.name, size] = base64.b64encode(self.raw(codec, size)).decode()
        return made


def _silence(codec: Codec, size: int) -> bytes:
    if codec.name != "opus":
        return bytes(size)
    packet = codec.frame_bytes - 2
    frame = packet.to_bytes(2, "little") + bytes([_TOC_20_MS]) + bytes(packet - 1)
    return frame * (size // codec.frame_bytes)


class _Closed(Exception):
    """The connection is gone."""


class LoadSession:
    """
    One session.

    Args:
        plan: what it says, and when.
        options: of the whole load.
        sounds: shared by all sessions.
        meters: shared by all sessions.
        now: nanoseconds since the start of the load.
        horizon_ns: no turn begins after this moment.

    """

    def __init__(
        self,
        plan: SessionPlan,
        options: LoadOptions,
        sounds: Sounds,
        meters: Meters,
        now: Callable[[], int],
        horizon_ns: int | None,
    ) -> None:
        self._plan = plan
        self._options = options
        self._sounds = sounds
        self._meters = meters
        self._now = now
        self._horizon_ns = horizon_ns
        self._streams = plan.workload.mode == "audio_chunk"
        self._forecast = CutForecast(options.segmentation)
        self._cuts = 0
        self._seq = 0
        self._binary = False
        self._settled = asyncio.Event()
        self._ended = asyncio.Event()
        self._why = ""
        self.tally = SessionTally(f"load-{plan.index}", plan.target_language)

    async def run(self) -> SessionTally:
        """Play the whole plan; returns the session's books."""
        await self._until(self._plan.arrival_ns)
        self._meters.begun += 1
        socket = await self._open()
        if socket is None:
            return self.tally
        self._meters.open += 1
        listening = asyncio.create_task(self._listen(socket))
        try:
            await self._speak_all(socket)
            await self._all_answered()
            await self._bye(socket)
        except _Closed:
            # What was said and not yet cut is lost with the rest.
            for cut_ns in self._forecast.close(self._now()):
                self._expect(cut_ns)
        except asyncio.CancelledError:
            self.tally.refuse_rest("INTERRUPTED")
            raise
        finally:
            self._meters.open -= 1
            if not self._ended.is_set():
                await socket.close()
            listening.cancel()
            await asyncio.wait({listening})
            await socket.close()
            if self._why:
                _add(self._meters.closed, self._why)
        return self.tally

    # Opening

    async def _open(self) -> ClientConnection | None:
        """Connect and say hello; None if the server will not have the session."""
        options, token = self._options, self._options.token
        try:
            socket = await connect(
                options.url,
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                compression=None, max_size=64 << 20, open_timeout=OPEN_LIMIT_S,
                close_timeout=1, ping_interval=None, proxy=None,
            )  # fmt: skip
        except InvalidStatus as error:
            return self._refuse(f"HTTP {error.response.status_code}")
        except (OSError, TimeoutError, WebSocketException, InvalidHandshake) as error:
            return self._refuse(f"CONNECT {type(error).__name__}")
        code = await self._hello(socket)
        if code:
            await socket.close()
            return self._refuse(code)
        self._meters.connects.append(self._now() - self._plan.arrival_ns)
        return socket

    async def _hello(self, socket: ClientConnection) -> str:
        """The code with which the session was refused; "" if it is open."""
        plan = self._plan
        init = SessionInit(
            client_version="simsched-load", platform="load", src_lang=plan.source_language,
            tgt_lang=plan.target_language, tenant_id=plan.tenant or None,
            trace_id=f"t-{plan.index}", accept_binary_frame=self._options.binary or None,
        )  # fmt: skip
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                await socket.send(wire.encode(init), text=True)
                ack = wire.decode_server_to_client(await socket.recv())
        except ConnectionClosed as closed:
            return f"CLOSED {closed.rcvd.code if closed.rcvd else 1006}"
        except (TimeoutError, MessageError) as error:
            return f"CONNECT {type(error).__name__}"
        if isinstance(ack, Error):
            return ack.code
        if not isinstance(ack, SessionInitAck):
            return "INVALID_MESSAGE"
        self.tally.session = ack.session_id
        self._binary = ack.use_binary_frame
        return ""

    def _refuse(self, code: str) -> ClientConnection | None:
        """What the plan would have said is refused with that code, turn by turn; no socket."""
        _add(self._meters.refused, code)
        for turn in self._plan.utterances():
            self.tally.refused(turn.index, NEVER, code)
            if self._plan.utterance_count is None:
                break
        return None

    # Speaking

    async def _speak_all(self, socket: ClientConnection) -> None:
        spoken_ns = self._plan.arrival_ns
        for turn in self._plan.utterances():
            begin_ns = spoken_ns + turn.pause_before_ns
            if turn.waits_for_answer and turn.index:
                await self._all_answered()
                begin_ns = self._now() + turn.pause_before_ns
            if self._horizon_ns is not None and begin_ns > self._horizon_ns:
                return
            await self._until(begin_ns, socket)
            if self._ended.is_set():
                raise _Closed
            if self._streams:
                await self._stream(socket, turn, begin_ns)
                spoken_ns = begin_ns + turn.speech_ns
            else:
                await self._whole(socket, turn, begin_ns)
                spoken_ns = begin_ns

    async def _stream(self, socket: ClientConnection, turn: UtterancePlan, begin_ns: int) -> None:
        """A turn in chunks, each when its audio has been spoken."""
        codec = turn.codec
        for chunk in turn.chunks():
            due_ns = begin_ns + chunk.offset_ns
            await self._until(due_ns)
            last = chunk.is_last and turn.manual_cut
            audio_ns = chunk.size // codec.frame_bytes * codec.frame_ns
            for cut_ns in self._forecast.chunk(due_ns, chunk.size, audio_ns, is_final=last):
                self._expect(cut_ns)
            await self._send(socket, self._frame(codec, chunk.size, is_final=last))
            self._meters.chunks += 1

    def _frame(self, codec: Codec, size: int, *, is_final: bool) -> bytes | str:
        seq, stamp = self._seq, time.time_ns() // MS
        self._seq += 1
        if self._binary:
            return wire.encode_binary_chunk(
                AudioChunk(
                    session_id=self.tally.session, seq=seq, is_final=is_final,
                    payload=self._sounds.raw(codec, size), client_timestamp_ms=stamp,
                )
            )  # fmt: skip
        payload = self._sounds.base64(codec, size)
        # The same bytes as `wire.encode` would give, without encoding the audio again.
        final = "true" if is_final else "false"
        return (
            f'{{"type":"audio_chunk","session_id":"{self.tally.session}","seq":{seq},'
            f'"is_final":{final},"payload":"{payload}","client_timestamp_ms":{stamp}}}'
        )

    async def _whole(self, socket: ClientConnection, turn: UtterancePlan, begin_ns: int) -> None:
        """A turn in one message, and once more where the plan says that it is repeated."""
        plan = self._plan
        message = Utterance(
            session_id=self.tally.session, utterance_index=turn.index,
            manual_cut=turn.manual_cut, src_lang=plan.source_language,
            tgt_lang=plan.target_language, audio=self._sounds.raw(turn.codec, turn.size),
            audio_format=turn.codec.name, sample_rate=SAMPLE_RATE_HZ,
        )  # fmt: skip
        frame = wire.encode(message).decode()
        self.tally.expect(turn.index, begin_ns)
        await self._send(socket, frame)
        if turn.duplicate_after_ns is not None:
            await self._until(begin_ns + turn.duplicate_after_ns)
            await self._send(socket, frame)

    def _expect(self, cut_ns: int) -> None:
        self.tally.expect(self._cuts, cut_ns)
        self._cuts += 1

    async def _send(self, socket: ClientConnection, frame: bytes | str) -> None:
        began_ns = self._now()
        try:
            await socket.send(frame)
        except ConnectionClosed:
            raise _Closed from None
        self._meters.blocked = max(self._meters.blocked, self._now() - began_ns)

    async def _until(self, due_ns: int, socket: ClientConnection | None = None) -> None:
        """Sleep until a moment; through a long silence the session shows that it lives."""
        while (left_ns := due_ns - self._now()) > 0:
            step_ns = min(left_ns, HEARTBEAT_NS) if socket is not None else left_ns
            target_ns = self._now() + step_ns
            await asyncio.sleep(step_ns / SECOND)
            self._meters.late.append(max(0, self._now() - target_ns))
            if socket is not None and step_ns == HEARTBEAT_NS:
                beat = ClientHeartbeat(
                    session_id=self.tally.session, timestamp=time.time_ns() // MS
                )
                await self._send(socket, wire.encode(beat).decode())

    # Listening

    async def _listen(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                with suppress(MessageError):
                    self._heard(wire.decode_server_to_client(frame), self._now())
                if self._ended.is_set():
                    return
        except ConnectionClosed:
            pass
        finally:
            if not self._ended.is_set():
                self._why = f"closed with {socket.close_code}"
                self._ended.set()
            self._settled.set()

    def _heard(self, message: ServerToClient, now_ns: int) -> None:
        tally = self.tally
        self._meters.answers += isinstance(message, TranslationResult | MissingResult)
        if isinstance(message, TranslationResult):
            tally.result(message.utterance_index, now_ns, message.job_id)
        elif isinstance(message, MissingResult):
            tally.missed(message.utterance_index, now_ns, message.reason)
        elif isinstance(message, UiEvent):
            if message.status is UiStatus.ERROR:
                tally.refused(message.utterance_index, now_ns, message.error_code or "ERROR")
            else:
                tally.event(message.utterance_index, now_ns, message.job_id)
        elif isinstance(message, SessionCloseAck):
            self._ended.set()
        elif isinstance(message, Error):
            _add(self._meters.errors, message.code)
        elif isinstance(message, Backpressure):
            self._meters.backpressure += 1
        self._settled.set()

    async def _all_answered(self) -> None:
        """Until everything said so far is settled, or no answer can come any more."""
        limit_ns = self._now() + round(self._options.answer_s * SECOND)
        while not self._ended.is_set() and self._now() < limit_ns:
            for cut_ns in self._forecast.until(self._now()):
                self._expect(cut_ns)
            if self.tally.settled >= len(self.tally) and not self._forecast.holds_audio:
                return
            self._settled.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._settled.wait()

    async def _bye(self, socket: ClientConnection) -> None:
        """Close the session; what it still owes comes before the acknowledgement."""
        for cut_ns in self._forecast.close(self._now()):
            self._expect(cut_ns)
        if self._ended.is_set():
            raise _Closed
        bye = SessionClose(session_id=self.tally.session, reason="done")
        await self._send(socket, wire.encode(bye).decode())
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._ended.wait()
        except TimeoutError:
            self._why = "no session_close_ack"
            self._ended.set()


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
