"""
simsched: one scheduling core for real-time speech translation, simulated and live.

    import simsched
    run = simsched.run("report", quick=True)     # or simsched.load("runs/report-1")
    run.jobs                                     # a DataFrame

Both doors are opened when they are used: importing simsched is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simsched.experiments.loading import Run

__all__ = ["load", "run"]


def run(
    study: str | Path,
    *,
    out: str | Path | None = None,
    seed: int | None = None,
    replications: int | None = None,
    jobs: int | None = 1,
    settings: Sequence[str] | Mapping[str, Any] = (),
    quick: bool = False,
    lang: str = "en",
    cluster: str | None = None,
    ties: str = "fifo",
) -> Run:
    """
    Run a study and open its run directory.

    Args:
        study: the name of a packaged study or the path of a file.
        out: the run directory; None: `runs/NAME-SEED`.
        seed: instead of the study's.
        replications: instead of the study's.
        jobs: worker processes; 1: this process (safe in a notebook), None: all cores.
        settings: overrides, `{"scenario.nodes": 200}` or `["scenario.nodes=200"]`.
        quick: the study's rougher, faster form.
        lang: language of report.html, `en` or `zh`.
        cluster: address of a Dask scheduler.
        ties: order of simultaneous events, `fifo` or `shuffle`.

    Raises:
        SimschedError: a setting is wrong, the directory is not ours to write, the disk is full.

    """
    from simsched.experiments.loading import load_run
    from simsched.experiments.run_study import RunOptions, run_named

    options = RunOptions(
        seed=seed, replications=replications, settings=settings, quick=quick, ties=ties, lang=lang,
        jobs=jobs, cluster=cluster, out=None if out is None else Path(out),
    )  # fmt: skip
    return load_run(run_named(str(study), options))


def load(path: str | Path) -> Run:
    """
    Open a run directory.

    Raises:
        SimschedError: there is none, or it cannot be read.

    """
    from simsched.experiments.loading import load_run

    return load_run(path)
