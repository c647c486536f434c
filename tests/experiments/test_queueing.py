"""Exact results hold against the textbooks' figures, against each other, and against a race."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.experiments.queueing import (
    Exact,
    birth_death,
    closed,
    erlang_b,
    lindley_waits,
    mm1,
    mmc,
    mmc_impatient,
    mmck,
    wait_probability,
)
from simsched.experiments.queueing_general import (
    batch_mm1,
    dm1,
    erlang_scv,
    gm1,
    hyperexponential_scv,
    lognormal_scv,
    md1,
    mdc,
    mg1,
    mmc_deadline,
)
from simsched.experiments.queueing_modulated import mmpp_mmc

utilisations = st.floats(0.05, 0.97)
server_counts = st.integers(1, 30)


def close(one: Exact, other: Exact, rel: float = 1e-7) -> None:
    """Every figure that both know is the same."""
    ours, theirs = one.figures(), other.figures()
    for name in ours.keys() & theirs.keys():
        assert ours[name] == pytest.approx(theirs[name], rel=rel, abs=1e-9), name


@pytest.mark.parametrize(
    ("exact", "figures"),
    [
        (
            mm1(0.8, 1),
            {
                "mean_wait": 4,
                "mean_number": 4,
                "sojourn_p50": 3.465736,
                "sojourn_p95": 14.978661,
                "sojourn_p99": 23.025851,
            },
        ),
        (
            mmc(3.6, 1, 4),
            {"wait_probability": 0.787753, "mean_wait": 1.969383, "wait_p99": 10.916500},
        ),
        (mmck(10, 1, 10, 10), {"blocking": 0.214582, "utilisation": 0.785418}),
        (mg1(0.8, 1, 0), {"mean_wait": 2}),
        (md1(0.8, 1), {"mean_wait": 2}),
        (closed(8, 0.1, 1), {"throughput": 0.661682, "mean_sojourn": 2.090408}),
        (mm1(0.8, 1 / 0.95), {"mean_wait": 3.008333}),
    ],
    ids=lambda value: value.model if isinstance(value, Exact) else "",
)
def test_known_figures_are_met(exact: Exact, figures: dict[str, float]) -> None:
    """The published exact cases come out to six digits."""
    found = exact.figures()

    for name, value in figures.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=5e-7), name


def test_the_hand_trace_is_exact() -> None:
    """Lindley's recursion on recorded times gives whole numbers, bit for bit."""
    arrivals, services = [0, 1, 2, 3, 10], [3, 3, 1, 1, 2]

    waits = lindley_waits(arrivals, services)

    assert waits == [0, 2, 4, 4, 0]
    assert [a + w + s for a, w, s in zip(arrivals, waits, services, strict=True)] == [
        *(3, 6, 7, 8, 12)
    ]
    assert lindley_waits([], []) == []


def test_elasticities_of_the_closed_case_add_to_one() -> None:
    """Lock and thinking together explain the cycle: scaling all durations scales all times."""

    def cycle(think: float, hold: float) -> float:
        return 1 / closed(8, 1 / think, 1 / hold).throughput

    step = 1e-5
    lock = math.log(cycle(10, math.exp(step)) / cycle(10, math.exp(-step))) / (2 * step)
    think = math.log(cycle(10 * math.exp(step), 1) / cycle(10 * math.exp(-step), 1)) / (2 * step)

    assert lock == pytest.approx(0.292776, abs=1e-6)
    assert think == pytest.approx(0.707224, abs=1e-6)


@given(utilisation=utilisations, servers=server_counts, rate=st.floats(0.01, 100))
def test_little_holds_everywhere(utilisation: float, servers: int, rate: float) -> None:
    """Numbers are throughput times times, for every model of one kind of arrival."""
    arrivals = utilisation * servers * rate
    for exact in (
        mmc(arrivals, rate, servers),
        mmck(arrivals, rate, servers, servers + 5),
        closed(servers + 3, rate / 2, rate, servers),
        mdc(arrivals, 1 / rate, servers),
    ):
        assert exact.mean_queue == pytest.approx(exact.throughput * exact.mean_wait, abs=1e-9)
        assert exact.mean_number == pytest.approx(exact.throughput * exact.mean_sojourn)
        assert exact.utilisation == pytest.approx(exact.throughput / servers / rate)


