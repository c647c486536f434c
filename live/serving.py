"""What the pages about an instance are made from: the instance, its metrics, its decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsched.live.decisions import DecisionLog
from simsched.live.links import LiveLinks
from simsched.live.metrics import Metrics
from simsched.live.settings import Settings
from simsched.live.store import RedisStore
from simsched.ports import Runtime
from simsched.scheduler import Scheduler

if TYPE_CHECKING:
    from simsched.live.instance import Instance


class Serving:
    """One scheduler instance in service, as far as it is shown; reads, changes nothing."""

    def __init__(self, instance: Instance, metrics: Metrics, decisions: DecisionLog) -> None:
        self._instance = instance
        self.metrics = metrics
        self.decisions = decisions

    @property
    def settings(self) -> Settings:
        """What it was started with."""
        return self._instance.settings

    @property
    def scheduler(self) -> Scheduler:
        """The core."""
        return self._instance.scheduler

    @property
    def runtime(self) -> Runtime:
        """The core's handle to the world."""
        return self._instance.runtime

    @property
    def store(self) -> RedisStore:
        """The store's port."""
        return self._instance.store

    @property
    def links(self) -> LiveLinks:
        """Who is connected."""
        return self._instance.links

    @property
    def instance_id(self) -> str:
        """Its name in the cell."""
        return self._instance.instance_id

    @property
    def store_kind(self) -> str:
        """`redis`, `valkey` or `fakeredis`."""
        return self._instance.store_kind

    @property
    def started_ms(self) -> int:
        """Unix milliseconds of its start."""
        return self._instance.started_ms

    @property
    def draining(self) -> bool:
        """Whether it takes nobody in any more."""
        return self._instance.draining
