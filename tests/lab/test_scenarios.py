"""Every scenario in its short form on a real cluster, as root: kube-proxy loses what is said, Sidestep doesn't."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from proxy.lab import cluster as clusters
from proxy.lab import tools
from proxy.lab.cluster import Cluster
from proxy.lab.outcome import Mode
from proxy.lab.output import remarks
from proxy.lab.scenario import Scenario, Verdict
from proxy.lab.scenarios import SCENARIOS
from proxy.lab.session import once

Clusters = Callable[[Scenario, Mode], Cluster]

ONE_MODE: dict[str, Mode] = {
    "everything_killed": "iptables",
    "node_cache_stopped": "iptables",
    "uninstalled": "iptables",
    "coredns_replaced_meanwhile": "nftables",
    "rules_flushed": "nftables",
}
"""These take turns: the way to kube-proxy and back, where the modes differ, is also that of everything_hangs."""


@pytest.fixture(scope="module")
def of_kind() -> Iterator[Clusters]:
    """The cluster that fits a scenario; it stays up until one of another kind is needed."""
    with ExitStack() as stack:
        there: dict[tuple[Mode, int, bool], Cluster] = {}

        def get(scenario: Scenario, mode: Mode) -> Cluster:
            kind = mode, scenario.nodes, scenario.overlay
            if kind not in there:
                stack.close()
                there.clear()
                started = clusters.running(mode, nodes=scenario.nodes, overlay=scenario.overlay)
                there[kind] = stack.enter_context(started)
            return there[kind]

        yield get


def _cases() -> list[tuple[Scenario, Mode]]:
    """In an order that needs as few clusters as can be."""
    cases = [
        (scenario, mode)
        for scenario in SCENARIOS
        for mode in scenario.modes
        if mode == ONE_MODE.get(scenario.name, mode)
    ]
    return sorted(cases, key=lambda case: (case[1], case[0].nodes, case[0].overlay))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scenario", "mode"), _cases(), ids=lambda part: getattr(part, "name", part))
def test_a_scenario_shows_what_it_says(scenario: Scenario, mode: Mode, of_kind: Clusters) -> None:
    """Twice if it must: some are about half a second, and a busy machine takes that from either path."""
    failed: list[str] = []
    for turn in range(2):
        try:
            tools.require(*scenario.needs)
            result = once(of_kind(scenario, mode), scenario, mode, short=True, turn=turn, say=print)
        except tools.Unavailable as missing:
            pytest.skip(str(missing))
        if result.verdict is Verdict.SKIPPED:
            pytest.skip("; ".join(result.reasons))
        if result.verdict is not Verdict.FAILED:
            return
        failed += [line for _, said in remarks([result]) for line in said]
    pytest.fail("\n".join(failed))
