"""A real server that a test may end, freeze and start again at the same place."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest

from simsched.live.sinks import NullSink
from simsched.steps import Step
from simsched.telemetry import Event, Operation, OpKind
from tests.conformance.redis_server import NO_SERVER, server_path

T = TypeVar("T")

LIMIT_S = 20.0
"""For every wait of a test; none comes near it unless something is wrong."""


class Valkey:
    def __init__(self, folder: str) -> None:
        path = server_path()
        if path is None:
            pytest.skip(NO_SERVER)
        self._program = path
        self._folder = folder
        self._socket = Path(folder) / "v.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [
            self._program, "--port", "0", "--unixsocket", str(self._socket), "--save", "",
            "--dir", self._folder, "--logfile", "/dev/null",
        ]  # fmt: skip
        self._process = subprocess.Popen(words)
        end = time.monotonic() + LIMIT_S
        while not self._answers():
            assert time.monotonic() < end
            time.sleep(0.002)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(1.0)
            try:
                link.connect(str(self._socket))
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def kill(self) -> None:
        """As a crash does: its connections close, its data are lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Connections stay and nobody answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def valkey() -> Iterator[Valkey]:
    """A running server for the length of the block."""
    with TemporaryDirectory(prefix="simsched-") as folder:
        server = Valkey(folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()


class Kept(NullSink):
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, int, int, int]] = []
        self.operations: list[tuple[int, int]] = []
        self.events: list[Event] = []
        self.counts: dict[str, int] = {}
        self.lags: list[int] = []

    def step(
        self, step: Step, op: Operation, start_ns: int, wait_ns: int, own_ns: int, n: int, site: int
    ) -> None:
        self.steps.append((step.name, start_ns, wait_ns, own_ns, n, site))

    def operation(self, op: Operation, ended_ns: int, outcome: int) -> None:
        self.operations.append((op.id, outcome))

    def event(self, event: Event) -> None:
        self.events.append(event)

    def count(self, name: str, amount: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def lag(self, at_ns: int, lag_ns: int) -> None:
        self.lags.append(lag_ns)


def operation() -> Operation:
    return Operation(OpKind.CONTROL, 1, 1, "", 0)


def play(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario; it may not take for ever."""

    async def bounded() -> T:
        async with asyncio.timeout(LIMIT_S):
            return await main()

    return asyncio.run(bounded())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    while not holds():  # noqa: ASYNC110  # what is waited for raises no event
        await asyncio.sleep(0.002)
