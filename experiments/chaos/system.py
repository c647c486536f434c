"""
The system under chaos: instances and nodes as processes, and a breakable link in front of each.

    client --(its link)--> instance --(its link)--> Redis <-- replica
                              ^
    node ----(its link)-------'

A client and a node connect through their own link to an instance that is up, the one of their
number first; an instance reaches Redis through its own link. What the simulated world is told of
times (heartbeats, presence, health) is told to the processes too, so that one case means the same
in both worlds. An instance that was killed comes back empty under a new name: `i-0`, `i-0.1`, ...
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from simsched.cases import Case
from simsched.experiments.chaos.children import Child, ChildFailed, Children
from simsched.experiments.chaos.proxy import Proxy, Streams, tcp
from simsched.experiments.chaos.redis_pair import RedisPair

RECORDINGS: Final = "instances"
LOGS: Final = "logs"

PRESENCE_BEATS: Final = 3
SILENT_BEATS: Final = 3
WARMUP_BEATS: Final = 4
"""As in the simulated world: heartbeats until an instance or a node counts as gone, or is new."""

LANGUAGES: Final = "en,zh"
DRAIN_S: Final = 5.0
STARTS_MAX: Final = 20
TRY_AGAIN_S: Final = 0.3

_SELF: Final = (sys.executable, "-m", "simsched")


class InstanceProcess:
    """One instance, through all its lives."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.life = 0
        self.child: Child | None = None
        self.port = 0
        self.store_link: Proxy

    @property
    def name(self) -> str:
        return f"i-{self.number}" + (f".{self.life}" if self.life else "")

    @property
    def is_up(self) -> bool:
        """Whether it takes connections and answers."""
        return self.port != 0 and self.child is not None and not self.child.is_paused


class Death(NamedTuple):
    """An instance was killed: when that began, since when it is gone, and whose clients it lost."""

    name: str
    began_ns: int
    gone_ns: int
    clients: tuple[int, ...]


class NodeProcess:
    """One node, through all its lives."""

    def __init__(self, number: int, link: Proxy) -> None:
        self.number = number
        self.name = f"n-{number}"
        self.link = link
        self.child: Child | None = None


