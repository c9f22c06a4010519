"""What the contract tests need of an API server, be it the fake one or the real kube-apiserver with etcd."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from proxy.cluster.access import Access

Kind = Literal["EndpointSlice", "Service"]
Manifest = Mapping[str, Any]


class ApiServer(Protocol):
    """A running API server, empty at first. Every method returns when what it says is so, for every later request."""

    @property
    def access(self) -> Access:
        """As the DaemonSet's service account sees it (list and watch endpointslices, get services, in every
        namespace): `server` with the host as an IP, `token_file` and, with https, `ca_file`. It never changes."""

    async def put(self, manifest: Manifest) -> str:
        """Create the object, or replace it where one of its kind, namespace and name exists; its new
        resourceVersion. The namespace is made where it is missing. Works as an administrator, also while `forbid`
        holds, but not between `stop` and `start`."""

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Remove an object that exists."""

    async def compact(self) -> None:
        """Forget all history: who lists or watches from a version older than the newest gets 410. (A real one has to
        restart its API server for that, because its watch cache remembers; open streams may break.)"""

    async def freeze(self) -> None:
        """SIGSTOP: connections stay open and are accepted, nothing is answered any more."""

    async def thaw(self) -> None:
        """Go on where `freeze` stopped it."""

    async def stop(self) -> None:
        """SIGKILL: connections break, new ones are refused; what was stored stays stored."""

    async def start(self) -> None:
        """Be there again, at the same address, after `stop`."""

    async def remember(self) -> None:
        """Keep a copy of the state as it is now (a backup of etcd)."""

    async def restore(self) -> None:
        """Restart from that copy: objects and the version counter are older than what clients have seen."""

    async def rotate_token(self) -> None:
        """Write a new token into `access.token_file`; the one that was there is 401 from now on."""

    async def forbid(self, verb: str, resource: str) -> None:
        """The service account gets 403 for the verb (`get`, `list`, `watch`) on `endpointslices` or `services`."""

    async def allow(self, verb: str, resource: str) -> None:
        """Take back `forbid`."""

    async def requested(self) -> set[tuple[str, str]]:
        """(verb, resource) of all that the service account has asked for so far (a real one: from its audit log)."""


def endpoint_slice(
    name: str,
    addresses: Sequence[str | Manifest],
    *,
    service: str = "monitoring/statsd",
    port: int = 8125,
    port_name: str = "statsd",
    protocol: str = "UDP",
    family: str = "IPv4",
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An EndpointSlice whose endpoints are ready, or as given whole. A real server refuses loopback addresses."""
    namespace, _, service_name = service.partition("/")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {"kubernetes.io/service-name": service_name},
            "annotations": dict(annotations or {}),
        },
        "addressType": family,
        "ports": [{"name": port_name, "protocol": protocol, "port": port}],
        "endpoints": [
            {"addresses": [one], "conditions": {"ready": True}} if isinstance(one, str) else dict(one)
            for one in addresses
        ],
    }


def service_object(
    name: str = "monitoring/statsd", *, cluster_ip: str = "10.96.0.20", local_only: bool = False
) -> dict[str, Any]:
    """A Service without a selector, with UDP port 8125; its address has to lie in 10.96.0.0/16."""
    namespace, _, bare = name.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": bare},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "internalTrafficPolicy": "Local" if local_only else "Cluster",
            "ports": [{"name": "statsd", "protocol": "UDP", "port": 8125, "targetPort": 8125}],
        },
    }
