"""
The `[scenario]` table of a study, read into a `Scenario`.

Every key has the name of the scenario's field; times say their unit. `costs` names a cost model and
`cost` overrides it, key by dotted key. `load` is no part of a scenario: it says how busy the
tightest shared resource shall be, and `load_share` finds the rate for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from simsched.errors import ConfigError
from simsched.experiments.overrides import copied, stem
from simsched.models.fields import Fields, meant
from simsched.models.prices import CostModel
from simsched.models.runtime import Execution
from simsched.models.service import ServiceModel
from simsched.models.tasks import Ties
from simsched.models.workload import Workload
from simsched.models.world import DRAIN_NS, Scenario
from simsched.policy import Policy
from simsched.pools import Pool, PoolConfig
from simsched.segmentation import SegmentationSettings
from simsched.units import SECOND

SCENARIO_KEYS: Final = (
    "instances", "shared", "execution", "cores", "nodes", "slots", "node_languages",
    "node_overflow", "acknowledges", "heartbeat", "sessions", "horizon", "drain", "costs", "cost",
    "workload", "service", "segmentation", "pools", "load",
)  # fmt: skip
"""Every key of `[scenario]`, times without their unit."""

PLACEHOLDER: Final = {"kind": "poisson", "rate_per_s": 1.0}
"""Arrivals where `load` alone says how many."""

LOAD_MAX: Final = 100.0
"""More than a hundredfold overload is a slip of the pen."""

_POOLS: Final = PoolConfig(enabled=True, auto_generate_language_pools=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A scenario, and the load that its rate is to be set for (None: its rate stands)."""

    scenario: Scenario
    load: float | None


def read_scenario(
    table: Mapping[str, Any],
    where: str,
    *,
    policy: Policy,
    folder: Path | None = None,
    ties: Ties = "fifo",
) -> Setting:
    """
    Read a whole `[scenario]` table.

    Args:
        table: its keys, with everything that overrides them already in.
        where: how errors name it.
        policy: how the scheduler decides.
        folder: where a cost model's relative path begins.
        ties: the order of simultaneous events.

    Raises:
        ConfigError: a missing, unknown or impossible key, with what would be right.

    """
    fields = Fields(table, where)
    load = fields.number("load", least=0.001) if fields.has("load") else None
    instances = fields.integer("instances", 1, least=1)
    scenario = Scenario(
        policy=policy,
        costs=_costs(fields, folder),
        workload=_workload(fields, load),
        service=ServiceModel.parse(_table(fields, "service"), f"{where}.service"),
        instances=instances,
        shared=switch(fields, "shared", instances > 1),
        execution=cast("Execution", fields.choice("execution", ("threads", "loop"), "threads")),
        cores=fields.integer("cores", 4, least=1),
        nodes=fields.integer("nodes", 100, least=1),
        slots=fields.integer("slots", 4, least=1),
        node_languages=_texts(fields, "node_languages"),
        node_overflow=fields.choice("node_overflow", ("queue", "refuse"), "queue"),
        acknowledges=switch(fields, "acknowledges", False),
        heartbeat_ns=fields.duration("heartbeat", 15 * SECOND, least=1),
        sessions=fields.integer("sessions", least=1) if fields.has("sessions") else None,
        horizon_ns=fields.duration("horizon", least=1) if fields.has("horizon") else None,
        drain_ns=fields.duration("drain", DRAIN_NS),
        segmentation=_segmentation(fields),
        pools=_pools(fields),
        ties=ties,
    )
    for key in ("load", "sessions"):
        fields.raw(key)
    if not fields.has("horizon"):
        fields.duration("horizon", 0)
    for key in fields.names():
        if stem(key) not in SCENARIO_KEYS:
            raise fields.fail(key, f"unknown key; {meant(key, SCENARIO_KEYS)}")
    fields.close()
    _check_end(fields, scenario, load)
    return Setting(scenario=scenario, load=load)


