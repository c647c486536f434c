"""
`/ws/node`: what a node's frames mean.

The first thing on a socket is `node_register`; a refused one leaves the socket open, so that the
node may mend it. From then on the socket speaks for that node alone. A second socket that
registers the same id is refused while the first one answers a ping; a dead one is taken over from.
The socket's close is the node's end, at once; a node that comes back and says what it still works
on keeps what is current.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from simsched import wire
from simsched.errors import MessageError
from simsched.live import frames, refusals
from simsched.live.connection import Connection
from simsched.live.registration import record_of, refusal_of
from simsched.messages import NodeRegister, NodeRegisterAck

if TYPE_CHECKING:
    from simsched.live.instance import Instance


class NodeSocket:
    """
    One node's socket.

    Args:
        instance: whom it talks to.
        connection: the socket.
        shows_token: whether the opening handshake showed a valid token, or none is needed.

    """

    def __init__(self, instance: Instance, connection: Connection, *, shows_token: bool) -> None:
        self._instance = instance
        self._connection = connection
        self._known = shows_token

    async def serve(self) -> None:
        """Read until the socket is closed; then its node is gone."""
        instance, connection = self._instance, self._connection
        server = instance.settings.server
        late = asyncio.get_running_loop().call_later(server.first_frame_s, self._too_late)
        pings = asyncio.create_task(
            connection.ping_regularly(server.ping_s, server.ping_timeout_s), name="node pings"
        )
        try:
            await frames.read(connection, self._take, instance.sink, instance.task_failed)
        finally:
            late.cancel()
            pings.cancel()
            node_id = connection.name
            if node_id and instance.links.part_node(node_id, connection):
                instance.runtime.start(
                    instance.scheduler.node_disconnected(node_id), name="node disconnected"
                )
            await connection.gone()

    def _too_late(self) -> None:
        if not self._connection.name:
            self._connection.refuse(refusals.NO_FIRST_FRAME)

    async def _take(self, frame: bytes | str) -> None:
        if not isinstance(frame, str):
            raise MessageError("a node sends text frames")
        message = wire.decode_node(frame)
        node_id = self._connection.name
        if isinstance(message, NodeRegister):
            await self._register(message)
        elif not node_id:
            self._connection.refuse(refusals.NOT_REGISTERED)
        elif message.node_id != node_id:
            self._connection.refuse(refusals.NOT_THIS_NODE)
        else:
            self._instance.scheduler.from_node(node_id, message)

    # Registration

    async def _register(self, message: NodeRegister) -> None:
        instance, connection = self._instance, self._connection
        if not self._known:
            name = instance.admission.name_of("node", message.token or "", connection.address)
            if name is None:
                connection.refuse(refusals.BAD_TOKEN)
                return
            connection.client = name or connection.client
            self._known = True
        refusal = refusal_of(message, needs_gpu=instance.settings.health.require_gpu)
        if refusal is None and not connection.name:
            refusal = instance.admission.may_register(len(instance.links.nodes))
        if refusal is not None:
            connection.refuse(refusal)
            return
        node_id = message.node_id or connection.name or instance.new_node_id()
        if connection.name not in ("", node_id):
            connection.refuse(refusals.NOT_THIS_NODE)
            return
        if await self._is_free(node_id):
            await self._enter(node_id, message)
        else:
            connection.refuse(refusals.NODE_IN_USE)

    async def _is_free(self, node_id: str) -> bool:
        """Whether nobody else who is alive speaks for this node."""
        links, connection = self._instance.links, self._connection
        before = links.node_peer(node_id)
        if before is None or before is connection:
            return True
        assert isinstance(before, Connection)
        if before.is_open:
            tokens = self._instance.admission.needs_token("node")
            if tokens and before.client != connection.client:
                return False
            if await before.answers(self._instance.settings.server.ping_timeout_s):
                return False
        return links.node_peer(node_id) in (None, before)

    async def _enter(self, node_id: str, message: NodeRegister) -> None:
        """Take the node in; its acknowledgement is the first thing that it hears."""
        instance, connection = self._instance, self._connection
        before = instance.links.node_peer(node_id)
        if before is not None and before is not connection:
            assert isinstance(before, Connection)
            before.close(refusals.REPLACED)
            before.abort()
            instance.links.part_node(node_id, before)
            if message.running is None:
                await instance.scheduler.node_disconnected(node_id)
                if instance.links.node_peer(node_id) is not None:
                    connection.refuse(refusals.NODE_IN_USE)
                    return
        if not connection.is_open:
            return
        connection.send(NodeRegisterAck(node_id=node_id))
        connection.opened(node_id)
        instance.links.join_node(node_id, connection)
        instance.scheduler.register_node(record_of(message, node_id, instance.runtime.now()))
        if message.running is not None:
            await instance.scheduler.node_returned(
                node_id, [(job.job_id, job.attempt_id) for job in message.running]
            )
