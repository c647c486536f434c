"""
What the keys of one cell are called, in one place.

All carry the hash tag of the cell, so that a script stays within one slot of a Redis Cluster.
"""

from __future__ import annotations


class CellKeys:
    """The keys of one cell."""

    def __init__(self, cell: str) -> None:
        self._tag = "{" + cell + "}"

    def _binding(self, request: str) -> str:
        return f"{self._tag}:bind:{request}"

    def _leases(self, node: str) -> str:
        return f"{self._tag}:leases:{node}"

    def _node(self, node: str) -> str:
        return f"{self._tag}:node:{node}"

    def _capacity(self, node: str) -> str:
        return f"{self._tag}:cap:{node}"

    def _meta(self, node: str) -> str:
        return f"{self._tag}:meta:{node}"

    def _reservation(self, job: str, attempt: int, node: str) -> str:
        return f"{self._tag}:resv:{job}:{attempt}:{node}"

    def _owner(self, kind: str, name: str) -> str:
        return f"{self._tag}:{kind}:owner:{name}"
