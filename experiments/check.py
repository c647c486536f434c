"""
`--check`: the same study again, in another process with another hash seed, must be the same.

Where it is not, the replication is played twice more with everything written down, and the first
event or step that differs is named. What is looked for is whatever else a run could depend on: the
order of a set, an address, the host's clock.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from simsched.errors import SimschedError
from simsched.experiments.load_share import loaded, pilots
from simsched.experiments.run_study import RunOptions
from simsched.experiments.runner import Runner
from simsched.experiments.runs import StudyRun
from simsched.experiments.study import Study
from simsched.experiments.workers import workers_for
from simsched.models.record import STEP_DTYPE
from simsched.models.world import Scenario, World
from simsched.steps import CATALOGUE
from simsched.telemetry import Event

Digests = dict[tuple[str, int], str]

_OTHER_SEED: Final = {"1": "2"}
"""The second run's PYTHONHASHSEED by the first's: 1, unless that is taken."""


def check_study(study: Study, run: StudyRun, options: RunOptions) -> None:
    """
    Run a study a second time and compare.

    Raises:
        SimschedError: the runs differ; names variant, replication and the first event or step.

    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "study").write_bytes(pickle.dumps((study, options)))
        _elsewhere("digests", place)
        second: Digests = pickle.loads((place / "digests").read_bytes())
        first = digests_of(run)
        for name, replication in first:
            if second.get((name, replication)) != first[name, replication]:
                raise SimschedError(_explain(study, name, replication, place))


def digests_of(run: StudyRun) -> Digests:
    """The fingerprint of every replication, in the study's order."""
    return {
        (name, replication.replication): replication.digest
        for name, variant in run.variants.items()
        for replication in variant.own()
    }


def _explain(study: Study, name: str, replication: int, place: Path) -> str:
    scenario = loaded(study.variant(name), pilots(study))
    (place / "task").write_bytes(pickle.dumps((scenario, study.seed, replication)))
    write_trace(scenario, study.seed, replication, place / "trace-here")
    _elsewhere("trace", place)
    found = first_difference(place / "trace-here", place / "trace")
    return f"not repeatable: variant {name!r}, replication {replication}: {found}"


def _elsewhere(action: str, place: Path) -> None:
    """Do `action` in a process of its own, whose hash seed is another one."""
    seed = _OTHER_SEED.get(os.environ.get("PYTHONHASHSEED", ""), "1")
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-m", "simsched.experiments.check", action, str(place)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise SimschedError(f"--check: the second run failed: {last}")


def _run_digests(place: Path) -> None:
    study, options = pickle.loads((place / "study").read_bytes())
    with workers_for(options.jobs, None) as workers:
        run = Runner(study, place / "run", workers).run()
    (place / "digests").write_bytes(pickle.dumps(digests_of(run)))


def _run_trace(place: Path) -> None:
    scenario, seed, replication = pickle.loads((place / "task").read_bytes())
    write_trace(scenario, seed, replication, place / "trace")


def write_trace(scenario: Scenario, seed: int, replication: int, path: Path) -> None:
    """Every event and every step of one replication as lines of text, in their order."""
    with path.open("w", encoding="utf-8") as file:

        def keep_steps(chunk: npt.NDArray[np.void]) -> None:
            file.writelines(_step_lines(chunk))

        def keep_event(event: Event) -> None:
            file.write(f"event {event!r}\n")

        world = World(scenario, seed=seed, replication=replication, sink=keep_steps)
        world.journal.listener = keep_event
        result = world.run()
        for name, column in result.operations.items():
            digest = hashlib.sha256(column.tobytes()).hexdigest()
            file.write(f"operations' column {name}: {digest}\n")


def _step_lines(chunk: npt.NDArray[np.void]) -> Iterator[str]:
    names = STEP_DTYPE.names
    assert names is not None
    for row in chunk.tolist():
        step = dict(zip(names, row, strict=True))
        step["step"] = CATALOGUE[step["step"]].name
        yield "step " + " ".join(f"{name}={value}" for name, value in step.items()) + "\n"


def first_difference(one: Path, other: Path) -> str:
    """The first line in which two traces differ, in words."""
    with one.open(encoding="utf-8") as mine, other.open(encoding="utf-8") as theirs:
        for number, line in enumerate(mine, start=1):
            there = theirs.readline()
            if line != there:
                return f"line {number}: {line.strip()} | {there.strip() or 'nothing'}"
        extra = theirs.readline()
    if extra:
        return f"after the last line of the first run: {extra.strip()}"
    return "played once more, both agree: it depends on what the first run met by chance"


if __name__ == "__main__":
    {"digests": _run_digests, "trace": _run_trace}[sys.argv[1]](Path(sys.argv[2]))
