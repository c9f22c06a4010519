"""What a scenario is, what is expected of it on both paths, and the judgement. The scenarios are in `scenarios/`.

A scenario sends the same traffic through the same fault twice: to the Service through kube-proxy, and to Sidestep's
listener on the same node.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from proxy.lab.outcome import MODES, PATHS, Mode, Outcome, PathName

if TYPE_CHECKING:
    from proxy.lab.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a scenario: where its traffic goes, and how long it may take."""

    path: PathName
    mode: Mode
    """kube-proxy's; it runs on Sidestep's path as well, as it does in production."""
    short: bool
    """For tests: as few seconds as show the case."""
    directory: Path
    """An empty one, for the logs of senders and receivers."""
    say: Callable[[str], None]
    """Tells the person who watches what happens now: `scaled to zero`."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Something that an outcome must show; `text` goes on after "it", as in `loses nothing`."""

    text: str
    holds: Callable[[Outcome], bool]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Something that kube-proxy's and Sidestep's outcome must show together, in this order."""

    text: str
    holds: Callable[[Outcome, Outcome], bool]


LOSES_NOTHING = Expectation("loses nothing", lambda outcome: outcome.lost == 0)
MISDELIVERS_NOTHING = Expectation("misdelivers nothing", lambda outcome: outcome.misdelivered == 0)
LOSES = Expectation("loses something", lambda outcome: outcome.lost > 0)
MISDELIVERS = Expectation("misdelivers something", lambda outcome: outcome.misdelivered > 0)


class Scenario(ABC):
    """One fault and the traffic that suffers from it. A subclass sets the constants and runs it, and has no state.

    `run` is given a cluster just after its `reset`: no pod, no Service, no Sidestep. It need not take away what it
    adds, but undoes what it does to a node: a rule of its own, a sysctl, a stopped kube-proxy. It returns an Outcome
    made by `outcome.tally` or `outcome.tally_questions`. Where the machine can't show the case it says so in
    `not_shown` rather than staging it. It raises `tools.Unavailable` for what is missing.
    """

    name: ClassVar[str]
    """As people type it; also the name of its module."""
    title: ClassVar[str]
    """A few words for the table."""
    story: ClassVar[str]
    """What happens in production, the traffic, the fault and what is counted, in a few sentences."""
    source: ClassVar[str]
    """Where it was told of: `kubernetes#139628`, or `dns#438` for kubernetes/dns."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Programs beyond what every scenario needs: `coredns`."""
    modes: ClassVar[tuple[Mode, ...]] = MODES
    """Modes of kube-proxy in which the case differs; one of them where it doesn't."""
    nodes: ClassVar[int] = 1
    overlay: ClassVar[bool] = False
    """VXLAN between the nodes."""
    on_kube_proxy: ClassVar[tuple[Expectation, ...]] = ()
    on_sidestep: ClassVar[tuple[Expectation, ...]] = ()
    together: ClassVar[tuple[Comparison, ...]] = ()

    @abstractmethod
    def run(self, cluster: "Cluster", run: Run) -> Outcome:
        """Send the traffic of one path through the fault and count."""


class Verdict(StrEnum):
    AS_EXPECTED = "as expected"
    NOT_SHOWN = "not shown"
    """As expected where it could be seen."""
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table."""

    scenario: Scenario
    mode: Mode
    outcomes: Mapping[PathName, Outcome]
    verdict: Verdict
    reasons: tuple[str, ...] = field(default=())
    """What failed, could not be shown, or is missing."""


def judge(scenario: Scenario, mode: Mode, outcomes: Mapping[PathName, Outcome]) -> Result:
    """What the outcomes of both paths say about what was expected."""
    failed: list[str] = []
    unseen: list[str] = []
    for path, expectations in zip(PATHS, (scenario.on_kube_proxy, scenario.on_sidestep), strict=True):
        outcome = outcomes[path]
        if outcome.not_shown:
            unseen.append(f"{path}: {outcome.not_shown}")
        else:
            failed += [f"{path}: not so: it {wanted.text}" for wanted in expectations if not wanted.holds(outcome)]
    kube_proxy, sidestep = outcomes["kube-proxy"], outcomes["sidestep"]
    if not unseen:
        failed += [f"not so: {wanted.text}" for wanted in scenario.together if not wanted.holds(kube_proxy, sidestep)]
    verdict = Verdict.FAILED if failed else Verdict.NOT_SHOWN if unseen else Verdict.AS_EXPECTED
    return Result(scenario, mode, outcomes, verdict, (*failed, *unseen))


def skipped(scenario: Scenario, mode: Mode, reason: str) -> Result:
    """The row of a scenario for which something is missing."""
    return Result(scenario, mode, {}, Verdict.SKIPPED, (reason,))


class UnknownScenario(Exception):
    """The message names it and those that there are."""
