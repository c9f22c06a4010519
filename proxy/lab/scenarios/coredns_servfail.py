"""Every CoreDNS pod answers SERVFAIL for a while."""

from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import KEEPS_KNOWN, SHORT, DnsCase, Trouble
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, Expectation, Run, Scenario


class CorednsServfail(Scenario):
    name = "coredns_servfail"
    title = "CoreDNS answers SERVFAIL for a minute"
    source = "coredns#2464"
    story = (
        "CoreDNS has lost the API server or its own resolver and says SERVFAIL to everything; it is alive, so nobody "
        "takes it out. Lookups fail, at once with glibc and after five seconds with musl. For a minute (2 s in the "
        "short form) all pods of kube-dns do so. Sidestep goes on with what it knew, expired or not; for what it "
        "never knew, the error is passed on."
    )
    modes = ("nftables",)
    on_kube_proxy = (LOSES, Expectation("loses known names", lambda outcome: outcome.figures["known lost"] > 0))
    on_sidestep = (KEEPS_KNOWN,)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        trouble = SHORT if run.short else Trouble(2.0, 62.0, 65.0)
        with DnsCase(cluster, run) as case:
            case.ask(trouble.end)
            case.at(trouble.begins, "every pod says SERVFAIL")
            for one in case.pods:
                one.server.servfail()
            case.at(trouble.over, "they answer again")
            for one in case.pods:
                one.server.answer()
            return case.outcome(trouble)
