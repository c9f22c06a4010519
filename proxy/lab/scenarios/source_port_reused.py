"""Under load, a source port used again still belongs to a pod that is gone: entries are cleaned one by one."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, MISDELIVERS_NOTHING, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

RATE = 3000


class SourcePortReused(Scenario):
    name = "source_port_reused"
    title = "Source port reused under load"
    source = "kubernetes#135323"
    story = (
        "Clients open a new socket for each datagram or question, and at a high rate the kernel soon hands out "
        "ports for which there is a connection tracking entry already. When the pod behind the Service is "
        "replaced, kube-proxy first writes its rules and then deletes the old pod's entries one by one: thousands "
        "of them take it a good part of a second or more, and whoever comes upon one of their ports meanwhile "
        f"sends to a pod that is gone. The client sends {RATE:,} datagrams a second, each from a fresh socket; the "
        "old pod goes only when the new rules are in the kernel, so all that is lost is lost to those entries. "
        "The entries of Sidestep's clients lead to its listener, whichever pod is behind it."
    )
    on_kube_proxy = (LOSES,)
    on_sidestep = (LOSES_NOTHING, MISDELIVERS_NOTHING)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        replaced, end = (4.0, 6.0) if run.short else (6.0, 10.0)
        with StatsdCase(cluster, run) as case:
            first = case.pod("statsd-1")
            second = case.pod("statsd-2")
            case.endpoints(first)
            case.send(RATE, end, source_ports="fresh")
            case.at(replaced, "the endpoint is another pod")
            tracked = cluster.conntrack().count()
            case.endpoints(second)
            case.mark("that is applied, and the old pod ends")
            first.delete()
            return case.outcome(figures={"tracked flows before": tracked})
