"""
What instances tell each other, and how an instance handles what it is told.

Three events travel through inboxes (domain 5.4): an assignment for a node connected elsewhere, a
node's message for a session owned elsewhere, and a message for a client connected elsewhere. A
fourth is ours: a session has gone to another instance. The fifth is an announcement: what an
instance knows of its own node; losing one costs only freshness.
"""

from __future__ import annotations

import msgspec

from simsched.messages import (
    JobAck,
    JobAssign,
    JobCancel,
    JobResult,
    JobStarted,
    NodeAsrPartial,
    ServerToClient,
)
from simsched.nodes import NodeView


class DispatchToNode(msgspec.Struct, frozen=True, gc=False):
    """Give this to a node that is connected to you."""

    node_id: str
    message: JobAssign | JobCancel


class ForwardResult(msgspec.Struct, frozen=True, gc=False):
    """
    A node's result, or its word on a running job, for a session that you own.

    `hops` counts how often it was forwarded, this time included: see `results.HOPS_MAX`.
    """

    message: JobResult | JobAck | JobStarted | NodeAsrPartial
    hops: int = 1


class SendToSession(msgspec.Struct, frozen=True, gc=False):
    """Give this to a client that is connected to you. Read, and sent by no instance of ours."""

    session_id: str
    message: ServerToClient


class SessionMoved(msgspec.Struct, frozen=True, gc=False):
    """The client of a session of yours goes on with it at `to`."""

    session_id: str
    to: str


class NodeSeen(msgspec.Struct, frozen=True, gc=False):
    """The state of a node that is connected to `home`."""

    home: str
    view: NodeView


InboxEvent = DispatchToNode | ForwardResult | SendToSession | SessionMoved | NodeSeen
