"""
docs/analysis.md as a program: its Python blocks, in order, and what they show.

Show the page's output anew with `./dev python -m tests.experiments.analysis_page`; right whenever
simulated results changed on purpose, or a block of the page did. A block prints, or ends in an
expression, whose value is shown as a console would.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "analysis.md"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<shown>.*?)```\n)?", re.DOTALL)


def blocks(text: str) -> list[tuple[str, str | None]]:
    """Every Python block with the output that the page shows below it, None if it shows none."""
    return [(found["code"], found["shown"]) for found in BLOCK.finditer(text)]


def run_block(code: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Run one block; what it writes, and the value of its last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    written = io.StringIO()
    value = None
    with contextlib.redirect_stdout(written), pd.option_context(*_WIDE):
        exec(compile(tree, str(PAGE), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
            if value is not None:
                print(value)
    text = "".join(line.rstrip() + "\n" for line in written.getvalue().splitlines())
    return text, value


_WIDE = (
    "display.width", 98, "display.max_columns", 20, "display.max_rows", 30,
    "display.max_colwidth", 40,
)  # fmt: skip


@contextlib.contextmanager
def in_a_checkout() -> Iterator[None]:
    """A folder that holds the page's study and nothing else that matters, as current folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "docs").symlink_to(ROOT / "docs")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def played(text: str) -> Iterator[tuple[str, str | None, str, Any]]:
    """Run the whole page: code, what the page shows, what it writes now, its value."""
    names: dict[str, Any] = {}
    with in_a_checkout():
        for code, shown in blocks(text):
            written, value = run_block(code, names)
            yield code, shown, written, value


def main() -> None:
    """Write the output below every block anew."""
    text = PAGE.read_text(encoding="utf-8")
    parts = iter(
        f"```python\n{code}```\n" + (f"\n```text\n{written}```\n" if written else "")
        for code, _, written, _ in list(played(text))
    )
    PAGE.write_text(BLOCK.sub(lambda _: next(parts), text), encoding="utf-8")


if __name__ == "__main__":
    main()
