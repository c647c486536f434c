"""What one server answers and holds, a cluster of three masters answers and holds.

Through the live store, entered by a node that mostly serves another slot, for cells on every
master. Time is fixed everywhere, so that answers and contents can be compared to the last digit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.live.redis_connection import RedisConnection
from simsched.live.runtime import new_event_loop
from simsched.live.store import RedisStore
from simsched.ports import Reply
from simsched.steps import Step
from simsched.store import CellStore
from simsched.telemetry import Operation
from tests.conformance.cell_calls import CALLS, operation
from tests.conformance.cluster_servers import MASTERS, Cluster, redis_cluster
from tests.conformance.redis_server import redis_server
from tests.conformance.stores import (
    FIXED_TIME_PRELUDE,
    LiveStore,
    ServerStore,
    State,
    script_names,
)
from tests.conformance.test_scripts import EPOCH_US, check_scripts
from tests.live.valkey import Kept

CELLS = ["a", "b", "cell", "tokyo", "alpha", "c"]
"""Two for each third of the slots."""

BY_OTHERS = {"bind", "resume"}
"""Scripts that no method of `CellStore` runs; the comparison of all scripts does."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def single() -> Iterator[str]:
    with redis_server() as unix_socket:
        yield unix_socket


class FixedTime(RedisStore):
    """The live store with scripts at a fixed time; keeps which ran."""

    ran: set[str]

    async def script(
        self,
        step: Step,
        op: Operation,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | int],
        *,
        site: int = 0,
    ) -> Reply:
        self.ran.add(name)
        return await super().script(step, op, name, keys, [*args, EPOCH_US], site=site)


def play_calls(url: str, cell: str, protocol: int) -> tuple[list[str], set[str], dict[str, int]]:
    """All calls of the table on the server at `url`: answers, scripts that ran, counts."""

    async def main() -> tuple[list[str], set[str], dict[str, int]]:
        connection = await RedisConnection.open(
            url, timeout_s=20.0, protocol=protocol, slot_key="{" + cell + "}"
        )
        sink = Kept()
        try:
            live = FixedTime(connection, sink, time.monotonic_ns, prelude=FIXED_TIME_PRELUDE)
            live.ran = set()
            store = CellStore(live, "i-1", cell)
            said = [
                f"{name} {await call(store, operation())}"
                for name, calls in CALLS.items()
                for call in calls
            ]
            return said, live.ran, sink.counts
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())


def contents(client: redis.Redis) -> State:
    """Everything a server holds, which is then cleared."""
    server = ServerStore(client)
    state = server.state()
    server.clear()
    return state


def test_cells_lie_on_every_master(cluster: Cluster) -> None:
    """Else the others would show less than they say."""
    assert len({cluster.owner("{" + cell + "}").port for cell in CELLS}) == MASTERS


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_every_call_of_a_cell_answers_as_on_a_single_server(
    cluster: Cluster, single: str, cell: str, protocol: int
) -> None:
    """The same answers and contents, no CROSSSLOT, whichever node is the way in."""
    at_home = play_calls(f"unix://{single}", cell, protocol)
    held = contents(redis.Redis(unix_socket_path=single, protocol=2))
    home = cluster.owner("{" + cell + "}")
    assert held
    for node in cluster.nodes:
        assert play_calls(node.url, cell, protocol) == at_home
        assert contents(redis.Redis(port=home.port, protocol=2)) == held
        for other in cluster.others(home):
            assert other.ask("DBSIZE") == 0
    _said, ran, counts = at_home
    assert ran == set(script_names()) - BY_OTHERS
    assert not counts


@pytest.mark.parametrize("protocol", [2, 3])
def test_scripts_agree_through_the_live_store_on_a_cluster(cluster: Cluster, protocol: int) -> None:
    """Any scripts in any order: the simulator's key space and the cluster agree."""
    home = cluster.owner("{c}")
    way_in = cluster.others(home)[0]
    client = redis.Redis(port=home.port, protocol=2)
    store = LiveStore(way_in.url, client, protocol=protocol, slot_key="{c}")
    try:
        check_scripts(store)
    finally:
        store.close()


def test_a_call_across_cells_is_refused_by_name(cluster: Cluster) -> None:
    """The check that the others rest on: a cluster does say CROSSSLOT."""

    async def main() -> Any:
        connection = await RedisConnection.open(cluster.nodes[0].url, slot_key="{a}")
        sink = Kept()
        try:
            store = RedisStore(connection, sink, time.monotonic_ns)
            with pytest.raises(StoreUnavailable, match="CROSSSLOT"):
                await store.script(
                    steps.CLAIM, operation(), "release_lease", ["{a}:k", "{b}:k"], [1, 0, "j:1"]
                )
            return sink.counts
        finally:
            await connection.close()

    assert key_slot(b"{a}") != key_slot(b"{b}")
    assert asyncio.run(main()) == {"store_refused_crossslot": 1}
