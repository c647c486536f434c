"""
What all systems of this benchmark share: pacing, stamps and where latencies go.

Standard library alone, since every peer runs it in an environment of its own. A job carries the
moment at which its producer asked for it (`time.monotonic_ns`, one clock for all processes of a
machine); the worker appends how long ago that was to a file, 8 bytes a job.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable

LATENCY = struct.Struct("<q")


class Arrivals:
    """The worker's side: notes that a job has arrived, decoded."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, asked_ns: int) -> None:
        """A job that was asked for at `asked_ns` is here."""
        os.write(self._file, LATENCY.pack(time.monotonic_ns() - asked_ns))


async def produce(create: Callable[[int], Awaitable[object]]) -> None:
    """
    The producer's side: obeys the lines `RATE COUNT` on standard input, answers `done` to each.

    `create(asked_ns)` asks for one job. A rate of 0 means as fast as 50 callers at once can.
    """
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        rate, count = (int(word) for word in line.split())
        if rate:
            await _paced(create, rate, count)
        else:
            await _saturated(create, count)
        print("done", flush=True)


async def _paced(create: Callable[[int], Awaitable[object]], rate: int, count: int) -> None:
    """Open loop: a job is asked for at its moment, however the earlier ones fare."""
    begin = time.monotonic_ns() + 10_000_000
    running: set[asyncio.Task[object]] = set()
    for number in range(count):
        wait_ns = begin + number * 1_000_000_000 // rate - time.monotonic_ns()
        if wait_ns > 0:
            await asyncio.sleep(wait_ns / 1e9)
        task = asyncio.ensure_future(create(time.monotonic_ns()))
        running.add(task)
        task.add_done_callback(running.discard)
    while running:
        await asyncio.wait(list(running))


async def _saturated(create: Callable[[int], Awaitable[object]], count: int) -> None:
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await create(time.monotonic_ns())

    await asyncio.gather(*(caller() for _ in range(50)))
