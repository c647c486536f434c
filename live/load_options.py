"""
What a load is: the same tables as a study's, read for the live generator.

The file is a study (`[scenario.workload]`, `[scenario.segmentation]`) or has `[workload]` and
`[segmentation]` at its top; all other tables of a study are left to the simulator.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simsched.chance import key_of
from simsched.errors import ConfigError
from simsched.live.dialling import address
from simsched.models.workload import Workload
from simsched.segmentation import SegmentationSettings

DEFAULT: Final[Mapping[str, Any]] = {"arrivals": {"kind": "poisson", "rate_per_s": 1.0}}
"""Without a file: a session a second, all else as `models/workload.py` has it."""

CLIENT_PATH: Final = "/ws/session"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """
    One load.

    Attributes:
        duration_s: until when sessions arrive and turns begin; None: until `sessions` are done.
        sessions: how many arrive at most; None: no limit.
        seed: of all draws; the same seed has the same speakers, here and in a simulation.
        answer_s: how long a session waits for its last answers.
        binary: ask for binary audio frames.
        segmentation: the server's numbers, to know when each cut is due.
        out: where `jobs.parquet` and `load.json` go.

    """

    url: str
    workload: Workload
    duration_s: float | None = 60.0
    sessions: int | None = None
    token: str = ""
    seed: int = 1
    answer_s: float = 60.0
    binary: bool = True
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    out: Path | None = None

    @property
    def run_key(self) -> int:
        """Of the draws: replication 0 of this seed, as the simulator has it."""
        return key_of("run", self.seed, 0)


def load_options(
    url: str,
    *,
    file: Path | None = None,
    rate_per_s: float | None = None,
    duration_s: float | None = 60.0,
    sessions: int | None = None,
    token: str = "",
    seed: int = 1,
    answer_s: float = 60.0,
    binary: bool = True,
    out: Path | None = None,
) -> LoadOptions:
    """
    Options from a command line; `rate_per_s` stretches the file's arrivals.

    Raises:
        ConfigError: one of them is wrong; names the file and the key.

    """
    workload, segmentation = read_load(file)
    if rate_per_s is not None:
        workload = workload.with_rate(rate_per_s)
    if duration_s is None and (sessions is None or workload.is_closed):
        raise ConfigError("load", "duration", "say --duration or --sessions, or it never ends")
    if duration_s is not None and not duration_s > 0:
        raise ConfigError("load", "duration", f"must be above 0, not {duration_s:g}")
    if sessions is not None and sessions < 1:
        raise ConfigError("load", "sessions", f"must be at least 1, not {sessions}")
    if not answer_s > 0:
        raise ConfigError("load", "answer", f"must be above 0, not {answer_s:g}")
    return LoadOptions(
        url=address(url, CLIENT_PATH),
        workload=workload,
        duration_s=duration_s,
        sessions=sessions,
        token=token,
        seed=seed,
        answer_s=answer_s,
        binary=binary,
        segmentation=segmentation,
        out=out,
    )


def read_load(file: Path | None) -> tuple[Workload, SegmentationSettings]:
    """
    The workload and the cut rules' numbers of a file.

    Raises:
        ConfigError: it cannot be read, or a key of either table is wrong.

    """
    if file is None:
        return Workload.parse(DEFAULT), SegmentationSettings()
    table = _toml(file)
    inside = isinstance(table.get("scenario"), Mapping)
    scenario: Any = table["scenario"] if inside else table
    where = f"{file}: scenario." if inside else f"{file}: "
    tables = {name: scenario.get(name, {}) for name in ("workload", "segmentation")}
    for name, inner in tables.items():
        if not isinstance(inner, Mapping):
            raise ConfigError(f"{where}{name}", "", "must be a table of keys")
    workload = dict(tables["workload"])
    if not workload and not inside:
        raise ConfigError(str(file), "workload", "is missing: a table [workload], as in a study")
    if "load" in scenario:
        # A share of the simulated system's capacity: which rate that is, only a simulation knows.
        workload.setdefault("arrivals", DEFAULT["arrivals"])
    parsed = Workload.parse(workload, f"{where}workload")
    return parsed, _segmentation(tables["segmentation"], f"{where}segmentation")


def _segmentation(table: Mapping[str, Any], where: str) -> SegmentationSettings:
    known = SegmentationSettings.__slots__
    for name, value in table.items():
        if name not in known:
            raise ConfigError(where, name, f"known are: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(where, name, f"must be a whole number, not {value!r}")
    return SegmentationSettings(**table)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), "", error.strerror or str(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), "", f"not TOML: {error}") from None
