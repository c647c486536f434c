"""
How far a run is: on a terminal a bar and, where a precision was asked for, the way to it.

Elsewhere nothing is said. Whoever runs a study calls these; none of them changes what is run.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol, Self


class Progress(Protocol):
    """Is told how far the run is."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: Any) -> None: ...
    def planned(self, text: str, replications: int) -> None:
        """A part of the run begins: so many replications."""
        ...

    def advanced(self) -> None:
        """One replication was finished."""
        ...


class Silent:
    """Says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def planned(self, text: str, replications: int) -> None:
        """Nothing is shown."""

    def advanced(self) -> None:
        """Nothing is shown."""


class Bar:
    """A bar on a terminal, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._part: Any = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def planned(self, text: str, replications: int) -> None:
        """Begin a new bar, the old one is full."""
        if self._part is not None:
            self._bar.remove_task(self._part)
        self._part = self._bar.add_task(text, total=replications)

    def advanced(self) -> None:
        """One more."""
        if self._part is not None:
            self._bar.advance(self._part)


def progress_for_terminal() -> Progress:
    """A bar where somebody looks at it, else silence."""
    return Bar() if sys.stderr.isatty() else Silent()
