"""
The rules of the house that no linter knows, read from the sources alone.

Who may import whom stands in `ROOMS`, as docs/architecture.md tells it. Every check is a function
from a tree of files to its violations, so that the tests at the end can plant each violation in a
tree of their own and see it caught. Nothing here imports simsched: unfinished code is judged too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parent.parent

HOST: Final = frozenset(
    {
        "_thread",
        "asyncio",
        "concurrent",
        "datetime",
        "multiprocessing",
        "queue",
        "random",
        "sched",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "threading",
        "time",
        "trio",
        "uuid",
        "zoneinfo",
    }
)
"""Where the host's clock, chance, threads and sockets come in: a simulation may know none."""

CORE_PACKAGES: Final = frozenset({"msgspec", "immutables"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the modules of one room may import besides each other and the standard library."""

    rooms: frozenset[str]
    packages: frozenset[str] | None
    """Installed packages; None means any that is not forbidden."""
    forbidden: frozenset[str] = frozenset()
    doors: frozenset[str] = frozenset()
    """Single modules of rooms that are otherwise closed to this one."""


SERVE_BOTH: Final = frozenset(
    f"simsched.models.{name}"
    for name in ("arrivals", "distributions", "service", "speech", "workload")
)
"""Modules of the simulated world that know no simulator, so that a live load can use them."""

FOR_CHAOS: Final = frozenset(
    f"simsched.live.{name}" for name in ("embedded", "redis_connection", "runtime")
)
"""Modules of the real world that a study may use: what finds, asks and outlives real servers."""

ROOMS: Final = {
    "simsched": Room(rooms=frozenset(), packages=CORE_PACKAGES, forbidden=HOST),
    "models": Room(
        rooms=frozenset({"simsched"}),
        packages=CORE_PACKAGES | {"simpy", "numpy", "lupa"},
        forbidden=HOST,
    ),
    "live": Room(
        rooms=frozenset({"simsched"}),
        packages=None,
        forbidden=frozenset({"simpy"}),
        doors=SERVE_BOTH,
    ),
    "experiments": Room(rooms=frozenset({"simsched", "models"}), packages=None, doors=FOR_CHAOS),
}
DOORS: Final = {"simsched/__init__.py", "simsched/cli.py"}
"""The only files of `simsched/` that reach the other rooms, and then only inside functions."""

MODULE_LINES_MAX: Final = 450
TEST_LINES_MAX: Final = 800
"""A list of promises is looked up rather than read through."""

FUNCTION_LINES_MAX: Final = 75
LONGER: Final[dict[str, int]] = {}
"""Modules that are longer, with the length they may not grow beyond. This table only shrinks."""

VAGUE_NAMES: Final = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|$)")
UNFINISHED: Final = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
PLACES: Final = re.compile(
    r"(?<![\w.\-*])/(?:{folders})/[\w.]|{hosts}|https?://\S*(?:/simple/|\.whl\b|\.tgz\b)".format(
        folders="|".join(("work", "root", "home", "Users", "farm", "opt")),
        hosts="|".join(
            re.escape(".".join(parts))
            for parts in (
                ("pypi", "org"),
                ("files", "pythonhosted", "org"),
                ("registry", "npmjs", "org"),
                ("proxy", "golang", "org"),
                ("static", "crates", "io"),
            )
        ),
    )
)
"""A path of somebody's machine, or the address of a package registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, by its full dotted name."""

    name: str
    line: int
    lazy: bool
    """Inside a function."""
    typing_only: bool
    """Under `if TYPE_CHECKING`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Python file of a tree."""

    path: str
    name: str
    text: str
    syntax: ast.Module
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        return self.path.split("/", maxsplit=1)[0]


def read(root: Path, *folders: str) -> dict[str, Module]:
    """The modules below `folders`, by dotted name; links are not entered, so each comes once."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    names = {dotted(path.relative_to(root)): path for path in paths}
    modules = {}
    for name, path in names.items():
        text = path.read_text(encoding="utf-8")
        syntax = ast.parse(text, filename=str(path))
        modules[name] = Module(
            path=path.relative_to(root).as_posix(),
            name=name,
            text=text,
            syntax=syntax,
            imports=tuple(imports_below(syntax, names)),
        )
    return modules


def dotted(path: Path) -> str:
    """The import name of a file: the rooms are installed below `simsched`."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(
        parts if parts[0] not in ROOMS or parts[0] == "simsched" else ("simsched", *parts)
    )


def imports_below(
    node: ast.AST, known: dict[str, Path], *, lazy: bool = False, typing_only: bool = False
) -> Iterator[Import]:
    """Every import statement of a syntax tree, resolved to modules where `known` has them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            names = dict.fromkeys(imported_names(child, known))
            line = child.lineno
            yield from (
                Import(name=name, line=line, lazy=lazy, typing_only=typing_only) for name in names
            )
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from imports_below(
            child, known, lazy=lazy or in_function, typing_only=typing_only or for_types
        )


def imported_names(statement: ast.Import | ast.ImportFrom, known: dict[str, Path]) -> list[str]:
    """`from a import b` is module `a.b` where there is one, else something inside module `a`."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    origin = statement.module or ""
    full = [f"{origin}.{alias.name}" for alias in statement.names]
    return [name if name in known or is_room(name) else origin for name in full]


def is_room(name: str) -> bool:
    return name.startswith("simsched.") and name.split(".")[1] in ROOMS and name.count(".") == 1


def room_of(name: str) -> str | None:
    """The room that an import name leads into; None for what is not simsched's."""
    parts = name.split(".")
    if parts[0] != "simsched":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "simsched"


def import_faults(modules: dict[str, Module]) -> Iterator[str]:
    """Imports that a room's entry in `ROOMS` does not grant."""
    for module in modules.values():
        room = ROOMS[module.room]
        door = module.path in DOORS
        for wanted in module.imports:
            there, top = room_of(wanted.name), wanted.name.split(".")[0]
            where = f"{module.path}:{wanted.line}: "
            if there is None:
                standard = top in sys.stdlib_module_names
                granted = standard or door or room.packages is None or top in room.packages
                if top in room.forbidden and not door:
                    yield f"{where}{module.room} must not know {wanted.name}: ask a port"
                elif not granted:
                    yield f"{where}{module.room} must not need the package {wanted.name}"
            elif there == module.room or there in room.rooms or wanted.name in room.doors:
                continue
            elif not door:
                yield f"{where}{module.room} must not import {wanted.name}"
            elif not (wanted.lazy or wanted.typing_only):
                yield f"{where}a door imports {wanted.name} inside a function only"


def run_time_graph(modules: dict[str, Module]) -> dict[str, list[str]]:
    """
    Which module needs which at run time, imports inside functions included.

    They hide a cycle, they do not break it. Two kinds cannot make one and are left out: imports
    for types alone, and what the doors open on demand.
    """
    return {
        module.name: [
            wanted.name
            for wanted in module.imports
            if wanted.name in modules
            and not wanted.typing_only
            and not (wanted.lazy and module.path in DOORS)
        ]
        for module in modules.values()
    }


def reachable(graph: dict[str, list[str]], start: str) -> dict[str, str]:
    """Every module needed by `start`, each with the one that brought it in."""
    brought: dict[str, str] = {}
    waiting = [start]
    while waiting:
        here = waiting.pop()
        for there in graph[here]:
            if there not in brought:
                brought[there] = here
                waiting.append(there)
    return brought


def cycle_faults(modules: dict[str, Module]) -> Iterator[str]:
    """Modules that need themselves, by whatever way round."""
    graph = run_time_graph(modules)
    for name in graph:
        brought = reachable(graph, name)
        if name in brought:
            way = [name]
            while len(way) == 1 or way[-1] != name:
                way.append(brought[way[-1]])
            yield "import cycle: " + " -> ".join(reversed(way))


def shared_faults(modules: dict[str, Module]) -> Iterator[str]:
    """Simulators that a module serving both worlds brings in, itself or through others."""
    graph = run_time_graph(modules)
    for name in sorted(SERVE_BOTH & graph.keys()):
        for needed in (name, *reachable(graph, name)):
            tops = {wanted.name.split(".")[0] for wanted in modules[needed].imports}
            for simulator in sorted(tops & {"simpy", "lupa"}):
                yield f"{name} serves both worlds, yet {needed} imports {simulator}"


def shape_faults(modules: dict[str, Module]) -> Iterator[str]:
    """Modules and functions too long to be read in one go, vague names, missing docstrings."""
    for module in modules.values():
        lines = module.text.count("\n")
        usual = TEST_LINES_MAX if module.room == "tests" else MODULE_LINES_MAX
        allowed = LONGER.get(module.path, usual)
        if lines > allowed:
            yield f"{module.path}: {lines} lines, more than {allowed}"
        if module.path in LONGER and lines <= usual:
            yield f"{module.path}: short enough now, take it off LONGER"
        if module.text.strip() and ast.get_docstring(module.syntax) is None:
            yield f"{module.path}: says nowhere what it is (module docstring)"
        if any(VAGUE_NAMES.search(part) for part in module.name.split(".")):
            yield f"{module.path}: name it after what it holds"
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    yield f"{module.path}:{node.lineno}: {node.name} has {length} lines"


def text_faults(path: str, text: str) -> Iterator[str]:
    """Marks of unfinished work, and places that only one machine or registry knows."""
    for number, line in enumerate(text.splitlines(), start=1):
        if UNFINISHED.search(line):
            yield f"{path}:{number}: finish it, or write an issue"
        if place := PLACES.search(line):
            yield f"{path}:{number}: names a machine's path or a registry: {place[0]}"


@cache
def house() -> dict[str, Module]:
    return read(ROOT, *ROOMS)


@cache
def everything() -> dict[str, Module]:
    return read(ROOT, *ROOMS, "tests", "benchmarks")


def project_files() -> list[Path]:
    """What git tracks or would track; skips where there is no git checkout."""
    asked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if asked.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name.decode() for name in asked.stdout.split(b"\0") if name)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("check", [import_faults, cycle_faults, shared_faults])
