"""A headless Chromium, driven over its DevTools protocol: load a page, ask it, look at it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.live.live_world import LIMIT_S

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
NO_BROWSER = "no Chromium on PATH: apt-get install chromium"


def chromium_path() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []

    async def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(LIMIT_S):
            while True:
                message = json.loads(await self._socket.recv())
                if message.get("id") == number:
                    assert "error" not in message, message
                    return message["result"]
                if message.get("method") == "Runtime.exceptionThrown":
                    self.problems.append(str(message["params"]["exceptionDetails"]))

    async def open(self, url: str, width: int, *, dark: bool = False) -> None:
        await self.call("Page.enable")
        await self.call("Runtime.enable")
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        await self.call("Page.navigate", url=url)

    async def ask(self, expression: str) -> Any:
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait(self, expression: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not await self.ask(expression):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.05)

    async def screenshot(self) -> bytes:
        width, height = await self.ask("[innerWidth, document.body.offsetHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A browser with a fresh profile and one tab; ended with the block."""
    program = chromium_path()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, *FLAGS, f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        address = await _address(process)
        async with connect(address, max_size=None, compression=None, proxy=None) as root:
            found = await Page(root).call("Target.getTargets")
        tab = next(t["targetId"] for t in found["targetInfos"] if t["type"] == "page")
        url = f"{address.split('/devtools/')[0]}/devtools/page/{tab}"
        async with connect(url, max_size=None, compression=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        async with asyncio.timeout(LIMIT_S):
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        while line := (await process.stderr.readline()).decode():
            if "DevTools listening on " in line:
                return line.split("DevTools listening on ")[1].strip()
    raise AssertionError("Chromium ended before it listened")
