"""Recordings: what a server wrote down loads as a run, is checked, and survives a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import simsched
from simsched.errors import ConfigError, SimschedError
from simsched.experiments import recorded
from simsched.live import record
from simsched.live.record import OPERATION, STEP, Recorder
from simsched.live.settings import RecordSettings
from simsched.models import record as simulated
from simsched.steps import BY_NAME
from simsched.telemetry import NodeOffline, Operation, OpKind
from tests.live.live_world import run, settings_with
from tests.live.observed import observed


def recording(folder: Path, *, sessions: int = 3, utterances: int = 2) -> Path:
    """A short recording of a real server."""

    async def main() -> None:
        settings = settings_with(record=RecordSettings(dir=str(folder)))
        async with observed(settings) as world, world.working_node("n1"):
            await asyncio.gather(*(world.converse(utterances) for _ in range(sessions)))

    run(main())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recording(tmp_path_factory.mktemp("recording") / "run")


def test_the_layouts_of_both_worlds_are_the_same() -> None:
    """Steps are packed as the simulator packs them; operations as the reader unpacks them."""
    assert STEP.format == simulated.RECORD.format
    assert STEP.size == simulated.STEP_DTYPE.itemsize
    assert OPERATION.size == recorded.OPERATION_DTYPE.itemsize
    assert record.LAG.size == recorded.LAG_DTYPE.itemsize
    assert record.HEADER == recorded.HEADER


def test_a_recording_loads_as_a_run_with_every_table(folder: Path) -> None:
    """`simsched.load` makes the tables of a simulated run, and three more."""
    loaded = simsched.load(folder)
    assert len(loaded.jobs) == 6
    assert set(loaded.jobs["status"]) == {"completed"}
    for earlier, later in (("cut", "created"), ("created", "dispatched"), ("dispatched", "started"),
                           ("started", "finished"), ("finished", "delivered")):  # fmt: skip
        assert (loaded.jobs[f"{earlier}_ns"] <= loaded.jobs[f"{later}_ns"]).all(), later
    creations = loaded.operations[loaded.operations["kind"] == "create_job"]
    assert len(creations) == 6
    assert set(creations["session"]) == set(loaded.jobs["session"])
    assert set(loaded.operations["policy"]) == {"base"}
    steps = loaded.steps
    claims = steps[steps["step"] == "redis.claim"]
    assert len(claims) >= 6
    assert (claims["hold_ns"] > 0).all()
    assert (steps["wait_ns"] >= 0).all()
    selections = steps[steps["step"] == "select.index"]
    assert (selections["n"] == 1).all()
    assert len(loaded.redis) > 0
    assert len(loaded.calls) > 0
    assert {"create_job_ms", "job_result_ms", "end_to_end_ms"} <= set(loaded.metrics["metric"])
    assert loaded.extra("lag")["lag_ns"].ge(0).all()
    what = loaded.extra("connections")
    assert (what["what"] == "opened").sum() == 4
    assert len(loaded.extra("decisions")) >= 6


def test_the_checker_finds_nothing_wrong_and_has_looked(folder: Path) -> None:
    """The invariants of the simulator hold on the recording, and were put to the test."""
    loaded = simsched.load(folder)
    violations = loaded.summary["variants"]["live"]["violations"]
    assert violations
    assert not any(violations.values()), loaded.manifest["recording"]["violations"]
    checked = loaded.manifest["recording"]["checked"]
    assert all(checked[name] > 0 for name in ("I1", "I2", "I3", "I4", "I5", "I6", "I10", "I12"))
    assert loaded.manifest["recording"]["conservation"]["lost"] == 0


def test_a_broken_event_log_is_found(folder: Path, tmp_path: Path) -> None:
    """An answer that leaves twice, or never, is a violation of I3."""
    for name, breaks in (("twice", 2), ("never", 0)):
        broken = tmp_path / name
        broken.mkdir()
        for file in folder.iterdir():
            if file.suffix in (".bin", ".txt", ".jsonl") or file.name == record.HEADER:
                (broken / file.name).write_bytes(file.read_bytes())
        events = (broken / "events.jsonl").read_bytes().splitlines()
        at = next(i for i, line in enumerate(events) if b'"delivered"' in line)
        events[at : at + 1] = [events[at]] * breaks
        if name == "never":
            late = json.loads(events[-1])
            late |= {"event": "node_offline", "node": "x", "reason": "r", "instance": "i"}
            late = {k: late[k] for k in ("event", "node", "reason", "instance", "at_ns")}
            late["at_ns"] += 10**12
            events.append(json.dumps(late).encode())
        (broken / "events.jsonl").write_bytes(b"\n".join(events) + b"\n")
        violations = simsched.load(broken).summary["variants"]["live"]["violations"]
        assert violations["I3"] > 0, name


def test_conversion_happens_once_and_again_when_more_was_recorded(tmp_path: Path) -> None:
    """A second load reads the tables; a longer recording makes them anew."""
    here = recording(tmp_path / "run", sessions=1, utterances=1)
    first = simsched.load(here)
    stamp = (here / "manifest.json").stat().st_mtime_ns
    simsched.load(here)
    assert (here / "manifest.json").stat().st_mtime_ns == stamp
    with (here / "counts.jsonl").open("ab") as file:
        file.write(b'["odd",3]\n["half')
    again = simsched.load(here)
    assert again.manifest["recording"]["counters"]["odd"] == 3
    assert again.summary["digest"] == first.summary["digest"]


def test_what_was_half_written_is_left_out(tmp_path: Path) -> None:
    """A kill cuts lines and records anywhere."""
    here = recording(tmp_path / "run", sessions=1, utterances=1)
    whole = len(simsched.load(here).steps)
    for name in ("steps.bin", "operations.bin", "lag.bin"):
        with (here / name).open("ab") as file:
            file.write(b"\x01\x02\x03")
    with (here / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"job_cre')
    assert len(simsched.load(here).steps) == whole


KILLED = """
import sys, time
from pathlib import Path
from simsched.live.record import Recorder
from simsched.telemetry import Operation, SessionOpened
recorder = Recorder(Path(sys.argv[1]))
recorder.begin({})
for number in range(100):
    recorder.event(SessionOpened(at_ns=number, instance="i", session=f"s{number}"))
