"""StatsD datagrams of the usual size are larger than an overlay takes, and somebody drops fragments."""

from proxy.lab.cluster import Cluster
from proxy.lab.fragments import Fragments
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, MISDELIVERS_NOTHING, Expectation, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

SIZE_BYTES, LINES = 1432, 10
RATE = 50


class OverlayFragmentation(Scenario):
    name = "overlay_fragmentation"
    title = "StatsD in fragments over a VXLAN"
    source = "DataDog/java-dogstatsd-client#17"
    story = (
        f"StatsD clients fill datagrams up to {SIZE_BYTES} bytes, which fits 1500. With headers that is 10 bytes "
        "more than a VXLAN's MTU of 1450, so each becomes two fragments, and nobody is told. That goes well until "
        "something on the way drops fragments, as firewalls, eBPF datapaths and some clouds do; then no full "
        f"datagram arrives. A pod sends {RATE} such datagrams a second, {LINES} lines each, to a server on the other "
        "node; from the middle on a rule there drops fragments as they leave the VXLAN. Counted are lines, and by "
        "the kernel's IP counters the fragments between the nodes. Sidestep gets fragments from the pod, which knows "
        "no better, but on its own node; between the nodes it packs lines to 1422 bytes."
    )
    modes = ("nftables",)
    nodes = 2
    overlay = True
    on_kube_proxy = (
        Expectation(
            "sends two fragments for each datagram",
            lambda outcome: outcome.figures["fragments between nodes"] == 2 * outcome.sent / LINES,
        ),
        Expectation(
            "loses everything while fragments are dropped, and nothing before",
            lambda outcome: outcome.lost == outcome.figures["sent while fragments were dropped"],
        ),
    )
    on_sidestep = (
        LOSES_NOTHING,
        MISDELIVERS_NOTHING,
        Expectation("sends no fragment", lambda outcome: not outcome.figures["fragments between nodes"]),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        seconds = 2.0 if run.short else 5.0
        with StatsdCase(cluster, run) as case, Fragments(*cluster.nodes) as fragments:
            server = case.pod("statsd-1", node=1)
            case.endpoints(server)
            case.mark("fragments pass")
            case.send(RATE, seconds, size_bytes=SIZE_BYTES, lines=LINES).wait(60)
            case.arrived()
            case.mark("fragments are dropped")
            fragments.drop()
            second = case.send(RATE, seconds, size_bytes=SIZE_BYTES, lines=LINES)
            second.wait(60)
            figures: dict[str, float] = {
                "fragments between nodes": fragments.sent(),
                "sent while fragments were dropped": len(second.sent()),
            }
            return case.outcome(figures=figures)
