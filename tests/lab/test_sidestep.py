"""Sidestep on a node of the lab: started, asked, killed and frozen in parts."""

import signal

import pytest

from proxy.lab import tools
from proxy.lab.cluster import Cluster, Service
from proxy.lab.sidestep import STATSD
from tests.lab.talking import PORT, talk


def statsd(cluster: Cluster) -> Service:
    return cluster.service("monitoring/statsd", "10.96.0.20", PORT, port_name="statsd")


def test_it_relays_to_the_endpoints_that_it_says_it_applied(cluster: Cluster) -> None:
    service = statsd(cluster)
    client, old, new = cluster.pod("client"), cluster.pod("old"), cluster.pod("new")
    cluster.set_endpoints(service, [old.address])
    with cluster.sidestep(statsd=service) as sidestep, talk() as sockets:
        sidestep.wait_applied(service, [old.address])
        receiving, sending = sockets.receiver(new), sockets.sender(client, STATSD)
        cluster.set_endpoints(service, [new.address])
        sidestep.wait_applied(service, [new.address])
        assert not sidestep.applied(service, [old.address])
        sending.send(b"hits:1|c")
        assert receiving.recv(100) == b"hits:1|c"


def test_a_worker_is_killed_alone_and_replaced(cluster: Cluster) -> None:
    service = statsd(cluster)
    with cluster.sidestep(statsd=service) as sidestep:
        (before,) = sidestep.pids("relay")
        sidestep.signal(signal.SIGKILL, "relay")
        tools.until(lambda: before not in sidestep.pids("relay") and sidestep.ready(), "a new worker")
        assert sidestep.running
        sidestep.kill()
        assert not sidestep.running
        assert sidestep.pids() == []
        sidestep.start()
        sidestep.wait_ready()


def test_a_frozen_one_does_not_answer_and_can_be_stopped(cluster: Cluster) -> None:
    service = statsd(cluster)
    with cluster.sidestep(statsd=service) as sidestep:
        sidestep.signal(signal.SIGSTOP)
        assert not sidestep.applied(service, [])
        assert sidestep.running
    assert sidestep.pids() == []


def test_one_that_cannot_start_says_why(cluster: Cluster) -> None:
    sidestep = cluster.sidestep(sections={"admin": {"listne": "127.0.0.1:9253"}})
    with pytest.raises(RuntimeError, match="listne"), sidestep:
        pass
    assert not sidestep.running


def test_dns_is_answered_from_the_pods_of_a_service(cluster: Cluster) -> None:
    dns = cluster.service("kube-system/kube-dns", "10.96.0.10", 53, port_name="dns", protocols=("UDP", "TCP"))
    cluster.set_endpoints(dns, ["10.244.1.50"])
    with cluster.sidestep(dns=dns) as sidestep:
        sidestep.wait_applied(dns, ["10.244.1.50"])
        assert sidestep.endpoints(dns) == {"10.244.1.50:53"}
