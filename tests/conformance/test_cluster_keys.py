"""All keys of one call of a cell lie in one slot of a Redis Cluster.

Every method of `CellStore` and `Inbox` has a row here; a method without one fails the test.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from redis.crc import key_slot

from simsched import steps
from simsched.inbox import SendToSession
from simsched.live.inbox import Inbox
from simsched.live.redis_connection import RedisConnection
from simsched.live.sinks import NullSink
from simsched.live.store import RedisStore
from simsched.messages import Error, ErrorCode
from simsched.ports import Reply
from simsched.steps import Step
from simsched.store import CellStore
from simsched.telemetry import Operation
from tests.conformance.cell_calls import CALLS, operation
from tests.live.valkey import until

CELLS = ["cell", "a", "tokyo-1", "x.y_z"]

ONE_KEY = frozenset(
    {"DEL", "GET", "HGET", "HGETALL", "HMGET", "HSET", "PEXPIRE", "SET", "SMEMBERS", "XADD",
     "XDEL", "XRANGE", "ZREM", "ZSCORE"}
)  # fmt: skip
"""Commands with one key, their first word."""

NO_KEY = frozenset({"TIME"})

ANSWERS: dict[str, Reply] = {"restore": b"KEPT", "reopen": 0, "presence": [[], [], 1]}
"""A fitting nothing, where it is no empty list."""


def keys_of(words: Sequence[Any]) -> list[str]:
    """The keys of a plain command; one that is in no table fails."""
    name = words[0]
    if name in NO_KEY:
        return []
    if name == "XREAD":
        names = list(words[words.index("STREAMS") + 1 :])
        return names[: len(names) // 2]
    assert name in ONE_KEY, f"{name}: say where its keys are"
    return [words[1]]


class KeysOnly:
    """A store that answers with a fitting nothing, and keeps the keys of each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def command(
        self, step: Step, op: Operation, *words: str | int | bytes, site: int = 0
    ) -> Reply:
        self.calls.append(keys_of(words))
        return [None, None, None] if words[0] == "HMGET" else None

    async def script(
        self,
        step: Step,
        op: Operation,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | int],
        *,
        site: int = 0,
    ) -> Reply:
        self.calls.append(list(keys))
        if name in ("claim", "complete", "try_reserve"):
            return [b"FULL", b"FULL"]
        return ANSWERS.get(name, [])

    async def pipeline(
        self, step: Step, op: Operation, commands: Sequence[Sequence[str | int]]
    ) -> list[Reply]:
        self.calls.append([key for words in commands for key in keys_of(words)])
        return []


def slots(calls: list[list[str]]) -> set[int]:
    """The slots of all keys; a key of no one's is a mistake of the test."""
    assert calls
    assert any(calls)
    return {key_slot(key.encode()) for keys in calls for key in keys}


def methods(kind: type) -> set[str]:
    return {
        name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")
    }


def test_every_method_of_the_cell_store_has_its_row() -> None:
    """A new method cannot forget the slot: it needs a row of calls."""
    assert set(CALLS) == methods(CellStore)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("method", sorted(CALLS))
def test_keys_of_a_call_share_the_slot_of_their_cell(method: str, cell: str) -> None:
    """By hash, without a server: whatever a method asks is in the cell's slot."""
    seen = KeysOnly()
    store = CellStore(seen, "i-1", cell)

    async def main() -> None:
        for call in CALLS[method]:
            await call(store, operation())

    asyncio.run(main())
    assert slots(seen.calls) == {key_slot(cell.encode())}


class Asked:
    """A connection that keeps what it is asked, and answers what an inbox can live with."""

    timeout_s = 10.0
    is_up = True
    has_guide = False

    def __init__(self) -> None:
        self.on_up: list[Callable[[], object]] = []
        self.words: list[Sequence[Any]] = []

    async def call(self, *words: Any) -> Any:
        self.words.append(words)
        await asyncio.sleep(0.001)
        if words[0] == "XREAD":
            inbox = words[words.index("STREAMS") + 1].encode()
            return [[inbox, [[b"1-1", [b"kind", b"hello", b"body", b""]]]]]
        return [b"1", b"0"] if words[0] == "TIME" else 0

    def send(self, *words: Any) -> asyncio.Future[Any]:
        return self.send_all([words])

    def send_all(self, commands: Sequence[Sequence[Any]]) -> asyncio.Future[Any]:
        self.words += [words for words in commands if words[0] not in ("SCRIPT", "EVALSHA")]
        done = asyncio.get_running_loop().create_future()
        done.set_result([None] * len(commands))
        return done


class KeysOfStore(RedisStore):
    """The live store with commands that are only kept."""

    async def command(
        self, step: Step, op: Operation, *words: str | int | bytes, site: int = 0
    ) -> Reply:
        cast("Asked", self.connection).words.append(words)
        entry: list[Reply] = [b"1-1", [b"kind", b"client", b"body", b""]]
        return [entry] if words[0] == "XRANGE" else b"1-1"


LETTER = SendToSession("s-1", Error(code=ErrorCode.INTERNAL_ERROR, message=""))

LETTERS: dict[str, Callable[[Inbox], Awaitable[object] | None]] = {
    "start": lambda inbox: inbox.start(),
    "to_instance": lambda inbox: inbox.to_instance(steps.INBOX_APPEND, operation(), "i-2", LETTER),
    "broadcast": lambda inbox: inbox.broadcast(LETTER),
    "letters_of": lambda inbox: inbox.letters_of(steps.INBOX_APPEND, operation(), "i-2", [""]),
    "close": lambda inbox: inbox.close(),
}


def test_every_method_of_the_inbox_has_its_row() -> None:
    """What it can do is in the table, in an order that works."""
    assert set(LETTERS) == methods(Inbox)


@pytest.mark.parametrize("cell", CELLS)
def test_inboxes_and_announcements_share_the_slot_of_their_cell(cell: str) -> None:
    """Streams of instances, the board, and the blocking read of both."""

    async def main() -> list[Sequence[Any]]:
        asked = Asked()
        connection = cast("RedisConnection", asked)
        store = KeysOfStore(connection, NullSink(), time.monotonic_ns)
        inbox = Inbox(store, connection, "i-1", lambda _event: None, NullSink(), cell=cell)
        for name, act in LETTERS.items():
            waiting = act(inbox)
            if waiting is not None:
                await waiting
            if name == "start":
                await until(lambda: any(words[0] == "XDEL" for words in asked.words))
        for again in asked.on_up:
            again()
        return asked.words

    words = asyncio.run(asyncio.wait_for(main(), 20.0))
    used = {command[0] for command in words}
    assert used >= {"XADD", "XREAD", "XDEL", "XRANGE", "PEXPIRE", "DEL"}
    assert slots([keys_of(command) for command in words]) == {key_slot(cell.encode())}
