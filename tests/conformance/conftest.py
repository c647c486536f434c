"""The worlds that every promise of the conformance suite is run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# Before fakeredis: it loads another Lua whose symbols would take the place of LuaJIT's.
import simsched.models.keyspace  # noqa: F401
from simsched.ports import Runtime
from tests.conformance.worlds import WORLDS, World


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = WORLDS[request.param]()
    yield world
    world.close()


@pytest.fixture
def runtime(world: World) -> Runtime:
    return world.runtime
