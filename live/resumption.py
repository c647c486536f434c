"""
Who may go on with which session: a key for each, and a record in the store that all can ask.

A session's key is a random word that only its client has; the store keeps a digest of it beside
the instance that the session is on now (`resume.lua`). So any instance can take a session over
without asking the one that had it, which may be dead. Rules:

- the record is written when a session opens and again once in `every_s`; it outlives its instance
  by `outlives_s` to three times as long as that takes, and ends with its session;
- who takes a session over writes itself into the record. The instance that had it learns so by a
  letter, or at its next writing;
- a store that has forgotten everything is told again by whoever has the session; a store that has
  come back with an old copy, too: every taking over has an epoch, and an older one counts for
  nothing;
- an instance alone, without a store to share, keeps its keys in memory.

What a session is, and when it ends, is the business of `sessions`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any, Final, cast

from simsched import steps
from simsched.chance import key_of
from simsched.errors import StoreUnavailable
from simsched.live.runtime import LiveRuntime
from simsched.live.store import RedisStore
from simsched.telemetry import Operation, OpKind

KEY_BYTES: Final = 16
SLICE: Final = 100
"""Records that are written at once; others have the connection in between."""


def digest_of(key: str) -> str:
    """What may be kept of a key where others can read it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class SessionRecords:
    """
    The records of one cell's sessions, as one instance sees them.

    Args:
        store: the store that all share.
        runtime: whose instance it is.
        cell: the cell's name, part of all keys.
        every_s: how often what is here is written again.
        outlives_s: how long a session may be gone on with, at least, after its instance has died.

    Attributes:
        on_moved: told of a session of ours that another instance has, and which.

    """

    def __init__(
        self,
        store: RedisStore,
        runtime: LiveRuntime,
        *,
        cell: str,
        every_s: float,
        outlives_s: float,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._prefix = "{" + cell + "}:resume:"
        self._every_s = every_s
        self._ttl_ms = round((2 * every_s + outlives_s) * 1_000)
        self._digests: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._writing = False
        self._entity = key_of("resumption", runtime.instance_id)
        self.on_moved: Callable[[str, str], None] = lambda _session, _to: None

    async def run(self) -> None:
        """Write again what is here, for as long as the instance lives."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.write_all()

    def opened(self, session_id: str, key: str) -> None:
        """A session is here that its client may go on with elsewhere."""
        self._digests[session_id] = digest_of(key)
        self._runtime.start(self._keep(session_id), name=f"record {session_id}")

    def over(self, session_id: str) -> None:
        """It may not be gone on with any more."""
        digest = self._digests.pop(session_id, None)
        if digest is not None:
            self._runtime.start(self._forget(session_id, digest), name=f"record {session_id}")

    async def take(self, session_id: str, key: str) -> str | None:
        """
        Take a session over; the instance that had it, None if there is none or the key is wrong.

        Raises:
            StoreUnavailable: nobody can tell now.

        """
        digest = digest_of(key)
        taken, before = await self._call("take", session_id, digest)
        if not taken:
            return None
        self._digests[session_id] = digest
        return before

    async def write_all(self) -> None:
        """Say of every session that it is here; what another instance has is theirs."""
        if self._writing:
            return
        self._writing = True
        try:
            names = list(self._digests)
            for start in range(0, len(names), SLICE):
                await asyncio.gather(*(self._keep(name) for name in names[start : start + SLICE]))
        finally:
            self._writing = False

    async def _keep(self, session_id: str) -> None:
        digest = self._digests.get(session_id)
        if digest is None:
            return
        try:
            ours, to = await self._call("keep", session_id, digest)
        except StoreUnavailable:
            return  # the next writing says it again
        if not ours and self._digests.pop(session_id, None) is not None:
            self.on_moved(session_id, to)

    async def _forget(self, session_id: str, digest: str) -> None:
        try:
            await self._call("forget", session_id, digest)
        except StoreUnavailable:
            return  # the record runs out by itself

    async def _call(self, what: str, session_id: str, digest: str) -> tuple[bool, str]:
        op: Operation = self._runtime.begin(OpKind.CONTROL, self._entity, 0)
        epoch = self._epochs.get(session_id, 0)
        args: list[str | int] = [what, self._runtime.instance_id, digest, self._ttl_ms, epoch]
        try:
            reply = await self._store.script(
                steps.OWNER_WRITE, op, "resume", [self._prefix + session_id], args, site=1
            )
        finally:
            self._runtime.end(op)
        taken, name, epoch = cast("list[Any]", reply)
        if taken == 1 and what != "forget":
            self._epochs[session_id] = epoch
        else:
            self._epochs.pop(session_id, None)
        return taken == 1, name.decode()


class Keys:
    """The keys of the sessions that are here."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._keys

    def get(self, session_id: str) -> str | None:
        """The key of a session; None if it was opened without one."""
        return self._keys.get(session_id)

    def make(self, session_id: str) -> str:
        """A key for a new session."""
        key = self._keys[session_id] = secrets.token_hex(KEY_BYTES)
        return key

    def put(self, session_id: str, key: str) -> None:
        """A session has come here, with its key."""
        self._keys[session_id] = key

    def drop(self, session_id: str) -> None:
        """Nobody can come back to it any more."""
        self._keys.pop(session_id, None)

    def opens(self, session_id: str, given: str) -> bool:
        """Whether what a client shows is the key; takes as long for a wrong one."""
        key = self._keys.get(session_id)
        want = key if key is not None else secrets.token_hex(KEY_BYTES)
        same = hmac.compare_digest(want.encode(), given.encode("utf-8", "surrogatepass"))
        return same and key is not None
