"""
A connection to Redis that lasts: it pipelines, fails fast, and comes back by itself.

One `Wire` at a time carries all calls of an instance; that is faster than a pool (one write per
loop tick) and keeps calls in the order in which they were made. Rules:

- while there is no wire, calls fail at once and nothing is sent;
- a lost wire is replaced at once, then after growing pauses with jitter; callbacks in `on_up` run
  before anybody else's calls, so what they send comes first;
- an idle wire is pinged, so that a dead server is noticed before somebody needs it;
- nothing is ever sent twice: whether to repeat is for the caller to know;
- a blocking read needs a connection of its own, with a limit above its own time.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from simsched.errors import ConfigError, StoreUnavailable
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is and how to enter; `text` is safe to print: it holds no password."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None


def parse_address(url: str) -> Address:
    """
    Read `redis://`, `rediss://` or `unix://` as redis-py does, and put it in our own terms.

    Raises:
        ConfigError: it is none of these, or an option is wrong.

    """
    from redis.connection import parse_url  # its import takes longer than our start

    want = "redis://[user:password@]host:port/db, rediss://... or unix:///path?db=0"
    try:
        options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        parts = urlsplit(url)
        path = options.get("path", "")
        host = options.get("host", "localhost")
        port = int(options.get("port", 6379))
        return Address(
            text=f"unix://{path}" if path else f"{parts.scheme}://{host}:{port}",
            host="" if path else host,
            port=port,
            path=path,
            db=int(options.get("db", 0)),
            username=options.get("username") or "",
            password=options.get("password") or "",
            tls=_tls(parse_qs(parts.query)) if parts.scheme == "rediss" else None,
        )
    except (ValueError, OSError, ssl.SSLError) as error:
        raise ConfigError("store", "redis_url", f"want {want} ({error})") from error


def _tls(query: dict[str, list[str]]) -> ssl.SSLContext:
    options = {name: values[-1] for name, values in query.items()}
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    checks_host = options.get("ssl_check_hostname", "true").lower() not in ("false", "0", "no")
    trusts_all = options.get("ssl_cert_reqs", "required").lower() == "none"
    context.check_hostname = checks_host and not trusts_all
    if trusts_all:
        context.verify_mode = ssl.CERT_NONE
    return context


class RedisConnection:
    """
    The calls of one instance to one server; make it with `open`.

    Attributes:
        on_up, on_down: called at every new connection and every loss, in order; may not raise.
        last_error: why the last attempt to connect failed, in a line; "" if it did not.
        losses: how often an established connection was lost.

    """

    def __init__(
        self, address: Address, *, in_flight_max: int, timeout_s: float, protocol: int, name: str
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.on_up: list[Callable[[], object]] = []
        self.on_down: list[Callable[[], object]] = []
        self.last_error = ""
        self.losses = 0
        self._in_flight_max = in_flight_max
        self._protocol = protocol
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._lost = asyncio.Event()
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

        Raises:
            ConfigError: the URL is wrong.
            StoreUnavailable: the first attempt failed.

        """
        connection = cls(
            parse_address(url), in_flight_max=in_flight_max, timeout_s=timeout_s,
            protocol=protocol, name=name,
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
            self._wire.abort()

    async def close(self) -> None:
        """Fail what is under way, and end."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
            self._keeper = None

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
        wire = Wire(
            self._loop, round(self.timeout_s * 1e9), self._in_flight_max, self._dropped,
            resp3=self._protocol == 3,
        )  # fmt: skip
        is_good = False
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self._connect(wire)
                await self._greet(wire)
            is_good = not wire.is_lost
        except (OSError, RedisFailure) as error:
            self.last_error = str(error) or type(error).__name__
            self._tried.set()
        finally:
            if not is_good:
                await _end(wire)
        return wire if is_good else None

    async def _use(self, wire: Wire) -> None:
        """Serve calls until the wire is lost."""
        self.last_error = ""
        self._wire = wire
        for up in self.on_up:
            up()
        self._tried.set()
        try:
            while not wire.is_lost:
                await asyncio.wait((wire.ended,), timeout=PING_S)
                if not wire.is_lost and not wire.in_flight:
                    _ = wire.send(("PING",))
        finally:
            await _end(wire)

    def _dropped(self, wire: Wire) -> None:
        """A wire was lost; if it was in use, calls fail from now on."""
        if wire is self._wire:
            self._wire = None
            self._tried.clear()
            self.losses += 1
            for down in self.on_down:
                down()

    async def _connect(self, wire: Wire) -> None:
        address = self.address
        if address.path:
            await self._loop.create_unix_connection(lambda: wire, address.path)
            return
        await self._loop.create_connection(
            lambda: wire, address.host, address.port, ssl=address.tls,
            server_hostname=address.host if address.tls else None,
        )  # fmt: skip

    async def _greet(self, wire: Wire) -> None:
        """Enter; a server that is still loading its data, say, refuses the PING."""
        address = self.address
        secret = (address.username or "default", address.password)
        if self._protocol == 3:
            await wire.send(("HELLO", 3, "AUTH", *secret) if address.password else ("HELLO", 3))
        elif address.password:
            await wire.send(("AUTH", *(secret if address.username else secret[1:])))
        if address.db:
            await wire.send(("SELECT", address.db))
        with suppress(ReplyError):
            await wire.send(("CLIENT", "SETNAME", self._name))
        await wire.send(("PING",))


async def _end(wire: Wire) -> None:
    wire.abort()
    await asyncio.wait((wire.ended,), timeout=1.0)
