"""The peer arq, tuned: polling every 10 ms, 100 jobs at once, no results kept."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, ClassVar

from arq import create_pool, run_worker
from arq.connections import RedisSettings
from pacing import Arrivals, produce

AUDIO = "A" * 4_000
SETTINGS = RedisSettings(port=int(os.environ["BENCH_REDIS_PORT"]), database=2)
arrivals = Arrivals(os.environ["BENCH_ARRIVALS"])


async def dispatch(_context: dict[str, Any], asked_ns: int, _audio: str) -> None:
    """The job has arrived."""
    arrivals.note(asked_ns)


class Worker:
    """The settings of the worker."""

    functions: ClassVar = [dispatch]
    redis_settings = SETTINGS
    poll_delay = 0.01
    max_jobs = 100
    keep_result = 0


async def producer() -> None:
    """The process that asks."""
    pool = await create_pool(SETTINGS)

    async def create(asked_ns: int) -> None:
        await pool.enqueue_job("dispatch", asked_ns, AUDIO)

    await produce(create)


if __name__ == "__main__":
    if sys.argv[1] == "producer":
        asyncio.run(producer())
    else:
        asyncio.set_event_loop(asyncio.new_event_loop())
        run_worker(Worker)  # type: ignore[arg-type]
