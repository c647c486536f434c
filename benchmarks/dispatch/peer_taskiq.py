"""The peer taskiq with taskiq-redis' list broker: a task sent, its body begun in a worker."""

from __future__ import annotations

import asyncio
import os
import sys

from pacing import Arrivals, produce
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(f"redis://127.0.0.1:{os.environ['BENCH_REDIS_PORT']}/1")
AUDIO = "A" * 4_000
arrivals = Arrivals(os.environ["BENCH_ARRIVALS"])


@broker.task(task_name="dispatch")
async def dispatch(asked_ns: int, audio: str) -> None:
    """The job has arrived."""
    arrivals.note(asked_ns)


async def producer() -> None:
    """The process that asks."""
    await broker.startup()

    async def create(asked_ns: int) -> None:
        await dispatch.kiq(asked_ns, AUDIO)

    await produce(create)


if __name__ == "__main__":
    if sys.argv[1] == "producer":
        asyncio.run(producer())
    else:
        words = ["-m", "taskiq", "worker", "peer_taskiq:broker", "--workers", "1"]
        os.execv(sys.executable, [sys.executable, *words, "--log-level", "ERROR"])
