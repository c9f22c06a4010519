"""The watch against the fake API server, over http; `tests/testbed` runs the same against a real one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.contract import WatchContract
from tests.cluster.fake_api_server import FakeApiServer


class TestWatchOfTheFakeApiServer(WatchContract):
    @pytest.fixture
    async def api_server(self, tmp_path: Path) -> AsyncIterator[FakeApiServer]:
        server = FakeApiServer(tmp_path)
        await server.start()
        yield server
        await server.stop()
