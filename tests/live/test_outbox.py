"""What an outbox promises: order, bounds in bytes and in age, and nothing lost unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.live.outbox import TRANSPORT_BYTES, Outbox
from tests.live.live_world import run

AGE_NS = 10**15


class SlowWire:
    """A transport whose peer reads only when it is told to."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.held = 0
        self.broken = False
        self._read = asyncio.Event()

    def push(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.held += len(frame)

    async def send(self, frame: bytes) -> None:
        self.push(frame)
        while self.held > TRANSPORT_BYTES // 4:
            if self.broken:
                raise ConnectionError
            self._read.clear()
            await self._read.wait()

    def buffered(self) -> int:
        return self.held

    def read(self, size: int) -> None:
        self.held = max(0, self.held - size)
        self._read.set()

    def fail(self) -> None:
        self.broken = True
        self._read.set()


def outbox(
    wire: SlowWire, slow: list[str], *, bytes_max: int = 10**9, age_ns: int = AGE_NS,
    now: Callable[[], int] = lambda: 0,
) -> Outbox:  # fmt: skip
    return Outbox(wire, now, bytes_max=bytes_max, age_ns_max=age_ns, on_slow=slow.append)


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.one_of(
            st.integers(min_value=1, max_value=TRANSPORT_BYTES).map(lambda n: ("put", n)),
            st.integers(min_value=1, max_value=2 * TRANSPORT_BYTES).map(lambda n: ("read", n)),
            st.just(("turn", 0)),
        ),
        max_size=40,
    )
)
def test_frames_leave_in_order_whatever_the_peer_reads(moves: list[tuple[str, int]]) -> None:
    """However slowly it reads, a peer gets every frame once, in the order in which they came."""

    async def main() -> None:
        wire, slow = SlowWire(), list[str]()
        box, put = outbox(wire, slow), list[bytes]()
        for kind, size in moves:
            if kind == "put":
                frame = bytes([len(put) % 256]) * size
                put.append(frame)
                assert box.put(frame)
            elif kind == "read":
                wire.read(size)
            else:
                await asyncio.sleep(0)
        while len(wire.frames) < len(put):
            wire.read(10 * TRANSPORT_BYTES)
            await asyncio.sleep(0)
        assert wire.frames == put
        assert box.sent == len(put)
        assert box.waiting_bytes == 0
        assert not slow
        assert box.close() == []

    run(main())


def test_more_waiting_bytes_than_allowed_make_a_slow_consumer_once() -> None:
    """The bound in bytes holds, the transport's included, and is told once."""

    async def main() -> None:
        wire, slow = SlowWire(), list[str]()
        box = outbox(wire, slow, bytes_max=3 * TRANSPORT_BYTES)
        taken = [box.put(bytes(TRANSPORT_BYTES - 1), n) for n in range(6)]
        assert taken == [True, True, True, False, False, False]
        assert slow == ["bytes"]
        assert wire.held + box.waiting_bytes <= 3 * TRANSPORT_BYTES
        assert box.close() == [2]

    run(main())


def test_a_frame_that_waits_too_long_makes_a_slow_consumer() -> None:
    """A peer that reads nothing for the age limit is slow, even if little waits for it."""

    async def main() -> None:
        wire, slow = SlowWire(), list[str]()
        loop = asyncio.get_running_loop()
        box = outbox(wire, slow, age_ns=20_000_000, now=lambda: int(loop.time() * 1e9))
        box.put(bytes(TRANSPORT_BYTES + 1))
        async with asyncio.timeout(10):
            while not slow:  # noqa: ASYNC110  # a timer of the outbox ends it
                await asyncio.sleep(0.005)
        assert slow == ["age"]
        box.close()

    run(main())


def test_a_reader_that_keeps_up_is_never_slow() -> None:
    """Age counts from the last time that the transport got rid of its bytes."""

    async def main() -> None:
        wire, slow = SlowWire(), list[str]()
        clock = [0]
        box = outbox(wire, slow, age_ns=5_000_000, now=lambda: clock[0])
        for _ in range(20):
            box.put(bytes(TRANSPORT_BYTES))
            clock[0] += 4_000_000
            wire.read(2 * TRANSPORT_BYTES)
            await asyncio.sleep(0.002)
        assert not slow
        box.close()

    run(main())


def test_what_did_not_leave_is_given_back() -> None:
    """A lost connection gives back the message on its way and those behind it, in order."""

    async def main() -> None:
        wire, slow = SlowWire(), list[str]()
        box = outbox(wire, slow)
        for number in range(5):
            box.put(bytes(TRANSPORT_BYTES + 1), number)
        await asyncio.sleep(0)
        wire.fail()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        handed = len(wire.frames)
        assert handed == 2
        assert box.close() == [1, 2, 3, 4]
        assert not box.put(b"later")

    run(main())
