"""A node, a pod on it and a CoreDNS stand-in behind it, each a network namespace of this test's own. Needs root.

While it lasts this thread is in the node's namespace, and with it every thread and process that it starts.
"""

import contextlib
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.lab import tools
from proxy.lab.namespaces import Namespace, Run

LINK_LOCAL, SERVICE, LINK_LOCAL6 = "169.254.20.10:53", "10.96.0.10:53", "[fd00:169::10]:53"
COREDNS, COREDNS6 = "10.244.1.2:53", "[fd00:244::2]:53"
COREDNS_TOO = "10.244.1.3:53"
KUBE_PROXY = f"""
nft add table ip kube
nft 'add chain ip kube pre {{ type nat hook prerouting priority -100; }}'
nft 'add chain ip kube out {{ type nat hook output priority -100; }}'
nft 'add chain ip kube post {{ type nat hook postrouting priority 100; }}'
nft add rule ip kube pre ip daddr 10.96.0.10 udp dport 53 dnat to {COREDNS}
nft add rule ip kube out ip daddr 10.96.0.10 udp dport 53 dnat to {COREDNS}
nft add rule ip kube post ip saddr 10.96.0.10 masquerade
"""
"""What kube-proxy would have on a node for the Service."""
KINDS = {"lo": "nothing", "sidestep0": "bridge"}
"""What holds addresses, and a kind of link for which it does: one that no kernel has, and one that each has."""

_ANSWERING = Path(__file__).with_name("answering.py")


def run(script: str) -> str:
    """What a shell script printed."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Network:
    """Where everything is. What is `inside` None is on the node."""

    pod: Namespace
    coredns: Namespace
    closing: ExitStack = field(default_factory=ExitStack)

    def socket(
        self, family: socket.AddressFamily, kind: socket.SocketKind, *, inside: Namespace | None
    ) -> socket.socket:
        """A socket in that namespace, or in the node's."""
        with contextlib.nullcontext() if inside is None else inside.entered():
            sock = socket.socket(family, kind)
        self.closing.callback(sock.close)
        return sock

    def answering(self, name: str, *addresses: str, inside: Namespace | None = None) -> "subprocess.Popen[str]":
        """A process that answers there; it is killed in the end."""
        prefix = () if inside is None else inside.prefix
        process = subprocess.Popen(
            [*prefix, sys.executable, str(_ANSWERING), name, *addresses], stdout=subprocess.PIPE, text=True
        )
        self.closing.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def client(self, address: str, transport: str, *, inside: Namespace | None) -> "Client":
        """Who asks at this address from there."""
        return Client(self, address, transport, inside)


class Client:
    """Over UDP it keeps its source port; `fresh` makes it another one. TCP has a connection for each question.

    `tcp kept` has one for all of them.
    """

    def __init__(self, network: Network, address: str, transport: str, inside: Namespace | None) -> None:
        host, _, port = address.rpartition(":")
        self._to = host.strip("[]"), int(port)
        self._family = socket.AF_INET6 if ":" in self._to[0] else socket.AF_INET
        self._network = network
        self._inside = inside
        self._transport = transport
        self.fresh()

    def fresh(self) -> "Client":
        self._sock: socket.socket | None = None
        return self

    def ask(self, seconds: float = 0.1) -> str | None:
        """The name of who answered; None if nobody did in time."""
        query = b"\x7f" + secrets.token_bytes(1) + bytes.fromhex("0100 0001 0000 0000 0000")
        try:
            if self._transport == "tcp kept":
                return self._ask_kept(query, seconds)
            if self._transport == "tcp":
                return self._ask_tcp(query, seconds)
            return self._ask_udp(query, seconds)
        except OSError:
            return None

    def _ask_udp(self, query: bytes, seconds: float) -> str | None:
        if self._sock is None:
            self._sock = self._network.socket(self._family, socket.SOCK_DGRAM, inside=self._inside)
            self._sock.connect(self._to)
        self._sock.send(query)
        deadline = time.monotonic() + seconds
        while True:
            self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
            reply = self._sock.recv(2048)
            if reply[:2] == query[:2]:
                return reply[12:].decode()

    def _ask_tcp(self, query: bytes, seconds: float) -> str | None:
        with self._network.socket(self._family, socket.SOCK_STREAM, inside=self._inside) as sock:
            sock.settimeout(seconds)
            sock.connect(self._to)
            sock.sendall(len(query).to_bytes(2, "big") + query)
            return sock.recv(2048)[14:].decode() or None

    def _ask_kept(self, query: bytes, seconds: float) -> str | None:
        if self._sock is None:
            self._sock = self._network.socket(self._family, socket.SOCK_STREAM, inside=self._inside)
            self._sock.connect(self._to)
        self._sock.settimeout(seconds)
        self._sock.sendall(len(query).to_bytes(2, "big") + query)
        return self._sock.recv(2048)[14:].decode() or None


