"""A study gives the same bytes wherever and however it is run; what would break that is caught."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simsched.errors import SimschedError
from simsched.experiments.check import check_study, first_difference
from simsched.experiments.results import as_json, summary
from simsched.experiments.run_study import RunOptions
from simsched.experiments.runner import Runner
from simsched.experiments.runs import StudyRun
from simsched.experiments.study import Study
from simsched.experiments.workers import LocalProcesses
from simsched.models.workload import Workload
from tests.golden.renew import STUDY, digests, known, play

pytestmark = pytest.mark.determinism

ROOT = Path(__file__).resolve().parents[2]

ELSEWHERE = """
import sys
from simsched.experiments.results import as_json, summary
from simsched.experiments.study import Study
from tests.golden.renew import STUDY, play
sys.stdout.buffer.write(as_json(summary(play(Study.load(STUDY)), [])))
"""

PLANT = """
import {module}
from simsched.models.workload import Workload
honest = Workload._pause
Workload._pause = lambda self, key, i, order: honest(self, key, i, order) + {sin}
"""

SINS = {
    "hash order": ("time", 'next(iter({"a", "b", "c", "d", "e", "f", "g"})).encode()[0]'),
    "host clock": ("time", "time.time_ns() % 1_000_003"),
}


@pytest.fixture(scope="module")
def run() -> StudyRun:
    return play(Study.load(STUDY))


def summary_bytes(run: StudyRun) -> bytes:
    return as_json(summary(run, []))


def environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **changes}


def test_twice_is_once(run: StudyRun) -> None:
    """A second run in the same process, after the first has left its traces, is the same."""
    assert summary_bytes(play(Study.load(STUDY))) == summary_bytes(run)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_hash_seed_does_not_matter(run: StudyRun, hash_seed: str) -> None:
    """Nothing depends on the order of a set, on `hash()` or on an address."""
    command = [sys.executable, "-c", ELSEWHERE]
    changes = environment(PYTHONHASHSEED=hash_seed)
    ended = subprocess.run(command, env=changes, cwd=ROOT, capture_output=True, check=True)

    assert ended.stdout == summary_bytes(run)


def test_worker_processes_do_not_matter(run: StudyRun, tmp_path: Path) -> None:
    """Two worker processes, who finish in any order, give the bytes of one."""
    with LocalProcesses(2) as workers:
        spread = Runner(Study.load(STUDY), tmp_path, workers).run()

    assert summary_bytes(spread) == summary_bytes(run)


def test_a_variant_that_changes_nothing_is_its_base(run: StudyRun) -> None:
    """Common random numbers are common: same settings, same digest, whatever the name."""
    found = digests(run)

    assert found["nothing changed"] == found["published"]
    assert found["one snapshot"] != found["published"]


def test_a_further_variant_changes_no_other(run: StudyRun) -> None:
    """Without the others, a variant's own numbers are what they were with them."""
    keep = ["published", "one snapshot"]
    alone = play(Study.load(STUDY, settings={"quick.variants": keep}, quick=True))

    together = summary(run, [])["variants"]
    assert list(alone.variants) == keep
    assert summary(alone, [])["variants"] == {name: together[name] for name in keep}


def test_digests_are_those_that_were_kept(run: StudyRun) -> None:
    """The golden digests of this architecture; docs/studies.md says when to renew them."""
    kept = known().get(platform.machine())
    if kept is None:
        pytest.skip(f"no digests were kept for {platform.machine()}")

    assert digests(run) == kept


@pytest.mark.parametrize("sin", list(SINS))
def test_planted_sins_are_caught(sin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` sees a run that depends on hash order or host clock, and names the first event."""
    module, code = SINS[sin]
    (tmp_path / "sitecustomize.py").write_text(PLANT.format(module=module, sin=code))
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    honest = Workload._pause
    # Here the letter depends on this process, there on the other one's hash seed.
    here = 0 if sin == "hash order" else time.time_ns() % 1_000_003
    monkeypatch.setattr(Workload, "_pause", lambda self, *place: honest(self, *place) + here)
    study = Study.load(STUDY, settings={"quick.variants": ["published"]}, quick=True)
    run = play(study)

    with pytest.raises(SimschedError, match=r"'published', replication 0: line .* at_ns="):
        check_study(study, run, RunOptions(jobs=1))


def test_an_honest_study_passes_the_check(run: StudyRun) -> None:
    """`--check` has nothing to say about a study that repeats."""
    study = Study.load(STUDY, settings={"quick.variants": ["phase 2"]}, quick=True)

    check_study(study, play(study), RunOptions(jobs=1))


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    """The first line that differs, or what one trace has more, in words."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a\nb\nc\n")
    for text, found in (("a\nx\nc\n", "line 2: b | x"), ("a\n", "line 2: b | nothing")):
        other.write_text(text)
        assert first_difference(one, other) == found
    other.write_text("a\nb\nc\nd\n")
    assert first_difference(one, other) == "after the last line of the first run: d"
