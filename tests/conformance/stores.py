"""One face for the simulator's key space, fakeredis and a real server, to compare them.

Scripts run at a fixed time everywhere: on the servers a test prelude takes it from the last
argument. Native expiry is left to each; a comparison ignores keys that the key space let go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from importlib.resources import files
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

import fakeredis
import redis

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.live.fake_server import FakeServer
from simsched.live.redis_connection import RedisConnection, ReplyError
from simsched.live.runtime import new_event_loop
from simsched.live.sinks import NullSink
from simsched.live.store import RedisStore
from simsched.models.keyspace import LuaKeySpace, ScriptError, script_body
from simsched.ports import Reply
from simsched.telemetry import Operation, OpKind

FIXED_TIME_PRELUDE = """
local now_us
do
  local fixed = tonumber(table.remove(ARGV))
  now_us = function() return fixed end
end
"""

State = dict[bytes, tuple[str, Any, bool]]
"""Key -> (type, content in a sorted form, whether it expires natively)."""


class Store(Protocol):
    """What is compared. A failure answers with its kind, as text."""

    def command(self, now_us: int, *words: str | int) -> Reply | str: ...
    def script(
        self, now_us: int, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply | str: ...
    def state(self) -> State: ...
    def clear(self) -> None: ...


def script_names() -> list[str]:
    """Every packaged script, sorted; the prelude is none."""
    folder = files("simsched") / "lua"
    names = (path.name.removesuffix(".lua") for path in folder.iterdir() if ".lua" in path.name)
    return sorted(name for name in names if name != "prelude")


def prelude() -> str:
    """The text that precedes every script on a server in use."""
    return (files("simsched") / "lua" / "prelude.lua").read_text(encoding="utf-8")


class SimulatedStore:
    """The key space of the simulator."""

    def __init__(self) -> None:
        self.space = LuaKeySpace()

    def command(self, now_us: int, *words: str | int) -> Reply | str:
        try:
            return self.space.command(now_us, *words)
        except ScriptError as error:
            return _failure(error)

    def script(
        self, now_us: int, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply | str:
        try:
            return self.space.script(now_us, name, keys, args)
        except ScriptError as error:
            return _failure(error)

    def state(self) -> State:
        return {
            key: (entry.type, _canonical(entry.type, entry.content), entry.expires_ms is not None)
            for key, entry in self.space.dump().items()
        }

    def clear(self) -> None:
        self.space = LuaKeySpace()


class ServerStore:
    """A server behind a redis-py client: the real one or fakeredis."""

    def __init__(self, client: redis.Redis, *, prelude_text: str = FIXED_TIME_PRELUDE) -> None:
        self.client: Any = client
        self.prelude_text = prelude_text
        # Replies as the protocol has them, not as the client dresses them up.
        self.client.response_callbacks.clear()
        self._sha: dict[str, str] = {}

    def command(self, now_us: int, *words: str | int) -> Reply | str:
        return self._ask(*words)

    def script(
        self, now_us: int, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply | str:
        if name not in self._sha:
            source = self.prelude_text + script_body(name)
            self._sha[name] = _decoded(self.client.execute_command("SCRIPT LOAD", source))
        last = (now_us,) if self.prelude_text == FIXED_TIME_PRELUDE else ()
        return self._ask("EVALSHA", self._sha[name], len(keys), *keys, *args, *last)

    def _ask(self, *words: str | int) -> Reply | str:
        try:
            return cast("Reply", _plain(self.client.execute_command(*words)))
        except redis.ResponseError as error:
            return _failure(error)

    def state(self) -> State:
        found: State = {}
        for key in sorted(_listed(self.client.execute_command("KEYS", "*"))):
            kind = _decoded(self.client.execute_command("TYPE", key))
            if kind != "none":
                content = _plain(self.client.execute_command(*_reader(kind, key)))
                expires = self.client.execute_command("PTTL", key) >= 0
                found[key] = (kind, _canonical(kind, content), expires)
        return found

    def delete(self, keys: Sequence[bytes]) -> None:
        if keys:
            self.client.execute_command("DEL", *keys)

    def clear(self) -> None:
        self.client.execute_command("FLUSHALL")


class LiveStore(ServerStore):
    """A server behind the live world's own store; its state is read by a client beside it."""

    def __init__(
        self, url: str, client: redis.Redis, *, protocol: int = 2, slot_key: str = ""
    ) -> None:
        super().__init__(client)
        self._runner = asyncio.Runner(loop_factory=new_event_loop)
        self._connection = self._runner.run(
            RedisConnection.open(url, protocol=protocol, timeout_s=20.0, slot_key=slot_key)
        )
        self._store = RedisStore(
            self._connection, NullSink(), time.monotonic_ns, prelude=FIXED_TIME_PRELUDE
        )
        self._op = Operation(OpKind.CONTROL, 1, 1, "", 0)

    def command(self, now_us: int, *words: str | int) -> Reply | str:
        return self._answer(self._store.command(steps.JOB_KEY, self._op, *words))

    def script(
        self, now_us: int, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply | str:
        return self._answer(self._store.script(steps.CLAIM, self._op, name, keys, [*args, now_us]))

    def _answer(self, asked: Coroutine[Any, Any, Reply]) -> Reply | str:
        try:
            return self._runner.run(asked)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, ReplyError):
                return _failure(error.__cause__)
            raise

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()
        self.client.close()


