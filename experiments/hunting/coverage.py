"""
Which faults have hit which steps, of those that a hunt aims at.

An instance is hit in the step that it is in; what hits anything else is counted as `time`. Possible
is, for every kind that hits instances, each step of the hunted policy that the hunt aims at, and
for every other kind once. What comes in steps beside those is counted and not asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from simsched.errors import ConfigError
from simsched.experiments.hunting.draw import steps_of
from simsched.faults import KINDS

Hits = Mapping[tuple[str, str], int]

TIME: Final = "time"
"""Stands for the step where something else than an instance was hit."""


def possible(policy: str) -> list[tuple[str, str]]:
    """The pairs of fault and step that a hunt of the policy can cover."""
    pairs = []
    for name, kind in KINDS.items():
        inside = any(target.startswith("instance") for target in kind.targets)
        outside = any(not target.startswith("instance") for target in kind.targets)
        pairs += [(name, step) for step in steps_of(policy) if inside]
        pairs += [(name, TIME)] if outside else []
    return pairs


def covered(hits: Hits, policy: str) -> tuple[int, int]:
    """How many of the possible pairs were hit, and how many there are."""
    wanted = possible(policy)
    return sum(pair in hits for pair in wanted), len(wanted)


def table(hits: Hits, policy: str) -> list[str]:
    """A Markdown table: a row per step, a column per kind; `-` is not possible."""
    wanted = dict.fromkeys(possible(policy))
    kinds = [name for name in KINDS if any(name == kind for kind, _ in (*wanted, *hits))]
    steps = sorted({step for _, step in (*wanted, *hits)} - {TIME})
    lines = [
        f"| step | {' | '.join(kinds)} | all |",
        f"|---|{'---:|' * (len(kinds) + 1)}",
    ]
    for step in (TIME, *steps):
        counts = [hits.get((kind, step), 0) for kind in kinds]
        cells = [
            str(count) if count or (kind, step) in wanted else "-"
            for kind, count in zip(kinds, counts, strict=True)
        ]
        lines.append(f"| {step} | {' | '.join(cells)} | {sum(counts)} |")
    totals = [sum(n for (one, _), n in hits.items() if one == kind) for kind in kinds]
    lines.append(f"| all | {' | '.join(map(str, totals))} | {sum(totals)} |")
    return lines


def read_hits(file: Path) -> tuple[Counter[tuple[str, str]], str]:
    """
    The hits and the policy of a hunt that wrote `file`.

    Raises:
        ConfigError: it is no hunt.json.

    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        hits = Counter({(kind, step): int(count) for kind, step, count in told["hits"]})
        return hits, str(told["policy"])
    except OSError as error:
        raise ConfigError(str(file), "", f"cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(str(file), "", "is no hunt.json of simsched hunt") from error
