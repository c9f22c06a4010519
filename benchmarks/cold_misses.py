"""How often is the upstream asked when 200 clients want the same unknown name at once?"""

from collections import Counter

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.questions import ask_at_once

CLIENTS = 200
RCODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}


def measure(bench: Bench) -> str:
    """Upstream questions and what the clients got, a new name in each round; the upstream takes 100 ms."""
    upstream_questions: dict[str, list[float]] = {}
    verdicts: dict[str, Counter[str]] = {}
    with bench.upstream() as upstream, bench.servers(upstream) as servers:
        for _ in range(bench.rounds):
            for server_name, server in servers.items():
                name = bench.name("slow")
                replies = ask_at_once(server.job.listen, name, CLIENTS, patience=3)
                upstream_questions.setdefault(server_name, []).append(upstream.asked(name))
                verdict = verdicts.setdefault(server_name, Counter())
                verdict.update(RCODES.get(reply.rcode, str(reply.rcode)) for reply in replies)
                verdict["no answer"] += CLIENTS - len(replies)
    rows = [
        [
            name,
            report.spread(upstream_questions[name], 0),
            ", ".join(f"{count} {what}" for what, count in verdicts[name].most_common() if count),
        ]
        for name in upstream_questions
    ]
    heading = ["server", "upstream questions", f"what {CLIENTS} clients got in {bench.rounds} rounds"]
    return report.table(heading, rows)
