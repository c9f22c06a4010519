"""Every scenario gets a world of its own."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.fakes import World


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Not started: the scenario says with how many upstreams and which policy."""
    world = World()
    yield world
    await world.stop()
