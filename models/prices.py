"""
Cost models: what every step of the catalogue costs, as data with provenance.

A cost model is a TOML file (`models/costs/*.toml`, or anybody's own). It has to price every cost
key of `simsched.steps`: a step without a price is an error when the model is loaded, never zero.

    name = "mine"
    base = "reference"              # keys that this file does not price come from there
    nodes_low = 100                 # the sizes that `nodes_range` speaks of
    nodes_high = 1000
    [locks.audio_buffer]
    scope = "session"               # one lock per session instead of one per instance
    [costs."jobs.write"]
    cost = { kind = "lognormal", mean_ms = 1, p999_ms = 15 }
    per_n_ns = 120                  # and so much for each of n
    source = "where the figure comes from"
    [costs."select.filter"]
    nodes_range_ms = [50, 200]      # instead of `cost`: linear in nodes, not random
    source = "..."
    [costs."redis.get"]
    cost_ms = 0.4                   # the round trip that a client sees
    server_us = 10                  # of which the server is busy for so long
    source = "..."

A Redis price has two sides: what a client sees with no one else about, and how long the server is
busy; the network is the rest. `n` of a Redis step counts the further commands in its round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Self, cast

from simsched.models.charges import Charge, GrowingCharge, charge_for
from simsched.models.cost_files import override, read_model
from simsched.models.distribution_fields import distribution
from simsched.models.fields import Fields, meant
from simsched.steps import CATALOGUE, COST_KEYS, LOCKS, Kind, Step

Scope = Literal["global", "session"]
"""How many locks of one name an instance has: one, or one per session."""

_SCOPES: Final = ("global", "session")
_REDIS_KEYS: Final = frozenset(step.cost for step in CATALOGUE if step.kind is Kind.REDIS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One cost key's price; `server` only for Redis; `priced_by` names the model it stands in."""

    key: str
    charge: Charge
    server: Charge | None
    source: str
    priced_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPrice:
    """What a call costs its client with no one else about, and how long the server is busy."""

    latency: Charge
    server: Charge


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """What every step costs. Its tables are in the order of the catalogue."""

    name: str
    provenance: str
    nodes_low: int
    nodes_high: int
    prices: Mapping[str, Price]
    scopes: Mapping[str, Scope]

    @classmethod
    def load(cls, name_or_path: str, overrides: Mapping[str, object] | None = None) -> Self:
        """
        The packaged model of that name or the file at that path, with settings replaced.

        Args:
            name_or_path: `report`, `reference`, `zero`, or the path of a `.toml` file.
            overrides: as the file would say it, e.g. `{"locks.audio_buffer.scope": "session",
                "costs.redis.get": "2 ms", "nodes_high": 500}`; nested tables do as well.

        Raises:
            ConfigError: unreadable, unknown or missing key, bad unit, or a step without a price.

        """
        where, table = read_model(name_or_path)
        for key, value in (overrides or {}).items():
            override(table, key, value, where)
        fields = Fields(table, where)
        low, high = fields.integer("nodes_low", 100), fields.integer("nodes_high", 1000)
        if high <= low:
            raise fields.fail("nodes_high", f"must be above `nodes_low`, {low}")
        model = cls(
            name=fields.text("name"),
            provenance=fields.text("provenance", ""),
            nodes_low=low,
            nodes_high=high,
            prices=_prices(fields.table("costs"), low, high),
            scopes=_scopes(fields.table("locks")),
        )
        fields.close()
        return model

    def charges(self) -> list[Charge]:
        """The charge of every step, by `Step.index`; of a Redis step what its client sees."""
        return [self.prices[step.cost].charge for step in CATALOGUE]

    def redis(self, step: Step) -> RedisPrice:
        """Both sides of a Redis step's price."""
        return self._redis_prices[step.cost]

    def scope(self, lock: str) -> Scope:
        """Whether there is one such lock in an instance or one per session."""
        return self.scopes[lock]

    def not_priced_by_report(self) -> list[str]:
        """The cost keys whose figures are not the report's own, in the catalogue's order."""
        return [key for key, price in self.prices.items() if price.priced_by != "report"]

    @cached_property
    def _redis_prices(self) -> dict[str, RedisPrice]:
        return {
            price.key: RedisPrice(latency=price.charge, server=price.server)
            for price in self.prices.values()
            if price.server is not None
        }


def _scopes(fields: Fields) -> dict[str, Scope]:
    scopes: dict[str, Scope] = {}
    for lock in LOCKS:
        if not fields.has(lock):
            raise fields.fail(lock, "is missing: scope = 'global' or 'session'")
        entry = fields.table(lock)
        scopes[lock] = cast("Scope", entry.choice("scope", _SCOPES))
        entry.close()
    fields.close()
    return scopes


def _prices(fields: Fields, nodes_low: int, nodes_high: int) -> dict[str, Price]:
    for key in fields.names():
        if key not in COST_KEYS:
            raise fields.fail(f'"{key}"', f"unknown cost key; {meant(key, COST_KEYS)}")
    prices = {}
    for key in COST_KEYS:
        if not fields.has(key):
            steps = ", ".join(step.name for step in CATALOGUE if step.cost == key)
            raise fields.fail(f'"{key}"', f"is missing: without it {steps} has no cost")
        prices[key] = _price(
            Fields(fields.raw(key), f'{fields.where}."{key}"'), key, (nodes_low, nodes_high)
        )
    return prices


def _price(fields: Fields, key: str, nodes: tuple[int, int]) -> Price:
    price = Price(
        key=key,
        charge=_charge(fields, nodes),
        server=charge_for(distribution(fields, "server")) if key in _REDIS_KEYS else None,
        source=fields.text("source"),
        priced_by=fields.text("priced_by"),
    )
    fields.close()
    return price


def _charge(fields: Fields, nodes: tuple[int, int]) -> Charge:
    if not fields.has("nodes_range"):
        law = distribution(fields, "cost")
        return charge_for(law, fields.duration("per_n", 0))
    if fields.has("cost") or fields.has("per_n"):
        raise fields.fail("nodes_range", "stands alone: drop `cost` and `per_n`")
    ends = fields.durations("nodes_range")
    if len(ends) != 2 or ends[0] > ends[1]:
        raise fields.fail("nodes_range", "must be two times, the lower one first")
    return GrowingCharge(nodes[0], ends[0], nodes[1], ends[1])