def test_rooms_keep_their_doors_closed(
    check: Callable[[dict[str, Module]], Iterator[str]],
) -> None:
    """Rooms import only what their entry grants, nothing in a circle, nothing by the back door."""
    assert list(check(house())) == []


def test_modules_can_be_read() -> None:
    """Modules say what they are, are named after it, and are short enough to be read in one go."""
    assert list(shape_faults(everything())) == []


def test_files_are_finished_and_belong_to_no_machine() -> None:
    """No file holds a mark of unfinished work, a machine's path or a registry's address."""
    faults: list[str] = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or another binary
        faults += text_faults(path.relative_to(ROOT).as_posix(), text)

    assert faults == []


@pytest.mark.parametrize("room", ["live", "models", "experiments", "lua"])
def test_rooms_are_linked_into_the_package(room: str) -> None:
    """Each room is a relative link in simsched/, so that path and import name are the same."""
    link = ROOT / "simsched" / room

    assert link.is_symlink(), (
        f"simsched/{room} is no link: run `git config core.symlinks true` and check out again"
    )
    assert link.readlink() == Path("..") / room
    assert link.is_dir()


def test_scripts_say_what_they_do() -> None:
    """Every Lua file opens with a comment that says what it is."""
    scripts = [path for path in project_files() if path.suffix == ".lua"]

    assert [path.name for path in scripts if not path.read_text("utf-8").startswith("-- ")] == []


