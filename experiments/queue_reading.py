"""
How a scenario was read as a queue, in Kendall's notation, so that a bound one forgot is seen.

`M/D/1, patience 10 s, line 200` says at once that a `pending_ms` and a `pending_max` still stand.
Arrivals / service / servers; M: exponential, D: constant, Ek: Erlang, Hk: hyperexponential,
LN: lognormal, MMPP: two phases, M^X: batches, T: a recorded list, G: any other. It decides nothing
and knows no formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from simsched.experiments.queue_cases import bounds, lock_law
from simsched.experiments.queue_measure import lock_is_server, plain_service
from simsched.models.arrivals import Batches, Closed, Mmpp, Poisson, RecordedArrivals, Renewal
from simsched.models.distributions import (
    Constant,
    Distribution,
    Erlang,
    Exponential,
    Hyperexponential,
    Lognormal,
)
from simsched.models.empirical import Recorded
from simsched.models.world import Scenario
from simsched.units import SECOND

_LAWS: Final[dict[type, Callable[[Any], str]]] = {
    Exponential: lambda _: "M",
    Constant: lambda _: "D",
    Erlang: lambda law: f"E{law.k}",
    Hyperexponential: lambda law: f"H{len(law.means)}",
    Lognormal: lambda _: "LN",
    Recorded: lambda _: "T",
}

_ARRIVALS: Final[dict[type, Callable[[Any], str]]] = {
    Poisson: lambda _: "M",
    Renewal: lambda arrivals: _letter(arrivals.gap),
    Batches: lambda _: "M^X",
    Mmpp: lambda _: "MMPP(2)",
    RecordedArrivals: lambda _: "T",
    Closed: lambda arrivals: _letter(arrivals.think),
}


def reading(scenario: Scenario) -> str:
    """
    The queue in a few words: Kendall's notation, then everything that bounds a wait.

    Args:
        scenario: one queue, see `queue_measure.is_queue`.

    """
    arrivals = scenario.workload.arrivals
    comes = _ARRIVALS.get(type(arrivals), lambda _: "G")(arrivals)
    population = f"//{arrivals.population}" if isinstance(arrivals, Closed) else ""
    if lock_is_server(scenario):
        law = lock_law(scenario)
        return f"{comes}/{_letter(law) if law else 'G'}/1{population}, a lock"
    law, servers = plain_service(scenario), scenario.nodes * scenario.slots
    service = _letter(law) if law else "G"
    return ", ".join([f"{comes}/{service}/{servers}{population}", *_bounds(*bounds(scenario))])


def _letter(law: Distribution) -> str:
    return _LAWS.get(type(law), lambda _: "G")(law)


def _bounds(places: int | None, patience: Distribution | None) -> list[str]:
    words = []
    if patience is not None:
        kind = "" if isinstance(patience, Constant) else f"{_letter(patience)} "
        words.append(f"patience {kind}{patience.mean_ns / SECOND:g} s")
    if places is not None:
        words.append(f"line {places}" if places else "no line")
    return words
