"""One of three CoreDNS pods says nothing any more and stays an endpoint."""

from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import SHORT, DnsCase, Trouble
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, Run, Scenario


class CorednsPodSilent(Scenario):
    name = "coredns_pod_silent"
    title = "One of three CoreDNS pods silent"
    source = "kubernetes#77650"
    story = (
        "The node of a CoreDNS pod loses power or its network. Its endpoint stays until the node counts as gone: 40 "
        "seconds at least, and minutes where the pod goes on being reported as ready. kube-proxy picks among the "
        "endpoints without knowing who answers, so a third of all lookups wait for their resolver's timeout. Each "
        "question here comes from a fresh port and is asked once: lost is one whose client would have to ask again. "
        "Sidestep asks another pod when one is later than usual, and from the third time on asks that one last."
    )
    modes = ("nftables",)
    on_kube_proxy = (LOSES,)
    on_sidestep = (LOSES_NOTHING,)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        trouble = SHORT if run.short else Trouble(2.0, 17.0, 20.0)
        with DnsCase(cluster, run) as case:
            case.ask(trouble.end)
            case.at(trouble.begins, "one pod of three is silent")
            case.pods[0].server.silent()
            case.at(trouble.over, "it answers again")
            case.pods[0].server.answer()
            return case.outcome(trouble)