@settings(max_examples=30)
@given(utilisation=st.floats(0.05, 0.9), servers=st.integers(1, 12))
def test_special_cases_agree(utilisation: float, servers: int) -> None:
    """Models that contain M/M/c give M/M/c: finite room, equal phases, endless patience."""
    arrivals = utilisation * servers
    plain = mmc(arrivals, 1, servers)

    close(mmck(arrivals, 1, servers, servers + 2_000), plain)
    close(mmpp_mmc((arrivals, arrivals), (0.3, 0.7), 1, servers), plain)
    close(mmc_deadline(arrivals, 1, servers, 2_000.0), plain)
    close(
        replace(mmc_impatient(arrivals, 1, servers, 1e-12), wait_tail=None, sojourn_tail=None),
        plain,
    )


@given(utilisation=st.floats(0.05, 0.97))
def test_single_servers_agree(utilisation: float) -> None:
    """M/G/1, G/M/1, batches of one and M/D/1 meet where they are the same queue."""
    plain = mm1(utilisation, 1)

    close(mg1(utilisation, 1, 1), plain)
    close(gm1(lambda s: utilisation / (utilisation + s), utilisation, 1), plain, rel=1e-6)
    close(batch_mm1(utilisation, 1, 1, 1), plain)
    close(mdc(utilisation, 1, 1), mg1(utilisation, 1, 0))


@given(utilisation=st.floats(0.05, 0.95), servers=st.integers(1, 20))
def test_constant_service_waits_about_half(utilisation: float, servers: int) -> None:
    """M/D/c waits between half of M/M/c (one server or heavy traffic) and all of it."""
    ratio = mdc(utilisation * servers, 1, servers).mean_wait * (
        1 / mmc(utilisation * servers, 1, servers).mean_wait
    )

    assert 0.5 - 1e-4 <= ratio <= 1.0 or mmc(utilisation * servers, 1, servers).mean_wait < 1e-8


@given(arrivals=st.floats(0.1, 40), servers=server_counts, rate=st.floats(0.05, 5))
def test_impatience_conserves_customers(arrivals: float, servers: int, rate: float) -> None:
    """Served plus given up is everyone, at any load; those served waited as long as the rest."""
    exact = mmc_impatient(arrivals, 1, servers, rate)
    busy = exact.utilisation * servers

    assert exact.throughput == pytest.approx(busy)
    assert exact.throughput + rate * exact.mean_queue == pytest.approx(arrivals)
    # The chain itself gives the time in service, without any argument about who gives up.
    chain = birth_death(lambda _: arrivals, lambda n: min(n, servers) + max(0, n - servers) * rate)
    assert math.fsum(min(n, servers) * p for n, p in enumerate(chain)) == pytest.approx(busy)


@given(servers=st.integers(1, 200), offered=st.floats(0.1, 300))
def test_erlang_b_is_the_last_state(servers: int, offered: float) -> None:
    """The recursion agrees with the truncated Poisson law it stands for."""
    chain = birth_death(lambda n: offered if n < servers else 0.0, float)
    last = chain[servers] if len(chain) > servers else 0.0

    assert erlang_b(servers, offered) == pytest.approx(last, rel=1e-9, abs=1e-15)


def mmpp_by_brute_force(rates: tuple[float, float], switching: tuple[float, float]) -> float:
    """Mean number in MMPP(2)/M/1 from the balance equations of a chain cut at 300."""
    levels = 300
    generator = np.zeros((2 * levels, 2 * levels))
    for level in range(levels):
        for phase in (0, 1):
            here = 2 * level + phase
            generator[here, 2 * level + 1 - phase] += switching[phase]
            if level + 1 < levels:
                generator[here, here + 2] += rates[phase]
            if level > 0:
                generator[here, here - 2] += 1.0
    generator -= np.diag(generator.sum(axis=1))
    equations = generator.T.copy()
    equations[0] = 1.0
    right = np.zeros(2 * levels)
    right[0] = 1.0
    law = np.linalg.solve(equations, right).reshape(levels, 2).sum(axis=1)
    return float((law * np.arange(levels)).sum())


def test_modulated_arrivals_meet_the_balance_equations() -> None:
    """The matrix-geometric mean is that of the whole chain solved at once."""
    exact = mmpp_mmc((1.2, 0.3), (0.1, 0.1), 1)

    assert exact.mean_number == pytest.approx(mmpp_by_brute_force((1.2, 0.3), (0.1, 0.1)))


CUSTOMERS = 200_000
DRAWS = np.random.Generator(np.random.Philox(key=7))


