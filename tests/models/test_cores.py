"""Cores as arithmetic serve the same schedule as cores played out one event at a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.models.cores import Cores
from simsched.models.tasks import Cancelled, Kernel

Job = tuple[int, int, int | None]
"""Arrival, service, and when it is cancelled after its arrival."""

Served = tuple[int | None, int | None]
"""Start and end; None where it never came to that."""


def play_out(count: int, jobs: list[Job]) -> list[Served]:
    """The slow reference: idle cores take the oldest waiting job."""
    agenda = [(arrival, 2, i) for i, (arrival, _, _) in enumerate(jobs)]
    agenda += [(job[0] + job[2], 1, i) for i, job in enumerate(jobs) if job[2] is not None]
    starts: list[int | None] = [None] * len(jobs)
    ends: list[int | None] = [None] * len(jobs)
    waiting: list[int] = []
    busy: list[int] = []
    while agenda:
        agenda.sort()
        now, what, i = agenda.pop(0)
        if what == 2:
            waiting.append(i)
        elif i in busy:
            busy.remove(i)
            ends[i] = now
        elif what == 1 and i in waiting:
            waiting.remove(i)
        while waiting and len(busy) < count:
            first = waiting.pop(0)
            busy.append(first)
            starts[first] = now
            agenda.append((now + jobs[first][1], 0, first))
    return list(zip(starts, ends, strict=True))


def play_timed(count: int, jobs: list[Job]) -> list[Served]:
    kernel = Kernel()
    cores = Cores(kernel, count)
    served: list[Served] = [(None, None)] * len(jobs)

    async def work_on(i: int) -> None:
        arrival_ns, service_ns, _ = jobs[i]
        await kernel.sleep(arrival_ns)
        work = cores.work(service_ns)
        try:
            async with work:
                pass
        except Cancelled:
            if work.start_ns > kernel.now:
                return
        served[i] = (work.start_ns, kernel.now)

    async def main() -> None:
        tasks = [kernel.start(work_on(i), f"job {i}") for i in range(len(jobs))]
        cancels = sorted((job[0] + job[2], i) for i, job in enumerate(jobs) if job[2] is not None)
        for cancel_ns, i in cancels:
            await kernel.sleep(cancel_ns - kernel.now)
            tasks[i].cancel()
        for task in tasks:
            await task.join()

    kernel.run(main())
    assert len(cores) == 0
    return served


def apart(jobs: list[Job]) -> list[Job]:
    """In order of arrival, and stretched so that no cancellation is tied with anything else."""
    ordered = sorted(jobs, key=lambda job: job[0])
    return [
        (arrival * 32, service * 32, None if cancel is None else cancel * 32 + 1 + i)
        for i, (arrival, service, cancel) in enumerate(ordered)
    ]


short = st.integers(0, 25)
job_lists = st.lists(st.tuples(short, short, st.none() | short), max_size=12).map(apart)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 3), job_lists)
def test_the_schedule_is_that_of_cores_played_out(count: int, jobs: list[Job]) -> None:
    """First come, first served on c cores, with work cancelled while it waits or runs."""
    assert play_timed(count, jobs) == play_out(count, jobs)


def test_an_instance_has_at_least_one_core() -> None:
    """No core, no service."""
    with pytest.raises(ValueError, match="at least one core"):
        Cores(Kernel(), 0)
