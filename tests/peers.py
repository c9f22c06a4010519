"""Finding, configuring and starting the servers that Sidestep is tested against and measured beside.

Every one gets the same job: answer on one address over UDP and TCP, cache, forward everything to one upstream. A
server that isn't installed is a skipped test with a reason, never a failure.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.lab.tools import SEARCHED, find

__all__ = ["SEARCHED", "find"]

ROOT = Path(__file__).resolve().parent.parent
CLUSTER_DOMAIN = "cluster.local"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip the marked test, saying why, unless all these programs are installed."""
    missing = [program for program in programs if find(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@dataclass(frozen=True, slots=True)
class Job:
    """What a server is to do: where it answers, whom it asks, how many answers it has room for."""

    listen: str
    upstream: str
    directory: Path
    entries: int = 9984
    """CoreDNS counts answers (9,984 is NodeLocal DNSCache's setting), dnsmasq records, unbound and Sidestep bytes."""
    admin_port: int = 0

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


def _sidestep(job: Job) -> list[str]:
    config = job.directory / "sidestep.yaml"
    config.write_text(
        f"""\
dns:
  listen: ["{job.listen}"]
  zones:
    - suffix: .
      upstreams: ["{job.upstream}"]
  cache: {{size: {max(32, job.entries // 1024)}MiB}}
admin: {{listen: "127.0.0.1:{job.admin_port}", socket: {job.directory / "admin.sock"}}}
"""
    )
    return [sys.executable, "-m", "proxy", "run", "--config", str(config)]


def _unbound(job: Job) -> list[str]:
    config = job.directory / "unbound.conf"
    upstream = job.upstream.replace(":", "@")
    megabytes = max(4, job.entries // 1024)
    config.write_text(
        f"""\
server:
  interface: {job.host}
  port: {job.port}
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: "{job.directory}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  do-not-query-localhost: no
  module-config: "iterator"
  msg-cache-size: {megabytes}m
  rrset-cache-size: {2 * megabytes}m
  unblock-lan-zones: yes
  insecure-lan-zones: yes
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: {upstream}
"""
    )
    return [find("unbound") or "unbound", "-d", "-p", "-c", str(config)]


def _dnsmasq(job: Job) -> list[str]:
    return [
        find("dnsmasq") or "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--log-facility=-",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        f"--listen-address={job.host}",
        f"--port={job.port}",
        f"--server={job.upstream.replace(':', '#')}",
        f"--cache-size={job.entries}",  # records, and allocated at the start
        f"--user={'root' if os.geteuid() == 0 else ''}",
    ]


def _coredns(job: Job) -> list[str]:
    """NodeLocal DNSCache's Corefile with this job's addresses; node-cache itself is CoreDNS and set-up."""
    corefile = job.directory / "Corefile"
    success = max(job.entries, 9984)
    corefile.write_text(
        f"""\
{CLUSTER_DOMAIN}:{job.port} {{
    errors
    cache {{
        success {success} 30
        denial {success} 5
    }}
    reload
    loop
    bind {job.host}
    forward . {job.upstream} {{
        force_tcp
    }}
    prometheus 127.0.0.1:{job.admin_port}
}}
.:{job.port} {{
    errors
    cache {{
        success {success} 30
        denial {success} 30
    }}
    reload
    loop
    bind {job.host}
    forward . {job.upstream} {{
        prefer_udp
    }}
    prometheus 127.0.0.1:{job.admin_port}
}}
"""
    )
    return [find("coredns") or "coredns", "-conf", str(corefile)]


@dataclass(frozen=True, slots=True)
class Kind:
    """A server program: how it is called here, how it is started, how it tells its version."""

    name: str
    program: str | None
    command: Callable[[Job], list[str]]
    version_arguments: tuple[str, ...]

    def installed(self) -> bool:
        return self.program is None or find(self.program) is not None

    def version(self) -> str:
        """The first line that it prints about itself."""
        program = find(self.program) if self.program else None
        command = [program] if program else [sys.executable, "-m", "proxy"]
        told = subprocess.run([*command, *self.version_arguments], capture_output=True, text=True, cwd=ROOT)
        return (told.stdout or told.stderr).strip().partition("\n")[0]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("sidestep", None, _sidestep, ("version",)),
        Kind("unbound", "unbound", _unbound, ("-V",)),
        Kind("dnsmasq", "dnsmasq", _dnsmasq, ("--version",)),
        Kind("coredns", "coredns", _coredns, ("-version",)),
    )
}


@dataclass(slots=True)
class Server:
    """A running server. `restart` starts it again with the same job after it was killed."""

    kind: Kind
    job: Job
    prefix: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def log(self) -> Path:
        return self.job.directory / "log"

    def start(self) -> None:
        self.job.directory.mkdir(parents=True, exist_ok=True)
        # A server must not outlive a test run that was killed. (dnsmasq loses this on changing its user.)
        guard = ("setpriv", "--pdeathsig", "KILL", "--") if find("setpriv") else ()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *guard, *self.kind.command(self.job)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def stop(self, sig: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def wait_until_answering(self, answering: Callable[[], bool]) -> None:
        """Poll `answering` until it says yes. Raises RuntimeError with its log when it dies or takes 15 s."""
        deadline = time.monotonic() + 15
        while not answering():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind.name} doesn't answer on {self.job.listen}:\n{self.log.read_text()}")
            time.sleep(0.05)

    def pids(self) -> list[int]:
        """The server's processes: the one started here and all its descendants."""
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(stat.parent.name))
        found = [self.process.pid]
        for pid in found:
            found.extend(parents.get(pid, []))
        return found


@contextmanager
def running(
    name: str, job: Job, *, prefix: Sequence[str] = (), answering: Callable[[], bool] | None = None
) -> Iterator[Server]:
    """Start the server of this name and stop it at the end; `prefix` is a command that runs it (nsenter, taskset).

    `answering` says whether it answers yet; by default by asking it for `localhost` from this process.
    """
    server = Server(KINDS[name], job, tuple(prefix))
    server.start()
    try:
        server.wait_until_answering(answering or (lambda: answers(job.listen)))
        yield server
    finally:
        server.stop()


_LOCALHOST_A = bytes.fromhex("51de01000001000000000000096c6f63616c686f73740000010001")


def answers(address: str) -> bool:
    """Whether a DNS server there answers a question for localhost, whatever it says, within 200 ms."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        try:
            asking.connect((host, int(port)))
            asking.send(_LOCALHOST_A)
            return asking.recv(512)[:2] == _LOCALHOST_A[:2]
        except OSError:
            return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free there for UDP and TCP alike."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind((host, 0))
            try:
                datagram.bind(stream.getsockname())
            except OSError:
                continue
            return int(stream.getsockname()[1])
