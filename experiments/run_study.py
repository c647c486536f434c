"""From a study to its run directory: the one way in for the command line and for Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from simsched.errors import ConfigError
from simsched.experiments.answers import answer
from simsched.experiments.finished import write_whole
from simsched.experiments.progress import Progress
from simsched.experiments.results import (
    MANIFEST,
    SUMMARY,
    as_json,
    leave_nothing_empty,
    manifest,
    one_line_without_room,
    prepare,
    replaced,
    summary,
    write_tables,
)
from simsched.experiments.runner import Runner
from simsched.experiments.runs import StudyRun
from simsched.experiments.study import Study
from simsched.experiments.workers import workers_for
from simsched.models.fields import meant
from simsched.models.tasks import Ties

LANGUAGES: Final = ("en", "zh")
TIES: Final = ("fifo", "shuffle")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a study is run; see `simsched.run` for what each means."""

    seed: int | None = None
    replications: int | None = None
    settings: Sequence[str] | Mapping[str, Any] = ()
    quick: bool = False
    ties: str = "fifo"
    lang: str = "en"
    jobs: int | None = None
    cluster: str | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        for key, known in (("lang", LANGUAGES), ("ties", TIES)):
            value = getattr(self, key)
            if value not in known:
                raise ConfigError("option", key, f"{value!r}: {meant(str(value), known)}")
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError("option", "jobs", f"must be at least 1, not {self.jobs}")

    def study(self, name: str) -> Study:
        """The study under these options."""
        return Study.load(
            name,
            settings=self.settings,
            seed=self.seed,
            replications=self.replications,
            quick=self.quick,
            ties=cast("Ties", self.ties),
        )

    def command(self, name: str, study: Study, out: Path) -> str:
        """The one command that repeats the run."""
        settings = self.settings
        if isinstance(settings, Mapping):
            settings = [f"{key}={value}" for key, value in settings.items()]
        words = ["simsched", "experiment", "run", name, "--seed", str(study.seed)]
        if self.replications is not None:
            words += ["--replications", str(self.replications)]
        words += [word for text in settings for word in ("--set", text)]
        words += ["--quick"] if self.quick else []
        words += ["--ties", self.ties] if self.ties != "fifo" else []
        words += ["--lang", self.lang] if self.lang != "en" else []
        return shlex.join([*words, "--out", str(out)])


def default_out(study: Study) -> Path:
    """`runs/NAME-SEED`, and `-quick` for a quick one."""
    quick = "-quick" if study.quick else ""
    return Path("runs") / f"{study.name}-{study.seed}{quick}"


def run_named(name: str, options: RunOptions, progress: Progress | None = None) -> Path:
    """Load a study, run it, and say where its run directory is."""
    study = options.study(name)
    out = options.out or default_out(study)
    run_to_directory(study, out, options, options.command(name, study, out), progress)
    return out


def run_to_directory(
    study: Study, out: Path, options: RunOptions, command: str, progress: Progress | None = None
) -> StudyRun:
    """
    Run a study and write its directory; goes on where an interrupted run of the same stopped.

    Raises:
        SimschedError: the directory is not ours to write, a worker was lost, the disk is full.

    """
    prepare(out)
    try:
        with one_line_without_room(out), workers_for(options.jobs, options.cluster) as workers:
            runner = Runner(study, out, workers, progress)
            run = runner.run()
    except BaseException:
        leave_nothing_empty(out)
        raise
    run.quick, run.command = study.quick, command
    with one_line_without_room(out), replaced(out) as place:
        write_tables(place, run, runner.folder)
        verdicts = answer(run, study, place, options.lang)
        write_whole(place / SUMMARY, as_json(summary(run, verdicts)))
        write_whole(place / MANIFEST, as_json(manifest(run, study, command)))
    runner.folder.remove()
    return run
