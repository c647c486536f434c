"""
What a run writes down: steps, operations, events, and the digest over all of them.

Steps are the bulk (25 million in a long run): each is one `struct.pack_into` into a chunk of 64k
records. A full chunk is hashed, summed up with numpy, offered to a sink (a Parquet writer, say)
and written over: memory stays flat. Sums are whole numbers; histograms are log-linear with 32
buckets an octave, so a quantile is within 1.6 %; latencies of operations are kept exactly.

Times are nanoseconds. This file does not know what steps mean or where records are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from simsched.models.spool import Spool

CHUNK_RECORDS: Final = 1 << 16
"""Records per chunk: 2.6 MB, and numpy's fixed costs of a flush fall below 0.1 us a record."""

EVENT_BYTES: Final = 1 << 16
"""Lines of events are hashed so many bytes at a time."""

RECORD: Final = struct.Struct("<qqqIIHHHBB")

STEP_DTYPE: Final = np.dtype(
    [
        ("start_ns", "<i8"),  # when the wait was over
        ("wait_ns", "<i8"),  # in the queue before that
        ("hold_ns", "<i8"),  # in service after that
        ("op", "<u4"),
        ("n", "<u4"),
        ("step", "<u2"),
        ("instance", "<u2"),
        ("site", "<u2"),
        ("kind_phase", "u1"),  # 4 x kind of operation + phase
        ("resource", "u1"),  # a Resource
    ]
)
"""One step as the sink sees it; the layout of `RECORD`."""

RESOURCE_NONE: Final = 0
RESOURCE_LOCK: Final = 1
RESOURCE_CORE: Final = 2
RESOURCE_REDIS: Final = 3
RESOURCE_NET: Final = 4
"""What a step contended for, as executed: a lock step on a single loop occupies the core."""

_SUB_BITS: Final = 5
_BUCKETS: Final = (63 << _SUB_BITS) + 1
_MANTISSA_BITS: Final = 52
_EXPONENT_ONE: Final = 1023 << _SUB_BITS
_KIND_PHASES: Final = 64
_RESOURCES: Final = 8

IntArray = npt.NDArray[np.int64]
Sink = Callable[[npt.NDArray[np.void]], None]
"""Takes one chunk; the array is written over afterwards, so copy what is to be kept."""


def bucket_of(values: IntArray) -> IntArray:
    """The histogram bucket of each time; exact below 32 ns, 3.1 % wide above."""
    bits = (values + 1).astype(np.float64).view(np.int64)
    return (bits >> (_MANTISSA_BITS - _SUB_BITS)) - _EXPONENT_ONE


