"""
Running a study: which replications, in which order, and when there are enough of them.

First the bases without a base: their runs decide where the warm-up ends, once, for everything that
is compared with them. Then all other variants. Then, where the study asks for a precision, more
pairs of the comparisons that are still too wide. Every decision rests on results in the order of
replications, never on who ended first: one worker or twenty give the same bytes.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from simsched.errors import SimschedError
from simsched.experiments.finished import FOLDER, FinishedFolder
from simsched.experiments.load_share import loaded, pilots
from simsched.experiments.measure import IntArray
from simsched.experiments.progress import Progress, Silent
from simsched.experiments.replicate import Task
from simsched.experiments.runs import Replication, StudyRun, VariantRun, Window
from simsched.experiments.statistics import cut_warmup, replications_needed
from simsched.experiments.study import Precision, Study, Variant
from simsched.experiments.workers import Workers
from simsched.models.world import SETTLE_NS, RunResult, Scenario
from simsched.telemetry import OpKind

Series = tuple[IntArray, IntArray]
"""Moments and values, in the order of time."""

PAIRS_MIN_MORE: Final = 2
"""A look costs some coverage: never look after a single pair more."""


class Runner:
    """
    One run of one study.

    Args:
        study: what to run.
        out: the run directory; finished replications are kept in it until the run is complete.
        workers: who simulates.
        progress: who is told how far it is.

    """

    def __init__(
        self, study: Study, out: Path, workers: Workers, progress: Progress | None = None
    ) -> None:
        self._study = study
        self._out = out
        self._workers = workers
        self._progress = progress or Silent()
        self._pilots = pilots(study)
        self._scenarios = {v.name: loaded(v, self._pilots) for v in study.variants}
        self._windows: dict[str, Window] = {}
        self._fixed = study.replications
        self._counts = dict.fromkeys(self._scenarios, self._fixed)
        self._pairs = dict(self._counts)
        self.folder = FinishedFolder(study, out / FOLDER, self._pilots)

    def run(self) -> StudyRun:
        """
        Run whatever is not finished yet.

        Raises:
            SimschedError: the disk is full, a worker was lost; what was finished is kept.

        """
        try:
            return self._run()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            kept = (
                f"what was finished is kept in {self._out}, make room and run again to go on"
                if any((self._out / FOLDER).iterdir())
                else "nothing was finished, make room and run again"
            )
            raise SimschedError(f"the disk is full: {kept}") from None

    def _run(self) -> StudyRun:
        study = self._study
        roots = [variant for variant in study.variants if variant.base is None]
        others = [variant for variant in study.variants if variant.base is not None]
        given = study.warmup_ns
        if given is not None:
            self._windows = {
                v.name: Window(SETTLE_NS + given, _last_ns(self._scenarios[v.name]))
                for v in study.variants
            }
            self._play(self._fixed_tasks(study.variants), study.name)
        else:
            self._play(self._fixed_tasks(roots), f"{study.name}: bases")
            self._decide_windows()
            if others:
                self._play(self._fixed_tasks(others), f"{study.name}: variants")
        run = self._collected()
        if study.precision is not None:
            run = self._narrowed(run, study.precision)
        return run

    def _fixed_tasks(self, variants: Iterable[Variant]) -> list[Task]:
        """Replication by replication, so that a run that is stopped has a bit of everything."""
        names = [variant.name for variant in variants]
        return [self._task(name, r) for r in range(self._fixed) for name in names]

    def _task(self, variant: str, replication: int) -> Task:
        return Task(
            variant=variant,
            replication=replication,
            seed=self._study.seed,
            scenario=self._scenarios[variant],
            window=self._windows.get(variant),
            keep_steps=self._study.keep_steps and replication == 0,
        )

    def _play(self, tasks: Sequence[Task], text: str) -> None:
        missing = [task for task in tasks if not self.folder.has(task.variant, task.replication)]
        self._progress.planned(text, len(missing))
        for finished in self._workers.finished(missing):
            self.folder.keep(finished)
            self._progress.advanced()

    def _decide_windows(self) -> None:
        """Where the warm-up of each base ends; its followers take the same moment."""
        starts: dict[str, Window] = {}
        for variant in self._study.variants:
            root = self._study.root_of(variant).name
            if root not in starts:
                starts[root] = self._window_of(root)
            found = starts[root]
            end = _last_ns(self._scenarios[variant.name])
            self._windows[variant.name] = Window(found.start_ns, end, found.method, found.settled)

    def _window_of(self, root: str) -> Window:
        results = []
        for replication in range(self._fixed):
            raw = self.folder.read(root, replication).raw
            assert raw is not None, "a base is measured only when its window is known"
            results.append(raw)
        return find_window(results, _last_ns(self._scenarios[root]))

    def _replications(self, variant: str, numbers: Iterable[int]) -> list[Replication]:
        window = self._windows[variant]
        found = []
        for number in numbers:
            measured = self.folder.read(variant, number).measured_in(window).measured
            assert measured is not None
            found.append(measured)
        return found

    def _collected(self) -> StudyRun:
        study = self._study
        return StudyRun(
            study=study.name,
            seed=study.seed,
            variants={
                v.name: VariantRun(
                    name=v.name,
                    base=v.base,
                    replications=self._replications(v.name, range(self._fixed)),
                    fixed=self._fixed,
                    pairs=self._fixed,
                )
                for v in study.variants
            },
            windows=self._windows,
            pilots=self._pilots,
        )

    def _narrowed(self, run: StudyRun, precision: Precision) -> StudyRun:
        """More pairs, until every comparison is as narrow as was asked for."""
        while wanted := self._wanted_pairs(run, precision):
            tasks = []
            for name, pairs in wanted.items():
                variant = run.variants[name]
                assert variant.base is not None
                variant.pairs = pairs
                for longer in (variant, run.variants[variant.base]):
                    have = len(longer.replications)
                    tasks += [self._task(longer.name, r) for r in range(have, pairs)]
            unique = {(task.variant, task.replication): task for task in tasks}
            self._play(list(unique.values()), self._towards(run, precision))
            for name in dict.fromkeys(variant for variant, _ in unique):
                longer = run.variants[name]
                have = len(longer.replications)
                last = max(r for variant, r in unique if variant == name)
                longer.replications += self._replications(name, range(have, last + 1))
        return run

    def _wanted_pairs(self, run: StudyRun, precision: Precision) -> dict[str, int]:
        """How many pairs each comparison needs that is still too wide."""
        wanted = {}
        for variant in self._study.variants:
            pairs = run.variants[variant.name].pairs
            found = run.saving(variant.name, variant.metric)
            if found is None or pairs is None or pairs >= precision.most:
                continue
            saving = found.saving
            if saving.half_width <= precision.target or not math.isfinite(saving.half_width):
                continue
            guess = replications_needed(saving, precision.target)
            more = max(pairs + PAIRS_MIN_MORE, min(guess, 2 * pairs))
            wanted[variant.name] = min(more, precision.most)
        return wanted

    def _towards(self, run: StudyRun, precision: Precision) -> str:
        widths = [
            found.saving.half_width
            for variant in self._study.variants
            if (found := run.saving(variant.name, variant.metric)) is not None
        ]
        return f"{self._study.name}: +-{max(widths):.3g} ms, towards +-{precision.target:g} ms"


def _last_ns(scenario: Scenario) -> int | None:
    """When the last sessions arrive, so that load begins to fall."""
    return None if scenario.horizon_ns is None else SETTLE_NS + scenario.horizon_ns


def find_window(results: Sequence[RunResult], end_ns: int | None) -> Window:
    """
    Where the warm-up of these replications ends: MSER-5 on two series, the later of the two cuts.

    The series are the latencies of job creation in the order of their beginnings, and the times
    from the cut to the end of the job in the order of the cuts; a place in a series becomes the
    latest moment at which any replication reached it.
    """
    whole = Window(SETTLE_NS, end_ns)
    moments = [SETTLE_NS]
    settled = True
    for series in (_creations, _answers):
        pairs = [series(result, whole) for result in results]
        if min(len(times) for times, _ in pairs) == 0:
            continue
        cut = cut_warmup([values for _, values in pairs])
        moments.append(max(int(times[cut.cut]) for times, _ in pairs) if cut.cut else SETTLE_NS)
        settled = settled and cut.settled
    return Window(max(moments), end_ns, "MSER-5", settled)


def _creations(result: RunResult, window: Window) -> Series:
    columns = result.operations
    mine = (columns["kind"] == int(OpKind.CREATE_JOB)) & window.holds(columns["start_ns"])
    return _by_time(columns["start_ns"][mine], columns["latency_ns"][mine])


def _answers(result: RunResult, window: Window) -> Series:
    cut, ended = np.asarray(result.jobs["cut_ns"]), np.asarray(result.jobs["ended_ns"])
    mine = (ended >= 0) & window.holds(cut)
    return _by_time(cut[mine], (ended - cut)[mine])


def _by_time(times: IntArray, values: IntArray) -> Series:
    order = np.argsort(times, kind="stable")
    return times[order], values[order]
