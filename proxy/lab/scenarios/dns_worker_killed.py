"""The process that answers DNS is killed three times while a client asks 1,000 times a second."""

import signal

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import ALL, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, Expectation, Run, Scenario

RATE = 1000
KILLS = 3
TCP = sum(1 for client in ALL if client.how == "TCP")


class DnsWorkerKilled(Scenario):
    name = "dns_worker_killed"
    title = f"DNS process killed three times at {RATE:,}/s"
    source = "dns#438"
    story = (
        "A bug, a hostile packet or the kernel ends the process that answers DNS. A node cache of one process "
        "takes its sockets with it, and what is asked until it listens again is refused. Sidestep's sockets "
        "belong to another process: what comes meanwhile waits in them for the next worker; only a question that "
        f"was read and not yet answered can die with it. A pod asks {RATE:,} times a second, others less often; "
        "SIGKILL three times. NodeLocal DNSCache's side is started again at once, without the back-off that a "
        "kubelet keeps."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_kube_proxy = (LOSES,)
    on_sidestep = (
        Expectation("loses at most the datagram in hand at each kill", lambda o: o.figures["UDP lost"] <= KILLS),
        Expectation(
            "loses at most the connection of each TCP client", lambda o: o.figures["TCP lost"] <= KILLS * TCP
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        every, end = (1.5, 5.5) if run.short else (3.0, 12.0)
        with FailoverCase(cluster, run) as case:
            case.ask(end, busy=RATE)
            for turn in range(1, KILLS + 1):
                case.fault(turn * every - 0.5, "SIGKILL")
                if case.path == "sidestep":
                    case.sidestep.signal(signal.SIGKILL, "dns")
                else:
                    case.node_cache.kill()
                    case.node_cache.start()
            case.wait()
            tcp = case.unanswered(lambda client: client.how == "TCP")
            return case.outcome(figures={"UDP lost": case.unanswered() - tcp, "TCP lost": tcp})
