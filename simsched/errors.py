"""
The failures a caller can meet.

Three kinds of failure exist here: `assert` for our own bugs, a `SimschedError` for what a caller
can meet and mend, and a returned value for normal outcomes (a refused reservation is no error).
"""

from __future__ import annotations


class SimschedError(Exception):
    """Root of every error that simsched raises on purpose; its text is one line for a person."""


class ConfigError(SimschedError):
    """A setting is wrong: names the place, the key and what would be right."""

    def __init__(self, where: str, key: str, want: str) -> None:
        super().__init__(f"{where}: {key}: {want}" if key else f"{where}: {want}")
        self.where = where
        self.key = key
        self.want = want

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, str]]:
        """Errors cross process borders; the default would rebuild from the text alone."""
        return type(self), (self.where, self.key, self.want)


class StoreUnavailable(SimschedError):
    """The store gave no answer within its limit: the outcome of the call is unknown."""


class MessageError(SimschedError):
    """A wire message could not be understood."""


class Deadlock(SimschedError):
    """Nothing is scheduled any more, yet the main task still waits; names who waits on what."""
