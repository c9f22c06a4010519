"""The only StatsD pod is recreated elsewhere while kube-proxy is not running, as during its own update."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, MISDELIVERS_NOTHING, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

RATE = 100


class PodRecreatedWhileKubeProxyIsAway(Scenario):
    name = "pod_recreated_while_kube_proxy_is_away"
    title = "Pod recreated while kube-proxy is stopped"
    source = "kubernetes#112604, kubernetes#114668"
    story = (
        "kube-proxy is updated, restarted or out of memory, and meanwhile the pod behind a UDP Service is replaced. "
        "The rules in the kernel still name the old pod, and so do the connection tracking entries: nobody changes "
        f"either. The client sends {RATE} datagrams a second from one port; kube-proxy is killed, the pod "
        "is replaced by one that is ready at once, and kube-proxy comes back later. Lost is what was sent to a pod "
        "that is gone. Sidestep watches endpoints by itself."
    )
    on_kube_proxy = (LOSES,)
    on_sidestep = (LOSES_NOTHING, MISDELIVERS_NOTHING)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        away, recreated, returned, end = (0.8, 1.3, 3.5, 5.5) if run.short else (1.5, 2.0, 6.0, 10.0)
        with StatsdCase(cluster, run) as case:
            first = case.pod("statsd-1")
            second = case.pod("statsd-2")
            case.endpoints(first)
            case.send(RATE, end)
            try:
                case.at(away, "kube-proxy is stopped")
                cluster.kube_proxy.stop()
                case.at(recreated, "the pod is recreated at another address")
                case.endpoints(second, seen=run.path == "sidestep")
                first.delete()
                case.at(returned, "kube-proxy is started")
            finally:
                cluster.kube_proxy.start()
            cluster.kube_proxy.wait_synced()
            case.mark("its rules are up to date")
            return case.outcome()