@contextmanager
def a_namespace() -> Iterator[Run]:
    """This thread in a new network namespace with `lo` up: `node`, alone in its run. Skips where that can't be."""
    try:
        tools.require("nft")
        run = Run.start()
    except tools.Unavailable as missing:
        pytest.skip(str(missing))
    with run, run.add(Namespace(run, "node")).entered():
        yield run


@contextmanager
def a_network() -> Iterator[Network]:
    """The node's namespace around a pod's and CoreDNS's."""
    with a_namespace() as lab:
        node = lab.namespaces["node"]
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        node.ip(
            "link add uplink type veth peer name upstream",
            "link set uplink up",
            "addr add 192.0.2.10/24 dev uplink",
            "addr add 2001:db8::10/64 dev uplink nodad",
        )
        network = Network(
            _linked(node, lab.add(Namespace(lab, "pod")), ["10.244.1.9"], "fd00:244::9"),
            _linked(node, lab.add(Namespace(lab, "dns")), ["10.244.1.2", "10.244.1.3"], "fd00:244::2"),
        )
        with network.closing:
            network.answering("coredns", COREDNS, COREDNS6, inside=network.coredns)
            network.answering("coredns too", COREDNS_TOO, inside=network.coredns)
            yield network


def _linked(node: Namespace, pod: Namespace, ips: Sequence[str], ip6: str) -> Namespace:
    """A pod with these addresses, behind a veth pair whose end on the node has its name."""
    node.ip(
        f"link add {pod.name} type veth peer name eth0 netns {pod.full_name}",
        f"link set {pod.name} up",
        f"addr add fe80::1/64 dev {pod.name} nodad",
        f"addr add 169.254.1.1/32 dev {pod.name} scope link",
        *(f"route add {ip} dev {pod.name}" for ip in (*ips, ip6)),
    )
    pod.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
    pod.ip(
        "link set eth0 up",
        *(f"addr add {ip}/32 dev eth0" for ip in ips),
        f"addr add {ip6}/128 dev eth0 nodad",
        "route add 169.254.1.1 dev eth0",
        "route add default via 169.254.1.1 dev eth0",
        "route add default via fe80::1 dev eth0",
    )
    return pod


def stop(process: "subprocess.Popen[str]") -> None:
    """As a hang: it does nothing from now on, and its sockets stay."""
    process.send_signal(signal.SIGSTOP)


def go_on(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGCONT)


def rules() -> str:
    """Everything that nft knows here, with handles: equal as long as nobody touched it."""
    return run("nft -a -s list ruleset")


def addresses() -> list[str]:
    """Every address here."""
    return [line.split()[3] for line in run("ip -o addr").splitlines()]


def flows(to: str) -> Sequence[str]:
    """Conntrack's UDP entries to this IP."""
    family = "ipv6" if ":" in to else "ipv4"
    return run(f"conntrack -L -f {family} -p udp --orig-dst {to} 2>/dev/null").splitlines()


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()
