"""The cluster of the lab: what a scenario can rely on, with the real kube-proxy and without anything built."""

import socket

import pytest

from proxy.lab.cluster import Cluster, Endpoint, Mode, Pod, Service, running
from proxy.lab.conntrack import Flow
from proxy.lab.control_plane import Refused
from proxy.lab.outcome import MODES
from proxy.lab.rules import Frontend
from tests.lab.conftest import Clusters
from tests.lab.talking import PORT, talk

both = pytest.mark.parametrize("cluster", MODES, indirect=True)


def statsd(cluster: Cluster) -> Service:
    return cluster.service("monitoring/statsd", "10.96.0.20", PORT, port_name="statsd")


@both
def test_a_pod_reaches_a_service_through_the_real_kube_proxy(cluster: Cluster) -> None:
    service = statsd(cluster)
    client, server = cluster.pod("client"), cluster.pod("server")
    with talk() as sockets:
        receiving = sockets.receiver(server)
        cluster.set_endpoints(service, [server.address])
        cluster.wait_synced()
        sockets.sender(client, service.address).send(b"hits:1|c")
        assert receiving.recvfrom(100) == (b"hits:1|c", (client.address, 40000))
        assert cluster.kube_proxy.real
        assert cluster.conntrack().flows(service.address) == [
            Flow(f"{client.address}:40000", service.address, f"{server.address}:{PORT}")
        ]


@both
def test_rules_follow_the_api_server_or_are_seen_not_to(cluster: Cluster) -> None:
    service = statsd(cluster)
    server = cluster.pod("server")
    frontend = Frontend("10.96.0.20", "udp", PORT)
    cluster.wait_synced()
    assert cluster.kube_proxy.programmed()[frontend] == frozenset()
    cluster.set_endpoints(service, [server.address])
    cluster.wait_synced()
    assert cluster.kube_proxy.programmed()[frontend] == {f"{server.address}:{PORT}"}
    cluster.kube_proxy.stop()
    cluster.set_endpoints(service, ["10.244.1.77"])
    assert not cluster.kube_proxy.synced()
    cluster.kube_proxy.start()
    cluster.wait_synced()
    cluster.delete_service(service)
    cluster.wait_synced()
    assert frontend not in cluster.kube_proxy.programmed()


@both
def test_kube_proxy_leaves_nothing_when_it_is_cleaned(cluster: Cluster) -> None:
    cluster.set_endpoints(statsd(cluster), ["10.244.1.77"])
    cluster.wait_synced()
    cluster.kube_proxy.clean()
    assert cluster.kube_proxy.programmed() == {}


@pytest.mark.parametrize("mode", MODES)
def test_without_anything_built_a_pod_reaches_a_service_through_rules_of_the_lab(root: None, mode: Mode) -> None:
    with running(mode, real=False) as cluster, talk() as sockets:
        service = statsd(cluster)
        client, old, new = cluster.pod("client"), cluster.pod("old"), cluster.pod("new")
        sending = sockets.sender(client, service.address)
        for server in (old, new):
            receiving = sockets.receiver(server)
            cluster.set_endpoints(service, [server.address])
            assert cluster.kube_proxy.synced()
            sending.send(b"hits:1|c")
            assert receiving.recv(100) == b"hits:1|c"
        cluster.set_endpoints(service, [])
        assert cluster.kube_proxy.synced()
        cluster.conntrack().flush()
        sending.send(b"hits:1|c")
        with pytest.raises(ConnectionRefusedError):
            sending.recv(100)
        assert not cluster.kube_proxy.real
        assert "written by the lab" in cluster.what
        assert "no API server" in cluster.what


def test_a_deleted_pods_address_may_be_given_to_another(cluster: Cluster) -> None:
    client, first = cluster.pod("client"), cluster.pod("first")
    with pytest.raises(ValueError, match=f"a pod has {first.address} already"):
        cluster.pod("second", first.address)
    with pytest.raises(ValueError, match="there is a first already"):
        cluster.pod("first")
    first.delete()
    second = cluster.pod("second", first.address)
    with talk() as sockets:
        receiving = sockets.receiver(second)
        sockets.sender(client, f"{second.address}:{PORT}").send(b"hello")
        assert receiving.recv(100) == b"hello"


