"""
Keyed randomness: a draw belongs to the thing it describes, not to the order of events.

A key is 64 bits; a draw is a pure function of a key and a counter. Two runs that ask for the same
thing get the same number, however many other draws were made in between: that is what makes
common random numbers hold across variants. `mix` is the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), which passes BigCrush on
counter inputs. Nothing here depends on `hash()`, on the host or on the time.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from simsched.units import MASK64

GOLDEN: Final = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: SplitMix64's increment, spreads consecutive counters."""


@lru_cache(maxsize=1 << 10)
def key_of(*parts: str | int) -> int:
    """
    A 64-bit key for the thing that `parts` name; different parts give unrelated keys.

    Those of instances, nodes and sessions are asked for again and again, and so remembered.
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(key: int, counter: int = 0) -> int:
    """Draw number `counter` of `key`: 64 well-mixed bits."""
    z = (key + (counter + 1) * GOLDEN if counter else key + GOLDEN) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def below(bits: int, bound: int) -> int:
    """Turn 64 random bits into a whole number in [0, bound); bias below bound / 2^64."""
    return (bits * bound) >> 64
