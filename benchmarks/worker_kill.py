"""How many of 1,000 questions a second are lost when the process that answers is killed three times?"""

import subprocess
import time

from benchmarks import report
from benchmarks.bench import Bench, dns_worker
from benchmarks.load import Result, finished
from tests import peers

NAMES = 64
QPS = 1000
SECONDS = 10
KILLED_AT = (2.0, 4.5, 7.0)
TIMEOUT = 4.0


def _kill(server: peers.Server) -> None:
    """SIGKILL: Sidestep's worker, or the whole of a server, which gets a supervisor that starts it again at once."""
    if server.kind.name == "sidestep":
        subprocess.run(["kill", "-KILL", str(dns_worker(server))], check=True)
    else:
        server.process.kill()
        server.process.wait()
        server.start()


def _run(bench: Bench, server: peers.Server) -> Result:
    names = bench.names(NAMES)
    bench.client.closed(server.job.listen, names, 1, NAMES).checked(server.kind.name)
    command = bench.client.rate_command(server.job.listen, names, QPS, QPS * SECONDS, TIMEOUT)
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
        for moment in KILLED_AT:
            time.sleep(max(0, started + moment - time.monotonic()))
            _kill(server)
        assert load.stdout
        return finished(load.stdout.read())


def measure(bench: Bench) -> str:
    """Questions without an answer in 4 s, none sent again, and the longest wait; peers are started again at once."""
    lost: dict[str, list[float]] = {}
    longest: dict[str, list[float]] = {}
    with bench.upstream() as upstream, bench.servers(upstream) as servers:
        for _ in range(min(bench.rounds, 3)):
            for name, server in servers.items():
                result = _run(bench, server)
                lost.setdefault(name, []).append(result.lost + result.bad)
                longest.setdefault(name, []).append(result.max_us / 1000)
    rows = [[name, report.spread(lost[name], 0), report.spread(longest[name], 0)] for name in lost]
    heading = ["killed", f"lost of {QPS * SECONDS}", "longest wait ms"]
    return f"SIGKILL at {', '.join(map(str, KILLED_AT))} s of {SECONDS} s\n\n" + report.table(heading, rows)
