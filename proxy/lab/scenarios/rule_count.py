"""What a datagram costs behind 10, 500 and 2,000 Services: the first of a flow, and those after it."""

import signal
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome, Sent, waits_us
from proxy.lab.scenario import LOSES_NOTHING, MISDELIVERS_NOTHING, Expectation, Run, Scenario
from proxy.lab.statsd_case import PORT, StatsdCase

FEW, SOME, MANY = 10, 500, 2000
SHORT = 100
"""The most in the short form: to make 500 on both paths takes a test half a minute, and shows no more."""
ENDPOINTS = 10
RATE = 500
ROUNDS = 3
PER_NAMESPACE = 250
"""The API server deletes a namespace's Services in one request, which may not take too long."""
SYNCED_WITHIN = 300
SLACK_US = 100
"""What a busy machine adds to a median."""


def growth(figures: Mapping[str, float]) -> float:
    """How much more a first datagram costs with the most Services than with few, each beside a later one.

    Beside a later one, because the machine may be slower or faster by then.
    """
    counts = [int(name.partition(":")[0]) for name in figures]
    few, many = (
        figures[f"{count}: first CPU µs"] / figures[f"{count}: steady CPU µs"] for count in (min(counts), max(counts))
    )
    return many / few


def _dearer_by_rules_only(outcome: Outcome) -> bool:
    if outcome.figures.get(f"{MANY}: Services compared before"):
        return growth(outcome.figures) > 1.3
    return growth(outcome.figures) < 1.6


def _hardly_slower(outcome: Outcome) -> bool:
    few, *more = (number for name, number in outcome.figures.items() if name.endswith("first p50 µs"))
    return max(more) < 2 * few + SLACK_US


class RuleCount(Scenario):
    name = "rule_count"
    title = "Rule count"
    source = "kubernetes/enhancements#3866"
    needs = ("etcd", "kube-apiserver", "kube-proxy")
    story = (
        "In iptables mode the first packet of a flow is compared with the rule of one Service after the other until "
        "its own is found, so each Service of the cluster makes every new flow of every pod dearer; in nftables mode "
        f"a map finds it. There are {FEW}, {SOME} and {MANY:,} Services ({FEW} and {SHORT} in the short form), all "
        f"with the same {ENDPOINTS} pods. A client sends from a fresh port each time (first) and from one port "
        "(steady) by turns, to the Service that kube-proxy has last. Latency is the time until the server has read "
        "it. CPU is what sending took, the kernel's whole way to the next socket, and with Sidestep what its "
        "worker took as well. Nothing is lost. Sidestep's clients are not tracked: no Service's rule is compared."
    )
    on_kube_proxy = (
        LOSES_NOTHING,
        Expectation(
            "spends more CPU on a first packet for 2,000 rules before its own, and no more where a map finds it",
            _dearer_by_rules_only,
        ),
    )
    on_sidestep = (
        LOSES_NOTHING,
        MISDELIVERS_NOTHING,
        Expectation(
            f"has, with more Services, a median on first packets below 2 x that with {FEW} + {SLACK_US} µs",
            _hardly_slower,
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        seconds = 0.5 if run.short else 1.5
        figures: dict[str, float] = {}
        costs: defaultdict[str, list[float]] = defaultdict(list)
        sent: defaultdict[str, list[Sent]] = defaultdict(list)
        with StatsdCase(cluster, run, node=True) as case:
            pods = [case.pod(f"statsd-{number}") for number in range(1, ENDPOINTS + 1)]
            case.endpoints(*pods)
            there = 1
            for count in (FEW, SHORT) if run.short else (FEW, SOME, MANY):
                case.mark(f"{count:,} Services")
                for number in range(there, count):
                    _another(cluster, number, [one.address for one in pods])
                there = count
                figures[f"{count}: in step after s"] = cluster.kube_proxy.wait_synced(SYNCED_WITHIN)
                # Each time that it writes its rules, kube-proxy puts the Services in another order.
                cluster.kube_proxy.signal(signal.SIGSTOP)
                *_, last = (one for one, targets in cluster.kube_proxy.programmed().items() if targets)
                to, relays = f"{last.address}:{last.port}", []
                if run.path == "kube-proxy":
                    figures[f"{count}: Services compared before"] = count - 1 if run.mode == "iptables" else 0
                else:
                    to, relays = case.target, case.sidestep.pids("relay")
                run.say("the client sends, from fresh ports and from one by turns")
                cluster.conntrack().flush()
                for what, ports in (("first", "fresh"), ("steady", "40000")) * ROUNDS:
                    before_us = _cpu_us(relays)
                    sender = case.send(RATE, seconds, source_ports=ports, to=to)
                    sender.wait(60)
                    case.arrived()
                    relayed_us = (_cpu_us(relays) - before_us) / sender.summary["sent"]
                    costs[f"{count}: {what}"].append(sender.summary["cpu_us"] + relayed_us)
                    sent[f"{count}: {what}"] += sender.sent()
                cluster.kube_proxy.signal(signal.SIGCONT)
            counted = case.outcome()
            arrivals = [arrival for one in pods for arrival in one.sink.arrivals()]
        for what, cost in costs.items():
            waits = waits_us(sent[what], arrivals)
            figures |= {f"{what} CPU µs": median(cost), **{f"{what} {name}": wait for name, wait in waits.items()}}
        by_count = sorted(figures.items(), key=lambda figure: int(figure[0].partition(":")[0]))
        return replace(counted, figures=dict(by_count))


def _another(cluster: Cluster, number: int, addresses: Sequence[str]) -> None:
    high, low = divmod(number, 250)
    made = cluster.service(f"many-{number // PER_NAMESPACE}/statsd-{number}", f"10.96.{100 + high}.{1 + low}", PORT)
    cluster.set_endpoints(made, addresses)


def _cpu_us(pids: Iterable[int]) -> float:
    """What all threads of these processes have run so far."""
    threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e3
