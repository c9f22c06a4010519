"""Every CoreDNS pod takes 400 ms for an answer."""

from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import SHORT, DnsCase, Trouble
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, Comparison, Expectation, Run, Scenario

DELAY_MS = 400


class CorednsSlow(Scenario):
    name = "coredns_slow"
    title = "CoreDNS slow"
    source = "coredns#2554"
    story = (
        "CoreDNS is throttled at its CPU limit, or waits for a resolver that is overloaded itself, and every lookup "
        f"of every pod takes as long. All pods of kube-dns answer {DELAY_MS} ms after the question. Sidestep answers "
        "what it has from its cache as always and asks for popular names before they expire; for a name that it "
        "doesn't have pods wait as before."
    )
    modes = ("nftables",)
    on_kube_proxy = (
        Expectation("makes known names wait", lambda outcome: outcome.figures["known p50 ms"] >= DELAY_MS),
    )
    on_sidestep = (LOSES_NOTHING,)
    together = (
        Comparison(
            "known names come sooner from Sidestep",
            lambda kube_proxy, sidestep: sidestep.figures["known p50 ms"] < kube_proxy.figures["known p50 ms"],
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        trouble = SHORT if run.short else Trouble(2.0, 17.0, 20.0)
        with DnsCase(cluster, run) as case:
            case.ask(trouble.end)
            case.at(trouble.begins, f"every pod answers after {DELAY_MS} ms")
            for one in case.pods:
                one.server.slow(DELAY_MS)
            case.at(trouble.over, "they answer at once")
            for one in case.pods:
                one.server.answer()
            return case.outcome(trouble)
