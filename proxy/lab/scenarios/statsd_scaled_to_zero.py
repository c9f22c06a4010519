"""A StatsD Service goes to no endpoints and back while a client sends from one port; another pod gets the address."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, MISDELIVERS, MISDELIVERS_NOTHING, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

RATE = 100


class StatsdScaledToZero(Scenario):
    name = "statsd_scaled_to_zero"
    title = "StatsD Service scaled to zero and back"
    source = "kubernetes#139628"
    story = (
        "A StatsD Deployment is scaled to zero and back while clients keep sending from one socket. kube-proxy takes "
        "the Service's rules away but leaves its connection tracking entries, so each datagram still goes to the "
        "address of the pod that left: into nothing, or to whichever pod has that address now. "
        f"The client sends {RATE} datagrams a second from one port; for a while the Service has no endpoint and "
        "another pod gets the address; then it has an endpoint elsewhere. Misdelivered is what came to the old "
        "address after the change was applied. Sidestep keeps the counters until there is an endpoint."
    )
    on_kube_proxy = (MISDELIVERS,)
    on_sidestep = (LOSES_NOTHING, MISDELIVERS_NOTHING)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        zero, given_away, back, end = (1.0, 1.5, 3.5, 5.0) if run.short else (2.0, 3.0, 6.0, 10.0)
        with StatsdCase(cluster, run) as case:
            first = case.pod("statsd-1")
            case.endpoints(first)
            case.send(RATE, end)
            case.at(zero, "scaled to zero")
            case.endpoints()
            case.at(given_away, "its address goes to another pod")
            first.delete()
            case.pod("other", first.address)
            second = case.pod("statsd-2")
            case.at(back, "scaled to one: a pod at a new address")
            case.endpoints(second)
            return case.outcome()
