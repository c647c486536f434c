"""
The core's store on a real Redis: `lua/` by EVALSHA over one pipelined connection.

Rules:

- scripts are loaded at every new connection, before anybody's calls; a server that forgot one
  (NOSCRIPT: nothing was done) gets it again and the call is repeated;
- a call whose outcome is unknown, because the connection broke, is repeated once if its script is
  idempotent by its arguments and a new connection stands within the call's limit. Nothing else is
  ever repeated, a call that timed out neither: its limit is used up;
- what a node of a cluster refuses because of where its slot is goes to the node that serves it:
  nothing was done, so anything may (`redis_cluster`);
- every failure is `StoreUnavailable`; while the server is down it comes at once.

Each answered call is recorded as a step: waiting until it was written apart from its round trip,
`n` the number of keys of a script, or of commands after the first in a pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final

from simsched.errors import StoreUnavailable
from simsched.live.redis_cluster import ELSEWHERE, follow
from simsched.live.redis_connection import RedisConnection, RedisFailure, ReplyError
from simsched.live.redis_wire import Call, Word
from simsched.live.sinks import Sink
from simsched.ports import Reply
from simsched.steps import Step
from simsched.telemetry import Operation

REPEATABLE: Final = frozenset(
    {
        "bind",
        "claim",
        "complete",
        "heartbeat_keep",
        "own",
        "release_lease",
        "renew",
    }
)
"""
Scripts that may run twice with the same arguments: the second time changes nothing and answers
the same, or an answer that its caller ignores. The reference's counters are not among them, nor
is `node_gone`: its answer, who held leases, is given once.
"""

USELESS_SERVER: Final = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN"})
"""What this server refuses another may do: it is a replica, not there yet, or cut off."""

KNOWN_REFUSALS: Final = frozenset(
    {
        "ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "ERR", "EXECABORT", "LOADING", "MASTERDOWN",
        "MISCONF", "MOVED", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN",
        "UNBLOCKED", "WRONGTYPE",
    }
)  # fmt: skip
"""Codes that get a counter of their own; all others share one."""

HINTS: Final = {
    "CLUSTERDOWN": "the cluster does not serve our slot: reconnecting",
    "MOVED": "the slot of the cell moves, and nobody serves it yet",
    "NOAUTH": "the server wants a password: put it into the URL",
    "NOPERM": "the user of the URL may not run scripts or use these keys",
    "OOM": "the server is out of memory: it refuses writes",
    "READONLY": "this is a replica: reconnecting",
    "LOADING": "the server is still loading its data: reconnecting",
}


def script_names() -> list[str]:
    """Every packaged script, sorted; the prelude is none."""
    folder = files("simsched") / "lua"
    names = (path.name.removesuffix(".lua") for path in folder.iterdir() if ".lua" in path.name)
    return sorted(name for name in names if name != "prelude")


def read_script(name: str) -> str:
    """The text of `lua/<name>.lua`."""
    return (files("simsched") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class RedisStore:
    """
    `simsched.ports.Store` over one connection.

    Args:
        connection: its limit per call is the store's.
        sink: where calls are recorded.
        now: the runtime's clock.
        prelude: the text in front of every script, which gives it its time; tests fix it.

    """

    def __init__(
        self,
        connection: RedisConnection,
        sink: Sink,
        now: Callable[[], int],
        *,
        prelude: str | None = None,
    ) -> None:
        self.connection = connection
        self._sink = sink
        self._now = now
        head = read_script("prelude") if prelude is None else prelude
        self._texts = {name: head + read_script(name) for name in script_names()}
        self._shas = {
            name: sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._texts.items()
        }
        connection.on_up.append(self._load)
        if connection.is_up:
            self._load()

    async def command(
        self, step: Step, op: Operation, *words: str | int | bytes, site: int = 0
    ) -> Reply:
        """One plain command."""
        try:
            call = self.connection.send(*words)
            try:
                reply: Reply = await call
            except ReplyError as error:
                call, reply = await self._elsewhere(call, words, error)
        except RedisFailure as error:
            raise self._failed(step, error) from error
        self._record(step, op, call, 0, site)
        return reply

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
        """Run `lua/<name>.lua` atomically."""
        words = ("EVALSHA", self._shas[name], len(keys), *keys, *args)
        try:
            call = self.connection.send(*words)
            try:
                reply: Reply = await call
            except RedisFailure as error:
                call, reply = await self._again(name, call, words, error)
        except RedisFailure as error:
            raise self._failed(step, error) from error
        self._record(step, op, call, len(keys), site)
        return reply

    async def pipeline(
        self, step: Step, op: Operation, commands: Sequence[Sequence[str | int]]
    ) -> list[Reply]:
        """Several plain commands in one round trip; the first refusal fails the whole."""
        if not commands:
            return []
        try:
            call = self.connection.send_all(commands)
            answer = await _answers(call)
            replies: list[Reply] = []
            for words, reply in zip(commands, answer, strict=True):
                if isinstance(reply, ReplyError):
                    call, reply = await self._elsewhere(call, tuple(words), reply)
                replies.append(reply)
        except RedisFailure as error:
            raise self._failed(step, error) from error
        self._record(step, op, call, len(commands) - 1, 0)
        return replies

    async def ping(self) -> bool:
        """Whether the server answers now."""
        try:
            await self.connection.call("PING")
        except RedisFailure:
            return False
        return True

    def _load(self) -> None:
        """Send all scripts ahead of whatever comes next; a refusal shows when one is used."""
        try:
            _ = self.connection.send_all([("SCRIPT", "LOAD", t) for t in self._texts.values()])
        except RedisFailure:
            self._sink.count("store_scripts_not_loaded", 1)

    async def _again(
        self, name: str, call: Call, words: tuple[Word, ...], error: RedisFailure
    ) -> tuple[Call, Reply]:
        """The one repeat that a failed script may have, and its reply; else its error goes on."""
        if isinstance(error, ReplyError) and error.code in ELSEWHERE:
            return await self._elsewhere(call, words, error, name)
        if isinstance(error, ReplyError) and error.code == "NOSCRIPT":
            self._sink.count("store_scripts_reloaded", 1)
            _ = self.connection.send("SCRIPT", "LOAD", self._texts[name])
        else:
            lost = error.unknown and not isinstance(error, TimeoutError)
            if not lost or name not in REPEATABLE:
                raise error
            if not await self.connection.wait_up(self.connection.timeout_s):
                raise error
            self._sink.count("store_calls_repeated", 1)
        call = self.connection.send(*words)
        try:
            return call, await call
        except ReplyError as refusal:
            return await self._elsewhere(call, words, refusal, name)

    async def _elsewhere(
        self, call: Call, words: tuple[Word, ...], refusal: ReplyError, name: str = ""
    ) -> tuple[Call, Reply]:
        """The reply of the node of a cluster that serves the slot; other refusals go on."""
        if refusal.code not in ELSEWHERE or not self.connection.has_guide:
            raise refusal
        self._sink.count("store_calls_redirected", 1)
        stranger = ("EVAL", self._texts[name], *words[2:]) if name else None
        answered, reply = await follow(self.connection, words, refusal, stranger)
        answered.asked_ns = call.asked_ns  # the way round is waiting
        return answered, reply

    def _failed(self, step: Step, error: RedisFailure) -> StoreUnavailable:
        text = str(error)
        if isinstance(error, ReplyError):
            code = error.code if error.code in KNOWN_REFUSALS else "other"
            self._sink.count(f"store_refused_{code.lower()}", 1)
            if code in USELESS_SERVER:
                self.connection.reconnect()
            hint = HINTS.get(code)
            text = f"{text} ({hint})" if hint else text
        else:
            self._sink.count(_COUNTERS.get(type(error).__name__, "store_failures"), 1)
        return StoreUnavailable(f"{step.name}: {text}")

    def _record(self, step: Step, op: Operation, call: Call, n: int, site: int) -> None:
        wait_ns = call.written_ns - call.asked_ns
        own_ns = call.ended_ns - call.written_ns
        start_ns = self._now() - (time.monotonic_ns() - call.asked_ns)
        self._sink.step(step, op, start_ns, wait_ns, own_ns, n, site)


async def _answers(call: Call) -> list[Reply | ReplyError]:
    """The replies to a pipeline; that of a single command may be a refusal too."""
    try:
        answer = await call
    except ReplyError as refusal:
        return [refusal]
    return answer if call.expects > 1 else [answer]


_COUNTERS: Final = {
    "NotConnected": "store_not_connected",
    "TooManyInFlight": "store_too_many_in_flight",
    "ConnectionLost": "store_connection_lost",
    "CallTimeout": "store_timeouts",
}
