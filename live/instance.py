"""
One scheduler instance, wired: store, runtime, links, core, and the books around them.

`async with Instance(settings):` starts all of it in order and takes it down in reverse. Several
instances may live in one process, and many processes on one Redis: with a `redis_url` an instance
is one of many, without one it starts a store of its own and is alone.

A background task that fails ends the instance: `failure` tells why, `wait_failed` wakes, and
whoever runs it leaves with that message. A session whose actor fails ends alone. Nothing here
schedules.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from simsched.errors import SimschedError
from simsched.inbox import InboxEvent, SessionMoved
from simsched.letters import Letters
from simsched.live import refusals
from simsched.live.admission import Admission
from simsched.live.connection import Connection
from simsched.live.drain import DrainReport, drain
from simsched.live.embedded import open_store_server
from simsched.live.inbox import Inbox
from simsched.live.links import LiveLinks
from simsched.live.redis_connection import RedisConnection
from simsched.live.resumption import SessionRecords
from simsched.live.runtime import LiveRuntime
from simsched.live.sessions import Sessions
from simsched.live.settings import Settings
from simsched.live.sinks import Fanout, Sink
from simsched.live.store import RedisStore
from simsched.messages import NodeState, NodeStatus
from simsched.nodes import Health, NodeRecord
from simsched.scheduler import Scheduler

SESSION_TASK: Final = "session "
"""What the core calls the task of a session's actor, before its id."""

READ_SLACK_S: Final = 2.0
"""How much longer than it blocks a blocking read may take."""

INBOX_LIVES: Final = 8
"""How much longer than an instance's last sign of life its inbox is kept, for who takes it over."""

log = logging.getLogger("simsched.live")


class InstanceFailed(SimschedError):
    """A part of an instance failed that it cannot do without."""


