"""What does one cached answer cost, in CPU of all of a server's processes, with 1, 4 and 32 questions in flight?"""

from dataclasses import dataclass, field

from benchmarks import meter, report
from benchmarks.bench import Bench, Upstream
from tests import peers

NAMES = 64
QUESTIONS = {1: 10_000, 4: 20_000, 32: 40_000}


@dataclass(frozen=True, slots=True)
class Load:
    """One way of asking. dnsperf only pinned: left free it stalls on itself with one question in flight."""

    client: str
    pinned: bool
    inflight: int

    def __str__(self) -> str:
        return f"{self.client}, {'pinned' if self.pinned else 'free'}, {self.inflight} in flight"


@dataclass(slots=True)
class Seen:
    """One server under one load: a value for each round."""

    cost_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)


def measure(bench: Bench) -> str:
    """Microseconds per answer, servers taking turns within each round."""
    clients = [("batching", True), ("batching", False), *([("dnsperf", True)] if peers.find("dnsperf") else [])]
    seen: dict[Load, dict[str, Seen]] = {
        Load(client, pinned, inflight): {name: Seen() for name in bench.installed}
        for client, pinned in clients
        for inflight in QUESTIONS
    }
    with bench.upstream() as upstream:
        for placement in (True, False):
            loads = [load for load in seen if load.pinned == placement]
            with bench.servers(upstream, pinned=placement) as servers:
                for round_number in range(bench.rounds + 1):
                    for name, server in servers.items():
                        for load in loads:
                            one = _ask(bench, upstream, server, load)
                            if round_number:  # the first is a warm-up
                                all_rounds = seen[load][name]
                                all_rounds.cost_us += one.cost_us
                                all_rounds.p50_us += one.p50_us
                                all_rounds.p99_us += one.p99_us
    rows = []
    for load, by_server in seen.items():
        for name, mine in by_server.items():
            compared = [
                report.ratios(mine.cost_us, by_server[peer].cost_us) if peer in by_server and peer != name else "-"
                for peer in ("unbound", "coredns")
            ]
            times = [report.spread(mine.p50_us), report.spread(mine.p99_us)]
            rows.append([str(load), name, report.spread(mine.cost_us), *compared, *times])
    heading = ["load", "server", "CPU us per answer", "/ unbound", "/ coredns", "RTT p50 us", "RTT p99 us"]
    return report.table(heading, rows)


def _ask(bench: Bench, upstream: Upstream, server: peers.Server, load: Load) -> Seen:
    """One turn of one server, with names of its own: NodeLocal's Corefile keeps them for no more than 30 s."""
    names = bench.names(NAMES)
    bench.client.closed(server.job.listen, names, 1, NAMES).checked(server.kind.name)
    upstream.reset()
    before = meter.cpu_seconds(server.pids())
    if load.client == "dnsperf":
        answers = bench.client.dnsperf(server.job.listen, names, load.inflight, QUESTIONS[load.inflight] // NAMES)
        times = Seen()
    else:
        client = bench.client if load.pinned else bench.free_client
        result = client.closed(server.job.listen, names, load.inflight, QUESTIONS[load.inflight])
        answers = result.checked(server.kind.name).answered
        times = Seen(p50_us=[result.p50_us], p99_us=[result.p99_us])
    times.cost_us.append((meter.cpu_seconds(server.pids()) - before) / answers * 1e6)
    if upstream.total() > answers / 1000:
        raise RuntimeError(f"{server.kind.name} asked upstream {upstream.total()} times for names that it had")
    return times
