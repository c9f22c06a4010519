"""The node's connection tracking table is full: new flows are dropped, unless they are not tracked."""

from proxy.lab.cluster import Cluster
from proxy.lab.coredns import KNOWN
from proxy.lab.failover_case import ADDRESS, AT_ONCE, NEW_NAMES, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, Expectation, Run, Scenario


class ConntrackFull(Scenario):
    name = "conntrack_full"
    title = "conntrack table full"
    source = "kubernetes#56903"
    story = (
        "Some workload opens connections faster than they time out, and the kernel drops the first packet of "
        "every new flow (nf_conntrack: table full, dropping packet). DNS through a Service is the first to "
        "suffer, for each lookup is a new flow. What is asked of Sidestep or of NodeLocal DNSCache is not "
        "tracked, and what they have in their caches is answered as before. The table is filled with established "
        "flows that nobody ends; questions come from fresh ports, over TCP and from one port. Beside them a pod "
        "asks CoreDNS itself, past the cache, and the cache is asked for names that it doesn't have yet: those "
        "questions are new flows on the node."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_sidestep = (
        LOSES_NOTHING,
        AT_ONCE,
        Expectation("shows a full table", lambda outcome: outcome.figures["tracked, % of the most"] > 99),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        end = 3.0 if run.short else 10.0
        with FailoverCase(cluster, run) as case:
            conntrack = cluster.conntrack()
            try:
                case.fill_cache(10)
                case.mark("the table is filled")
                most = conntrack.fill()
                case.ask(end)
                case.mark("it is full")
                share = 100 * conntrack.count() / most
                figures = {
                    "tracked, % of the most": share,
                    "past the cache lost %": case.lost_aside(f"{case.coredns[0].address}:53", KNOWN),
                    "not in the cache lost %": case.lost_aside(ADDRESS, NEW_NAMES),
                }
                return case.outcome(figures=figures)
            finally:
                conntrack.flush()