PLANTED: Final[list[tuple[Callable[[dict[str, Module]], Iterator[str]], dict[str, str], str]]] = [
    (import_faults, {"simsched/a.py": "import asyncio\n"}, "asyncio"),
    (import_faults, {"simsched/a.py": "def f():\n    from time import time\n"}, "time"),
    (import_faults, {"simsched/a.py": "import numpy as np\n"}, "numpy"),
    (import_faults, {"simsched/a.py": "from simsched import live\n"}, "simsched.live"),
    (import_faults, {"simsched/a.py": "from simsched.live.s import x\n"}, "simsched.live.s"),
    (import_faults, {"models/a.py": "import random\n"}, "random"),
    (import_faults, {"models/a.py": "import simsched.live.s\n"}, "simsched.live.s"),
    (import_faults, {"live/a.py": "import simsched.models.tasks\n"}, "simsched.models.tasks"),
    (import_faults, {"live/a.py": "import simpy\n"}, "simpy"),
    (import_faults, {"experiments/a.py": "import simsched.live.s\n"}, "simsched.live.s"),
    (import_faults, {"simsched/cli.py": "import simsched.models.a\n"}, "inside a function"),
    (
        cycle_faults,
        {
            "simsched/a.py": "from simsched import b\n",
            "simsched/b.py": "def f():\n    from simsched.a import x\n",
        },
        "simsched.a -> simsched.b -> simsched.a",
    ),
    (
        shared_faults,
        {"models/speech.py": "import simsched.models.a\n", "models/a.py": "import simpy\n"},
        "simsched.models.a imports simpy",
    ),
    (shape_faults, {"simsched/a.py": "x = 1\n"}, "docstring"),
    (shape_faults, {"simsched/node_utils.py": '"""Doc."""\n'}, "name it"),
    (shape_faults, {"simsched/a.py": '"""Doc."""\n' * (MODULE_LINES_MAX + 1)}, "lines"),
    (
        shape_faults,
        {"simsched/a.py": '"""Doc."""\ndef f():\n' + "    x\n" * FUNCTION_LINES_MAX},
        "f has 76 lines",
    ),
]


