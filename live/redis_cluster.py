"""
Redis Cluster: which of its masters serves our slot, and what to do when it is another one.

All keys of a cell carry its hash tag and so lie in one slot (docs/decisions/0014). An instance
therefore needs no client of the whole cluster, only the one master that serves that slot. Rules:

- any node is a way in: it is asked who serves the slot, and only the node that says "I do" of
  itself is used; nodes that were heard of are ways in when the first one is gone;
- a server that knows no clusters is what it always was: two questions more per connection;
- MOVED, ASK and TRYAGAIN are refusals: nothing was done, so any command may be sent again, within
  the limit of a call. An unknown outcome stays unknown.

Nothing here keeps a connection; `RedisConnection` does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from simsched.live.redis_address import Address
from simsched.live.redis_wire import Call, NotConnected, ReplyError, Wire, Word
from simsched.ports import Reply

if TYPE_CHECKING:
    from simsched.live.redis_connection import RedisConnection

HOPS_MAX: Final = 5
"""So many nodes may pass us on in one attempt: more, and they do not agree with each other."""

TRY_AGAIN_S: Final = 0.005
"""Pause while a slot's keys are on two nodes and a script needs keys of both."""

ELSEWHERE: Final = frozenset({"ASK", "MOVED", "TRYAGAIN"})
"""Refusals that tell where, or when, the same command will be served."""


class Guide:
    """
    Leads from any node of a cluster to the master of one slot.

    Args:
        seed: the address that was configured; always a way in.
        key: any key of the slot.

    Attributes:
        slot: its number.
        is_cluster: whether the last server that was asked is part of a cluster.

    """

    def __init__(self, seed: Address, key: str) -> None:
        from redis.crc import key_slot  # its import takes longer than our start

        self.slot: int = key_slot(key.encode())
        self.is_cluster = False
        self._seed = seed
        self._ways_in = [seed]

    def way_in(self) -> Address:
        """Where to begin the next attempt."""
        return self._ways_in[0]

    def prefer(self, address: Address) -> None:
        """Begin here: it was right, or is said to be."""
        self._ways_in = [address, *(way for way in self._ways_in if way != address)]

    def avoid(self) -> None:
        """The first way in was of no use: begin with another one next time."""
        self._ways_in.append(self._ways_in.pop(0))

    def told(self, refusal: ReplyError, at: Address) -> Address | None:
        """The node that a MOVED or ASK names, heard from the server at `at`."""
        words = str(refusal).split()
        if len(words) < 3 or words[0] not in ("MOVED", "ASK"):
            return None
        host, _, port = words[2].rpartition(":")
        return at.beside("" if host == "?" else host, int(port)) if port.isdigit() else None

    async def onward(self, wire: Wire, at: Address) -> Address | None:
        """
        Ask the server at the other end who serves the slot; None: this one, as far as it can say.

        Raises:
            NotConnected: nobody serves it.
            RedisFailure: there was no answer.

        """
        try:
            own_id = await wire.send(("CLUSTER", "MYID"))
            ranges = cast("list[Any]", await wire.send(("CLUSTER", "SLOTS")))
        except ReplyError:  # no cluster, or we may not ask: then MOVED tells
            self.is_cluster = False
            return None
        self.is_cluster = True
        self._learn(ranges, at)
        for first, last, master, *_replicas in ranges:
            if first <= self.slot <= last:
                return None if master[2] == own_id else _address(master, at)
        raise NotConnected(f"no node of the cluster serves slot {self.slot}")

    def _learn(self, ranges: list[Any], at: Address) -> None:
        """Keep the nodes that there are as ways in, in the order in which they were known."""
        nodes = [_address(node, at) for _first, _last, *nodes in ranges for node in nodes]
        there = dict.fromkeys([*nodes, self._seed, at])
        self._ways_in = list(dict.fromkeys([*(w for w in self._ways_in if w in there), *there]))


def _address(node: list[Any], at: Address) -> Address:
    host = (node[0] or b"").decode()
    return at.beside("" if host == "?" else host, node[1])


async def follow(
    connection: RedisConnection,
    words: tuple[Word, ...],
    refusal: ReplyError,
    stranger: tuple[Word, ...] | None = None,
) -> tuple[Call, Reply]:
    """
    Send a command again that was refused because of its slot, for as long as a call may take.

    Args:
        connection: one that has a guide.
        words: the command.
        refusal: why it was refused; one of `ELSEWHERE`.
        stranger: what to send instead to a node that never heard of us (a script with its text).

    Raises:
        RedisFailure: the last refusal, or what became of the repeat.

    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + connection.timeout_s
    while refusal.code in ELSEWHERE and loop.time() < end_s:
        try:
            if refusal.code == "ASK":
                call = await connection.ask(refusal, stranger or words)
                _, reply = await call
                if isinstance(reply, ReplyError):
                    raise reply
                return call, reply
            if refusal.code == "MOVED":
                await connection.wait_moved(end_s - loop.time())
            else:
                await asyncio.sleep(TRY_AGAIN_S)
            call = connection.send(*words)
            return call, await call
        except ReplyError as again:
            refusal = again
    raise refusal
