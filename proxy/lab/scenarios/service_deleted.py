"""A StatsD Service is deleted and comes back later; meanwhile its pod's address belongs to another pod."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, MISDELIVERS, MISDELIVERS_NOTHING, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

RATE = 100


class ServiceDeleted(Scenario):
    name = "service_deleted"
    title = "Service deleted, its pod's address reused"
    source = "kubernetes#141371"
    story = (
        "A StatsD Service is deleted with its pod, as when its chart is removed and installed anew, and clients "
        "go on sending. kube-proxy takes the rules of a deleted Service away but not its connection tracking "
        "entries, and each datagram keeps its entry alive: whoever is given the pod's address next receives the "
        f"metrics. The client sends {RATE} datagrams a second from one port; the Service is deleted, another pod "
        "gets the address, and the Service comes back with a pod elsewhere. Misdelivered is what came to the old "
        "address after the deletion was applied. Sidestep forgets the endpoints with the Service and keeps the "
        "counters for the next ones."
    )
    on_kube_proxy = (MISDELIVERS,)
    on_sidestep = (LOSES_NOTHING, MISDELIVERS_NOTHING)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        deleted, given_away, back, end = (1.0, 1.5, 3.5, 5.0) if run.short else (2.0, 3.0, 6.0, 10.0)
        with StatsdCase(cluster, run) as case:
            first = case.pod("statsd-1")
            case.endpoints(first)
            case.send(RATE, end)
            case.at(deleted, "the Service is deleted")
            case.no_service()
            case.at(given_away, "its pod's address goes to another pod")
            first.delete()
            case.pod("other", first.address)
            second = case.pod("statsd-2")
            case.at(back, "the Service is back: a pod at a new address")
            case.service_again()
            case.endpoints(second)
            return case.outcome()
