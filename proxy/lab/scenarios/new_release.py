"""A new release takes over from the old one while a client asks 1,000 times a second."""

from collections.abc import Sequence
from typing import ClassVar

from proxy.lab.cluster import Cluster
from proxy.lab.failover_case import AT_ONCE, FailoverCase
from proxy.lab.outcome import Outcome
from proxy.lab.scenario import LOSES, LOSES_NOTHING, Expectation, Run, Scenario
from proxy.lab.sidestep import RELEASE

RATE = 1000
NAMES = 200


class NewRelease(Scenario):
    name = "new_release"
    title = f"New release at {RATE:,}/s"
    source = "dns#667, dns#732"
    story = (
        "A DaemonSet update. NodeLocal DNSCache's new pod can't start beside the old one: rules and address go, "
        "and come back with it, and its cache is empty. Sidestep's new release asks the old one for its sockets "
        f"and its cache, starts its workers on them, and only then lets it go. A pod asks {RATE:,} times a second; "
        f"{NAMES} other names are in the cache."
    )
    needs = ("coredns",)
    modes = ("nftables",)
    on_kube_proxy = (LOSES,)
    on_sidestep: ClassVar[tuple[Expectation, ...]] = (
        LOSES_NOTHING,
        AT_ONCE,
        Expectation("loses nothing of the cache", lambda outcome: not outcome.figures["forgotten"]),
    )
    release: ClassVar[Sequence[str]] = RELEASE

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        released, end = (1.5, 5.0) if run.short else (3.0, 10.0)
        with FailoverCase(cluster, run) as case:
            case.fill_cache(NAMES)
            case.ask(end, busy=RATE)
            case.fault(released, "the new release starts")
            before = after = 0
            if case.path == "sidestep":
                before = case.cached()
                case.sidestep.upgrade(self.release)
            else:
                case.node_cache.stop()
                case.restart()
            case.mark("it serves")
            case.wait()
            if case.path == "sidestep":
                after = case.cached()
            return case.outcome(figures={"forgotten": max(0, before - after)})
