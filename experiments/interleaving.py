"""
Every order in which two instances can create a job for one request, tried on the real core.

The report's proposal 2 drops the look at the binding under the request lock. Whether that is safe
is no matter of chance: `explore` runs the real `create_job` on two instances against the real
scripts, lets a schedule decide which of them does its next store operation, and goes through all
schedules, depth first. What it finds is a proof by exhaustion, or the shortest way to two jobs.

Only store operations are ordered: between two of them an instance touches nothing shared. An
instance that waits for the request lock tries again after the other one has moved; how long
anything takes is open, so the lock's timeout passes only when asked for (`lock_timeouts`).
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from msgspec.structs import replace

from simsched.delivery import Delivery
from simsched.dispatch import JobDispatcher
from simsched.jobs import Job, JobRequest, request_id
from simsched.models.keyspace import LuaKeySpace
from simsched.models.runtime import EPOCH_MS
from simsched.models.workers import WorkerSpec
from simsched.nodes import Health, Signal
from simsched.policy import Policy
from simsched.pools import PoolConfig
from simsched.ports import Reply, Runtime
from simsched.state import CoreSettings, InstanceState
from simsched.steps import Step
from simsched.telemetry import Operation
from simsched.units import MS, US

SCHEDULES_MAX: Final = 20_000
"""Two creations of eight operations each have 12,870 orders; beyond this we would not have all."""

ACTORS: Final = ("A", "B")
LANGUAGES: Final = ("en", "zh")
HEARTBEATS: Final = 3
"""So many make a node ready."""


@dataclass(frozen=True, slots=True)
class Move:
    """One store operation of one instance, in Redis' words, and what it was answered."""

    actor: str
    step: str
    command: str
    reply: str


@dataclass(frozen=True, slots=True)
class Interleaving:
    """One complete order of operations, how often it changes sides, and the jobs it ends in."""

    moves: tuple[Move, ...]
    switches: int
    jobs: tuple[str, str]

    @property
    def doubles(self) -> bool:
        """Whether one request has got two jobs."""
        return self.jobs[0] != self.jobs[1]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What all orders together showed; `shortest` changes sides least among those that double."""

    orders: int
    doubling: int
    exhausted: bool
    lock_timeouts: bool
    shortest: Interleaving | None


class _Pause:
    """What an instance waits for: its turn at the store, or some time."""

    __slots__ = ("delay_ns",)

    def __init__(self, delay_ns: int = 0) -> None:
        self.delay_ns = delay_ns

    def __await__(self) -> Generator[_Pause, None, None]:
        yield self


class _Free:
    """Work inside one instance: nothing that the other could see."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_error: object) -> None:
        return None


class _Names:
    """Ids that tell who made them: `job-A`."""

    def __init__(self, actor: str) -> None:
        self._actor = actor

    def below(self, _bound: int, *_labels: str | int) -> int:
        return 0

    def hex_id(self, prefix: str, _digits: int, *_labels: str | int) -> str:
        return prefix + self._actor


class _Unheard:
    """Events and counts that nobody reads."""

    def event(self, _event: object) -> None:
        return None

    def count(self, _name: str, _amount: int = 1) -> None:
        return None


class _World:
    """What the two instances share: the key space, the clock, and the list of moves."""

    def __init__(self, keys: LuaKeySpace) -> None:
        self.keys = keys
        self.clock_ns = 0
        self.moves: list[Move] = []

    @property
    def now_us(self) -> int:
        return EPOCH_MS * 1_000 + self.clock_ns // US


