"""How much memory do 100,000 cached names take?"""

from benchmarks import meter, report
from benchmarks.bench import Bench

NAMES = 100_000
SAMPLE = 2_000


def measure(bench: Bench) -> str:
    """Memory empty and full, with room for all of them, and how many of a sample were still cached at the end."""
    rows = []
    for name in bench.installed:
        with bench.upstream() as upstream, bench.servers(upstream, [name], entries=NAMES + NAMES // 4) as servers:
            server = servers[name]
            empty = meter.memory_bytes(server.pids())
            names = bench.names(NAMES)
            bench.client.closed(server.job.listen, names, 32, NAMES).checked()
            full = meter.memory_bytes(server.pids())
            sample = bench.directory / "sample"
            sample.write_text("\n".join(names.read_text().split()[-SAMPLE:]) + "\n")
            upstream.reset()
            bench.client.closed(server.job.listen, sample, 4, SAMPLE).checked()
            kept = 1 - upstream.total() / SAMPLE
        growth = full - empty
        rows.append(
            [
                name,
                f"{empty / 2**20:.1f}",
                f"{full / 2**20:.1f}",
                f"{growth / 2**20:.1f}",
                f"{growth / NAMES:.0f}",
                f"{kept:.0%}",
            ]
        )
    heading = ["server", "empty MiB", "full MiB", "growth MiB", "bytes per name", "newest kept"]
    return f"{NAMES} names with 3 A records each, all of a server's processes (PSS)\n\n" + report.table(heading, rows)
