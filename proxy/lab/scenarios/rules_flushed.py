"""Somebody flushes the nft rules and deletes the address; then all of it hangs, to see that it is whole again."""

import signal

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import FOLLOWED_MS, Client, FailoverCase
from proxy.lab.nodes import LISTENER
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import Expectation, Run, Scenario
from proxy.lab.tools import until

REPAIRED_MS = 5000


class RulesFlushed(Scenario):
    name = "rules_flushed"
    title = "nft rules flushed, address deleted"
    source = "dns#568"
    story = (
        "A firewall is restarted and flushes every rule of the node, kube-proxy's too, or a network daemon "
        "removes an address that it doesn't know. node-cache's agent looks each minute (it is not in the lab, so "
        "nothing repairs that side here). Sidestep looks every two seconds and puts back what is its own, within "
        f"{REPAIRED_MS} ms. A flow that was tracked meanwhile must still fail over, so all of it is stopped "
        "afterwards."
    )
    needs = ("coredns",)
    on_sidestep = (
        Expectation(
            f"repairs the table within {REPAIRED_MS} ms", lambda outcome: outcome.figures["table ms"] <= REPAIRED_MS
        ),
        Expectation(
            f"repairs the address within {REPAIRED_MS} ms",
            lambda outcome: outcome.figures["address ms"] <= REPAIRED_MS,
        ),
        Expectation("loses nothing to the flush", lambda outcome: not outcome.figures["flushed lost %"]),
        Expectation("fails over afterwards", lambda outcome: not outcome.figures["hanging lost %"]),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        flushed, deleted, hung, back, end = (1.0, 4.0, 7.0, 9.0, 10.0) if run.short else (2.0, 8.0, 14.0, 18.0, 20.0)
        with FailoverCase(cluster, run) as case:
            interface = case.sidestep.status()["node"]["interface"] if case.path == "sidestep" else "lo"
            try:
                case.ask(end)
                case.fault(flushed, "nft flush ruleset")
                case.node.run("nft", "flush", "ruleset")
                table = self._repaired(case, "table inet sidestep")
                case.fault(deleted, f"ip address del {LISTENER}")
                case.node.ip(f"addr del {LISTENER}/32 dev {interface}")
                address = self._repaired(case, f"address {LISTENER}")
                case.fault(hung, "all of it is stopped")
                case.proxy.signal(signal.SIGSTOP)
                case.at(back, "it goes on")
                case.proxy.signal(signal.SIGCONT)
                case.wait()
                return case.outcome(
                    figures={
                        "table ms": table,
                        "address ms": address,
                        "flushed lost %": case.lost(lambda client: True, flushed, deleted),
                        "deleted lost %": case.lost(_at_the_address, deleted, hung),
                        "hanging lost %": case.lost(lambda client: True, hung + FOLLOWED_MS / 1000, back),
                    },
                )
            finally:
                case.proxy.signal(signal.SIGCONT)
                case.node.track()
                cluster.kube_proxy.restart()

    def _repaired(self, case: FailoverCase, thing: str) -> float:
        """Milliseconds until it is there again."""
        if case.path == "kube-proxy":
            if thing.startswith("address"):
                case.node.ip(f"addr add {LISTENER}/32 dev lo")
            return 0.0
        took = until(lambda: thing in case.left(), f"{thing} is there again", 15)
        case.mark(f"{thing} is there again")
        return 1000 * took


def _at_the_address(client: Client) -> bool:
    return client.address == f"{LISTENER}:53"
