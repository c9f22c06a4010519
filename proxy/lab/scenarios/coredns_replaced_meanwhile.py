"""CoreDNS's pods are replaced while all of the node's DNS is dead: who follows without it."""

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import Client, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, Expectation, Run, Scenario


class CorednsReplacedMeanwhile(Scenario):
    name = "coredns_replaced_meanwhile"
    title = "CoreDNS replaced while the node cache is dead"
    source = "dns#438"
    story = (
        "Two faults at once: the node cache was killed and is not back yet, and CoreDNS's two pods are replaced "
        "one after the other. What asks the Service IP follows kube-proxy. The rules behind the link-local "
        "address name the pods that Sidestep knew last: with one of two replaced half of the new flows still find "
        "one, with both replaced none do until Sidestep is started again."
    )
    needs = ("coredns",)
    on_kube_proxy = (LOSES,)
    on_sidestep = (
        Expectation(
            "loses nothing at the Service IP once it has followed",
            lambda outcome: not outcome.figures["Service lost %"],
        ),
        Expectation(
            "loses less at the link-local address while one pod of two is known",
            lambda outcome: outcome.figures["one of two, link-local lost %"] < 90,
        ),
        Expectation("loses nothing once it is back", lambda outcome: not outcome.figures["afterwards lost %"]),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        killed, one, both, again, end = (0.8, 1.5, 3.5, 5.5, 8.0) if run.short else (1.0, 3.0, 7.0, 11.0, 15.0)
        with FailoverCase(cluster, run, replicas=2) as case:
            case.ask(end)
            case.fault(killed, "all of it is killed")
            case.proxy.kill()
            case.at(one, "one pod of CoreDNS is replaced")
            case.recreate_coredns(0)
            case.mark("that is applied")
            replaced = case.seconds()
            case.at(both, "the other one is replaced")
            case.recreate_coredns(1)
            case.mark("that is applied")
            both_replaced = case.seconds()
            case.at(again, "it is started again")
            case.restart()
            case.mark("it serves")
            back = case.seconds()
            case.wait()
            return case.outcome(
                figures={
                    "one of two, link-local lost %": case.lost(_link_local, replaced, both),
                    "both, link-local lost %": case.lost(_link_local, both_replaced, again),
                    "Service lost %": case.lost(_service, both_replaced, again),
                    "afterwards lost %": case.lost(lambda client: True, back),
                },
            )


def _link_local(client: Client) -> bool:
    return client.to == "link-local"


def _service(client: Client) -> bool:
    return client.to == "Service"
