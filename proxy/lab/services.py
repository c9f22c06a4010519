"""Services and their endpoints as the lab writes them: values, their API objects, and the rules they amount to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.lab.nodes import ipv6_of
from proxy.lab.rules import Frontend, Rules


@dataclass(frozen=True, slots=True)
class Service:
    """A Service as it is in the API server. `name` is its namespace/name."""

    name: str
    cluster_ip: str
    port: int
    port_name: str
    protocols: tuple[str, ...]
    target_port: int
    cluster_ip6: str | None = None
    """Then each endpoint has its IPv6 address as well."""

    @property
    def address(self) -> str:
        """Its ClusterIP:port."""
        return f"{self.cluster_ip}:{self.port}"

    @property
    def ports(self) -> tuple[tuple[str, str], ...]:
        """The name and protocol of each port."""
        return tuple(
            (self.port_name if number == 0 else f"{self.port_name}-{protocol.lower()}", protocol)
            for number, protocol in enumerate(self.protocols)
        )

    def targets(self, addresses: Iterable[str]) -> frozenset[str]:
        """Where these endpoints receive: `address:port`."""
        return frozenset(f"{address}:{self.target_port}" for address in addresses)

    def manifest(self) -> dict[str, Any]:
        """The API object; it has no selector."""
        ports = [
            {"name": name, "protocol": protocol, "port": self.port, "targetPort": self.target_port}
            for name, protocol in self.ports
        ]
        spec: dict[str, Any] = {"clusterIP": self.cluster_ip, "ports": ports}
        if self.cluster_ip6:
            both = [self.cluster_ip, self.cluster_ip6]
            spec |= {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "clusterIPs": both}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name.partition("/")[2]},
            "spec": spec,
        }


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a Service, with the conditions that its slice shows."""

    address: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False


def slices_of(service: Service, endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    """The EndpointSlices that hold all of them, one for each IP family."""
    found = [_slice(service, endpoints, "IPv4")]
    if service.cluster_ip6:
        found.append(_slice(service, [replace(one, address=ipv6_of(one.address)) for one in endpoints], "IPv6"))
    return found


def _slice(service: Service, endpoints: Sequence[Endpoint], family: str) -> dict[str, Any]:
    name = service.name.partition("/")[2]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-lab{'' if family == 'IPv4' else '6'}",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "ports": [
            {"name": name, "protocol": protocol, "port": service.target_port} for name, protocol in service.ports
        ],
        "endpoints": [
            {
                "addresses": [one.address],
                "conditions": {"ready": one.ready, "serving": one.serving, "terminating": one.terminating},
            }
            for one in endpoints
        ],
    }


def usable(endpoints: Sequence[Endpoint]) -> tuple[str, ...]:
    """Whom kube-proxy sends to: the ready ones; without any, those that still serve while they terminate."""
    ready = tuple(one.address for one in endpoints if one.ready)
    return ready or tuple(one.address for one in endpoints if one.serving and one.terminating)


def rules_of(endpoints: Mapping[Service, Sequence[Endpoint]]) -> Rules:
    """What kube-proxy makes of these Services."""
    return {
        Frontend(service.cluster_ip, protocol.lower(), service.port): service.targets(usable(found))
        for service, found in endpoints.items()
        for protocol in service.protocols
    }
