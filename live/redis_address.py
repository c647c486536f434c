"""
Where a Redis server is, and how to enter it: the address in our own terms, and the greeting.

An address holds its password; its `text` does not and may be printed. Nothing here keeps a
connection or knows what is asked of it.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simsched.errors import ConfigError
from simsched.live.redis_wire import ReplyError, Wire


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

    def beside(self, host: str, port: int) -> Address:
        """Another node that is entered in the same way; a node that names no host is on ours."""
        host = host or self.host or "127.0.0.1"
        scheme = "rediss" if self.tls else "redis"
        return replace(self, text=f"{scheme}://{host}:{port}", host=host, port=port, path="")


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


async def enter(wire: Wire, address: Address, protocol: int, name: str) -> None:
    """
    Connect a wire and greet: RESP version, user, database, name.

    Raises:
        OSError, RedisFailure: there is no server, it does not let us in, or it is still loading
            its data and refuses the PING.

    """
    loop = asyncio.get_running_loop()
    if address.path:
        await loop.create_unix_connection(lambda: wire, address.path)
    else:
        await loop.create_connection(
            lambda: wire, address.host, address.port, ssl=address.tls,
            server_hostname=address.host if address.tls else None,
        )  # fmt: skip
    secret = (address.username or "default", address.password)
    if protocol == 3:
        await wire.send(("HELLO", 3, "AUTH", *secret) if address.password else ("HELLO", 3))
    elif address.password:
        await wire.send(("AUTH", *(secret if address.username else secret[1:])))
    if address.db:
        await wire.send(("SELECT", address.db))
    with suppress(ReplyError):
        await wire.send(("CLIENT", "SETNAME", name))
    await wire.send(("PING",))


async def leave(wire: Wire) -> None:
    """End a wire and wait until it has ended."""
    wire.abort()
    await asyncio.wait((wire.ended,), timeout=1.0)
