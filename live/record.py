"""
`--record DIR`: everything one instance measures, written down raw while it runs.

Steps, operations and lag are packed binary, facts and connections JSON lines; a header says what
the numbers mean and with what settings it ran. `simsched.load(DIR)` turns a recording into a run
directory. Rules:

- the event loop only packs into memory; a thread writes. Blocks go to the thread every quarter of
  a second or when they are large, and each is written at once: a killed process loses no more;
- `at_once` writes every fact as it happens, by the loop itself: a killed process then loses none
  (the rest is still packed), which is worth its price where processes are killed on purpose;
- memory is bounded: if the disk does not keep up, records are dropped and counted, and the
  recording says so;
- files only grow, and nothing is ever rewritten.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from simsched.errors import ConfigError
from simsched.live.sinks import NullSink
from simsched.placement import Choice
from simsched.policy import Policy
from simsched.steps import CATALOGUE, Kind, Shape, Step
from simsched.telemetry import Event, Operation, SessionClosed
from simsched.units import MS

FORMAT: Final = 1
HEADER: Final = "recording.json"
FILES: Final = {
    "steps": "steps.bin",
    "operations": "operations.bin",
    "sessions": "sessions.txt",
    "events": "events.jsonl",
    "lag": "lag.bin",
    "connections": "connections.jsonl",
    "decisions": "decisions.jsonl",
    "counts": "counts.jsonl",
}
"""What is recorded, by file."""

STEP: Final = struct.Struct("<qqqIIHHHBB")
"""Start, wait, hold (ns), operation, n, step, instance, site, 4 x kind + phase, resource: the
layout in which the simulated world keeps its steps."""

OPERATION: Final = struct.Struct("<qqqIBBH")
"""Number, start, latency (ns), session (line of sessions.txt), 4 x kind + phase, outcome, 0."""

LAG: Final = struct.Struct("<qq")
"""When, how late (ns)."""

BLOCK_BYTES: Final = 1 << 18
BLOCKS_MAX: Final = 64
"""Blocks that wait for the disk: at most 16 MiB, and then records are dropped."""

FLUSH_NS: Final = 250 * MS
MAX_U32: Final = (1 << 32) - 1
MAX_U16: Final = (1 << 16) - 1

_RESOURCES: Final = {Kind.LOCK: 1, Kind.CPU: 2, Kind.REDIS: 3, Kind.NET: 4, Kind.WAIT: 0}


def _resource(step: Step) -> int:
    """What a step contends for on one loop: a lock that no wait is held under is the core."""
    if step.kind is Kind.LOCK and step.shape is Shape.LEAF:
        return _RESOURCES[Kind.CPU]
    return _RESOURCES[step.kind]


RESOURCE_OF: Final = tuple(_resource(step) for step in CATALOGUE)


def policy_fields(policy: Policy) -> dict[str, Any]:
    """A policy as plain data."""
    return {name: getattr(policy, name) for name in policy.__slots__}


class Recorder(NullSink):
    """
    Records one instance into a folder.

    Args:
        directory: a new or an empty folder.
        at_once: write each fact as it happens, so that a killed process loses none.

    Raises:
        ConfigError: the folder cannot be made, or holds something.

    """

    def __init__(self, directory: Path, *, at_once: bool = False) -> None:
        _prepare(directory)
        self._directory = directory
        self._at_once = at_once
        self.dropped = 0
        self._files: dict[str, IO[bytes]] = {
            name: (directory / file).open("ab", buffering=0) for name, file in FILES.items()
        }
        self._blocks = {name: bytearray() for name in FILES}
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(BLOCKS_MAX)
        self._encode = msgspec.json.Encoder().encode
        self._sessions: dict[str, int] = {}
        self._lines = 0
        self._flushed_ns = 0
        self._writer = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._writer.start()

    def begin(self, header: Mapping[str, Any]) -> None:
        """Say what is recorded here: instance, settings, policies."""
        full = {"format": FORMAT, "steps": [step.name for step in CATALOGUE], **header}
        text = msgspec.json.format(msgspec.json.encode(full)) + b"\n"
        (self._directory / HEADER).write_bytes(text)

    # What is measured

    def step(
        self, step: Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int, site: int
    ) -> None:
        """One execution of a step; its start is when the wait was over."""
        block = self._blocks["steps"]
        block += STEP.pack(
            start_ns + wait_ns, wait_ns, own_ns, op.id & MAX_U32, min(n, MAX_U32), step.index, 0,
            min(site, MAX_U16), op.kind << 2 | op.phase, RESOURCE_OF[step.index],
        )  # fmt: skip
        self._mind("steps", block, start_ns + wait_ns + own_ns)

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        """An operation ended."""
        block = self._blocks["operations"]
        block += OPERATION.pack(
            op.id, op.started_ns, ended_ns - op.started_ns, self._session(op.session_id),
            op.kind << 2 | op.phase, outcome, 0,
        )  # fmt: skip
        self._mind("operations", block, ended_ns)

    def event(self, event: Event) -> None:
        """One fact."""
        if self._at_once:
            self._write_now("events", self._encode(event) + b"\n")
        else:
            self._line("events", event, event.at_ns)
        if type(event) is SessionClosed:
            self._sessions.pop(event.session, None)

    def count(self, name: str, amount: int) -> None:
        """A counter was added to."""
        self._line("counts", (name, amount), 0)

    def lag(self, at_ns: int, lag_ns: int) -> None:
        """The loop was late; also the clock that lets nothing wait for long."""
        self._blocks["lag"] += LAG.pack(at_ns, lag_ns)
        if at_ns - self._flushed_ns >= FLUSH_NS:
            self.flush(at_ns)

    def connection(self, at_ns: int, kind: str, name: str, what: str, detail: str) -> None:
        """Something befell a connection."""
        self._line("connections", (at_ns, kind, name, what, detail), at_ns)

    def choice(self, choice: Choice) -> None:
        """The core looked for nodes."""
        request = choice.request
        line = (
            choice.at_ns, request.session_id, request.utterance, request.source_language,
            request.target_language, choice.chosen, choice.asked.excluded, len(choice.snapshot),
        )  # fmt: skip
        self._line("decisions", line, choice.at_ns)

    # How it is put down

    def _session(self, name: str) -> int:
        known = self._sessions.get(name)
        if known is None:
            known = self._sessions[name] = self._lines
            self._lines += 1
            block = self._blocks["sessions"]
            block += name.replace("\n", " ").encode() + b"\n"
            if len(self._sessions) > MAX_U16:
                del self._sessions[next(iter(self._sessions))]
        return known

    def _line(self, name: str, value: object, at_ns: int) -> None:
        block = self._blocks[name]
        block += self._encode(value)
        block += b"\n"
        self._mind(name, block, at_ns)

    def _write_now(self, name: str, line: bytes) -> None:
        try:
            _write_all(self._files[name], line)
        except OSError:
            self.dropped += 1

    def _mind(self, name: str, block: bytearray, at_ns: int) -> None:
        if len(block) >= BLOCK_BYTES:
            self._hand_over(name)
        elif at_ns - self._flushed_ns >= FLUSH_NS:
            self.flush(at_ns)

    def flush(self, at_ns: int) -> None:
        """Hand everything to the writer."""
        self._flushed_ns = at_ns
        for name, block in self._blocks.items():
            if block:
                self._hand_over(name)

    def _hand_over(self, name: str) -> None:
        block = self._blocks[name]
        try:
            self._waiting.put_nowait((name, bytes(block)))
        except queue.Full:
            if name == "sessions":
                # Lines of this file are numbers elsewhere: it waits instead.
                return
            self.dropped += 1
        block.clear()

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            name, block = item
            try:
                _write_all(self._files[name], block)
            except OSError:
                self.dropped += 1

    def close(self) -> None:
        """Write what is left; takes as long as the disk does."""
        for name, block in self._blocks.items():
            if name == "counts" and self.dropped:
                block += self._encode(("recording_dropped", self.dropped)) + b"\n"
            if block:
                self._waiting.put((name, bytes(block)))
                block.clear()
        self._waiting.put(None)
        self._writer.join()
        for file in self._files.values():
            file.close()


def _write_all(file: IO[bytes], block: bytes) -> None:
    """An unbuffered file may take a part at a time."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        empty = not any(directory.iterdir())
    except OSError as error:
        raise ConfigError("record", "dir", f"a folder that can be made: {error.strerror}") from None
    if not empty:
        raise ConfigError("record", "dir", f"a new or empty folder; {directory} holds something")