def _check_end(fields: Fields, scenario: Scenario, load: float | None) -> None:
    closed = scenario.workload.is_closed
    if closed and scenario.horizon_ns is None:
        raise fields.fail("horizon", "is missing: a closed workload never ends by itself")
    if scenario.horizon_ns is None and scenario.sessions is None:
        raise fields.fail("horizon", "is missing: say `horizon_s` or `sessions`, or it never ends")
    if load is not None and closed:
        raise fields.fail("load", "must be absent: a closed workload has no rate to set")
    if load is not None and load > LOAD_MAX:
        raise fields.fail("load", f"must be at most {LOAD_MAX:g}; 0.5 is half of what is possible")


def switch(fields: Fields, name: str, default: bool) -> bool:
    """A key that is true or false."""
    value = fields.raw(name, default)
    if not isinstance(value, bool):
        raise fields.fail(name, f"must be true or false, not {value!r}")
    return value


def texts(fields: Fields, name: str, value: object) -> tuple[str, ...]:
    """A list of texts."""
    plain = isinstance(value, Sequence) and not isinstance(value, str)
    if not plain or not all(isinstance(item, str) for item in cast("Sequence[object]", value)):
        raise fields.fail(name, f"must be a list of texts, not {value!r}")
    return tuple(cast("Sequence[str]", value))


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    return texts(fields, name, fields.raw(name, []))


def _table(fields: Fields, name: str) -> Mapping[str, object]:
    value = fields.raw(name, {})
    if not isinstance(value, Mapping):
        raise fields.fail(name, f"must be a table of keys, not {value!r}")
    return value


def _workload(fields: Fields, load: float | None) -> Workload:
    table = dict(_table(fields, "workload"))
    if load is not None:
        table.setdefault("arrivals", dict(PLACEHOLDER))
    return Workload.parse(table, f"{fields.where}.workload")


def _costs(fields: Fields, folder: Path | None) -> CostModel:
    name = fields.text("costs", "reference")
    if folder is not None and name.endswith(".toml") and not Path(name).is_absolute():
        name = str(folder / name)
    overrides = json.dumps(copied(_table(fields, "cost")), sort_keys=True)
    try:
        plain = _model(name, "{}")
    except ConfigError as error:
        if error.where == "cost model":
            raise fields.fail("costs", f"cost model {error.key}: {error.want}") from None
        raise
    if overrides == "{}":
        return plain
    try:
        return _model(name, overrides)
    except ConfigError as error:
        # The model alone is right, so it is the study's own table that is wrong.
        file = name if name.endswith(".toml") else f"costs/{name}.toml"
        place = f"{fields.where}.cost{error.where.removeprefix(file)}"
        raise ConfigError(place, error.key, error.want) from None


@lru_cache(maxsize=64)
def _model(name: str, overrides: str) -> CostModel:
    """Every variant of a study mostly has the same model: read it once."""
    return CostModel.load(name, json.loads(overrides))


def _segmentation(fields: Fields) -> SegmentationSettings:
    inner = fields.table("segmentation")
    default = SegmentationSettings()
    values = {
        name: inner.integer(name, getattr(default, name)) for name in SegmentationSettings.__slots__
    }
    inner.close()
    return SegmentationSettings(**values)


def _pools(fields: Fields) -> PoolConfig:
    inner = fields.table("pools")
    values: dict[str, Any] = {}
    for name in PoolConfig.__slots__:
        default = getattr(_POOLS, name)
        if name == "pools":
            values[name] = _pool_list(inner)
        elif name == "tenant_overrides":
            overrides = inner.table(name)
            values[name] = tuple((tenant, overrides.text(tenant)) for tenant in overrides.names())
        elif isinstance(default, bool):
            values[name] = switch(inner, name, default)
        elif isinstance(default, int):
            values[name] = inner.integer(name, default)
        else:
            values[name] = inner.text(name, default)
    inner.close()
    return PoolConfig(**values)


def _pool_list(fields: Fields) -> tuple[Pool, ...]:
    listed = fields.raw("pools", [])
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise fields.fail("pools", "must be a list such as [{ pool_id = '1', languages = ['en'] }]")
    pools = []
    for place, item in enumerate(listed):
        row = Fields(item, f"{fields.where}.pools[{place}]")
        pools.append(
            Pool(
                pool_id=row.text("pool_id"),
                required_services=_texts(row, "required_services"),
                languages=tuple(sorted(_texts(row, "languages"))),
            )
        )
        row.close()
    return tuple(pools)
