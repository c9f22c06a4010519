"""A pod, a node and another pod, as network namespaces with veth pairs between them: the way that a datagram goes.

Needs root and Linux.
"""

from contextlib import ExitStack

from proxy.lab.namespaces import Namespace, Run

POD, ENDPOINT = "10.244.1.9", "10.244.2.7"
UNTRACKED = "10.244.2.8"
"""The endpoint's second address, for datagrams that conntrack is to leave alone."""
LISTENER, CLUSTER_IP = "169.254.20.10", "10.96.0.20"
"""The node's own address, where a relay listens, and the Service's, which is nobody's."""
_GATEWAY = "169.254.1.1"


class Node:
    """The three namespaces; use as a context manager. Raises `tools.Unavailable` on entry where they can't be had."""

    def __enter__(self) -> "Node":
        with ExitStack() as stack:
            run = stack.enter_context(Run.start())
            self.pod, self.node, self.endpoint = (
                run.add(Namespace(run, name)) for name in ("pod", "node", "endpoint")
            )
            self.node.ip(f"addr add {LISTENER}/32 dev lo")
            self.node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            self._link(self.pod, POD)
            self._link(self.endpoint, ENDPOINT, UNTRACKED)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _link(self, pod: Namespace, *addresses: str) -> None:
        self.node.ip(
            f"link add {pod.name} type veth peer name eth0 netns {pod.full_name}",
            f"addr add {_GATEWAY}/32 dev {pod.name}",
            f"link set {pod.name} up",
            *(f"route add {address} dev {pod.name}" for address in addresses),
        )
        pod.ip(
            *(f"addr add {address}/32 dev eth0" for address in addresses),
            "link set eth0 up",
            f"route add {_GATEWAY} dev eth0",
            f"route add default via {_GATEWAY}",
        )
