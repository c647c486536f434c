"""
Doing the faults of a case to a live system, each at its time, and noting when it really happened.

What each kind does is the table `_DO`. A fault whose target is not there to be hit (a node that is
still starting) waits for it, for a while; then it is given up, and that is counted too. What is
done to one target is done one after the other: a Redis that fails over cannot be restarted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from simsched.cases import Case
from simsched.experiments.chaos.children import Child
from simsched.experiments.chaos.proxy import Proxy
from simsched.experiments.chaos.system import InstanceProcess, NodeProcess, System
from simsched.faults import Fault, number_of, target_kind

PATIENCE_S: Final = 60.0
"""How long a fault waits for its target."""

LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Hit:
    """
    A fault that was done.

    Attributes:
        began_ns: when it took effect, on this machine's monotonic clock.
        ended_ns: when everything was back.
        victim: the instance's name of that time, or the target.

    """

    fault: Fault
    began_ns: int
    ended_ns: int
    victim: str


class _Gone(Exception):
    """The target did not come within patience."""


class Breaker:
    """
    Does the faults of one case.

    Args:
        case: whose faults these are.
        system: what breaks.

    Attributes:
        hits: what was done, in the order in which it began.
        given_up: what could not be done.

    """

    def __init__(self, case: Case, system: System) -> None:
        self._case = case
        self._system = system
        self._busy: dict[str, asyncio.Lock] = {}
        self.hits: list[Hit] = []
        self.given_up: list[Fault] = []
        self.under_way = 0

    async def run(self, start_s: float) -> None:
        """Everything, from the moment 0 of the case; ends when all is whole again."""
        async with asyncio.TaskGroup() as group:
            for fault in self._case.faults:
                group.create_task(self._at_its_time(fault, start_s))

    async def _at_its_time(self, fault: Fault, start_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, start_s + fault.at_ms / 1_000 - loop.time()))
        async with self._busy.setdefault(_place(fault), asyncio.Lock()):
            self.under_way += 1
            try:
                await _DO[fault.kind](self, fault)
            except _Gone:
                self.given_up.append(fault)
            finally:
                self.under_way -= 1

    def _begins(self, fault: Fault, victim: str = "") -> Callable[[], None]:
        """Note that it takes effect now; call what is returned when it is over."""
        place, began_ns = len(self.hits), time.monotonic_ns()
        self.hits.append(Hit(fault, began_ns, 0, victim or fault.target))

        def over() -> None:
            self.hits[place] = Hit(fault, began_ns, time.monotonic_ns(), victim or fault.target)

        return over

    async def _there(self, is_there: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_there():  # processes come up without an event
            if time.monotonic() > end:
                raise _Gone
            await asyncio.sleep(LOOK_S)

    # Instances

    async def _instance(self, fault: Fault) -> InstanceProcess:
        instance = self._system.instances[number_of(fault.target)]
        await self._there(lambda: instance.is_up)
        return instance

    async def instance_crash(self, fault: Fault) -> None:
        instance = await self._instance(fault)
        over = self._begins(fault, instance.name)
        await self._system.kill_instance(instance)
        if fault.for_ms:
            await asyncio.sleep(fault.for_ms / 1_000)
            await self._system.start_instance(instance)
        over()

    async def instance_pause(self, fault: Fault) -> None:
        instance = await self._instance(fault)
        assert instance.child is not None
        over = self._begins(fault, instance.name)
        await self._paused(instance.child, fault)
        over()

    async def _paused(self, child: Child, fault: Fault) -> None:
        child.pause()
        try:
            await asyncio.sleep(fault.for_ms / 1_000)
        finally:
            child.go_on()

    # Nodes

    async def _node(self, fault: Fault) -> NodeProcess:
        node = self._system.nodes[number_of(fault.target)]
        await self._there(lambda: node.child is not None and node.child.is_alive)
        return node

    async def node_crash(self, fault: Fault) -> None:
        node = await self._node(fault)
        assert node.child is not None
        over = self._begins(fault)
        await node.child.kill()
        if fault.for_ms:
            await asyncio.sleep(fault.for_ms / 1_000)
            await self._system.start_node(node)
        over()

    async def node_hang(self, fault: Fault) -> None:
        node = await self._node(fault)
        assert node.child is not None
        over = self._begins(fault)
        await self._paused(node.child, fault)
        over()

    async def node_reconnect(self, fault: Fault) -> None:
        node = await self._node(fault)
        over = self._begins(fault)
        await self._refused([node.link], fault)
        over()

    async def _refused(self, links: list[Proxy], fault: Fault) -> None:
        for link in links:
            link.refuse()
        try:
            await asyncio.sleep(fault.for_ms / 1_000)
        finally:
            for link in links:
                link.heal()

    # Redis

    async def redis_down(self, fault: Fault) -> None:
        over = self._begins(fault)
        away_ns = time.monotonic_ns()
        await self._refused([one.store_link for one in self._system.instances], fault)
        self._system.redis.outages.append((away_ns, time.monotonic_ns()))
        over()

    async def redis_restart(self, fault: Fault) -> None:
        over = self._begins(fault)
        await self._system.redis.restart(fault.for_ms / 1_000)
        over()

    async def redis_failover(self, fault: Fault) -> None:
        over = self._begins(fault)
        await self._system.redis.fail_over(fault.lost, fault.for_ms / 1_000)
        over()

    # Links

    async def _link(self, fault: Fault) -> Proxy:
        kind, number = target_kind(fault.target), number_of(fault.target)
        if kind == "instance/redis":
            return self._system.instances[number].store_link
        if kind == "node/instance":
            return self._system.nodes[number].link
        return await self._system.link_of_client(number)

    async def partition(self, fault: Fault) -> None:
        link = await self._link(fault)
        over = self._begins(fault)
        link.hold()
        try:
            await asyncio.sleep(fault.for_ms / 1_000)
        finally:
            link.heal()
        over()

    async def link_slow(self, fault: Fault) -> None:
        link = await self._link(fault)
        over = self._begins(fault)
        link.slow_down(fault.delay_ms / 1_000)
        try:
            await asyncio.sleep(fault.for_ms / 1_000)
        finally:
            link.slow_down(0)
        over()


def _place(fault: Fault) -> str:
    """What a fault needs for itself; the links to Redis break together with Redis."""
    return "redis" if fault.target.endswith("redis") else fault.target.partition("/")[0]


_DO: Final[dict[str, Callable[[Breaker, Fault], Awaitable[None]]]] = {
    "instance_crash": Breaker.instance_crash,
    "instance_pause": Breaker.instance_pause,
    "node_crash": Breaker.node_crash,
    "node_hang": Breaker.node_hang,
    "node_reconnect": Breaker.node_reconnect,
    "redis_down": Breaker.redis_down,
    "redis_restart": Breaker.redis_restart,
    "redis_failover": Breaker.redis_failover,
    "partition": Breaker.partition,
    "link_slow": Breaker.link_slow,
}
"""What each kind does."""

KINDS_DONE: Final = tuple(_DO)
"""The kinds that a live system can be given: those with `live` in the catalogue, see the tests."""
