"""Endpoints as control follows them: when what the API server says is applied."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.control.configuration import load
from proxy.control.endpoints import Endpoints
from proxy.core.endpoints import ServicePort
from tests.cluster.api_server import endpoint_slice
from tests.cluster.fake_api_server import FakeApiServer
from tests.control.eventually import eventually

WANTED = ServicePort("monitoring/statsd", "statsd")


class Following:
    """Endpoints of one Service, and how often they were applied."""

    def __init__(self, server: FakeApiServer, directory: Path) -> None:
        access = server.access
        relay = {"name": "statsd", "listen": ["127.0.0.1:8125"], "service": WANTED.service, "port": WANTED.port}
        config = {
            "udp": [relay],
            "kubernetes": {"server": access.server, "token_file": str(access.token_file)},
            "admin": {"socket": str(directory / "admin.sock")},
        }
        (directory / "sidestep.yaml").write_text(json.dumps(config))
        self.applied = 0
        self.endpoints = Endpoints(self._apply)
        self.endpoints.follow(load(directory / "sidestep.yaml"))
        self.task = asyncio.ensure_future(self.endpoints.run())

    def _apply(self) -> None:
        self.applied += 1

    async def number(self, wanted: int) -> None:
        """Until so many may be used."""
        await eventually(lambda: len(self.endpoints.usable(WANTED)) == wanted)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def following(server: FakeApiServer, tmp_path: Path) -> AsyncIterator[Following]:
    following = Following(server, tmp_path)
    yield following
    following.task.cancel()
    await asyncio.wait([following.task])


async def test_events_that_come_together_are_applied_together(server: FakeApiServer, following: Following) -> None:
    """Each alone takes an endpoint away, and so could not wait."""
    addresses = [f"10.244.1.{number}" for number in range(1, 7)]
    await server.put(endpoint_slice("statsd-a", addresses))
    await following.number(6)
    await eventually(lambda: bool(server.watches))
    before = following.applied
    events = []
    for version, left in enumerate(range(5, 0, -1), 1_000):
        slice_ = endpoint_slice("statsd-a", addresses[:left])
        slice_["metadata"]["resourceVersion"] = str(version)
        events.append(json.dumps({"type": "MODIFIED", "object": slice_}) + "\n")
    server.say("".join(events).encode())
    await following.number(1)
    assert following.applied == before + 1
