"""`sidestep lab shell`: a cluster that stays up after the command, with something in it, and how to enter it."""

import sys
from collections.abc import Callable
from pathlib import Path

from proxy.lab import tools
from proxy.lab.cluster import Cluster, Mode, running
from proxy.lab.rules import TABLE
from proxy.lab.sidestep import STATSD

CLUSTER_IP = "10.96.0.20"
PORT = 8125

_RECEIVE = """\
import socket, sys, time
receiving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiving.bind((sys.argv[1], int(sys.argv[2])))
while True:
    datagram, (address, port) = receiving.recvfrom(65535)
    print(time.strftime("%H:%M:%S"), f"from {address}:{port}:", datagram.decode(errors="replace").strip(), flush=True)
"""


def bring_up(mode: Mode, say: Callable[[str], None]) -> list[str]:
    """A kept cluster: a StatsD Service with one pod, a client, the cluster's DNS where built, Sidestep on the node.

    Returns what to tell the person, line by line. `namespaces.cleanup` ends it. Raises Unavailable, RuntimeError.
    """
    with running(mode, kept=True, say=say) as cluster:
        statsd = cluster.service("monitoring/statsd", CLUSTER_IP, PORT, port_name="statsd")
        pod = cluster.pod("statsd-1")
        pod.spawn(sys.executable, "-c", _RECEIVE, pod.address, str(PORT), log="received")
        cluster.set_endpoints(statsd, [pod.address])
        client = cluster.pod("client")
        dns = None
        if cluster.api is not None and tools.find("coredns"):
            dns = cluster.service("kube-system/kube-dns", "10.96.0.10", 53, port_name="dns", protocols=("UDP", "TCP"))
            server = cluster.coredns("coredns-1")
            server.start()
            cluster.set_endpoints(dns, [server.address])
            server.wait_answering()
            client.etc("resolv.conf", "nameserver 10.96.0.10\n")
        proxy = cluster.sidestep(statsd=statsd, dns=dns)
        proxy.start()
        proxy.wait_ready()
        cluster.wait_synced()
        return _told(cluster, proxy.config)


def _told(cluster: Cluster, config: Path) -> list[str]:
    def enter(name: str, command: str) -> str:
        return f"ip netns exec {cluster.run.namespaces[name].full_name} {command}"

    def send(address: str) -> str:
        return f"bash -c 'echo \"hits:1|c\" >/dev/udp/{address.replace(':', '/')}'"

    rules = f"nft list table ip {TABLE}" if cluster.mode == "nftables" else "iptables-save -t nat"
    lines = [
        ("the node", enter("node1", "bash")),
        ("a client pod", enter("client", "bash")),
        ("send through kube-proxy", enter("client", send(f"{CLUSTER_IP}:{PORT}"))),
        ("send through Sidestep", enter("client", send(STATSD))),
        ("what the StatsD pod received", f"tail -f {cluster.run.directory}/logs/statsd-1-received.log"),
        ("kube-proxy's rules", enter("node1", rules)),
        ("tracked flows", enter("node1", "conntrack -L -p udp")),
        ("Sidestep", f"{sys.executable} -m proxy status --config {config}"),
    ]
    if cluster.api is not None and (kubectl := tools.find("kubectl")):
        asked = f"{kubectl} --kubeconfig {cluster.kubeconfig} get services,endpointslices -A"
        lines.append(("the API server", enter("control", asked)))
    lines += [
        ("logs", f"{cluster.run.directory}/logs"),
        ("take it down", f"{sys.executable} -m proxy lab --cleanup"),
    ]
    width = max(len(title) for title, _ in lines)
    return [f"run {cluster.run.id} is up: {cluster.what}", *(f"{title:{width}}  {what}" for title, what in lines)]
