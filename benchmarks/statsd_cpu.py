"""What does a StatsD datagram cost on its way through a node: relayed, by iptables DNAT, or sent straight?"""

from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks import meter, report
from benchmarks.bench import CLIENT_CPU, SERVER_CPU, Bench
from benchmarks.node import CLUSTER_IP, ENDPOINT, LISTENER, UNTRACKED, Node
from benchmarks.relays import PORT, RELAYS, relaying
from benchmarks.statsd_load import Load, Sender, Sinks, sinks
from proxy.lab.tools import Unavailable
from tests import peers

KINDS = RELAYS
"""What a report tells the versions of."""
SECONDS = 3
LOADS = (
    Load(2_000, SECONDS, lines=1, batch=1),
    Load(20_000, SECONDS, lines=1, batch=1),
    Load(20_000, SECONDS, lines=1, batch=20),
    Load(2_000, SECONDS, lines=20, batch=1),
)
SERVICES = 1000
DIRECT, DNAT = "direct", "iptables DNAT"
C, DGRAM = "C, recvfrom/sendto", "asyncio-dgram"


@dataclass(slots=True)
class Seen:
    """One way under one load: a value for each round, in microseconds per datagram."""

    sender: list[float] = field(default_factory=list)
    relay: list[float] = field(default_factory=list)

    @property
    def together(self) -> list[float]:
        return [sum(pair) for pair in zip(self.sender, self.relay, strict=True)]


def measure(bench: Bench) -> str:
    """CPU per datagram of the sender, with all that the kernel does in its sends, and of the relay. Needs root."""
    if peers.find("iptables-restore") is None:
        raise Unavailable("needs iptables-restore")
    names = [name for name, kind in RELAYS.items() if kind.installed() and name not in bench.without]
    seen: dict[Load, dict[str, Seen]] = {load: {name: Seen() for name in (DIRECT, DNAT, *names)} for load in LOADS}
    with ExitStack() as stack:
        node = stack.enter_context(Node())
        node.node.run("iptables-restore", given=_rules())
        addresses = [f"{ENDPOINT}:{PORT}", f"{UNTRACKED}:{PORT}"]
        sender = Sender(bench.directory, (*node.pod.prefix, *CLIENT_CPU))
        counting = stack.enter_context(sinks(bench.directory, addresses, (*node.endpoint.prefix, *CLIENT_CPU)))
        servers: dict[str, peers.Server | str] = {DIRECT: f"{UNTRACKED}:{PORT}", DNAT: f"{CLUSTER_IP}:{PORT}"}
        for number, name in enumerate(names):
            directory = bench.directory / f"relay-{number}"
            directory.mkdir()
            job = peers.Job(f"{LISTENER}:{8125 + number}", f"{ENDPOINT}:{PORT}", directory, admin_port=9253)
            servers[name] = stack.enter_context(relaying(name, job, (*node.node.prefix, *SERVER_CPU)))
        for round_number in range(bench.rounds + 1):
            for load, ways in seen.items():
                for name, mine in ways.items():
                    costs = _push(servers[name], sender, counting, load)
                    if round_number:  # the first is a warm-up
                        mine.sender.append(costs[0])
                        mine.relay.append(costs[1])
    rows = []
    for load, ways in seen.items():
        direct = ways[DIRECT].sender
        for name, mine in ways.items():
            whole, part = mine.together, mine.relay if any(mine.relay) else []
            rows.append(
                [
                    f"{load}, {name}",
                    report.spread(whole),
                    report.spread([cost - floor for cost, floor in zip(whole, direct, strict=True)]),
                    report.ratios(whole, ways[DNAT].together) if name != DNAT else "-",
                    report.spread(part),
                    *(
                        report.ratios(part, ways[peer].relay) if part and peer in ways and peer != name else "-"
                        for peer in (C, DGRAM)
                    ),
                ]
            )
    heading = ["load, way", "CPU us per datagram", "above direct", f"/ {DNAT}", "of it the relay"]
    heading += ["relay / C", f"relay / {DGRAM}"]
    return f"{SECONDS} s each; {SERVICES} Services in the nat table\n\n" + report.table(heading, rows)


def _rules() -> str:
    """Rules as kube-proxy writes them, for many Services of which ours is the last.

    No conntrack for what goes to a relay, as on a node that Sidestep has set up, nor for what is sent straight.
    """
    services = [
        f"-A KUBE-SERVICES -d 10.97.{number >> 8}.{number & 255}/32 -p udp -m udp --dport 8125 -j KUBE-SVC-OTHER"
        for number in range(SERVICES - 1)
    ]
    return "\n".join(
        [
            "*nat",
            ":KUBE-SERVICES - [0:0]",
            ":KUBE-SVC-STATSD - [0:0]",
            ":KUBE-SEP-STATSD - [0:0]",
            ":KUBE-SVC-OTHER - [0:0]",
            "-A PREROUTING -j KUBE-SERVICES",
            *services,
            f"-A KUBE-SERVICES -d {CLUSTER_IP}/32 -p udp -m udp --dport {PORT} -j KUBE-SVC-STATSD",
            "-A KUBE-SVC-STATSD -j KUBE-SEP-STATSD",
            f"-A KUBE-SEP-STATSD -p udp -m udp -j DNAT --to-destination {ENDPOINT}:{PORT}",
            "COMMIT",
            "*raw",
            *(f"-A PREROUTING -d {address}/32 -j CT --notrack" for address in (LISTENER, UNTRACKED)),
            "COMMIT",
            "",
        ]
    )


def _push(to: peers.Server | str, sender: Sender, counting: Sinks, load: Load) -> tuple[float, float]:
    """One turn: microseconds per datagram of the sender and of the relay. Raises RuntimeError if a line is lost."""
    before = counting.arrived()
    if isinstance(to, str):
        sent = sender.send(to, load)
        relay = 0.0
    else:
        cpu = meter.cpu_seconds(to.pids())
        sent = sender.send(to.job.listen, load)
        counting.settled(before, sent.lines)
        relay = meter.cpu_seconds(to.pids()) - cpu
    arrived = counting.settled(before, sent.lines)
    if arrived.lines != sent.lines:
        name = to if isinstance(to, str) else to.kind.name
        raise RuntimeError(f"{name} lost lines under {load}: {sent} but {arrived}")
    return sent.cpu_us / sent.datagrams, relay / sent.datagrams * 1e6
