"""A real cluster of three masters on loopback for tests: formed, changed and ended.

Formed over the wire by the servers' own commands. Slots are dealt in thirds; a slot can be moved,
a master followed by a replica, stopped or ended. Without a server program the test is skipped.
"""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from tests.conformance.redis_server import NO_SERVER, server_path

SLOTS = 16_384
MASTERS = 3
BUS = 10_000
"""A node's cluster bus is at its port plus this."""

PORTS = (20_000, 45_000)
START_TRIES = 5
LIMIT_S = 20.0
"""For every wait; none comes near it unless something is wrong."""

NODE_TIMEOUT_MS = 1_500
"""After so much silence the others call a master failed."""


class ClusterNode:
    """One server, with no data on disk."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = 0
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = None
        self.id = ""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start on free ports; ports that were taken meanwhile are left for others."""
        for attempt in range(START_TRIES):
            folder = self._folder / str(attempt)
            folder.mkdir()
            self.port = _free_port()
            words = [
                self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS),
                "--dir", str(folder), "--logfile", str(folder / "log"), "--appendonly", "no",
                "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0",
            ]  # fmt: skip
            self._process = subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if self._is_ready(self._process):
                self.client = redis.Redis(port=self.port, protocol=2)
                self.client.response_callbacks.clear()
                self.id = self.ask("CLUSTER", "MYID").decode()
                return
            self.kill()
        pytest.fail(f"{self._program} did not start: {(folder / 'log').read_text()[-400:]}")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1.0) as link:
                    link.sendall(b"PING\r\n")
                    if link.recv(16).startswith(b"+PONG"):
                        return True
            except OSError:
                time.sleep(0.002)
        return False

    def ask(self, *words: str | int) -> Any:
        """One command to this node, wherever its slot is."""
        return self.client.execute_command(*words)

    def info(self) -> dict[str, str]:
        """CLUSTER INFO."""
        lines = self.ask("CLUSTER", "INFO").decode().split()
        return dict(line.split(":", 1) for line in lines)

    def kill(self) -> None:
        """As a crash does."""
        if self.client is not None:
            self.client.close()
            self.client = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Cluster:
    """Three masters, and replicas where a test adds some."""

    def __init__(self, folder: str) -> None:
        path = server_path()
        if path is None:
            pytest.skip(NO_SERVER)
        self._program = path
        self._folder = Path(folder)
        self.nodes: list[ClusterNode] = []

    def _add(self) -> ClusterNode:
        folder = self._folder / f"n{len(self.nodes)}"
        folder.mkdir()
        node = ClusterNode(self._program, folder)
        self.nodes.append(node)
        node.start()
        return node

    def form(self) -> None:
        """Start the masters, deal the slots, introduce them, and wait until all serve."""
        cuts = [SLOTS * number // MASTERS for number in range(MASTERS + 1)]
        for number in range(MASTERS):
            node = self._add()
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", cuts[number], cuts[number + 1] - 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        self.wait(lambda: all(self._serves(node, MASTERS) for node in self.nodes))

    def _serves(self, node: ClusterNode, known: int) -> bool:
        info = node.info()
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(known)

    def add_replica(self, master: ClusterNode) -> ClusterNode:
        """A replica of this master that has its data."""
        node = self._add()
        node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        self.wait(lambda: all(self._serves(one, len(self.nodes)) for one in self.nodes))
        node.ask("CLUSTER", "REPLICATE", master.id)
        self.wait(lambda: b"master_link_status:up" in node.ask("INFO", "replication"))
        known = f"{node.id} ".encode()
        self.wait(lambda: all(b"slave" in self._line(one, known) for one in self.nodes))
        return node

    @staticmethod
    def _line(node: ClusterNode, start: bytes) -> bytes:
        lines: list[bytes] = node.ask("CLUSTER", "NODES").splitlines()
        return next((line for line in lines if line.startswith(start)), b"")

    def owner(self, key: str, *, seen_from: int = 0) -> ClusterNode:
        """The master that serves a key's slot, as one node sees it."""
        slot = key_slot(key.encode())
        for first, last, master, *_replicas in self.nodes[seen_from].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.id.encode() == master[2])
        raise AssertionError(f"nobody serves slot {slot}")

    def others(self, node: ClusterNode) -> list[ClusterNode]:
        """All nodes but this one."""
        return [other for other in self.nodes if other is not node]

    # Moving a slot

    def start_move(self, key: str, to: ClusterNode) -> None:
        """Open the slot of a key on both sides: from now on the source may say ASK."""
        slot, source = key_slot(key.encode()), self.owner(key)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)

    def move_keys(self, key: str, to: ClusterNode, count: int) -> int:
        """Take up to `count` keys of an open slot over; how many it were."""
        slot, source = key_slot(key.encode()), self.owner(key)
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys)
        return len(keys)

    def end_move(self, key: str, to: ClusterNode) -> None:
        """Close the slot: the target serves it alone."""
        slot = key_slot(key.encode())
        for node in (to, *self.others(to)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def move_at_once(self, key: str, to: ClusterNode) -> None:
        """Have the servers move the slot in one piece, where they can (Valkey 9)."""
        slot, source = key_slot(key.encode()), self.owner(key)
        try:
            source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
        except redis.ResponseError as error:
            pytest.skip(f"this server moves slots key by key only ({error})")
        self.wait(lambda: all(self.owner(key, seen_from=n) is to for n in range(len(self.nodes))))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until it holds; bounded."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, [node.info() for node in self.nodes if node.client]
            time.sleep(0.01)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


@contextmanager
def redis_cluster() -> Iterator[Cluster]:
    """A cluster that serves all slots, for the length of the block."""
    with TemporaryDirectory(prefix="simsched-") as folder:
        cluster = Cluster(folder)
        try:
            cluster.form()
            yield cluster
        finally:
            cluster.close()


def _free_port() -> int:
    chance = random.Random()
    for _ in range(1_000):
        port = chance.randrange(*PORTS)
        if all(_is_free(number) for number in (port, port + BUS)):
            return port
    raise AssertionError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as link:
        try:
            link.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