@contextmanager
def live_store(unix_socket: str, protocol: int) -> Iterator[LiveStore]:
    """The live store on the server at this socket."""
    client = redis.Redis(unix_socket_path=unix_socket, protocol=2)
    with closing(LiveStore(f"unix://{unix_socket}", client, protocol=protocol)) as store:
        yield store


@contextmanager
def live_fake_store() -> Iterator[LiveStore]:
    """The live store on fakeredis behind a socket, its last fallback."""
    with TemporaryDirectory(prefix="simsched-") as folder:
        server = FakeServer(f"{folder}/s")
        try:
            with closing(LiveStore(f"unix://{folder}/s", server.client())) as store:
                yield store
        finally:
            server.stop()


def fake_store(protocol: int = 2) -> ServerStore:
    """A fakeredis server of its own."""
    server = fakeredis.FakeServer()
    return ServerStore(fakeredis.FakeRedis(server=server, protocol=protocol))


def real_store(unix_socket: str, protocol: int) -> ServerStore:
    """A client of the server at this socket, over RESP2 or RESP3."""
    return ServerStore(redis.Redis(unix_socket_path=unix_socket, protocol=protocol))


@cache
def _reader_words(kind: str) -> tuple[str, tuple[str, ...]]:
    return {
        "string": ("GET", ()),
        "hash": ("HGETALL", ()),
        "set": ("SMEMBERS", ()),
        "zset": ("ZRANGE", ("0", "-1", "WITHSCORES")),
        "stream": ("XRANGE", ("-", "+")),
    }[kind]


def _reader(kind: str, key: bytes) -> tuple[str | bytes, ...]:
    name, rest = _reader_words(kind)
    return (name, key, *rest)


def _failure(error: Exception) -> str:
    """An error's kind; a client may strip the general one."""
    first = str(error).split()[0]
    return first if first == "WRONGTYPE" else "ERR"


def _plain(value: Any) -> Any:
    """A reply in RESP2's terms: maps, sets, doubles and nested pairs of RESP3 taken apart."""
    if isinstance(value, dict):
        return [_plain(part) for pair in value.items() for part in pair]
    if isinstance(value, set | frozenset):
        return [_plain(part) for part in sorted(value)]
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return b"%d" % value if value.is_integer() else repr(value).encode()
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _flat(content: Any) -> list[Any]:
    flat: list[Any] = []
    for part in content:
        if isinstance(part, list):
            flat.extend(part)
        else:
            flat.append(part)
    return flat


def _canonical(kind: str, content: Any) -> Any:
    if kind == "set":
        return sorted(content)
    if kind in ("hash", "zset"):
        flat = _flat(content)
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return sorted(pairs) if kind == "hash" else pairs
    return content


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _listed(value: Any) -> list[bytes]:
    return list(value)
