"""What the kernel is told of each listener, by configuration and endpoints."""

from pathlib import Path

import pytest

from proxy.control.configuration import load
from proxy.control.endpoints import Endpoints
from proxy.control.node_listeners import node_listeners
from proxy.node.table import NodeListener

SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: kube-system, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: {family}
ports: [{{name: dns, port: {port}, protocol: UDP}}]
endpoints: [{{addresses: ["{address}"], targetRef: {{kind: Pod, name: p, uid: "{uid}"}}}}]
"""
DUAL = SLICE.format(name="a", service="kube-dns", family="IPv4", port=53, address="10.244.1.2", uid=1) + SLICE.format(
    name="b", service="kube-dns", family="IPv6", port=53, address="fd00::2", uid=1
)
SERVICE_ZONE = "{suffix: cluster.local, upstreams: {service: kube-system/kube-dns, port: dns}}"


def listeners(tmp_path: Path, text: str, slices: str = DUAL) -> list[NodeListener]:
    (tmp_path / "endpoints.yaml").write_text(slices)
    file = tmp_path / "sidestep.yaml"
    file.write_text(f"endpoints_file: {tmp_path}/endpoints.yaml\nnode: {{}}\n{text}")
    endpoints = Endpoints(lambda: None)
    loaded = load(file)
    endpoints.follow(loaded)
    return node_listeners(loaded, endpoints)


def dns(zones: str, listen: str = '"169.254.20.10:53"') -> str:
    return f"dns: {{listen: [{listen}], zones: [{zones}]}}\n"


def test_dns_listens_over_both_and_falls_back_to_both_ip_families(tmp_path: Path) -> None:
    found = listeners(tmp_path, dns(SERVICE_ZONE))
    assert [one.name for one in found] == ["169.254.20.10:53/udp", "169.254.20.10:53/tcp"]
    assert all(one.fallback == ("10.244.1.2:53", "[fd00::2]:53") for one in found)
    assert not any(one.service or one.relay for one in found)


def test_a_listener_that_a_zone_falls_back_to_is_a_services(tmp_path: Path) -> None:
    zone = "{suffix: ., upstreams: {service: kube-system/kube-dns, port: dns}, fallback: ['10.96.0.10:53']}"
    found = listeners(tmp_path, dns(zone, '"169.254.20.10:53", "10.96.0.10:53"'))
    assert {one.address: one.service for one in found} == {"169.254.20.10:53": False, "10.96.0.10:53": True}


def test_a_relay_falls_back_to_its_services_endpoints(tmp_path: Path) -> None:
    relay = '{name: s, listen: ["169.254.20.10:8125", "unix:/tmp/s.sock"], service: kube-system/kube-dns, port: 53}'
    assert listeners(tmp_path, f"udp: [{relay}]") == [
        NodeListener("169.254.20.10:8125", "udp", False, ("10.244.1.2:53", "[fd00::2]:53"), relay=True)
    ]


@pytest.mark.parametrize(
    ("zones", "fallback"),
    [
        ("{suffix: ., upstreams: ['192.0.2.1']}", ("192.0.2.1:53",)),
        ("{suffix: ., upstreams: ['192.0.2.1'], fallback: ['192.0.2.9']}", ("192.0.2.9:53",)),
        ("{suffix: ., upstreams: ['192.0.2.1'], fallback: ['169.254.20.10:53']}", ("192.0.2.1:53",)),
        (f"{{suffix: ., upstreams: ['192.0.2.1']}}, {SERVICE_ZONE}", ("10.244.1.2:53", "[fd00::2]:53")),
    ],
)
def test_who_answers_in_our_place(tmp_path: Path, zones: str, fallback: tuple[str, ...]) -> None:
    assert listeners(tmp_path, dns(zones))[0].fallback == fallback


def test_nobody_may_be_left(tmp_path: Path) -> None:
    assert listeners(tmp_path, dns(SERVICE_ZONE), slices="")[0].fallback == ()
