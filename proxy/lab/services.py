"""Services and their endpoints as the lab writes them: values, their API objects, and the rules they amount to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name.partition("/")[2]},
            "spec": {"clusterIP": self.cluster_ip, "ports": ports},
        }


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a Service, with the conditions that its slice shows."""

    address: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False


def slice_of(service: Service, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The EndpointSlice that holds all of them."""
    name = service.name.partition("/")[2]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-lab", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
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