def plant(root: Path, files: dict[str, str]) -> dict[str, Module]:
    """A small house holding `files`, with rooms and links as the real one has them."""
    for room in ROOMS:
        (root / room).mkdir()
    for room in ROOMS.keys() - {"simsched"}:
        (root / "simsched" / room).symlink_to(Path("..") / room)
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    return read(root, *ROOMS)


@pytest.mark.parametrize(("check", "files", "named"), PLANTED)
def test_planted_faults_are_caught(
    tmp_path: Path,
    check: Callable[[dict[str, Module]], Iterator[str]],
    files: dict[str, str],
    named: str,
) -> None:
    """Each rule has teeth: a house that breaks it once is told so, and told where."""
    faults = list(check(plant(tmp_path, files)))

    assert faults
    assert all(named in fault for fault in faults[:1])


def test_a_tidy_house_is_left_alone(tmp_path: Path) -> None:
    """What the rules grant raises no fault: lower rooms, type-only circles, doors on demand."""
    modules = plant(
        tmp_path,
        {
            "simsched/__init__.py": '"""D."""\ndef f():\n    from simsched.experiments import r\n',
            "simsched/a.py": '"""D."""\nfrom dataclasses import dataclass\nimport msgspec\n',
            "simsched/b.py": '"""D."""\nif TYPE_CHECKING:\n    from simsched.c import x\n',
            "simsched/c.py": '"""D."""\nfrom simsched.b import x\n',
            "models/speech.py": '"""D."""\nimport numpy\nfrom simsched.a import x\n',
            "live/load.py": '"""D."""\nimport asyncio\nfrom simsched.models import speech\n',
            "experiments/r.py": '"""D."""\nimport time\nfrom simsched import __version__\n',
        },
    )

    for check in (import_faults, cycle_faults, shared_faults, shape_faults):
        assert list(check(modules)) == []


@pytest.mark.parametrize(
    "line",
    [
        "-- TO" + "DO later",
        "cd /wo" + "rk/main",
        "path = '/ho" + "me/me/x'",
        "see https://py" + "pi.org/project/x",
    ],
)
def test_planted_words_are_caught(line: str) -> None:
    """A mark of unfinished work, a machine's path and a registry's address are each found."""
    assert list(text_faults("a.md", line))
    assert not list(text_faults("a.md", "docs/wo" + "rk/ and simsched/root/ and runs at home/"))
