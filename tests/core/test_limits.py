import pytest

from proxy.core.limits import MOST_SOURCES, Budget

ONE, OTHER = "198.51.100.1", "198.51.100.2"


def admitted(budget: Budget, source: str, datagrams: int, now: float, lines: int = 1) -> int:
    return sum(budget.admits(source, lines, now) for _ in range(datagrams))


def test_a_source_may_send_a_second_s_worth_at_once_and_then_at_its_rate() -> None:
    budget = Budget(100, 0)
    assert admitted(budget, ONE, 500, 1000.0) == 100
    assert admitted(budget, ONE, 500, 1000.5) == 50
    assert admitted(budget, ONE, 500, 1060.0) == 100


def test_sources_do_not_share() -> None:
    budget = Budget(10, 0)
    assert admitted(budget, ONE, 50, 1000.0) == 10
    assert admitted(budget, OTHER, 50, 1000.0) == 10


def test_lines_count_whatever_datagrams_they_come_in() -> None:
    budget = Budget(0, 100)
    assert admitted(budget, ONE, 50, 1000.0, lines=10) == 10
    assert admitted(budget, ONE, 50, 1000.5, lines=10) == 5


def test_a_datagram_with_more_lines_than_the_budget_holds_passes_and_is_paid_for() -> None:
    budget = Budget(0, 10)
    assert budget.admits(ONE, 45, 1000.0)
    assert not budget.admits(ONE, 1, 1003.0)
    assert budget.admits(ONE, 1, 1003.6)


def test_both_budgets_must_allow_it() -> None:
    budget = Budget(5, 100)
    assert admitted(budget, ONE, 50, 1000.0, lines=1) == 5
    assert admitted(budget, OTHER, 50, 1000.0, lines=50) == 2


def test_what_is_refused_is_not_charged() -> None:
    budget = Budget(10, 0)
    assert admitted(budget, ONE, 1000, 1000.0) == 10
    assert admitted(budget, ONE, 1, 1000.1) == 1


@pytest.mark.parametrize("rates", [(10, 0), (0, 10)])
def test_time_that_goes_backwards_gives_nothing(rates: tuple[int, int]) -> None:
    budget = Budget(*rates)
    assert admitted(budget, ONE, 50, 1000.0) == 10
    assert admitted(budget, ONE, 50, 990.0) == 0


def test_it_remembers_a_bounded_number_of_sources_and_forgets_who_was_silent_longest() -> None:
    budget = Budget(1, 0)
    for number in range(MOST_SOURCES):
        assert budget.admits(f"source {number}", 1, 1000.0)
    assert not budget.admits("source 0", 1, 1000.0)
    assert budget.admits("one more", 1, 1000.0)
    assert not budget.admits("source 0", 1, 1000.0)
    assert budget.admits("source 1", 1, 1000.0)