class System:
    """
    All processes and links of a run.

    Args:
        case: says how much there is of everything, and with which times.
        folder: recordings and logs go below it.
        children: whose processes these become.

    Attributes:
        client_at: the instance to which a client's connection leads, or led last.
        deaths: instances that were killed.

    """

    def __init__(self, case: Case, folder: Path, children: Children) -> None:
        self._case = case
        self._folder = folder
        self._children = children
        self.redis = RedisPair(children)
        self.instances = [InstanceProcess(number) for number in range(case.system.instances)]
        self.nodes: list[NodeProcess] = []
        self.client_links: dict[int, Proxy] = {}
        self._homes: dict[int, int] = {}
        self.client_at: dict[int, str] = {}
        self.deaths: list[Death] = []

    # Starting

    async def start(self) -> None:
        """
        Everything, ready to serve.

        Raises:
            ChildFailed: a process did not start.

        """
        (self._folder / RECORDINGS).mkdir(parents=True, exist_ok=True)
        await self.redis.start()
        for instance in self.instances:
            instance.store_link = Proxy(self.redis.connect)
            await instance.store_link.start()
        await asyncio.gather(*(self.start_instance(one) for one in self.instances))
        service = self._service_file()
        for number in range(self._case.system.nodes):
            link = Proxy(self._to_instance(number))
            await link.start()
            self.nodes.append(NodeProcess(number, link))
        self._service = service
        await asyncio.gather(*(self.start_node(node) for node in self.nodes))

    def _service_file(self) -> Path:
        path = self._folder / "service.toml"
        path.write_text(
            f"[service]\nservice_ms = {self._case.system.service_ms}\n", encoding="utf-8"
        )
        return path

    async def start_instance(self, instance: InstanceProcess) -> None:
        """
        Start it, or start it again, as a supervisor does; ready when this returns.

        Raises:
            ChildFailed: it ended as often as it was started.

        """
        for left in reversed(range(STARTS_MAX)):
            try:
                await self._start_once(instance)
            except ChildFailed:  # Redis may be away just now
                if not left:
                    raise
                instance.life += 1
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                return

    async def _start_once(self, instance: InstanceProcess) -> None:
        words = [*_SELF, "serve", "--port", "0", "--policy", self._case.policy,
                 "--redis-url", f"redis://127.0.0.1:{instance.store_link.port}",
                 "--record", str(self._folder / RECORDINGS / instance.name),
                 "--log-level", "warning"]  # fmt: skip
        for key, value in _settings(self._case, instance.name).items():
            words += ["--set", f"{key}={value}"]
        instance.child = child = await self._children.start(instance.name, words)
        line = await child.said(lambda line: line.startswith("listening on "))
        instance.port = int(line.split()[2].rpartition(":")[2])

    async def start_node(self, node: NodeProcess) -> None:
        """Start it, or start it again; registered when this returns."""
        system = self._case.system
        node.child = child = await self._children.start(
            node.name,
            [*_SELF, "node", f"ws://127.0.0.1:{node.link.port}", "--id", node.name,
             "--slots", str(system.slots), "--languages", LANGUAGES, "--engine", "sleep",
             "--service", str(self._service), "--heartbeat", str(system.heartbeat_ms / 1_000),
             "--drain", str(DRAIN_S)],
        )  # fmt: skip
        await child.said(lambda line: line.startswith("registered as "))

    async def link_of_client(self, number: int) -> Proxy:
        """The link of a client, made when it is first asked for."""
        link = self.client_links.get(number)
        if link is None:
            link = self.client_links[number] = Proxy(self._from_client(number))
            await link.start()
        return link

    def turn_away(self, client: int) -> None:
        """The client's next connection leads to another instance, if there is one."""
        self._homes[client] = self._homes.get(client, client) + 1

    def _from_client(self, number: int) -> Callable[[], Awaitable[Streams]]:
        async def connect() -> Streams:
            instance = self.choose(self._homes.get(number, number))
            streams = await tcp(instance.port)()
            self.client_at[number] = instance.name
            return streams

        return connect

    def _to_instance(self, number: int) -> Callable[[], Awaitable[Streams]]:
        async def connect() -> Streams:
            return await tcp(self.choose(number).port)()

        return connect

    def choose(self, first: int) -> InstanceProcess:
        """
        An instance that is up, the one of that number if it is: what a load balancer does.

        Raises:
            ConnectionRefusedError: none is.

        """
        count = len(self.instances)
        for step in range(count):
            instance = self.instances[(first + step) % count]
            if instance.is_up:
                return instance
        raise ConnectionRefusedError("no instance is up")

    # Ending

    async def kill_instance(self, instance: InstanceProcess) -> None:
        """As a crash does."""
        assert instance.child is not None
        name, began_ns = instance.name, time.monotonic_ns()
        clients = tuple(one for one, at in sorted(self.client_at.items()) if at == name)
        instance.port = 0
        await instance.child.kill()
        self.deaths.append(Death(name, began_ns, time.monotonic_ns(), clients))
        instance.life += 1

    async def leave(self) -> dict[str, str]:
        """Ask nodes, then instances, to go in good order; what each said last, or its failure."""
        told: dict[str, str] = {}
        for node in self.nodes:
            if node.child is not None and node.child.is_alive:
                await node.child.leave()
                told[node.name] = _last(node.child, "leaving:")
        for instance in self.instances:
            if instance.child is not None and instance.child.is_alive:
                await instance.child.leave()
                told[instance.name] = _last(instance.child, "")
        return told

    async def close(self) -> None:
        """The links; processes are the children's to end."""
        links = [one.link for one in self.nodes] + list(self.client_links.values())
        links += [one.store_link for one in self.instances if hasattr(one, "store_link")]
        for link in links:
            await link.close()
        await self.redis.close()


def _last(child: Child, start: str) -> str:
    lines = [line for line in child.lines if line.startswith(start)]
    return lines[-1] if lines else ""


def _settings(case: Case, name: str) -> dict[str, str]:
    """What an instance is told, besides what has a flag of its own."""
    beat_s = case.system.heartbeat_ms / 1_000
    return {
        "server.instance_id": name,
        "server.client_ping_s": "1",
        "server.client_ping_timeout_s": "3",
        "limits.sessions_per_client_max": "10000",
        "record.at_once": "true",
        "store.presence_s": str(PRESENCE_BEATS * beat_s),
        "timeouts.heartbeat_s": str(beat_s),
        "health.silence_s": str(SILENT_BEATS * beat_s),
        "health.warmup_s": str(WARMUP_BEATS * beat_s),
        "health.node_scan_s": str(beat_s),
        "pools.enabled": "true",
        "pools.auto_generate_language_pools": "true",
    }
