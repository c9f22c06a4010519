"""How much of the cache is left after a crash and after a reload?"""

import os
import signal

from benchmarks import report
from benchmarks.bench import Bench, dns_worker, wait_for_new_worker
from benchmarks.questions import ask
from tests import peers

NAMES = 2_000
RELOADED_BY = {
    "sidestep": signal.SIGHUP,
    "unbound": signal.SIGHUP,
    "dnsmasq": signal.SIGHUP,
    "coredns": signal.SIGUSR1,
}


def _crash(server: peers.Server) -> None:
    """SIGKILL what answers; a peer is started again at once."""
    if server.kind.name == "sidestep":
        worker = dns_worker(server)
        os.kill(worker, signal.SIGKILL)
        wait_for_new_worker(server, worker)
    else:
        server.process.kill()
        server.process.wait()
        server.start()
        server.wait_until_answering(lambda: peers.answers(server.job.listen))


def _reload(server: peers.Server) -> None:
    """Make it read its configuration again, and wait until that has happened as far as one can see."""
    server.process.send_signal(RELOADED_BY[server.kind.name])
    server.wait_until_answering(lambda: ask(server.job.listen, f"reloaded.{peers.CLUSTER_DOMAIN}", 1) is not None)


def measure(bench: Bench) -> str:
    """Share of names answered without asking upstream again."""
    kept: dict[tuple[str, str], list[float]] = {}
    with bench.upstream() as upstream, bench.servers(upstream) as servers:
        for _ in range(min(bench.rounds, 3)):
            for what, happen in (("crash", _crash), ("reload", _reload)):
                for name, server in servers.items():
                    names = bench.names(NAMES)
                    bench.client.closed(server.job.listen, names, 4, NAMES).checked(server.kind.name)
                    happen(server)
                    upstream.reset()
                    bench.client.closed(server.job.listen, names, 4, NAMES).checked(server.kind.name)
                    kept.setdefault((name, what), []).append(100 * (1 - min(upstream.total(), NAMES) / NAMES))
    rows = [[name, report.spread(kept[name, "crash"]), report.spread(kept[name, "reload"])] for name in servers]
    return report.table(["server", "kept after SIGKILL, %", "kept after a reload, %"], rows)
