"""A clean stop of the node's DNS (SIGTERM), a while without it, and a start."""

import json

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import AT_ONCE, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, Expectation, Run, Scenario


class NodeCacheStopped(Scenario):
    name = "node_cache_stopped"
    title = "Node cache stopped (SIGTERM), started again later"
    source = "dns#732, kops#14812"
    story = (
        "An update without surge, an eviction, a drained node. NodeLocal DNSCache takes its rules and its address "
        "away while questions are in flight: Service clients lose those, and pods that name the link-local "
        "address have no DNS until it is back. Sidestep gives up the lease, answers what it has read, and leaves "
        "the link-local addresses with the rules that send their packets to CoreDNS, exactly what `sidestep plan` "
        "says stays; Service IPs go back to kube-proxy. Fresh ports and TCP ask all the time: each of their "
        "questions is a new flow."
    )
    needs = ("coredns",)
    on_kube_proxy = (LOSES,)
    on_sidestep = (
        LOSES_NOTHING,
        AT_ONCE,
        Expectation(
            "leaves what plan says stays, and nothing else", lambda outcome: not outcome.figures["unplanned"]
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        stopped, again, end = (1.0, 3.0, 4.5) if run.short else (2.0, 6.0, 9.0)
        with FailoverCase(cluster, run) as case:
            planned: list[str] = []
            if case.path == "sidestep":
                planned = json.loads(case.sidestep.command("plan", "-o", "json"))["stays"]
            case.ask(end)
            case.fault(stopped, "SIGTERM")
            case.proxy.stop()
            case.mark("it has ended")
            left = case.left() if case.path == "sidestep" else []
            case.at(again, "it is started again")
            case.restart()
            case.mark("it serves")
            unplanned = set(planned) ^ set(left)
            notes = [f"planned to stay {sorted(planned)}, found {sorted(left)}"] if unplanned else []
            return case.outcome(*notes, figures={"unplanned": len(unplanned)})
