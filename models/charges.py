"""
What one step costs, ready to be charged: integer arithmetic on the hot path.

A `Charge` is a law of a time, a part that grows with n (nodes, keys, jobs), or both. A charge that
needs no randomness says so, so that no draw is made for it; one that never changes says its cost.
"""

from __future__ import annotations

from simsched.models.distributions import Constant, Distribution
from simsched.models.quantiles import compiled


class Charge:
    """
    A cost in nanoseconds.

    `fixed_ns` is the cost where it is always the same, else None; `is_drawn` is False where `ns`
    does not look at its bits. Costs are never negative.
    """

    __slots__ = ("fixed_ns", "is_drawn")

    def __init__(self, fixed_ns: int | None, is_drawn: bool) -> None:
        self.fixed_ns = fixed_ns
        self.is_drawn = is_drawn

    def ns(self, bits: int, n: int) -> int:
        """The cost that 64 random bits stand for, of work of size `n`."""
        raise NotImplementedError

    def mean_ns(self, n: int) -> float:
        """Expected cost of work of size `n`."""
        raise NotImplementedError


class FixedCharge(Charge):
    """Always the same."""

    __slots__ = ("_ns",)

    def __init__(self, ns: int) -> None:
        super().__init__(ns, is_drawn=False)
        self._ns = ns

    def ns(self, bits: int, n: int) -> int:
        return self._ns

    def mean_ns(self, n: int) -> float:
        return float(self._ns)


class DrawnCharge(Charge):
    """Drawn from a law, whatever the size of the work."""

    __slots__ = ("_draw", "_law")

    def __init__(self, law: Distribution) -> None:
        super().__init__(None, is_drawn=True)
        self._law = compiled(law)
        self._draw = self._law.ns

    def ns(self, bits: int, n: int) -> int:
        return self._draw(bits)

    def mean_ns(self, n: int) -> float:
        return self._law.mean_ns


class GrowingCharge(Charge):
    """A straight line through two sizes of work, on beyond them in both directions."""

    __slots__ = ("_high_ns", "_low_n", "_low_ns", "_span_n")

    def __init__(self, low_n: int, low_ns: int, high_n: int, high_ns: int) -> None:
        assert low_n < high_n
        super().__init__(None, is_drawn=False)
        self._low_n = low_n
        self._low_ns = low_ns
        self._high_ns = high_ns
        self._span_n = high_n - low_n

    def ns(self, bits: int, n: int) -> int:
        rise = (self._high_ns - self._low_ns) * (n - self._low_n)
        return max(0, self._low_ns + rise // self._span_n)

    def mean_ns(self, n: int) -> float:
        return float(self.ns(0, n))


class PerItemCharge(Charge):
    """A law for the whole and a time for each of n items."""

    __slots__ = ("_draw", "_law", "_per_item_ns")

    def __init__(self, law: Distribution, per_item_ns: int) -> None:
        super().__init__(None, is_drawn=not isinstance(law, Constant))
        self._law = compiled(law)
        self._draw = self._law.ns
        self._per_item_ns = per_item_ns

    def ns(self, bits: int, n: int) -> int:
        return self._draw(bits) + n * self._per_item_ns

    def mean_ns(self, n: int) -> float:
        return self._law.mean_ns + n * self._per_item_ns


def charge_for(law: Distribution, per_item_ns: int = 0) -> Charge:
    """The cheapest charge that says this."""
    if per_item_ns:
        return PerItemCharge(law, per_item_ns)
    return FixedCharge(law.value_ns) if isinstance(law, Constant) else DrawnCharge(law)
