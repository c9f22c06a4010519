"""The lab's cluster: nodes, pods, Services and EndpointSlices with a real API server, all in namespaces of one run.

Nothing runs in it but what is asked for: endpoints are what a scenario says, no controller changes them.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.lab import control_plane, coredns, sidestep, tools
from proxy.lab.conntrack import Conntrack
from proxy.lab.control_plane import ControlPlane
from proxy.lab.coredns import CoreDns, NodeCache
from proxy.lab.kube_proxy import KubeProxy
from proxy.lab.namespaces import PREFIX, Run
from proxy.lab.nodes import API_SERVER, Backbone, Node, Pod
from proxy.lab.objects import ApiObjects, FileObjects, Objects
from proxy.lab.outcome import Mode
from proxy.lab.rules import Frontend, Rules
from proxy.lab.services import Endpoint, Service, rules_of
from proxy.lab.sidestep import Sidestep

__all__ = ["Cluster", "Endpoint", "Mode", "Node", "Pod", "Say", "Service", "running"]

PROGRAMS = ("conntrack", "ip", "iptables", "nft", "setpriv", "sysctl")
"""What a cluster can't do without. Where the API server or kube-proxy isn't built, the lab stands in for it."""

_KUBERNETES = {Frontend("10.96.0.1", "tcp", 443): frozenset[str]()}
"""default/kubernetes, which the API server makes for itself."""

Say = Callable[[str], None]


class Cluster:
    """`running` makes one.

    nodes, node           every `Node`, and the first one
    kube_proxies          the `KubeProxy` of each node, see kube_proxy.py; `kube_proxy` is the first node's
    api                   the `ControlPlane`, see control_plane.py; None where it is not built
    what                  what of it is the real thing, for people
    run                   the `Run`, see namespaces.py: its id, its directory for files and logs
    mode                  iptables or nftables
    kubeconfig            a file for kubectl and others; the API server is reached from inside the namespaces only

    Nodes and pods are namespaces: `run`, `spawn`, `socket` and `prefix` are in namespaces.py.
    """

    def __init__(self, run: Run, mode: Mode, nodes: int, overlay: bool, real: bool) -> None:
        self.run = run
        self.mode: Mode = mode
        self.kubeconfig = run.directory / "kubeconfig"
        self._backbone = run.add(Backbone(run))
        self.what = ""
        built = all(tools.find(program) for program in control_plane.PROGRAMS)
        self.api = self._control_plane() if real and built else None
        self.nodes = tuple(run.add(Node(run, number, self._backbone)) for number in range(1, nodes + 1))
        if overlay:
            for node in self.nodes:
                for other in self.nodes:
                    if other is not node:
                        node.overlay(other)
        self._objects: Objects = FileObjects(run.directory / "endpoints.yaml")
        program = None
        if self.api is not None:
            self.api.write_kubeconfig(self.kubeconfig)
            self._objects = ApiObjects(self.api, self.kubeconfig)
            program = tools.find("kube-proxy")
        self.kube_proxies = tuple(KubeProxy(node, mode, self.rules, program, self.kubeconfig) for node in self.nodes)
        self._pods: dict[str, Pod] = {}
        self._endpoints: dict[Service, tuple[Endpoint, ...]] = {}
        self._sidesteps: list[Sidestep] = []
        self._node_caches: list[NodeCache] = []

    def _control_plane(self) -> ControlPlane:
        """Started, and not waited for."""

        def launch(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
            with log.open("ab") as output:
                return self._backbone.spawn(*command, stdout=output, stderr=output)

        plane = ControlPlane(
            self.run.directory / "api-server",
            address=API_SERVER,
            ports=(6443, 2379, 2380),
            launch=launch,
            connect=lambda: self._backbone.socket(socket.SOCK_STREAM),
        )
        plane.prepare()
        plane.start_etcd()
        plane.start_server()
        return plane

    def start(self, say: Say) -> None:
        """Wait for the API server, and bring kube-proxy in step with it."""
        if self.api is not None:
            self.api.wait_until_ready()
            for node in self.nodes:
                status = {"addresses": [{"type": "InternalIP", "address": node.address}]}
                self.api.ask("POST", "/api/v1/nodes", {"metadata": {"name": node.name}, "status": status})
        self.what = f"{self._objects.what}, {self.kube_proxy.what}"
        say(f"{self._objects.what}")
        for proxy in self.kube_proxies:
            proxy.start()
        for proxy in self.kube_proxies:
            proxy.wait_synced()
            say(f"{proxy.node.name}: {proxy.what}")

    @property
    def node(self) -> Node:
        return self.nodes[0]

    @property
    def kube_proxy(self) -> KubeProxy:
        return self.kube_proxies[0]

    @property
    def pods(self) -> Mapping[str, Pod]:
        """Every pod that is there."""
        return {name: pod for name, pod in self._pods.items() if name in self.run.namespaces}

    def rules(self) -> Rules:
        """What kube-proxy should have programmed by now."""
        return {**({} if self.api is None else _KUBERNETES), **rules_of(self._endpoints)}

    def pod(self, name: str, address: str | None = None, *, node: int = 0) -> Pod:
        """A pod: a namespace with a /32 address and a default route via 169.254.1.1, up and reachable.

        Without an address it gets one of its node's pod network, given to nobody for as long as possible. An address
        that a deleted pod had may be given again. Raises ValueError for a name or an address in use.
        """
        place = self.nodes[node]
        taken = {pod.address for pod in self.pods.values()}
        if address in taken:
            raise ValueError(f"a pod has {address} already")
        if address is None:
            address = place.free_address(taken)
        pod = self._pods[name] = self.run.add(Pod(self.run, name, address, place))
        return pod

    def service(
        self,
        name: str,
        cluster_ip: str,
        port: int,
        *,
        port_name: str = "main",
        protocols: Sequence[str] = ("UDP",),
        target_port: int | None = None,
        cluster_ip6: str | None = None,
    ) -> Service:
        """Create a Service without a selector; `name` is namespace/name, the namespace is made where needed.

        With two protocols the second port is called `<port_name>-tcp`, as kube-dns has it. With a `cluster_ip6` it is
        of both IP families, and so are its endpoints: each pod has an IPv6 address, too.
        """
        made = Service(name, cluster_ip, port, port_name, tuple(protocols), target_port or port, cluster_ip6)
        self._objects.create(made)
        self._endpoints[made] = ()
        self._follow()
        return made

    def set_endpoints(self, service: Service, endpoints: Iterable[str | Endpoint]) -> None:
        """Its only EndpointSlice from now on; a bare address is a ready endpoint. Comes back when it is stored."""
        found = tuple(Endpoint(one) if isinstance(one, str) else one for one in endpoints)
        self._objects.set(service, found)
        self._endpoints[service] = found
        self._follow()

    def delete_service(self, service: Service) -> None:
        """The Service and its slice are gone from the API server."""
        self._objects.delete(service)
        del self._endpoints[service]
        self._follow()

    def _follow(self) -> None:
        for proxy in self.kube_proxies:
            proxy.follow()

    def wait_synced(self, limit: float = 60) -> None:
        """Until every node's rules are what the API server says. Raises RuntimeError after `limit` seconds."""
        for proxy in self.kube_proxies:
            proxy.wait_synced(limit)

    def sidestep(
        self,
        *,
        statsd: Service | None = None,
        dns: Service | None = None,
        sections: Mapping[str, Any] | None = None,
        node: int = 0,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Sidestep:
        """A Sidestep on a node, following the API server; a context manager that starts and stops it.

        It listens on 169.254.20.10: port 8125 for `statsd`, and port 53 for everything that `dns` is to answer.
        `sections` replaces whole sections of its configuration; `before` are words before its command, `environment`
        has variables of its own.
        """
        place = self.nodes[node]
        directory = self.run.directory / f"{place.name}-sidestep-{len(self._sidesteps) + 1}"
        written = sidestep.configuration(statsd, dns, self._objects.source, directory)
        made = Sidestep(place, directory, {**written, **(sections or {})}, before, environment)
        self._sidesteps.append(made)
        return made

    def coredns(
        self, name: str, address: str | None = None, *, upstream: str | None = None, node: int = 0
    ) -> CoreDns:
        """CoreDNS in a new pod, with the names of this cluster; a context manager that starts and kills it.

        Other names go to `upstream` (`address:port`), and don't exist without one. Raises Unavailable where
        CoreDNS or the API server is not built.
        """
        tools.require(*coredns.PROGRAMS, *control_plane.PROGRAMS)
        pod = self.pod(name, address, node=node)
        corefile = coredns.cluster_dns(self.kubeconfig, upstream)
        return CoreDns(pod, pod.address, corefile, self.run.directory)

    def node_cache(
        self, kube_dns: Service, kube_dns_upstream: Service, *, upstream: str | None = None, node: int = 0
    ) -> NodeCache:
        """NodeLocal DNSCache on a node; a context manager that starts it and takes it away.

        `kube_dns_upstream` is a second Service before the same pods. Names outside the cluster go to `upstream`, as
        resolv.conf would say it, or to the pods as well. Raises Unavailable without CoreDNS.
        """
        made = NodeCache(self.nodes[node], kube_dns, kube_dns_upstream, self.run.directory, upstream)
        self._node_caches.append(made)
        return made

    def conntrack(self, node: int = 0) -> Conntrack:
        """The connection tracking of a node."""
        return Conntrack(self.nodes[node])

    def reset(self) -> None:
        """No pod, Service or Sidestep any more, kube-proxy in step, conntrack empty: ready for the next scenario."""
        for process in self._sidesteps:
            process.kill()
        for cache in self._node_caches:
            cache.stop()
        self._node_caches.clear()
        for pod in self.pods.values():
            pod.delete()
        self._pods.clear()
        self._objects.clear()
        self._endpoints.clear()
        self._follow()
        for proxy in self.kube_proxies:
            with contextlib.suppress(RuntimeError):
                proxy.signal(signal.SIGCONT)
            proxy.start()
        self.wait_synced()
        for node in self.nodes:
            Conntrack(node).flush()


@contextmanager
def running(
    mode: Mode = "nftables",
    *,
    nodes: int = 1,
    overlay: bool = False,
    kept: bool = False,
    real: bool = True,
    say: Say = lambda _: None,
) -> Iterator[Cluster]:
    """A cluster of one or two nodes, ready: API server up, kube-proxy on each node in step with it.

    `overlay`: pods of different nodes reach each other through VXLAN with an MTU of 1450 instead of by routes.
    `kept`: it goes on after the context, until `namespaces.cleanup`; unless something went wrong in it.
    `real`: unless told otherwise, with the real API server and kube-proxy where they are built.
    `say` gets a line for each step. All of it ends with the context, whatever happens in it, SIGTERM included.
    Raises Unavailable where this machine can't have it.
    """
    tools.require_root()
    tools.require(*PROGRAMS)
    with _ending_on_signals():
        run = Run.start(kept=kept)
        cluster: Cluster | None = None
        left = False
        try:
            say(f"run {run.id}: namespaces {PREFIX}{run.id}-..., files in {run.directory}")
            cluster = Cluster(run, mode, nodes, overlay, real)
            cluster.start(say)
            yield cluster
            left = kept
        finally:
            if cluster is not None and cluster.api is not None:
                cluster.api.close()
            if left:
                run.release()
            else:
                run.tear_down()


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the context like an exception, where nobody else has taken them."""
    taken = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, lambda told, _: sys.exit(128 + told))
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
