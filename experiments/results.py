"""
The run directory: what a study leaves behind, written once and read by everybody.

`summary.json` is the answer in numbers: the same bytes for the same study and seed, on any machine,
with any number of workers. `manifest.json` says what was run. The tables are Parquet; every row
names its variant and replication. docs/studies.md documents all of it.
"""

from __future__ import annotations

import errno
import io
import json
import math
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simsched.errors import SimschedError
from simsched.experiments.finished import FOLDER, FinishedFolder, write_whole
from simsched.experiments.intervals import Estimate, twelve_digits
from simsched.experiments.metrics import METRICS, metric_of
from simsched.experiments.replicate import KIND_NAMES, PARQUET, RESOURCE_NAMES
from simsched.experiments.runs import StudyRun, VariantRun
from simsched.experiments.study import Study
from simsched.models.record import RESOURCE_LOCK, RESOURCE_REDIS
from simsched.steps import CATALOGUE

SUMMARY: Final = "summary.json"
MANIFEST: Final = "manifest.json"
REPORT: Final = "report.html"
TRACE: Final = "trace.json"
TABLES: Final = ("jobs", "operations", "steps", "locks", "redis", "calls", "metrics")
"""The Parquet files, without their suffix."""

STAGING: Final = ".writing"
"""Where results are written before they take the place of an earlier run's."""

FORMAT: Final = 1
"""Number of the run directory's format; another one cannot be read."""

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the quota, or what one file may hold, is exhausted."""

PACKAGES: Final = ("simpy", "msgspec", "immutables", "numpy", "lupa", "pyarrow")


def variant_digest(run: VariantRun) -> str:
    """A fingerprint of a variant's own replications; its name is not part of it."""
    lines = "\n".join(replication.digest for replication in run.own())
    return sha256(lines.encode()).hexdigest()


def study_digest(run: StudyRun) -> str:
    """A fingerprint of all variants."""
    pairs = sorted((name, variant_digest(variant)) for name, variant in run.variants.items())
    return sha256(json.dumps(pairs).encode()).hexdigest()


def number(value: float) -> float | int | None:
    """A number as JSON can say it, without the noise of its last bits."""
    if isinstance(value, int):
        return value
    return twelve_digits(value) if math.isfinite(value) else None


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """What `summary.json` says of one number."""
    return {
        "estimate": number(estimate.estimate),
        "half_width": number(estimate.half_width),
        "unit": estimate.unit,
        "replications": estimate.replications,
    }


def metric_names(run: VariantRun) -> list[str]:
    """Everything measured in any of its own replications, known metrics first."""
    found = dict.fromkeys(name for replication in run.own() for name in replication.metrics)
    return [name for name in METRICS if name in found] + sorted(
        name for name in found if name not in METRICS
    )


def call_counts(run: VariantRun) -> dict[str, Any]:
    """
    Calls per operation: kind and phase -> method -> mean, fewest and most.

    Steps that the call tree counts under one name are added up; `fewest` and `most` are then those
    of the sum only if every operation takes the same steps, else bounds of it.
    """
    calls: dict[str, dict[str, dict[str, float]]] = {}
    for kind, phase in sorted({key for r in run.own() for key in r.operations}):
        operations = sum(r.operations.get((kind, phase), 0) for r in run.own())
        methods: dict[str, dict[str, float]] = {}
        steps = dict.fromkeys(s for r in run.own() for s in r.calls.get((kind, phase), {}))
        for step in sorted(steps):
            totals = [t for r in run.own() if (t := r.calls.get((kind, phase), {}).get(step))]
            present = [r for r in run.own() if r.operations.get((kind, phase), 0)]
            entry = methods.setdefault(
                CATALOGUE[step].method, {"mean": 0.0, "fewest": 0, "most": 0}
            )
            entry["mean"] += sum(t.calls for t in totals) / operations
            if len(totals) == len(present):
                entry["fewest"] += min(t.fewest for t in totals)
            entry["most"] += max(t.most for t in totals)
        for entry in methods.values():
            entry["mean"] = twelve_digits(entry["mean"])
        name = KIND_NAMES[kind] if phase == 0 else f"{KIND_NAMES[kind]}.phase{phase}"
        calls[name] = methods
    return calls


