"""
Exact results for general service, interarrival and patience laws, where no chain serves.

Rates per unit of time and times in that unit, as there. A law of service enters by its mean and
its squared coefficient of variation (variance over squared mean) where nothing else matters.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Final

from simsched.experiments.intervals import bisect
from simsched.experiments.queueing import Exact, erlang_b, positive, stable

# Beyond this the exponential of a float overflows.
_EXPONENT_MAX: Final = 700.0


def erlang_scv(stages: int) -> float:
    """Squared coefficient of variation of an Erlang law: 1 / stages."""
    return 1.0 / stages


def hyperexponential_scv(weights: Sequence[float], rates: Sequence[float]) -> float:
    """Squared coefficient of variation of a mixture of exponentials."""
    first = math.fsum(w / r for w, r in zip(weights, rates, strict=True))
    second = math.fsum(2 * w / r**2 for w, r in zip(weights, rates, strict=True))
    return second / first**2 - 1.0


def lognormal_scv(sigma: float) -> float:
    """Squared coefficient of variation of a lognormal law with log-deviation `sigma`."""
    return math.expm1(sigma * sigma)


def mg1(arrival_rate: float, mean_service: float, scv: float) -> Exact:
    """
    M/G/1 by Pollaczek and Khinchine (Kleinrock 1, 5.6): means only.

    `scv` is 0 for constant service (M/D/1), 1 for exponential, 1/k for Erlang-k.
    """
    positive(arrival_rate=arrival_rate, mean_service=mean_service)
    utilisation = arrival_rate * mean_service
    stable(utilisation)
    wait = utilisation * mean_service * (1.0 + scv) / (2.0 * (1.0 - utilisation))
    return _single(
        model=f"M/G/1, scv {scv:g}",
        source="Kleinrock, Queueing Systems 1, 5.6",
        arrival_rate=arrival_rate,
        mean_service=mean_service,
        wait=wait,
        wait_probability=utilisation,
    )


def md1(arrival_rate: float, service: float) -> Exact:
    """M/D/1 with the law of its wait (Erlang 1909; Prabhu, Queues and Inventories, 2.3)."""
    exact = mg1(arrival_rate, service, 0.0)

    def wait_tail(time: float) -> float:
        return _md1_wait_tail(arrival_rate, service, time)

    return _single(
        model="M/D/1",
        source="Erlang 1909; Kleinrock, Queueing Systems 1, 5.6",
        arrival_rate=arrival_rate,
        mean_service=service,
        wait=exact.mean_wait,
        wait_probability=exact.utilisation,
        wait_tail=wait_tail,
        sojourn_tail=lambda time: 1.0 if time < service else wait_tail(time - service),
    )


def mdc(arrival_rate: float, service: float, servers: int) -> Exact:
    """
    M/D/c, means only (Crommelin, Post Office Electrical Engineers' Journal 25, 1932).

    Who is in service now has left one service time later, so the number in system there is what
    waited plus the arrivals since: a bulk-service queue, whose mean follows from the c - 1 roots
    of z^c = e^(-a (1 - z)) inside the unit circle.
    """
    positive(arrival_rate=arrival_rate, service=service, servers=servers)
    offered = arrival_rate * service
    stable(offered / servers)
    roots = [_crommelin_root(offered / servers, k / servers) for k in range(1, servers)]
    poles = math.fsum((1.0 / (1.0 - root)).real for root in roots)
    number = offered / (2 * (servers - offered)) + (offered - servers + 1) / 2 + poles
    wait = number / arrival_rate - service
    return Exact(
        model=f"M/D/{servers}",
        source="Crommelin 1932; Tijms, A First Course in Stochastic Models, 9.6",
        throughput=arrival_rate,
        utilisation=offered / servers,
        mean_wait=wait,
        mean_wait_served=wait,
        mean_sojourn=wait + service,
        mean_queue=arrival_rate * wait,
        mean_number=number,
        wait_probability=None,
    )


def _crommelin_root(utilisation: float, turn: float) -> complex:
    """Fixed point of z = e^(2 pi i turn - utilisation (1 - z)): a contraction inside the circle."""
    root, previous = 0j, 1 + 0j
    while abs(root - previous) > 1e-15:
        previous = root
        root = cmath.exp(complex(0.0, 2 * math.pi * turn) - utilisation * (1 - root))
    return root


def _md1_wait_tail(arrival_rate: float, service: float, time: float) -> float:
    """P(W > t) from Erlang's alternating sum, in decimals enough for its cancellation."""
    periods = math.floor(time / service)
    with localcontext() as context:
        # Terms reach e^(2 rate t) before they cancel to less than 1.
        context.prec = 40 + math.ceil(2 * arrival_rate * time)
        rate, step, moment = Decimal(arrival_rate), Decimal(service), Decimal(time)
        total = Decimal(0)
        factorial = Decimal(1)
        for j in range(periods + 1):
            factorial *= max(j, 1)
            gap = rate * (step * j - moment)
            power = Decimal(1) if j == 0 else gap**j
            total += power / factorial * (-gap).exp()
        return float(1 - (1 - rate * step) * total)


def gm1(transform: Callable[[float], float], arrival_rate: float, service_rate: float) -> Exact:
    """
    G/M/1 (Kleinrock 1, 6.4) for interarrivals with Laplace transform `transform`.

    sigma = A*(mu (1 - sigma)) is what arrivals find as utilisation; sojourn is exponential.
    """
    positive(arrival_rate=arrival_rate, service_rate=service_rate)
    stable(arrival_rate / service_rate)
    # Below its root sigma < A*(...), above it the other way round, until both meet again at 1.
    # Sought in the gap 1 - sigma and in logarithms, so that heavy traffic loses no digits.
    log_gap = bisect(
        lambda log: -(1.0 - transform(service_rate * math.exp(log)) - math.exp(log)),
        math.log(1e-12),
        0.0,
    )
    gap = math.exp(log_gap)
    decay = service_rate * gap
    return _single(
        model="G/M/1",
        source="Kleinrock, Queueing Systems 1, 6.4",
        arrival_rate=arrival_rate,
        mean_service=1 / service_rate,
        wait=(1.0 - gap) / decay,
        wait_probability=1.0 - gap,
        wait_tail=lambda time: (1.0 - gap) * math.exp(-decay * time),
        sojourn_tail=lambda time: math.exp(-decay * time),
    )


def dm1(arrival_rate: float, service_rate: float) -> Exact:
    """D/M/1: arrivals at constant intervals (Kleinrock 1, 6.4)."""
    return gm1(lambda s: math.exp(-s / arrival_rate), arrival_rate, service_rate)


def batch_mm1(
    batch_rate: float, mean_batch: float, mean_square_batch: float, service_rate: float
) -> Exact:
    """
    M^X/M/1: batches of X customers arrive as a Poisson stream (Gross and Harris, 3.1).

    L = rho (1 + E[X^2] / E[X]) / (2 (1 - rho)); a constant batch of b has E[X^2] = b^2.
    """
    positive(batch_rate=batch_rate, mean_batch=mean_batch, service_rate=service_rate)
    arrival_rate = batch_rate * mean_batch
    utilisation = arrival_rate / service_rate
    stable(utilisation)
    number = utilisation * (1 + mean_square_batch / mean_batch) / (2 * (1 - utilisation))
    # Only the first of a batch that finds the server idle starts at once.
    return _single(
        model="M^X/M/1",
        source="Gross and Harris, Fundamentals of Queueing Theory, 3.1",
        arrival_rate=arrival_rate,
        mean_service=1 / service_rate,
        wait=number / arrival_rate - 1 / service_rate,
        wait_probability=1.0 - (1.0 - utilisation) / mean_batch,
    )


def _single(
    *,
    model: str,
    source: str,
    arrival_rate: float,
    mean_service: float,
    wait: float,
    wait_probability: float,
    wait_tail: Callable[[float], float] | None = None,
    sojourn_tail: Callable[[float], float] | None = None,
) -> Exact:
    """One server that refuses nobody: everything follows from the wait by Little's law."""
    return Exact(
        model=model,
        source=source,
        throughput=arrival_rate,
        utilisation=arrival_rate * mean_service,
        mean_wait=wait,
        mean_wait_served=wait,
        mean_sojourn=wait + mean_service,
        mean_queue=arrival_rate * wait,
        mean_number=arrival_rate * (wait + mean_service),
        wait_probability=wait_probability,
        wait_tail=wait_tail,
        sojourn_tail=sojourn_tail,
    )


def mmc_deadline(arrival_rate: float, service_rate: float, servers: int, patience: float) -> Exact:
    """
    M/M/c+D: everyone gives up after the same `patience` in queue (Barrer 1957).

    By the virtual wait v of Baccelli and Hebuterne (Performance '81): its density is
    lambda p e^(-(c mu - lambda) v) up to the patience and falls at c mu beyond, where nobody
    joins to stay; p is the probability of c - 1 in system. Stable at any load.
    """
    positive(arrival_rate=arrival_rate, service_rate=service_rate, patience=patience)
    full_rate = servers * service_rate
    offered = arrival_rate / service_rate
    drift = full_rate - arrival_rate
    if -drift * patience > _EXPONENT_MAX:
        raise ValueError(f"patience: {patience}: must be shorter at such an overload")

    def joined(time: float) -> float:
        """Integral of e^(-drift v) over 0..time: weight of those who are served."""
        return time if abs(drift) * time < 1e-12 else -math.expm1(-drift * time) / drift

    beyond = math.exp(-drift * patience) / full_rate
    # Erlang's loss gives p relative to all states with a free server, without overflow.
    blocking = erlang_b(servers, offered)
    last_free = servers / offered * blocking / (1.0 - blocking)
    norm = 1.0 / (1.0 + arrival_rate * last_free * (joined(patience) + beyond))
    density = arrival_rate * last_free * norm
    abandonment = density * beyond
    served = 1.0 - abandonment
    waited = density * _first_moment(drift, patience)
    wait_served = waited / served
    wait = waited + patience * abandonment
    throughput = arrival_rate * served

    def wait_tail(time: float) -> float:
        held = joined(patience) - joined(time) if time < patience else 0.0
        return density * held / served

    return Exact(
        model=f"M/M/{servers}+D",
        source="Baccelli and Hebuterne, Performance '81; Barrer, Operations Research 5, 1957",
        throughput=throughput,
        utilisation=throughput / full_rate,
        mean_wait=wait,
        mean_wait_served=wait_served,
        mean_sojourn=wait_served + 1 / service_rate,
        mean_queue=arrival_rate * wait,
        mean_number=arrival_rate * wait + throughput / service_rate,
        wait_probability=1.0 - norm,
        abandonment=abandonment,
        wait_tail=wait_tail,
    )


def _first_moment(rate: float, end: float) -> float:
    """Integral of v e^(-rate v) over 0..end, rate of any sign."""
    scaled = rate * end
    if abs(scaled) < 1e-3:
        return end * end * (0.5 - scaled / 3 + scaled**2 / 8 - scaled**3 / 30)
    return (-math.expm1(-scaled) - scaled * math.exp(-scaled)) / rate**2
