"""Connection tracking of one node: its flows, its counters, and forgetting flows."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.lab.namespaces import Namespace

_DIRECTION = re.compile(r"src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+))?")


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry: who sent to whom (`address:port`), and who is to answer, which is where its datagrams go."""

    source: str
    destination: str
    target: str


class Conntrack:
    """The one of this node."""

    def __init__(self, node: Namespace) -> None:
        self._node = node

    def statistics(self) -> dict[str, int]:
        """Counters over all CPUs: `insert_failed`, `clash_resolve`, `drop` and what else this kernel counts."""
        totals: dict[str, int] = {}
        for name, count in re.findall(r"(\w+)=(\d+)", self._node.run("conntrack", "-S")):
            totals[name] = totals.get(name, 0) + int(count)
        totals.pop("cpu", None)
        return totals

    def count(self) -> int:
        """How many entries there are, of all protocols."""
        return int(self._node.run("conntrack", "-C"))

    def flows(self, destination: str | None = None) -> list[Flow]:
        """UDP flows; those to this `address:port` if one is named."""
        found = parse(self._node.run("conntrack", "-L", "-p", "udp"))
        return [flow for flow in found if destination in (None, flow.destination)]

    def delete(self, flows: Iterable[Flow]) -> None:
        """Forget these; one that is gone already is no matter."""
        for flow in flows:
            (source, source_port), (destination, port) = (
                end.rsplit(":", 1) for end in (flow.source, flow.destination)
            )
            words = ("-p", "udp", "-s", source, "--sport", source_port, "-d", destination, "--dport", port)
            self._node.run("sh", "-c", 'conntrack "$@" || true', "sh", "-D", *words)

    def fill(self) -> int:
        """Make it full of established flows. Returns how many it can have at most."""
        most = int(self._node.run("sysctl", "-n", "net.netfilter.nf_conntrack_max"))
        self._node.run(sys.executable, "-m", "proxy.lab.full_table", str(most), limit=120)
        return most

    def forget_udp(self) -> None:
        """Forget every UDP flow; connections over TCP, such as those to the API server, go on."""
        self._node.run("sh", "-c", "conntrack -D -p udp || true")  # it fails where there is none

    def flush(self) -> None:
        """Forget everything."""
        self._node.run("conntrack", "-F")


def parse(listed: str) -> list[Flow]:
    """What `conntrack -L` printed, without flows that have no ports."""
    flows = []
    for line in listed.splitlines():
        ends = _DIRECTION.findall(line)
        if len(ends) != 2 or not ends[0][2]:
            continue
        (source, destination, sport, dport), (target, _, target_port, _) = ends
        flows.append(Flow(f"{source}:{sport}", f"{destination}:{dport}", f"{target}:{target_port}"))
    return flows
