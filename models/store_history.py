"""
What the store has granted so far, told as events: a history of its own beside the scripts.

A claim that was granted makes its attempt the current one of its job; an end that was accepted is
told with what is current, and whether it is the first. So a script that forgets its fence is seen
even where the instances around it make up for that. A store that loses its memory starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from simsched.models.keyspace import LuaKeySpace
from simsched.owner_rules import GrantedFor
from simsched.ports import Reply
from simsched.telemetry import ClaimRepeated, EndAccepted, Event, NodeGranted

OWNER_KEYS: Final = {"claim": 1, "complete": 2}
"""Which key of a script names the owner of the session."""


class StoreHistory:
    """Stands before a key space, hands everything on, and listens to claims and ends."""

    def __init__(
        self, keys: LuaKeySpace, now_ns: Callable[[], int], emit: Callable[[Event], None]
    ) -> None:
        self._keys = keys
        self._now_ns = now_ns
        self._emit = emit
        self._current: dict[str, int] = {}
        self._ended: dict[str, str] = {}
        # The last grant of each job that stands: token, node, attempt.
        self._granted: dict[str, tuple[str, bytes, int]] = {}
        self.sweep = keys.sweep
        self._listeners: dict[str, Callable[[Sequence[str], Sequence[Any], Any], None]] = {
            "claim": self._claimed,
            "complete": self._completed,
            "restore": self._restored,
            "node_gone": self._node_gone,
            "heartbeat_keep": self._node_beats,
        }
        # The nodes that were said to be gone: whether they still are.
        self._gone: dict[str, bool] = {}

    def clear(self) -> None:
        """Forget every key, and what was granted."""
        self._current.clear()
        self._ended.clear()
        self._granted.clear()
        self._gone.clear()
        self._keys.clear()

    def command(self, now_us: int, *words: bytes | str | int) -> Reply:
        """Run a command; who unbinds a job takes its grant back."""
        if words[0] == "DEL":
            self._granted.pop(str(words[1]).partition(":bind:")[2], None)
        return self._keys.command(now_us, *words)

    def script(
        self, now_us: int, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply:
        """Run a script and listen."""
        reply = self._keys.script(now_us, name, keys, args)
        if name in OWNER_KEYS and self._grants(name, args, reply):
            self._granted_for(self._owner(now_us, keys[OWNER_KEYS[name]]), name, args)
        listener = self._listeners.get(name)
        if listener is not None:
            listener(keys, args, reply)
        return reply

    def _owner(self, now_us: int, key: str) -> str:
        """Whose the session of a claim or an end is, which neither changes; "": nobody's."""
        found: Any = self._keys.command(now_us, "HMGET", key, "expires_us", "owner")
        alive = found[0] is not None and int(found[0]) >= now_us
        return found[1].decode() if alive else ""

    def _grants(self, script: str, args: Sequence[Any], reply: Any) -> bool:
        """A job that is closed after a failure, or once more, is nobody's any more."""
        if script == "claim":
            return bool(reply[0] == b"CLAIMED")
        first = args[2] == "completed" and str(args[0]) not in self._ended
        return bool(first and reply[0] == b"ACCEPTED")

    def _granted_for(self, owner: str, script: str, args: Sequence[Any]) -> None:
        if owner:
            self._emit(
                GrantedFor(
                    at_ns=self._now_ns(), instance="", job=str(args[0]), what=script,
                    asker=str(args[2 if script == "claim" else 5]), owner=owner,
                )
            )  # fmt: skip

    def _node_gone(self, keys: Sequence[str], _args: Sequence[Any], reply: Any) -> None:
        if reply != 0:  # else the node is another instance's by now
            self._gone[_node_in(keys[1])] = True

    def _node_beats(self, keys: Sequence[str], _args: Sequence[Any], _reply: Any) -> None:
        node = _node_in(keys[0])
        if node in self._gone:
            self._gone[node] = False

    def _claimed(self, _keys: Sequence[str], args: Sequence[Any], reply: Any) -> None:
        job, expected, token = str(args[0]), int(args[1]), str(args[3])
        grant = (token, reply[2], reply[3]) if reply[0] == b"CLAIMED" else None
        before = self._granted.get(job)
        repeats = before is not None and (before[0], before[2]) == (token, expected + 1)
        if repeats and reply[0] != b"MOVED":
            self._emit(
                ClaimRepeated(
                    at_ns=self._now_ns(), instance="", job=job, attempt=expected + 1,
                    same=grant == before,
                )
            )  # fmt: skip
        if grant is not None:
            if grant != before:
                self._node_granted(job, grant)
            if self._current.get(job) != grant[2]:
                self._ended.pop(job, None)
            self._granted[job], self._current[job] = grant, grant[2]

    def _node_granted(self, job: str, grant: tuple[str, bytes, int]) -> None:
        node = grant[1].decode()
        if node in self._gone:
            self._emit(
                NodeGranted(
                    at_ns=self._now_ns(), instance="", node=node, job=job, attempt=grant[2],
                    gone=self._gone[node],
                )
            )  # fmt: skip

    def _restored(self, _keys: Sequence[str], args: Sequence[Any], reply: Any) -> None:
        """What an instance says again stands as if it had been granted now."""
        if reply == b"RESTORED":
            job, attempt, token, state = str(args[0]), int(args[1]), str(args[4]), str(args[5])
            self._granted.pop(job, None)
            self._current[job] = attempt
            if state == "done":
                self._ended.setdefault(job, token)

    def _completed(self, _keys: Sequence[str], args: Sequence[Any], reply: Any) -> None:
        """A job that is given up is given up whatever its attempt: only a result has a fence."""
        job, attempt, status, token = str(args[0]), int(args[1]), str(args[2]), str(args[3])
        if reply[0] == b"ACCEPTED":
            self._granted.pop(job, None)
        if reply[0] != b"ACCEPTED" or status != "completed":
            return
        self._emit(
            EndAccepted(
                at_ns=self._now_ns(), instance="", job=job, attempt=attempt,
                current_attempt=self._current.get(job, attempt),
                first=self._ended.setdefault(job, token) == token,
            )
        )  # fmt: skip


def _node_in(key: str) -> str:
    """The node that a key is of: `{cell}:node:n-0`."""
    return key.rpartition(":")[2]
