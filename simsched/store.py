"""
What the instances of a cell share, as typed calls over the `Store` port.

The classic calls (`reserve`, `set_binding`, the request lock) are the reference's own (domain 5.2),
the others those of the safe design; a policy decides which are used. Nothing here decides or
retries: a lost answer is `StoreUnavailable`, its outcome unknown, and every script may be repeated
with the same arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from simsched import steps
from simsched.cell_keys import CellKeys
from simsched.letters import NEWEST, OLDEST
from simsched.ports import Reply, Store
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import US

BINDING_TTL_MS: Final = 90_000
"""Life of a request binding (domain 5.1); the safe design lets it outlive the job's last try."""

OUTCOME_TTL_MS: Final = 300_000
"""How long a completed job is remembered, so that a late repeat is recognised."""

OWNER_TTL_MS: Final = 45_000
NODE_TTL_MS: Final = 45_000
"""Three heartbeats of 15 s (domain 5.1, 10.1)."""

FSM_TTL_MS: Final = 390_000


@dataclass(frozen=True, slots=True)
class Binding:
    """A request's job, as the store knows it."""

    job_id: str
    node_id: str
    owner: str
    dispatched: bool

    def encode(self) -> str:
        """One string value; ids hold no bar (they are validated)."""
        return f"{self.job_id}|{self.node_id}|{self.owner}|{int(self.dispatched)}"

    @staticmethod
    def decode(value: bytes) -> Binding:
        job_id, node_id, owner, dispatched = value.decode().split("|")
        return Binding(job_id, node_id, owner, dispatched == "1")


class Claim(msgspec.Struct, frozen=True):
    """
    The answer to a claim.

    CLAIMED, FULL, BOUND (another instance has it), OVER (and has done it), MOVED (its session is
    another instance's), or ENDED if the job no longer wants it.
    """

    verdict: str
    job_id: str = ""
    node_id: str = ""
    attempt: int = 0
    owner: str = ""
    done: bool = False
    live: int = 0
    slots: int = 0
    refusals: tuple[str, ...] = ()


def _text(reply: Reply) -> str:
    assert isinstance(reply, bytes)
    return reply.decode()


def _items(reply: Reply) -> list[Reply]:
    assert isinstance(reply, list)
    return reply


def _whole(reply: Reply) -> int:
    assert isinstance(reply, int)
    return reply


