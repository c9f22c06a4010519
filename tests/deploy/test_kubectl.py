"""Every kubectl command of the documents, against the real API server: in their order, NODE and POD filled in.

Nobody acts on the objects here, neither controllers nor kubelets: what waits for pods or looks into them is left out.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import __version__
from proxy.lab.control_plane import PROGRAMS
from proxy.lab.tools import find
from tests import peers
from tests.testbed.control_plane import ControlPlane

pytestmark = peers.needs("kubectl", *PROGRAMS)

README, MIGRATION = (peers.ROOT / name for name in ("deploy/README.md", "docs/migration.md"))
NEEDS_PODS = {"exec", "logs", "rollout", "wait"}
LABELS = {"k8s-app": "node-local-dns"}
NODELOCAL: list[dict[str, Any]] = [
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "node-local-dns"},
        "spec": {
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}},
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [{"name": "node-cache", "image": "k8s-dns-node-cache"}]},
            },
        },
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "node-local-dns"}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "node-local-dns"}},
    *(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 53}]}}
        for name in ("kube-dns", "kube-dns-upstream", "node-local-dns")
    ),
]
"""What its manifest brings, and kube-dns's Service."""


def commands(document: Path) -> list[list[str]]:
    """Those in blocks of code and between backticks."""
    return [shlex.split(found) for found in re.findall(r"(?m)(?:^|`)(kubectl [^`\n#]+)", document.read_text())]


class Cluster:
    """kubectl in the directory from which the documents call it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._kubeconfig = plane.directory / "kubeconfig"
        plane.write_kubeconfig(self._kubeconfig)

    def kubectl(self, *words: str, given: object = None) -> str:
        done = subprocess.run(
            [find("kubectl") or "kubectl", f"--kubeconfig={self._kubeconfig}", *words],
            input=json.dumps(given),
            cwd=peers.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def follow(self, listed: list[list[str]]) -> set[str]:
        """Run them; the verbs of those that were run."""
        verbs = set()
        for _, *words in listed:
            verb = words[2] if words[0] == "-n" else words[0]
            if verb not in NEEDS_PODS:
                # Finalizers are a controller's to work off, too.
                options = ["--wait=false"] if verb == "delete" else []
                self.kubectl(*(word.replace("NODE", "node1") for word in words), *options)
                verbs.add(verb)
        return verbs

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "--output=json"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    plane = ControlPlane(tmp_path)
    try:
        plane.start()
        cluster = Cluster(plane)
        cluster.kubectl("create", "-f-", given={"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}})
        for item in NODELOCAL:
            cluster.kubectl("-n", "kube-system", "create", "-f-", given=item)
        yield cluster
    finally:
        plane.stop()


def affinity(daemonset: dict[str, Any]) -> Any:
    node = daemonset["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    return node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


def images(daemonset: dict[str, Any]) -> set[str]:
    pod = daemonset["spec"]["template"]["spec"]
    return {container["image"] for container in (*pod.get("initContainers", ()), *pod["containers"])}


def off(label: str) -> Any:
    return [{"matchExpressions": [{"key": label, "operator": "NotIn", "values": ["off"]}]}]


def test_the_documents_have_commands_to_follow() -> None:
    verbs = {word for document in (README, MIGRATION) for words in commands(document) for word in words}
    assert verbs >= {"apply", "delete", "patch", "label", "get", *NEEDS_PODS}


def test_it_is_installed_and_uninstalled(cluster: Cluster) -> None:
    listed = commands(README)
    middle = listed.index(["kubectl", "apply", "-k", "deploy/uninstall"])
    assert cluster.follow(listed[: middle + 1]) >= {"apply", "delete"}
    assert [
        item["metadata"]["name"] for item in cluster.get("daemonset", "-A")["items"] if "sidestep" in str(item)
    ] == ["sidestep-cleanup"]
    assert images(cluster.get("daemonset", "-n", "sidestep", "sidestep-cleanup")) == {f"sidestep:{__version__}"}
    cluster.follow(listed[middle + 1 :])
    assert cluster.get("namespace", "sidestep")["metadata"]["deletionTimestamp"]
    for kind in ("clusterrole", "clusterrolebinding"):
        assert "sidestep" not in cluster.kubectl("get", kind)


def test_nodes_migrate_by_label_and_back(cluster: Cluster) -> None:
    listed = commands(MIGRATION)
    for_good = next(i for i, words in enumerate(listed) if words[3:6] == ["delete", "daemonset", "node-local-dns"])
    back = next(i for i, words in enumerate(listed) if "sidestep=off" in words)
    cluster.follow(listed[:for_good])
    nodelocal = cluster.get("daemonset", "-n", "kube-system", "node-local-dns")
    assert (nodelocal["spec"]["updateStrategy"]["type"], affinity(nodelocal)) == ("OnDelete", off("nodelocal-dns"))
    sidestep = cluster.get("daemonset", "-n", "sidestep", "sidestep")
    assert (affinity(sidestep), images(sidestep)) == (off("sidestep"), {f"sidestep:{__version__}"})
    assert cluster.get("node", "node1")["metadata"]["labels"]["nodelocal-dns"] == "off"

    cluster.follow(listed[back:])
    assert not {"sidestep", "nodelocal-dns"} & cluster.get("node", "node1")["metadata"].get("labels", {}).keys()
    assert cluster.get("namespace", "sidestep")["metadata"]["deletionTimestamp"]

    cluster.follow(listed[for_good:back])
    left = cluster.kubectl("-n", "kube-system", "get", "daemonset,service,configmap,serviceaccount")
    assert "service/kube-dns " in left
    assert "node-local-dns" not in left
    assert "kube-dns-upstream" not in left


def test_the_patch_says_what_the_label_of_the_document_is() -> None:
    patch = yaml.safe_load((peers.ROOT / "deploy/migrate/nodelocal-by-label.yaml").read_text())
    assert affinity(patch) == off("nodelocal-dns")
    assert "nodelocal-dns=off" in MIGRATION.read_text()
