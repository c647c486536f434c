"""
A connection to Redis that lasts: it pipelines, fails fast, and comes back by itself.

One `Wire` at a time carries all calls of an instance; that is faster than a pool (one write per
loop tick) and keeps calls in the order in which they were made. Rules:

- while there is no wire, calls fail at once and nothing is sent;
- a lost wire is replaced at once, then after growing pauses with jitter; callbacks in `on_up` run
  before anybody else's calls, so what they send comes first;
- an idle wire is pinged, so that a dead server is noticed before somebody needs it;
- nothing is ever sent twice: whether to repeat is for the caller to know;
- in a cluster the wire leads to the master of one slot. When that is another one (MOVED), a new
  wire goes there while the old one still hears its replies: a move makes no outcome unknown;
- a blocking read needs a connection of its own, with a limit above its own time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Self

from simsched.errors import StoreUnavailable
from simsched.live.redis_address import Address, enter, leave, parse_address
from simsched.live.redis_cluster import HOPS_MAX, Guide
from simsched.live.redis_wire import (
    Call,
    CallTimeout,
    ConnectionLost,
    NotConnected,
    RedisFailure,
    ReplyError,
    TooManyInFlight,
    Wire,
    Word,
)
from simsched.ports import Reply

__all__ = [
    "Call",
    "CallTimeout",
    "ConnectionLost",
    "NotConnected",
    "RedisConnection",
    "RedisFailure",
    "ReplyError",
    "TooManyInFlight",
]

CONNECT_LIMIT_S: Final = 5.0
"""For one attempt to connect, name resolution and TLS included."""

BACK_OFF_S: Final = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses before attempt 1, 2, ...; the last one stays. Recovery is then seen within a second."""

PING_S: Final = 1.0
"""An idle wire is asked for a sign of life so often."""

SHORT_LIFE_S: Final = 1.0
"""A connection that did not live so long counts as a failed attempt: no storm of reconnects."""

IN_FLIGHT_MAX: Final = 1_000
TIMEOUT_S: Final = 0.5


