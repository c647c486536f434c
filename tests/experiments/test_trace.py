"""Traces: valid events, nothing lost or invented, arrows that hold on to something, few words."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import simsched
from simsched.cli import main
from simsched.experiments import trace_steps
from simsched.experiments.replicate import KIND_NAMES
from simsched.experiments.trace import Trace
from simsched.experiments.trace_jobs import stages
from simsched.experiments.trace_links import Links
from simsched.experiments.trace_tables import BATCH_ROWS, JobRow, OperationRow, StepRow, Tables
from simsched.experiments.trace_tracks import Process, Span, Track, Tracks, nested
from simsched.steps import BY_NAME
from tests.live.test_record import recording

STUDY = """
name = "traced"
question = "What does a trace show?"
seed = 3
replications = 2
metric = "create_job_ms"
keep_steps = {keep}

[warmup]
end_s = 2

[scenario]
costs = "report"
load = 0.6
nodes = 6
slots = 2
instances = 2
shared = true
horizon_s = 15

[scenario.workload]
utterances = 3

[[variant]]
name = "published"
policy = "published"

[[variant]]
name = "safe"
base = "published"
policy = "safe"
"""

PAGE = (Path(__file__).parents[2] / "docs" / "trace.md").read_text(encoding="utf-8")

Event = dict[str, Any]
FIELDS = {
    "X": {"ph", "cat", "name", "pid", "tid", "ts", "dur", "args"},
    "C": {"ph", "name", "pid", "tid", "ts", "args"},
    "i": {"ph", "s", "cat", "name", "pid", "tid", "ts", "args"},
    "M": {"ph", "name", "pid", "tid", "args"},
    "s": {"ph", "cat", "name", "id", "pid", "tid", "ts"},
    "t": {"ph", "cat", "name", "id", "pid", "tid", "ts", "bp"},
    "f": {"ph", "cat", "name", "id", "pid", "tid", "ts", "bp"},
}


def study(folder: Path, *, keep: bool) -> Path:
    """Run the study; where it went."""
    folder.mkdir(exist_ok=True)
    file = folder / "traced.toml"
    file.write_text(STUDY.format(keep=str(keep).lower()))
    simsched.run(file, out=folder / "run", jobs=1)
    return folder / "run"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("simulated"), keep=True)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recording(tmp_path_factory.mktemp("live") / "run")


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["trace", *map(str, words)])


def file_of(folder: Path, *words: str) -> dict[str, Any]:
    """The trace of a folder as a viewer reads it."""
    result = command(folder, *words, "--out", folder / "seen.json")
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads((folder / "seen.json").read_bytes())
    return content


def events_of(folder: Path, *words: str) -> list[Event]:
    events: list[Event] = file_of(folder, *words)["traceEvents"]
    return events


@pytest.fixture(scope="module", params=["published", "safe", "live"])
def traced(request: pytest.FixtureRequest, simulated: Path, live: Path) -> tuple[Tables, Any]:
    """Tables and events of each kind of run."""
    folder = live if request.param == "live" else simulated
    trace = Trace(folder, variant=request.param)
    return trace.tables, events_of(folder, "--variant", request.param)


def ns(micros: float) -> int:
    return round(micros * 1000)


def slices(events: list[Event], *categories: str) -> list[Event]:
    return [e for e in events if e["ph"] == "X" and (not categories or e["cat"] in categories)]


def by_thread(events: list[Event]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Begin and end of every slice of each thread."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for e in slices(events):
        found[e["pid"], e["tid"]].append((ns(e["ts"]), ns(e["ts"]) + ns(e["dur"])))
    return found


def test_every_event_is_valid(traced: tuple[Tables, list[Event]]) -> None:
    """Known phases, their fields, numbers where numbers belong, and every track has a name."""
    _, events = traced
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    processes = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert {"X", "C", "M", "s", "t", "f"} <= {e["ph"] for e in events}
    for e in events:
        assert set(e) == FIELDS[e["ph"]], e
        assert type(e["pid"]) is int
        assert type(e["tid"]) is int
        assert e["pid"] in processes
        assert isinstance(e["name"], str)
        assert e["name"]
        for key in ("ts", "dur"):
            if key in e:
                assert math.isfinite(e[key])
                assert e[key] >= 0
                assert abs(e[key] * 1000 - ns(e[key])) < 1e-3, "whole nanoseconds"
        if e["ph"] in "Xistf":
            assert (e["pid"], e["tid"]) in named
        if e["ph"] == "C":
            assert all(isinstance(value, int | float) for value in e["args"].values())


def test_slices_of_a_thread_nest(traced: tuple[Tables, list[Event]]) -> None:
    """Two slices of one thread are apart, or one contains the other."""
    _, events = traced
    for thread, spans in by_thread(events).items():
        open_ends: list[int] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], thread
            open_ends.append(end)


def test_arrows_hold_on_to_slices_and_go_forward(traced: tuple[Tables, list[Event]]) -> None:
    """Each arrow begins once, ends once, and each of its points is inside a slice of its track."""
    tables, events = traced
    threads = by_thread(events)
    flows: dict[int, list[Event]] = defaultdict(list)
    for e in events:
        if e["ph"] in "stf":
            flows[e["id"]].append(e)
            spans = threads[e["pid"], e["tid"]]
            assert any(start <= ns(e["ts"]) < end for start, end in spans), e
    assert len(flows) == len(tables.jobs())
    for points in flows.values():
        points.sort(key=lambda e: e["ts"])
        assert "".join(e["ph"] for e in points)[0] == "s"
        assert Counter(e["ph"] for e in points)["s"] == Counter(e["ph"] for e in points)["f"] == 1
        assert points[-1]["ph"] == "f"
        assert all(a["ts"] < b["ts"] for a, b in pairwise(points))
        assert len({e["name"] for e in points}) == 1


def test_an_arrow_leads_from_the_cut_to_the_delivery(simulated: Path) -> None:
    """Through the finalize, the job, its creation, the store, its sending, its node, its answer."""
    tables = Trace(simulated, variant="safe").tables
    job = next(row for row in tables.jobs() if row.is_over and row.attempts == 1)
    events = events_of(simulated, "--variant", "safe", "--job", job.job)
    met = []
    for point in sorted((e for e in events if e["ph"] in "stf"), key=lambda e: e["ts"]):
        around = [
            e for e in slices(events, "operation", "job", "hold", "node")
            if (e["pid"], e["tid"]) == (point["pid"], point["tid"])
            and ns(e["ts"]) <= ns(point["ts"]) < ns(e["ts"]) + ns(e["dur"])
        ]  # fmt: skip
        (holder,) = around
        met.append(holder["name"] if holder["cat"] in ("operation", "hold") else holder["cat"])
    assert [name for name in met if name != "job_result"] == [
        "finalize", "job", "create_job", "create_job: redis.claim", "dispatch", "node", "job",
    ]  # fmt: skip
    assert 1 <= met.count("job_result") <= 2


def test_steps_add_up_to_the_table(traced: tuple[Tables, list[Event]]) -> None:
    """What is waited for and held, by track, is what the table says, to the nanosecond."""
    tables, events = traced
    want: Counter[str] = Counter()
    for row in tables.steps():
        for what, time in (("wait", row.wait_ns), ("hold", row.hold_ns)):
            want[f"step {what}"] += time
            if row.resource in ("lock", "core", "redis"):
                where = BY_NAME[row.step].lock if row.resource == "lock" else row.resource
                want[f"{where} {what}"] += time
    found: Counter[str] = Counter()
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events
        if e["ph"] == "M" and e["name"] == "thread_name"
    }  # fmt: skip
    for e in slices(events, "wait", "hold", "step", "step_wait"):
        if e["cat"].startswith("step"):
            found["step wait" if e["cat"] == "step_wait" else "step hold"] += ns(e["dur"])
            continue
        track = threads[e["pid"], e["tid"]]
        core = "core" if track.startswith("cores") else "redis"
        where = track.split()[1].rstrip(":") if track.startswith("lock ") else core
        found[f"{where} {e['cat']}"] += ns(e["dur"])
    assert +found == +want
    assert found["step hold"] > 0


def test_operations_and_jobs_are_all_there(traced: tuple[Tables, list[Event]]) -> None:
    """One slice each, with the times of the tables; a job's stages fill it."""
    tables, events = traced
    found = {
        e["args"]["operation"]: (e["name"], ns(e["ts"]), ns(e["dur"]))
        for e in slices(events, "operation")
    }
    rows = list(tables.operations())
    assert found == {row.operation: (row.kind, row.start_ns, row.latency_ns) for row in rows}
    assert len(slices(events, "operation")) == len(rows)
    jobs = {e["name"]: e for e in slices(events, "job")}
    assert len(jobs) == len(tables.jobs())
    for row in tables.jobs():
        assert ns(jobs[row.job]["ts"]) == row.cut_ns
        if row.is_over:
            assert ns(jobs[row.job]["dur"]) == row.last_ns - row.cut_ns
    whole = sum(ns(e["dur"]) for e in jobs.values())
    assert sum(ns(e["dur"]) for e in slices(events, "stage")) == whole


