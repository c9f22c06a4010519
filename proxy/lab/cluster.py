"""The lab's cluster: nodes, pods, Services and EndpointSlices with a real API server, all in namespaces of one run.

Nothing runs in it but what is asked for: endpoints are what a scenario says, no controller changes them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["iptables", "nftables"]
Say = Callable[[str], None]


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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a Service, with the conditions that its slice shows."""

    address: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False


class Cluster:
    """`running` makes one.

    nodes, node           every `Node`, and the first one
    kube_proxies          the `KubeProxy` of each node, see kube_proxy.py; `kube_proxy` is the first node's
    api                   the `ControlPlane`, see control_plane.py
    run                   the `Run`, see namespaces.py: its id, its directory for files and logs
    mode                  iptables or nftables
    """

    # Node and Pod are Namespaces (namespaces.py), which have:
    #   prefix                    the words before a command that is to run in there: ip netns exec NAME
    #   run(*command, given="")   run it, return what it prints; RuntimeError with what it said
    #   spawn(*command, ...)      start it, a Popen; its output goes to a log in the run's directory unless told
    #   socket(kind, address)     a non-blocking socket in there for this process, bound to (host, port)
    #   resolv_conf(text)         /etc/resolv.conf of what is started there from then on
    # Node: name, address, pod_network ("10.244.1.0/24")
    # Pod: name, address, node, delete()

    def pod(self, name: str, address: str | None = None, *, node: int = 0) -> Any:
        """A pod: a namespace with a /32 address and a default route via 169.254.1.1, up and reachable.

        Without an address it gets the next one of its node's pod network that was never given. An address that a
        deleted pod had may be given again. Raises ValueError for a name or an address in use.
        """
        raise NotImplementedError

    def service(
        self,
        name: str,
        cluster_ip: str,
        port: int,
        *,
        port_name: str = "main",
        protocols: Sequence[str] = ("UDP",),
        target_port: int | None = None,
    ) -> Service:
        """Create a Service without a selector; `name` is namespace/name, the namespace is made where needed.

        With two protocols the second port is called `<port_name>-tcp`, as kube-dns has it.
        """
        raise NotImplementedError

    def set_endpoints(self, service: Service, endpoints: Iterable[str | Endpoint]) -> None:
        """Its only EndpointSlice from now on; a bare address is a ready endpoint. Comes back when it is stored."""
        raise NotImplementedError

    def delete_service(self, service: Service) -> None:
        """The Service and its slice are gone from the API server."""
        raise NotImplementedError

    def sidestep(
        self,
        *,
        statsd: Service | None = None,
        dns: Service | None = None,
        sections: Mapping[str, Any] | None = None,
        node: int = 0,
    ) -> Any:
        """A `Sidestep` (sidestep.py) on a node, watching the API server; a context manager that starts and stops it.

        It listens on 169.254.20.10: port 8125 for `statsd`, and port 53 for everything that `dns` is to answer.
        `sections` replaces whole sections of its configuration.
        """
        raise NotImplementedError

    def conntrack(self, node: int = 0) -> Any:
        """The connection tracking of a node, a `Conntrack` (conntrack.py)."""
        raise NotImplementedError

    def reset(self) -> None:
        """No pod, Service or Sidestep any more, kube-proxy in step, conntrack empty: ready for the next scenario."""
        raise NotImplementedError


@contextmanager
def running(
    mode: Mode = "nftables", *, nodes: int = 1, overlay: bool = False, say: Say = lambda _: None
) -> Iterator[Cluster]:
    """A cluster of one or two nodes, ready: API server up, kube-proxy on each node in step with it.

    `overlay`: pods of different nodes reach each other through VXLAN with an MTU of 1450 instead of by routes.
    `say` gets a line for each step. All of it ends with the context, whatever happens in it.
    Raises Unavailable where this machine can't have it.
    """
    raise NotImplementedError
    yield
