"""The relays side by side: Sidestep, two in C that do the least, and one that is written with asyncio-dgram."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load import compiled
from proxy.control.client import AdminClient
from proxy.control.errors import CannotRun
from tests import peers

SERVICE = "bench/statsd"
PORT = 9125
"""Of all endpoints."""
FOLD = "64MiB"
"""Where there is no endpoint: room for the timers of all rounds, each of which is kept."""


def slice_of(*hosts: str) -> dict[str, Any]:
    """An EndpointSlice of the Service with these endpoints, ready."""
    namespace, _, name = SERVICE.partition("/")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": f"{name}-1",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "statsd", "protocol": "UDP", "port": PORT}],
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}} for host in hosts],
    }


def configuration(job: peers.Job, **sections: Any) -> Path:
    """A file that makes Sidestep one relay worker in statsd mode, and nothing else; `sections` are added."""
    relay: dict[str, Any] = {
        "name": "statsd",
        "listen": [job.listen],
        "service": SERVICE,
        "port": "statsd",
        "mode": "statsd",
    }
    if not job.upstream:
        relay["fold"] = {"size": FOLD}
    admin = {"listen": f"127.0.0.1:{job.admin_port}", "socket": str(job.directory / "admin.sock")}
    path = job.directory / "sidestep.yaml"
    path.write_text(json.dumps({"udp": [relay], "admin": admin, **sections}, indent=1))  # YAML as well
    return path


def _sidestep(job: peers.Job) -> list[str]:
    endpoints = job.directory / "endpoints.yaml"
    hosts = [address.rpartition(":")[0] for address in job.upstream.split(",") if address]
    endpoints.write_text(json.dumps(slice_of(*hosts)))
    path = configuration(job, endpoints_file=str(endpoints))
    return [sys.executable, "-m", "proxy", "run", "--config", str(path)]


def _c(mode: str, job: peers.Job) -> list[str]:
    host, _, port = _first(job).rpartition(":")
    return [str(compiled("relay", job.directory)), mode, job.host, str(job.port), host, port]


def _first(job: peers.Job) -> str:
    return job.upstream.partition(",")[0]


def _dgram(job: peers.Job) -> list[str]:
    return [sys.executable, "-m", "benchmarks.dgram_relay", job.listen, _first(job)]


_DGRAM_VERSION = "from importlib import metadata; print('asyncio-dgram', metadata.version('asyncio-dgram'))"

RELAYS = {
    kind.name: kind
    for kind in (
        peers.Kind("sidestep", None, _sidestep, ("version",)),
        peers.Kind("C, recvfrom/sendto", "gcc", lambda job: _c("plain", job), ("--version",)),
        peers.Kind("C, recvmmsg/sendmmsg", "gcc", lambda job: _c("mmsg", job), ("--version",)),
        peers.Kind("asyncio-dgram", sys.executable, _dgram, ("-c", _DGRAM_VERSION)),
    )
}


def admin(server: peers.Server) -> AdminClient:
    """Whom to ask about a Sidestep, whatever namespace it is in."""
    return AdminClient(server.job.directory / "admin.sock")


def ledger(server: peers.Server) -> dict[str, Any]:
    """A Sidestep's ledger of its one relay."""
    return dict(admin(server).status()["udp"][0]["ledger"])


def ready(server: peers.Server) -> bool:
    """Whether a Sidestep's relay worker reads and has endpoints to send to, where it is to have some."""
    try:
        endpoints = admin(server).status()["udp"][0]["endpoints"]
        return bool(endpoints) == bool(server.job.upstream) and not admin(server).readiness()
    except CannotRun:
        return False


def dropped_by_kernel(server: peers.Server) -> int:
    """What was lost at its listening socket because the socket's buffer was full."""
    sockets = [line for line in _sockets(server) if line[1] == _in_hex(server.job)]
    if not sockets:
        raise RuntimeError(f"{server.kind.name} has no socket on {server.job.listen}")
    return sum(int(line[-1]) for line in sockets)


def _in_hex(job: peers.Job) -> str:
    """`127.0.0.1:8125` as /proc/net/udp writes it."""
    return bytes(map(int, reversed(job.host.split(".")))).hex().upper() + f":{job.port:04X}"


def _sockets(server: peers.Server) -> list[list[str]]:
    table = Path(f"/proc/{server.process.pid}/net/udp")
    return [line.split() for line in table.read_text().splitlines()[1:]]


@contextmanager
def relaying(name: str, job: peers.Job, prefix: Sequence[str] = ()) -> Iterator[peers.Server]:
    """The relay of this name, from `job.listen` to `job.upstream`; Sidestep's may be several with commas, or none."""
    server = peers.Server(RELAYS[name], job, tuple(prefix))
    server.start()

    def listening() -> bool:
        if name == "sidestep":
            return ready(server)
        return any(line[1] == _in_hex(job) for line in _sockets(server))

    try:
        server.wait_until_answering(listening)
        yield server
    finally:
        server.stop()
