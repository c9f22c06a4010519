"""All pods behind kube-dns are replaced, one after the other, while a pod asks."""

from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import DnsCase, Trouble
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, Run, Scenario

BEGINS = 0.5
ENDS_AFTER = 0.2


class RollingUpdateDns(Scenario):
    name = "rolling_update_dns"
    title = "Rolling update of many DNS pods"
    source = "kubernetes#48744"
    story = (
        "The DNS servers behind kube-dns are updated, pod by pod, and end on SIGTERM, so each is gone a moment after "
        "its endpoint is. 50 pods (10 in the short form) are replaced one by one, each by a pod that answers before; "
        f"each old one ends {ENDS_AFTER:g} s after the change of endpoints is stored. Meanwhile a pod asks all the "
        "time for one name, and for names that nobody asked before, each from a fresh port. kube-proxy writes rules "
        "at most once a second while endpoints keep changing, and what it sends to a pod that is gone is lost. "
        "Sidestep has heard of each change by then; it must ask the pods for the new names."
    )
    on_kube_proxy = (LOSES,)
    on_sidestep = (LOSES_NOTHING,)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        count = 10 if run.short else 50
        with DnsCase(cluster, run) as case:
            run.say(f"{count} pods are started")
            case.replace_pods(count)
            case.ask(600)
            case.at(BEGINS, "the rolling update begins")
            ended_after = [case.replace_pod(leaving, ENDS_AFTER) for leaving in case.pods]
            case.mark("every pod is replaced")
            seconds = case.ask_no_more()
            figures = {"old pods ended after, at most ms": max(ended_after) * 1e3}
            return case.outcome(Trouble(BEGINS, seconds, seconds), figures=figures)
