"""
A network that breaks: late messages, partitions, sockets that close, inboxes that outlive readers.

What travels on one link in one direction never overtakes: a late message holds back those behind
it, as TCP does. What is under way when a socket closes is lost. Inboxes are real streams in the
modelled Redis: an entry is handled and then deleted, what a dead instance has not read stays for
whoever takes its inbox over, and a failover may bring back what was deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simsched.inbox import ForwardResult, InboxEvent
from simsched.letters import (
    NEWEST,
    REPEATED,
    Fields,
    Letters,
    Read,
    common_version,
    decode_event,
)
from simsched.messages import JobResult
from simsched.models.faulty_redis import FaultyRedis, StoreProbe
from simsched.models.links import LATE_NS, Network
from simsched.models.prices import CostModel
from simsched.models.runtime import EPOCH_MS
from simsched.models.tape import Tape
from simsched.models.tasks import Kernel
from simsched.models.wakes import Group
from simsched.ports import Reply
from simsched.presence import session_of
from simsched.scheduler import Scheduler
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import US


class FaultyNetwork(Network):
    """
    Who is connected where, and what keeps messages from arriving.

    `cut_until_ns` and `slower` hold the links that are broken, by (kind, name); `epochs` counts
    the sockets that a node or client has had.
    """

    def __init__(self, kernel: Kernel, costs: CostModel, redis: FaultyRedis, tape: Tape) -> None:
        super().__init__(kernel, costs)
        self._redis = redis
        self._tape = tape
        self.cut_until_ns: dict[tuple[str, str], int] = {}
        self.slower: dict[tuple[str, str], tuple[int, int]] = {}
        self.epochs: dict[tuple[str, str], int] = {}
        self.probes: list[StoreProbe] = []
        self._latest_ns: dict[tuple[str, str, bool], int] = {}
        self.hands: dict[int, Letters] = {}

    def join(self, number: int, name: str, life: int, versions: Sequence[int]) -> int:
        """An instance starts: which version it speaks, the newest if it is not its first life."""
        version = versions[number] if versions and not life else NEWEST
        self.hands[number] = Letters(name, str(life), version)
        return version

    def client_at(self, instance: int, session_id: str) -> Any:
        """The client of a session, if its socket is at that instance."""
        client: Any = self.clients.get(session_id)
        if client is None or client.joined != instance or client.session_id != session_id:
            return None
        return client

    def carry(
        self,
        kind: str,
        name: str,
        delay_ns: int,
        action: Callable[[], None],
        group: Group | None = None,
    ) -> None:
        """Bring a message over a link, if its socket lives that long."""
        link, now = (kind, name), self.kernel.now
        if not self._tape.is_idle(kind):
            delay_ns += LATE_NS[self._tape.next(f"{kind} {name}", len(LATE_NS))]
        if self.slower:
            slower_ns, slow_until_ns = self.slower.get(link, (0, 0))
            if now < slow_until_ns:
                delay_ns += slower_ns
        direction = (kind, name, group is None)
        at_ns = max(
            now + delay_ns, self.cut_until_ns.get(link, 0), self._latest_ns.get(direction, 0)
        )
        self._latest_ns[direction] = at_ns
        epoch = self.epochs.get(link, 0)

        def arrive() -> None:
            if self.epochs.get(link, 0) == epoch:
                action()

        self.kernel.call_at(at_ns, arrive, group)

    def hang_up(self, kind: str, name: str) -> None:
        """A socket closes: what is under way on it is lost."""
        link = (kind, name)
        self.epochs[link] = self.epochs.get(link, 0) + 1
        for outward in (True, False):
            self._latest_ns.pop((kind, name, outward), None)

    # Between instances

    def announce(self, sender: int, event: object) -> None:
        """Tell every other instance; each may miss it."""
        sound = self._tape.is_idle("announce")
        for number, scheduler in enumerate(self.schedulers):
            if number == sender or self._redis.is_down:
                continue
            lost = not sound and self._tape.next(f"announce i-{number}", 2)
            if not lost:
                self.after(self.inbox_ns, _told(scheduler, event), _group(scheduler))

    async def append(
        self, sender: int, step: Step, op: Operation, instance_id: str, event: Any
    ) -> bool:
        """Append to an instance's stream, if it has one; read when it can be."""
        versions = self.schedulers[sender].state.store.versions
        fields = self.hands[sender].write(event, instance_id, common_version(versions, instance_id))
        if fields is None:
            return False
        words = [word for pair in fields.items() for word in pair]
        store: Any = self.stores[sender]
        key = self.inbox_of(instance_id)
        reply = await store.append(step, op, key, words, lambda: self.notify(instance_id))
        return reply is not None

    def notify(self, instance_id: str) -> None:
        """There may be something to read for an instance."""
        for scheduler in self.schedulers:
            if scheduler.runtime.instance_id == instance_id:
                late_ns = LATE_NS[self._tape.next(f"inbox {instance_id}", len(LATE_NS))]
                self.after(self.inbox_ns + late_ns, self._reader(scheduler), _group(scheduler))

    def _reader(self, scheduler: Scheduler) -> Callable[[], None]:
        return lambda: self._read(scheduler)

    def _read(self, scheduler: Scheduler) -> None:
        """Handle and delete what is in the inbox, unless Redis cannot be reached."""
        name, now = scheduler.runtime.instance_id, self.kernel.now
        until_ns = max(self._redis.down_until_ns, self.probes[_number(scheduler)].cut_until_ns)
        if now < until_ns:
            self.kernel.call_at(until_ns, self._reader(scheduler), _group(scheduler))
            return
        hand = self.hands[_number(scheduler)]
        for event in self.take_letters(name, hand.read):
            scheduler.from_instance(event)

    async def letters_of(
        self, sender: int, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[InboxEvent]:
        """Take what is for these sessions out of the inbox of an instance that is gone."""
        await self.stores[sender].command(step, op, "XRANGE", self.inbox_of(instance_id), "-", "+")
        peek = self.hands[sender].peek
        return self.take_letters(instance_id, peek, lambda event: session_of(event) in sessions)

    def take_letters(
        self,
        instance_id: str,
        read: Callable[[Fields], Read],
        wanted: Callable[[InboxEvent], bool] = lambda _: True,
    ) -> list[InboxEvent]:
        """
        The entries of an inbox that are wanted, which are not in it any more.

        Entries that were read before go too; those that the reader cannot read stay.
        """
        now_us = EPOCH_MS * 1_000 + self.kernel.now // US
        key = self.inbox_of(instance_id)
        entries: Any = self._redis.keys.command(now_us, "XRANGE", key, "-", "+")
        events = []
        for entry_id, fields in entries or ():
            event, why_not = read(dict(zip(fields[::2], fields[1::2], strict=True)))
            if event is not None and not wanted(event):
                continue
            if event is not None or why_not == REPEATED:
                self._redis.call(self._deletion(key, entry_id), 0, writes=True)
            if event is not None:
                events.append(event)
        return events

    def results_in(self, instance_id: str) -> dict[str, None]:
        """The sessions for which results lie in an inbox."""
        now_us, key = EPOCH_MS * 1_000 + self.kernel.now // US, self.inbox_of(instance_id)
        entries: Any = self._redis.keys.command(now_us, "XRANGE", key, "-", "+")
        said = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in entries or ()]
        events = [decode_event(fields[b"kind"], fields[b"body"]) for fields in said]
        return dict.fromkeys(
            event.message.session_id
            for event in events
            if isinstance(event, ForwardResult) and isinstance(event.message, JobResult)
        )

    def _deletion(self, key: str, entry_id: Any) -> Callable[[int], Reply]:
        redis = self._redis
        return lambda now_us: redis.keys.command(now_us, "XDEL", key, entry_id)

    def inbox_of(self, instance_id: str) -> str:
        """The key of an instance's stream."""
        return f"{{cell}}:inbox:{instance_id}"


def _group(scheduler: Scheduler) -> Group:
    return scheduler.runtime.group  # type: ignore[attr-defined,no-any-return]


def _number(scheduler: Scheduler) -> int:
    return scheduler.runtime.index  # type: ignore[attr-defined,no-any-return]


def _told(scheduler: Scheduler, event: Any) -> Callable[[], None]:
    return lambda: scheduler.from_instance(event)
