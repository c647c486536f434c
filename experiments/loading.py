"""
Reading a run directory: numbers as they were written, tables as DataFrames on demand.

Tables are the Parquet files with two comforts: `variant` is a category in the study's order, and a
moment of a job that never came is missing (the files say -1), so that no mean can swallow it.
docs/analysis.md shows them at work.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simsched.errors import SimschedError
from simsched.experiments.results import FORMAT, MANIFEST, REPORT, SUMMARY
from simsched.models.journal import TIMES

if TYPE_CHECKING:
    import pandas as pd

KEPT_ON_REQUEST: Final = ("operations", "steps")
"""Tables that a run writes only if its study asks for them."""


class Run:
    """
    A run directory. Tables are read once, when first asked for.

    `summary` and `manifest` are what the JSON files say; docs/analysis.md has every column.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _read_json(path, MANIFEST)
        if self.manifest.get("format") != FORMAT:
            found = self.manifest.get("format")
            raise SimschedError(f"{path}: has format {found!r}, this simsched reads {FORMAT}")
        self.summary = _read_json(path, SUMMARY)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / REPORT

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """Every job of every variant's own replications; a moment that never came is missing."""
        table = self._table("jobs")
        for name in TIMES:
            moments = table[name].astype("Int64")
            table[name] = moments.mask(moments < 0)
        return table

    @cached_property
    def operations(self) -> pd.DataFrame:
        """Every operation with its latency, of replication 0."""
        return self._table("operations")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """Every step of replication 0."""
        return self._table("steps")

    @cached_property
    def locks(self) -> pd.DataFrame:
        """Totals, extremes and percentiles of lock waits and holds."""
        return self._table("locks")

    @cached_property
    def redis(self) -> pd.DataFrame:
        """The same of Redis calls."""
        return self._table("redis")

    @cached_property
    def calls(self) -> pd.DataFrame:
        """How often operations took each step."""
        return self._table("calls")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Every metric of every replication."""
        return self._table("metrics")

    def extra(self, name: str) -> pd.DataFrame:
        """A table that only recordings have: `connections`, `lag` or `decisions`."""
        import pandas as pd

        path = self.path / f"{name}.parquet"
        if not path.exists():
            raise SimschedError(f"{path}: is not there: only recordings have such a table")
        return pd.read_parquet(path)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.path / f"{name}.parquet"
        if not path.exists():
            wanted = ": set keep_steps = true in the study" if name in KEPT_ON_REQUEST else ""
            raise SimschedError(f"{path}: is not there: the run kept no such rows{wanted}")
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise SimschedError(f"{path}: cannot be read: {error}") from None
        order = [variant["name"] for variant in self.manifest["study"]["variants"]]
        table["variant"] = pd.Categorical(table["variant"], categories=order)
        return table


def _read_json(path: Path, name: str) -> dict[str, Any]:
    if not path.is_dir():
        raise SimschedError(f"{path}: is no run directory")
    try:
        content = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = sorted([*path.glob(f"*/{name}"), *path.glob(f"*/*/{name}")])
        hint = f"; there is one in {inside[0].parent}" if inside else ""
        raise SimschedError(
            f"{path}: is no complete run directory: no {name} in it{hint}"
        ) from None
    except (OSError, ValueError) as error:
        raise SimschedError(f"{path / name}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SimschedError(f"{path / name}: must hold an object, not {type(content).__name__}")
    return content


def load_run(path: str | Path) -> Run:
    """
    Open a run directory, or a live server's recording: its tables are made when needed.

    Raises:
        SimschedError: there is none, or it cannot be read.

    """
    from simsched.experiments import recorded

    folder = Path(path)
    if recorded.is_recording(folder):
        recorded.refresh(folder)
    return Run(folder)
