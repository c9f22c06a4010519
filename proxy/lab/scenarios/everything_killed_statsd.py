"""All of Sidestep hangs, then dies, while pods send StatsD to its listener: the kernel sends it to an endpoint."""

import signal

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import FOLLOWED_MS
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, MISDELIVERS_NOTHING, Expectation, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

RATE = 100


class EverythingKilledStatsd(Scenario):
    name = "everything_killed_statsd"
    title = "Sidestep hangs and dies, StatsD"
    source = "field knowledge"
    story = (
        "A proxy in the path of metrics is one more thing that can die. Every process of Sidestep stands still for a "
        "while, goes on, and is killed; later it is started again. A pod and the node itself send StatsD to its "
        f"listener, {RATE} datagrams a second each from one port and from fresh ones. The listener's lease is kept "
        "by a probe with a secret; when it ends, the kernel sends what comes to an endpoint. What waited in the "
        "queue of a hung relay is sent on late, what waited in that of a killed one is gone. kube-proxy's path has "
        "nothing that could die so."
    )
    modes = ("nftables",)
    on_kube_proxy = (LOSES_NOTHING,)
    on_sidestep = (
        MISDELIVERS_NOTHING,
        Expectation("loses nothing of a hang", lambda outcome: not outcome.figures["lost of the hang"]),
        Expectation(
            f"loses nothing that is sent {FOLLOWED_MS} ms after the kill or later",
            lambda outcome: not outcome.figures["lost once followed"],
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        hangs, goes_on, dies, starts, end = (0.5, 1.5, 2.0, 3.0, 5.0) if run.short else (2.0, 6.0, 8.0, 12.0, 16.0)
        with StatsdCase(cluster, run, node=True) as case:
            case.endpoints(case.pod("statsd"))
            for place in ("client", cluster.node.name):
                case.send(RATE, end, client=place)
                case.send(RATE, end, client=place, source_ports="fresh")
            if case.path == "kube-proxy":
                return case.outcome()
            case.at(hangs, "everything hangs")
            case.sidestep.signal(signal.SIGSTOP)
            case.at(goes_on, "it goes on")
            case.sidestep.signal(signal.SIGCONT)
            case.at(dies, "everything is killed")
            case.sidestep.kill()
            case.at(starts, "it is started")
            case.sidestep.start()
            case.sidestep.wait_ready()
            case.mark("it serves")
            lost = case.lost_between
            case.wait()
            return case.outcome(
                figures={
                    "lost of the hang": lost(0, dies - FOLLOWED_MS / 1000),
                    "lost of the kill": lost(dies - FOLLOWED_MS / 1000, end),
                    "lost once followed": lost(dies + FOLLOWED_MS / 1000, end),
                }
            )
