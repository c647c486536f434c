"""The peer celery on Redis: one solo worker, no results, acknowledged early."""

from __future__ import annotations

import asyncio
import os
import sys

from celery import Celery
from pacing import Arrivals, produce

app = Celery("dispatch", broker=f"redis://127.0.0.1:{os.environ['BENCH_REDIS_PORT']}/3")
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
AUDIO = "A" * 4_000
arrivals = Arrivals(os.environ["BENCH_ARRIVALS"])


@app.task(name="dispatch")
def dispatch(asked_ns: int, _audio: str) -> None:
    """The job has arrived."""
    arrivals.note(asked_ns)


async def create(asked_ns: int) -> None:
    """Ask for one job; celery's producer knows no asyncio."""
    dispatch.apply_async((asked_ns, AUDIO), ignore_result=True)


if __name__ == "__main__":
    if sys.argv[1] == "producer":
        asyncio.run(produce(create))
    else:
        words = ["worker", "--pool", "solo", "--loglevel", "ERROR"]
        app.worker_main([*words, "--without-gossip", "--without-mingle", "--without-heartbeat"])