def test_shared_cores_and_exclusive_locks_are_never_held_twice(simulated: Path) -> None:
    """A lock that has only exclusive holders needs one lane."""
    events = events_of(simulated, "--variant", "safe")
    held = {e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert "lock session_runtime: held" in held
    assert "lock result_queue: held" in held
    assert "lock result_queue: held (2)" not in held


def test_counters_end_at_nothing_and_never_fall_below(traced: tuple[Tables, list[Event]]) -> None:
    """Jobs in flight and running are as many as the tables say, and all of them end."""
    tables, events = traced
    values: dict[str, list[float]] = defaultdict(list)
    last: dict[str, float] = {}
    for e in events:
        if e["ph"] == "C":
            values[e["name"]].append(e["args"]["value"])
            assert e["ts"] >= last.get(e["name"], 0)
            last[e["name"]] = e["ts"]
    assert "jobs in flight" in values
    for name, readings in values.items():
        assert min(readings) >= 0
        if not name.startswith("event loop"):
            assert readings[-1] == 0
            assert max(readings) >= 1
    nodes = {row.node for row in tables.jobs() if row.started_ns >= 0 and row.attempts == 1}
    assert {name for name in values if name.endswith(" running")} == {f"{n} running" for n in nodes}


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, simulated: Path) -> None:
    """Twice from one directory, and from a second run of the study."""
    again = study(tmp_path / "again", keep=True)
    written = []
    for folder in (simulated, simulated, again):
        assert command(folder, "--out", tmp_path / "t.json").exit_code == 0
        written.append((tmp_path / "t.json").read_bytes())
    assert written[0] == written[1] == written[2]