def by_node(held: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Pairs of a node and a member `job:attempt`, as calls on leases take them."""
    members: dict[str, list[str]] = {}
    for node, member in held:
        members.setdefault(node, []).append(member)
    return members


class CellStore(CellKeys):
    """
    The shared state of one cell, seen from one instance.

    Attributes:
        versions: which version of the protocol between instances each of them speaks, as the last
            sign of life told.
        signs: the last sign of life of each of them: another one whenever it has given one.
        forgot: the last sign of life found no trace of those before: the store has come to have
            no memory, though nobody lost the connection to it.

    """

    def __init__(
        self, store: Store, instance_id: str, cell: str = "cell", version: int = NEWEST
    ) -> None:
        super().__init__(cell)
        self._store = store
        self._version = version
        self.versions: dict[str, int] = {}
        self.signs: dict[str, str] = {}
        self.forgot = False
        self._is_present = False
        self._instance = instance_id

    # The reference's bindings and request lock (phase 2)

    async def get_binding(self, op: Operation, request: str, *, site: int) -> Binding | None:
        """The job bound to a request, if any."""
        value = await self._store.command(
            steps.GET_BINDING, op, "GET", self._binding(request), site=site
        )
        return Binding.decode(value) if isinstance(value, bytes) else None

    async def set_binding(
        self,
        op: Operation,
        request: str,
        binding: Binding,
        *,
        step: Step = steps.SET_BINDING,
        site: int = 0,
    ) -> None:
        """Overwrite a request's binding, whatever it was."""
        await self._store.command(
            step, op, "SET", self._binding(request), binding.encode(), "PX", BINDING_TTL_MS,
            site=site,
        )  # fmt: skip

    async def set_binding_if_absent(self, op: Operation, request: str, binding: Binding) -> bool:
        """Bind a request unless somebody did; False if so."""
        reply = await self._store.command(
            steps.SET_NX_BINDING, op, "SET", self._binding(request), binding.encode(), "PX",
            BINDING_TTL_MS, "NX",
        )  # fmt: skip
        return reply is not None

    async def drop_binding(self, op: Operation, request: str) -> None:
        """Unbind a request whose job did not come about."""
        await self._store.command(steps.SET_BINDING, op, "DEL", self._binding(request), site=9)

    async def lock_request(
        self, op: Operation, request: str, owner: str, ttl_ms: int, *, site: int
    ) -> bool:
        """Try once to take the request lock."""
        reply = await self._store.command(
            steps.REQUEST_LOCK, op, "SET", f"{self._tag}:lock:{request}", owner, "PX", ttl_ms,
            "NX", site=site,
        )  # fmt: skip
        return reply is not None

    async def unlock_request(self, op: Operation, request: str, owner: str) -> bool:
        """Give the request lock back; False if it was no longer ours."""
        key = f"{self._tag}:lock:{request}"
        reply = await self._store.script(steps.REQUEST_UNLOCK, op, "unlock", [key], [owner])
        return reply == 1

    # The reference's slots

    async def reserve(
        self, op: Operation, job: str, attempt: int, node: str, *, site: int = 0
    ) -> str:
        """Count one more job on a node: OK, or why not."""
        keys = [self._capacity(node), self._meta(node), self._reservation(job, attempt, node)]
        reply = await self._store.script(
            steps.RESERVE, op, "try_reserve", keys, [BINDING_TTL_MS], site=site
        )
        return _text(_items(reply)[1])

    async def release(self, op: Operation, job: str, attempt: int, node: str) -> bool:
        """Give a reservation back."""
        keys = [self._capacity(node), self._reservation(job, attempt, node)]
        return await self._store.script(steps.RELEASE, op, "release", keys, []) == 1

    async def commit(self, op: Operation, job: str, attempt: int, node: str) -> None:
        """Turn a reservation into a running job."""
        keys = [self._capacity(node), self._reservation(job, attempt, node)]
        await self._store.script(steps.COMMIT, op, "commit", keys, [])

    async def dec_running(self, op: Operation, node: str) -> None:
        """Count one running job less on a node, whosever it was."""
        await self._store.script(steps.DEC_RUNNING, op, "dec_running", [self._capacity(node)], [])

    async def move_fsm(
        self, op: Operation, move: str, job: str, node: str, attempt: int, *, site: int
    ) -> None:
        """Move a job's state in the store (domain 4.4)."""
        await self._store.script(
            steps.FSM, op, "fsm", [f"{self._tag}:fsm:{job}"],
            [move, job, node, attempt, FSM_TTL_MS, 1], site=site,
        )  # fmt: skip

    async def read_capabilities(
        self, op: Operation, nodes: Sequence[str], *, types: int, pipelined: bool
    ) -> None:
        """Read the readiness hash of every candidate per required type, one by one or at once."""
        commands = [["HGETALL", self._node(node)] for node in nodes for _ in range(types)]
        if pipelined:
            await self._store.pipeline(steps.CAPABILITY_READ, op, commands)
            return
        for site, command in enumerate(commands):
            await self._store.command(steps.CAPABILITY_READ, op, *command, site=site)

    async def pool_members(self, op: Operation, pool: str) -> None:
        """Read the members of a pool as the reference does before every selection."""
        await self._store.command(
            steps.POOL_MEMBERS, op, "SMEMBERS", f"{self._tag}:pool:{pool}:members"
        )

    # The safe design

    async def claim(
        self,
        op: Operation,
        session: str,
        job: str,
        *,
        expected: int,
        token: str,
        lease_ms: int,
        binding_ttl_ms: int,
        nodes: Sequence[str],
        again: bool = False,
        site: int = 0,
    ) -> Claim:
        """Give the job's next attempt to the first node with a free slot; see `claim.lua`."""
        keys = [
            self._binding(job),
            self._owner("session", session),
            *(self._leases(node) for node in nodes),
            *(self._node(node) for node in nodes),
        ]
        args: list[str | int] = [
            job,
            expected,
            self._instance,
            token,
            lease_ms,
            binding_ttl_ms,
            int(again),
            *nodes,
        ]
        reply = _items(await self._store.script(steps.CLAIM, op, "claim", keys, args, site=site))
        verdict = _text(reply[0])
        if verdict == "FULL":
            return Claim(verdict, refusals=tuple(_text(reason) for reason in reply[1:]))
        if verdict == "MOVED":
            return Claim(verdict, owner=_text(reply[1]))
        job_id, node, attempt = _text(reply[1]), _text(reply[2]), _whole(reply[3])
        if verdict == "CLAIMED":
            return Claim(
                verdict, job_id, node, attempt, live=_whole(reply[4]), slots=_whole(reply[5])
            )
        return Claim(verdict, job_id, node, attempt, _text(reply[4]), reply[5] == 1)

    async def complete(
        self,
        op: Operation,
        session: str,
        job: str,
        *,
        attempt: int,
        node: str,
        status: str,
        site: int = 0,
    ) -> str:
        """
        Report a job's end: ACCEPTED, STALE, DONE or MOVED; see `complete.lua`.

        OURS: not accepted either, but what the store knows better is this instance's own doing.
        """
        keys = [self._binding(job), self._leases(node), self._owner("session", session)]
        args: list[str | int] = [
            job, attempt, status, self._token(attempt, status), OUTCOME_TTL_MS, self._instance,
        ]  # fmt: skip
        reply = await self._store.script(steps.COMPLETE, op, "complete", keys, args, site=site)
        verdict, *rest = _items(reply)
        by = _text(rest[1]) if len(rest) > 1 else ""
        is_ours = by == self._instance or by.rsplit(":", 2)[0] == self._instance
        return "OURS" if is_ours else _text(verdict)

    def _token(self, attempt: int, status: str) -> str:
        """What tells one end of an attempt, or our claim of it, from every other."""
        return f"{self._instance}:{attempt}:{status}"

    async def restore(
        self, op: Operation, job: str, *, attempt: int, node: str, status: str, lease_ms: int
    ) -> str:
        """
        Say again what a job of ours is: RESTORED, KEPT or LOST; see `restore.lua`.

        `status` is "" for an attempt that runs, else how the job ended.
        """
        state, ttl_ms = ("done", OUTCOME_TTL_MS) if status else ("claimed", BINDING_TTL_MS)
        keys = [self._binding(job), self._leases(node)]
        args: list[str | int] = [
            job, attempt, node, self._instance, self._token(attempt, status), state, status,
            lease_ms, ttl_ms,
        ]  # fmt: skip
        return _text(await self._store.script(steps.RENEW, op, "restore", keys, args, site=1))

    async def claim_of(self, op: Operation, job: str) -> tuple[str, int, bool]:
        """Node and attempt of a claimed job, and whether it is done; ("", 0, False): unknown."""
        reply = _items(
            await self._store.command(
                steps.OWNER_READ, op, "HMGET", self._binding(job), "node", "attempt", "state",
                site=3,
            )
        )  # fmt: skip
        if reply[0] is None or reply[1] is None:
            return "", 0, False
        return _text(reply[0]), int(_text(reply[1])), reply[2] == b"done"

    async def be_present(self, op: Operation, ttl_ms: int) -> list[str]:
        """Give a sign of life; the other instances that have given none for too long."""
        keys = [f"{self._tag}:instances", f"{self._tag}:versions"]
        args: list[str | int] = [self._instance, ttl_ms, self._version]
        gone, said, known = _items(
            await self._store.script(steps.PRESENCE, op, "presence", keys, args)
        )
        words = [_text(word) for word in _items(said)]
        self.versions = {
            name: max(OLDEST, int(version)) if version.isdigit() else OLDEST
            for name, version in zip(words[::3], words[1::3], strict=True)
        }
        self.signs = dict(zip(words[::3], words[2::3], strict=True))
        self.forgot, self._is_present = self._is_present and known == 0, True
        return [_text(name) for name in _items(gone)]

    async def be_gone(self, op: Operation) -> None:
        """Leave on purpose: nobody need wonder."""
        self._is_present = False
        await self._store.command(
            steps.PRESENCE, op, "ZREM", f"{self._tag}:instances", self._instance, site=1
        )

    async def claimed_by(self, op: Operation, job: str) -> str:
        """The instance whose claim a job is, or ""."""
        value = await self._store.command(
            steps.OWNER_READ, op, "HGET", self._binding(job), "owner", site=2
        )
        return value.decode() if isinstance(value, bytes) else ""

    async def release_lease(self, op: Operation, job: str, attempt: int, node: str) -> None:
        """Give a slot back without completing the job."""
        await self.release_leases(op, {node: [f"{job}:{attempt}"]})

    async def release_leases(self, op: Operation, held: Mapping[str, Sequence[str]]) -> None:
        """Give slots back, as members `job:attempt` by node."""
        keys, counts, members = self._leases_by_node(held)
        await self._store.script(steps.RELEASE, op, "release_lease", keys, [*counts, *members])

    def _leases_by_node(
        self, held: Mapping[str, Sequence[str]]
    ) -> tuple[list[str], list[int], list[str]]:
        """What a script on leases of several nodes takes: keys, members of each, all members."""
        keys = [self._leases(node) for node in held]
        members = [member for of_node in held.values() for member in of_node]
        return keys, [len(of_node) for of_node in held.values()], members

    async def has_lease(self, op: Operation, job: str, attempt: int, node: str) -> bool:
        """Whether an attempt's lease is written down; it may have run out."""
        score = await self._store.command(
            steps.OWNER_READ, op, "ZSCORE", self._leases(node), f"{job}:{attempt}", site=5
        )
        return score is not None

    async def renew(
        self, op: Operation, lease_ms: int, held: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Extend leases, given by node; returns the members that were lost."""
        keys, counts, members = self._leases_by_node(held)
        args: list[str | int] = [lease_ms, *counts, *members]
        reply = await self._store.script(steps.RENEW, op, "renew", keys, args)
        return [_text(member) for member in _items(reply)]

    async def node_gone(self, op: Operation, node: str, *, since_ns: int) -> bool:
        """
        Drop all leases of a node that has left this instance; False if it is connected again.

        `since_ns`: when the connection began that has ended, as its heartbeats said.
        """
        keys = [self._leases(node), self._node(node), self._owner("node", node)]
        args: list[str | int] = [self._instance, since_ns // US]
        reply = await self._store.script(steps.NODE_GONE, op, "node_gone", keys, args)
        return reply != 0

    # Nodes and owners

    async def heartbeat(
        self, op: Operation, node: str, *, slots: int, running: int, health: str, since_ns: int,
        counters: bool, resets: bool = False,
    ) -> None:  # fmt: skip
        """
        Store what a node reports of itself; `resets` forgets its reservations (B4).

        `since_ns`: when it was connected to this instance, by the instance's clock; `counters`:
        whether slots are counted, which only the classic scripts read.
        """
        classic = [self._capacity(node), self._meta(node)] if counters or resets else []
        name, keys = (
            ("heartbeat_reset", classic)
            if resets
            else ("heartbeat_keep", [self._node(node), *classic])
        )
        args: list[str | int] = [slots, running, health, NODE_TTL_MS]
        if not resets:
            args += [self._instance, since_ns // US]
        await self._store.script(steps.HEARTBEAT_STORE, op, name, keys, args)

    async def own(self, op: Operation, kind: str, name: str, *, site: int = 0) -> None:
        """Say that a session or node is connected to this instance."""
        await self._store.script(
            steps.OWNER_WRITE, op, "own", [self._owner(kind, name)],
            [self._instance, OWNER_TTL_MS, "take"], site=site,
        )  # fmt: skip

    async def owner_of(self, op: Operation, kind: str, name: str, *, site: int = 0) -> str:
        """The instance that a session or node is connected to, or ""."""
        value = await self._store.command(
            steps.OWNER_READ, op, "HGET", self._owner(kind, name), "owner", site=site
        )
        return value.decode() if isinstance(value, bytes) else ""