class RedisConnection:
    """
    The calls of one instance to one server; make it with `open`.

    Attributes:
        on_up, on_down: called at every new connection and every loss, in order; may not raise.
        last_error: why the last attempt to connect failed, in a line; "" if it did not.
        losses: how often an established connection was lost.
        moves: how often it left a server because another one serves its slot now.
        address: where it is, or was last.

    """

    def __init__(
        self,
        address: Address,
        *,
        in_flight_max: int,
        timeout_s: float,
        protocol: int,
        name: str,
        slot_key: str,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.on_up: list[Callable[[], object]] = []
        self.on_down: list[Callable[[], object]] = []
        self.last_error = ""
        self.losses = 0
        self.moves = 0
        self._guide = Guide(address, slot_key) if slot_key else None
        self._in_flight_max = in_flight_max
        self._protocol = protocol
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._aside: Wire | None = None
        self._aside_at: Address | None = None
        self._aside_lock = asyncio.Lock()
        self._retired: list[Wire] = []
        self._moving: asyncio.Future[None] = self._loop.create_future()
        self._settled = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._jitter = random.Random()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        timeout_s: float = TIMEOUT_S,
        protocol: int = 2,
        name: str = "simsched",
        must_connect: bool = True,
        slot_key: str = "",
    ) -> Self:
        """
        Connect, and stay connected until `close`.

        Args:
            url: redis://, rediss:// or unix://.
            in_flight_max: how many commands may be under way; more fail at once.
            timeout_s: how long one call may take.
            protocol: RESP version, 2 or 3.
            name: what `CLIENT LIST` shows.
            must_connect: raise if the first attempt fails, instead of trying on.
            slot_key: a key of the slot whose master is wanted, if the server is a node of a
                cluster; "": the server of the URL and no other.

        Raises:
            ConfigError: the URL is wrong.
            StoreUnavailable: the first attempt failed.

        """
        connection = cls(
            parse_address(url), in_flight_max=in_flight_max, timeout_s=timeout_s,
            protocol=protocol, name=name, slot_key=slot_key,
        )  # fmt: skip
        connection._keeper = asyncio.create_task(connection._keep(), name=f"redis {name}")
        await connection._tried.wait()
        if must_connect and not connection.is_up:
            await connection.close()
            raise StoreUnavailable(f"{connection.address.text}: {connection.last_error}")
        return connection

    @property
    def is_up(self) -> bool:
        """Whether a call would be sent now."""
        return self._wire is not None

    @property
    def has_guide(self) -> bool:
        """Whether it looks for the master of a slot."""
        return self._guide is not None

    @property
    def in_flight(self) -> int:
        """Commands under way."""
        return 0 if self._wire is None else self._wire.in_flight

    def send(self, *words: Word) -> Call:
        """
        Send one command now; await the result for its reply.

        Raises:
            NotConnected, TooManyInFlight: nothing was sent.

        """
        if self._wire is None:
            raise self._not_connected()
        return self._wire.send(words)

    def send_all(self, commands: Sequence[Sequence[Word]]) -> Call:
        """Send several commands in one write; refused ones are `ReplyError`s among the replies."""
        if self._wire is None:
            raise self._not_connected()
        return self._wire.send_all(commands)

    async def call(self, *words: Word) -> Reply:
        """
        Send one command and wait for its reply.

        Raises:
            RedisFailure: one of its kinds; `unknown` says whether it may have been done.

        """
        reply: Reply = await self.send(*words)
        return reply

    async def wait_up(self, limit_s: float) -> bool:
        """
        Wait for a new connection while there is hope: until the attempt under way has ended.

        Returns False as soon as that has failed: a server that is down is not waited for.
        """
        if not self.is_up:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._tried.wait()
        return self.is_up

    def reconnect(self) -> None:
        """Give the present connection up: what is at its other end is no use (a replica, say)."""
        if self._wire is not None:
            if self._guide is not None:
                self._guide.avoid()
            self._wire.abort()

    async def wait_moved(self, limit_s: float) -> None:
        """After a MOVED: wait, so long, for the wire to the server that serves the slot now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._settled.wait()

    async def ask(self, refusal: ReplyError, words: tuple[Word, ...]) -> Call:
        """
        Send a command to the node that an ASK names: it is taking the slot over, key by key.

        The call has two replies, that to ASKING and its own.

        Raises:
            RedisFailure: nothing was sent; the refusal itself, if it names no node.

        """
        where = self._guide.told(refusal, self.address) if self._guide else None
        if where is None:
            raise refusal
        async with self._aside_lock:
            wire = self._aside
            if wire is None or wire.is_lost or where != self._aside_at:
                self._retire(wire)
                self._aside, self._aside_at = None, where
                wire = self._aside = await self._beside(where)
        return wire.send_all([("ASKING",), words])

    async def _beside(self, where: Address) -> Wire:
        wire = self._new_wire()
        try:
            async with asyncio.timeout(self.timeout_s):
                await enter(wire, where, self._protocol, self._name)
        except BaseException as error:
            wire.abort()
            if isinstance(error, OSError):
                raise NotConnected(f"{where.text}: {error}") from error
            raise
        return wire

    async def close(self) -> None:
        """Fail what is under way, and end."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
            self._keeper = None
        for wire in (self._wire, self._aside, *self._retired):
            if wire is not None:
                await leave(wire)

    def _not_connected(self) -> NotConnected:
        return NotConnected(f"{self.address.text}: {self.last_error or 'not connected'}")

    # Keeping it up

    async def _keep(self) -> None:
        failed = 0
        while True:
            wire = await self._try(failed)
            if wire is None:
                failed += 1
                continue
            began = self._loop.time()
            await self._use(wire)
            lived_s = self._loop.time() - began
            failed = 0 if lived_s > SHORT_LIFE_S else failed + 1

    async def _try(self, failed: int) -> Wire | None:
        """One attempt, after its pause."""
        pause_s = BACK_OFF_S[min(failed, len(BACK_OFF_S) - 1)]
        await asyncio.sleep(pause_s * self._jitter.uniform(0.5, 1.0))
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                return await self._reach()
        except (OSError, RedisFailure) as error:
            self.last_error = str(error) or type(error).__name__
            if self._guide is not None:
                self._guide.avoid()
            self._tried.set()
        return None

    async def _reach(self) -> Wire:
        """A wire to the server that we want, passed on by others if need be."""
        at = self.address if self._guide is None else self._guide.way_in()
        for _ in range(HOPS_MAX):
            wire = self._new_wire()
            is_good = False
            try:
                await enter(wire, at, self._protocol, self._name)
                onward = None if self._guide is None else await self._guide.onward(wire, at)
                is_good = onward is None and not wire.is_lost
            finally:
                if not is_good:
                    await leave(wire)
            if onward is None:
                if not is_good:
                    raise ConnectionLost("the server hung up")
                self.address = at
                if self._guide is not None:
                    self._guide.prefer(at)
                return wire
            at = onward
        raise NotConnected("the nodes of the cluster do not agree on who serves our slot")

    def _new_wire(self) -> Wire:
        return Wire(
            self._loop, round(self.timeout_s * 1e9), self._in_flight_max, self._dropped,
            on_moved=self._told_to_move, resp3=self._protocol == 3,
        )  # fmt: skip

    async def _use(self, wire: Wire) -> None:
        """Serve calls until the wire is lost, or leads to the wrong server."""
        self.last_error = ""
        self._retire(self._wire)
        self._wire = wire
        self._moving = self._loop.create_future()
        for up in self.on_up:
            up()
        self._settled.set()
        self._tried.set()
        while not (wire.is_lost or self._moving.done()):
            await asyncio.wait(
                (wire.ended, self._moving), timeout=PING_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not wire.is_lost and not wire.in_flight:
                _ = wire.send(("PING",))

    def _told_to_move(self, wire: Wire, refusal: ReplyError) -> None:
        """A server said MOVED; the connection stays in use until the next one stands."""
        if wire is not self._wire or self._guide is None or self._moving.done():
            return
        where = self._guide.told(refusal, self.address)
        if where is not None:
            self._guide.prefer(where)
        self.moves += 1
        self._settled.clear()
        self._moving.set_result(None)

    def _retire(self, wire: Wire | None) -> None:
        """Send nothing more on it, and end it when its last reply has come or is overdue."""
        self._retired = [old for old in self._retired if not old.is_lost]
        if wire is not None and not wire.is_lost:
            self._retired.append(wire)
            self._loop.call_later(self.timeout_s, wire.abort)

    def _dropped(self, wire: Wire) -> None:
        """A wire was lost; if it was in use, calls fail from now on."""
        if wire is self._wire:
            self._wire = None
            self._tried.clear()
            self._settled.clear()
            self.losses += 1
            for down in self.on_down:
                down()
