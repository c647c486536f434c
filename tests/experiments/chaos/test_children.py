"""Processes of a run: heard, paused, killed, and reaped whatever happens."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simsched.experiments.chaos.children import ChildFailed, Children

LIMIT_S = 30.0
SPEAKS = "import time; print('ready', flush=True); time.sleep(600)"
COUNTS = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(.01)"


def play(folder: Path, scene: Callable[[Children], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), Children(folder) as children:
            await scene(children)

    asyncio.run(main())


def is_there(pid: int) -> bool:
    """A zombie is there, too: who is not reaped is seen."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_child_is_reaped_at_the_end(tmp_path: Path) -> None:
    """Also a paused one."""
    pids: list[int] = []

    async def scene(children: Children) -> None:
        for name in ("one", "two"):
            child = await children.start(name, [sys.executable, "-c", SPEAKS])
            await child.said(lambda line: line == "ready")
            pids.append(child.pid)
        child.pause()
        assert children.pids == pids

    play(tmp_path, scene)
    assert not any(map(is_there, pids))
    assert (tmp_path / "one.log").read_text() == "ready\n"


def test_every_child_is_reaped_after_a_failure(tmp_path: Path) -> None:
    """An exception leaves nobody behind, and is passed on."""
    pids: list[int] = []

    async def scene(children: Children) -> None:
        pids.append((await children.start("one", [sys.executable, "-c", SPEAKS])).pid)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        play(tmp_path, scene)
    assert not any(map(is_there, pids))


def test_every_child_is_reaped_when_the_run_is_cancelled(tmp_path: Path) -> None:
    """As Ctrl-C does it."""
    pids: list[int] = []

    async def main() -> None:
        async def scene() -> None:
            async with Children(tmp_path) as children:
                child = await children.start("one", [sys.executable, "-c", SPEAKS])
                await child.said(lambda line: line == "ready")
                pids.append(child.pid)
                await asyncio.Event().wait()

        task = asyncio.create_task(scene())
        while not pids:  # noqa: ASYNC110  # it raises no event
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(main())
    assert not any(map(is_there, pids))


def test_a_paused_child_says_nothing_until_it_goes_on(tmp_path: Path) -> None:
    """It is stopped, not ended, and goes on where it was."""

    async def scene(children: Children) -> None:
        child = await children.start("one", [sys.executable, "-c", COUNTS])
        await child.said(lambda line: line == "3")
        child.pause()
        await asyncio.sleep(0.1)  # what is in the pipe
        before = child.lines[-1]
        await asyncio.sleep(0.1)
        assert child.lines[-1] == before
        assert child.is_alive
        child.go_on()
        await child.said(lambda line: int(line) > int(before))

    play(tmp_path, scene)


def test_a_child_that_ends_says_why(tmp_path: Path) -> None:
    """Who waits for a word of it gets its last one; a program that is none is named."""

    async def scene(children: Children) -> None:
        child = await children.start("one", [sys.executable, "-c", "print('the port is taken')"])
        with pytest.raises(ChildFailed, match="one: the port is taken"):
            await child.said(lambda line: line == "ready")
        with pytest.raises(ChildFailed, match="two: "):
            await children.start("two", ["no-such-program-anywhere"])

    play(tmp_path, scene)


def test_a_child_that_is_asked_to_leave_may_finish(tmp_path: Path) -> None:
    """SIGTERM first; its exit code comes back, also if it was paused."""
    polite = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('leaving', flush=True), sys.exit(7)))\n"
        "print('ready', flush=True); time.sleep(600)"
    )

    async def scene(children: Children) -> None:
        child = await children.start("one", [sys.executable, "-c", polite])
        await child.said(lambda line: line == "ready")
        child.pause()
        assert await child.leave() == 7
        assert list(child.lines) == ["ready", "leaving"]

    play(tmp_path, scene)
