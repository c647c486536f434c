"""
Processes of a chaos run: started, killed, paused, and always reaped.

Rules:

- every child ends with the run, also if it fails or is interrupted: `Children` is a context that
  kills by pid what it started, and waits for it;
- a child ends when we are killed: the kernel is asked for that where it can (Linux);
- a paused child is let go on before it is asked to end, so that it can;
- what a child says is kept line by line, bounded, and written to a file of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simsched.errors import SimschedError

LINES_KEPT: Final = 200
LINE_BYTES_MAX: Final = 1 << 20
END_LIMIT_S: Final = 10.0
READY_LIMIT_S: Final = 60.0
"""For a child to say that it is ready, on a machine that is busy."""

_PR_SET_PDEATHSIG: Final = 1


class ChildFailed(SimschedError):
    """A process did not start, or ended when it should not."""


class Child:
    """One process; `Children.start` makes it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.is_paused = False
        self._process = process
        self._log = log
        self._said = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(), name=f"words of {name}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or could if it were not paused."""
        return self._process.returncode is None

    async def _listen(self) -> None:
        out = self._process.stdout
        assert out is not None
        with self._log.open("ab") as log:
            while line := await _line_of(out):
                log.write(line)
                log.flush()
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._said.set()
        self._said.set()

    async def said(self, wanted: Callable[[str], bool], limit_s: float = READY_LIMIT_S) -> str:
        """
        The first line that is wanted.

        Raises:
            ChildFailed: it ended before it said so, or took too long.

        """
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    self._said.clear()
                    for line in list(self.lines):
                        if wanted(line):
                            return line
                    if self._listening.done():
                        break
                    await self._said.wait()
        except TimeoutError:
            pass
        last = self.lines[-1] if self.lines else "no word from it"
        raise ChildFailed(f"{self.name}: {last} (all of it in {self._log})")

    def pause(self) -> None:
        """Nothing of it runs until `go_on`."""
        self.is_paused = True
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It goes on where it was."""
        self._signal(signal.SIGCONT)
        self.is_paused = False

    async def kill(self) -> None:
        """End it as a crash does, and reap it."""
        self._signal(signal.SIGKILL)
        await self._reap()

    async def leave(self, limit_s: float = END_LIMIT_S) -> int:
        """Ask it to end; after the limit it is killed. Returns its exit code."""
        self.go_on()
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._process.wait()
        await self.kill()
        return self._process.returncode or 0

    async def _reap(self) -> None:
        await self._process.wait()
        with suppress(TimeoutError):  # a grandchild may hold the pipe open
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._listening)
        self._listening.cancel()
        await asyncio.wait({self._listening})

    def _signal(self, number: int) -> None:
        if self.is_alive:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _line_of(out: asyncio.StreamReader) -> bytes:
    try:
        return await out.readline()
    except ValueError:  # longer than any line of ours
        return b"...\n"


class Children:
    """
    All processes of a run.

    Args:
        logs: folder for what they say, one file each.

    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._all: list[Child] = []
        self._starting: dict[asyncio.Task[Child], None] = {}

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._starting:
            await asyncio.wait(self._starting)
        for child in self._all:
            child._signal(signal.SIGKILL)
        await asyncio.gather(*(child.kill() for child in self._all))

    @property
    def pids(self) -> list[int]:
        """Of those that are alive."""
        return [child.pid for child in self._all if child.is_alive]

    async def start(self, name: str, words: Sequence[str]) -> Child:
        """
        Start a program; it is a child of ours from then on.

        Raises:
            ChildFailed: it cannot be started.

        """
        # To its end, also if we are cancelled: a process that nobody knows is never reaped.
        task = asyncio.create_task(self._start(name, words), name=f"start {name}")
        self._starting[task] = None
        task.add_done_callback(self._starting.pop)
        return await asyncio.shield(task)

    async def _start(self, name: str, words: Sequence[str]) -> Child:
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True, limit=LINE_BYTES_MAX,
                preexec_fn=_end_with_us, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        except OSError as error:
            raise ChildFailed(f"{name}: {error}") from None
        child = Child(name, process, self._logs / f"{name}.log")
        self._all = [other for other in self._all if other.is_alive]
        self._all.append(child)
        return child


def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError):
        return ctypes.CDLL(None)
    return None


_LIBC: Final = _libc()


def _end_with_us() -> None:
    """In the child, before its program: have the kernel end it when its parent is gone."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
