"""The API server is away for the whole time: hang, kill, start and new release go the same."""

import signal

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import ADDRESS, FOLLOWS, NEW_NAMES, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, Run, Scenario
from proxy.lab.tools import Unavailable


class ApiServerAway(Scenario):
    name = "api_server_away"
    title = "API server away, then everything else"
    source = "kubernetes#92559"
    story = (
        "The control plane is down, and now the node cache has trouble, too. The API server is killed. Then all "
        "of the node's DNS hangs for a while, all of it is killed and started again, and a new release takes "
        "over. What a start needs of the API server, the endpoints, it has on disk from before."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_kube_proxy = (LOSES,)
    on_sidestep = (FOLLOWS,)

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        hung, on, killed, again, release, end = (
            (0.8, 2.3, 3.5, 4.5, 6.5, 9.0) if run.short else (2.0, 5.0, 8.0, 11.0, 14.0, 18.0)
        )
        if cluster.api is None:
            raise Unavailable("there is no API server here that could go away; make testbed builds one")
        with FailoverCase(cluster, run) as case:
            try:
                cluster.api.kill_server()
                case.ask(end)
                case.fault(hung, "all of it is stopped")
                case.proxy.signal(signal.SIGSTOP)
                case.at(on, "it goes on")
                case.proxy.signal(signal.SIGCONT)
                case.fault(killed, "all of it is killed")
                case.proxy.kill()
                case.at(again, "it is started again")
                case.restart()
                case.mark("it serves")
                if case.path == "sidestep":
                    case.fault(release, "a new release starts")
                    case.sidestep.upgrade()
                    case.mark("it serves")
                lost = case.lost_aside(ADDRESS, NEW_NAMES)
                return case.outcome(figures={"not in the cache lost %": lost})
            finally:
                case.proxy.signal(signal.SIGCONT)
                cluster.api.start_server()
                cluster.api.wait_until_ready()
