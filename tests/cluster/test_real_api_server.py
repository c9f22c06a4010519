"""The watch against the real kube-apiserver and etcd, as the DaemonSet's account with the role of `deploy/base`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.cluster.timing import Timing
from tests import peers
from tests.cluster.api_server import endpoint_slice, service_object
from tests.cluster.contract import WatchContract
from tests.cluster.following import QUICK, following
from tests.testbed import control_plane as testbed
from tests.testbed.api_server import RealApiServer
from tests.testbed.control_plane import ControlPlane, Refused

# The fake one serves on both loops; here a test costs seconds.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
DEBIANS_ETCD = Path("/usr/bin/etcd")


@pytest.fixture
async def api_server(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[RealApiServer]:
    async with opened(control_plane, tmp_path) as server:
        yield server


@asynccontextmanager
async def opened(plane: ControlPlane, directory: Path) -> AsyncIterator[RealApiServer]:
    server = RealApiServer(plane, directory)
    await server.open()
    yield server
    await server.close()


class TestWatchOfTheRealApiServer(WatchContract):
    """The contract that the fake API server is held to as well."""


async def test_a_bookmark_moves_the_version_on(api_server: RealApiServer) -> None:
    await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
    async with following(api_server.access, timing=replace(QUICK, watch=(5, 5))) as follower:
        await follower.knows("10.1.0.1")
        before = len(follower.history)
        version = await api_server.put(endpoint_slice("other", ["10.2.0.1"], service="elsewhere/other"))
        # It comes 2 s before the watch's end.
        await follower.until(lambda: int(follower.informer.status().resource_version or 0) >= int(version))
        assert len(follower.history) == before
        assert follower.informer.status().restarts == 0


async def test_watches_that_end_in_order_lose_nothing(api_server: RealApiServer) -> None:
    await api_server.put(endpoint_slice("statsd", ["10.1.0.0"]))
    async with following(api_server.access, timing=replace(QUICK, watch=(1, 1), shortest_watch=0.5)) as follower:
        for number in range(30):
            await api_server.put(endpoint_slice("statsd", [f"10.1.0.{number}"]))
            await follower.knows(f"10.1.0.{number}")
            await asyncio.sleep(0.1)  # over three ends
        assert follower.informer.status().restarts == 0


async def test_the_stream_goes_on_after_30_frozen_seconds(api_server: RealApiServer) -> None:
    """With the waits that `run` has: nothing is given up for half a minute of silence."""
    await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
    async with following(api_server.access, timing=Timing()) as follower:
        await follower.knows("10.1.0.1")
        await api_server.freeze()
        await asyncio.sleep(30)  # no event tells that nothing happened
        assert follower.addresses() == {"10.1.0.1"}
        await api_server.thaw()
        await api_server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")
        assert follower.history == [{"10.1.0.1"}, {"10.1.0.2"}]
        assert follower.informer.status().restarts == 0


async def test_it_trusts_the_new_ca_when_that_was_rotated(api_server: RealApiServer) -> None:
    await api_server.put(endpoint_slice("statsd", ["10.1.0.1"]))
    async with following(api_server.access) as follower:
        await follower.knows("10.1.0.1")
        await api_server.rotate_certificate()
        await api_server.put(endpoint_slice("statsd", ["10.1.0.2"]))
        await follower.knows("10.1.0.2")


async def test_no_token_goes_to_a_server_that_the_ca_does_not_vouch_for(api_server: RealApiServer) -> None:
    async with following(replace(api_server.access, ca_file=None)) as follower:
        error = await follower.until(lambda: follower.informer.status().error)
        assert "certificate verify failed" in error
    assert not await api_server.requested()


@peers.needs("kube-apiserver", "openssl")
@pytest.mark.skipif(not DEBIANS_ETCD.exists(), reason="not installed: Debian's etcd-server")
async def test_an_etcd_that_does_not_tell_its_progress_is_enough(tmp_path: Path) -> None:
    """With one older than 3.4.31 the API server refuses to begin a watch with the present objects."""
    with testbed.running(tmp_path / "plane", str(DEBIANS_ETCD)) as plane:
        async with opened(plane, tmp_path) as server:
            await server.put(endpoint_slice("statsd", ["10.1.0.1"]))
            async with following(server.access) as follower:
                await follower.knows("10.1.0.1")
                await server.put(endpoint_slice("statsd", ["10.1.0.2"]))
                await follower.knows("10.1.0.2")
                assert follower.informer.status().restarts == 1
            assert ("list", "endpointslices") in await server.requested()


async def asked(server: RealApiServer, method: str, path: str, body: Any = None) -> int:
    """The status that the service account gets."""
    try:
        await server.ask(method, path, body, token=server.access.token_file.read_text())
    except Refused as refused:
        return refused.status
    return 200


async def test_the_account_may_list_slices_and_get_a_service(api_server: RealApiServer) -> None:
    await api_server.put(endpoint_slice("statsd-1", ["10.244.1.7"]))
    await api_server.put(service_object())
    assert await asked(api_server, "GET", SLICES) == 200
    assert await asked(api_server, "GET", f"{SLICES}?watch=1&timeoutSeconds=1") == 200
    assert await asked(api_server, "GET", "/api/v1/namespaces/monitoring/services/statsd") == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/pods"),
        ("GET", "/api/v1/secrets"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/api/v1/services"),
        ("GET", "/apis/discovery.k8s.io/v1/namespaces/monitoring/endpointslices/statsd-1"),
        ("DELETE", "/apis/discovery.k8s.io/v1/namespaces/monitoring/endpointslices/statsd-1"),
        ("POST", "/apis/discovery.k8s.io/v1/namespaces/monitoring/endpointslices"),
        ("DELETE", "/api/v1/namespaces/monitoring/services/statsd"),
    ],
)
async def test_the_account_may_do_nothing_else(api_server: RealApiServer, method: str, path: str) -> None:
    body = endpoint_slice("statsd-2", ["10.244.1.8"]) if method == "POST" else None
    assert await asked(api_server, method, path, body) == 403
