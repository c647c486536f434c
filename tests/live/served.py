"""`simsched serve` as a process of its own, which a test may kill, freeze or send away."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


class Served:
    """One server process."""

    def __init__(self, redis_url: str, name: str, *, port: int = 0, **settings: object) -> None:
        self.name = name
        given = {
            "server.instance_id": name,
            "store.timeout_ms": 10_000,
            "store.inbox_block_ms": 100,
            "timeouts.remote_refresh_ms": 0,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        words = [sys.executable, "-m", "simsched", "serve"]
        words += ["--port", str(port), "--redis-url", redis_url]
        for key, value in given.items():
            words += ["--set", f"{key}={value}"]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.port = self._port()
        self.url = f"ws://127.0.0.1:{self.port}"

    def _port(self) -> int:
        assert self.process.stdout is not None
        said, end = b"", time.monotonic() + START_S
        while b"\n" not in said:
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            piece = os.read(self.process.stdout.fileno(), 4_096) if ready else b""
            assert piece, f"{self.name} did not start"
            said += piece
        found = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", said)
        assert found, said
        return int(found[1])

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nobody is told."""
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """SIGTERM: it drains; the caller may wait for it."""
        self.process.send_signal(signal.SIGTERM)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def serving(redis_url: str, *names: str, **settings: Any) -> Iterator[list[Served]]:
    """Servers of these names on one store, for the length of the block."""
    servers: list[Served] = []
    try:
        for name in names:
            servers.append(Served(redis_url, name, **settings))  # noqa: PERF401  # each is closed
        yield servers
    finally:
        for server in servers:
            server.close()
