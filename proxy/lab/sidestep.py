"""Sidestep on a node of the lab: the product as a user runs it, as processes with a configuration file."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from proxy.lab import tools
from proxy.lab.nodes import LISTENER, Node
from proxy.lab.services import Service

DNS, STATSD = f"{LISTENER}:53", f"{LISTENER}:8125"
"""Where it listens."""
Part = Literal["all", "control", "dns", "relay"]
RELEASE = ("-m", "proxy")
OTHER_FORMAT = ("-c", "from proxy.control import handover; handover.FORMAT += 1; from proxy.cli import main; main()")
"""A release that hands over in another format than ours."""


def configuration(
    statsd: Service | None, dns: Service | None, source: Mapping[str, Any], directory: Path
) -> dict[str, Any]:
    """What its file says: relay `statsd`, resolve everything through `dns`; `source` is where endpoints come from."""
    sections: dict[str, Any] = {
        **source,
        "admin": {"listen": "127.0.0.1:9253", "socket": str(directory / "admin.sock")},
    }
    if statsd is not None:
        relay = {"name": "statsd", "listen": [STATSD], "service": statsd.name, "port": statsd.port_name}
        sections["udp"] = [{**relay, "mode": "statsd"}]
    if dns is not None:
        upstreams = {"service": dns.name, "port": dns.port_name}
        sections["dns"] = {"listen": [DNS], "zones": [{"suffix": ".", "upstreams": upstreams}]}
    return sections


class Sidestep:
    """One `sidestep run` on a node; as a context manager it is started, ready, and stopped at the end.

    `before` are words before its command, `environment` has variables of its own.
    """

    def __init__(
        self,
        node: Node,
        directory: Path,
        sections: Mapping[str, Any],
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.node = node
        self._before = tuple(before)
        self._environment = {**os.environ, **(environment or {})}
        self.directory = directory
        self.config = directory / "sidestep.yaml"
        self.socket = directory / "admin.sock"
        directory.mkdir()
        self.write(sections)
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, sections: Mapping[str, Any]) -> None:
        """Another configuration; a running one takes it over within a second."""
        text = json.dumps(sections, indent=1)  # YAML as well
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, release: Sequence[str] = RELEASE) -> None:
        """Start it and come back at once; `release` is what Python is to run."""
        command = (sys.executable, *release, "run", "--config", str(self.config), "--log-format", "text")
        self._process = self.node.spawn(*self._before, *command, log=self.directory.name, env=self._environment)

    def command(self, *words: str) -> str:
        """What a `sidestep` command with its configuration prints, on the node. Raises RuntimeError if it fails."""
        return self.node.run(sys.executable, *RELEASE, *words, "--config", str(self.config))

    def restore(self) -> None:
        """What it put on the node with `node:` is gone, and the node as others have it, whatever is there now."""
        with contextlib.suppress(RuntimeError):
            self.command("cleanup")
        with contextlib.suppress(RuntimeError):
            self.node.ip(f"addr add {LISTENER}/32 dev lo")

    @property
    def running(self) -> bool:
        """Whether its control process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def upgrade(self, release: Sequence[str] = RELEASE) -> None:
        """A second one is started, takes over from the first, and is the one from now on: a new release."""
        old = self._process
        if old is None:
            raise RuntimeError("Sidestep is not running")
        self.start(release)
        try:
            old.wait(30)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the old Sidestep did not let go\n{self.log}") from None
        self.wait_ready()

    def stop(self) -> None:
        """End it as `systemctl stop` would: SIGTERM, and SIGKILL for what is left after 10 s."""
        if self._process is not None and self.running:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def signal(self, number: int, part: Part = "all") -> None:
        """SIGKILL, SIGSTOP or SIGCONT to all of its processes, to control, or to the workers of one role."""
        for pid in self.pids(part):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pids(self, part: Part = "all") -> list[int]:
        """Its processes. Of the workers of one role it has to be asked, which takes a control that answers."""
        if self._process is None:
            return []
        if part == "control":
            return [self._process.pid]
        if part == "all":
            return [pid for pid in self.node.pids() if _session(pid) == self._process.pid]
        return [worker["pid"] for worker in self.status()["workers"] if worker["role"] == part and worker["pid"]]

    def status(self) -> dict[str, Any]:
        """Its /status.json. Raises OSError when it does not answer within 5 s."""
        found: dict[str, Any] = self._ask("/status.json")[1]
        return found

    def ready(self) -> bool:
        """Whether it says so itself. Raises RuntimeError when it ended."""
        if not self.running:
            raise RuntimeError("Sidestep is not running")
        try:
            return self._ask("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self, limit: float = 30) -> float:
        """Until it is. Returns how long that took; raises RuntimeError with its log after `limit` seconds."""
        return self._until(self.ready, "ready", limit)

    def endpoints(self, service: Service) -> frozenset[str]:
        """Endpoints (`address:port`) that it uses for this Service now. Raises OSError when it does not answer."""
        status = self.status()
        for relay in status["udp"]:
            if relay["service"] == service.name:
                return frozenset(one["address"] for one in relay["endpoints"] if one["state"] != "terminating")
        return frozenset(one["address"] for one in status["dns"]["upstreams"]) - {service.address}

    def applied(self, service: Service, addresses: Iterable[str]) -> bool:
        """Whether these addresses, and no others, are what it uses for this Service."""
        try:
            return self.endpoints(service) == service.targets(addresses)
        except OSError:
            return False

    def wait_applied(self, service: Service, addresses: Iterable[str], limit: float = 30) -> float:
        """Until they are. Returns how long that took; raises RuntimeError with its log after `limit` seconds."""
        wanted = tuple(addresses)
        return self._until(
            lambda: self.applied(service, wanted), f"{service.name} at {', '.join(wanted) or 'none'}", limit
        )

    def _until(self, holds: Callable[[], bool], what: str, limit: float) -> float:
        try:
            return tools.until(holds, f"Sidestep {what}", limit, pause=0.01)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.log}") from None

    @property
    def log(self) -> str:
        """The end of what it logged."""
        return self.node.log(self.directory.name)

    def _ask(self, path: str) -> tuple[int, Any]:
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"no sensible answer on {self.socket}: {error}") from error
        finally:
            connection.close()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


class _UnixConnection(http.client.HTTPConnection):
    """Paths are the same in every network namespace."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
