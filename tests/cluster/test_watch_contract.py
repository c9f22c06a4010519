"""The watch against the fake API server, over http and https; it is held to the same with a real one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.certificates import make_certificate, server_context
from tests.cluster.contract import WatchContract
from tests.cluster.fake_api_server import FakeApiServer


class TestWatchOfTheFakeApiServer(WatchContract):
    @pytest.fixture
    async def api_server(self, tmp_path: Path) -> AsyncIterator[FakeApiServer]:
        server = FakeApiServer(tmp_path)
        await server.start()
        yield server
        await server.stop()


class TestWatchOfTheFakeApiServerOverTls(WatchContract):
    @pytest.fixture
    async def api_server(self, tmp_path: Path) -> AsyncIterator[FakeApiServer]:
        certificate, key = make_certificate(tmp_path)
        server = FakeApiServer(tmp_path, tls=server_context(certificate, key), ca_file=certificate)
        await server.start()
        yield server
        await server.stop()
