"""The node's connection tracking table is full: StatsD from new sockets is dropped, unless it is not tracked."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, MISDELIVERS_NOTHING, Expectation, Run, Scenario
from proxy.lab.statsd_case import StatsdCase

FRESH_RATE, STEADY_RATE, OTHERS_RATE = 200, 50, 20

FULL = Expectation("shows a full table", lambda outcome: outcome.figures["tracked, % of the most"] > 99)


class ConntrackFullStatsd(Scenario):
    name = "conntrack_full_statsd"
    title = "StatsD, conntrack table full"
    source = "kubernetes#56903"
    story = (
        "Some workload opens connections faster than they time out, and the kernel drops the first packet of every "
        "new flow (nf_conntrack: table full, dropping packet). A StatsD client that opens a socket for each "
        "datagram, or has just been started, is a new flow; it sends into the void and is told nothing. A pod sends "
        f"{FRESH_RATE} datagrams a second from fresh ports and {STEADY_RATE} from one port. The table is filled with "
        "established flows that nobody ends, and another pod takes what becomes free; while it is full the pod "
        "behind the Service is replaced; in the end the table is emptied. Sidestep runs with `node:`, so what is "
        "sent to it is not tracked. What it sends on is, as one flow for each endpoint, which is there already. The "
        "flow to the new pod is dropped like any other, but the kernel says so to a sender on its own node: "
        "Sidestep keeps counters until there is room."
    )
    modes = ("nftables",)
    on_kube_proxy = (
        LOSES,
        FULL,
        Expectation("loses nothing before", lambda outcome: not outcome.figures["before: lost"]),
        Expectation(
            "loses most of what comes from fresh ports while it is full",
            lambda outcome: outcome.figures["full, fresh ports: lost %"] > 80,
        ),
        Expectation("drops packets for it", lambda outcome: outcome.figures["conntrack drop"] > 0),
    )
    on_sidestep = (LOSES_NOTHING, MISDELIVERS_NOTHING, FULL)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        seconds = 2.0 if run.short else 5.0
        conntrack = cluster.conntrack()
        with StatsdCase(cluster, run, node=True) as case:
            first, second = case.pod("statsd-1"), case.pod("statsd-2")
            case.endpoints(first)
            one_port = case.send(STEADY_RATE, 600)
            case.mark("the table has room")
            before = case.send(FRESH_RATE, seconds, source_ports="fresh")
            before.wait(60)
            try:
                case.mark("it is filled")
                counted = conntrack.statistics()
                conntrack.forget_udp()  # flows of before would expire and make room, the more the slower the machine
                most = conntrack.fill()
                others = case.traffic.statsd_sender(
                    cluster.pod("other"), f"{first.address}:9", rate=OTHERS_RATE, seconds=600, source_ports="fresh"
                )
                others.start()
                case.mark("it is full")
                share = 100 * conntrack.count() / most
                full = case.send(FRESH_RATE, seconds, source_ports="fresh")
                full.wait(60)
                case.mark("the pod is replaced")
                case.endpoints(second)
                replaced = case.send(FRESH_RATE, seconds, source_ports="fresh")
                replaced.wait(60)
                others.finish()
                drops = conntrack.statistics()
                share = min(share, 100 * conntrack.count() / most)
            finally:
                conntrack.flush()
            case.mark("it is empty")
            case.send(FRESH_RATE, seconds, source_ports="fresh").wait(60)
            one_port.finish()
            figures: dict[str, float] = {"tracked, % of the most": share}
            for name in ("drop", "early_drop"):
                figures[f"conntrack {name}"] = drops[name] - counted[name]
            lost = case.lost
            figures |= {
                "before: lost": lost(before),
                "full, fresh ports: lost %": 100 * lost(full) / len(full.sent()),
                "pod replaced, fresh ports: lost %": 100 * lost(replaced) / len(replaced.sent()),
                "one port: lost": lost(one_port),
            }
            return case.outcome(figures=figures)
