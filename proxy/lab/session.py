"""Runs scenarios, each on both paths, in as few clusters as they need. Knows nothing of how results are shown."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby
from typing import Protocol

from proxy.lab import tools
from proxy.lab.cluster import Cluster
from proxy.lab.outcome import PATHS, Mode, Outcome, PathName
from proxy.lab.scenario import Result, Run, Scenario, Verdict, judge, skipped

Say = Callable[[str], None]


class Starts(Protocol):
    """`cluster.running`."""

    def __call__(self, mode: Mode, *, nodes: int, overlay: bool, say: Say) -> AbstractContextManager[Cluster]: ...


def play(
    scenarios: Iterable[Scenario],
    modes: Sequence[Mode],
    *,
    short: bool,
    times: int,
    say: Say,
    running: Starts,
    seen: Callable[[Cluster], None] = lambda _: None,
) -> Generator[Result, None, None]:
    """A result for each scenario, mode and time, as soon as it is there; a cluster serves all that fit into it.

    `seen` gets each cluster once. A scenario for which a program is missing is skipped. Raises Unavailable where
    there can't be a cluster at all; where only an overlay can't be had, what needs one is skipped.
    """
    wanted = [(scenario, mode) for scenario in scenarios for mode in modes if mode in scenario.modes]

    def kind(of: tuple[Scenario, Mode]) -> tuple[str, int, bool]:
        return of[1], of[0].nodes, of[0].overlay

    for (_, nodes, overlay), group in groupby(sorted(wanted, key=kind), kind):
        with ExitStack() as stack:
            cluster: Cluster | None = None
            for scenario, mode in group:
                try:
                    tools.require(*scenario.needs)
                except tools.Unavailable as missing:
                    yield skipped(scenario, mode, str(missing))
                    continue
                if cluster is None:
                    try:
                        cluster = stack.enter_context(running(mode, nodes=nodes, overlay=overlay, say=say))
                    except tools.Unavailable as missing:
                        if not overlay:
                            raise
                        yield skipped(scenario, mode, str(missing))
                        continue
                    seen(cluster)
                for turn in range(times):
                    yield once(cluster, scenario, mode, short=short, turn=turn, say=say)


def once(cluster: Cluster, scenario: Scenario, mode: Mode, *, short: bool, turn: int = 0, say: Say) -> Result:
    """Both paths of one scenario. What goes wrong in the lab itself makes a failed result."""
    outcomes: dict[PathName, Outcome] = {}
    for path in PATHS:
        directory = cluster.run.directory / f"{scenario.name}-{path}-{turn}"
        directory.mkdir()
        began = time.monotonic()

        def tell(step: str, path: PathName = path, began: float = began) -> None:
            say(f"{scenario.name}, {mode}, {path}: {time.monotonic() - began:4.1f} s {step}")

        try:
            cluster.reset()
            outcomes[path] = scenario.run(cluster, Run(path, mode, short, directory, tell))
        except tools.Unavailable as missing:
            return skipped(scenario, mode, str(missing))
        except (RuntimeError, OSError) as error:
            say(str(error))
            first, *_, last = (*str(error).split("\n"), *str(error).strip().split("\n"))
            reason = first if last == first else f"{first} {last}"
            return Result(scenario, mode, outcomes, Verdict.FAILED, (f"{path}: could not be run: {reason}",))
        told = outcomes[path]
        tell(f"delivered {told.delivered:,} of {told.sent:,}, misdelivered {told.misdelivered:,}, lost {told.lost:,}")
    return judge(scenario, mode, outcomes)
