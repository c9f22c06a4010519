"""What does one cached answer cost, in CPU of all of a server's processes, with 1, 4 and 32 questions in flight?"""

from benchmarks import meter, report
from benchmarks.bench import Bench
from tests import peers

NAMES = 64
QUESTIONS = {1: 10_000, 4: 20_000, 32: 40_000}


def measure(bench: Bench) -> str:
    """Microseconds per answer, from a batching client and from dnsperf, servers taking turns within each round."""
    names = bench.names(NAMES)
    clients = ["batching client", *(["dnsperf"] if peers.find("dnsperf") else [])]
    costs: dict[tuple[str, int, str], list[float]] = {}
    times: dict[tuple[int, str], list[tuple[float, float]]] = {}
    with bench.upstream() as upstream, bench.servers(upstream) as servers:
        for round_number in range(bench.rounds + 1):
            for name, server in servers.items():
                for inflight, questions in QUESTIONS.items():
                    for client in clients:
                        # NodeLocal's Corefile keeps the cluster's names for 30 s: begin with all of them cached.
                        bench.client.closed(server.job.listen, names, 1, NAMES).checked(name)
                        upstream.reset()
                        before = meter.cpu_seconds(server.pids())
                        if client == "dnsperf":
                            answers = bench.client.dnsperf(server.job.listen, names, inflight, questions // NAMES)
                        else:
                            seen = bench.client.closed(server.job.listen, names, inflight, questions).checked(
                                server.kind.name
                            )
                            answers = seen.answered
                            if round_number:
                                times.setdefault((inflight, name), []).append((seen.p50_us, seen.p99_us))
                        cost = (meter.cpu_seconds(server.pids()) - before) / answers * 1e6
                        if round_number:  # the first is a warm-up
                            costs.setdefault((client, inflight, name), []).append(cost)
                        misses = upstream.total()
                        if misses > NAMES:
                            raise RuntimeError(f"{name} asked upstream {misses} times for names that it had")
    rows = []
    for client in clients:
        for inflight in QUESTIONS:
            for name in servers:
                mine = costs[client, inflight, name]
                row = [f"{client}, {inflight} in flight", name, report.spread(mine)]
                row += [
                    report.ratios(mine, costs[client, inflight, peer]) if peer in servers and peer != name else "-"
                    for peer in ("unbound", "coredns")
                ]
                if client == "batching client":
                    seen_times = times[inflight, name]
                    row += [
                        report.spread([p50 for p50, _ in seen_times]),
                        report.spread([p99 for _, p99 in seen_times]),
                    ]
                else:
                    row += ["", ""]
                rows.append(row)
    heading = ["load", "server", "CPU us per answer", "/ unbound", "/ coredns", "RTT p50 us", "RTT p99 us"]
    return report.table(heading, rows)
