"""A node with the cluster's DNS, and clients that ask all the time, around containers of the DaemonSet."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Question
from proxy.lab.services import Service
from proxy.lab.traffic import Questioner, Traffic
from tests.deploy.container import BASE, Container, Volumes, of_kind

LINK_LOCAL, SERVICE = "169.254.20.10:53", "10.96.0.10:53"
CONFIG = "--config", "/etc/sidestep/sidestep.yaml"
NAMES = "{number}.web.cluster.local"

Asking = dict[bool, list[Questioner]]
"""Whether over TCP, and who asks."""


class Setting:
    """The node, its DNS pods, and traffic of a client."""

    def __init__(self, cluster: Cluster, dns: Service, volumes: Volumes, image: Path, traffic: Traffic) -> None:
        self.cluster = cluster
        self.dns = dns
        """kube-dns."""
        self.volumes = volumes
        self.traffic = traffic
        self.client = cluster.pods["client"]
        self._image = image
        self._ports = iter(range(41000, 60000))

    def container(self, uid: str, kustomization: Path = BASE) -> Container:
        """One of the DaemonSet of this kustomization, not started yet."""
        return Container(self.volumes, self._image, uid, of_kind("DaemonSet", kustomization))

    def asking(self, seconds: float = 60, *, node: bool = False) -> Asking:
        """Questions to both addresses, over one socket, over fresh ones and over TCP, until `lose_nothing` ends them.

        From a pod, and with `node` from the node itself as well.
        """
        places = (self.client, self.cluster.node) if node else (self.client,)
        made: Asking = {False: [], True: []}
        for place in places:
            for to in (LINK_LOCAL, SERVICE):
                for ports, tcp in ((str(next(self._ports)), False), ("fresh", False), ("fresh", True)):
                    made[tcp].append(
                        self.traffic.questioner(
                            place,
                            to,
                            name=NAMES,
                            rate=100 / len(places),
                            seconds=seconds,
                            source_ports=ports,
                            tcp=tcp,
                        )
                    )
        for one in (*made[False], *made[True]):
            one.start()
        return made


def lost(asking: Asking, *, tcp: bool) -> list[Question]:
    """What had no answer; who asks is ended."""
    found = []
    for one in asking[tcp]:
        one.finish()
        questions = one.questions()
        assert len(questions) > 30, (one.name, len(questions))
        found += [question for question in questions if not question.answered_ns]
    return found


def lose_nothing(asking: Asking) -> None:
    """Neither over UDP nor over TCP."""
    for tcp in (False, True):
        missing = lost(asking, tcp=tcp)
        assert not missing, (tcp, missing)


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
    assert told.stdout, told.stderr
    return dict(json.loads(told.stdout))