def summary(run: StudyRun, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `summary.json`."""
    return {
        "study": run.study,
        "seed": run.seed,
        "digest": study_digest(run),
        "variants": {name: _variant_json(variant) for name, variant in run.variants.items()},
        "verdicts": [_plain(verdict) for verdict in verdicts],
    }


def _variant_json(run: VariantRun) -> dict[str, Any]:
    metrics = {}
    for name in metric_names(run):
        found = run.estimate(name, metric_of(name).unit)
        assert found is not None
        metrics[name] = estimate_json(found)
    names = sorted(dict.fromkeys(name for r in run.own() for name in r.violations))
    return {
        "digest": variant_digest(run),
        "metrics": metrics,
        "violations": {n: sum(r.violations.get(n, 0) for r in run.own()) for n in names},
        "calls": call_counts(run),
    }


def _plain(value: Any) -> Any:
    """Any answer's row as JSON can say it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return number(value) if isinstance(value, float) else value


def manifest(run: StudyRun, study: Study, command: str) -> dict[str, Any]:
    """The content of `manifest.json`: what was run, with what, and how to repeat it."""
    return {
        "format": FORMAT,
        "command": command,
        "digest": study_digest(run),
        "seed": run.seed,
        "study": _plain(study.resolved()),
        "versions": {
            "simsched": version("simsched"),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "warmup": {name: asdict(window) for name, window in run.windows.items()},
        "pilots": {name: _plain(asdict(pilot)) for name, pilot in run.pilots.items()},
        "replications": {
            name: {"own": len(v.own()), "run": len(v.replications), "pairs": v.pairs}
            for name, v in run.variants.items()
        },
    }


def as_json(value: Mapping[str, Any]) -> bytes:
    """Sorted keys, two spaces, a line feed at the end: the same bytes for the same value."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def prepare(out: Path) -> None:
    """
    Make the run directory, or clear an earlier run out of it.

    Raises:
        SimschedError: something else lies there.

    """
    if out.exists() and not out.is_dir():
        raise SimschedError(f"{out}: is a file, not a run directory")
    if out.exists() and any(out.iterdir()) and not is_run_directory(out):
        raise SimschedError(f"{out}: is no run directory and not empty: choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimschedError(f"{out}: cannot be made: {error.strerror}") from None


@contextmanager
def one_line_without_room(out: Path) -> Iterator[None]:
    """
    What cannot be written to a run directory, as one line that says what to do.

    Raises:
        SimschedError: the disk is full, or refuses; finished replications stay where they are.

    """
    try:
        yield
    except OSError as error:
        folder = out / FOLDER
        kept = (
            f"what was finished is kept in {out}"
            if folder.is_dir() and any(folder.iterdir())
            else "nothing was finished"
        )
        if error.errno in NO_ROOM:
            text = f"the disk is full: {kept}, make room and run again to go on"
        elif error.errno in (errno.EACCES, errno.EROFS, errno.EIO):
            text = f"{out}: cannot be written ({error.strerror}): {kept}"
        else:
            raise
        raise SimschedError(text) from None


def leave_nothing_empty(out: Path) -> None:
    """After a run that failed before anything was finished: take its empty folders away."""
    for folder in (out / FOLDER, out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def is_run_directory(path: Path) -> bool:
    """Whether a run wrote it, or was interrupted while it did."""
    if (path / FOLDER).is_dir():
        return True
    try:
        found = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "format" in found


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A folder to write results to; they take the earlier run's place only when all are there."""
    staging = out / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        clear(out)
        # The manifest last: with it the directory is complete.
        for path in sorted(staging.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def clear(out: Path) -> None:
    """Take away an earlier run's results, so that old and new never stand side by side."""
    for name in (MANIFEST, SUMMARY, REPORT, TRACE, *(f"{table}.parquet" for table in TABLES)):
        (out / name).unlink(missing_ok=True)


def write_tables(out: Path, run: StudyRun, folder: FinishedFolder) -> None:
    """All Parquet files."""
    owned = [(name, r.replication) for name, v in run.variants.items() for r in v.own()]
    _join(out / "jobs.parquet", (folder.read(*key).jobs for key in owned))
    first = [key for key in owned if key[1] == 0]
    _join(out / "operations.parquet", (folder.read(*key).operations for key in first))
    _join(out / "steps.parquet", (folder.read(*key).steps for key in first))
    rows = list(_step_rows(run))
    _write(out / "locks.parquet", [r for r in rows if r["resource"] == "lock"])
    _write(out / "redis.parquet", [r for r in rows if r["resource"] == "redis"])
    _write(out / "calls.parquet", list(_call_rows(run)))
    _write(out / "metrics.parquet", list(_metric_rows(run)))


def _join(path: Path, parts: Iterable[bytes]) -> None:
    """One file of many, a row group at a time."""
    partial = path.with_name(f"{path.name}.partial")
    writer: pq.ParquetWriter | None = None
    try:
        for part in parts:
            if not part:
                continue
            file = pq.ParquetFile(io.BytesIO(part))
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                if writer is None:
                    writer = pq.ParquetWriter(partial, table.schema, **PARQUET)
                writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        partial.replace(path)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer, **PARQUET)
        write_whole(path, buffer.getvalue())


def _step_rows(run: StudyRun) -> Iterable[dict[str, Any]]:
    for name, variant in run.variants.items():
        for replication in variant.own():
            for row in replication.steps:
                if row.resource in (RESOURCE_LOCK, RESOURCE_REDIS):
                    columns = asdict(row)
                    columns["kind"] = KIND_NAMES[row.kind]
                    columns["resource"] = RESOURCE_NAMES[row.resource]
                    yield {
                        "variant": name,
                        "replication": replication.replication,
                        **columns,
                        "simulated_ns": replication.simulated_ns,
                    }


def _call_rows(run: StudyRun) -> Iterable[dict[str, Any]]:
    for name, variant in run.variants.items():
        for replication in variant.own():
            for (kind, phase), steps in replication.calls.items():
                for step, totals in steps.items():
                    yield {
                        "variant": name,
                        "replication": replication.replication,
                        "kind": KIND_NAMES[kind],
                        "phase": phase,
                        "step": CATALOGUE[step].name,
                        "method": CATALOGUE[step].method,
                        "operations": replication.operations.get((kind, phase), 0),
                        **asdict(totals),
                    }


def _metric_rows(run: StudyRun) -> Iterable[dict[str, Any]]:
    for name, variant in run.variants.items():
        for replication in variant.replications:
            for metric, value in replication.metrics.items():
                yield {
                    "variant": name,
                    "replication": replication.replication,
                    "metric": metric,
                    "unit": metric_of(metric).unit,
                    "value": float(value),
                }