def test_what_is_sent_to_a_pod_that_is_gone_vanishes(cluster: Cluster) -> None:
    client, server = cluster.pod("client"), cluster.pod("server")
    with talk() as sockets:
        sending = sockets.sender(client, f"{server.address}:{PORT}")
        server.delete()
        for _ in range(3):
            sending.send(b"hello")
        sending.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sending.recv(100)
        with cluster.node.socket(socket.SOCK_DGRAM) as local, pytest.raises(OSError, match="Invalid argument"):
            local.connect((server.address, PORT))  # what a blackhole route says on its own node


def test_endpoints_that_serve_while_they_terminate_are_used_when_none_is_ready(cluster: Cluster) -> None:
    service = statsd(cluster)
    leaving = Endpoint("10.244.1.50", ready=False, serving=True, terminating=True)
    ended = Endpoint("10.244.1.51", ready=False, serving=False, terminating=True)
    cluster.set_endpoints(service, [leaving, ended])
    cluster.wait_synced()
    assert cluster.rules()[Frontend("10.96.0.20", "udp", PORT)] == {f"10.244.1.50:{PORT}"}


def test_a_service_that_the_api_server_refuses_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="failed to allocate IP"):
        cluster.service("monitoring/statsd", "192.0.2.1", PORT)
    assert cluster.rules() == cluster.kube_proxy.programmed()


def test_addresses_are_given_again_as_late_as_possible(root: None) -> None:
    with running(real=False) as cluster:
        first = cluster.pod("first")
        given = [cluster.node.free_address({first.address}) for _ in range(254)]
        assert first.address == "10.244.1.2"
        assert given[:252] == [f"10.244.1.{host}" for host in range(3, 255)]
        assert given[252:] == ["10.244.1.3", "10.244.1.4"]
        with pytest.raises(ValueError, match="is taken"):
            cluster.node.free_address([*given, first.address])


def test_reset_leaves_an_empty_cluster(cluster: Cluster) -> None:
    service = statsd(cluster)
    server = cluster.pod("server")
    cluster.set_endpoints(service, [server.address])
    cluster.kube_proxy.stop()
    cluster.reset()
    assert cluster.pods == {}
    assert set(cluster.run.namespaces) == {"control", "node1"}
    assert cluster.kube_proxy.running
    assert Frontend("10.96.0.20", "udp", PORT) not in cluster.kube_proxy.programmed()
    assert cluster.conntrack().flows(service.address) == []


@pytest.mark.parametrize("overlay", [False, True], ids=["routes", "overlay"])
def test_pods_of_two_nodes_reach_each_other(root: None, overlay: bool) -> None:
    with running(nodes=2, overlay=overlay, real=False) as cluster, talk() as sockets:
        client, server = cluster.pod("client"), cluster.pod("server", node=1)
        receiving = sockets.receiver(server)
        sending = sockets.sender(client, f"{server.address}:{PORT}")
        sending.send(bytes(1422))
        assert receiving.recvfrom(2000) == (bytes(1422), (client.address, 40000))
        # The kernel splits what is longer than the pod's MTU, and the other side puts it together.
        before = fragments(client)
        sending.send(bytes(1432))
        assert len(receiving.recv(2000)) == 1432
        assert (fragments(client) > before) == overlay


def fragments(pod: Pod) -> int:
    """How many its kernel has made."""
    text = pod.run("cat", "/proc/net/snmp")
    names, values = (line.split() for line in text.splitlines() if line.startswith("Ip:"))
    return int(dict(zip(names, values, strict=True))["FragCreates"])


def test_two_clusters_at_a_time_do_not_know_of_each_other(clusters: Clusters, cluster: Cluster) -> None:
    ours = cluster.pod("server", "10.244.1.77")
    with running("iptables", real=False) as other, talk() as sockets:
        theirs, client = other.pod("server", ours.address), other.pod("client")
        receiving = sockets.receiver(theirs)
        sockets.sender(client, f"{ours.address}:{PORT}").send(b"hello")
        assert receiving.recv(100) == b"hello"
    assert cluster.pods == {"server": ours}
