"""The real CoreDNS: in pods as the cluster's DNS, and on a node with what NodeLocal DNSCache puts around it."""

import contextlib
import socket
import subprocess
from pathlib import Path
from typing import Self

from proxy.lab import tools
from proxy.lab.dns_wire import NOERROR, question, read_answer
from proxy.lab.namespaces import Namespace
from proxy.lab.nodes import LISTENER, Node
from proxy.lab.services import Service

PROGRAMS = ("coredns",)
DOMAIN = "cluster.local"
KNOWN = f"kubernetes.default.svc.{DOMAIN}"
"""A name that every cluster has."""
_NO_OTHERS = """template ANY ANY . {
        rcode NXDOMAIN
        authority ". 30 IN SOA lab. lab. 1 60 60 60 30"
    }"""


def cluster_dns(kubeconfig: Path, upstream: str | None) -> str:
    """kubeadm's Corefile; other names than the cluster's go to `upstream`, and don't exist without one."""
    others = f"forward . {upstream}" if upstream else _NO_OTHERS
    return f"""\
{DOMAIN}:53 in-addr.arpa:53 {{
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 30
    }}
}}
.:53 {{
    errors
    {others}
}}
"""


def node_cache(cluster_ip: str, cluster_upstream: str, upstream: str | None) -> str:
    """NodeLocal DNSCache's Corefile; `cluster_upstream` is the ClusterIP of kube-dns-upstream."""
    return f"""\
{DOMAIN}:53 {{
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    loop
    bind {LISTENER} {cluster_ip}
    forward . {cluster_upstream} {{
        force_tcp
    }}
}}
.:53 {{
    errors
    cache 30
    loop
    bind {LISTENER} {cluster_ip}
    forward . {upstream or cluster_upstream}
}}
"""


class CoreDns:
    """One CoreDNS in a namespace; as a context manager it is started, answers, and is killed at the end."""

    def __init__(self, place: Namespace, address: str, corefile: str, directory: Path) -> None:
        tools.require(*PROGRAMS)
        self.place = place
        self.address = address
        self._file = directory / f"{place.name}.Corefile"
        self._file.write_text(corefile)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_answering()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and come back at once."""
        program = tools.find("coredns") or "coredns"
        self._process = self.place.spawn(program, "-conf", str(self._file), log="coredns")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: int) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it. Raises RuntimeError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"no CoreDNS runs in {self.place.name}")
        self._process.send_signal(number)

    def answering(self) -> bool:
        """Whether it answers within 200 ms for a name of the cluster. Raises RuntimeError when it ended."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"no CoreDNS runs in {self.place.name}:\n{self.place.log('coredns')}")
        with self.place.socket(socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.2)
            try:
                asking.connect((self.address, 53))
                asking.send(question(0x51DE, KNOWN, "A"))
                return read_answer(asking.recv(512))[1] == NOERROR
            except (OSError, ValueError):
                return False

    def wait_answering(self, limit: float = 30) -> float:
        """Until it does. Returns how long that took; raises RuntimeError after `limit` seconds."""
        return tools.until(self.answering, f"an answer of CoreDNS in {self.place.name}", limit)


class NodeCache(CoreDns):
    """NodeLocal DNSCache on a node: CoreDNS on the link-local address and on kube-dns's own ClusterIP, and its rules.

    They are there before it listens. A kill leaves them, and with them nobody else answers; `stop` takes them away.
    """

    def __init__(
        self, node: Node, kube_dns: Service, kube_dns_upstream: Service, directory: Path, upstream: str | None
    ) -> None:
        corefile = node_cache(kube_dns.cluster_ip, kube_dns_upstream.cluster_ip, upstream)
        super().__init__(node, LISTENER, corefile, directory)
        self._cluster_ip = kube_dns.cluster_ip
        self._set_up = False

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        if not self._set_up:
            self._set_up = True
            self.place.ip(f"addr add {self._cluster_ip}/32 dev lo")
            self._rules("-I")
        super().start()

    def stop(self) -> None:
        """As a clean end of node-cache: its rules and its address go with it."""
        self.kill()
        if self._set_up:
            self._set_up = False
            with contextlib.suppress(RuntimeError):  # somebody flushed them
                self._rules("-D")
            self.place.ip(f"addr del {self._cluster_ip}/32 dev lo")

    def _rules(self, change: str) -> None:
        lines = {"raw": list[str](), "filter": list[str]()}
        for address in (LISTENER, self._cluster_ip):
            for protocol in ("udp", "tcp"):
                to, of = f"-p {protocol} -d {address} --dport 53", f"-p {protocol} -s {address} --sport 53"
                lines["raw"] += [
                    f"{change} PREROUTING {to} -j NOTRACK",
                    f"{change} OUTPUT {of} -j NOTRACK",
                    f"{change} OUTPUT {to} -j NOTRACK",
                ]
                lines["filter"] += [f"{change} INPUT {to} -j ACCEPT", f"{change} OUTPUT {of} -j ACCEPT"]
        text = "".join(f"*{table}\n" + "\n".join(found) + "\nCOMMIT\n" for table, found in lines.items())
        self.place.run("iptables-restore", "--noflush", given=text)
