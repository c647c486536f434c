"""
What only the world of a case knows, told as events: what is late, what the store really holds.

The checker judges by them (`simsched.calm_rules`); no instance hears of them. This file knows no
rules, and breaks nothing.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from simsched.cases import Case
from simsched.models.faults import AFTERMATH_NS
from simsched.models.faulty_links import FaultyNetwork
from simsched.models.faulty_nodes import NodeSocket
from simsched.models.faulty_redis import TIMEOUT_NS, FaultyRedis
from simsched.models.links import LATE_NS
from simsched.models.slot_trial import try_slots
from simsched.models.tasks import Kernel
from simsched.owner_rules import OwnerStored
from simsched.scheduler import Scheduler
from simsched.telemetry import Disturbed, LetterLies, SlotsCounted, SlotsTried
from simsched.units import MS, SECOND

PRESENCE_BEATS: Final = 3
"""An instance is taken for gone after so many heartbeats without a sign."""

LOOK_NS: Final = 500 * MS
"""How often the store is looked at."""

BEHIND_NS: Final = TIMEOUT_NS // 4
"""A store that is so far behind, although it is no longer slow, is still not what it should be."""

LONG_LATE: Final = {"redis": 5, "node": 3, "client": 3, "inbox": 3, "announce": 1, "point": 1}
"""From which departure on somebody may give up waiting, by the group of the tape."""

LATE_ON: Final = {"redis": "/redis", "node": "/instance", "client": "/instance"}
"""The other end of the link that a departure is on."""


FORGETFUL: Final = ("redis_restart", "redis_failover")
"""Faults after which the store does not know what it was told."""


class World(Protocol):
    """The world, as far as it is looked at."""

    case: Case
    kernel: Kernel
    network: FaultyNetwork
    redis: FaultyRedis
    sockets: list[NodeSocket]
    schedulers: list[Scheduler]
    graves: list[str]

    def is_dead(self, number: int) -> bool: ...
    def sessions_of(self, number: int) -> list[str]: ...
    def emit(self, event: Any) -> None: ...


class Truths:
    """Looks at one world and tells."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kernel = world.kernel
        # A store that has forgotten an instance cannot say that it is gone.
        self._may_forget = any(fault.kind in FORGETFUL for fault in world.case.faults)

    def departs(self, label: str, value: int) -> None:
        """What is so late that somebody may give up waiting for it is a fault like any other."""
        group, who, _ = label.split(" ", 2)
        if value >= LONG_LATE.get(group, value + 1):
            over_ns = self._kernel.now + LATE_NS[-1]
            self._world.emit(
                Disturbed(
                    at_ns=self._kernel.now, instance="", until_ns=over_ns + AFTERMATH_NS,
                    kind="late", target=who + LATE_ON.get(group, ""), over_ns=over_ns,
                )
            )  # fmt: skip

    def spoils(self, kind: str, node: str) -> None:
        """A fault of a node shows in a result, which may be long after it was done to it."""
        now = self._kernel.now
        self._world.emit(
            Disturbed(
                at_ns=now, instance="", until_ns=now + AFTERMATH_NS, kind=kind, target=node,
                over_ns=now,
            )
        )  # fmt: skip

    async def tell(self) -> None:
        """What the store holds, for as long as the run lasts."""
        while True:
            await self._kernel.sleep(LOOK_NS)
            self._look_at_backlog()
            if not self._world.redis.is_down:
                self._count_slots()
                self._look_at_graves()
                self._look_at_owners()

    def _look_at_backlog(self) -> None:
        """A store that was slow has to work off what came meanwhile."""
        now, behind_ns = self._kernel.now, self._world.redis.behind_ns
        if behind_ns > BEHIND_NS:
            over_ns = now + behind_ns
            self._world.emit(
                Disturbed(
                    at_ns=now, instance="", until_ns=over_ns + AFTERMATH_NS, kind="redis_slow",
                    target="redis", over_ns=over_ns,
                )
            )  # fmt: skip

    def _count_slots(self) -> None:
        for socket in self._world.sockets:
            held = self._world.redis.leases_of(socket.name)
            if held or socket.worker.held():
                self._world.emit(
                    SlotsCounted(
                        at_ns=self._kernel.now, instance="", node=socket.name, held=held,
                        slots=self._world.case.system.slots,
                    )
                )  # fmt: skip

    def _look_at_graves(self) -> None:
        """Which results lie unread with the dead although their session is elsewhere."""
        for grave in self._world.graves:
            for session in self._world.network.results_in(grave):
                for number, scheduler in enumerate(self._world.schedulers):
                    if not self._world.is_dead(number):
                        self._tell_of_letter(grave, session, scheduler)

    def _tell_of_letter(self, grave: str, session: str, scheduler: Scheduler) -> None:
        state = scheduler.state
        knows = grave in state.gone_instances or not self._may_forget
        if knows and session in state.sessions and session in state.moved_here:
            beat_ns = self._world.case.system.heartbeat_ms * MS
            self._world.emit(
                LetterLies(
                    at_ns=self._kernel.now, instance=scheduler.runtime.instance_id, inbox=grave,
                    session=session, limit_ns=(PRESENCE_BEATS + 1) * beat_ns + SECOND,
                )
            )  # fmt: skip

    def _look_at_owners(self) -> None:
        """Whose the store takes the sessions for that have moved, and whose clients are there."""
        for number, scheduler in enumerate(self._world.schedulers):
            moved = scheduler.state.moved_here
            if self._world.is_dead(number) or not moved:
                continue
            for session in self._world.sessions_of(number):
                if session in moved and session in scheduler.state.sessions:
                    self._world.emit(
                        OwnerStored(
                            at_ns=self._kernel.now, instance=scheduler.runtime.instance_id,
                            session=session, owner=self._world.redis.owner_of(session),
                        )
                    )  # fmt: skip

    def try_slots(self) -> None:
        """At the end: whether every slot can be had, of the nodes that are there."""
        redis, slots = self._world.redis, self._world.case.system.slots
        for socket in self._world.sockets:
            worker, sound = socket.worker, not redis.is_down and socket.home is not None
            if sound and not (worker.dead or worker.hung or worker.held()):
                held = len(redis.leases_of(socket.name))
                given, refusal = try_slots(redis, socket.name, slots + 1)
                self._world.emit(
                    SlotsTried(
                        at_ns=self._kernel.now, instance="", node=socket.name, given=given,
                        held=held, slots=slots, refusal=refusal,
                    )
                )  # fmt: skip
