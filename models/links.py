"""
Messages out of an instance, over a modelled network of constant one-way times.

Messages to clients and nodes never overtake each other on their way; entries of an inbox take the
modelled time of a stream. Only what somebody acts on becomes an event of the run: progress
messages for a client's screen are counted and end there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from simsched import steps
from simsched.inbox import InboxEvent
from simsched.messages import Error, MissingResult, TranslationResult
from simsched.models.prices import CostModel
from simsched.models.tasks import Kernel
from simsched.models.wakes import Group
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import MS

if TYPE_CHECKING:
    from simsched.models.clients import Client
    from simsched.models.redis import SimStore
    from simsched.models.workers import Worker
    from simsched.scheduler import Scheduler

FINAL: Final = (TranslationResult, MissingResult, Error)
"""What a client waits for."""

LATE_NS: Final = (0, 5 * MS, 60 * MS, 800 * MS)
"""How late a message or call may be on its way: within a hop, across a creation, past a limit."""


class Network:
    """Who is connected where, and how long a message travels."""

    def __init__(self, kernel: Kernel, costs: CostModel) -> None:
        charges = costs.charges()
        self.kernel = kernel
        self.clients: dict[str, Client] = {}
        self.workers: dict[str, Worker] = {}
        self.homes: dict[str, int] = {}
        self.schedulers: list[Scheduler] = []
        self.stores: list[SimStore] = []
        self.to_node_ns = charges[steps.SEND_NODE.index].ns(0, 0)
        self.from_node_ns = charges[steps.FROM_NODE.index].ns(0, 0)
        self.to_client_ns = charges[steps.SEND_CLIENT.index].ns(0, 0)
        self.from_client_ns = charges[steps.FROM_CLIENT.index].ns(0, 0)
        self.inbox_ns = charges[steps.INBOX_DELIVER.index].ns(0, 0)
        self.progress_messages = 0

    def after(self, delay_ns: int, action: Callable[[], None], group: Group | None = None) -> None:
        """Do something when a message has arrived."""
        self.kernel.call_at(self.kernel.now + delay_ns, action, group)

    def client_at(self, _instance: int, session_id: str) -> Client | None:
        """The client of a session; it hears every instance that it was connected to."""
        return self.clients.get(session_id)

    def carry(
        self,
        _kind: str,
        _name: str,
        delay_ns: int,
        action: Callable[[], None],
        group: Group | None = None,
    ) -> None:
        """Bring a message over the link of a node or client; here every link is sound."""
        self.kernel.call_at(self.kernel.now + delay_ns, action, group)

    def announce(self, sender: int, event: object) -> None:
        """Tell every other instance, in their order."""
        for number, scheduler in enumerate(self.schedulers):
            if number != sender:
                self.after(
                    self.inbox_ns,
                    lambda to=scheduler: to.from_instance(event),  # type: ignore[misc]
                    scheduler.runtime.group,  # type: ignore[attr-defined]
                )

    async def append(
        self, sender: int, step: Step, op: Operation, instance_id: str, event: object
    ) -> bool:
        """Append to another instance's stream; its reader hands the event on."""
        for number, scheduler in enumerate(self.schedulers):
            if scheduler.runtime.instance_id == instance_id:
                key = f"{{cell}}:inbox:{instance_id}"
                await self.stores[sender].command(
                    step, op, "XADD", key, "MAXLEN", "~", 10_000, "*", "payload", "event"
                )
                self.stores[number].deliver(
                    lambda to=scheduler: to.from_instance(event),  # type: ignore[misc]
                    self.inbox_ns,
                )
                return True
        return False

    async def letters_of(
        self, _sender: int, _step: Step, _op: Operation, _instance_id: str, _for: Sequence[str]
    ) -> list[InboxEvent]:
        """Nothing: here no instance ever goes."""
        return []


class SimLinks:
    """One instance's `Links`."""

    def __init__(self, network: Network, instance: int) -> None:
        self._network = network
        self._instance = instance

    def to_client(self, session_id: str, message: object) -> bool:
        """Towards a client; clients reach every instance they were connected to."""
        network = self._network
        client = network.client_at(self._instance, session_id)
        if client is None:
            return False
        if isinstance(message, FINAL):
            network.carry("client", session_id, network.to_client_ns, lambda: client.heard(message))
        else:
            network.progress_messages += 1
        return True

    def has_client(self, session_id: str) -> bool:
        """Whether the client of a session hears this instance."""
        return self._network.client_at(self._instance, session_id) is not None

    def to_node(self, node_id: str, message: object) -> bool:
        """Towards a node, if its socket is on this instance."""
        network = self._network
        if network.homes.get(node_id) != self._instance:
            return False
        worker = network.workers[node_id]
        network.carry("node", node_id, network.to_node_ns, lambda: worker.receive(message))
        return True

    def broadcast(self, event: object) -> None:
        """To every other instance, in their order."""
        self._network.announce(self._instance, event)

    async def to_instance(self, step: Step, op: Operation, instance_id: str, event: object) -> bool:
        """Append to another instance's stream; its reader hands the event on."""
        return await self._network.append(self._instance, step, op, instance_id, event)

    async def letters_of(
        self, step: Step, op: Operation, instance_id: str, sessions: Sequence[str]
    ) -> list[InboxEvent]:
        """Take what is for these sessions out of the inbox of an instance that is gone."""
        return await self._network.letters_of(self._instance, step, op, instance_id, sessions)
