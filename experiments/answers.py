"""
Who turns a study's runs into its page and its verdicts, by the study's `answers`.

An answer writes `report.html` into the run directory and gives back the rows of `verdicts` in
`summary.json`. Each is imported when it is needed: plots are slow to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from simsched.experiments.runs import StudyRun
from simsched.experiments.study import Study

Verdicts = Sequence[Mapping[str, Any]]
Answer = Callable[[StudyRun, Study, Path, str], Verdicts]

MODULES: Final[Mapping[str, str]] = {
    "compare": "simsched.experiments.compare_page",
    "report": "simsched.experiments.report",
    "load": "simsched.experiments.load_answers",
    "queue": "simsched.experiments.queue_answers",
    "root-cause": "simsched.experiments.root_cause",
}
"""Where the function `answer` of each kind of study lives."""


def answer(run: StudyRun, study: Study, out: Path, lang: str) -> Verdicts:
    """Write the page, give back the verdicts."""
    module = import_module(MODULES[study.answers])
    found: Answer = module.answer
    return found(run, study, out, lang)
