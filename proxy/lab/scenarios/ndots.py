"""What one lookup of a name outside the cluster costs with ndots:5 and three search suffixes."""

from dataclasses import replace
from statistics import median

from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import DnsCase
from proxy.lab.nodes import Pod
from proxy.lab.outcome import Outcome, tally_questions
from proxy.lab.scenario import LOSES_NOTHING, Comparison, Expectation, Run, Scenario

RATE = 50
SUFFIXES = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
KNOWN, NEW = "api.example.com", "n{number}.example.com"
PATIENCE = 5.0
"""Seconds after which glibc gives up waiting and asks again."""
EACH = 2 * (len(SUFFIXES) + 1)
"""A and AAAA with each suffix and without."""


class Ndots(Scenario):
    name = "ndots"
    title = "ndots:5 with three search suffixes"
    source = "kubernetes#14051"
    story = (
        "Kubernetes gives each pod ndots:5 and three search suffixes, so a name such as api.example.com is asked "
        f"with each suffix before it is asked as it is, and each time for A and AAAA: {EACH} questions and as many "
        "answers for one lookup, most of them for names that don't exist. A pod looks up, with the C library and "
        "such a resolv.conf, first one name again and again, then a new name each time. Counted is what comes to the "
        "DNS pods, and the packets on the links of the DNS pods and of the client; nothing is lost. Sidestep keeps "
        "what does not exist as well, and a name without A has no AAAA either: "
        f"about {len(SUFFIXES) + 2} questions for a new name, next to none for a known one. The pod's packets stay."
    )
    modes = ("nftables",)
    on_kube_proxy = (
        LOSES_NOTHING,
        Expectation(f"asks {EACH} times for a name", lambda outcome: outcome.figures["known: upstream"] == EACH),
    )
    on_sidestep = (
        LOSES_NOTHING,
        Expectation(
            "asks less than once for a name that is known",
            lambda outcome: outcome.figures["known: upstream"] < 1,
        ),
    )
    together = (
        Comparison(
            "Sidestep asks less for a new name",
            lambda kube_proxy, sidestep: sidestep.figures["new: upstream"] < kube_proxy.figures["new: upstream"],
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        seconds = 2.0 if run.short else 10.0
        figures: dict[str, float] = {}
        everything = []
        with DnsCase(cluster, run, ttl=30, known=[".example.com"]) as case:
            server = case.target.partition(":")[0]
            search = " ".join(SUFFIXES)
            case.client.etc("resolv.conf", f"nameserver {server}\nsearch {search}\noptions ndots:5\n")
            dns_pods = [one.pod for one in case.pods]
            for what, name in (("known", KNOWN), ("new", NEW)):
                run.say(f"looks up {name}")
                looking = case.traffic.lookups(case.client, name=name, rate=RATE, seconds=seconds)
                before = _packets(dns_pods), _packets([case.client])
                looking.start()
                looking.wait(seconds + 60)
                packets = _packets(dns_pods) - before[0], _packets([case.client]) - before[1]
                found = looking.questions()
                everything += found
                figures[f"{what}: p50 ms"] = median(one.milliseconds for one in found)
                figures[f"{what}: packets of DNS pods"] = packets[0] / len(found)
                figures[f"{what}: packets of client"] = packets[1] / len(found)
            for one in case.pods:
                one.server.finish()
            asked = [name for one in case.pods for _, _, name in one.server.asked()]
            lookups = len(everything) / 2
            figures["known: upstream"] = sum(1 for name in asked if name.startswith("api.")) / lookups
            figures["new: upstream"] = sum(1 for name in asked if name.startswith("n")) / lookups
        # Waits of both kinds of names together say nothing about either.
        return replace(tally_questions(everything, within=PATIENCE), figures=figures)


def _packets(pods: list[Pod]) -> int:
    """Through their links so far, in both directions."""
    return sum(
        int(pod.run("cat", f"/sys/class/net/eth0/statistics/{direction}_packets"))
        for pod in pods
        for direction in ("rx", "tx")
    )
