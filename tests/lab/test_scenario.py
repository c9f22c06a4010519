"""What is expected of both paths, the judgement, and the registry."""

import re

import pytest

from proxy.lab import scenarios
from proxy.lab.outcome import MODES
from proxy.lab.scenario import Scenario, UnknownScenario, Verdict, judge, skipped
from tests import peers
from tests.lab.results import Scripted, outcome


def test_outcomes_that_show_what_was_said_are_as_expected() -> None:
    result = judge(Scripted(), "nftables", {"kube-proxy": outcome(10, 4), "sidestep": outcome()})
    assert (result.verdict, result.reasons) == (Verdict.AS_EXPECTED, ())


def test_each_expectation_that_fails_is_named() -> None:
    result = judge(Scripted(), "nftables", {"kube-proxy": outcome(10, 10), "sidestep": outcome(10, 9)})
    assert result.verdict is Verdict.FAILED
    assert result.reasons == (
        "kube-proxy: not so: it loses something",
        "sidestep: not so: it loses nothing",
        "not so: Sidestep delivers more",
    )


def test_a_path_that_cannot_show_the_case_is_not_asked() -> None:
    unseen = outcome(not_shown="not here: Linux 6.18 resolves the clash")
    result = judge(Scripted(), "nftables", {"kube-proxy": unseen, "sidestep": outcome()})
    assert (result.verdict, result.reasons) == (Verdict.NOT_SHOWN, (f"kube-proxy: {unseen.not_shown}",))
    result = judge(Scripted(), "nftables", {"kube-proxy": unseen, "sidestep": outcome(10, 9)})
    assert result.verdict is Verdict.FAILED


def test_what_is_missing_is_the_reason_of_a_skip() -> None:
    assert skipped(Scripted(), "iptables", "not installed: coredns").reasons == ("not installed: coredns",)


def test_names_are_those_of_the_modules() -> None:
    for scenario in scenarios.SCENARIOS:
        assert type(scenario).__module__ == f"{scenarios.__name__}.{scenario.name}"
    assert len({scenario.name for scenario in scenarios.SCENARIOS}) == len(scenarios.SCENARIOS)


def test_the_page_has_all_of_them_in_the_order_of_the_table() -> None:
    _, _, page = (peers.ROOT / "docs/lab.md").read_text().partition("## The scenarios")
    names = [scenario.name for scenario in scenarios.SCENARIOS]
    told = dict.fromkeys(word for word in re.findall(r"`(\w+)`", page) if word in names)
    assert list(told) == names


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_says_what_it_shows_and_expects(scenario: Scenario) -> None:
    assert len(scenario.title) <= 60
    assert scenario.story.endswith(".")
    assert scenario.source == "field knowledge" or re.fullmatch(r"[\w/-]+#\d+(, [\w/-]+#\d+)*", scenario.source)
    assert "kubernetes/kubernetes#" not in scenario.source
    assert "kubernetes/dns#" not in scenario.source
    assert scenario.on_sidestep or scenario.together
    assert scenario.modes
    assert set(scenario.modes) <= set(MODES)


def test_scenarios_are_chosen_by_name_in_the_order_of_the_table() -> None:
    first, second = scenarios.SCENARIOS[:2]
    assert scenarios.chosen(()) == scenarios.SCENARIOS
    assert scenarios.chosen([second.name, first.name]) == (first, second)
    with pytest.raises(UnknownScenario, match=f"no scenario is named nonsense; there are: {first.name}, "):
        scenarios.chosen(["nonsense", first.name])
