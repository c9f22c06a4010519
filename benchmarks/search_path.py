"""How often is the upstream asked for one cold glibc lookup along a search path of three suffixes?"""

from benchmarks import report
from benchmarks.bench import Bench
from tests.stubs.lab import STUBS, Lab

SUFFIXES = ("default.svc.nx.example", "svc.nx.example", "nx.example")


def measure(bench: Bench) -> str:
    """Questions of the stub and upstream: three suffixes that say NXDOMAIN, then the name itself. Needs root."""
    asked: dict[str, list[float]] = {}
    upstream: dict[str, list[float]] = {}
    directory = bench.directory / "lab"
    directory.mkdir(exist_ok=True)
    with Lab(directory) as lab:
        command = STUBS["glibc"].built(bench.directory)
        lab.resolv_conf(search=SUFFIXES)
        for round_number in range(bench.rounds):
            for server in bench.installed:
                with lab.serving(server):
                    seen = lab.run([*command, f"web{round_number}.good.example.com"])
                if not seen.addresses:
                    raise RuntimeError(f"{server}: {seen.printed}")
                asked.setdefault(server, []).append(seen.asked.total())
                upstream.setdefault(server, []).append(seen.upstream.total())
    rows = [[server, report.spread(asked[server], 0), report.spread(upstream[server], 0)] for server in asked]
    return report.table(["server", "stub asked", "upstream was asked"], rows)