def bucket_middle(bucket: int) -> int:
    """The time in the middle of a bucket."""
    octave, part = divmod(bucket, 1 << _SUB_BITS)
    low = ((1 << _SUB_BITS) + part) << octave
    return (low + (1 << octave) // 2 >> _SUB_BITS) - 1


@dataclass(slots=True, eq=False)
class StepTotals:
    """All executions of one step in one kind and phase of operation on one sort of resource."""

    step: int
    kind: int
    phase: int
    resource: int
    count: int
    contended: int
    wait_ns: int
    hold_ns: int
    wait_ns_max: int
    hold_ns_max: int
    wait_histogram: IntArray
    hold_histogram: IntArray

    def wait_quantile_ns(self, share: float) -> int:
        """The waiting time that `share` of the executions do not exceed."""
        return quantile_ns([self.wait_histogram], share)

    def hold_quantile_ns(self, share: float) -> int:
        """The service time that `share` of the executions do not exceed."""
        return quantile_ns([self.hold_histogram], share)


def quantile_ns(histograms: Sequence[IntArray], share: float) -> int:
    """A quantile over several histograms together; 0 if they are empty."""
    total = np.sum(np.asarray(histograms), axis=0)
    count = int(total.sum())
    if count == 0:
        return 0
    rank = min(max(int(np.ceil(share * count)), 1), count)
    return bucket_middle(int(np.searchsorted(np.cumsum(total), rank)))


class StepRecorder:
    """Takes one record per executed step, and the domain's events as bytes."""

    def __init__(
        self, *, sink: Sink | None = None, operations: OperationRecorder | None = None
    ) -> None:
        self._sink = sink
        self._operations = operations
        self._buffer = bytearray(CHUNK_RECORDS * RECORD.size)
        self._pack = RECORD.pack_into
        self._offset = 0
        self._limit = len(self._buffer)
        self._steps_hash = sha256()
        self._events_hash = sha256()
        self._events = bytearray()
        self._totals: dict[int, StepTotals] = {}
        self.recorded = 0

    def add(
        self,
        start_ns: int,
        wait_ns: int,
        hold_ns: int,
        op: int,
        n: int,
        step: int,
        instance: int,
        site: int,
        kind_phase: int,
        resource: int,
    ) -> None:
        """Record one executed step; see `STEP_DTYPE` for the fields."""
        offset = self._offset
        self._pack(
            self._buffer, offset, start_ns, wait_ns, hold_ns, op, n, step, instance, site,
            kind_phase, resource,
        )  # fmt: skip
        self._offset = offset = offset + 40
        if offset == self._limit:
            self.flush()

    def record_event(self, line: bytes) -> None:
        """Add one event of the domain, already encoded, to the digest."""
        events = self._events
        events += len(line).to_bytes(4, "little")
        events += line
        if len(events) >= EVENT_BYTES:
            self._hash_events()

    def _hash_events(self) -> None:
        self._events_hash.update(self._events)
        self._events.clear()

    def flush(self) -> None:
        """Hash, sum up and hand on what was recorded since the last flush."""
        if not self._offset:
            return
        filled = memoryview(self._buffer)[: self._offset]
        self._offset = 0
        self._take(np.frombuffer(filled, dtype=STEP_DTYPE))

    def add_chunk(self, chunk: npt.NDArray[np.void]) -> None:
        """Record many steps at once, as somebody else wrote them down; see `STEP_DTYPE`."""
        self.flush()
        self._take(chunk)

    def _take(self, chunk: npt.NDArray[np.void]) -> None:
        self._steps_hash.update(chunk.tobytes())
        self.recorded += len(chunk)
        self._sum_up(chunk)
        if self._operations is not None:
            self._operations.count_calls(chunk)
        if self._sink is not None:
            self._sink(chunk)

    def _sum_up(self, chunk: npt.NDArray[np.void]) -> None:
        step = chunk["step"].astype(np.int64)
        keys = (step * _KIND_PHASES + chunk["kind_phase"]) * _RESOURCES + chunk["resource"]
        counts = np.bincount(keys)
        present = np.flatnonzero(counts)
        rows = np.zeros(len(counts), np.int64)
        rows[present] = np.arange(len(present))
        row = rows[keys]
        wait, hold = chunk["wait_ns"], chunk["hold_ns"]
        contended = np.bincount(row[wait > 0], minlength=len(present))
        sums = [_sum_by(row, values, len(present)) for values in (wait, hold)]
        peaks = [_max_by(row, values, len(present)) for values in (wait, hold)]
        spread = [_histogram_by(row, values, len(present)) for values in (wait, hold)]
        for place, key in enumerate(present.tolist()):
            totals = self._totals.get(key) or self._open_totals(key)
            totals.count += int(counts[key])
            totals.contended += int(contended[place])
            totals.wait_ns += int(sums[0][place])
            totals.hold_ns += int(sums[1][place])
            totals.wait_ns_max = max(totals.wait_ns_max, int(peaks[0][place]))
            totals.hold_ns_max = max(totals.hold_ns_max, int(peaks[1][place]))
            totals.wait_histogram += spread[0][place]
            totals.hold_histogram += spread[1][place]

    def _open_totals(self, key: int) -> StepTotals:
        rest, resource = divmod(key, _RESOURCES)
        step, kind_phase = divmod(rest, _KIND_PHASES)
        kind, phase = divmod(kind_phase, 4)
        empty = np.zeros(_BUCKETS, np.int64)
        totals = StepTotals(
            step, kind, phase, resource, 0, 0, 0, 0, 0, 0, empty, empty.copy()
        )  # fmt: skip
        self._totals[key] = totals
        return totals

    def totals(self) -> list[StepTotals]:
        """Everything so far, ordered by step, kind, phase and resource."""
        self.flush()
        return [self._totals[key] for key in sorted(self._totals)]

    def digest(self) -> str:
        """A fingerprint of all steps, operations and events so far, as hexadecimal digits."""
        self.flush()
        self._hash_events()
        whole = sha256(self._steps_hash.digest() + self._events_hash.digest())
        if self._operations is not None:
            whole.update(self._operations.column_bytes())
        return whole.hexdigest()


def _sum_by(row: IntArray, values: IntArray, count: int) -> IntArray:
    sums = np.zeros(count, np.int64)
    np.add.at(sums, row, values)
    return sums


def _max_by(row: IntArray, values: IntArray, count: int) -> IntArray:
    peaks = np.zeros(count, np.int64)
    np.maximum.at(peaks, row, values)
    return peaks


def _histogram_by(row: IntArray, values: IntArray, count: int) -> IntArray:
    cells = row * _BUCKETS + bucket_of(values)
    return np.bincount(cells, minlength=count * _BUCKETS).reshape(count, _BUCKETS)


@dataclass(slots=True)
class CallTotals:
    """How often operations of one kind and phase executed one step (the report's appendix A)."""

    calls: int = 0
    operations_with: int = 0
    fewest: int = 0
    most: int = 0


class OperationRecorder:
    """
    Exact latencies and outcomes of operations, and the number of steps that each took.

    An operation counts when it has ended, under the phase that it then has; the steps of those
    still open are carried from chunk to chunk.
    """

    def __init__(self) -> None:
        self._started = 0
        self._open: dict[int, None] = {}
        self._spool = Spool(
            {"op": "q", "start_ns": "q", "latency_ns": "q", "kind_phase": "B", "outcome": "B"}
        )
        recent = self._spool.recent
        self._ids = recent["op"]
        self._start_ns = recent["start_ns"]
        self._latency_ns = recent["latency_ns"]
        self._kind_phase = recent["kind_phase"]
        self._outcome = recent["outcome"]
        self._ended: dict[int, int] = {}  # operations by kind and phase whose steps are counted
        self._carried: tuple[IntArray, IntArray] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._calls: dict[tuple[int, int], CallTotals] = {}

    def __len__(self) -> int:
        return len(self._spool)

    def begin(self) -> int:
        """The number of a new operation."""
        self._started = number = self._started + 1
        self._open[number] = None
        return number

    def end(self, op: Any, now_ns: int, outcome: int) -> None:
        """An operation has ended; ending it again changes nothing."""
        if self._open.pop(op.id, self) is self:
            return
        self._ids.append(op.id)
        self._start_ns.append(op.started_ns)
        self._latency_ns.append(now_ns - op.started_ns)
        self._kind_phase.append(op.kind << 2 | op.phase)
        self._outcome.append(outcome)

    def ended(self, kind: int) -> int:
        """How many operations of a kind have ended."""
        phases = range(kind << 2, (kind << 2) + 4)
        return sum(self._ended.get(p, 0) + self._kind_phase.count(p) for p in phases)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """All ended operations, in the order of their ends."""
        columns = self._spool.columns()
        kind_phase = columns.pop("kind_phase")
        return {**columns, "kind": kind_phase >> 2, "phase": kind_phase & 3}

    def column_bytes(self) -> bytes:
        """The columns as little-endian bytes, for the digest."""
        return b"".join(
            column.astype(column.dtype.newbyteorder("<")).tobytes()
            for column in self.columns().values()
        )

    def count_calls(self, chunk: npt.NDArray[np.void]) -> None:
        """Count the steps of a chunk towards the operations that have ended by now."""
        pair = chunk["op"].astype(np.int64) << 16 | chunk["step"]
        new_pairs, new_counts = np.unique(pair, return_counts=True)
        pairs = np.concatenate((self._carried[0], new_pairs))
        counts = np.concatenate((self._carried[1], new_counts))
        pairs, place = np.unique(pairs, return_inverse=True)
        counts = _sum_by(place, counts, len(pairs))
        ended = np.array(self._ids, np.int64)
        kind_phase = np.array(self._kind_phase, np.int64)
        for value, count in enumerate(np.bincount(kind_phase).tolist()):
            self._ended[value] = self._ended.get(value, 0) + count
        self._spool.spill()
        order = np.argsort(ended)
        ended, kind_phase = ended[order], kind_phase[order]
        ops = pairs >> 16
        found = np.searchsorted(ended, ops)
        found[found == len(ended)] = 0
        done = ended[found] == ops if len(ended) else np.zeros(len(ops), bool)
        self._add_calls(kind_phase[found[done]], pairs[done] & 0xFFFF, counts[done])
        still_open = np.fromiter(self._open, np.int64, len(self._open))
        keep = np.isin(ops, still_open)
        self._carried = (pairs[keep], counts[keep])

    def _add_calls(self, kind_phase: IntArray, step: IntArray, counts: IntArray) -> None:
        keys, place = np.unique(kind_phase << 16 | step, return_inverse=True)
        sums = _sum_by(place, counts, len(keys))
        most = _max_by(place, counts, len(keys))
        fewest = np.full(len(keys), np.iinfo(np.int64).max)
        np.minimum.at(fewest, place, counts)
        operations = np.bincount(place, minlength=len(keys))
        for row, key in enumerate(keys.tolist()):
            totals = self._calls.setdefault((key >> 16, key & 0xFFFF), CallTotals())
            low = int(fewest[row])
            totals.fewest = min(totals.fewest, low) if totals.operations_with else low
            totals.calls += int(sums[row])
            totals.operations_with += int(operations[row])
            totals.most = max(totals.most, int(most[row]))

    def calls(self, kind: int, phase: int = 0) -> dict[int, CallTotals]:
        """
        Steps per ended operation of a kind and phase, by index of the step.

        Flush the step recorder first. `fewest` is 0 where some operation left the step out.
        """
        mine = kind << 2 | phase
        operations = self._ended.get(mine, 0) + self._kind_phase.count(mine)
        return {
            step: CallTotals(
                totals.calls,
                totals.operations_with,
                totals.fewest if totals.operations_with == operations else 0,
                totals.most,
            )
            for (kind_phase, step), totals in sorted(self._calls.items())
            if kind_phase == mine
        }
