"""The image as the DaemonSet's pod in a node of the lab: it answers, holds its leases, and hands over to the next."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import tally_questions
from proxy.lab.traffic import Questioner, Traffic
from tests.deploy.container import CAPABILITIES, Container, Volumes

LINK_LOCAL, SERVICE = "169.254.20.10:53", "10.96.0.10:53"
CONFIG = "--config", "/etc/sidestep/sidestep.yaml"
NAMES = "{number}.web.cluster.local"


class Setting:
    """The node, its DNS pods, and traffic of a client."""

    def __init__(self, cluster: Cluster, volumes: Volumes, image: Path, traffic: Traffic) -> None:
        self.cluster = cluster
        self.volumes = volumes
        self.traffic = traffic
        self.client = cluster.pods["client"]
        self._image = image
        self._ports = iter(range(41000, 60000))

    def container(self, uid: str) -> Container:
        return Container(self.volumes, self._image, uid)

    def asking(self, seconds: float = 60) -> list[Questioner]:
        """Questions to both addresses, over one socket, over fresh ones and over TCP, until `lost` ends them."""
        made = []
        for to in (LINK_LOCAL, SERVICE):
            for ports, tcp in ((str(next(self._ports)), False), ("fresh", False), ("fresh", True)):
                made.append(
                    self.traffic.questioner(
                        self.client, to, name=NAMES, rate=100, seconds=seconds, source_ports=ports, tcp=tcp
                    )
                )
        for one in made:
            one.start()
        return made


def lost(asking: list[Questioner]) -> list[int]:
    """Of each, once all had been asked for a while."""
    for one in asking:
        one.finish()
    found = [tally_questions(one.questions(), within=5) for one in asking]
    assert min(one.sent for one in found) > 100
    return [one.lost for one in found]


@pytest.fixture
def setting(deployed: Cluster, image: Path) -> Iterator[Setting]:
    cluster = deployed
    cluster.reset()
    dns = cluster.service("kube-system/kube-dns", "10.96.0.10", 53, port_name="dns", protocols=("UDP", "TCP"))
    with ExitStack() as stack:
        traffic = stack.enter_context(Traffic(cluster.run.directory))
        for name in ("client", "dns-1", "dns-2", "outside"):
            cluster.pod(name)
        for name in ("dns-1", "dns-2", "outside"):
            traffic.dns_server(cluster.pods[name], f"{cluster.pods[name].address}:53")
        cluster.set_endpoints(dns, [cluster.pods[name].address for name in ("dns-1", "dns-2")])
        cluster.wait_synced()
        volumes = Volumes(cluster, f"nameserver {cluster.pods['outside'].address}\n")
        stack.callback(volumes.remove)
        yield Setting(cluster, volumes, image, traffic)


def probe(container: Container, name: str) -> int:
    """The status that a kubelet gets with one of the manifest's probes."""
    asked = container.manifest[name]["httpGet"]
    with container.node.socket(socket.SOCK_STREAM) as sock:
        sock.settimeout(container.manifest[name].get("timeoutSeconds", 1))
        sock.connect((asked["host"], asked["port"]))
        connection = http.client.HTTPConnection(asked["host"])
        connection.sock = sock
        connection.request("GET", asked["path"])
        return connection.getresponse().status


def status(container: Container) -> dict[str, Any]:
    told = container.exec("sidestep", "status", "-o", "json", *CONFIG)
    assert told.returncode == 0, told.stdout + told.stderr
    return dict(json.loads(told.stdout))


def credentials(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(700)
def test_it_answers_holds_its_leases_and_follows_the_cluster_with_the_rights_of_the_manifests(
    setting: Setting,
) -> None:
    with setting.container("first") as first:
        first.start()
        first.wait_serving()
        assert [probe(first, name) for name in ("startupProbe", "readinessProbe", "livenessProbe")] == [200] * 3
        asking = setting.asking(seconds=2)
        told = status(first)
        assert told["node"]["lease"] == {
            f"{address}/{transport}": "held" for address in (LINK_LOCAL, SERVICE) for transport in ("udp", "tcp")
        }
        pods = {f"{setting.cluster.pods[name].address}:53" for name in ("dns-1", "dns-2", "outside")}
        assert pods <= {one["address"] for one in told["dns"]["upstreams"]}
        assert told["watch"]["synced"]
        for one in asking:
            one.wait(20)
        assert lost(asking) == [0] * len(asking)

        control = credentials(first.pid)
        mask = f"{sum(1 << CAPABILITIES[name] for name in first.capabilities):016x}"
        assert [control[f"Cap{name}"] for name in ("Eff", "Prm", "Bnd", "Inh", "Amb")] == [
            *[mask] * 3,
            *["0" * 16] * 2,
        ]
        workers = [credentials(pid) for pid in children(first.pid)]
        assert workers
        for worker in workers:
            assert {worker[f"Cap{name}"] for name in ("Eff", "Prm", "Bnd", "Inh", "Amb")} == {"0" * 16}
            assert (worker["Uid"].split()[0], worker["NoNewPrivs"], worker["Seccomp"]) == ("65532", "1", "2")


def test_it_hands_over_to_the_next_pod_and_stops_without_a_loss(setting: Setting) -> None:
    with setting.container("first") as first, setting.container("second") as second:
        first.start()
        first.wait_serving()
        asking = setting.asking()
        second.start()
        second.wait_serving()
        first.wait_until(lambda: first.said("waiting to be stopped"), "to wait")
        assert first.ended is None  # a container that ends is started anew
        assert first.stop() == (0, "another instance serves now: nothing to drain\n")
        node = status(second)["node"]
        assert (set(node["lease"].values()), node["draining"]) == ({"held"}, False)
        assert lost(asking) == [0] * len(asking)

        asking = setting.asking()
        assert second.stop() == (0, "drained\n")
        assert lost(asking) == [0] * len(asking)
        assert "10.96.0.10" not in setting.cluster.node.run("ip", "address")
