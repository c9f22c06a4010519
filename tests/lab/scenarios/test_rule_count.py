"""What the scenario of the rule count makes of its figures."""

import pytest

from proxy.lab.outcome import MODES, Mode, Outcome
from proxy.lab.scenario import Verdict, judge
from proxy.lab.scenarios.rule_count import FEW, MANY, SHORT, SOME, RuleCount, growth


def outcome(
    first_cpu: dict[int, float], steady_cpu: dict[int, float], mode: Mode, first_p50: dict[int, float]
) -> Outcome:
    figures: dict[str, float] = {}
    for count, cpu in first_cpu.items():
        figures |= {
            f"{count}: Services compared before": count - 1 if mode == "iptables" else 0,
            f"{count}: first CPU µs": cpu,
            f"{count}: steady CPU µs": steady_cpu[count],
            f"{count}: first p50 µs": first_p50[count],
        }
    return Outcome(sent=10, delivered=10, figures=figures)


FLAT = {FEW: 40.0, SOME: 40.0, MANY: 40.0}
STEADY = {FEW: 25.0, SOME: 25.0, MANY: 25.0}
GROWN = {FEW: 40.0, SOME: 44.0, MANY: 90.0}
LATENCY = {FEW: 190.0, SOME: 250.0, MANY: 220.0}


def test_growth_leaves_out_how_fast_the_machine_was() -> None:
    assert growth(outcome(GROWN, STEADY, "iptables", LATENCY).figures) == pytest.approx(90 / 40)
    half_as_fast = outcome({**FLAT, MANY: 80.0}, {**STEADY, MANY: 50.0}, "iptables", LATENCY)
    assert growth(half_as_fast.figures) == pytest.approx(1)
    short = outcome({FEW: 40.0, SHORT: 44.0}, {**STEADY, SHORT: 25.0}, "iptables", {**LATENCY, SHORT: 190.0})
    assert growth(short.figures) == pytest.approx(1.1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cost", [FLAT, GROWN])
def test_a_chain_makes_first_packets_dearer_and_a_map_does_not(mode: Mode, cost: dict[int, float]) -> None:
    sidestep = outcome(FLAT, STEADY, mode, LATENCY)
    result = judge(RuleCount(), mode, {"kube-proxy": outcome(cost, STEADY, mode, LATENCY), "sidestep": sidestep})
    expected = (mode == "iptables") == (cost is GROWN)
    assert result.verdict is (Verdict.AS_EXPECTED if expected else Verdict.FAILED)


def test_sidestep_may_not_become_slower_with_the_count() -> None:
    kube_proxy = outcome(GROWN, STEADY, "iptables", LATENCY)
    slower = outcome(FLAT, STEADY, "iptables", {**LATENCY, MANY: 600.0})
    result = judge(RuleCount(), "iptables", {"kube-proxy": kube_proxy, "sidestep": slower})
    assert result.reasons == (
        "sidestep: not so: it has, with more Services, a median on first packets below 2 x that with 10 + 100 µs",
    )
