"""The watch against the real kube-apiserver and etcd, as the DaemonSet's account with the role of `deploy/base`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api_server import endpoint_slice, service_object
from tests.testbed.api_server import RealApiServer
from tests.testbed.control_plane import ControlPlane, Refused

SLICES = "/apis/discovery.k8s.io/v1/endpointslices"


@pytest.fixture
async def api_server(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[RealApiServer]:
    server = RealApiServer(control_plane, tmp_path)
    await server.open()
    yield server
    await server.close()


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