class _TurnStore:
    """A `Store` without cost that lets the schedule decide who goes next."""

    def __init__(self, world: _World, actor: str) -> None:
        self._world = world
        self._actor = actor

    async def command(self, step: Step, _op: Operation, *words: str | int, site: int = 0) -> Reply:
        await _Pause()
        reply = self._world.keys.command(self._world.now_us, *words)
        told = [str(words[0]), _key_kind(str(words[1])), *(["NX"] if "NX" in words else [])]
        self._note(step, " ".join(told), reply)
        return reply

    async def script(
        self, step: Step, _op: Operation, name: str, keys: Sequence[str],
        args: Sequence[str | int], *, site: int = 0,
    ) -> Reply:  # fmt: skip
        await _Pause()
        reply = self._world.keys.script(self._world.now_us, name, keys, args)
        self._note(step, f"EVALSHA {name}.lua", reply)
        return reply

    async def pipeline(
        self, step: Step, op: Operation, commands: Sequence[Sequence[str | int]]
    ) -> list[Reply]:
        return [await self.command(step, op, *command) for command in commands]

    def _note(self, step: Step, command: str, reply: Reply) -> None:
        self._world.moves.append(Move(self._actor, step.name, command, _shown(reply)))


class _Instance:
    """As much of a `Runtime` as a job creation asks for: it starts no task and sets no timer."""

    def __init__(self, world: _World, actor: str) -> None:
        self.instance_id = actor
        self.store = _TurnStore(world, actor)
        self.links = None
        self.chance = _Names(actor)
        self.telemetry = _Unheard()
        self._world = world
        self._operations = 0

    def now(self) -> int:
        return self._world.clock_ns

    def now_ms(self) -> int:
        return EPOCH_MS + self._world.clock_ns // MS

    async def sleep(self, delay_ns: int) -> None:
        await _Pause(delay_ns)

    def begin(self, kind: int, _entity: int, _index: int, session_id: str = "") -> Operation:
        self._operations += 1
        return Operation(kind, 0, self._operations, session_id, self.now())

    def end(self, _op: Operation, _outcome: int = 0) -> None:
        return None

    def step(self, _step: Step, _op: Operation, **_details: object) -> _Free:
        return _Free()

    def point(self, _name: str) -> bool:
        return False

    def forget(self, _key: str) -> None:
        return None


class _Actor:
    """One instance creating the job, stopped before its next store operation or in a sleep."""

    def __init__(self, name: str, creation: Coroutine[Any, Any, Job]) -> None:
        self.name = name
        self._creation = creation
        self.job = ""
        self.sleeps = False
        self.other_moved = False
        self.advance()

    @property
    def ended(self) -> bool:
        return bool(self.job)

    def advance(self) -> None:
        """Go on to the next pause, or to the end."""
        try:
            pause = self._creation.send(None)
        except StopIteration as end:
            self.job = end.value.job_id
            return
        self.sleeps = cast("_Pause", pause).delay_ns > 0
        self.other_moved = False

    def close(self) -> None:
        """Drop a creation that was not played to its end."""
        self._creation.close()


def explore(
    policy: Policy, *, lock_timeouts: bool = False, limit: int = SCHEDULES_MAX
) -> Exploration:
    """
    Try every order of the store operations of two creations of one request.

    Args:
        policy: of both instances.
        lock_timeouts: let the wait for the request lock run out whenever somebody waits.
        limit: give up after so many orders; `exhausted` says whether it came to that.

    """
    keys = LuaKeySpace()
    open_prefixes: list[tuple[int, ...]] = [()]
    orders = doubling = 0
    shortest: Interleaving | None = None
    while open_prefixes and orders < limit:
        prefix = open_prefixes.pop()
        found, branches = _play(keys, policy, prefix, orders, lock_timeouts=lock_timeouts)
        open_prefixes.extend(branches)
        orders += 1
        if found.doubles:
            doubling += 1
            if shortest is None or _size(found) < _size(shortest):
                shortest = found
    return Exploration(orders, doubling, not open_prefixes, lock_timeouts, shortest)


def _size(found: Interleaving) -> tuple[int, int]:
    return found.switches, len(found.moves)