recorder.lag(10**9, 0)
while recorder._waiting.qsize():
    time.sleep(0.01)
time.sleep(0.2)
recorder.event(SessionOpened(at_ns=100, instance="i", session="unflushed"))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_server_loses_no_more_than_since_the_last_flush(tmp_path: Path) -> None:
    """SIGKILL leaves what was handed to the writer."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lines = (folder / "events.jsonl").read_bytes().splitlines()
    assert len(lines) == 100
    assert json.loads(lines[-1])["session"] == "s99"


def test_events_written_at_once_are_there_when_the_process_is_killed(tmp_path: Path) -> None:
    """Each is in its file when it has been told; without that it waits for the next flush."""
    event = NodeOffline(at_ns=5, instance="i-0", node="n-1", reason="gone")
    for at_once in (True, False):
        folder = tmp_path / str(at_once)
        recorder = Recorder(folder, at_once=at_once)
        recorder.event(event)
        recorder.event(event)
        lines = (folder / "events.jsonl").read_bytes().splitlines()
        assert len(lines) == (2 if at_once else 0)
        recorder.close()
        lines = (folder / "events.jsonl").read_bytes().splitlines()
        assert [msgspec.json.decode(line, type=NodeOffline) for line in lines] == [event, event]


def test_memory_is_bounded_and_drops_are_told(tmp_path: Path, monkeypatch: object) -> None:
    """A disk that does not move costs records, not memory, and the recording says so."""
    recorder = Recorder(tmp_path / "run")
    recorder._waiting.put(None)
    recorder._writer.join()
    op = Operation(int(OpKind.CREATE_JOB), 1, 1, "s", 0)
    for number in range(600_000):
        recorder.step(BY_NAME["redis.claim"], op, number, 0, 1, 1, 0)
    assert recorder.dropped > 0
    held = recorder._waiting.qsize() * record.BLOCK_BYTES
    assert held <= record.BLOCKS_MAX * record.BLOCK_BYTES
    for file in recorder._files.values():
        file.close()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    """Nothing is ever recorded over."""
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="empty folder"):
        Recorder(tmp_path)


def test_passwords_do_not_reach_the_recording(folder: Path) -> None:
    """The resolved settings are written, the store's address is not."""
    header = json.loads((folder / record.HEADER).read_bytes())
    assert header["settings"]["store"]["redis_url"] == ""
    assert header["policy"]["job_scheme"] == "claim"
    assert msgspec.to_builtins(settings_with())["limits"] == header["settings"]["limits"]


def test_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    """A recording of the future is not guessed at."""
    (tmp_path / record.HEADER).write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(SimschedError, match="another format"):
        simsched.load(tmp_path)