def race(
    gaps: Iterable[float], services: Iterable[float], patiences: Iterable[float], servers: int
) -> dict[str, float]:
    """A queue of one's own, ten lines long: c servers in order of arrival, waiters may leave."""
    free = [0.0] * servers
    now, waits, sojourns = 0.0, [], []
    for gap, service, patience in zip(gaps, services, patiences, strict=True):
        now += gap
        wait = max(0.0, free[0] - now)
        if wait <= patience:
            heapq.heapreplace(free, now + wait + service)
            waits.append(wait)
            sojourns.append(wait + service)
    return {
        "abandonment": 1 - len(waits) / CUSTOMERS,
        "mean_wait_served": float(np.mean(waits)),
        "wait_p95": float(np.quantile(waits, 0.95)),
        "sojourn_p95": float(np.quantile(sojourns, 0.95)),
    }


def exponentials(mean: float) -> list[float]:
    values: list[float] = DRAWS.exponential(mean, CUSTOMERS).tolist()
    return values


def modulated_gaps(rates: tuple[float, float], switching: tuple[float, float]) -> list[float]:
    """Gaps of a two-phase Poisson stream, by racing the arrival against the switch."""
    gaps: list[float] = []
    phase, gap = 0, 0.0
    for one, other in zip(
        DRAWS.standard_exponential(4 * CUSTOMERS), DRAWS.random(4 * CUSTOMERS), strict=True
    ):
        total = rates[phase] + switching[phase]
        gap += one / total
        if other * total < rates[phase]:
            gaps.append(float(gap))
            gap = 0.0
        else:
            phase = 1 - phase
    return gaps[:CUSTOMERS]


FOREVER = [math.inf] * CUSTOMERS


@pytest.mark.parametrize(
    ("exact", "run"),
    [
        (mmc(2.4, 1, 3), lambda: race(exponentials(1 / 2.4), exponentials(1), FOREVER, 3)),
        (md1(0.7, 1), lambda: race(exponentials(1 / 0.7), [1.0] * CUSTOMERS, FOREVER, 1)),
        (mdc(2.4, 1, 3), lambda: race(exponentials(1 / 2.4), [1.0] * CUSTOMERS, FOREVER, 3)),
        (dm1(0.7, 1), lambda: race([1 / 0.7] * CUSTOMERS, exponentials(1), FOREVER, 1)),
        (
            mmc_impatient(3.3, 1, 3, 0.5),
            lambda: race(exponentials(1 / 3.3), exponentials(1), exponentials(2), 3),
        ),
        (
            mmc_deadline(3.3, 1, 3, 1.5),
            lambda: race(exponentials(1 / 3.3), exponentials(1), [1.5] * CUSTOMERS, 3),
        ),
        (
            mmpp_mmc((2.5, 1.0), (0.5, 0.5), 1, 3),
            lambda: race(modulated_gaps((2.5, 1), (0.5, 0.5)), exponentials(1), FOREVER, 3),
        ),
    ],
    ids=lambda value: value.model if isinstance(value, Exact) else "",
)
def test_a_race_of_200_000_customers_agrees(
    exact: Exact, run: Callable[[], dict[str, float]]
) -> None:
    """A small independent simulation comes within 4 % of every figure that is known."""
    known, seen = exact.figures(), run()

    for name in known.keys() & seen.keys():
        assert seen[name] == pytest.approx(known[name], rel=0.04, abs=0.002), name


def test_coefficients_of_variation() -> None:
    """Textbook laws have their textbook spread."""
    assert erlang_scv(4) == 0.25
    assert hyperexponential_scv([1.0], [3.0]) == pytest.approx(1.0)
    assert hyperexponential_scv([0.5, 0.5], [2.0, 2 / 3]) == pytest.approx(1.5)
    assert lognormal_scv(math.sqrt(math.log(3))) == pytest.approx(2.0)


def test_quantiles_undo_tails() -> None:
    """A quantile is where its tail has fallen to the rest; atoms at zero give zero."""
    exact = mmck(9.0, 1, 10, 14)
    assert exact.sojourn_tail is not None

    for q in (0.1, 0.5, 0.9, 0.999):
        quantile = exact.sojourn_quantile(q)
        assert quantile is not None
        assert exact.sojourn_tail(quantile) == pytest.approx(1 - q)
    assert exact.wait_quantile(0.2) == 0.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: mm1(1.0, 1),
        lambda: mm1(-1, 1),
        lambda: mg1(1.2, 1, 1),
        lambda: mmck(1, 1, 4, 3),
        lambda: wait_probability(2, 2.5),
        lambda: dm1(1, 0.5),
        lambda: mmpp_mmc((2, 1), (1, 1), 1),
        lambda: mm1(0.5, 1).wait_quantile(1.0),
    ],
)
def test_questions_without_an_answer_are_refused(ask: Callable[[], object]) -> None:
    """Overload, negative rates and impossible sizes raise instead of giving a number."""
    with pytest.raises(ValueError, match=r"must|no steady state"):
        ask()