def test_one_job_is_a_part_of_the_whole(traced: tuple[Tables, list[Event]]) -> None:
    """With `--job` there is nothing that the whole trace has not, and nothing of other jobs."""
    tables, events = traced
    job = tables.jobs()[1]
    part = events_of(tables.path, "--variant", tables.variant, "--job", job.job)

    def content(e: Event) -> tuple[Any, ...]:
        return (e["cat"], e["name"], e["ts"], e["dur"], json.dumps(e["args"], sort_keys=True))

    assert {content(e) for e in slices(part)} <= {content(e) for e in slices(events)}
    assert 10 < len(part) < len(events)
    kinds = {e["name"] for e in slices(part, "operation")}
    assert {"create_job", "dispatch", "job_result"} <= kinds
    assert kinds <= {"finalize", "create_job", "dispatch", "job_result"}
    for e in slices(part, "operation", "hold", "wait"):
        assert job.job in e["args"]["job"].split(", ")
    assert [e["name"] for e in slices(part, "job")] == [job.job]
    assert {e["name"] for e in slices(part, "node")} == {job.job}
    assert len({e["id"] for e in part if e["ph"] in "stf"}) == 1
    assert not any(e["ph"] == "i" or e["name"].startswith("event loop") for e in part)


def test_a_job_without_a_variant_is_found_where_it_is(simulated: Path) -> None:
    """Job names tell the variants apart; without `--job` the first variant is drawn."""
    job = Trace(simulated, variant="safe").tables.jobs()[0].job
    assert file_of(simulated, "--job", job)["otherData"]["variant"] == "safe"
    assert file_of(simulated)["otherData"]["variant"] == "published"


