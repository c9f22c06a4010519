"""All pods of a StatsD Service are replaced, one after the other, while clients send."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, MISDELIVERS_NOTHING, Run, Scenario
from proxy.lab.statsd_case import SinkPod, StatsdCase

RATE = 400
SOURCE_PORTS = 40
ENDS_AFTER = 0.2


class RollingUpdate(Scenario):
    name = "rolling_update"
    title = "Rolling update of many pods"
    source = "kubernetes#48744"
    story = (
        "A Deployment behind a UDP Service is updated, pod by pod. A server that ends on SIGTERM is gone a moment "
        "after its endpoint is, and kube-proxy writes rules at most once a second while endpoints keep changing, "
        "so it goes on sending to pods that are gone. 50 pods (10 in the short form) are replaced one by one, "
        f"each by a pod that is ready before; each old one ends {ENDS_AFTER:g} s after the change of endpoints is "
        f"stored. Meanwhile clients send {RATE} datagrams a second from {SOURCE_PORTS} ports. Lost is what was "
        "sent to a pod that is gone. Sidestep applies each change as it comes."
    )
    on_kube_proxy = (LOSES,)
    on_sidestep = (LOSES_NOTHING, MISDELIVERS_NOTHING)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        count = 10 if run.short else 50
        with StatsdCase(cluster, run) as case:
            run.say(f"{count} pods are started")
            old = [case.pod(f"statsd-{number}") for number in range(1, count + 1)]
            case.endpoints(*old)
            sender = case.send(RATE, 600, source_ports=f"40000-{40000 + SOURCE_PORTS - 1}")
            case.at(0.5, "the rolling update begins")
            fresh: list[SinkPod] = []
            ended_after = []
            for leaving in old:
                fresh.append(case.pod(f"statsd-{count + len(fresh) + 1}"))
                ended_after.append(case.replace([leaving], fresh[-1:], ENDS_AFTER))
            case.mark("every pod is replaced")
            case.wait_applied(*fresh)
            sender.finish()
            return case.outcome(figures={"old pods ended after, at most ms": max(ended_after) * 1e3})
