"""The kernel kills the node's DNS for its memory, as often as it comes back, until there is memory again."""

from contextlib import ExitStack

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import FOLLOWS, FailoverCase
from proxy.lab.memory_limit import MemoryLimit
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import Expectation, Run, Scenario
from proxy.lab.tools import until

_ROOM = 16 << 20
_LEFT = 4 << 20


class OutOfMemory(Scenario):
    name = "out_of_memory"
    title = "OOM kill in its control group"
    source = "dns#621, elastisys/compliantkubernetes-apps#1955"
    story = (
        "A container reaches its memory limit and the kernel kills what is in it. Here something else eats the "
        "memory of the control group that Sidestep runs in, until every process of it is gone; then the memory is "
        "free again and it is started. NodeLocal DNSCache's side gets the SIGKILL alone. The lease runs out as "
        "after any kill."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_sidestep = (
        FOLLOWS,
        Expectation("is killed by the kernel", lambda outcome: outcome.figures["killed for memory"] > 0),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        eaten, again, end = (1.0, 3.5, 5.5) if run.short else (2.0, 6.0, 10.0)
        with ExitStack() as stack:
            group = stack.enter_context(MemoryLimit(f"sidestep-lab-{cluster.run.id}"))
            with FailoverCase(cluster, run, before=group.before) as case:
                case.ask(end)
                case.fault(eaten, "its memory is eaten")
                if case.path == "sidestep":
                    most = group.usage() + _ROOM
                    group.limit(most)
                    eater = case.node.spawn(*group.eater(most - _LEFT))
                    until(lambda: not case.sidestep.pids(), "all of Sidestep killed by the kernel", 10)
                    case.died("all of it is dead")
                    case.at(again, "there is memory again")
                    eater.kill()
                    eater.wait()
                    group.limit(None)
                else:
                    case.node_cache.kill()
                    case.at(again, "it is started again")
                case.restart()
                case.mark("it serves")
                return case.outcome(figures={"killed for memory": group.kills()})
