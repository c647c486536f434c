"""
Clients: they play a session's plan over the (modelled) network and note what they get back.

Open by default: a client speaks when its plan says so, whatever the system does. Where the plan
waits for an answer (turn taking, closed workloads) the next turn begins after it. A repeat of a
request goes to another instance, as a reconnecting client's does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from simsched.messages import AudioChunk, SessionClose, SessionInit, Utterance
from simsched.models.speech import Codec
from simsched.models.tasks import Kernel
from simsched.models.waits import SimMailbox
from simsched.models.workload import SessionPlan, UtterancePlan
from simsched.scheduler import Scheduler
from simsched.units import MS, SECOND

LINGER_NS: Final = 10 * SECOND
"""How long a client stays after its last word, to hear the translation."""

SAMPLE_RATE_HZ: Final = 16_000
OPUS_TOC_20_MS: Final = 0x08
"""RFC 6716 3.1: SILK narrow-band, one frame of 20 ms."""


def payload_of(codec: Codec, size: int) -> bytes:
    """Audio of that size: silence that parses as the codec's framing."""
    if codec.name != "opus":
        return bytes(size)
    packet = codec.frame_bytes - 2
    frame = packet.to_bytes(2, "little") + bytes([OPUS_TOC_20_MS]) + bytes(packet - 1)
    return frame * (size // codec.frame_bytes)


class Payloads:
    """The few different chunks that clients send, made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], bytes] = {}

    def of(self, codec: Codec, size: int) -> bytes:
        """The bytes of a chunk."""
        key = (codec.name, size)
        made = self._made.get(key)
        if made is None:
            self._made[key] = made = payload_of(codec, size)
        return made


class Client:
    """One client and its session."""

    def __init__(
        self,
        kernel: Kernel,
        plan: SessionPlan,
        schedulers: list[Scheduler],
        payloads: Payloads,
        *,
        one_way_ns: int,
        on_closed: Callable[[str], None],
    ) -> None:
        self._kernel = kernel
        self.plan = plan
        self.session_id = f"s-{plan.index:08X}"
        self._schedulers = schedulers
        self._home = plan.index % len(schedulers)
        self._payloads = payloads
        self._one_way_ns = one_way_ns
        self._on_closed = on_closed
        self._answers: SimMailbox[object] = SimMailbox(kernel)
        self._waits = False
        self._repeats = 0
        self._spoken: UtterancePlan | None = None
        self.sent = 0
        self.answered = 0

    async def run(self) -> None:
        """Say hello, speak every turn, stay a while, say goodbye."""
        await self._until(self.plan.arrival_ns + self._one_way_ns)
        self._hello(self._home)
        spoken_at = self.plan.arrival_ns
        for turn in self.plan.utterances():
            self._spoken = turn
            begin = spoken_at + turn.pause_before_ns
            if turn.waits_for_answer and turn.index:
                begin = await self._answer_to_previous() + turn.pause_before_ns
            spoken_at = await self._speak(turn, begin)
        await self._linger()
        await self._bye()

    def heard(self, message: object) -> None:
        """A final answer arrived."""
        self.answered += 1
        self._answers.put(message)

    def turn(self, index: int) -> UtterancePlan:
        """Turn number `index`: mostly the last that was spoken."""
        spoken = self._spoken
        if spoken is not None and spoken.index == index:
            return spoken
        return self.plan.utterance(index)

    def _hello(self, instance: int) -> None:
        plan = self.plan
        self._schedulers[instance].open_session(
            SessionInit(
                client_version="simsched", platform="simulated", src_lang=plan.source_language,
                tgt_lang=plan.target_language, tenant_id=plan.tenant or None,
                trace_id=f"t-{plan.index}",
            ),
            session_id=self.session_id,
            audio_format=plan.workload.codec.name,
        )  # fmt: skip

    async def _until(self, at_ns: int) -> None:
        await self._kernel.sleep(at_ns - self._kernel.now)

    async def _answer_to_previous(self) -> int:
        while self.answered < self.sent:
            await self._answers.get()
        return self._kernel.now

    async def _speak(self, turn: UtterancePlan, begin_ns: int) -> int:
        self.sent += 1
        if self.plan.workload.mode == "utterance":
            await self._until(begin_ns + self._one_way_ns)
            self._send_whole(turn)
            return begin_ns
        for number, chunk in enumerate(turn.chunks()):
            await self._until(begin_ns + chunk.offset_ns + self._one_way_ns)
            self._post(
                AudioChunk(
                    session_id=self.session_id,
                    seq=number,
                    is_final=chunk.is_last and turn.manual_cut,
                    payload=self._payloads.of(turn.codec, chunk.size),
                )
            )
        return begin_ns + turn.speech_ns

    def _post(self, message: object) -> None:
        self._schedulers[self._home].from_client(self.session_id, message)

    def _send_whole(self, turn: UtterancePlan) -> None:
        message = Utterance(
            session_id=self.session_id,
            utterance_index=turn.index,
            manual_cut=turn.manual_cut,
            src_lang=self.plan.source_language,
            tgt_lang=self.plan.target_language,
            audio=self._payloads.of(turn.codec, turn.codec.frame_bytes),
            audio_format=turn.codec.name,
            sample_rate=SAMPLE_RATE_HZ,
        )
        home = self._schedulers[self._home]
        home.from_client(self.session_id, message, patience_ns=turn.patience_ns)
        if turn.duplicate_after_ns is not None:
            self._kernel.call_at(
                self._kernel.now + turn.duplicate_after_ns, lambda: self._repeat(message)
            )

    def _repeat(self, message: Utterance) -> None:
        """The same request on another instance: a repeat, a reconnect."""
        other = (self._home + 1) % len(self._schedulers)
        if self.session_id not in self._schedulers[other].state.sessions:
            self._hello(other)
            self._repeats = other
        self._schedulers[other].from_client(self.session_id, message)

    async def _linger(self) -> None:
        if self.plan.workload.mode == "utterance" and len(self._schedulers) == 1:
            await self._answer_to_previous()
        else:
            await self._kernel.sleep(LINGER_NS)

    async def _bye(self) -> None:
        for scheduler in self._schedulers:
            scheduler.from_client(
                self.session_id, SessionClose(session_id=self.session_id, reason="done")
            )
        await self._kernel.sleep(MS)
        self._on_closed(self.session_id)
