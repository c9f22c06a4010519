"""etcd and kube-apiserver, started, stopped, frozen and asked. Nothing else runs: no controller, no node.

Slices and Services are what a test writes.
"""

import base64
import http.client
import json
import secrets
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests import peers

PROGRAMS = ("etcd", "kube-apiserver", "openssl")
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


class Refused(Exception):
    """The API server's answer was no success: its HTTP status and what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class ControlPlane:
    """One etcd and one kube-apiserver over `directory`, with `deploy/base`'s account and role in it.

    `etcd`: the path of another etcd than the one of the test bed.
    """

    def __init__(self, directory: Path, etcd: str | None = None) -> None:
        self.directory = directory
        self.port = peers.free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca_file = directory / "tls/apiserver.crt"
        """Its certificate with the CA that signed it."""
        self.admin_token = secrets.token_hex(16)
        self.audit_log = directory / "audit.log"
        """What the DaemonSet's account asked for: a JSON object a line."""
        self._etcd_data = directory / "etcd"
        self._copy = directory / "etcd.copy"
        self._etcd_ports = peers.free_port(), peers.free_port()
        self._etcd_program = etcd or peers.find("etcd") or "etcd"
        # As kubeadm sets it. Without it (Debian's etcd doesn't know it), versions stand still while no slice of the
        # cluster changes, and no bookmark comes then: one is only sent for a newer version than the watch began with.
        told = subprocess.run([self._etcd_program, "--help"], capture_output=True, text=True)
        interval = "--watch-progress-notify-interval"
        self._progress = [f"{interval}=5s"] if f" {interval} " in told.stdout + told.stderr else []
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Keys, tokens and policies, once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "tokens.csv").write_text(f"{self.admin_token},admin,admin,system:masters\n")
        (self.directory / "audit.yaml").write_text(_AUDIT_POLICY)
        self.audit_log.touch()
        key = self.directory / "account.key"
        command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
        subprocess.run(command, check=True, capture_output=True)

    def start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._etcd_ports)
        self._etcd = self._run(
            self._etcd_program,
            f"--data-dir={self._etcd_data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--heartbeat-interval=20",
            "--election-timeout=200",
            "--log-level=error",
            *self._progress,
        )

    def start_server(self) -> None:
        """Start kube-apiserver and come back at once; `wait_until_ready` says when it serves."""
        self._server = self._run(
            peers.find("kube-apiserver") or "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_ports[0]}",
            "--etcd-compaction-interval=0",  # tests say when
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--advertise-address=192.0.2.1",  # a loopback one is refused; nobody connects to it
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.ca_file.parent}",
            f"--service-account-key-file={self.directory / 'account.key'}",
            f"--service-account-signing-key-file={self.directory / 'account.key'}",
            "--service-account-issuer=https://sidestep.test",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--audit-policy-file={self.directory / 'audit.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--service-cluster-ip-range=10.96.0.0/16",
        )

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        # It must not outlive a test run that was killed. (The kernel means the thread: start it from the main one.)
        with (self.directory / f"{Path(program).name}.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def alive(self) -> bool:
        """Whether the API server is a running process, frozen or not."""
        return self._server is not None and self._server.poll() is None

    def ready(self) -> bool:
        """Whether the API server serves, RBAC's built-in roles included."""
        for program, process in (("etcd", self._etcd), ("kube-apiserver", self._server)):
            if process is None or process.poll() is not None:
                log = (self.directory / f"{program}.log").read_text()
                raise RuntimeError(f"{program} is not running:\n{log[-3000:]}")
        try:
            self.ask("GET", "/readyz")
        except (OSError, Refused, http.client.HTTPException):
            return False
        return True

    def wait_until_ready(self) -> None:
        """Raises RuntimeError with the log if it ends or takes 60 s."""
        deadline = time.monotonic() + 60
        while not self.ready():
            if time.monotonic() > deadline:
                log = (self.directory / "kube-apiserver.log").read_text()
                raise RuntimeError(f"kube-apiserver isn't ready:\n{log[-3000:]}")
            time.sleep(0.05)

    def signal_server(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it."""
        assert self._server
        self._server.send_signal(number)

    def kill_server(self) -> None:
        _kill(self._server)

    def kill_etcd(self) -> None:
        _kill(self._etcd)

    def copy_state(self) -> None:
        """Keep etcd's state, as a crash at this moment would leave it."""
        assert self._etcd
        shutil.rmtree(self._copy, ignore_errors=True)
        self._etcd.send_signal(signal.SIGSTOP)
        try:
            shutil.copytree(self._etcd_data, self._copy)
        finally:
            self._etcd.send_signal(signal.SIGCONT)

    def restore_state(self) -> None:
        """The kept state in place of the present one. etcd must not be running."""
        shutil.rmtree(self._etcd_data)
        shutil.copytree(self._copy, self._etcd_data)

    def compact(self) -> int:
        """Make etcd forget all older versions, through its JSON gateway. Returns the version that it kept.

        The API server goes on answering older ones from its watch cache until it is restarted.
        """
        version = int(self._ask_etcd("range", {"key": base64.b64encode(b"a").decode()})["header"]["revision"])
        self._ask_etcd("compaction", {"revision": version, "physical": True})
        return version

    def _ask_etcd(self, what: str, body: Any) -> Any:
        url = f"http://127.0.0.1:{self._etcd_ports[0]}/v3/kv/{what}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=20) as answer:
            return json.load(answer)

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """One request, as the administrator unless another token is given. Returns what the answer's JSON says.

        Raises Refused for another status than 2xx, OSError where nothing answers within 20 s.
        """
        headers = {"Authorization": f"Bearer {token or self.admin_token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, headers, method=method)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 sets it, the server's own CA isn't up to it
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode(errors="replace")) from None
        return json.loads(text) if text.startswith(b"{") else text.decode()

    def create(self, item: Any) -> None:
        """Create an object of one of the kinds of `PATHS`."""
        self.ask("POST", PATHS[item["kind"]], item)

    def account_token(self) -> str:
        """A token of the DaemonSet's service account, as a kubelet would project it."""
        path = f"{PATHS['ServiceAccount']}/{ACCOUNT}/token"
        return str(self.ask("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None:
        process.kill()  # wakes a frozen one as well
        process.wait()


@contextmanager
def running(directory: Path, etcd: str | None = None) -> Iterator[ControlPlane]:
    """A control plane with `deploy/base`'s namespace, account and role, ready; all of it ends with the context."""
    plane = ControlPlane(directory, etcd)
    plane.prepare()
    try:
        plane.start_etcd()
        plane.start_server()
        plane.wait_until_ready()
        for file in MANIFESTS:
            for item in yaml.safe_load_all(file.read_text()):
                plane.create(item)
        yield plane
    finally:
        plane.kill_server()
        plane.kill_etcd()
