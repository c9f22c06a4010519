"""How long does a client wait when the upstream says nothing?"""

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.questions import Reply, ask
from tests import peers

PATIENCE = 10


def _told(seen: list[Reply | None]) -> str:
    answered = [reply.seconds for reply in seen if reply]
    silent = len(seen) - len(answered)
    return report.spread(answered, 2) + (f", {silent} of {len(seen)} unanswered in {PATIENCE} s" if silent else "")


def measure(bench: Bench) -> str:
    """Seconds to an answer: for a name never asked before, for the same name again, for another name."""
    seen: dict[str, list[tuple[Reply | None, ...]]] = {}
    rounds = min(bench.rounds, 3)

    def questions(server: peers.Server) -> tuple[Reply | None, ...]:
        first, other = bench.name("silent"), bench.name("silent")
        return tuple(ask(server.job.listen, name, PATIENCE) for name in (first, first, other))

    with bench.upstream() as upstream:
        for _ in range(rounds):
            with bench.servers(upstream) as servers, ThreadPoolExecutor(len(servers)) as pool:
                time.sleep(1)  # for health probes and the like to settle
                for name, replies in zip(servers, pool.map(questions, servers.values()), strict=True):
                    seen.setdefault(name, []).append(replies)
    rows = [
        [name, *(_told([replies[column] for replies in rounds]) for column in range(3))]
        for name, rounds in seen.items()
    ]
    return report.table(["server", "first, s", "same name again, s", "another name, s"], rows)
