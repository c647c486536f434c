"""
How many sessions a second keep the tightest shared resource busy for a given share of the time.

A pilot of the base variant, so thinly loaded that nobody waits, tells what one session costs every
resource that all sessions share; the rate follows. The pilot has a replication number of its own,
so it shares no draw with the study's runs, and the same study finds the same rate everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from simsched.errors import ConfigError
from simsched.experiments.intervals import twelve_digits
from simsched.experiments.measure import shared_demands
from simsched.experiments.runs import Pilot
from simsched.experiments.study import Study, Variant
from simsched.models.world import Scenario, simulate
from simsched.units import SECOND

PILOT_REPLICATION: Final = -1
PILOT_UTTERANCES: Final = 40
PILOT_SESSIONS_PER_S: Final = 0.05
"""Thin enough that sessions rarely meet, whatever a step costs."""


def pilots(study: Study) -> dict[str, Pilot]:
    """
    The pilot of every variant whose rate a load decides, by variant; equal ones are run once.

    A variant takes its base's rate, unless it names a load of its own that differs.
    """
    found: dict[str, Pilot] = {}
    cache: dict[str, dict[str, float]] = {}
    for variant in _bases_first(study):
        if variant.load is None:
            continue
        base = None if variant.base is None else study.variant(variant.base)
        if base is not None and base.name in found and base.load == variant.load:
            found[variant.name] = found[base.name]
            continue
        key = _key(variant)
        if key not in cache:
            cache[key] = _demand(variant.scenario, study.seed)
        found[variant.name] = _pilot(variant, cache[key], study.where)
    return found


def loaded(variant: Variant, found: Mapping[str, Pilot]) -> Scenario:
    """The variant's scenario at the rate that its load asks for."""
    pilot = found.get(variant.name)
    if pilot is None:
        return variant.scenario
    workload = variant.scenario.workload.with_rate(pilot.sessions_per_s)
    return replace(variant.scenario, workload=workload)


def _bases_first(study: Study) -> list[Variant]:
    def depth(variant: Variant) -> int:
        return 0 if variant.base is None else 1 + depth(study.variant(variant.base))

    return sorted(study.variants, key=depth)


def _key(variant: Variant) -> str:
    """What the demand depends on: all of the scenario but how much of it there is."""
    free = ("load", "horizon", "horizon_s", "horizon_ms", "horizon_min", "horizon_h", "sessions")
    table = {key: value for key, value in variant.table.items() if key not in free}
    return f"{variant.policy_text}|{sorted(table.items())}"


def _demand(scenario: Scenario, seed: int) -> dict[str, float]:
    workload = scenario.workload
    sessions = max(8, math.ceil(PILOT_UTTERANCES / workload.mean_utterances_per_session))
    thin = replace(
        scenario,
        workload=workload.with_rate(PILOT_SESSIONS_PER_S),
        sessions=sessions,
        horizon_ns=None,
    )
    return shared_demands(simulate(thin, seed=seed, replication=PILOT_REPLICATION), thin)


def _pilot(variant: Variant, demand: Mapping[str, float], where: str) -> Pilot:
    assert variant.load is not None
    tightest = max(demand, key=lambda name: demand[name])
    if demand[tightest] <= 0:
        raise ConfigError(
            f"{where}: variant {variant.name}", "load", "nothing is ever busy: give a rate instead"
        )
    return Pilot(
        load=variant.load,
        sessions_per_s=twelve_digits(variant.load * SECOND / demand[tightest]),
        tightest=tightest,
        demand_ns_per_session={name: twelve_digits(busy) for name, busy in demand.items()},
    )
