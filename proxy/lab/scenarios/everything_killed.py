"""SIGKILL to every process of the node's DNS, and a start some time later that finds what they left."""

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import FOLLOWS, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, Expectation, Run, Scenario


class EverythingKilled(Scenario):
    name = "everything_killed"
    title = "Node cache killed, started again later"
    source = "dns#438"
    story = (
        "Nothing cleans up after a SIGKILL. NodeLocal DNSCache leaves the rules that send DNS to a port where "
        "nobody listens: the node has no DNS until it is started again, up to five minutes in a kubelet's "
        "back-off. Sidestep's lease runs out in the kernel with nobody alive (500 ms), and CoreDNS is asked; the "
        "next start takes the table and the addresses over as they are, and with its first answer the packets."
    )
    needs = ("coredns",)
    on_kube_proxy = (LOSES,)
    on_sidestep = (FOLLOWS, Expectation("doubles nothing", lambda outcome: not outcome.figures["doubled"]))

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        killed, again, end = (1.0, 2.5, 4.5) if run.short else (2.0, 6.0, 10.0)
        with FailoverCase(cluster, run) as case:
            case.ask(end)
            rules = case.rules() if case.path == "sidestep" else 0
            case.fault(killed, "all of it is killed")
            case.proxy.kill()
            case.at(again, "it is started again")
            case.restart()
            case.mark("it serves")
            doubled = 0
            if case.path == "sidestep":
                left = case.left()
                doubled = len(left) - len(set(left)) + max(0, case.rules() - rules)
            return case.outcome(figures={"doubled": doubled})
