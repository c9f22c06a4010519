"""Every scenario gets a world of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes import World


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Not started: the scenario says with how many upstreams and which policy."""
    world = World()
    yield world
    await world.stop()


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstreams that are alike are asked in the order of the policy, not in a random one."""
    monkeypatch.setattr("proxy.worker.dns.random", lambda: 0.5)
