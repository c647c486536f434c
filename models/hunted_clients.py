"""
Clients that speak by the script of a case, ask again elsewhere, and outlive their instance.

A client whose instance is gone connects to the next one that is up: with its session, if the case
says that clients resume, else with a new one. With its session, it asks again for every utterance
that it has heard no answer to; without, what it was promised is gone: the closed socket told it so.
Who numbers its utterances itself says what it asks and hears: see `simsched.client_rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from simsched.cases import System, Turn
from simsched.messages import (
    AudioChunk,
    Error,
    MissingResult,
    SessionClose,
    SessionInit,
    TranslationResult,
    Utterance,
)
from simsched.models.clients import SAMPLE_RATE_HZ, payload_of
from simsched.models.faulty_links import FaultyNetwork
from simsched.models.faulty_nodes import RECONNECT_NS, Instances
from simsched.models.speech import CODECS
from simsched.models.tasks import Kernel
from simsched.models.wakes import Group
from simsched.telemetry import ClientAsked, ClientGone, ClientHeard, Event
from simsched.units import MS, SECOND

CHUNK_MS: Final = 100
CODEC: Final = CODECS["pcm16"]

RESUME_NS: Final = 3 * SECOND
"""How long an instance keeps a session whose client has hung up."""

QUIET_NS: Final = 5 * SECOND
"""How long who streams waits at least: beyond the pause that cuts what it has not ended itself."""

OUTCOMES: Final[dict[type, str]] = {
    TranslationResult: "translation_result", MissingResult: "missing_result", Error: "error",
}  # fmt: skip
"""What a client hears, as the events of a run name it."""

LOOK_NS: Final = 500 * MS


class World(Instances, Protocol):
    """The instances, and what goes on around a client."""

    @property
    def disturbed_until_ns(self) -> int: ...
    def cut_of(self, session_id: str) -> dict[int, None]: ...
    def emit(self, event: Event) -> None: ...


class ScriptedClient:
    """
    One client of a case.

    `home` is the instance that it has dialled, `joined` the one that has heard its hello.
    """

    def __init__(
        self,
        number: int,
        turns: Sequence[Turn],
        system: System,
        network: FaultyNetwork,
        world: World,
    ) -> None:
        self.number = number
        self.name = f"c-{number}"
        self._turns = turns
        self._system = system
        self._network = network
        self._instances = self._world = world
        self._kernel: Kernel = network.kernel
        self._lives = 0
        self._connections = 0
        self.session_id = f"s-{number}"
        self.home: int | None = None
        self.joined: int | None = None
        self._next = 0
        self._unheard: dict[int, Utterance] = {}
        self.done = False
        network.clients[self.session_id] = self  # type: ignore[assignment]

    @property
    def _numbers(self) -> bool:
        """Whether it numbers its utterances itself, and so knows what it waits for."""
        return self._system.mode == "utterance"

    @property
    def _resumes(self) -> bool:
        """Only who numbers its utterances itself can go on elsewhere."""
        return self._system.resumes and self._numbers

    def heard(self, message: object) -> None:
        """A final answer arrived."""
        utterance = getattr(message, "utterance_index", None)
        if utterance is None:
            return
        if not self._numbers:
            self._world.cut_of(self.session_id).pop(utterance, None)
            return
        self._unheard.pop(utterance, None)
        self._world.emit(
            ClientHeard(
                at_ns=self._kernel.now, instance="", session=self.session_id, utterance=utterance,
                connection=self._connections, outcome=OUTCOMES[type(message)],
            )
        )  # fmt: skip

    async def run(self, start_ns: int) -> None:
        """Say hello, speak every turn at its time, stay a while, say goodbye."""
        await self._until(start_ns)
        first = self.number % len(self._instances.schedulers)
        if self._instances.is_up(first):
            self._connect(first)
        else:
            self._kernel.call_at(self._kernel.now + RECONNECT_NS, self._again)
        for turn in self._turns:
            await self._until(start_ns + turn.at_ms * MS)
            await self._connected()
            await self._speak(turn)
        spoken_ns = self._kernel.now
        while self._waits(spoken_ns):
            await self._kernel.sleep(LOOK_NS)
        self.done = True
        self._bye()

    def _waits(self, spoken_ns: int) -> bool:
        """Whether it waits for answers; of who streams, the world knows how many there will be."""
        if self._numbers and not self._unheard:
            return False
        quiet_ns = self._kernel.now - max(spoken_ns, self._world.disturbed_until_ns)
        if not self._numbers and quiet_ns >= QUIET_NS and not self._world.cut_of(self.session_id):
            return False
        return quiet_ns < self._system.linger_ms * MS

    async def _until(self, at_ns: int) -> None:
        await self._kernel.sleep(at_ns - self._kernel.now)

    async def _connected(self) -> None:
        while self.home is None:
            await self._kernel.sleep(RECONNECT_NS)

    # Its connections

    def lost(self, number: int) -> None:
        """The instance `number` is gone, and the socket with it."""
        if self.home != number:
            return
        self.home = None
        self._hang_up()
        if self.done:
            self._leave()  # it has said goodbye: the closed socket is the last that it hears
            return
        self._kernel.call_at(self._kernel.now + RECONNECT_NS, self._again)

    def _again(self) -> None:
        """To the next instance that is up."""
        count = len(self._instances.schedulers)
        for step in range(count):
            number = (self.number + 1 + step) % count
            if self._instances.is_up(number):
                if self._connections and not self._resumes:
                    self._leave()
                    self._lives += 1
                    self._next = 0
                    self._unheard.clear()
                    self.session_id = f"s-{self.number}-{self._lives}"
                    self._network.clients[self.session_id] = self  # type: ignore[assignment]
                self._connect(number, resumes=self._resumes and self._connections > 0)
                return
        self._kernel.call_at(self._kernel.now + RECONNECT_NS, self._again)

    def _hang_up(self) -> None:
        self.joined = None
        self._network.hang_up("client", self.session_id)

    def _leave(self) -> None:
        gone = ClientGone(at_ns=self._kernel.now, instance="", session=self.session_id)
        self._world.emit(gone)

    def _connect(self, number: int, *, resumes: bool = False) -> None:
        """Say hello, and ask again for what has no answer yet."""
        self.home = number
        self._connections += 1
        self._hello(number, resumes=resumes)
        for message in list(self._unheard.values()):
            self._ask(message)

    def _hello(self, number: int, *, resumes: bool) -> None:
        scheduler, session_id = self._instances.schedulers[number], self.session_id
        init = SessionInit(
            client_version="simsched", platform="simulated", src_lang="zh", tgt_lang="en",
            trace_id=f"t-{self.number}",
        )  # fmt: skip

        def arrive() -> None:
            self.joined = number
            scheduler.open_session(
                init, session_id=session_id, audio_format=CODEC.name, resumes=resumes
            )

        self._post(number, arrive)

    def _post(self, number: int, action: object) -> None:
        group: Group = self._instances.schedulers[number].runtime.group  # type: ignore[attr-defined]
        self._network.carry(
            "client", self.session_id, self._network.from_client_ns, action, group  # type: ignore[arg-type]
        )  # fmt: skip

    # What it says

    async def _speak(self, turn: Turn) -> None:
        assert self.home is not None
        if self._system.mode == "audio_chunk":
            await self._stream(turn)
            return
        message = Utterance(
            session_id=self.session_id, utterance_index=self._next, manual_cut=True,
            src_lang="zh", tgt_lang="en", audio=payload_of(CODEC, CODEC.frame_bytes),
            audio_format=CODEC.name, sample_rate=SAMPLE_RATE_HZ, trace_id=f"t-{self.number}",
        )  # fmt: skip
        self._next += 1
        self._unheard[message.utterance_index] = message
        self._ask(message)
        if turn.repeat_after_ms >= 0:
            self._kernel.call_at(
                self._kernel.now + turn.repeat_after_ms * MS, lambda: self._repeat(message)
            )

    def _ask(self, message: Utterance) -> None:
        assert self.home is not None
        self._world.emit(
            ClientAsked(
                at_ns=self._kernel.now, instance="", session=self.session_id,
                utterance=message.utterance_index, connection=self._connections,
            )
        )  # fmt: skip
        self._say(self.home, message)

    def _say(self, number: int, message: object) -> None:
        scheduler, session_id = self._instances.schedulers[number], self.session_id
        self._post(number, lambda: scheduler.from_client(session_id, message))

    def _repeat(self, message: Utterance) -> None:
        """It connects to another instance, with its session, if it has heard nothing yet."""
        unheard = self._unheard.get(message.utterance_index) is message
        if self.home is None or self.done or not unheard:
            return
        left, count = self.home, len(self._instances.schedulers)
        number = (left + 1) % count
        if number == left or not self._instances.is_up(number):
            self._ask(message)
            return
        self._hang_up()
        self._connect(number, resumes=True)
        self._closed_at(left, message.session_id)

    def _closed_at(self, number: int, session_id: str) -> None:
        """The instance that was left waits for the client to come back, then ends its session."""
        scheduler = self._instances.schedulers[number]
        group: Group = scheduler.runtime.group  # type: ignore[attr-defined]

        def give_up() -> None:
            if self.home != number or self.session_id != session_id:
                goodbye = SessionClose(session_id=session_id, reason="connection lost")
                scheduler.from_client(session_id, goodbye)

        self._kernel.call_at(self._kernel.now + RESUME_NS, give_up, group)

    async def _stream(self, turn: Turn) -> None:
        session = self.session_id
        for offset in range(0, turn.audio_ms, CHUNK_MS):
            if self.home is None or self.session_id != session:
                return
            self._say(
                self.home,
                AudioChunk(
                    session_id=session, seq=self._next,
                    is_final=turn.ends and offset + CHUNK_MS >= turn.audio_ms,
                    payload=payload_of(CODEC, CODEC.frame_bytes),
                ),
            )  # fmt: skip
            self._next += 1
            await self._kernel.sleep(CHUNK_MS * MS)

    def _bye(self) -> None:
        if self.home is not None:
            self._say(self.home, SessionClose(session_id=self.session_id, reason="done"))
