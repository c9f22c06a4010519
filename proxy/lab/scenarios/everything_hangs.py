"""Every process of the node's DNS stands still, as when it is starved, swapped out or waits for a lock."""

import signal

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import FOLLOWS, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, Comparison, Run, Scenario


class EverythingHangs(Scenario):
    name = "everything_hangs"
    title = "Node cache hangs (SIGSTOP of all of it)"
    source = "dns#453"
    story = (
        "A node cache that hangs still owns its sockets: questions pile up in them and nobody answers. NodeLocal "
        "DNSCache has only its liveness probe, which takes a minute, and until then the node has no DNS. Here "
        "pods and host-network processes ask at the link-local address and at kube-dns's Service IP, over UDP "
        "from one port and from fresh ones and over TCP, IPv4 and IPv6; everything gets SIGSTOP and later "
        "SIGCONT. A question that was already in a stopped socket's queue is answered late. Once the lease has "
        "run out (500 ms) the kernel sends all others to CoreDNS; the first answer after SIGCONT takes them back."
    )
    needs = ("coredns",)
    on_sidestep = (LOSES_NOTHING, FOLLOWS)
    together = (
        Comparison(
            "Sidestep makes fewer wait",
            lambda theirs, ours: ours.figures["made to wait"] < theirs.figures["made to wait"],
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        hang, back, end = (1.0, 3.0, 4.5) if run.short else (2.0, 6.0, 9.0)
        with FailoverCase(cluster, run) as case:
            case.ask(end)
            case.fault(hang, "all of it is stopped")
            case.proxy.signal(signal.SIGSTOP)
            case.at(back, "it goes on")
            case.proxy.signal(signal.SIGCONT)
            return case.outcome()
