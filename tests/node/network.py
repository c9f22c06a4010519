"""A node, a pod on it and a CoreDNS stand-in behind it, each a network namespace of this test's own. Needs root.

While it lasts this thread is in the node's namespace, and with it every thread and process that it starts.
"""

import contextlib
import ctypes
import os
import secrets
import shutil
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

LINK_LOCAL, SERVICE, LINK_LOCAL6 = "169.254.20.10:53", "10.96.0.10:53", "[fd00:169::10]:53"
COREDNS, COREDNS6 = "10.244.1.2:53", "[fd00:244::2]:53"
COREDNS_TOO = "10.244.1.3:53"

_CLONE_NEWNET = 0x40000000
_ANSWERING = Path(__file__).with_name("answering.py")
_NODE = """
ip link set lo up
sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip link add uplink type veth peer name upstream
ip link set uplink up
ip addr add 192.0.2.10/24 dev uplink
ip -6 addr add 2001:db8::10/64 dev uplink nodad
"""
_POD = """
ip link add {name} type veth peer name eth0 netns {pid}
ip link set {name} up
ip -6 addr add fe80::1/64 dev {name} nodad
ip route add {ip} dev {name}
ip -6 route add {ip6} dev {name}
nsenter -t {pid} -n sh -ec '
  ip link set lo up
  sysctl -q net.ipv6.conf.eth0.accept_dad=0
  ip link set eth0 up
  ip addr add {ip}/32 dev eth0
  ip -6 addr add {ip6}/128 dev eth0 nodad
  ip route add 169.254.1.1 dev eth0
  ip route add default via 169.254.1.1 dev eth0
  ip -6 route add default via fe80::1 dev eth0'
ip addr add 169.254.1.1/32 dev {name} scope link 2>/dev/null || true
"""


def run(script: str) -> str:
    """What a shell script printed."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Network:
    """Where everything is. `pod` and `coredns` are processes that keep their namespaces."""

    pod: int
    coredns: int
    closing: ExitStack = field(default_factory=ExitStack)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind, *, inside: int | None) -> socket.socket:
        """A socket in the namespace of that process, or in the node's."""
        with entered(None if inside is None else f"/proc/{inside}/ns/net"):
            sock = socket.socket(family, kind)
        self.closing.callback(sock.close)
        return sock

    def answering(self, name: str, *addresses: str, inside: int | None = None) -> "subprocess.Popen[str]":
        """A process that answers there; it is killed in the end."""
        prefix = [] if inside is None else ["nsenter", "-t", str(inside), "-n"]
        process = subprocess.Popen(
            [*prefix, sys.executable, str(_ANSWERING), name, *addresses], stdout=subprocess.PIPE, text=True
        )
        self.closing.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def client(self, address: str, transport: str, *, inside: int | None) -> "Client":
        """Who asks at this address from there."""
        return Client(self, address, transport, inside)


class Client:
    """Over UDP it keeps its source port; `fresh` makes it another one. TCP has a connection for each question.

    `tcp kept` has one for all of them.
    """

    def __init__(self, network: Network, address: str, transport: str, inside: int | None) -> None:
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
def entered(path: str | None) -> Iterator[None]:
    """This thread in another network namespace, or where it is."""
    if path is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as back, open(path) as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(back.fileno())


@contextmanager
def a_namespace() -> Iterator[None]:
    """This thread in a new network namespace with `lo` up. Skips where that can't be."""
    missing = [program for program in ("nft", "ip", "nsenter") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {' '.join(missing)}")
    with open("/proc/thread-self/ns/net") as back:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            pytest.skip(f"needs network namespaces: {os.strerror(ctypes.get_errno())}")
        try:
            run("ip link set lo up")
            yield
        finally:
            _setns(back.fileno())


@contextmanager
def a_network() -> Iterator[Network]:
    """The node's namespace around a pod's and CoreDNS's."""
    with a_namespace(), ExitStack() as stack:
        run(_NODE)
        pids = []
        for name, ip, ip6 in (("pod", "10.244.1.9", "fd00:244::9"), ("dns", "10.244.1.2", "fd00:244::2")):
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, holder)
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            run(_POD.format(name=name, pid=holder.pid, ip=ip, ip6=ip6))
            pids.append(holder.pid)
        run(f"nsenter -t {pids[1]} -n ip addr add 10.244.1.3/32 dev eth0; ip route add 10.244.1.3 dev dns")
        network = stack.enter_context(contextlib.closing(_Closing(Network(*pids)))).network
        network.answering("coredns", COREDNS, COREDNS6, inside=network.coredns)
        network.answering("coredns too", COREDNS_TOO, inside=network.coredns)
        yield network


class _Closing:
    def __init__(self, network: Network) -> None:
        self.network = network

    def close(self) -> None:
        self.network.closing.close()


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


def _setns(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
