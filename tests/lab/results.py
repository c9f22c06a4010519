"""Scenarios and results made by hand."""

from proxy.lab.cluster import Cluster
from proxy.lab.outcome import MODES, Mark, Mode, Outcome, PathName, timeline
from proxy.lab.scenario import LOSES, LOSES_NOTHING, Comparison, Run, Scenario

MS = 1_000_000


def outcome(sent: int = 10, delivered: int = 10, misdelivered: int = 0, *, not_shown: str = "") -> Outcome:
    times = [number * 100 * MS for number in range(sent)]
    return Outcome(
        sent=sent,
        delivered=delivered,
        misdelivered=misdelivered,
        worst_outage_ms=(sent - delivered) * 100.0,
        timeline=timeline(
            times, times[:delivered], times[delivered : delivered + misdelivered], [Mark(300 * MS, "<zero>")]
        ),
        not_shown=not_shown,
    )


class Scripted(Scenario):
    """Its outcomes are given; it writes down what it ran on."""

    name = "scripted"
    title = "Pods & ports"
    story = "What happens when <b>nothing</b> listens."
    source = "kubernetes#1"
    on_kube_proxy = (LOSES,)
    on_sidestep = (LOSES_NOTHING,)
    together = (Comparison("Sidestep delivers more", lambda theirs, ours: ours.delivered > theirs.delivered),)

    def __init__(
        self,
        kube_proxy: Outcome | BaseException | None = None,
        sidestep: Outcome | BaseException | None = None,
        *,
        name: str = "scripted",
        modes: tuple[Mode, ...] = MODES,
        nodes: int = 1,
        overlay: bool = False,
        needs: tuple[str, ...] = (),
    ) -> None:
        # Constants of a class are what other scenarios have; here each instance is one of its own.
        vars(self).update(name=name, modes=modes, nodes=nodes, overlay=overlay, needs=needs)
        self._outcomes: dict[PathName, Outcome | BaseException] = {
            "kube-proxy": kube_proxy or outcome(10, 4, 2),
            "sidestep": sidestep or outcome(),
        }
        self.ran: list[Run] = []

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        self.ran.append(run)
        run.say("a step")
        found = self._outcomes[run.path]
        if isinstance(found, BaseException):
            raise found
        return found
