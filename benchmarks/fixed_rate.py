"""What do 2,000 questions a second cost when all are cached, and how long does each wait?"""

from dataclasses import dataclass, field

from benchmarks import meter, report
from benchmarks.bench import Bench
from benchmarks.load import Result
from tests import peers

NAMES = 64
QPS = 2000
SECONDS = 5


@dataclass(slots=True)
class Seen:
    """One server under one placement: a value for each round."""

    cpu_percent: list[float] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


def measure(bench: Bench) -> str:
    """Per cent of one CPU, and round-trip times from when each question was due, servers taking turns."""
    seen = {placement: {name: Seen() for name in bench.installed} for placement in ("pinned", "free")}
    with bench.upstream() as upstream:
        for placement, by_server in seen.items():
            with bench.servers(upstream, pinned=placement == "pinned") as servers:
                for round_number in range(bench.rounds + 1):
                    for name, server in servers.items():
                        # The first round is a warm-up.
                        one = _ask(bench, server, placement == "pinned", SECONDS if round_number else 1)
                        if round_number:
                            by_server[name].cpu_percent += one.cpu_percent
                            by_server[name].results += one.results
    rows = []
    for placement, by_server in seen.items():
        for name, mine in by_server.items():
            compared = [
                report.ratios(mine.cpu_percent, by_server[peer].cpu_percent)
                if peer in by_server and peer != name
                else "-"
                for peer in ("unbound", "coredns")
            ]
            columns = zip(*((r.p50_us, r.p99_us, r.p999_us, r.max_us) for r in mine.results), strict=True)
            times = [report.spread(column, 0) for column in columns]
            lost = str(sum(result.lost for result in mine.results))
            rows.append([f"{placement}, {name}", report.spread(mine.cpu_percent), *compared, *times, lost])
    heading = ["server", "CPU %", "/ unbound", "/ coredns", "p50 us", "p99 us", "p99.9 us", "max us", "lost"]
    return f"{QPS} questions a second for {SECONDS} s, 128 source ports\n\n" + report.table(heading, rows)


def _ask(bench: Bench, server: peers.Server, pinned: bool, seconds: int) -> Seen:
    """One turn of one server, with names of its own that it has cached just before."""
    names = bench.names(NAMES)
    bench.client.closed(server.job.listen, names, 1, NAMES).checked(server.kind.name)
    client = bench.client if pinned else bench.free_client
    before = meter.cpu_seconds(server.pids())
    result = client.rate(server.job.listen, names, QPS, QPS * seconds, timeout=2)
    percent = (meter.cpu_seconds(server.pids()) - before) / seconds * 100
    if result.bad:
        raise RuntimeError(f"{server.kind.name} gave wrong answers: {result}")
    return Seen([percent], [result])
