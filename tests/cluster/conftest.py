"""Every coroutine test in here runs on both loops that control may run on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.cluster.fake_api_server import FakeApiServer


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    """An API server that has nothing yet."""
    fake = FakeApiServer(tmp_path)
    await fake.start()
    yield fake
    await fake.stop()
