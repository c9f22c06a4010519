"""Sidestep is uninstalled: nothing of it is left on the node, and who asks the Service notices nothing."""

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import ALL, AT_ONCE, LISTENER6, FailoverCase
from proxy.lab.nodes import LISTENER
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES_NOTHING, Expectation, Run, Scenario


class Uninstalled(Scenario):
    name = "uninstalled"
    title = "Uninstalled (stop, cleanup), installed again"
    source = "dns#438"
    story = (
        "A node cache that is uninstalled while it is down leaves its rules and its address for ever. `sidestep "
        "cleanup` needs nothing running: it takes away the table, the addresses, the conntrack entries to them "
        "and the files. Pods that ask kube-dns's Service IP notice neither the stop nor the cleanup nor the next "
        "installation; those that named the link-local address have stopped before, as they must."
    )
    needs = ("coredns",)
    on_sidestep = (
        LOSES_NOTHING,
        AT_ONCE,
        Expectation("leaves nothing on the node", lambda outcome: not outcome.figures["left"]),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        stopped, again, end = (1.5, 3.0, 5.0) if run.short else (2.0, 6.0, 10.0)
        with FailoverCase(cluster, run) as case:
            case.ask(stopped / 2, clients=[one for one in ALL if one.to == "link-local"])
            case.ask(end, clients=[one for one in ALL if one.to == "Service"], rate=20 if not run.short else 10)
            case.fault(stopped, "SIGTERM")
            case.proxy.stop()
            left: list[str] = []
            if case.path == "sidestep":
                case.mark("cleanup")
                case.sidestep.command("cleanup")
                case.mark("it is cleaned up")
                left = [*case.left(), *_flows(case), *_files(case)]
            case.at(again, "it is installed again")
            case.restart()
            case.mark("it serves")
            return case.outcome(*([f"left: {', '.join(left)}"] if left else []), figures={"left": len(left)})


def _flows(case: FailoverCase) -> list[str]:
    listed = case.node.run("conntrack", "-L", "-f", "ipv4") + case.node.run("conntrack", "-L", "-f", "ipv6")
    to = tuple(f"dst={address} " for address in (LISTENER, LISTENER6))
    return [f"flow {line}" for line in listed.splitlines() if any(word in line for word in to)]


def _files(case: FailoverCase) -> list[str]:
    return [f"file {one}" for one in case.sidestep.directory.iterdir() if one != case.sidestep.config]
