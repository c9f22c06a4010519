"""NodeLocal DNSCache on a node of the lab, as a successor meets it: its interface, its rules, its ways to end."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from proxy.lab import tools
from proxy.lab.coredns import CoreDns, node_cache
from proxy.lab.nodes import LISTENER, Node
from proxy.lab.services import Service
from proxy.node.plan import NODELOCAL_LINK


class NodeLocal(CoreDns):
    """CoreDNS with NodeLocal's Corefile; both addresses are on its own interface, and go with it."""

    def __init__(self, node: Node, kube_dns: Service, upstream: Service, directory: Path) -> None:
        corefile = node_cache(kube_dns.cluster_ip, upstream.cluster_ip, None)
        corefile = corefile.replace("    errors\n", "    errors\n    prometheus :9253\n")
        super().__init__(node, LISTENER, corefile, directory)
        self._addresses = LISTENER, kube_dns.cluster_ip
        self._node = node
        self.rules_went_in = (0, 0)
        """From when to when, in nanoseconds of the monotonic clock. A tracked TCP connection to its addresses that is
        open then meets them midway: NodeLocal DNSCache resets it, whoever had served it."""

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """The interface first, then CoreDNS, and once it listens the rules: in node-cache's order."""
        # Of the links that every kernel has, a bridge without ports comes nearest to a dummy.
        self._node.ip(
            f"link add {NODELOCAL_LINK} type bridge",
            f"link set {NODELOCAL_LINK} up",
            *(f"addr add {address}/32 dev {NODELOCAL_LINK}" for address in self._addresses),
        )
        super().start()
        tools.until(self._listens, "CoreDNS listening")
        began = time.monotonic_ns()
        for table, chain, rule in self._rules():
            self._node.run("iptables", "-w", "-t", table, "-I", chain, *rule.split())
        self.rules_went_in = began, time.monotonic_ns()

    def _listens(self) -> bool:
        # Asking would not tell: with Sidestep's rules in the kernel somebody answers either way.
        listening = self._node.run("ss", "-Hlntu", "sport = :53").split()
        return all(listening.count(f"{address}:53") == 2 for address in self._addresses)

    def stop(self) -> None:
        """SIGTERM: the interface goes, then rule by rule, and only then CoreDNS stops."""
        if self._process is None or self._process.poll() is not None:
            return
        self.tear_down()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def tear_down(self) -> None:
        """What a SIGKILL leaves: the interface and the rules."""
        self._node.ip(f"link del {NODELOCAL_LINK}")
        for table, chain, rule in self._rules():
            self._node.run("iptables", "-w", "-t", table, "-D", chain, *rule.split())

    def _rules(self) -> Iterator[tuple[str, str, str]]:
        for address in self._addresses:
            for protocol in ("tcp", "udp"):
                to, of = f"-p {protocol} -d {address} --dport 53", f"-p {protocol} -s {address} --sport 53"
                yield "raw", "PREROUTING", f"{to} -j NOTRACK"
                yield "filter", "INPUT", f"{to} -j ACCEPT"
                yield "raw", "OUTPUT", f"{of} -j NOTRACK"
                yield "filter", "OUTPUT", f"{of} -j ACCEPT"
                yield "raw", "OUTPUT", f"{to} -j NOTRACK"
