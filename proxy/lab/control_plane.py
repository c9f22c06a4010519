"""etcd and kube-apiserver, started, stopped, frozen and asked. Nothing else runs: no controller, no node.

Slices and Services are what a scenario or a test writes.
"""

import http.client
import json
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proxy.lab import tools

PROGRAMS = ("etcd", "kube-apiserver", "openssl")
SERVICE_RANGE = "10.96.0.0/16,fd00:10:96::/112"
"""Of ClusterIPs, of both IP families."""

_IDLE = 30.0
"""How long a connection is kept for the next request, s; the server closes it after 90."""


class Refused(RuntimeError):
    """The API server's answer was no success: its HTTP status and what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class ControlPlane:
    """One etcd and one kube-apiserver over `directory`.

    address  where the server listens; clients check that its certificate is for it
    ports    of the API server, and of etcd for clients and for peers
    launch   starts a command, given with the file that its output is added to
    connect  makes the socket that a request goes through
    etcd     the path of another etcd than the one that is found
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str,
        ports: tuple[int, int, int],
        launch: Callable[[Sequence[str], Path], "subprocess.Popen[bytes]"],
        connect: Callable[[], socket.socket],
        etcd: str | None = None,
    ) -> None:
        self.directory = directory
        self.address = address
        self.port, self._etcd_port, self._peer_port = ports
        self.url = f"https://{address}:{self.port}"
        self.ca_file = directory / "tls/apiserver.crt"
        """Its certificate with the CA that signed it."""
        self.admin_token = secrets.token_hex(16)
        self._launch = launch
        self._connect = connect
        self._idle: list[tuple[float, _Connection]] = []
        self._etcd_program = etcd or tools.find("etcd") or "etcd"
        told = subprocess.run([self._etcd_program, "--help"], capture_output=True, text=True)
        known = told.stdout + told.stderr
        # As kubeadm sets it. Without it (Debian's etcd doesn't know it), versions stand still while no slice of the
        # cluster changes, and no bookmark comes then: one is only sent for a newer version than the watch began with.
        wanted = {"--watch-progress-notify-interval": "5s", "--unsafe-no-fsync": "true"}
        self._etcd_options = [f"{name}={value}" for name, value in wanted.items() if f" {name} " in known]
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def etcd_data(self) -> Path:
        """Where etcd keeps its state."""
        return self.directory / "etcd"

    @property
    def etcd_url(self) -> str:
        """Where etcd answers its clients."""
        return f"http://127.0.0.1:{self._etcd_port}"

    def prepare(self) -> None:
        """Keys and tokens, once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "tokens.csv").write_text(f"{self.admin_token},admin,admin,system:masters\n")
        key = self.directory / "account.key"
        command = [tools.find("openssl") or "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
        subprocess.run([*command, "-out", str(key)], check=True, capture_output=True)

    def start_etcd(self) -> None:
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._etcd = self._run(
            self._etcd_program,
            f"--data-dir={self.etcd_data}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--heartbeat-interval=20",
            "--election-timeout=200",
            "--log-level=error",
            *self._etcd_options,
        )

    def start_server(self) -> None:
        """Start kube-apiserver and come back at once; `wait_until_ready` says when it serves."""
        self._server = self._run(tools.find("kube-apiserver") or "kube-apiserver", *self.server_arguments())

    def server_arguments(self) -> list[str]:
        """What kube-apiserver is started with."""
        # A loopback address is refused as the advertised one; nobody connects to it then.
        advertised = "192.0.2.1" if self.address.startswith("127.") else self.address
        return [
            f"--etcd-servers={self.etcd_url}",
            "--etcd-compaction-interval=0",  # tests say when
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            f"--advertise-address={advertised}",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.ca_file.parent}",
            f"--service-account-key-file={self.directory / 'account.key'}",
            f"--service-account-signing-key-file={self.directory / 'account.key'}",
            "--service-account-issuer=https://sidestep.test",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
        ]

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return self._launch([program, *arguments], self.directory / f"{Path(program).name}.log")

    def start(self) -> None:
        """Everything, up to an API server that is ready."""
        self.prepare()
        self.start_etcd()
        self.start_server()
        self.wait_until_ready()

    def stop(self) -> None:
        """Kill both."""
        self.kill_server()
        self.kill_etcd()

    def alive(self) -> bool:
        """Whether the API server is a running process, frozen or not."""
        return self._server is not None and self._server.poll() is None

    def ready(self) -> bool:
        """Whether the API server serves, RBAC's built-in roles included. Raises RuntimeError when a process ended."""
        for program, process in ((self._etcd_program, self._etcd), ("kube-apiserver", self._server)):
            if process is None or process.poll() is not None:
                name = Path(program).name
                raise RuntimeError(f"{name} is not running:\n{self._log(name)}")
        try:
            self.ask("GET", "/readyz")
        except (OSError, Refused, http.client.HTTPException):
            return False
        return True

    def _log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-3000:]

    def wait_until_ready(self) -> None:
        """Raises RuntimeError with the log if it ends or takes 60 s."""
        deadline = time.monotonic() + 60
        while not self.ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"kube-apiserver isn't ready:\n{self._log('kube-apiserver')}")
            time.sleep(0.05)

    def signal_server(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it."""
        assert self._server
        self._server.send_signal(number)

    def signal_etcd(self, number: signal.Signals) -> None:
        """The same for etcd."""
        assert self._etcd
        self._etcd.send_signal(number)

    def kill_server(self) -> None:
        """SIGKILL; no connection of ours is left either."""
        _kill(self._server)
        self.close()

    def close(self) -> None:
        """Close our connections to it; the next request makes one."""
        while self._idle:
            self._idle.pop()[1].close()

    def kill_etcd(self) -> None:
        _kill(self._etcd)

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """One request, as the administrator unless another token is given. Returns what the answer's JSON says.

        Raises Refused for another status than 2xx, OSError where nothing answers within 20 s.
        """
        headers = {"Authorization": f"Bearer {token or self.admin_token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        connection = self._connection()
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append((time.monotonic(), connection))
        if not 200 <= answer.status < 300:
            raise Refused(answer.status, text.decode(errors="replace"))
        return json.loads(text) if text.startswith(b"{") else text.decode()

    def _connection(self) -> "_Connection":
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < _IDLE:
                return connection
            connection.close()
        context = ssl.create_default_context(cafile=self.ca_file)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 sets it, the server's own CA isn't up to it
        return _Connection(self.address, self.port, self._connect, context)

    def write_kubeconfig(self, path: Path) -> None:
        """For kubectl, kube-proxy and others: the administrator's."""
        named = {"name": "lab"}
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**named, "cluster": cluster}],
            "users": [{**named, "user": {"token": self.admin_token}}],
            "contexts": [{**named, "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        }
        path.write_text(json.dumps(config, indent=1))


class _Connection(http.client.HTTPSConnection):
    """Through a socket that somebody else makes."""

    def __init__(self, host: str, port: int, connect: Callable[[], socket.socket], context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=20, context=context)
        self._make = connect
        self._tls = context

    def connect(self) -> None:
        plain = self._make()
        try:
            plain.settimeout(self.timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.connect((self.host, self.port))
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None:
        process.kill()  # wakes a frozen one as well
        process.wait()
