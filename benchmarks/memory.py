"""How much memory do 100,000 cached names take?"""

from benchmarks import meter, report
from benchmarks.bench import Bench

NAMES = 100_000
SAMPLE_EVERY = 50


def measure(bench: Bench) -> str:
    """Memory of a server with room for next to nothing, of one that is full, and how many names that one has."""
    rows = []
    for name in bench.installed:
        with bench.upstream() as upstream:
            with bench.servers(upstream, [name], entries=1) as small:
                empty = meter.memory_bytes(small[name].pids())
            with bench.servers(upstream, [name], entries=NAMES + NAMES // 4) as large:
                server = large[name]
                names = bench.names(NAMES)
                bench.client.closed(server.job.listen, names, 32, NAMES).checked(server.kind.name)
                full = meter.memory_bytes(server.pids())
                sample = bench.directory / "sample"
                asked = names.read_text().split()[::SAMPLE_EVERY]
                sample.write_text("\n".join(asked) + "\n")
                upstream.reset()
                bench.client.closed(server.job.listen, sample, 4, len(asked)).checked(server.kind.name)
                kept = max(0.0, 1 - upstream.total() / len(asked))
        growth = full - empty
        per_name = f"{growth / NAMES / kept:.0f}" if kept else "-"
        rows.append([name, *(f"{size / 2**20:.1f}" for size in (empty, full, growth)), f"{kept:.0%}", per_name])
    heading = ["server", "empty MiB", "full MiB", "growth MiB", "names kept", "bytes per name kept"]
    return f"{NAMES} names with 3 A records each, all of a server's processes (PSS)\n\n" + report.table(heading, rows)
