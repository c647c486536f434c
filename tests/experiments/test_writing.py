"""Writing a run directory: a full disk, an interruption, columns that are empty somewhere."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner, Result

from simsched.cli import main
from simsched.experiments import replicate, results, run_study
from simsched.experiments.progress import Silent
from simsched.experiments.replicate import Task
from simsched.experiments.run_study import RunOptions, run_to_directory
from simsched.experiments.study import Study
from simsched.models.journal import NAMES, TIMES, WORDS
from tests.golden.renew import STUDY

SETTINGS = ["quick.variants=['one snapshot', 'safe']"]


def command(out: Path, *words: str) -> Result:
    fixed = ["experiment", "run", str(STUDY), "--quick", "--jobs", "1", "--out", str(out)]
    return CliRunner().invoke(main, [*fixed, "--set", SETTINGS[0], *words])


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run directory, without the folder of what is not complete."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("writing") / "run"
    assert command(out).exit_code == 0
    return content(out)


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (results, "_join"),
        (results, "write_whole"),
        (run_study, "answer"),
        (run_study, "write_whole"),
    ],
    ids=["the tables", "a small table", "the page", "the numbers"],
)
def test_a_disk_that_fills_up_after_the_runs_costs_nothing(
    owner: Any, name: str, earlier: dict[str, bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One line and exit code 2; the earlier run stands, and nothing has to be run again."""
    out = tmp_path / "run"
    out.mkdir()
    for file, was in earlier.items():
        (out / file).write_bytes(was)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, no_room)
        full = command(out)

    assert full.exit_code == 2, full.output
    assert full.stderr.startswith("simsched: the disk is full: what was finished is kept in")
    assert full.stderr.count("\n") == 1
    assert full.stdout == ""
    assert content(out) == earlier
    kept = sorted(path.name for path in (out / ".replications").iterdir())
    assert len(kept) == 8
    monkeypatch.setattr(replicate, "simulate", None)  # nobody may need it again
    assert command(out).exit_code == 0
    assert {f: c for f, c in content(out).items() if f != "manifest.json"} == {
        f: c for f, c in earlier.items() if f != "manifest.json"
    }


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_limit_on_file_sizes_is_told_like_a_full_disk(
    earlier: dict[str, bytes], tmp_path: Path
) -> None:
    """The operating system's own refusal, not a pretended one."""
    import resource

    out = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        full = command(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert full.exit_code == 2, full.output
    assert full.stderr.startswith("simsched: the disk is full")
    assert full.stderr.count("\n") == 1
    assert not out.exists()
    assert earlier


def test_a_resumed_run_leaves_the_bytes_of_one_go(
    earlier: dict[str, bytes], tmp_path: Path
) -> None:
    """Interrupted after three replications: every file but the manifest's command is the same."""
    study = Study.load(STUDY, settings=SETTINGS, quick=True)
    options = RunOptions(jobs=1, settings=SETTINGS, quick=True)
    out = tmp_path / "run"

    class Impatient(Silent):
        """Presses Ctrl-C after a while."""

        left = 3

        def advanced(self) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_to_directory(study, out, options, "", Impatient())
    assert len(list((out / ".replications").iterdir())) == 3
    run_to_directory(study, out, options, "")

    resumed = content(out)
    assert list(resumed) == list(earlier)
    assert {n for n in resumed if resumed[n] != earlier[n]} == {"manifest.json"}


def jobs_part(replication: int, **words: list[str | None]) -> bytes:
    """The job table of a replication of two jobs, as it is kept."""
    columns: dict[str, Any] = {name: np.zeros(2, np.int64) for name in TIMES}
    columns |= {name: ["a", "b"] for name in (*NAMES, *WORDS)}
    columns |= {"status": np.zeros(2, np.int8), **words}
    task: Any = SimpleNamespace(variant="v", replication=replication)
    assert Task.__dataclass_fields__.keys() >= {"variant", "replication"}
    result: Any = SimpleNamespace(jobs=columns)
    return replicate.job_file(task, result)


@pytest.mark.parametrize("empty_first", [True, False])
def test_a_column_that_is_empty_in_one_replication_joins_the_others(
    empty_first: bool, tmp_path: Path
) -> None:
    """No reason anywhere in one replication, some in the other, no job at all in a third."""
    none: list[str | None] = [None, None]
    parts = [jobs_part(0, reason=none), jobs_part(1, reason=["LATE", None])]
    nobody: dict[str, Any] = {name: np.zeros(0, np.int64) for name in TIMES}
    nobody |= {name: [] for name in (*NAMES, *WORDS)} | {"status": np.zeros(0, np.int8)}
    task: Any = SimpleNamespace(variant="v", replication=2)
    empty = replicate.job_file(task, SimpleNamespace(jobs=nobody))  # type: ignore[arg-type]
    ordered = parts if empty_first else parts[::-1]

    results._join(tmp_path / "jobs.parquet", [empty, *ordered, b""])

    table = pq.read_table(tmp_path / "jobs.parquet").to_pylist()
    by_replication: dict[int, list[str | None]] = {0: [None, None], 1: ["LATE", None]}
    order = [0, 1] if empty_first else [1, 0]
    assert [row["reason"] for row in table] == [r for n in order for r in by_replication[n]]
    assert [row["replication"] for row in table] == [n for n in order for _ in range(2)]
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.parquet"]
