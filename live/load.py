"""
`simsched load`: the simulator's speakers against a real server.

Sessions arrive as the workload says, whatever the server does; at the end everybody who has begun
is heard out. All of it runs in one process on one loop. `load_session` is one session, `tally` the
books, `load_report` what is printed and written.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from simsched.live.load_options import LoadOptions
from simsched.live.load_report import LoadReport
from simsched.live.load_session import LoadSession, Meters, Sounds
from simsched.live.tally import Tally, quantiles
from simsched.models.workload import SessionPlan
from simsched.units import SECOND

PROGRESS_S: Final = 1.0
AHEAD_NS: Final = 2 * SECOND
"""Sessions get their task so long before they arrive."""


class Load:
    """One load in progress; `run` does it all."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._sounds = Sounds()
        self._running: dict[asyncio.Task[None], None] = {}
        self._began_ns = 0
        self.meters = Meters()
        self.tally = Tally()

    def now(self) -> int:
        """Nanoseconds since the start."""
        return time.monotonic_ns() - self._began_ns

    async def run(self, stop: asyncio.Event | None = None) -> LoadReport:
        """Play the load to its end, or until `stop`: then sessions are broken off."""
        stop = stop or asyncio.Event()
        self._began_ns = time.monotonic_ns()
        playing = asyncio.create_task(self._play(), name="load")
        stopping = asyncio.create_task(stop.wait(), name="load stop")
        # Sessions make few cycles; a full collection in between would be booked as lateness.
        gc.collect()
        gc.freeze()
        try:
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            interrupted = not playing.done()
            if not interrupted:
                playing.result()
        finally:
            gc.unfreeze()
            for task in (playing, stopping, *self._running):
                task.cancel()
            await asyncio.wait({playing, stopping, *self._running})
        return LoadReport(
            tally=self.tally,
            meters=self.meters,
            seconds=self.now() / SECOND,
            late=quantiles(self.meters.late),
            interrupted=interrupted,
        )

    async def _play(self) -> None:
        for plan in self._plans():
            wait_ns = plan.arrival_ns - AHEAD_NS - self.now()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / SECOND)
            task = asyncio.create_task(self._session(plan), name=f"session {plan.index}")
            self._running[task] = None
            task.add_done_callback(self._running.pop)
        while self._running:
            done, _ = await asyncio.wait(self._running)
            for task in done:
                task.result()

    def _plans(self) -> Iterator[SessionPlan]:
        options = self._options
        horizon_ns = self._horizon_ns()
        for plan in islice(options.workload.sessions(options.run_key), options.sessions):
            if horizon_ns is not None and plan.arrival_ns >= horizon_ns:
                return
            yield plan

    def _horizon_ns(self) -> int | None:
        seconds = self._options.duration_s
        return None if seconds is None else round(seconds * SECOND)

    async def _session(self, plan: SessionPlan) -> None:
        session = LoadSession(
            plan, self._options, self._sounds, self.meters, self.now, self._horizon_ns()
        )
        try:
            await session.run()
        finally:
            # Broken off or not: what it had begun is in the books.
            self.tally.close(session.tally)

    def progress(self) -> str:
        """How far it is, on one line."""
        meters = self.meters
        return (
            f"{self.now() / SECOND:6.0f} s  {meters.open} open of {meters.begun} sessions  "
            f"{meters.chunks} chunks  {meters.answers} answers  "
            f"{sum(meters.refused.values())} sessions refused, {sum(meters.closed.values())} broken"
        )


async def main(
    options: LoadOptions,
    say: Callable[[str], None],
    *,
    tell: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """
    Run a load, print its table, write its files.

    Args:
        options: what to do.
        say: takes the table.
        tell: takes a line of progress each second; None: no progress, as for a pipe.
        stop: set to break off.

    Returns:
        The exit code: 1 if anything was lost, answered twice or out of order, else 0.

    Raises:
        SimschedError: the results cannot be written.

    """
    load = Load(options)
    telling = asyncio.create_task(_tell(load, tell)) if tell is not None else None
    try:
        report = await load.run(stop)
    finally:
        if telling is not None:
            telling.cancel()
            await asyncio.wait({telling})
    say(report.table())
    if options.out is not None:
        report.write(options.out)
        say(f"\nin {options.out}: load.json, jobs.parquet")
    return report.exit_code


async def _tell(load: Load, tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        tell(load.progress())
