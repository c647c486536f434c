"""The command `simsched`: what a user types, sees, and is told when it is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import simsched
from simsched.cli import main
from simsched.errors import SimschedError
from simsched.experiments import results
from tests.golden.renew import STUDY

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    "--jobs",
    "1",
    "--replications",
    "1",
    "--quick",
    "--set",
    "quick.variants=['one snapshot']",
]


def command(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    done = command("experiment", "run", str(STUDY), *QUICK, "--out", str(out))
    assert done.exit_code == 0, done.output
    return out


def test_a_run_ends_with_its_table_page_and_command(directory: Path) -> None:
    """The short table, where the page is, and the one command that repeats it."""
    done = command("experiment", "show", str(directory))

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("variant")
    assert [line.split("  ")[0] for line in lines[1:3]] == ["published", "one snapshot"]
    assert f"report  {directory}/report.html" in lines
    repeat = lines[-1]
    assert repeat.startswith("repeat  simsched experiment run ")
    assert "--seed 20" in repeat
    assert "--replications 1" in repeat
    assert "'quick.variants=['" in repeat or "quick.variants" in repeat


def test_the_same_seed_repeats_and_another_does_not(directory: Path, tmp_path: Path) -> None:
    """`summary.json` is byte-identical for the same study and seed."""
    for seed, same in (("20", True), ("21", False)):
        out = tmp_path / seed
        command("experiment", "run", str(STUDY), *QUICK, "--seed", seed, "--out", str(out))
        found = (out / "summary.json").read_bytes()
        assert (found == (directory / "summary.json").read_bytes()) is same


def test_a_run_directory_is_overwritten_and_nothing_else(tmp_path: Path, directory: Path) -> None:
    """An earlier run makes room; a folder that holds anything else is left alone."""
    (tmp_path / "precious.txt").write_text("mine")
    refused = command("experiment", "run", str(STUDY), *QUICK, "--out", str(tmp_path))
    again = command("experiment", "run", str(STUDY), *QUICK, "--out", str(directory))

    assert refused.exit_code == 2
    assert "no run directory" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    assert again.exit_code == 0


def test_a_failure_while_writing_costs_no_earlier_run(tmp_path: Path) -> None:
    """Results take an earlier run's place only when all are there; `{}` is no run's manifest."""
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(SimschedError, match="no run directory"):
        results.prepare(tmp_path)
    with pytest.raises(RuntimeError), results.replaced(tmp_path) as place:  # noqa: PT012
        (place / "manifest.json").write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (["experiment", "run", "reprot"], "unknown"),
        (["experiment", "run", "gone.toml"], "cannot be read"),
        (["experiment", "run", str(STUDY), "--set", "nodez=3"], "did you mean 'nodes'"),
        (["experiment", "run", str(STUDY), "--set", "workload.arrivals.rate_per_s=-1"], "rate"),
        (["experiment", "run", str(STUDY), "--jobs", "0"], "at least 1"),
        (["experiment", "run", str(STUDY), "--replications", "0"], "replications"),
        (["experiment", "run", str(STUDY), "--set", "costs=gone.toml"], "cannot be read"),
        (["experiment", "show", "."], "no complete run directory"),
        (["experiment", "show", "gone"], "is no run directory"),
        (["experiment", "compare", "gone", "gone"], "is no run directory"),
        (["experiment", "new", "my.txt"], "ends in .toml"),
        (["experimnt", "list"], "did you mean 'experiment'"),
        (["experiment", "rnu", "report"], "did you mean 'run'"),
        (["experiment", "run", str(STUDY), "--replication", "3"], "--replications"),
        (["experiment", "run", str(STUDY), "--lang", "fr"], "'en', 'zh'"),
        (["experiment", "run"], "Missing argument 'STUDY'"),
        (["experiment", "run", str(STUDY), "--jobs", "two"], "not a valid integer"),
        (["--quiet"], "--quiet"),
        (["policy", "show", "publishd"], "did you mean published"),
        (["policy", "compare", "safe", "safe,slots=many"], "slots"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], want: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, nothing written, one line on standard error that helps."""
    monkeypatch.chdir(tmp_path)
    done = command(*words)

    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("simsched: ")
    assert want in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("manifest.json", "{"), ("manifest.json", "[]"), ("manifest.json", '{"format": 99}'),
     ("summary.json", ""), ("manifest.json", None), ("summary.json", None)],
)  # fmt: skip
def test_a_damaged_run_directory_is_one_line(
    directory: Path, tmp_path: Path, name: str, content: str | None
) -> None:
    """A file that is missing, cut short or of another format is named."""
    for kept in ("manifest.json", "summary.json"):
        (tmp_path / kept).write_bytes((directory / kept).read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)

    done = command("experiment", "show", str(tmp_path))

    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_a_table_that_was_not_kept_is_named(directory: Path, tmp_path: Path) -> None:
    """A run without steps says so when they are asked for; a broken file too."""
    for kept in ("manifest.json", "summary.json"):
        (tmp_path / kept).write_bytes((directory / kept).read_bytes())
    (tmp_path / "jobs.parquet").write_text("rubbish")
    run = simsched.load(tmp_path)

    with pytest.raises(SimschedError, match="is not there"):
        _ = run.steps
    with pytest.raises(SimschedError, match="cannot be read"):
        _ = run.jobs


