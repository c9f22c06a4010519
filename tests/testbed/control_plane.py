"""The lab's control plane on a loopback address, with the DaemonSet's account and what contract tests do."""

import base64
import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from proxy.lab import control_plane
from proxy.lab.control_plane import PROGRAMS, Refused
from tests import peers

__all__ = ["MANIFESTS", "NAMESPACE", "PATHS", "PROGRAMS", "USER", "ControlPlane", "Refused", "running"]

MANIFESTS = (peers.ROOT / "deploy/base/namespace.yaml", peers.ROOT / "deploy/base/rbac.yaml")
NAMESPACE = ACCOUNT = "sidestep"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
"""Who the DaemonSet is to the API server."""

_AUDIT_POLICY = f"""\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: Metadata
    users: ["{USER}"]
  - level: None
"""

PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


class ControlPlane(control_plane.ControlPlane):
    """One etcd and one kube-apiserver over `directory`, on free ports of 127.0.0.1.

    `etcd`: the path of another etcd than the one of the test bed.
    """

    def __init__(self, directory: Path, etcd: str | None = None) -> None:
        super().__init__(
            directory,
            address="127.0.0.1",
            ports=(peers.free_port(), peers.free_port(), peers.free_port()),
            launch=_launch,
            connect=lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            etcd=etcd,
        )
        self.audit_log = directory / "audit.log"
        """What the DaemonSet's account asked for: a JSON object a line."""
        self._copy = directory / "etcd.copy"

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "audit.yaml").write_text(_AUDIT_POLICY)
        self.audit_log.touch()

    def server_arguments(self) -> list[str]:
        audit = [f"--audit-policy-file={self.directory / 'audit.yaml'}", f"--audit-log-path={self.audit_log}"]
        return [*super().server_arguments(), *audit]

    def copy_state(self) -> None:
        """Keep etcd's state, as a crash at this moment would leave it."""
        shutil.rmtree(self._copy, ignore_errors=True)
        self.signal_etcd(signal.SIGSTOP)
        try:
            shutil.copytree(self.etcd_data, self._copy)
        finally:
            self.signal_etcd(signal.SIGCONT)

    def restore_state(self) -> None:
        """The kept state in place of the present one. etcd must not be running."""
        shutil.rmtree(self.etcd_data)
        shutil.copytree(self._copy, self.etcd_data)

    def compact(self) -> int:
        """Make etcd forget all older versions, through its JSON gateway. Returns the version that it kept.

        The API server goes on answering older ones from its watch cache until it is restarted.
        """
        version = int(self._ask_etcd("range", {"key": base64.b64encode(b"a").decode()})["header"]["revision"])
        self._ask_etcd("compaction", {"revision": version, "physical": True})
        return version

    def _ask_etcd(self, what: str, body: Any) -> Any:
        url = f"{self.etcd_url}/v3/kv/{what}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=20) as answer:
            return json.load(answer)

    def create(self, item: Any) -> None:
        """Create an object of one of the kinds of `PATHS`."""
        self.ask("POST", PATHS[item["kind"]], item)

    def account_token(self) -> str:
        """A token of the DaemonSet's service account, as a kubelet would project it."""
        path = f"{PATHS['ServiceAccount']}/{ACCOUNT}/token"
        return str(self.ask("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])


def _launch(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    # It must not outlive a test run that was killed. (The kernel means the thread: start it from the main one.)
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


@contextmanager
def running(directory: Path, etcd: str | None = None) -> Iterator[ControlPlane]:
    """A control plane with `deploy/base`'s namespace, account and role, ready; all of it ends with the context."""
    plane = ControlPlane(directory, etcd)
    try:
        plane.start()
        for file in MANIFESTS:
            for item in yaml.safe_load_all(file.read_text()):
                plane.create(item)
        yield plane
    finally:
        plane.stop()
