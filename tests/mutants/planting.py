"""
How a deliberate fault gets into the running program, and out of it again.

A plant replaces one passage of a Lua script or of one function of the core, in memory. The passage
must be there exactly once: a plant whose place has been rewritten fails loudly (`NotThere`), so
that no mutant dies in silence. This file does not know which mutants there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from textwrap import dedent
from types import FunctionType
from typing import Any

from simsched.models import hunted, keyspace


class NotThere(Exception):
    """The passage that a plant replaces is not in its place, or not only once."""


@dataclass(frozen=True, slots=True)
class Lua:
    """Replaces a passage of `lua/<script>.lua`, for every key space that is made meanwhile."""

    script: str
    old: str
    new: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Inside, the script reads otherwise."""
        usual = keyspace.script_body
        text = _replaced(usual(self.script), self.old, self.new, f"lua/{self.script}.lua")

        def body(name: str) -> str:
            return text if name == self.script else usual(name)

        keyspace.script_body = body  # type: ignore[assignment]  # it is cached, this is not
        hunted.SPARE.clear()  # key spaces that have the usual script loaded
        try:
            yield
        finally:
            keyspace.script_body = usual
            hunted.SPARE.clear()


@dataclass(frozen=True, slots=True)
class Code:
    """
    Replaces a passage of a function: `module:function` or `module:Class.method`.

    The function must not be reached by another name than its home's (`from module import f`).
    """

    place: str
    old: str
    new: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Inside, the function does otherwise."""
        module_name, _, path = self.place.partition(":")
        module = import_module(f"simsched.{module_name}")
        home: Any = module
        *outer, name = path.split(".")
        for part in outer:
            home = getattr(home, part)
        usual = inspect.getattr_static(home, name, None)
        if not isinstance(usual, FunctionType):
            raise NotThere(f"{self.place}: no such function")
        source = _replaced(dedent(inspect.getsource(usual)), self.old, self.new, self.place)
        setattr(home, name, _compiled(source, name, module.__dict__, self.place))
        try:
            yield
        finally:
            setattr(home, name, usual)


Plant = Lua | Code


def _replaced(text: str, old: str, new: str, where: str) -> str:
    found = text.count(old)
    if found != 1:
        raise NotThere(f"{where}: {old.strip()!r} is there {found} times, once is expected")
    return text.replace(old, new)


def _compiled(source: str, name: str, names: dict[str, Any], where: str) -> Callable[..., Any]:
    made: dict[str, Any] = {}
    flags = annotations.compiler_flag
    exec(compile(source, f"<mutant of {where}>", "exec", flags, dont_inherit=True), names, made)
    return made[name]  # type: ignore[no-any-return]


@contextmanager
def planted(plants: tuple[Plant, ...]) -> Iterator[None]:
    """Inside, all of them are in place."""
    with ExitStack() as stack:
        for plant in plants:
            stack.enter_context(plant.planted())
        yield
