"""An instance on a Redis Cluster: any node is a way in, and its slot may move under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from redis.crc import key_slot

from simsched import steps
from simsched.errors import StoreUnavailable
from simsched.inbox import InboxEvent, SendToSession
from simsched.live.inbox import Inbox
from simsched.live.redis_address import parse_address
from simsched.live.redis_cluster import Guide
from simsched.live.redis_connection import RedisConnection, ReplyError
from simsched.live.settings import StoreSettings
from simsched.live.store import RedisStore
from simsched.messages import Error, ErrorCode
from simsched.store import CellStore
from simsched.telemetry import Operation, OpKind
from tests.conformance.cluster_servers import Cluster, ClusterNode, redis_cluster
from tests.live.live_world import settings_with, world
from tests.live.valkey import Kept, play, until

SLOTS_A_NODE = 100_000
NODES = ("n1", "n2", "n3")
TASKS = 16


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with redis_cluster() as cluster:
        yield cluster


def operation() -> Operation:
    return Operation(OpKind.CONTROL, 1, 1, "", 0)


class Cell:
    """The store of one instance, and what it kept."""

    def __init__(self, name: str, connection: RedisConnection) -> None:
        self.key = "{" + name + "}"
        self.connection = connection
        self.sink = Kept()
        self.live = RedisStore(connection, self.sink, time.monotonic_ns)
        self.store = CellStore(self.live, "i-1", name)

    async def add_nodes(self) -> None:
        for node in NODES:
            await self.store.heartbeat(
                operation(),
                node,
                slots=SLOTS_A_NODE,
                running=0,
                health="ready",
                since_ns=0,
                counters=True,
            )

    async def claim(self, job: str) -> str:
        """The node whose slot the job has now."""
        claim = await self.store.claim(
            operation(), job, job, expected=0, token=f"{job}:1", lease_ms=600_000,
            binding_ttl_ms=600_000, nodes=NODES,
        )  # fmt: skip
        assert claim.verdict == "CLAIMED"
        return claim.node_id

    async def leases(self) -> dict[str, str]:
        """Every job that has a slot, and whose slot."""
        held: dict[str, str] = {}
        for node in NODES:
            members: Any = await self.connection.call("ZRANGE", f"{self.key}:leases:{node}", 0, -1)
            for member in members:
                job = member.decode().partition(":")[0]
                assert job not in held, "one job in two slots"
                held[job] = node
        return held


@asynccontextmanager
async def cell_on(
    cluster: Cluster, name: str, *, at: ClusterNode | None = None, timeout_s: float = 15.0
) -> AsyncIterator[Cell]:
    """A cell's store, entered at a node that does not serve it."""
    key = "{" + name + "}"
    way_in = at or cluster.others(cluster.owner(key))[0]
    connection = await RedisConnection.open(way_in.url, timeout_s=timeout_s, slot_key=key)
    try:
        yield Cell(name, connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_any_node_is_a_way_in(cluster: Cluster, name: str) -> None:
    """It leads to the master of the slot, and nothing has to be sent twice."""

    async def main() -> None:
        home = cluster.owner("{" + name + "}")
        for node in cluster.nodes:
            async with cell_on(cluster, name, at=node) as cell:
                await cell.add_nodes()
                assert cell.connection.address.port == home.port
                assert not cell.sink.counts

    play(main)


def test_without_a_cell_the_server_of_the_url_is_used(cluster: Cluster) -> None:
    """A connection that names no slot follows nothing; a refusal says what it is."""

    async def main() -> None:
        node = cluster.others(cluster.owner("{a}"))[0]
        connection = await RedisConnection.open(node.url)
        try:
            cell = Cell("a", connection)
            with pytest.raises(StoreUnavailable, match="MOVED"):
                await cell.add_nodes()
            assert cell.sink.counts == {"store_refused_moved": 1}
        finally:
            await connection.close()

    play(main)


def key_by_key(cluster: Cluster, key: str, to: ClusterNode) -> None:
    cluster.start_move(key, to)
    while cluster.move_keys(key, to, 20):
        pass
    cluster.end_move(key, to)


def at_once(cluster: Cluster, key: str, to: ClusterNode) -> None:
    cluster.move_at_once(key, to)


@pytest.mark.parametrize("move", [key_by_key, at_once])
def test_a_slot_that_moves_under_claims_loses_none(
    cluster: Cluster, move: Callable[[Cluster, str, ClusterNode], None]
) -> None:
    """Every acknowledged claim has its slot, each job one; no call fails, no connection is lost."""

    async def main() -> None:
        async with cell_on(cluster, move.__name__) as cell:
            await cell.add_nodes()
            said: dict[str, str] = {}
            is_over = False

            async def claim_on(number: int) -> None:
                index = 0
                while not is_over:
                    job = f"j-{number}-{index}"
                    said[job] = await cell.claim(job)
                    index += 1

            tasks = [asyncio.create_task(claim_on(number)) for number in range(TASKS)]
            await until(lambda: len(said) > 10 * TASKS)
            home = cluster.owner(cell.key)
            there = cluster.others(home)[-1]
            await asyncio.to_thread(move, cluster, cell.key, there)
            before = len(said)
            await until(lambda: len(said) > before + 10 * TASKS)
            is_over = True
            await asyncio.gather(*tasks)
            assert await cell.leases() == said
            assert cell.connection.address.port == there.port
            assert (cell.connection.moves, cell.connection.losses) == (1, 0)
            assert set(cell.sink.counts) == {"store_calls_redirected"}

    play(main)


def test_while_a_slot_is_open_new_keys_are_asked_for_at_the_other_node(cluster: Cluster) -> None:
    """ASK: a script is sent with its text, a pipeline in parts; TRYAGAIN is waited for."""

    async def main() -> None:
        async with cell_on(cluster, "asked") as cell:
            home = cluster.owner(cell.key)
            there = cluster.others(home)[-1]
            await cell.add_nodes()
            slot = key_slot(cell.key.encode())
            at_home = home.ask("CLUSTER", "COUNTKEYSINSLOT", slot)
            cluster.start_move(cell.key, there)
            there.ask("SCRIPT", "FLUSH")
            await cell.store.own(operation(), "node", "n9")
            assert await cell.store.owner_of(operation(), "node", "n9") == "i-1"
            assert home.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == at_home
            assert there.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
            assert cell.sink.counts["store_calls_redirected"] == 2
            await cell.store.read_capabilities(
                operation(), ["n1", "n8", "n2", "n9"], types=1, pipelined=True
            )
            assert cell.sink.counts["store_calls_redirected"] == 4
            claim = asyncio.create_task(cell.claim("j"))
            await asyncio.sleep(0.05)
            assert not claim.done()
            while cluster.move_keys(cell.key, there, 100):
                pass
            cluster.end_move(cell.key, there)
            assert await claim in NODES
            assert cell.connection.losses == 0

    play(main)


def test_replies_that_are_still_due_are_heard_after_a_move(cluster: Cluster) -> None:
    """The old connection stays until then: a move makes no outcome unknown."""

    async def main() -> None:
        async with cell_on(cluster, "due") as cell:
            await cell.add_nodes()
            there = cluster.others(cluster.owner(cell.key))[-1]
            await asyncio.to_thread(key_by_key, cluster, cell.key, there)
            refused = cell.connection.send("GET", cell.key)
            slow = cell.connection.send("WAIT", 1, 300)
            with pytest.raises(ReplyError, match="MOVED"):
                await refused
            await cell.connection.wait_moved(10.0)
            assert cell.connection.address.port == there.port
            assert await slow == 0

    play(main)


def test_a_slot_that_stays_open_is_unavailable_within_a_calls_limit(cluster: Cluster) -> None:
    """A script whose keys are on two nodes was not run, and says so in time."""

    async def main() -> None:
        async with cell_on(cluster, "torn", timeout_s=0.2) as cell:
            there = cluster.others(cluster.owner(cell.key))[-1]
            await cell.add_nodes()
            cluster.start_move(cell.key, there)
            with pytest.raises(StoreUnavailable, match="TRYAGAIN"):
                await cell.claim("j")
            assert cell.sink.counts["store_refused_tryagain"] == 1
            key_by_key(cluster, cell.key, there)

    play(main)


def test_a_slot_that_nobody_serves_is_unavailable_until_somebody_does(cluster: Cluster) -> None:
    """Refused by name, not served by another node; it goes on by itself."""

    async def main() -> None:
        async with cell_on(cluster, "orphan") as cell:
            await cell.add_nodes()
            home, slot = cluster.owner(cell.key), key_slot(cell.key.encode())
            home.ask("CLUSTER", "DELSLOTS", slot)
            with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                await cell.claim("j")
            await until(lambda: not cell.connection.is_up)
            await until(lambda: "serves slot" in cell.connection.last_error)
            with pytest.raises(StoreUnavailable, match="serves slot"):
                await cell.claim("j")
            home.ask("CLUSTER", "ADDSLOTS", slot)
            await until(lambda: cell.connection.is_up)
            assert cell.connection.address.port == home.port
            await cell.add_nodes()
            assert await cell.claim("j") in NODES

    play(main)


def test_a_master_that_is_replaced_is_found_again() -> None:
    """Replaced by hand nothing fails; killed, calls fail until its replica is promoted."""

    async def main(cluster: Cluster) -> None:
        first = cluster.owner("{a}")
        replica = cluster.add_replica(first)
        async with cell_on(cluster, "a", timeout_s=5.0) as cell:
            await cell.add_nodes()
            said = {"j-0": await cell.claim("j-0")}
            await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER")
            await until(lambda: cluster.owner("{a}") is replica)
            said["j-1"] = await cell.claim("j-1")
            await until(lambda: cell.connection.address.port == replica.port)
            await asyncio.to_thread(replica.ask, "WAIT", 1, 5_000)
            await asyncio.to_thread(
                cluster.wait, lambda: b"master_link_status:up" in first.ask("INFO", "replication")
            )
            replica.kill()
            await until(lambda: cell.connection.losses > 0)
            failed = 0
            while "j-2" not in said:
                try:
                    said["j-2"] = await cell.claim("j-2")
                except StoreUnavailable:
                    failed += 1
                    await asyncio.sleep(0.01)
            assert failed > 0
            assert cell.connection.address.port == first.port
            assert await cell.leases() == said

    with redis_cluster() as cluster:
        play(lambda: main(cluster))


def said_by(letter: InboxEvent) -> str:
    assert isinstance(letter, SendToSession)
    assert isinstance(letter.message, Error)
    return letter.message.message


def test_letters_survive_the_move_of_their_inbox(cluster: Cluster) -> None:
    """Each that was accepted is handled, in order, and nothing stays behind."""

    async def main() -> None:
        got: list[InboxEvent] = []
        async with cell_on(cluster, "post") as cell:
            key = cell.key
            way_in = cluster.others(cluster.owner(key))[1]
            reader = await RedisConnection.open(way_in.url, timeout_s=15.0, slot_key=key)
            inbox = Inbox(
                cell.live, reader, "i-1", got.append, cell.sink, cell="post", block_ms=100
            )
            await inbox.start()
            letters = [
                SendToSession("s", Error(code=ErrorCode.INTERNAL_ERROR, message=str(number)))
                for number in range(400)
            ]
            there = cluster.others(cluster.owner(key))[-1]
            moving = asyncio.create_task(asyncio.to_thread(key_by_key, cluster, key, there))
            for letter in letters:
                assert await inbox.to_instance(steps.INBOX_APPEND, operation(), "i-1", letter)
            await moving
            await until(lambda: len(set(map(said_by, got))) == len(letters))
            assert list(dict.fromkeys(map(said_by, got))) == list(map(said_by, letters))
            await inbox.to_instance(steps.INBOX_APPEND, operation(), "i-1", letters[0])
            stream = f"{key}:inbox:i-1"
            await until(lambda: there.ask("XLEN", stream) == 0)
            await inbox.close()
            await reader.close()

    play(main)


def test_a_server_answers_on_a_cluster_also_after_its_slot_has_moved(cluster: Cluster) -> None:
    """A client's utterances, before and after: each has its result, none twice."""

    async def main() -> None:
        key = "{served}"
        way_in = cluster.others(cluster.owner(key))[0]
        store = StoreSettings(redis_url=way_in.url, cell="served", timeout_ms=10_000)
        async with (
            world(settings_with(store=store)) as scheduler,
            scheduler.node("node-a") as node,
            scheduler.client() as client,
        ):
            for index in range(3):
                await client.utterance(index)
                job = await node.hear_type("job_assign")
                await node.answer(job, f"words {index}")
                result = await client.hear_type("translation_result")
                assert result["text_asr"] == f"words {index}"
                there = cluster.others(cluster.owner(key))[-1]
                await asyncio.to_thread(key_by_key, cluster, key, there)
            assert scheduler.instance.connection.losses == 0
            answers = [seen for seen in client.seen if seen["type"] == "translation_result"]
            assert len(answers) == 3

    play(main)


class Misled:
    """Two servers that each say that the other one serves everything."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.asked = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        servers = [
            await asyncio.start_server(partial(self._serve, me), "127.0.0.1", 0) for me in (0, 1)
        ]
        self.ports = [server.sockets[0].getsockname()[1] for server in servers]
        try:
            yield f"redis://127.0.0.1:{self.ports[0]}"
        finally:
            for server in servers:
                server.close()

    async def _serve(
        self, me: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        other = 1 - me
        slots = f"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:{self.ports[other]}\r\n"
        answers = {b"MYID": f"$1\r\n{me}\r\n", b"SLOTS": f"{slots}$1\r\n{other}\r\n"}
        try:
            while line := await reader.readline():
                word = line.strip()
                if word in answers:
                    self.asked += word == b"SLOTS"
                    writer.write(answers[word].encode())
                elif word in (b"PING", b"SETNAME"):
                    writer.write(b"+OK\r\n")
        except OSError:
            pass
        finally:
            writer.close()


def test_nodes_that_pass_us_on_for_ever_are_given_up() -> None:
    """An attempt ends after some hops, with that reason; the next one comes after a pause."""

    async def main() -> None:
        misled = Misled()
        async with misled.serving() as url:
            with pytest.raises(StoreUnavailable, match="do not agree"):
                await RedisConnection.open(url, slot_key="{a}")
            assert misled.asked >= 5

    play(main)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("MOVED 3999 10.0.0.7:6381", "redis://10.0.0.7:6381"),
        ("ASK 3999 node-7.example:6381", "redis://node-7.example:6381"),
        ("MOVED 3999 fd00::7:6381", "redis://fd00::7:6381"),
        ("MOVED 3999 :6381", "redis://seed:6381"),
        ("MOVED 3999 ?:6381", "redis://seed:6381"),
        ("MOVED 3999 10.0.0.7:x", None),
        ("MOVED", None),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
    ],
)
def test_a_refusal_names_the_next_node(said: str, where: str | None) -> None:
    """Host and port, names and IPv6 too; a node without a name is at the same host."""
    seed = parse_address("redis://ann:secret@seed:7000")
    address = Guide(seed, "{a}").told(ReplyError(said), seed)
    assert (address and address.text) == where
    assert address is None or (address.username, address.password) == ("ann", "secret")
