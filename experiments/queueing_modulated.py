"""
Exact results for arrivals that come in phases: MMPP(2)/M/c by the matrix-geometric method.

Rates per unit of time and times in that unit, as in `queueing`. Two phases need 2 x 2 matrices
only: they are written out in plain floats, because a linear algebra library's last bits depend on
the machine.
"""

from __future__ import annotations

import math
from typing import Final

from simsched.experiments.queueing import NEGLIGIBLE, Exact, positive, served_in_order, stable

Matrix = tuple[tuple[float, float], tuple[float, float]]
Vector = tuple[float, float]

_SETTLED: Final = 1e-14


def mmpp_mmc(rates: Vector, switching: Vector, service_rate: float, servers: int = 1) -> Exact:
    """
    MMPP(2)/M/c: Poisson arrivals whose rate switches between two values.

    Matrix-geometric (Neuts 1981, ch. 1 and 3; Latouche and Ramaswami, 6.2): level by level from
    the rate matrix R of the full servers down to the empty system.

    Args:
        rates: arrivals in phase 0 and in phase 1.
        switching: from phase 0 to 1, and from 1 to 0.
        service_rate: of one server.
        servers: in parallel, one queue.
    """
    positive(switching_0=switching[0], switching_1=switching[1], service_rate=service_rate)
    share = switching[1] / (switching[0] + switching[1])
    arrival_rate = share * rates[0] + (1 - share) * rates[1]
    stable(arrival_rate / (servers * service_rate))
    levels = _mmpp_levels(rates, switching, service_rate, servers)
    seen = [_dot(level, rates) / arrival_rate for level in levels]
    queue = math.fsum(
        (n - servers) * (level[0] + level[1]) for n, level in enumerate(levels) if n > servers
    )
    wait = queue / arrival_rate
    wait_tail, sojourn_tail = served_in_order(seen, service_rate, servers)
    return Exact(
        model=f"MMPP(2)/M/{servers}",
        source="Neuts, Matrix-Geometric Solutions in Stochastic Models, 1981",
        throughput=arrival_rate,
        utilisation=arrival_rate / (servers * service_rate),
        mean_wait=wait,
        mean_wait_served=wait,
        mean_sojourn=wait + 1 / service_rate,
        mean_queue=queue,
        mean_number=queue + arrival_rate / service_rate,
        wait_probability=math.fsum(seen[servers:]),
        wait_tail=wait_tail,
        sojourn_tail=sojourn_tail,
    )


def _mmpp_levels(
    rates: Vector, switching: Vector, service_rate: float, servers: int
) -> list[Vector]:
    """Stationary probabilities by level (number in system) and phase."""
    up: Matrix = ((rates[0], 0.0), (0.0, rates[1]))

    def local(busy: int) -> Matrix:
        leave = (rates[0] + switching[0], rates[1] + switching[1])
        down = busy * service_rate
        return ((-leave[0] - down, switching[0]), (switching[1], -leave[1] - down))

    def step(above: Matrix, busy: int) -> Matrix:
        """R of a level with `busy` servers, given R of the level above."""
        returning = min(busy + 1, servers) * service_rate
        kernel = _plus(local(busy), _scaled(above, returning))
        return _scaled(_times(up, _inverse(kernel)), -1.0)

    full: Matrix = ((0.0, 0.0), (0.0, 0.0))
    while True:
        following = step(full, servers)
        change = max(abs(following[i][j] - full[i][j]) for i in (0, 1) for j in (0, 1))
        full = following
        # R rises to its limit; what still moves below this is the rounding of the last bits.
        if change < _SETTLED:
            break
    climbs = [full]
    for busy in range(servers - 1, 0, -1):
        climbs.append(step(climbs[-1], busy))
    climbs.reverse()
    # Level 0: pi (local + R down) = 0 fixes the direction, the total its length.
    empty = _plus(local(0), _scaled(climbs[0], service_rate))
    level: Vector = (empty[1][0], -empty[0][0])
    levels = [level]
    size = peak = abs(level[0] + level[1])
    while len(levels) <= servers or size >= NEGLIGIBLE * peak:
        level = _row(level, climbs[len(levels) - 1] if len(levels) <= servers else full)
        levels.append(level)
        size = abs(level[0] + level[1])
        peak = max(peak, size)
    norm = math.fsum(value for pair in levels for value in pair)
    return [(one / norm, other / norm) for one, other in levels]


def _dot(one: Vector, other: Vector) -> float:
    return one[0] * other[0] + one[1] * other[1]


def _row(vector: Vector, matrix: Matrix) -> Vector:
    return (
        vector[0] * matrix[0][0] + vector[1] * matrix[1][0],
        vector[0] * matrix[0][1] + vector[1] * matrix[1][1],
    )


def _times(one: Matrix, other: Matrix) -> Matrix:
    return (_row(one[0], other), _row(one[1], other))


def _plus(one: Matrix, other: Matrix) -> Matrix:
    return (
        (one[0][0] + other[0][0], one[0][1] + other[0][1]),
        (one[1][0] + other[1][0], one[1][1] + other[1][1]),
    )


def _scaled(matrix: Matrix, factor: float) -> Matrix:
    return (
        (matrix[0][0] * factor, matrix[0][1] * factor),
        (matrix[1][0] * factor, matrix[1][1] * factor),
    )


def _inverse(matrix: Matrix) -> Matrix:
    (a, b), (c, d) = matrix
    determinant = a * d - b * c
    return (
        (d / determinant, -b / determinant),
        (-c / determinant, a / determinant),
    )
