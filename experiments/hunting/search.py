"""
Many schedules over many processes, and what they found.

Schedule `number` is the same whoever plays it, so the findings of a hunt of so many schedules do
not depend on how many processes looked. Each process takes a block of numbers at a time and sends
back what it counted: how often each fault hit which step, and the breaches by cause, each with the
first schedule that showed it. The hunt ends with its schedules, with its time, at the first finding
if asked, or with Ctrl-C; what was found until then stands.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Final

from simsched.cases import Case
from simsched.errors import SimschedError
from simsched.experiments.hunting.causes import Cause, cause_of
from simsched.experiments.hunting.draw import draw_case
from simsched.models.hunted import play
from simsched.models.tape import Tape

BLOCK: Final = 20
"""Schedules that a process takes at a time."""


class HuntFailed(SimschedError):
    """The hunt itself failed, not what it hunts: says at which schedule."""


@dataclass(slots=True)
class Found:
    """One cause: how many schedules showed it, and the first of them."""

    count: int
    number: int


@dataclass(slots=True)
class Tally:
    """What a number of schedules came to."""

    schedules: int = 0
    events: int = 0
    simulated_ns: int = 0
    departures: int = 0
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    found: dict[Cause, Found] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take another tally in; the order does not matter."""
        self.schedules += other.schedules
        self.events += other.events
        self.simulated_ns += other.simulated_ns
        self.departures += other.departures
        self.hits.update(other.hits)
        for cause, one in other.found.items():
            known = self.found.setdefault(cause, Found(0, one.number))
            known.count += one.count
            known.number = min(known.number, one.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """What is hunted for: the policy as it is played, and which schedules."""

    policy: str
    schedules: int
    seed: int = 1
    size: str = "small"

    def play(self, number: int) -> tuple[Case, Tally]:
        """One schedule: the case that replays it, and its tally."""
        case, rates = draw_case(self.policy, self.seed, number, self.size)
        played = play(case, tape=Tape.drawing(case.seed, rates), hashed=False)
        tally = Tally(1, played.events, played.ended_ns, len(played.tape), Counter(played.hit))
        for violation in played.violations:
            tally.found.setdefault(cause_of(violation), Found(1, number))
        return replay_of(case, played.tape), tally


def replay_of(case: Case, tape: dict[str, int]) -> Case:
    """The case with the departures that were drawn for it."""
    return Case(
        policy=case.policy, seed=case.seed, system=case.system, turns=case.turns,
        faults=case.faults, tape=tape,
    )  # fmt: skip


def play_block(hunt: Hunt, numbers: range) -> Tally:
    """One process's share."""
    total = Tally()
    for number in numbers:
        try:
            total.add(hunt.play(number)[1])
        except Exception as error:
            raise HuntFailed(
                f"schedule {number} of seed {hunt.seed} ({hunt.policy}) could not be played: "
                f"{type(error).__name__}: {error}"
            ) from error
    return total


def search(
    hunt: Hunt, *, jobs: int, limit_s: float, first: bool, tell: Callable[[Tally, float], None]
) -> tuple[Tally, float]:
    """
    Play the schedules.

    Args:
        hunt: which.
        jobs: processes; 1 plays them here.
        limit_s: stop after so long, 0: never.
        first: stop at the first finding.
        tell: is told how far it is, after every block.

    Returns:
        The tally, and the seconds it took.

    """
    blocks = (
        range(start, min(start + BLOCK, hunt.schedules))
        for start in range(0, hunt.schedules, BLOCK)
    )
    total, began = Tally(), time.monotonic()
    parts = _here(hunt, blocks) if jobs == 1 else _spread(hunt, blocks, jobs)
    try:
        for part in parts:
            total.add(part)
            seconds = time.monotonic() - began
            tell(total, seconds)
            if (first and total.found) or (limit_s and seconds > limit_s):
                break
    except KeyboardInterrupt:
        pass
    finally:
        parts.close()
    return total, time.monotonic() - began


def _here(hunt: Hunt, blocks: Iterator[range]) -> Generator[Tally, None, None]:
    yield from map(partial(play_block, hunt), blocks)


def _spread(hunt: Hunt, blocks: Iterator[range], jobs: int) -> Generator[Tally, None, None]:
    # What a process has imported stays: nobody need look through it for garbage.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=gc.freeze) as pool:
        running: dict[Future[Tally], range] = {}
        try:
            for block in blocks:
                running[pool.submit(play_block, hunt, block)] = block
                if len(running) >= 2 * jobs:
                    yield from _ended(running)
            while running:
                yield from _ended(running)
        except BrokenProcessPool:
            first = min(block.start for block in running.values())
            last = max(block.stop for block in running.values()) - 1
            raise HuntFailed(
                f"a process died while schedules {first} to {last} of seed {hunt.seed} were played "
                f"({hunt.policy}); --jobs 1 plays them in one"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ended(running: dict[Future[Tally], range]) -> Iterator[Tally]:
    """Wait for one block at least; those that have ended leave `running`."""
    for one in wait(running, return_when=FIRST_COMPLETED).done:
        tally = one.result()
        del running[one]
        yield tally
