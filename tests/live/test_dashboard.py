"""The dashboard in a real Chromium: live figures, both widths, both schemes, no error."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from simsched.live.settings import CanarySettings
from tests.live.chromium import NO_BROWSER, browser, chromium_path
from tests.live.live_world import run, settings_with
from tests.live.observed import ObservedWorld, observed

pytestmark = pytest.mark.skipif(chromium_path() is None, reason=NO_BROWSER)

SCREENSHOTS = os.environ.get("SIMSCHED_SCREENSHOTS", "")
"""A folder to put the pictures into, for whoever wants to look."""

POLLS = int(os.environ.get("SIMSCHED_SCREENSHOT_POLLS", "4"))

TEXT = "document.body.innerText"


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (390, True)], ids=["desktop", "phone-dark"]
)
def test_the_dashboard_shows_what_the_server_does(width: int, dark: bool, tmp_path: Path) -> None:
    """Nodes, slots, jobs, latencies and decisions appear and move; nothing sticks out sideways."""
    settings = settings_with(canary=CanarySettings(policy="safe,group_updates=separate", share=0.5))

    async def main() -> None:
        async with (
            observed(settings) as world,
            world.working_node("node-asr-1", delay_s=0.05),
            world.working_node("node-asr-2", delay_s=0.1),
            world.client(),
            browser(tmp_path / "profile") as page,
        ):
            talk = asyncio.create_task(_talk(world))
            await page.open(f"http://127.0.0.1:{world.server.port}/", width, dark=dark)
            await page.wait(f"Number(document.body?.dataset.polls || 0) >= {POLLS}")
            text = await page.ask(TEXT)
            for word in ("ready", "sessions", "node-asr-1", "job create", "completed", "Canary"):
                assert word in text, word
            assert await page.ask("document.querySelectorAll('.chart canvas').length") == 2
            assert await page.ask("document.querySelectorAll('#nodes .slots i').length") == 8
            scrolls = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.ask(scrolls) <= 0
            before = await page.ask("Number(document.body?.dataset.polls)")
            await page.ask("document.querySelector('#jobs button').click()")
            await page.wait("!document.getElementById('why').hidden")
            assert "first candidate" in await page.ask("document.getElementById('why').innerText")
            await page.wait(f"Number(document.body?.dataset.polls) > {before}")
            if SCREENSHOTS:
                await page.ask("document.getElementById('why').hidden = true")
                name = f"dashboard-{width}{'-dark' if dark else ''}.png"
                keep(name, await page.screenshot())
            assert page.problems == []
            talk.cancel()
            await asyncio.wait({talk})

    run(main())


def keep(name: str, picture: bytes) -> None:
    (Path(SCREENSHOTS) / name).write_bytes(picture)


async def _talk(world: ObservedWorld) -> None:
    async def one() -> None:
        while True:
            await world.converse(4)

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(one())


def test_a_server_that_went_away_is_said_to_be_away(tmp_path: Path) -> None:
    """The page stays and says so."""

    async def main() -> None:
        async with browser(tmp_path / "profile") as page:
            async with observed() as world:
                await page.open(f"http://127.0.0.1:{world.server.port}/", 390)
                await page.wait("Number(document.body?.dataset.polls || 0) >= 1")
                text = await page.ask(TEXT)
                assert "no node is connected" in text
                assert "nothing yet" in text
            await page.wait("document.getElementById('notice').innerText.startsWith('No answer')")

    run(main())
