"""
The state of a Redis server inside the simulator: the real Lua scripts over Lua tables.

`LuaKeySpace` runs the packaged `lua/*.lua` unchanged, one crossing from Python per call. Commands
and their semantics are in `keyspace.lua`, what a script sees in `keyspace_scripts.lua`. Time comes
with each call, as whole microseconds, and native expiry is lazy, as in Redis: a key is gone when
now > its expiry.

It charges nothing and waits for nothing: what a call costs, and in which order calls of several
instances arrive, is the modelled Redis' affair. It does not know networks, replication or memory
limits. A failed script keeps what it wrote before it failed, as in Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, cast

from lupa import luajit21  # type: ignore[import-untyped]

from simsched.errors import SimschedError
from simsched.ports import Reply

_NIL: Final = 1
_FLAT: Final = 2
_NESTED: Final = 3
_BIG: Final = 4
_ERROR: Final = 5

_SWEEP_LIMIT: Final = 1_000


class ScriptError(SimschedError):
    """A command or script failed as Redis would fail it: wrong type, unknown name, bad global."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One key of a dump: its type, content and native expiry (Unix ms; None: it has none).

    Content is bytes (string), a list of fields and values (hash), of members (set), of members
    and scores (zset) or of [id, fields and values] (stream), each in canonical order.
    """

    type: str
    content: Reply
    expires_ms: int | None


@cache
def script_body(name: str) -> str:
    """
    The text of `lua/<name>.lua`, without the prelude.

    Raises:
        ScriptError: there is no such script.

    """
    path = files("simsched") / "lua" / f"{name}.lua"
    if name == "prelude" or not name.isidentifier() or not path.is_file():
        raise ScriptError(f"no such script: lua/{name}.lua")
    return path.read_text(encoding="utf-8")


class LuaKeySpace:
    """A key space of its own; two of them share nothing."""

    __slots__ = ("_clear", "_dump", "_execute", "_load", "_loaded", "_run", "_sweep")

    def __init__(self) -> None:
        runtime = luajit21.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        folder = files("simsched") / "models"
        space = runtime.execute((folder / "keyspace.lua").read_bytes())
        door = runtime.compile((folder / "keyspace_scripts.lua").read_bytes())
        self._run, self._execute, self._load, self._sweep, self._dump, self._clear = door(space)
        self._loaded: dict[str, bytes] = {}

    def command(self, now_us: int, *words: bytes | str | int) -> Reply:
        """
        One plain command at the time `now_us`, e.g. `command(now, "GET", key)`.

        Raises:
            ScriptError: the command is unknown, its words are wrong, or the key has another type.

        """
        return _reply(self._execute(now_us, *_encoded(words)))

    def script(
        self, now_us: int, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply:
        """
        Run `lua/<name>.lua` at the time `now_us`.

        Raises:
            ScriptError: there is no such script, or it failed or answered with an error.

        """
        loaded = self._loaded.get(name)
        if loaded is None:
            loaded = self.load(name, script_body(name))
        return _reply(self._run(now_us, loaded, len(keys), *_encoded([*keys, *args])))

    def load(self, name: str, source: str) -> bytes:
        """
        Add a script that is not among the packaged ones, or replace one.

        Raises:
            ScriptError: it does not compile.

        """
        loaded = name.encode()
        problem = self._load(loaded, source.encode())
        if problem is not None:
            raise ScriptError(_text(problem))
        self._loaded[name] = loaded
        return loaded

    def clear(self) -> None:
        """Forget every key, as a new one would; scripts stay loaded, which nobody can see."""
        self._clear()

    def sweep(self, now_us: int, limit: int = _SWEEP_LIMIT) -> int:
        """
        Remove natively expired keys, looking at no more than `limit`; how many went.

        Nobody can see whether it ran: it only gives memory back.
        """
        return cast("int", self._sweep(now_us, limit))

    def dump(self) -> dict[bytes, Entry]:
        """Every living key as of the last call's time, sorted by key."""
        rows = cast("list[list[Any]]", _reply(self._dump()))
        return {
            key: Entry(type=kind.decode(), content=content, expires_ms=expires_ms)
            for key, kind, expires_ms, content in rows
        }


def _encoded(words: Sequence[bytes | str | int]) -> list[bytes]:
    return [
        word.encode() if type(word) is str
        else b"%d" % word if type(word) is int
        else word if type(word) is bytes
        else _odd(word)
        for word in words
    ]  # fmt: skip


def _odd(word: bytes | str | int) -> bytes:
    """What is of none of the three types themselves."""
    if isinstance(word, str):
        return word.encode()
    return b"%d" % word if isinstance(word, int) else bytes(word)


def _reply(raw: Any) -> Reply:
    """Python's form of what `answer` in keyspace.lua returned."""
    if type(raw) is not tuple:
        return None if raw == _NIL else []
    kind = raw[0]
    if kind == _FLAT:
        return list(raw[1:])
    if kind == _ERROR:
        raise ScriptError(_text(raw[1]))
    if kind == _NESTED:
        return _item(iter(raw[1:]))
    if kind == _BIG:
        size, stream = raw[1], raw[2]
        return _item(stream[place] for place in range(1, size + 1))
    return raw[1]  # type: ignore[no-any-return]


def _item(stream: Iterator[Any]) -> Reply:
    """What stands in a stream: a plain value, or True, how many follow, and those."""
    head = next(stream)
    return _listed(stream) if head is True else head


def _listed(stream: Iterator[Any]) -> list[Reply]:
    items: list[Reply] = []
    for _ in range(next(stream)):
        head = next(stream)
        items.append(_listed(stream) if head is True else head)
    return items


def _text(message: bytes) -> str:
    return message.decode("utf-8", "replace")
