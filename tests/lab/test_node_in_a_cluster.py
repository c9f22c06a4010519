"""Sidestep with `node:` on a node with the real kube-proxy, where no endpoint of kube-dns is known."""

import socket

import pytest

from proxy.lab.cluster import Cluster
from proxy.lab.coredns import KNOWN, PROGRAMS
from proxy.lab.dns_wire import NOERROR, question, read_answer
from proxy.lab.namespaces import Namespace
from proxy.lab.outcome import MODES
from proxy.lab.tools import until
from tests import peers

SERVICE = "10.96.0.10"
SECTIONS = {
    "dns": {
        "listen": ["169.254.20.11:53", f"{SERVICE}:53"],
        "zones": [
            {
                "suffix": ".",
                "upstreams": {"service": "kube-system/nobody", "port": "dns"},
                "fallback": [f"{SERVICE}:53"],
            }
        ],
    },
    "node": {},
}


def rcode(place: Namespace, address: str) -> int | None:
    """Of an answer within a second."""
    with place.socket(socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect((address, 53))
            asking.send(question(7, KNOWN, "A"))
            return read_answer(asking.recv(512))[1]
        except OSError:
            return None


@peers.needs(*PROGRAMS)
@pytest.mark.parametrize("cluster", MODES, indirect=True)
def test_questions_to_a_service_that_we_listen_on_go_to_kube_proxy(cluster: Cluster) -> None:
    dns = cluster.service("kube-system/kube-dns", SERVICE, 53, port_name="dns", protocols=("UDP", "TCP"))
    client = cluster.pod("client")
    sidestep = cluster.sidestep(sections=SECTIONS)
    with cluster.coredns("coredns-1") as server:
        cluster.set_endpoints(dns, [server.address])
        cluster.wait_synced()
        try:
            sidestep.start()
            until(lambda: _held(sidestep.socket.exists() and sidestep.status()), "the lease is held", 20)
            for place in (client, cluster.node):
                for address in ("169.254.20.11", SERVICE):
                    assert rcode(place, address) == NOERROR
            asked = sidestep.status()["dns"]["upstreams"]
            assert [(one["address"], one["state"]) for one in asked] == [(f"{SERVICE}:53", "up")]
            cluster.kube_proxy.clean()
            cluster.conntrack().flush()
            assert rcode(client, SERVICE) is not None  # from the cache, or SERVFAIL: it does not go round
        finally:
            sidestep.stop()
            sidestep.command("cleanup")


def _held(status: object) -> bool:
    return isinstance(status, dict) and set(status["node"]["lease"].values()) == {"held"}