def test_two_runs_are_compared_with_intervals(directory: Path) -> None:
    """A run against itself: no difference, each with its interval."""
    done = command("experiment", "compare", str(directory), str(directory))

    assert done.exit_code == 0
    rows = done.stdout.splitlines()[1:]
    assert rows
    assert all("no interval" in row for row in rows)  # one replication has none, and says so


def test_new_writes_a_study_that_runs(tmp_path: Path) -> None:
    """From nothing to a first answer with two commands."""
    file = tmp_path / "my.toml"
    assert command("experiment", "new", str(file)).exit_code == 0
    again = command("experiment", "new", str(file))
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    done = command(
        "experiment", "run", str(file), "--quick", "--replications", "1", "--jobs", "1",
        "--set", "horizon_s=5", "--set", "quick.horizon_s=5", "--out", str(tmp_path / "out"),
    )  # fmt: skip

    assert done.exit_code == 0, done.output


def test_policies_are_shown_and_compared() -> None:
    """Every preset is listed; two differ in exactly the fields that are printed."""
    listed = command("policy", "list").stdout
    assert {"safe", "published", "shipped", "stage3"} <= {
        row.split()[0] for row in listed.splitlines()
    }
    shown = command("policy", "show", "safe,group_updates=separate").stdout
    assert any(row.split()[:2] == ["group_updates", "separate"] for row in shown.splitlines())
    for words in (["compare"], ["show"]):
        compared = command("policy", *words, "published", "published+1").stdout.splitlines()
        assert [row.split()[0] for row in compared] == ["field", "snapshot_reads"]


def test_starting_is_quick_because_heavy_packages_wait() -> None:
    """Neither `import simsched` nor the command's start loads what only some commands need."""
    code = "import sys, simsched, simsched.cli; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )

    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "pandas", "matplotlib", "scipy", "rich", "simpy", "pyarrow"}


@pytest.mark.parametrize("module", ["click", "numpy", "simsched.experiments.study"])
def test_ctrl_c_while_it_still_loads_is_one_line(module: str, tmp_path: Path) -> None:
    """Pressed during an import, of the command itself or of what it needs: nothing but a word."""
    (tmp_path / "press.py").write_text(
        "import sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Press())\n"
        "import runpy\n"
        "sys.argv[0] = 'simsched'\n"
        "runpy.run_module('simsched', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "press.py", "experiment", "list"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert done.returncode == 130, done.stderr
    assert done.stderr.split() == ["simsched:", "interrupted"]
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_keeps_what_was_finished(tmp_path: Path) -> None:
    """Interrupted from a terminal: exit code 130, no traceback, the command that goes on."""
    out = tmp_path / "out"
    words = ["experiment", "run", str(STUDY), "--jobs", "2", "--replications", "200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "simsched", *words, "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(out.glob(".replications/*-0000?")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "to go on: simsched experiment run" in errors
    assert errors.count("\n") == 1
    assert list(out.glob(".replications/*-0000?"))
    assert not (out / "summary.json").exists()


def test_python_door_runs_and_loads(tmp_path: Path) -> None:
    """`simsched.run` gives the run directory as an object with tables."""
    run = simsched.run(
        STUDY, out=tmp_path / "run", replications=1, quick=True,
        settings={"quick.variants": ["published"]},
    )  # fmt: skip

    assert run.summary["study"] == "small"
    assert set(run.jobs["status"]) <= {"completed", "failed", "open"}
    with pytest.raises(SimschedError, match="lang"):
        simsched.run(STUDY, lang="fr")