def test_a_recording_shows_its_instance_and_the_loop(live: Path) -> None:
    """The instance by its name, sessions of operations, connections, how late the loop was."""
    events = events_of(live)
    names = [e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"]
    instance = simsched.load(live).manifest["recording"]["instance"]
    assert f"instance {instance}: operations" in names
    created = [e for e in slices(events, "operation") if e["name"] == "create_job"]
    assert all(e["args"]["session"] for e in created)
    assert all(e["args"]["job"].startswith(e["args"]["session"]) for e in created)
    assert any(e["ph"] == "i" and "opened" in e["name"] for e in events)
    assert any(e["ph"] == "C" and e["name"] == "event loop late (ms)" for e in events)


def test_the_page_explains_every_track(traced: tuple[Tables, list[Event]]) -> None:
    """Each kind of track and counter, and each stage of a job, has its words in docs/trace.md."""
    tables, events = traced
    threads = {e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    counters = {e["name"] for e in events if e["ph"] == "C"}
    own = {row.session for row in tables.jobs()} | set(KIND_NAMES)
    for name in threads | counters:
        kind = re.sub(r" \(\d+\)$", "", name)
        if kind in own:
            continue
        for known, general in (
            (r"^lock [^:]*", "lock NAME"),
            (r"^instance \S+", "instance"),
            (r"^[^\s:]+(?=:? (running|to come)$)", "NODE"),
        ):
            kind = re.sub(known, general, kind)
        assert f"`{kind}`" in PAGE, name
    assert all(f"`{e['name']}`" in re.sub(r"\s+", " ", PAGE) for e in slices(events, "stage"))


def test_the_file_goes_where_it_should(simulated: Path, tmp_path: Path) -> None:
    """By default into the run directory, to stdout for `-`, and never half."""
    result = command(simulated)
    assert result.exit_code == 0
    assert "trace.json" in result.output
    written = (simulated / "trace.json").read_bytes()
    piped = command(simulated, "--out", "-")
    assert piped.stdout_bytes == written
    assert "events of variant 'published'" in piped.stderr
    assert not list(simulated.glob("*.partial"))
    (simulated / "trace.json").unlink()
    assert simsched.load(simulated).jobs is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--variant", "saef"), "did you mean 'safe'?"),
        (("--job", "nobody"), "'nobody' is no job of 'published' or 'safe'; there are "),
        (("--replication", "1"), "only --replication 0 has them"),
        (("--replication", "7"), "must be 0 to 1"),
        (("--replication", "-1"), "must be 0 to 1"),
        (("--out", "no/such/folder/t.json"), "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    words: tuple[str, ...], says: str, simulated: Path
) -> None:
    """Exit code 2, one line, and what would be right."""
    result = command(simulated, *words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_run_without_steps_says_how_to_keep_them(tmp_path: Path) -> None:
    """A folder that is none, and a run that kept no steps."""
    assert "is no run directory" in command(tmp_path / "none").stderr
    folder = study(tmp_path / "s", keep=False)
    result = command(folder)
    assert result.exit_code == 2
    assert "--set keep_steps=true" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (folder / "trace.json").exists()


class Long(Tables):
    """A replication of any length, made up as it is read."""

    def __init__(self, operations: int) -> None:
        self.length = operations

    def jobs(self) -> list[JobRow]:
        return []

    def operations(self) -> Iterator[OperationRow]:
        for number in range(1, self.length + 1):
            yield OperationRow(number, "audio_chunk", 0, number * 1000, 900, "done", "")

    def steps(self) -> Iterator[StepRow]:
        for number in range(1, self.length + 1):
            for site in range(3):
                start = number * 1000 + site * 300
                yield StepRow(number, start, 0, 300, "audio_chunk",
                              "audio_buffer.add_chunk", site, 1, "lock", 0)  # fmt: skip


def drawn(tables: Tables) -> Iterator[Event]:
    """The operations and steps of made-up tables."""
    drawing = trace_steps.StepTracks(Tracks(), Links([], tables.operations()), str)
    return drawing.draw(tables, lambda _operation: True)


class Endless(Long):
    """The same, but no operation ends."""

    def operations(self) -> Iterator[OperationRow]:
        return iter(())


@pytest.mark.parametrize(("kind", "operations"), [(Long, 100), (Endless, 0)])
def test_steps_are_drawn_with_their_operation_or_alone(
    kind: type[Long], operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few steps are kept: nothing is lost, and what ends in time is drawn whole."""
    monkeypatch.setattr(trace_steps, "OPEN_MAX", 8)
    events = list(drawn(kind(100)))
    assert len(slices(events, "step")) == len(slices(events, "hold")) == 300
    assert len(slices(events, "operation")) == operations
    places = [place for place, e in enumerate(events) if e.get("cat") == "operation"]
    for place in places:
        assert [e["cat"] for e in events[place + 1 : place + 4]] == ["step"] * 3


def test_memory_does_not_grow_with_the_run() -> None:
    """Steps pass by: ten times the steps need no more memory."""
    peaks = []
    for length in (BATCH_ROWS // 8, BATCH_ROWS * 10 // 8):
        tables = Long(length)
        tracemalloc.start()
        count = sum(1 for _ in drawn(tables))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count >= 7 * length
    assert peaks[1] < 2 * peaks[0] + 100_000


def test_overlapping_spans_go_to_rows_in_which_they_nest() -> None:
    """Of two that overlap the later one gets a row of its own; of equal ones the last is outer."""

    def span(start: int, end: int, name: str) -> Span:
        return Span(start, end, name, "x", {})

    rows = nested([span(1, 4, "a"), span(3, 6, "b"), span(5, 5, "c"), span(0, 9, "d"),
                   span(0, 9, "whole")])  # fmt: skip
    assert [[s.name for s in row] for row in rows] == [["whole", "d", "a", "c"], ["b"]]


def test_a_slice_goes_to_the_first_lane_that_is_free() -> None:
    """There is another lane only if all are taken."""
    tracks, track = Tracks(), Track(Process(1, "p"), "t")
    lanes = []
    for start, end in ((0, 4), (1, 5), (4, 8), (5, 9), (9, 9), (9, 12), (8, 13)):
        events = list(tracks.put(track, [Span(start, end, "s", "x", {})]))
        lanes.append(next(e["tid"] for e in events if e["ph"] == "X"))
    assert lanes == [1, 2, 1, 2, 1, 1, 3]


def test_a_job_that_is_not_over_is_drawn_until_the_end() -> None:
    """Its last stage goes on, and it says so."""
    moments = dict.fromkeys(
        ("queued_ns", "started_ns", "finished_ns", "ended_ns", "delivered_ns"), -1
    )
    job = JobRow(
        number=1, job="j", session="s", utterance=0, target="en", node="n", attempts=1,
        status="open", reason="", cut_ns=10, created_ns=20, dispatched_ns=30, **moments,
    )  # fmt: skip
    whole, *parts = stages(job, 100)
    assert (whole.start_ns, whole.end_ns, whole.args["not_over"]) == (10, 100, True)
    assert [(p.name, p.start_ns, p.end_ns) for p in parts] == [
        ("creating", 10, 20), ("to be sent", 20, 30), ("on its way to the node", 30, 100),
    ]  # fmt: skip
