"""No CoreDNS pod is left, and some time later new ones are there."""

from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import KEEPS_KNOWN, REPLICAS, SHORT, DnsCase, Trouble
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, Expectation, Run, Scenario


class CorednsGone(Scenario):
    name = "coredns_gone"
    title = "CoreDNS pods all gone"
    source = "dns#415"
    story = (
        "CoreDNS is scaled to zero by mistake, evicted, or killed for its memory everywhere at once. kube-dns has no "
        "endpoint, and every lookup of every pod fails until there is one. A pod asks all the time for one name, and "
        "for names that nobody asked before; all endpoints leave with their pods, and new pods come at other "
        "addresses. Sidestep goes on answering what it knew, with what it knew last (up to a day old); what it never "
        "knew nobody can tell: that is SERVFAIL, at once."
    )
    on_kube_proxy = (LOSES, Expectation("loses known names", lambda outcome: outcome.figures["known lost"] > 0))
    on_sidestep = (KEEPS_KNOWN,)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        trouble = SHORT if run.short else Trouble(2.0, 22.0, 25.0)
        with DnsCase(cluster, run) as case:
            case.ask(trouble.end)
            case.at(trouble.begins, "all pods of kube-dns go")
            case.replace_pods(0)
            case.at(trouble.over, "new pods at new addresses")
            case.replace_pods(REPLICAS)
            return case.outcome(trouble)
