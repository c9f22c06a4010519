"""How long after a change of a Service's slice does the first datagram reach the new endpoint?"""

import json
import math
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.bench import CLIENT_CPU, Bench
from benchmarks.relays import PORT, SERVICE, admin, configuration, ready, slice_of
from benchmarks.statsd_load import Load, Sender
from proxy.lab.namespaces import Namespace, Run
from proxy.lab.tools import Unavailable
from tests import peers
from tests.testbed import control_plane
from tests.testbed.control_plane import PATHS, ControlPlane

KINDS = {"sidestep": peers.KINDS["sidestep"]}
"""What a report tells the versions of."""
ENDPOINTS = ("10.244.2.7", "10.244.2.8")
LISTEN = "127.0.0.1:8125"
CHANGES_A_ROUND = 20
LOAD = Load(5_000, 3600, lines=1, batch=1)
PAUSE = 0.1
"""Between changes, s; nothing may reach the old endpoint meanwhile."""

_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")


@dataclass(frozen=True, slots=True)
class Change:
    """One change: times in ms, and datagrams that still came to the old endpoint after one had come to the new."""

    answered: float
    """Until the API server had answered the request."""
    arrived: float
    """From sending the request until a datagram was at the new endpoint."""
    late: int


def measure(bench: Bench) -> str:
    """From a PUT to the real kube-apiserver to the kernel's time stamp at the new endpoint's socket. Needs root."""
    missing = [program for program in control_plane.PROGRAMS if peers.find(program) is None]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)} (make testbed builds kube-apiserver)")
    changes = []
    with ExitStack() as stack:
        stack.enter_context(_network())
        plane = stack.enter_context(control_plane.running(bench.directory / "control-plane"))
        sinks = {host: stack.enter_context(closing(_sink(host))) for host in ENDPOINTS}
        namespace, _, _ = SERVICE.partition("/")
        plane.ask("POST", PATHS["Namespace"], {"metadata": {"name": namespace}})
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        plane.ask("POST", slices, slice_of(ENDPOINTS[0]))
        stack.enter_context(_sidestep(plane, bench.directory / "sidestep"))
        command = Sender(bench.directory, CLIENT_CPU).command(LISTEN, LOAD)
        sending = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        stack.callback(sending.terminate)
        _first(sinks[ENDPOINTS[0]], 0)
        version = plane.ask("GET", "/version")["gitVersion"]
        for number in range(CHANGES_A_ROUND * bench.rounds + 1):
            old, new = ENDPOINTS[number % 2], ENDPOINTS[1 - number % 2]
            path = f"{slices}/{slice_of(new)['metadata']['name']}"
            one = _change(plane, path, new, sinks[old], sinks[new])
            if number:  # the first is a warm-up
                changes.append(one)
    rows = [
        ["the API server's answer", *_quantiles([change.answered for change in changes])],
        ["first datagram at the new endpoint", *_quantiles([change.arrived for change in changes])],
        ["between the two", *_quantiles([change.arrived - change.answered for change in changes])],
    ]
    late = sum(change.late for change in changes)
    return (
        f"kube-apiserver {version}; {LOAD.rate} datagrams a second through one relay\n"
        f"{len(changes)} changes from one endpoint to another\n"
        f"{late} datagrams reached the old endpoint after the first had reached the new one\n\n"
        + report.table(["ms after the request was sent", "p50", "p90", "p99", "most"], rows)
    )


def _quantiles(values: list[float]) -> list[str]:
    ordered = sorted(values)
    return [f"{ordered[max(0, math.ceil(len(ordered) * q) - 1)]:.1f}" for q in (0.5, 0.9, 0.99, 1)]


def _change(plane: ControlPlane, path: str, new: str, old_sink: socket.socket, new_sink: socket.socket) -> Change:
    """Make `new` the Service's only endpoint and watch both."""
    list(_drained(new_sink))
    began = time.time()
    plane.ask("PUT", path, slice_of(new))
    answered = time.time()
    arrived = _first(new_sink, began)
    deadline = time.monotonic() + PAUSE
    late = 0
    while time.monotonic() < deadline:
        late += sum(when > arrived for when in _drained(old_sink))
        list(_drained(new_sink))
        time.sleep(0.01)
    return Change((answered - began) * 1000, (arrived - began) * 1000, late)


def _first(sink: socket.socket, after: float) -> float:
    """When the first datagram later than `after` arrived, Unix time. Raises RuntimeError if none does within 10 s."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        select.select([sink], [], [], 0.1)
        for when in _drained(sink):
            if when > after:
                return when
    raise RuntimeError(f"nothing came to {sink.getsockname()[0]} within 10 s")


def _drained(sink: socket.socket) -> Iterator[float]:
    """The kernel's time stamps of all datagrams that wait."""
    while True:
        try:
            _, ancillary, _, _ = sink.recvmsg(1, socket.CMSG_SPACE(_TIMESPEC.size), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        for _, kind, stamp in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                yield seconds + nanoseconds / 1e9


def _sink(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    made.bind((host, PORT))
    return made


@contextmanager
def _sidestep(plane: ControlPlane, directory: Path) -> Iterator[peers.Server]:
    """A Sidestep that watches this API server as the DaemonSet would."""
    directory.mkdir()
    token = directory / "token"
    token.write_text(plane.account_token())

    def command(job: peers.Job) -> list[str]:
        access = {"server": plane.url, "token_file": str(token), "ca_file": str(plane.ca_file)}
        return [sys.executable, "-m", "proxy", "run", "--config", str(configuration(job, kubernetes=access))]

    server = peers.Server(
        peers.Kind("sidestep", None, command, ("version",)),
        peers.Job(LISTEN, f"{ENDPOINTS[0]}:{PORT}", directory, admin_port=9253),
    )
    server.start()
    try:
        server.wait_until_answering(lambda: ready(server))
        source = json.dumps(admin(server).status()["watch"])
        if '"api"' not in source:
            raise RuntimeError(f"it does not watch the API server: {source}")
        yield server
    finally:
        server.stop()


@contextmanager
def _network() -> Iterator[None]:
    """This thread, and what it starts, in a network namespace with the endpoints' addresses on its loopback link.

    kube-apiserver refuses loopback addresses in slices. Raises Unavailable without root.
    """
    with Run.start() as run:
        network = run.add(Namespace(run, "network"))
        network.ip(*(f"addr add {host}/32 dev lo" for host in ENDPOINTS))
        with network.entered():
            yield