def _play(
    keys: LuaKeySpace, policy: Policy, prefix: tuple[int, ...], number: int, *, lock_timeouts: bool
) -> tuple[Interleaving, list[tuple[int, ...]]]:
    """Follow the prefix, then stay with whom it ended; also the prefixes not followed."""
    world = _World(keys)
    actors = _actors(world, policy, f"cell{number}")
    world.moves.clear()
    taken: list[int] = []
    branches: list[tuple[int, ...]] = []
    switches, last = 0, prefix[0] if prefix else 0
    while not all(actor.ended for actor in actors):
        able = [i for i, actor in enumerate(actors) if _may_move(actor, lock_timeouts)]
        assert able, "both instances wait for each other"
        if len(taken) < len(prefix):
            chosen = prefix[len(taken)]
        else:
            chosen = last if last in able else able[0]
            branches.extend((*taken, other) for other in able if other != chosen)
        switches += chosen != last
        taken.append(chosen)
        last = chosen
        _move(world, actors, chosen, policy, lock_timeouts=lock_timeouts)
    jobs = (actors[0].job, actors[1].job)
    return Interleaving(tuple(world.moves), switches, jobs), branches


def _may_move(actor: _Actor, lock_timeouts: bool) -> bool:
    return not actor.ended and (lock_timeouts or not actor.sleeps or actor.other_moved)


def _move(
    world: _World, actors: list[_Actor], chosen: int, policy: Policy, *, lock_timeouts: bool
) -> None:
    actor, other = actors[chosen], actors[1 - chosen]
    if actor.sleeps and lock_timeouts:
        world.clock_ns += policy.lock_wait_ms * MS
    actor.advance()
    other.other_moved = True


def _actors(world: _World, policy: Policy, cell: str) -> list[_Actor]:
    """Two instances with one ready node each, both about to create the job."""
    settings = CoreSettings(
        shared=True,
        cell=cell,
        pools=PoolConfig(enabled=True, auto_generate_language_pools=True),
    )
    states = [
        InstanceState(cast("Runtime", _Instance(world, actor)), policy, settings)
        for actor in ACTORS
    ]
    for home in states:
        _add_node(states, home)
    request = _request()
    return [
        _Actor(name, JobDispatcher(state, Delivery(state)).create_job(request))
        for name, state in zip(ACTORS, states, strict=True)
    ]


def _add_node(states: Sequence[InstanceState], home: InstanceState) -> None:
    name = home.runtime.instance_id
    spec = WorkerSpec(
        node_id=f"n-{name}", slots=4, languages=LANGUAGES, home=0, overflow="queue",
        acknowledges=False,
    )  # fmt: skip
    ordinal = home.cluster.ordinal_of(spec.node_id)
    record = home.cluster.register(replace(spec.record(), ordinal=ordinal), 0)
    for _ in range(HEARTBEATS):
        record, _ = home.cluster.update(record, Signal.HEARTBEAT, 0)
    assert record.health is Health.READY
    for state in states:
        if state is not home:
            state.cluster.announce(record.view(), name)
    beat = home.store.heartbeat(
        home.runtime.begin(0, 0, 0), record.node_id, slots=record.slots, running=0,
        health="ready", since_ns=0,
        counters=home.policy.slots == "counter",
        resets=home.policy.heartbeat_reserved == "resets",
    )  # fmt: skip
    _run_through(beat)


def _run_through(work: Coroutine[Any, Any, None]) -> None:
    """Preparation is not part of the race: nobody else moves meanwhile."""
    try:
        while True:
            work.send(None)
    except StopIteration:
        return


def _request() -> JobRequest:
    source, target = LANGUAGES
    return JobRequest(
        request_id=request_id("s-1", 0, target, "t-1"),
        session_id="s-1",
        session_key=1,
        utterance=0,
        source_language=source,
        target_language=target,
        audio=b"",
        audio_format="opus",
        audio_ms=1_000,
        trace_id="t-1",
    )


def _key_kind(key: str) -> str:
    """`{cell}:bind:...` is of the kind `bind`."""
    return key.split(":")[1]


def _shown(reply: Reply) -> str:
    if reply is None:
        return "nil"
    if isinstance(reply, list):
        return " ".join(_shown(item) for item in reply)
    return reply.decode() if isinstance(reply, bytes) else str(reply)
