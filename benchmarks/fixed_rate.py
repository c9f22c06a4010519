"""What do 2,000 questions a second cost when all are cached, and how long does each wait?"""

from collections import Counter

from benchmarks import meter, report
from benchmarks.bench import Bench

NAMES = 64
QPS = 2000
SECONDS = 5


def measure(bench: Bench) -> str:
    """Per cent of one CPU, and round-trip times from when each question was due, servers taking turns."""
    names = bench.names(NAMES)
    seen: dict[str, list[tuple[float, float, float, float, float]]] = {}
    lost: Counter[str] = Counter()
    with bench.upstream() as upstream, bench.servers(upstream) as servers:
        for round_number in range(bench.rounds + 1):
            for name, server in servers.items():
                bench.client.closed(server.job.listen, names, 1, NAMES).checked(server.kind.name)
                cpu_before = meter.cpu_seconds(server.pids())
                count = QPS * (SECONDS if round_number else 1)
                result = bench.client.rate(server.job.listen, names, QPS, count, timeout=2)
                percent = (meter.cpu_seconds(server.pids()) - cpu_before) / (count / QPS) * 100
                if result.bad:
                    raise RuntimeError(f"{name} gave wrong answers: {result}")
                if round_number:  # the first is a warm-up
                    lost[name] += result.lost
                    seen.setdefault(name, []).append(
                        (percent, result.p50_us, result.p99_us, result.p999_us, result.max_us)
                    )
    rows = []
    for name, rounds in seen.items():
        columns = [[values[column] for values in rounds] for column in range(5)]
        used = columns[0]
        row = [name, report.spread(used)]
        row += [
            report.ratios(used, [values[0] for values in seen[peer]]) if peer in seen and peer != name else "-"
            for peer in ("unbound", "coredns")
        ]
        rows.append([*row, *(report.spread(values, 0) for values in columns[1:]), str(lost[name])])
    heading = ["server", "CPU %", "/ unbound", "/ coredns", "p50 us", "p99 us", "p99.9 us", "max us", "lost"]
    return f"{QPS} questions a second for {SECONDS} s, 128 source ports\n\n" + report.table(heading, rows)
