"""One look at Services and slices: all of the cluster where that is allowed, else what was asked for."""

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from proxy.cluster.answers import ApiError
from proxy.cluster.overview import overview
from tests.cluster.api_server import endpoint_slice, service_object
from tests.cluster.fake_api_server import FakeApiServer, answer, refuse
from tests.testbed.api_server import RealApiServer
from tests.testbed.control_plane import ControlPlane

ALL = "/api/v1/services"
STATSD, DNS = "monitoring/statsd", "kube-system/kube-dns"


def listed(kind: str, *items: dict[str, Any]) -> bytes:
    return json.dumps({"kind": f"{kind}List", "metadata": {"resourceVersion": "7"}, "items": items}).encode()


async def test_everything_is_seen_where_it_may_be_listed(server: FakeApiServer) -> None:
    slices = endpoint_slice("a", ["10.1.0.1"]), endpoint_slice("tcp", ["10.1.0.2"], protocol="TCP")
    server.answer_next(answer(listed("Service", service_object(), service_object(DNS, cluster_ip="10.96.0.10"))))
    server.answer_next(answer(listed("EndpointSlice", *slices)))
    server.answer_next(answer(listed("ServiceCIDR", {"spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}})))
    seen = await overview(server.access, [STATSD, "monitoring/none"])
    assert seen.everything
    assert seen.services.keys() == {STATSD, DNS}
    assert [one.name for one in seen.slices] == ["a"]
    assert seen.missing == {"monitoring/none"}
    assert seen.ranges == (ip_network("10.96.0.0/16"), ip_network("fd00:96::/112"))
    assert seen.notes == ()


@pytest.mark.parametrize("code", [403, 404])
async def test_without_service_cidrs_it_says_what_to_give(server: FakeApiServer, code: int) -> None:
    server.answer_next(answer(listed("Service")))
    server.answer_next(answer(listed("EndpointSlice")))
    server.answer_next(refuse(code, "Reason"))
    seen = await overview(server.access, [])
    assert (seen.everything, seen.ranges) == (True, ())
    assert "--service-cidr" in seen.notes[0]


async def test_a_service_cidr_that_makes_no_sense_is_told_of(server: FakeApiServer) -> None:
    server.answer_next(answer(listed("Service")))
    server.answer_next(answer(listed("EndpointSlice")))
    server.answer_next(answer(listed("ServiceCIDR", {"spec": {}})))
    assert "without spec.cidrs" in (await overview(server.access, [])).notes[0]


async def test_where_listing_is_forbidden_the_wanted_services_are_asked_for(server: FakeApiServer) -> None:
    await server.forbid("get", ALL)
    await server.put(service_object())
    await server.put(endpoint_slice("a", ["10.1.0.1"]))
    await server.put(endpoint_slice("b", ["10.1.0.2"], service="monitoring/other"))
    seen = await overview(server.access, [STATSD, DNS])
    assert not seen.everything
    assert seen.services[STATSD].cluster_ips == ("10.96.0.20",)
    assert [one.name for one in seen.slices] == ["a"]
    assert seen.missing == {DNS}
    assert "403" in seen.notes[0]


async def test_a_service_that_may_not_be_read_is_not_missing(server: FakeApiServer) -> None:
    await server.forbid("get", ALL)
    await server.forbid("get", "services")
    seen = await overview(server.access, [STATSD])
    assert (seen.services, seen.missing) == ({}, frozenset())
    assert "its ClusterIP is not known" in seen.notes[1]


async def test_without_a_wanted_service_a_refusal_is_all_there_is(server: FakeApiServer) -> None:
    await server.forbid("get", ALL)
    with pytest.raises(ApiError, match="403"):
        await overview(server.access, [])


async def test_an_object_that_cannot_be_read_is_left_out_and_named(server: FakeApiServer) -> None:
    broken = {"metadata": {"namespace": "a", "name": "b"}, "spec": 7}
    server.answer_next(answer(listed("Service", service_object(), broken)))
    server.answer_next(answer(listed("EndpointSlice")))
    server.answer_next(answer(listed("ServiceCIDR")))
    seen = await overview(server.access, [])
    assert seen.services.keys() == {STATSD}
    assert "Service a/b: spec" in seen.notes[0]


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_real_api_server_shows_an_administrator_all_and_the_daemonset_its_own(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    server = RealApiServer(control_plane, tmp_path)
    await server.open()
    try:
        await server.put(service_object())
        await server.put(service_object(DNS, cluster_ip="10.96.0.10"))
        await server.put(endpoint_slice("statsd-1", ["10.1.0.1"]))
        administrator = replace(server.access, token_file=None, token=control_plane.admin_token)
        seen = await overview(administrator, [STATSD])
        assert seen.everything
        assert seen.services.keys() >= {STATSD, DNS, "default/kubernetes"}
        assert [one.name for one in seen.slices] == ["statsd-1"]
        assert seen.ranges == (ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112"))
        seen = await overview(server.access, [STATSD, "monitoring/none"])
        assert not seen.everything
        assert seen.services.keys() == {STATSD}
        assert [one.name for one in seen.slices] == ["statsd-1"]
        assert seen.missing == {"monitoring/none"}
    finally:
        await server.close()
