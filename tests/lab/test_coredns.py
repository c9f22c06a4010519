"""The real CoreDNS in a pod, and as a node cache with NodeLocal's rules."""

import signal
from pathlib import Path

import pytest

from proxy.lab.cluster import Cluster
from proxy.lab.coredns import KNOWN, PROGRAMS
from proxy.lab.dns_wire import NOERROR, NXDOMAIN, question, read_answer
from proxy.lab.outcome import MODES
from proxy.lab.tools import until
from proxy.lab.traffic import Traffic
from tests import peers
from tests.lab.talking import Talk, talk

pytestmark = peers.needs(*PROGRAMS)


def rcode(sockets: Talk, cluster: Cluster, address: str, name: str = KNOWN, port: int = 40000) -> int:
    asking = sockets.sender(cluster.pods["client"], address, port)
    asking.send(question(7, name, "A"))
    return read_answer(asking.recv(512))[1]


def test_a_pod_answers_for_the_names_of_the_cluster_through_its_service(cluster: Cluster) -> None:
    dns = cluster.service("kube-system/kube-dns", "10.96.0.10", 53, port_name="dns", protocols=("UDP", "TCP"))
    cluster.pod("client")
    with cluster.coredns("coredns-1") as server, talk() as sockets:
        cluster.set_endpoints(dns, [server.address])
        cluster.wait_synced()
        assert rcode(sockets, cluster, dns.address) == NOERROR
        assert rcode(sockets, cluster, f"{server.address}:53", "nowhere.example", 40001) == NXDOMAIN
        server.signal(signal.SIGSTOP)
        until(lambda: not server.answering(), "a stopped server gives no answer")


def test_a_killed_node_cache_leaves_its_rules_and_a_stopped_one_does_not(cluster: Cluster) -> None:
    dns, upstream = (
        cluster.service(f"kube-system/{name}", address, 53, port_name="dns", protocols=("UDP", "TCP"))
        for name, address in (("kube-dns", "10.96.0.10"), ("kube-dns-upstream", "10.96.0.11"))
    )
    cluster.pod("client")
    with cluster.coredns("coredns-1") as server, talk() as sockets:
        for service in (dns, upstream):
            cluster.set_endpoints(service, [server.address])
        cluster.wait_synced()
        with cluster.node_cache(dns, upstream) as cache:
            for port, address in ((40000, "169.254.20.10:53"), (40001, dns.address)):
                assert rcode(sockets, cluster, address, port=port) == NOERROR
            assert cluster.conntrack().flows(dns.address) == []
            cache.kill()
            assert "NOTRACK" in cluster.node.run("iptables-save", "-t", "raw")
        assert "NOTRACK" not in cluster.node.run("iptables-save", "-t", "raw")
        assert rcode(sockets, cluster, dns.address, port=40002) == NOERROR


@pytest.mark.parametrize("cluster", MODES, indirect=True)
def test_a_service_of_both_ip_families_is_reached_over_both(cluster: Cluster, tmp_path: Path) -> None:
    dns = cluster.service(
        "kube-system/kube-dns", "10.96.0.10", 53, protocols=("UDP", "TCP"), cluster_ip6="fd00:10:96::a"
    )
    client = cluster.pod("client")
    with cluster.coredns("coredns-1") as server, Traffic(tmp_path) as traffic:
        cluster.set_endpoints(dns, [server.address])
        cluster.wait_synced()
        asking = [
            traffic.questioner(place, to, name=KNOWN, rate=10, seconds=0.5, source_ports=str(45000 + number), tcp=tcp)
            for number, to in enumerate(("10.96.0.10:53", "[fd00:10:96::a]:53"))
            for place in (client, cluster.node)
            for tcp in (False, True)
        ]
        for one in asking:
            one.start()
        for one in asking:
            one.wait(20)
            assert [question.rcode for question in one.questions()] == [NOERROR] * 5
