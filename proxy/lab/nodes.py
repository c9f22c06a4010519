"""Nodes and pods as namespaces, and the links and routes between them, as a CNI that routes lays them.

Each pod has a /32 and a default route through its node; each node has a way to the API server and to the other one.
"""

import contextlib
import itertools
from collections.abc import Container
from ipaddress import IPv4Address, IPv4Network

from proxy.lab.namespaces import Namespace, Run

API_SERVER = "172.30.0.1"
LISTENER = "169.254.20.10"
"""The link-local address on every node, where a node cache or Sidestep listens."""
GATEWAY = "169.254.1.1"
"""What pods send everything to. No interface has it: the neighbour entry is all that it takes."""
OVERLAY, OVERLAY_MTU = "vxlan1", 1450

_NODE_MAC = "ee:ee:ee:ee:ee:ee"
"""Of the node's end of every pod's link: a pod that takes over an address finds the node where it was."""
_GATEWAY6 = "fe80::eeee"
_NODE_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv6.conf.all.forwarding=1",
)
# nftables hooks connection tracking in only while a rule needs it, and kube-proxy's may be taken away.
_TRACKED = """\
table inet sidestep-lab {
  chain arriving { type filter hook prerouting priority filter; ct state invalid counter; }
  chain leaving { type filter hook output priority filter; ct state invalid counter; }
}
"""


def ipv6_of(address: str) -> str:
    """The IPv6 address of whoever has this IPv4 address in the lab: each number as it is written."""
    first, second, third, last = address.split(".")
    return f"fd00:{first}:{second}:{third}::{last}"


class Backbone(Namespace):
    """Where the API server runs; it also forwards between the nodes."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "control")

    def create(self) -> None:
        super().create()
        self.ip(f"addr add {API_SERVER}/32 dev lo")
        self.run("sysctl", "-qw", *_NODE_SYSCTLS)


class Node(Namespace):
    """A node. `number` counts from 1."""

    def __init__(self, run: Run, number: int, backbone: Backbone) -> None:
        super().__init__(run, f"node{number}")
        self.number = number
        self.address = f"172.30.0.{10 + number}"
        self.pod_network = IPv4Network(f"10.244.{number}.0/24")
        self.pod_mtu = 1500
        self._backbone = backbone
        self._addresses = itertools.cycle(list(self.pod_network.hosts())[1:])
        self._links = itertools.count(1)

    def create(self) -> None:
        """Linked to the backbone, with connection tracking on and `LISTENER` on its loopback link."""
        super().create()
        self._backbone.ip(
            f"link add {self.name} type veth peer name eth0 netns {self.full_name}",
            f"link set {self.name} up",
            f"route add {self.address} dev {self.name}",
            f"route add {self.pod_network} via {self.address} dev {self.name} onlink",
        )
        self.ip(
            f"addr add {self.address}/32 dev eth0",
            f"addr add {ipv6_of(self.address)}/128 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {API_SERVER} dev eth0 onlink src {self.address}",
            f"route add ::/0 dev eth0 src {ipv6_of(self.address)}",
            f"route add blackhole {self.pod_network}",  # of pods that are not there; theirs are longer
            f"addr add {LISTENER}/32 dev lo",
        )
        self.run("sysctl", "-qw", *_NODE_SYSCTLS)
        self.track()

    def track(self) -> None:
        """Have connection tracking on, also when somebody has flushed the rules."""
        self.run("nft", "-f", "-", given=f"add table inet sidestep-lab\ndelete table inet sidestep-lab\n{_TRACKED}")

    def overlay(self, other: "Node") -> None:
        """Reach the other node's pods through VXLAN. Both nodes need it; pods made later have the smaller MTU."""
        self.pod_mtu = OVERLAY_MTU
        ours, theirs = (node.pod_network.network_address for node in (self, other))
        self.ip(
            f"link add {OVERLAY} mtu {OVERLAY_MTU} type vxlan id 1 local {self.address} remote {other.address} "
            "dstport 4789 dev eth0",
            f"addr add {ours}/32 dev {OVERLAY}",
            f"link set {OVERLAY} up",
            f"route add {other.pod_network} via {theirs} dev {OVERLAY} onlink",
        )

    def free_address(self, taken: Container[str]) -> str:
        """An address of its pod network that is not taken, the one that was longest not given. Raises ValueError."""
        for address in itertools.islice(self._addresses, self.pod_network.num_addresses):
            if str(address) not in taken:
                return str(address)
        raise ValueError(f"every address of {self.pod_network} is taken")

    def next_link(self) -> str:
        """A name for the node's end of a pod's link."""
        return f"pod{next(self._links)}"


class Pod(Namespace):
    """A pod on a node, reachable as soon as it is created."""

    def __init__(self, run: Run, name: str, address: str, node: Node) -> None:
        super().__init__(run, name)
        self.address = str(IPv4Address(address))
        self.address6 = ipv6_of(self.address)
        self.node = node
        self.link = node.next_link()
        """The node's end of its link."""

    def create(self) -> None:
        super().create()
        mac = "02:00:" + ":".join(f"{byte:02x}" for byte in IPv4Address(self.address).packed)
        mtu = self.node.pod_mtu
        # Neighbours are told and not asked for: a datagram that waits for ARP is not what a scenario is about.
        self.node.ip(
            f"link add {self.link} address {_NODE_MAC} mtu {mtu} type veth "
            f"peer name eth0 address {mac} mtu {mtu} netns {self.full_name}",
            f"link set {self.link} up",
            f"neigh add {self.address} lladdr {mac} dev {self.link} nud permanent",
            f"neigh add {self.address6} lladdr {mac} dev {self.link} nud permanent",
        )
        self.ip(
            f"addr add {self.address}/32 dev eth0",
            f"addr add {self.address6}/128 dev eth0 nodad",
            "link set eth0 up",
            f"neigh add {GATEWAY} lladdr {_NODE_MAC} dev eth0 nud permanent",
            f"route add {GATEWAY} dev eth0",
            f"route add default via {GATEWAY} dev eth0",
            f"neigh add {_GATEWAY6} lladdr {_NODE_MAC} dev eth0 nud permanent",
            f"route add default via {_GATEWAY6} dev eth0",
        )
        self.node.ip(
            f"route add {self.address} dev {self.link} src {self.node.address}",
            f"route add {self.address6} dev {self.link} src {ipv6_of(self.node.address)}",
        )

    def delete(self) -> None:
        """It is gone, its address free. What is still sent there vanishes without a word, as a CNI has it."""
        with contextlib.suppress(RuntimeError):  # the node went first
            self.node.ip(f"link del {self.link}")  # a namespace takes its time to give up a link
        super().delete()
