"""A DNS answer of 4 KiB from the other node, to a client that takes it over UDP."""

from contextlib import ExitStack

from proxy.lab.cluster import Cluster
from proxy.lab.fragments import Fragments
from proxy.lab.outcome import Outcome, Question, tally_questions
from proxy.lab.scenario import LOSES_NOTHING, Expectation, Run, Scenario
from proxy.lab.sidestep import DNS
from proxy.lab.traffic import Traffic

EDNS_BYTES = 4096
ADDRESSES = 250
"""At 16 bytes each, with the question: just what goes into that."""
RATE, PATIENCE = 50, 2.0


class LargeDnsAnswer(Scenario):
    name = "large_dns_answer"
    title = "DNS answer of 4 KiB over a VXLAN"
    source = "kubernetes#56706"
    story = (
        f"A client says that it takes {EDNS_BYTES} bytes over UDP, as many resolvers did before 2020 and some still "
        f"do, and asks for a headless Service with {ADDRESSES} pods. The DNS pod answers in one datagram, the kernel "
        "in three fragments. Where something on the way drops fragments the client hears nothing, asks again, hears "
        f"nothing, and never learns that TCP would do. A pod asks {RATE} times a second a server on the other node, "
        "once for each name; what is truncated it asks for again over TCP, as stubs do. From the middle on a rule "
        "drops fragments as they leave the VXLAN. Counted are answers with all addresses. Sidestep asks for no more "
        "than 1232 bytes, is told that this is not enough, and gets the whole over TCP. It sends no more than 1232 "
        "bytes over UDP either, so its client gets a truncated answer first and the whole one over TCP, which costs "
        "each lookup a connection on its own node."
    )
    modes = ("nftables",)
    nodes = 2
    overlay = True
    on_kube_proxy = (
        Expectation(
            "sends three fragments for each answer",
            lambda outcome: outcome.figures["fragments between nodes"] == 3 * outcome.sent,
        ),
        Expectation(
            "loses everything while fragments are dropped, and nothing before",
            lambda outcome: outcome.lost == outcome.figures["asked while fragments were dropped"],
        ),
    )
    on_sidestep = (
        LOSES_NOTHING,
        Expectation("sends no fragment", lambda outcome: not outcome.figures["fragments between nodes"]),
        Expectation(
            "truncates each answer over UDP", lambda outcome: outcome.figures["asked over TCP again"] == outcome.sent
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        seconds = 1.0 if run.short else 5.0
        kube_dns = cluster.service(
            "kube-system/kube-dns", "10.96.0.10", 53, port_name="dns", protocols=("UDP", "TCP")
        )
        pod, client = cluster.pod("dns-1", node=1), cluster.pod("client")
        with ExitStack() as stack:
            traffic = stack.enter_context(Traffic(run.directory))
            fragments = stack.enter_context(Fragments(cluster.nodes[1], cluster.node))
            traffic.dns_server(pod, f"{pod.address}:53", addresses=ADDRESSES)
            cluster.set_endpoints(kube_dns, [pod.address])
            cluster.wait_synced()
            target = kube_dns.address
            if run.path == "sidestep":
                sidestep = stack.enter_context(cluster.sidestep(dns=kube_dns))
                sidestep.wait_applied(kube_dns, [pod.address])
                target = DNS
            asked: list[Question] = []
            truncated = 0
            for dropped in (False, True):
                run.say(f"fragments {'are dropped' if dropped else 'pass'}")
                if dropped:
                    fragments.drop()
                asking = traffic.questioner(
                    client,
                    target,
                    name=f"{'late' if dropped else 'early'}-{{number}}.shop.svc.cluster.local",
                    rate=RATE,
                    seconds=seconds,
                    source_ports="fresh",
                    timeout=PATIENCE,
                    edns_bytes=EDNS_BYTES,
                )
                asking.start()
                asking.wait(60)
                second = asking.questions()
                asked += second
                truncated += int(asking.summary["truncated"])
            figures: dict[str, float] = {
                "fragments between nodes": fragments.sent(),
                "asked while fragments were dropped": len(second),
                "asked over TCP again": truncated,
            }
        return tally_questions(asked, within=PATIENCE, good=_whole, figures=figures)


def _whole(question: Question) -> bool:
    return question.answers == ADDRESSES
