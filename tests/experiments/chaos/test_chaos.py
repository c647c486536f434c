"""
Chaos in small: real processes, every kind of fault once, and every answer accounted for.

What is asserted is what must hold, whatever the machine's pace: nothing here looks at a time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from simsched.cases import Case, System, Turn, case_text, read_case
from simsched.cli import main
from simsched.experiments.chaos.breaking import KINDS_DONE
from simsched.faults import Fault
from simsched.live.embedded import server_programs

LIMIT_S = 60.0

POLICY = "safe,job_timeout_ms=4000,pending_ms=3000,lease_ms=3000"

FAULTS = (
    Fault(kind="node_crash", target="n-0", at_ms=800, for_ms=300),
    Fault(kind="instance_crash", target="i-1", at_ms=1_500, for_ms=300),
    Fault(kind="node_reconnect", target="n-1", at_ms=2_500, for_ms=200),
    Fault(kind="redis_failover", target="redis", at_ms=3_000, for_ms=200, lost=2),
    Fault(kind="node_hang", target="n-2", at_ms=3_500, for_ms=700),
    Fault(kind="partition", target="i-0/redis", at_ms=5_500, for_ms=300),
    Fault(kind="redis_restart", target="redis", at_ms=6_500, for_ms=200),
    Fault(kind="link_slow", target="c-2/instance", at_ms=7_000, for_ms=1_000, delay_ms=50),
    Fault(kind="redis_down", target="redis", at_ms=7_500, for_ms=300),
    Fault(kind="instance_pause", target="i-0", at_ms=8_500, for_ms=500),
)
"""Every kind that processes can be given, one after the other and sometimes two at once."""

needs_server = pytest.mark.skipif(
    next(server_programs(), "") == "", reason="no Redis server on this machine"
)


def small(faults: tuple[Fault, ...] = FAULTS, last_ms: int = 9_000) -> Case:
    """Two instances, three nodes, six clients that speak all the time."""
    turns = tuple(
        Turn(client=number % 6, at_ms=at_ms, audio_ms=100)
        for number, at_ms in enumerate(range(0, last_ms, 120))
    )
    return Case(
        policy=POLICY, seed=3, turns=turns, faults=faults,
        system=System(instances=2, nodes=3, slots=4, service_ms=250, heartbeat_ms=1_000),
    )  # fmt: skip


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runs(pid: int) -> bool:
    """Who has ended and is left to the system's first process to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_server
def test_what_breaks_costs_no_answer_and_no_slot(tmp_path: Path) -> None:
    """One fault of each kind: all is answered once or refused, in order, and every slot free."""
    file, out = tmp_path / "case.toml", tmp_path / "out"
    file.write_text(case_text(small()), encoding="utf-8")
    result = CliRunner().invoke(main, ["chaos", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads((out / "chaos.json").read_text())
    assert found["violations"] == []
    assert {name.split()[0] for name in found["faults"]} == set(KINDS_DONE)
    assert sum(found["faults"].values()) == len(FAULTS)
    utterances = found["utterances"]
    ends = ("translation_result", "missing_result", "error")
    assert sum(utterances.get(end, 0) for end in ends) == utterances["asked"] == len(small().turns)
    assert (utterances["never"], found["leases_leaked"]) == (0, {})
    assert found["checked"]["I3"] >= utterances["asked"]
    assert found["redis_writes_lost"][0] >= 2
    assert 1 <= found["recovery_ms"]["Redis back to first claim"]["times"] <= 3
    assert read_case(out / "case.toml") == small()
    lives = sorted(path.name for path in (out / "instances").iterdir())
    assert lives[:2] == ["i-0", "i-1"]
    assert lives[-1].startswith("i-1.")


@needs_server
def test_an_interrupted_run_leaves_nobody_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit code 130, and no process of ours is left."""
    file, out = tmp_path / "case.toml", tmp_path / "out"
    file.write_text(case_text(small((), last_ms=60_000)), encoding="utf-8")
    words = [sys.executable, "-m", "simsched", "chaos", str(file), "--out", str(out)]
    chaos = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        children = _children_of(chaos.pid, at_least=7)
        chaos.send_signal(signal.SIGINT)
        said, _ = chaos.communicate(timeout=LIMIT_S)
    finally:
        chaos.kill()
        chaos.wait()
    assert (chaos.returncode, said.strip()) == (130, "simsched: interrupted")
    assert not any(map(is_there, children))


@needs_server
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel is asked for it")
def test_a_killed_run_leaves_nobody_behind(tmp_path: Path) -> None:
    """Nobody is there to clean up, so the kernel does."""
    file, out = tmp_path / "case.toml", tmp_path / "out"
    file.write_text(case_text(small((), last_ms=60_000)), encoding="utf-8")
    words = [sys.executable, "-m", "simsched", "chaos", str(file), "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as chaos:
        children = _children_of(chaos.pid, at_least=7)
        chaos.kill()
    end = time.monotonic() + LIMIT_S
    while any(map(runs, children)):
        assert time.monotonic() < end
        time.sleep(0.01)


def _children_of(pid: int, at_least: int) -> list[int]:
    """Redis and its replica, two instances, three nodes."""
    end = time.monotonic() + LIMIT_S
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    while len(found := [int(word) for word in listed.read_text().split()]) < at_least:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found