class Instance:
    """
    One instance.

    Args:
        settings: everything that can be set.
        sinks: where what is measured goes.

    Attributes:
        instance_id: its name in the cell.
        runtime, store, links, scheduler, sessions, admission: its parts, once it has started.
        store_kind: `redis`, `valkey` or `fakeredis`.
        store_warning: what an operator should know of the store, or "".
        started_ms: Unix milliseconds of its start.
        draining: it takes nobody in any more.
        failure: why it failed; "" while it has not.
        connections: its open sockets, in the order in which they came.

    """

    runtime: LiveRuntime
    connection: RedisConnection
    store: RedisStore
    links: LiveLinks
    scheduler: Scheduler
    sessions: Sessions
    admission: Admission

    def __init__(self, settings: Settings, *, sinks: Sequence[Sink] = ()) -> None:
        self.settings = settings
        self.instance_id = settings.server.instance_id or _new_name()
        self._life = secrets.token_hex(4)
        self.sink = Fanout(sinks)
        self.store_kind = ""
        self.store_warning = ""
        self.started_ms = 0
        self.failure = ""
        self._failed = asyncio.Event()
        self._stack = AsyncExitStack()
        self._background: list[asyncio.Task[None]] = []
        self._nodes_named = 0
        self.connections: dict[Connection, None] = {}

    @property
    def shared(self) -> bool:
        """Whether other instances may work on the same store."""
        return bool(self.settings.store.redis_url)

    @property
    def draining(self) -> bool:
        """Whether it takes nobody in any more."""
        return self.admission.draining

    @property
    def is_ready(self) -> bool:
        """Whether new sessions would be served: the store answers, and we stay."""
        return not (self.draining or self.failure) and self.connection.is_up

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def _start(self, stack: AsyncExitStack) -> None:
        settings, store = self.settings, self.settings.store
        server = await stack.enter_async_context(
            open_store_server(store.redis_url or None, store.valkey_path or None)
        )
        self.store_kind, self.store_warning = server.kind, server.warning
        if server.warning:
            log.warning("%s", server.warning)
        self.connection = await self._open(stack, server.url, store.timeout_ms / 1_000)
        self.runtime = LiveRuntime(self.instance_id, self.sink)
        self.runtime.on_failure = self.task_failed
        self.started_ms = self.runtime.now_ms()
        self.admission = Admission(settings, self.runtime.now)
        self.links = LiveLinks(self.sink, kept_bytes_max=settings.limits.outbox_bytes_max)
        self.store = RedisStore(self.connection, self.sink, self.runtime.now)
        self.runtime.store, self.runtime.links = self.store, self.links
        core = replace(settings.core_settings(self.shared), life=self._life)
        self.scheduler = Scheduler(self.runtime, settings.core_policy(), core)
        self.scheduler.nodes.on_transition = self._node_moved
        self.connection.on_up.append(
            lambda: self.runtime.start(self.scheduler.store_returned(), name="store returned")
        )
        if self.scheduler.presence is not None:
            self.scheduler.presence.on_forgotten = self._say_all_again
        records = self._session_records() if self.shared else None
        self.sessions = Sessions(
            self.scheduler, self.links, self.admission, resume_s=settings.server.resume_s,
            records=records,
        )  # fmt: skip
        stack.push_async_callback(self.runtime.stop)
        stack.push_async_callback(self._stop_background)
        stack.callback(self.sessions.stop)
        if self.shared:
            await self._join_others(stack, server.url)
        if records is not None:
            self.supervise(records.run(), "session records")
        self.supervise(self.scheduler.run(), "scheduler")
        self.supervise(self.runtime.watch_lag(), "loop lag")

    def _session_records(self) -> SessionRecords:
        records = SessionRecords(
            self.store, self.runtime, cell=self.settings.store.cell,
            every_s=self.settings.timeouts.heartbeat_s, outlives_s=self.settings.server.resume_s,
        )  # fmt: skip
        self.connection.on_up.append(
            lambda: self.runtime.start(records.write_all(), name="session records again")
        )
        return records

    def _say_all_again(self) -> None:
        """The store lost its memory behind our back: as after a new connection."""
        log.warning("the store has forgotten this instance: saying again what is here")
        for up in list(self.connection.on_up):
            up()

    def _from_instance(self, event: InboxEvent) -> None:
        """A letter for the core; that a session has gone is also told to who has its socket."""
        if isinstance(event, SessionMoved):
            self.sessions.moved_away(event.session_id, event.to)
        self.scheduler.from_instance(event)

    async def _open(self, stack: AsyncExitStack, url: str, timeout_s: float) -> RedisConnection:
        connection = await RedisConnection.open(
            url, in_flight_max=self.settings.store.in_flight_max, timeout_s=timeout_s,
            name=f"simsched:{self.instance_id}",
            slot_key="{" + self.settings.store.cell + "}" if self.shared else "",
        )  # fmt: skip
        stack.push_async_callback(connection.close)
        return connection

    async def _join_others(self, stack: AsyncExitStack, url: str) -> None:
        store = self.settings.store
        block_s = store.inbox_block_ms / 1_000
        reader = await self._open(stack, url, block_s + READ_SLACK_S)
        inbox = Inbox(
            self.store, reader, self.instance_id, self._from_instance, self.sink,
            cell=store.cell, ttl_s=INBOX_LIVES * store.presence_s, block_ms=store.inbox_block_ms,
            entries_max=store.inbox_length_max,
            letters=Letters(self.instance_id, self._life, store.protocol_version),
            versions=lambda: self.scheduler.state.store.versions,
        )  # fmt: skip
        await inbox.start()
        for task in inbox.tasks:
            task.add_done_callback(self._background_ended)
        stack.push_async_callback(inbox.close)
        stack.push_async_callback(self.scheduler.leave)
        self.links.others = inbox

    # Background work and failures

    def supervise(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run background work for as long as the instance lives; its end is the instance's."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._background_ended)
        self._background.append(task)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        reason = f"{type(error).__name__}: {error}" if error else "it ended"
        log.error("background task %s failed", task.get_name(), exc_info=error)
        self.failure = self.failure or f"{task.get_name()} failed: {reason}"
        self._failed.set()

    async def _stop_background(self) -> None:
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)

    def task_failed(self, name: str, error: BaseException) -> None:
        """A task or a frame failed: its session ends, everybody else goes on."""
        log.error("task %s failed", name, exc_info=error)
        if name.startswith(SESSION_TASK):
            self.sessions.failed(name.removeprefix(SESSION_TASK))

    async def wait_failed(self) -> None:
        """
        Wait until the instance cannot go on.

        Raises:
            InstanceFailed: always, in the end.

        """
        await self._failed.wait()
        raise InstanceFailed(self.failure)

    # Nodes

    def new_node_id(self) -> str:
        """A name for a node that brings none."""
        self._nodes_named += 1
        return self.runtime.chance.hex_id("node-", 8, "node", self.instance_id, self._nodes_named)

    def _node_moved(self, record: NodeRecord, reason: str) -> None:
        """Tell a node what the core thinks of it; one that is given up has to register again."""
        self.links.to_node(
            record.node_id,
            NodeStatus(
                node_id=record.node_id, status=NodeState(record.health), reason=reason,
                timestamp=self.runtime.now_ms() // 1_000,
            ),
        )  # fmt: skip
        peer = self.links.node_peer(record.node_id)
        if record.health is Health.OFFLINE and isinstance(peer, Connection):
            peer.close(refusals.NO_HEARTBEAT)

    # Leaving

    async def drain(self, deadline_s: float | None = None) -> DrainReport:
        """Take nobody in any more, finish what was said, and say what was left."""
        limit_s = self.settings.server.drain_s if deadline_s is None else deadline_s
        return await drain(self, limit_s)


def _new_name() -> str:
    """Host, process and chance: as good a name as any, and a valid id."""
    host = "".join(
        c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in socket.gethostname()
    )
    return f"{host[:60] or 'host'}-{os.getpid()}-{secrets.token_hex(3)}"
