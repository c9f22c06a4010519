"""How long does a look for stale flows take in a full conntrack table, and how much memory?"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from benchmarks import report
from benchmarks.bench import SERVER_CPU, Bench
from proxy.core.flows import ServiceAddress, ServiceAddresses
from proxy.lab.tools import Unavailable
from proxy.node import conntrack
from tests import peers
from tests.node import entries

ENTRIES = 250_000
STALE = 100
STATSD, DEAD, DNS = "10.96.0.20:8125", "10.244.9.9:8125", "10.96.0.10:53"
LOOKS = {
    "one": "a look: one Service's address",
    "fifty": "a look: 50 addresses",
    "range": "a look: the whole cluster's range",
    "all": "a look: every entry is stale",
}
DELETION = "their deletion"
COMMANDS = {
    "command": "sidestep conntrack -o json: one Service",
    "command all": "sidestep conntrack -o json: every entry is stale",
    "conntrack": "for comparison, conntrack -L -p udp",
}
KINDS: dict[str, peers.Kind] = {}
"""No server of others is beside it."""

_SIDESTEP = """\
import atexit, sys
from benchmarks.conntrack_table import most_kib
atexit.register(lambda: print(most_kib(), file=sys.stderr))
from proxy.cli import main
main()
"""
_ENDPOINTS = """\
kind: EndpointSlice
metadata: {namespace: a, labels: {kubernetes.io/service-name: b}}
addressType: IPv4
ports: [{name: c, protocol: UDP, port: 8125}]
endpoints: [{addresses: [10.244.9.8]}]
"""


def measure(bench: Bench) -> str:
    """Entries made over netlink in a namespace: 250,000 of DNS from 5,000 clients, 100 stale ones. Needs root."""
    if os.geteuid() != 0 or peers.find("unshare") is None:
        raise Unavailable("needs root and unshare for a network namespace")
    most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    if most < ENTRIES + STALE:
        raise Unavailable(f"net.netfilter.nf_conntrack_max is {most}: {ENTRIES + STALE} entries don't fit")
    (bench.directory / "endpoints.yaml").write_text(_ENDPOINTS)
    for name, listen in (("command", STATSD), ("command all", DNS)):
        (bench.directory / f"{name}.yaml").write_text(
            f"udp: [{{name: b, listen: ['{listen}'], service: a/b, port: c}}]\n"
            f"endpoints_file: {bench.directory}/endpoints.yaml\n"
        )
    rounds = [_round(bench.directory) for _ in range(bench.rounds)]
    labels = {**LOOKS, "deletion": DELETION, **COMMANDS}
    rows = [
        [
            about,
            f"{rounds[0][name]['found']:,.0f}" if "found" in rounds[0][name] else "",
            *(report.spread([one[name][which] for one in rounds], 2) for which in ("seconds", "cpu")),
            report.spread([one[name]["mib"] for one in rounds if "mib" in one[name]], 0),
        ]
        for name, about in labels.items()
    ]
    return (
        f"{ENTRIES + STALE:,} UDP entries, each look and command in a process of its own;\n"
        "MiB is the most that it had at any time, with the interpreter and its imports (this file's, in a look)\n\n"
        + report.table(["what", "found", "s", "CPU s", "MiB"], rows)
    )


def _round(directory: Path) -> dict[str, dict[str, float]]:
    """Everything once, in a fresh namespace that ends with it."""
    command = ["unshare", "--net", sys.executable, "-m", "benchmarks.conntrack_table", "round", str(directory)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=peers.ROOT, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    return dict(json.loads(ran.stdout))


def _round_inside(directory: str) -> dict[str, dict[str, float]]:
    entries.create((client, DNS, "10.244.1.2:53") for client in entries.clients(ENTRIES))
    entries.create((f"10.9.0.1:{port}", STATSD, DEAD) for port in range(2000, 2000 + STALE))
    found: dict[str, dict[str, float]] = {}
    sidestep = [sys.executable, "-c", _SIDESTEP, "conntrack", "-o", "json", "--config"]
    for name in ("command", "command all"):
        found[name] = _command([*sidestep, f"{directory}/{name}.yaml"], 1)
    found["conntrack"] = _command([peers.find("conntrack") or "conntrack", "-L", "-p", "udp"], 0)
    for name in LOOKS:
        look = [*SERVER_CPU, sys.executable, "-m", "benchmarks.conntrack_table", "look", name]
        told = json.loads(subprocess.run(look, capture_output=True, text=True, check=True).stdout)
        found[name] = told["look"]
        if "deletion" in told:
            found["deletion"] = told["deletion"]
    return found


def _command(words: Sequence[str], expected: int) -> dict[str, float]:
    """Time and memory of a command, its output thrown away. The last line on its stderr is its memory in KiB."""
    began = time.monotonic()
    with subprocess.Popen([*SERVER_CPU, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stderr
        said = ran.stderr.read()
        _, status, usage = os.wait4(ran.pid, 0)
        ran.returncode = os.waitstatus_to_exitcode(status)
    if ran.returncode != expected:
        raise RuntimeError(f"{' '.join(words)}: exit status {ran.returncode}: {said}")
    spent = {"seconds": time.monotonic() - began, "cpu": usage.ru_utime + usage.ru_stime}
    return spent | ({"mib": int(said.split()[-1]) / 1024} if "-c" in words else {})


def _services(name: str) -> ServiceAddresses:
    dns = ServiceAddress(DNS, "kube-system/kube-dns", frozenset({"10.244.1.2:53"}))
    statsd = ServiceAddress(STATSD, "monitoring/statsd", frozenset({"10.244.9.8:8125"}))
    if name == "one":
        return ServiceAddresses([statsd])
    if name == "all":
        return ServiceAddresses([statsd, ServiceAddress(DNS, "kube-system/kube-dns", frozenset())])
    others = [ServiceAddress(f"10.96.1.{last}:53", f"a/{last}", frozenset()) for last in range(1, 49)]
    return ServiceAddresses([dns, statsd, *others], [ip_network("10.96.0.0/16")] if name == "range" else [])


def _look(name: str) -> dict[str, dict[str, float]]:
    known = _services(name)
    began = time.monotonic(), time.process_time()
    dumped = conntrack.dump(known.addresses, known.concerns, known.judge)
    told = {"look": {"found": len(dumped.found), **_since(*began)}}
    if name == "all":
        began = time.monotonic(), time.process_time()
        deleted = sum(conntrack.delete(one.flow for one in dumped.found))
        told["deletion"] = {"found": deleted, **_since(*began)}
    return told


def _since(began: float, cpu: float) -> dict[str, float]:
    return {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu, "mib": most_kib() / 1024}


def most_kib() -> int:
    """The most resident memory that this process had; ru_maxrss counts whoever started it as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["round", "look"])
    parser.add_argument("which")
    given = parser.parse_args()
    print(json.dumps((_round_inside if given.what == "round" else _look)(given.which)))
