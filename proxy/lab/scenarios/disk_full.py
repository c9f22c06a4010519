"""The disk under Sidestep's files is full while all of it is killed and started, and CoreDNS is replaced."""

import signal

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import ADDRESS, FOLLOWS, NEW_NAMES, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import Expectation, Run, Scenario

DISK_BYTES = 256 * 1024


class DiskFull(Scenario):
    name = "disk_full"
    title = "Disk full"
    source = "field knowledge"
    story = (
        "Logs fill the node's disk. Sidestep writes one file, the endpoints that it would begin with if the API "
        "server were away, and makes its sockets there. The disk is full; a worker is killed, all of Sidestep is "
        "killed and started again, then CoreDNS is replaced. node-cache writes nothing while it runs, so its side "
        "shows only the kill."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_sidestep = (
        FOLLOWS,
        Expectation("serves by the new endpoints", lambda outcome: not outcome.figures["not in the cache lost %"]),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        full, killed, dead, again, replaced, end = (
            (0.5, 1.0, 2.0, 3.0, 5.0, 7.0) if run.short else (1.0, 2.0, 4.0, 7.0, 10.0, 14.0)
        )
        with FailoverCase(cluster, run, disk_bytes=DISK_BYTES) as case:
            case.ask(end)
            if case.path == "sidestep":
                case.at(full, "the disk is full")
                case.fill_disk()
                case.fault(killed, "a worker is killed")
                case.sidestep.signal(signal.SIGKILL, "dns")
            case.fault(dead, "all of it is killed")
            case.proxy.kill()
            case.at(again, "it is started again")
            case.restart()
            case.fault(replaced, "CoreDNS is replaced")
            case.recreate_coredns(0)
            lost = case.lost_aside(ADDRESS, NEW_NAMES)
            return case.outcome(figures={"not in the cache lost %": lost})
