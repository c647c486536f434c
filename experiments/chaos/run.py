"""
One chaos run: start everything, speak, break, wait until all is whole and answered, and look.

The order at the end matters: clients close their sessions; leases get the time to run out that they
are given; then the store is asked who still holds a slot, and the nodes, which are asked to leave,
say how much they still run. Only then are the recordings read.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from simsched.cases import Case
from simsched.experiments.chaos.breaking import Breaker, Hit
from simsched.experiments.chaos.children import Children
from simsched.experiments.chaos.speakers import Notes, Speaker
from simsched.experiments.chaos.system import RECORDINGS, System
from simsched.faults import Fault
from simsched.findings import CheckSettings
from simsched.policy import Policy
from simsched.presets import parse_policy
from simsched.units import MS, SECOND

LEAD_S: Final = 2.0
"""From the moment that everything runs to the moment 0 of the case: clients connect meanwhile."""

LEASE_SLACK_S: Final = 1.0
LOOK_S: Final = 0.5
LOGS: Final = "logs"
SCAN_SLACK_S: Final = 5.0


@dataclass(slots=True)
class Outcome:
    """
    What a run was, before anybody judges it; moments are of the monotonic clock.

    Attributes:
        leases: slots that were still leased when all leases had had their time, by node.
        held_at_end: the same when the last client had said goodbye.
        running: jobs that nodes still ran when they were asked to leave.
        losses: changes of keys that each promoted replica did not have.
        failures: what the run itself could not do.

    """

    case: Case
    folder: Path
    notes: Notes
    system: System
    hits: list[Hit] = field(default_factory=list)
    given_up: list[Fault] = field(default_factory=list)
    started_ns: int = 0
    ended_ns: int = 0
    leases: dict[str, int] = field(default_factory=dict)
    held_at_end: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


Tell = Callable[[str], None]


async def play(case: Case, folder: Path, tell: Tell) -> Outcome:
    """
    Play a case on this machine; recordings and logs are left in `folder`.

    Raises:
        ChildFailed: a process did not start.

    """
    async with Children(folder / LOGS) as children:
        system = System(case, folder, children)
        outcome = Outcome(case, folder, Notes(), system)
        try:
            tell("starting Redis, its replica, instances and nodes")
            await system.start()
            await _play(outcome, tell)
            await _look_after(outcome, tell)
        finally:
            await system.close()
    return outcome


async def _play(outcome: Outcome, tell: Tell) -> None:
    case, system = outcome.case, outcome.system
    breaker = Breaker(case, system)
    speakers = _speakers(outcome)
    start_s = asyncio.get_running_loop().time() + LEAD_S
    outcome.started_ns = time.monotonic_ns() + round(LEAD_S * SECOND)
    whole = asyncio.Event()
    patience_s = patience(case)

    async def break_things() -> None:
        await breaker.run(start_s)
        whole.set()

    showing = asyncio.create_task(_show(outcome, breaker, speakers, tell))
    try:
        async with asyncio.TaskGroup() as group:
            for speaker in speakers:
                group.create_task(speaker.run(start_s, whole, patience_s))
            group.create_task(break_things())
    finally:
        showing.cancel()
        await asyncio.wait({showing})
        outcome.hits, outcome.given_up = breaker.hits, breaker.given_up
    outcome.ended_ns = time.monotonic_ns()


def _speakers(outcome: Outcome) -> list[Speaker]:
    case = outcome.case
    numbers = sorted({turn.client for turn in case.turns})
    return [
        Speaker(
            number, [turn for turn in case.turns if turn.client == number], outcome.system,
            outcome.notes, resumes=case.system.resumes,
        )
        for number in numbers
    ]  # fmt: skip


def patience(case: Case) -> float:
    """Seconds that the last answers may take: the checker's bound, and what it takes to notice."""
    policy = parse_policy(case.policy)
    return bounds(policy).answer_bound_ns / SECOND + SCAN_SLACK_S


def bounds(policy: Policy) -> CheckSettings:
    """The checker's bounds under a policy."""
    return CheckSettings(
        pending_ns=policy.pending_ms * MS, job_timeout_ns=policy.job_timeout_ms * MS,
        failover_max=policy.failover_max, gap_ns=policy.gap_ms * MS,
    )  # fmt: skip


async def _show(outcome: Outcome, breaker: Breaker, speakers: list[Speaker], tell: Tell) -> None:
    faults = len(outcome.case.faults)
    while True:
        passed_s = (time.monotonic_ns() - outcome.started_ns) / SECOND
        waiting = sum(speaker.open for speaker in speakers)
        tell(
            f"{passed_s:6.1f} s  {len(breaker.hits)}/{faults} faults, {breaker.under_way} under "
            f"way; {len(outcome.notes.asked)} asked, {len(outcome.notes.seen)} told, {waiting} open"
        )
        await asyncio.sleep(LOOK_S)


async def _look_after(outcome: Outcome, tell: Tell) -> None:
    """Who holds a slot when all is over, and who works."""
    redis = outcome.system.redis
    tell("everybody has left: looking for slots that are still held")
    outcome.held_at_end = await redis.live_leases()
    lease_s = parse_policy(outcome.case.policy).lease_ms / 1_000
    looks = math.ceil((lease_s + LEASE_SLACK_S) / LOOK_S)
    outcome.leases = outcome.held_at_end
    for _ in range(looks):
        if not outcome.leases:
            break
        await asyncio.sleep(LOOK_S)
        outcome.leases = await redis.live_leases()
    # A job that two instances had a hand in may still be at work for the one that gave it up.
    await asyncio.sleep(2 * outcome.case.system.service_ms / 1_000)
    outcome.leases = await redis.live_leases()
    said = await outcome.system.leave()
    outcome.running = {
        name: _jobs_in(line) for name, line in said.items() if line.startswith("leaving:")
    }
    outcome.failures += redis.failures
    outcome.failures += [f"{fault.kind} of {fault.target} could not be done: it never came up"
                         for fault in outcome.given_up]  # fmt: skip
    outcome.ended_ns = time.monotonic_ns()


def _jobs_in(line: str) -> int:
    """`leaving: 3 jobs to finish`."""
    return int(line.split()[1])


def recordings_of(outcome: Outcome) -> Path:
    """Where the instances recorded."""
    return outcome.folder / RECORDINGS
