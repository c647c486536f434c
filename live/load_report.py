"""
What a load came to: the table at its end, `load.json`, and `jobs.parquet`.

`jobs.parquet` has the columns of a simulated run's, `variant` "load" and replication 0; what only
the server knows is -1 or "". `cut_ns` is when the cut was due, `delivered_ns` when the final answer
was here, both since the start of the load.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from simsched.errors import SimschedError
from simsched.live.load_session import Meters
from simsched.live.tally import NEVER, Entry, Line, Quantiles, Tally, quantiles

TIMES: Final = (
    "cut_ns", "created_ns", "queued_ns", "dispatched_ns", "started_ns", "finished_ns", "ended_ns",
    "delivered_ns",
)  # fmt: skip
STATUSES: Final = ("open", "completed", "failed")
"""As the table of a simulated run has them; a test holds both against each other."""

STATUS_OF: Final = {
    Line.ANSWERED: 1, Line.TWICE: 1, Line.MISSED: 1, Line.REFUSED: 2, Line.LOST: 0,
}  # fmt: skip

LATE_LIMIT_MS: Final = 50.0
"""A generator that wakes later than this (p99) cannot say what the server's latency is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """
    One load, done.

    Attributes:
        late: how much later than asked the generator woke.
        interrupted: whether it was stopped before its end.

    """

    tally: Tally
    meters: Meters
    seconds: float
    late: Quantiles
    interrupted: bool = False

    @property
    def kept_up(self) -> bool:
        """Whether the generator itself was fast enough for its figures to mean the server."""
        return not self.late.n or self.late.p99_ms <= LATE_LIMIT_MS

    @property
    def exit_code(self) -> int:
        """0; 1 if anything was lost, answered twice or out of order, or nothing was said at all."""
        return 0 if self.tally.is_clean and self.tally.utterances else 1

    def figures(self) -> dict[str, Any]:
        """Everything, for `load.json`."""
        tally, meters = self.tally, self.meters
        return {
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "sessions": meters.begun,
            "sessions_refused": dict(sorted(meters.refused.items())),
            "sessions_broken": dict(sorted(meters.closed.items())),
            "chunks": meters.chunks,
            "backpressure": meters.backpressure,
            "errors": dict(sorted(meters.errors.items())),
            "utterances": tally.utterances,
            **{line.value: tally.lines[line] for line in Line},
            "out_of_order": tally.out_of_order,
            "unforeseen": tally.unforeseen,
            "reasons": {
                line.value: dict(
                    sorted((r, n) for (at, r), n in tally.reasons.items() if at is line)
                )
                for line in (Line.MISSED, Line.REFUSED)
            },
            "cut_to_result_ms": _plain(quantiles(tally.result_times())),
            "cut_to_first_event_ms": _plain(quantiles(tally.first_event_times())),
            "connect_ms": _plain(quantiles(meters.connects)),
            "generator_late_ms": _plain(self.late),
            "generator_kept_up": self.kept_up,
            "longest_blocked_send_ms": meters.blocked / 1e6,
        }

    def table(self) -> str:
        """What a person reads at the end."""
        tally, meters = self.tally, self.meters
        lines = [
            f"{meters.begun} sessions, {meters.chunks} chunks, {self.seconds:.1f} s"
            + (", interrupted" if self.interrupted else ""),
            "",
            f"{'utterances':<16}{tally.utterances:>8}",
        ]
        names = {Line.ANSWERED: "answered once", Line.TWICE: "answered twice"}
        for line in Line:
            lines.append(f"  {names.get(line, line.value):<14}{tally.lines[line]:>8}")
            for (at, reason), count in sorted(tally.reasons.items()):
                if at is line and line is not Line.TWICE:
                    lines.append(f"    {reason:<28}{count:>8}")
        lines.append(f"  {'out of order':<14}{tally.out_of_order:>8}")
        lines += ["", f"{'ms':<22}{'n':>8}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}"]
        lines += [
            _row("cut to result", quantiles(tally.result_times())),
            _row("cut to first event", quantiles(tally.first_event_times())),
            _row("connect", quantiles(meters.connects)),
            _row("generator late", self.late),
        ]
        return "\n".join(lines + self._remarks())

    def _remarks(self) -> list[str]:
        """What has to be known to read the table rightly."""
        tally, meters, said = self.tally, self.meters, [""]
        for what, counts in (
            ("sessions refused", meters.refused),
            ("sessions broken", meters.closed),
            ("errors without an utterance", meters.errors),
        ):
            if counts:
                listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
                said.append(f"{what}: {listed}")
        if not self.kept_up:
            said.append(
                f"The generator could not keep up: it woke {self.late.p99_ms:.0f} ms late (p99). "
                "Its latencies are its own as much as the server's: use fewer sessions."
            )
        if tally.unforeseen:
            said.append(
                f"{tally.unforeseen} utterances were cut that were not foreseen: the server's "
                "segmentation is not the file's, and times from the cut are unreliable."
            )
        if meters.backpressure:
            said.append(
                f"The server asked {meters.backpressure} times to slow down; load does not."
            )
        return said if len(said) > 1 else []

    def write(self, out: Path) -> None:
        """
        Write `jobs.parquet` and `load.json`.

        Raises:
            SimschedError: the folder cannot be written.

        """
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        try:
            out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.figures(), indent=2, sort_keys=True, allow_nan=False)
            (out / "load.json").write_text(f"{text}\n", encoding="utf-8")
            pq.write_table(pa.table(columns(self.tally.entries)), out / "jobs.parquet")
        except OSError as error:
            raise SimschedError(f"{out}: {error.strerror or error}") from None


def columns(entries: list[Entry]) -> Mapping[str, Any]:
    """The table of jobs, a column at a time."""
    import pyarrow as pa

    length = len(entries)
    never = np.full(length, NEVER, np.int64)
    status = np.array([STATUS_OF[e.line] for e in entries], np.int16)
    text = {
        "job": [e.job for e in entries],
        "session": [e.session for e in entries],
        "target": [e.target for e in entries],
        "node": [""] * length,
        "reason": [e.reason or ("" if e.line is Line.ANSWERED else e.line.value) for e in entries],
    }
    known = {
        "cut_ns": np.array([e.cut_ns for e in entries], np.int64),
        "delivered_ns": np.array([e.answered_ns for e in entries], np.int64),
    }
    return {
        "variant": _named(np.zeros(length, np.int16), ["load"]),
        "replication": np.zeros(length, np.int32),
        **{name: known.get(name, never) for name in TIMES},
        "utterance": np.array([e.utterance for e in entries], np.int64),
        "attempts": never,
        "phase": np.zeros(length, np.int8),
        **{name: pa.array(column, pa.string()) for name, column in text.items()},
        "status": _named(status, list(STATUSES)),
    }


def _named(indices: Any, names: list[str]) -> Any:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(names))


def _row(name: str, q: Quantiles) -> str:
    if not q.n:
        return f"  {name:<20}{0:>8}{'-':>10}{'-':>10}{'-':>10}{'-':>10}"
    times = (q.p50_ms, q.p95_ms, q.p99_ms, q.max_ms)
    return f"  {name:<20}{q.n:>8}" + "".join(f"{ms:>10.1f}" for ms in times)


def _plain(q: Quantiles) -> dict[str, float | int | None]:
    """JSON has no NaN."""
    figures = q._asdict()
    return {name: None if math.isnan(value) else value for name, value in figures.items()}
