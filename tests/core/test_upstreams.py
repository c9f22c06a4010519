"""Which upstream is asked next, when another one is asked too, and who is down."""

from random import Random

import pytest

from proxy.core.upstreams import (
    ANSWERS_FOR_P95,
    FAILURES_TO_DOWN,
    FIRST_PROBE_INTERVAL,
    LONGEST_PROBE_INTERVAL,
    SHORTEST_HEDGE,
    UNKNOWN_HEDGE,
    Upstream,
    order,
)


def upstream(rtt: float | None = None, down: bool = False) -> Upstream:
    made = Upstream("192.0.2.1:53", ".")
    if rtt is not None:
        made.observe_answer(rtt, 1.0)
    made.down = down
    return made


def first_choices(upstreams: list[Upstream], questions: int = 2000) -> list[int]:
    """How often each was first."""
    random = Random(7).random
    firsts = [order(upstreams, random)[0] for _ in range(questions)]
    return [firsts.count(one) for one in upstreams]


def test_everybody_is_in_the_order_once() -> None:
    upstreams = [upstream(0.01), upstream(down=True), upstream(0.2), upstream()]
    for seed in range(50):
        assert sorted(map(id, order(upstreams, Random(seed).random))) == sorted(map(id, upstreams))


def test_those_about_as_fast_share_the_questions() -> None:
    assert min(first_choices([upstream(0.010), upstream(0.012), upstream(0.011)])) > 500


def test_a_slow_one_gets_only_what_explores() -> None:
    fast, slow = first_choices([upstream(0.001), upstream(0.1)])
    assert 0 < slow < 100 < fast


def test_who_has_not_been_asked_yet_is_tried() -> None:
    assert min(first_choices([upstream(0.001), upstream()])) > 500


def test_who_is_down_comes_last_even_when_exploring() -> None:
    fast, down = first_choices([upstream(0.5), upstream(0.001, down=True)])
    assert (fast, down) == (2000, 0)


def test_it_is_down_after_failures_in_a_row_and_up_after_one_answer() -> None:
    one = upstream(0.01)
    for _ in range(FAILURES_TO_DOWN - 1):
        one.observe_failure(2.0)
    one.observe_answer(0.01, 2.0)
    one.observe_failure(3.0)
    assert not one.down
    for _ in range(FAILURES_TO_DOWN - 1):
        one.observe_failure(3.0)
    assert one.down
    assert one.probe_at == 3.0 + FIRST_PROBE_INTERVAL
    one.observe_answer(0.01, 4.0)
    assert not one.down


def test_probes_come_ever_more_rarely_up_to_a_bound() -> None:
    one = upstream()
    for _ in range(FAILURES_TO_DOWN):
        one.observe_failure(0.0)
    intervals = []
    for _ in range(8):
        before = one.probe_at
        one.observe_probe_failure(before)
        intervals.append(one.probe_at - before)
    assert intervals[:3] == [2.0, 4.0, 8.0]
    assert intervals[-1] == LONGEST_PROBE_INTERVAL
    one.observe_recovery()
    assert one.probe_interval == FIRST_PROBE_INTERVAL


def test_a_hedge_comes_at_the_95th_percentile_once_that_is_known() -> None:
    one = upstream()
    for number in range(ANSWERS_FOR_P95 - 1):
        one.observe_answer(0.010 + number * 0.001, 1.0)
    assert one.hedge_after() == UNKNOWN_HEDGE
    for _ in range(100):
        one.observe_answer(0.020, 1.0)
    assert one.hedge_after() == pytest.approx(0.020)


@pytest.mark.parametrize(("rtt", "hedge"), [(0.00001, SHORTEST_HEDGE), (1.5, UNKNOWN_HEDGE)])
def test_a_hedge_is_neither_too_soon_nor_too_late(rtt: float, hedge: float) -> None:
    one = upstream()
    for _ in range(100):
        one.observe_answer(rtt, 1.0)
    assert one.hedge_after() == hedge


def test_one_slow_answer_moves_the_mean_by_an_eighth() -> None:
    one = upstream(0.010)
    one.observe_answer(0.090, 1.0)
    assert one.srtt == pytest.approx(0.020)
