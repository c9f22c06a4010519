"""Which clusters are started for which scenarios, and what becomes of those that cannot run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.lab import tools
from proxy.lab.cluster import Cluster
from proxy.lab.control_plane import Refused
from proxy.lab.outcome import Mode
from proxy.lab.scenario import Result, Scenario, Verdict
from proxy.lab.session import play
from proxy.lab.tools import Unavailable
from tests.lab.results import Scripted, outcome


class FakeClusters:
    """Stands in for `cluster.running`, and writes down what was started, reset and ended."""

    def __init__(self, directory: Path, *, overlay: bool = True) -> None:
        self.events: list[str] = []
        self._directory = directory
        self._overlay = overlay

    @contextmanager
    def running(self, mode: Mode, *, nodes: int, overlay: bool, say: Any) -> Iterator[Cluster]:
        if overlay and not self._overlay:
            raise Unavailable("no VXLAN here")
        kind = f"{mode}{' x2' if nodes == 2 else ''}{' overlay' if overlay else ''}"
        directory = self._directory / str(len(self.events))
        directory.mkdir()
        self.events.append(f"start {kind}")
        try:
            reset = lambda: self.events.append("reset")  # noqa: E731
            run, kube_proxy = SimpleNamespace(directory=directory), SimpleNamespace(what=f"kube-proxy ({mode})")
            yield cast(Cluster, SimpleNamespace(run=run, kube_proxy=kube_proxy, reset=reset))
        finally:
            self.events.append(f"end {kind}")


@pytest.fixture
def clusters(tmp_path: Path) -> FakeClusters:
    return FakeClusters(tmp_path)


def played(
    clusters: FakeClusters, scenarios: Sequence[Scenario], *modes: Mode, times: int = 1, said: list[str] | None = None
) -> list[Result]:
    say = (said if said is not None else []).append
    return list(play(scenarios, modes, short=True, times=times, say=say, running=clusters.running))


def test_one_cluster_serves_all_scenarios_that_fit_into_it(clusters: FakeClusters) -> None:
    first, second = Scripted(name="first"), Scripted(name="second")
    wide = Scripted(name="wide", nodes=2, overlay=True, modes=("nftables",))
    results = played(clusters, [first, wide, second], "iptables", "nftables")
    assert [(result.scenario.name, result.mode) for result in results] == [
        ("first", "iptables"),
        ("second", "iptables"),
        ("first", "nftables"),
        ("second", "nftables"),
        ("wide", "nftables"),
    ]
    once = ["reset"] * 4
    assert clusters.events == [
        *("start iptables", *once, "end iptables"),
        *("start nftables", *once, "end nftables"),
        *("start nftables x2 overlay", "reset", "reset", "end nftables x2 overlay"),
    ]


def test_each_path_runs_once_with_an_empty_directory_of_its_own(clusters: FakeClusters) -> None:
    scenario = Scripted(modes=("nftables",))
    results = played(clusters, [scenario], "iptables", "nftables", times=2)
    assert [result.verdict for result in results] == [Verdict.AS_EXPECTED] * 2
    assert [run.path for run in scenario.ran] == ["kube-proxy", "sidestep"] * 2
    assert len({run.directory for run in scenario.ran}) == 4
    assert not any(list(run.directory.iterdir()) for run in scenario.ran)
    assert all(run.short and run.mode == "nftables" for run in scenario.ran)


def test_a_missing_program_skips_without_a_cluster(clusters: FakeClusters) -> None:
    (result,) = played(clusters, [Scripted(needs=("no-such-program",))], "nftables")
    assert (result.verdict, result.outcomes) == (Verdict.SKIPPED, {})
    assert result.reasons == ("not installed: no-such-program",)
    assert clusters.events == []


def test_a_scenario_that_finds_something_missing_is_skipped(clusters: FakeClusters) -> None:
    (result,) = played(clusters, [Scripted(sidestep=Unavailable("no musl"))], "nftables")
    assert (result.verdict, result.reasons) == (Verdict.SKIPPED, ("no musl",))


def test_a_fault_of_the_lab_fails_its_scenario_alone(clusters: FakeClusters) -> None:
    said: list[str] = []
    broken = Scripted(RuntimeError("sender failed:\nTraceback\nOSError: no"), name="broken")
    first, second = played(clusters, [broken, Scripted()], "nftables", said=said)
    assert (first.verdict, second.verdict) == (Verdict.FAILED, Verdict.AS_EXPECTED)
    assert first.reasons == ("kube-proxy: could not be run: sender failed: OSError: no",)
    assert "sender failed:\nTraceback\nOSError: no" in said


@pytest.mark.parametrize("error", [TimeoutError("timed out"), Refused(500, "etcdserver: request timed out")])
def test_an_api_server_that_does_not_serve_fails_its_scenario_alone(clusters: FakeClusters, error: Exception) -> None:
    first, second = played(clusters, [Scripted(error, name="cut off"), Scripted()], "nftables")
    assert (first.verdict, second.verdict) == (Verdict.FAILED, Verdict.AS_EXPECTED)
    assert first.reasons[0].endswith("timed out")


def test_a_watcher_who_has_gone_ends_it(clusters: FakeClusters) -> None:
    def say(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        next(play([Scripted()], ["nftables"], short=True, times=1, say=say, running=clusters.running))


def test_without_an_overlay_what_needs_one_is_skipped(tmp_path: Path) -> None:
    clusters = FakeClusters(tmp_path, overlay=False)
    results = played(clusters, [Scripted(), Scripted(name="wide", overlay=True)], "nftables")
    assert [(result.verdict, result.reasons) for result in results] == [
        (Verdict.AS_EXPECTED, ()),
        (Verdict.SKIPPED, ("no VXLAN here",)),
    ]


def test_without_any_cluster_nothing_runs() -> None:
    def running(mode: Mode, **_: Any) -> Any:
        raise tools.Unavailable("needs root")

    with pytest.raises(Unavailable, match="needs root"):
        next(play([Scripted()], ["nftables"], short=True, times=1, say=lambda _: None, running=running))


def test_an_interruption_ends_the_cluster(clusters: FakeClusters) -> None:
    scenarios = [Scripted(), Scripted(KeyboardInterrupt(), name="interrupted")]
    found: list[Result] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(play(scenarios, ["nftables"], short=True, times=1, say=lambda _: None, running=clusters.running))
    assert clusters.events[-1] == "end nftables"


def test_steps_are_told_with_what_runs_and_the_outcome(clusters: FakeClusters) -> None:
    said: list[str] = []
    played(clusters, [Scripted(outcome(2000, 1500, 100))], "nftables", said=said)
    assert [line.split(" s ")[1] for line in said] == [
        "a step",
        "delivered 1,500 of 2,000, misdelivered 100, lost 400",
        "a step",
        "delivered 10 of 10, misdelivered 0, lost 0",
    ]
    assert all(line.startswith("scripted, nftables, ") for line in said)
