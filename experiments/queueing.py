"""
Exact results of queueing theory, against which the simulator is held.

Rates are per unit of time and times in that same unit, whichever the caller takes. Every result
names its source. Queues are first come, first served. Ten digits are meant, the rest is rounding.

Here are the queues that are birth-death chains; general laws are in `queueing_general`, arrivals
that come in phases in `queueing_modulated`. This module does not know the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from simsched.experiments.intervals import bisect

Tail = Callable[[float], float]

# States whose probability is below this cannot move the tenth digit.
NEGLIGIBLE: Final = 1e-17
# A truncated chain longer than this is a question out of range, not a long calculation.
_STATES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """
    The steady state of a queue.

    Waiting is before service, sojourn ends with it. `mean_wait` is over everyone who is let in,
    those who give up included; `mean_wait_served`, `mean_sojourn` and the tails are over those
    who are served. `mean_number` and `mean_queue` are averages over time. `wait_probability` is
    the share of those let in who do not start at once, `blocking` the share of arrivals refused,
    `abandonment` the share of arrivals let in who give up. None: no exact result is known here.
    """

    model: str
    source: str
    throughput: float
    utilisation: float
    mean_wait: float
    mean_wait_served: float
    mean_sojourn: float
    mean_queue: float
    mean_number: float
    wait_probability: float | None
    blocking: float = 0.0
    abandonment: float = 0.0
    wait_tail: Tail | None = field(default=None, compare=False, repr=False)
    sojourn_tail: Tail | None = field(default=None, compare=False, repr=False)

    def wait_quantile(self, q: float) -> float | None:
        """Waiting time that a share `q` of the served does not exceed; 0 if they do not wait."""
        return None if self.wait_tail is None else tail_quantile(self.wait_tail, q)

    def sojourn_quantile(self, q: float) -> float | None:
        """Sojourn time that a share `q` of the served does not exceed."""
        return None if self.sojourn_tail is None else tail_quantile(self.sojourn_tail, q)

    def figures(self) -> dict[str, float]:
        """Every known figure by name, quantiles included, rounded to 10 digits."""
        named: dict[str, float | None] = {
            name: getattr(self, name)
            for name in (
                *("throughput", "utilisation", "mean_wait", "mean_wait_served", "mean_sojourn"),
                *("mean_queue", "mean_number", "wait_probability", "blocking", "abandonment"),
            )
        }
        for percent in (50, 95, 99):
            named[f"wait_p{percent}"] = self.wait_quantile(percent / 100)
            named[f"sojourn_p{percent}"] = self.sojourn_quantile(percent / 100)
        return {name: float(f"{x:.9e}") for name, x in named.items() if x is not None}


def tail_quantile(tail: Tail, q: float) -> float:
    """Return the smallest time that is exceeded with probability at most 1 - q."""
    if not 0.0 < q < 1.0:
        raise ValueError(f"quantile: {q}: must lie between 0 and 1")
    beyond = 1.0 - q
    if tail(0.0) <= beyond:
        return 0.0
    high = 1.0
    while tail(high) > beyond:
        high *= 2
    return bisect(lambda time: beyond - tail(time), 0.0, high)


def positive(**rates: float) -> None:
    """Raise ValueError for the first argument that is not positive and finite."""
    for name, rate in rates.items():
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"{name}: {rate}: must be positive")


def stable(utilisation: float) -> None:
    """Raise ValueError where there is no steady state."""
    if utilisation >= 1.0:
        raise ValueError(f"utilisation: {utilisation:.6g}: no steady state at 1 or above")


def erlang_b(servers: int, offered_erlangs: float) -> float:
    """
    Erlang B: the share refused by M/G/c/c, whatever the law of service.

    By the recursion in the number of servers (Erlang 1917; Kleinrock, Queueing Systems 1, 3.6).
    """
    positive(servers=servers, offered_erlangs=offered_erlangs)
    blocking = 1.0
    for busy in range(1, servers + 1):
        blocking = offered_erlangs * blocking / (busy + offered_erlangs * blocking)
    return blocking


def wait_probability(servers: int, offered_erlangs: float) -> float:
    """Erlang C: the chance that an arrival to M/M/c must wait (Erlang 1917; Kleinrock 1, 3.5)."""
    stable(offered_erlangs / servers)
    blocking = erlang_b(servers, offered_erlangs)
    return blocking / (1.0 - offered_erlangs / servers * (1.0 - blocking))


def exponential_sum_tail(one: float, other: float) -> Tail:
    """P(X + Y > t) for independent exponentials of rates `one` and `other`, equal or not."""

    def tail(time: float) -> float:
        gap = other - one
        if abs(gap) * time < 1e-8:
            passed = time * (1 - gap * time / 2)
        else:
            passed = -math.expm1(-gap * time) / gap
        return math.exp(-one * time) * (1.0 + one * passed) if gap >= 0 else swapped(time)

    # The slower rate has to stand outside, or the exponential overflows.
    swapped = tail if other >= one else exponential_sum_tail(other, one)
    return tail


def mm1(arrival_rate: float, service_rate: float) -> Exact:
    """M/M/1 (Kleinrock, Queueing Systems 1, 3.2): M/M/c with one server."""
    return mmc(arrival_rate, service_rate, 1)


def mmc(arrival_rate: float, service_rate: float, servers: int) -> Exact:
    """M/M/c (Kleinrock 1, 3.5; wait and sojourn laws: Gross and Harris, 2.3)."""
    positive(arrival_rate=arrival_rate, service_rate=service_rate, servers=servers)
    offered = arrival_rate / service_rate
    delayed = wait_probability(servers, offered)
    spare = servers * service_rate - arrival_rate
    wait = delayed / spare
    both = exponential_sum_tail(spare, service_rate)
    return Exact(
        model=f"M/M/{servers}",
        source="Kleinrock, Queueing Systems 1, 3.5; Gross and Harris, 2.3",
        throughput=arrival_rate,
        utilisation=offered / servers,
        mean_wait=wait,
        mean_wait_served=wait,
        mean_sojourn=wait + 1 / service_rate,
        mean_queue=arrival_rate * wait,
        mean_number=arrival_rate * wait + offered,
        wait_probability=delayed,
        wait_tail=lambda time: delayed * math.exp(-spare * time),
        sojourn_tail=lambda time: (
            delayed * both(time) + (1 - delayed) * math.exp(-service_rate * time)
        ),
    )


def birth_death(birth: Callable[[int], float], death: Callable[[int], float]) -> list[float]:
    """
    Stationary probabilities of a birth-death chain from state 0 (Kleinrock 1, 3.1).

    Ends where births end, or where all further states together become negligible: the ratio of
    births to deaths must not rise with n. `birth(n)` is the rate from n to n + 1, `death(n)` the
    one back from n to n - 1.
    """
    weights = [1.0]
    peak = total = 1.0
    for state in range(_STATES_MAX):
        rate = birth(state)
        if rate == 0.0:
            break
        ratio = rate / death(state + 1)
        weight = weights[-1] * ratio
        # What remains is at most a geometric series with the present ratio.
        if ratio < 1.0 and weight / (1.0 - ratio) < NEGLIGIBLE * total:
            break
        weights.append(weight)
        total += weight
        peak = max(peak, weight)
        if peak > 1e200:
            weights = [w / peak for w in weights]
            total, peak = total / peak, 1.0
    else:
        raise ValueError(f"queue: not settled within {_STATES_MAX} states")
    norm = math.fsum(weights)
    return [weight / norm for weight in weights]


def served_in_order(found: Sequence[float], service_rate: float, servers: int) -> tuple[Tail, Tail]:
    """
    Wait and sojourn tails when an arrival finds n in system with probability `found[n]`.

    First come, first served, exponential service, nobody gives up: who finds n >= c waits for
    n - c + 1 departures at rate c mu (Gross and Harris, 2.3). Both tails are mixtures over the
    Poisson number j of such departures by then, which keeps every term positive.
    """
    full_rate = servers * service_rate
    at_least = 0.0
    waiting: list[float] = []
    for probability in reversed(found[servers:]):
        at_least += probability
        waiting.append(at_least)
    waiting.reverse()
    # Whoever began service at the k-th departure is still served after j with (1 - 1/c)^(j - k).
    stays = 1.0 - 1.0 / servers
    serving = [math.fsum(found[:servers])]
    for probability in found[servers:]:
        serving.append(serving[-1] * stays + probability)
    while serving[-1] > NEGLIGIBLE:
        serving.append(serving[-1] * stays)
    present = [one + (waiting[j] if j < len(waiting) else 0.0) for j, one in enumerate(serving)]
    return (
        lambda time: _poisson_mixture(full_rate * time, waiting),
        lambda time: _poisson_mixture(full_rate * time, present),
    )


def _poisson_mixture(mean: float, weights: Sequence[float]) -> float:
    """Sum over j of P(Poisson(mean) = j) weights[j]; terms beyond 12 deviations are dropped."""
    if mean == 0.0:
        return weights[0] if weights else 0.0
    log_mean = math.log(mean)
    reach = 12.0 * math.sqrt(mean) + 50.0
    first, last = max(0, math.floor(mean - reach)), math.ceil(mean + reach)
    return math.fsum(
        math.exp(j * log_mean - mean - math.lgamma(j + 1)) * weights[j]
        for j in range(first, min(last, len(weights)))
    )


def mmck(arrival_rate: float, service_rate: float, servers: int, capacity: int) -> Exact:
    """
    M/M/c/K: at most `capacity` in system, the rest refused (Gross and Harris, 2.5).

    With capacity = servers the blocking is Erlang's loss, true for any law of service.
    """
    positive(arrival_rate=arrival_rate, service_rate=service_rate, servers=servers)
    if capacity < servers:
        raise ValueError(f"capacity: {capacity}: must be at least the {servers} servers")
    probabilities = birth_death(
        lambda n: arrival_rate if n < capacity else 0.0,
        lambda n: min(n, servers) * service_rate,
    )
    blocking = probabilities[capacity] if len(probabilities) > capacity else 0.0
    queue = math.fsum((n - servers) * p for n, p in enumerate(probabilities) if n > servers)
    accepted = arrival_rate * (1.0 - blocking)
    found = [p / (1.0 - blocking) for p in probabilities[:capacity]]
    wait_tail, sojourn_tail = served_in_order(found, service_rate, servers)
    wait = queue / accepted
    return Exact(
        model=f"M/M/{servers}/{capacity}",
        source="Gross and Harris, Fundamentals of Queueing Theory, 2.5",
        throughput=accepted,
        utilisation=accepted / (servers * service_rate),
        mean_wait=wait,
        mean_wait_served=wait,
        mean_sojourn=wait + 1 / service_rate,
        mean_queue=queue,
        mean_number=queue + accepted / service_rate,
        wait_probability=math.fsum(found[servers:]),
        blocking=blocking,
        wait_tail=wait_tail,
        sojourn_tail=sojourn_tail,
    )


def mmc_impatient(
    arrival_rate: float, service_rate: float, servers: int, patience_rate: float
) -> Exact:
    """
    M/M/c+M, Erlang A: each waiter gives up at `patience_rate`, in queue only.

    Palm 1957; Garnett, Mandelbaum and Reiman, MSOM 4:3, 2002. Stable at any load. Who enters with
    k - 1 waiting ahead moves up at rate c mu + (k - 1) theta and gives up at theta; the time in
    each place does not depend on which comes first, hence the mean wait of the served.
    """
    positive(arrival_rate=arrival_rate, service_rate=service_rate, patience_rate=patience_rate)
    full_rate = servers * service_rate
    probabilities = birth_death(
        lambda _: arrival_rate,
        lambda n: min(n, servers) * service_rate + max(0, n - servers) * patience_rate,
    )
    queue = math.fsum((n - servers) * p for n, p in enumerate(probabilities) if n > servers)
    abandonment = patience_rate * queue / arrival_rate
    throughput = arrival_rate * (1.0 - abandonment)
    climb, waited = 0.0, []
    for k, p in enumerate(probabilities[servers:], start=1):
        climb += 1.0 / (full_rate + k * patience_rate)
        waited.append(p * full_rate / (full_rate + k * patience_rate) * climb)
    wait_served = math.fsum(waited) / (1.0 - abandonment)
    return Exact(
        model=f"M/M/{servers}+M",
        source="Garnett, Mandelbaum and Reiman, MSOM 4:3, 2002",
        throughput=throughput,
        utilisation=throughput / full_rate,
        mean_wait=queue / arrival_rate,
        mean_wait_served=wait_served,
        mean_sojourn=wait_served + 1 / service_rate,
        mean_queue=queue,
        mean_number=queue + throughput / service_rate,
        wait_probability=math.fsum(probabilities[servers:]),
        abandonment=abandonment,
    )


def closed(customers: int, think_rate: float, service_rate: float, servers: int = 1) -> Exact:
    """
    M/M/c//N, the machine repair model: N customers think, queue and are served in a circle.

    Kleinrock 1, 3.8; an arrival sees the system with one customer less (Sevcik and Mitrani,
    JACM 28:2, 1981). `mean_sojourn` is the response N / throughput - 1 / think rate.
    """
    positive(customers=customers, think_rate=think_rate, service_rate=service_rate)

    def distribution(population: int) -> list[float]:
        return birth_death(
            lambda n: (population - n) * think_rate, lambda n: min(n, servers) * service_rate
        )

    probabilities = distribution(customers)
    throughput = service_rate * math.fsum(min(n, servers) * p for n, p in enumerate(probabilities))
    queue = math.fsum((n - servers) * p for n, p in enumerate(probabilities) if n > servers)
    found = distribution(customers - 1)
    wait_tail, sojourn_tail = served_in_order(found, service_rate, servers)
    wait = queue / throughput
    return Exact(
        model=f"M/M/{servers}//{customers}",
        source="Kleinrock, Queueing Systems 1, 3.8",
        throughput=throughput,
        utilisation=throughput / (servers * service_rate),
        mean_wait=wait,
        mean_wait_served=wait,
        mean_sojourn=wait + 1 / service_rate,
        mean_queue=queue,
        mean_number=queue + throughput / service_rate,
        wait_probability=math.fsum(found[servers:]),
        wait_tail=wait_tail,
        sojourn_tail=sojourn_tail,
    )


def lindley_waits(arrivals: Sequence[int], services: Sequence[int]) -> list[int]:
    """
    Waits of one server, first come first served, from recorded times (Lindley 1952).

    Whole numbers in, whole numbers out: exact to the bit.
    """
    if not arrivals:
        return []
    waits, wait = [0], 0
    for (before, now), service in zip(pairwise(arrivals), services, strict=False):
        wait = max(0, wait + service - (now - before))
        waits.append(wait)
    return waits
