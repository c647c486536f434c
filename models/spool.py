"""
Columns that grow on disk: memory stays flat however long a run is.

Numbers are appended to small arrays; `spill` moves them to an unnamed temporary file, one per
column, and `columns` gives everything back as memory-mapped numpy arrays.
"""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Mapping
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

LINES_KEPT: Final = 1 << 14
"""Rows of text kept in memory before they go to disk."""


class Spool:
    """Named columns of numbers; `types` are `array` type codes."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = dict(types)
        self.recent: dict[str, array[int]] = {name: array(code) for name, code in types.items()}
        self._files: dict[str, IO[bytes]] = {}
        self._spilled = 0

    def __len__(self) -> int:
        first = next(iter(self.recent.values()))
        return self._spilled + len(first)

    def spill(self) -> None:
        """Move what was appended since the last time to disk."""
        first = next(iter(self.recent.values()))
        if not first:
            return
        self._spilled += len(first)
        for name, column in self.recent.items():
            if name not in self._files:
                self._files[name] = file = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, file.close)
            self._files[name].write(column.tobytes())
            del column[:]

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that was appended, in order."""
        if not self._spilled:
            return {
                name: np.array(column, np.dtype(self._types[name]))
                for name, column in self.recent.items()
            }
        self.spill()
        return {name: self._mapped(name) for name in self._types}

    def _mapped(self, name: str) -> npt.NDArray[Any]:
        file = self._files[name]
        file.flush()
        return np.memmap(file, np.dtype(self._types[name]), "r", shape=(self._spilled,))


class Lines:
    """A text column on disk, one line a row; a text holds no line break."""

    def __init__(self) -> None:
        self._recent: list[str] = []
        self._file: IO[str] | None = None

    def append(self, text: str) -> None:
        """Add a row."""
        self._recent.append(text)
        if len(self._recent) >= LINES_KEPT:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._file.writelines(f"{text}\n" for text in self._recent)
        self._recent.clear()

    def all(self) -> list[str]:
        """Every row, in order."""
        if self._file is None:
            return list(self._recent)
        self._spill()
        self._file.seek(0)
        return self._file.read().splitlines()
