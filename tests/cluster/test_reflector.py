"""The decisions alone: time moves by hand, random numbers come from a seed."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.reflector import ANY, NEWEST, Backoff, Ended, Reflector
from proxy.cluster.timing import Timing


class Course:
    """A reflector whose requests are made and ended by hand."""

    def __init__(self, version: str = ANY, uniform: Callable[[float, float], float] | None = None) -> None:
        self.now = 1000.0
        self.reflector = Reflector(Timing(), uniform or random.Random(7).uniform, version)
        self.after = 0.0

    def begin(self) -> tuple[str, str]:
        request = self.reflector.next_request()
        self.after = request.after
        self.now += request.after
        self.reflector.started(self.now)
        return request.what, request.version

    def end(self, how: Ended, seconds: float = 0.0, retry_after: float | None = None) -> tuple[str, str]:
        """What comes after this."""
        self.now += seconds
        self.reflector.ended(how, self.now, retry_after)
        return self.begin()

    def follow(self, version: str = "100") -> None:
        """Get to a watch that has begun to follow."""
        self.begin()
        self.reflector.listed(version)
        self.reflector.saw(version)


def test_it_begins_with_whatever_the_server_has() -> None:
    assert Course().begin() == ("watch_list", ANY)


def test_it_begins_no_older_than_what_was_saved() -> None:
    course = Course("812")
    assert course.begin() == ("watch_list", "812")
    assert course.end(Ended.TOO_LARGE) == ("watch_list", NEWEST)


def test_it_watches_from_where_the_list_was() -> None:
    course = Course()
    course.begin()
    assert course.end(Ended.REFUSED) == ("list", ANY)
    assert course.after == 0
    course.reflector.listed("200")
    assert course.end(Ended.CLOSED) == ("watch", "200")
    assert course.after == 0


def test_it_lists_at_once_where_initial_events_are_refused_and_never_asks_for_them_again() -> None:
    course = Course()
    course.begin()
    course.end(Ended.REFUSED)
    course.reflector.listed("200")
    course.end(Ended.CLOSED)
    assert course.end(Ended.EXPIRED) == ("list", "200")


@pytest.mark.parametrize("how", [Ended.FAILED, Ended.BROKEN])
def test_it_tries_a_list_in_turn_when_initial_events_fail(how: Ended) -> None:
    course = Course()
    course.begin()
    assert course.end(how) == ("list", ANY)
    assert course.end(how) == ("watch_list", ANY)


@pytest.mark.parametrize("how", [Ended.CLOSED, Ended.SILENT])
def test_it_lists_where_initial_events_never_end(how: Ended) -> None:
    course = Course()
    course.begin()
    course.reflector.saw("99")
    assert course.end(how, 10) == ("list", ANY)
    assert course.end(Ended.FAILED) == ("list", ANY)


def test_it_does_not_take_versions_of_initial_events() -> None:
    course = Course()
    course.begin()
    course.reflector.saw("99")
    assert course.reflector.version == ANY
    course.reflector.listed("100")
    course.reflector.saw("101")
    assert course.reflector.version == "101"


def test_it_lists_from_the_last_version_after_410_and_from_the_newest_after_a_second_one() -> None:
    course = Course()
    course.follow("100")
    assert course.end(Ended.EXPIRED, 5) == ("watch_list", "100")
    assert course.end(Ended.EXPIRED) == ("watch_list", NEWEST)
    assert course.after == 0
    assert course.end(Ended.EXPIRED) == ("watch_list", NEWEST)
    assert course.after > 0
    course.reflector.listed("300")
    assert course.end(Ended.CLOSED, 5) == ("watch", "300")


def test_it_gives_up_a_version_that_is_too_large() -> None:
    course = Course()
    course.follow("900")
    assert course.end(Ended.TOO_LARGE) == ("watch_list", NEWEST)
    course.reflector.listed("500")
    assert course.end(Ended.CLOSED, 5) == ("watch", "500")


def test_it_goes_on_from_the_last_version_after_a_clean_end() -> None:
    course = Course()
    course.follow("100")
    course.reflector.saw("150")
    assert course.end(Ended.CLOSED, 300) == ("watch", "150")
    assert course.after == 0
    assert course.end(Ended.CLOSED, 300) == ("watch", "150")
    assert course.after == 0


def test_a_version_never_goes_back_and_need_not_be_a_number() -> None:
    course = Course()
    course.follow("100")
    course.reflector.saw("99")
    course.reflector.saw("")
    assert course.reflector.version == "100"
    course.reflector.saw("abc")
    assert course.reflector.version == "abc"


def test_failures_repeat_the_watch_without_a_list() -> None:
    course = Course()
    course.follow("100")
    for _ in range(50):
        assert course.end(Ended.FAILED) == ("watch", "100")


@pytest.mark.parametrize("how", [Ended.CLOSED, Ended.BROKEN])
def test_it_lists_after_three_watches_that_brought_nothing(how: Ended) -> None:
    course = Course()
    course.follow("100")
    assert course.end(Ended.CLOSED, 300) == ("watch", "100")
    assert course.end(how, 0.1) == ("watch", "100")
    assert course.after > 0
    assert course.end(how, 0.1) == ("watch", "100")
    assert course.end(how, 0.1) == ("watch_list", "100")


def test_a_watch_that_lasts_ends_the_count_of_fruitless_ones() -> None:
    course = Course()
    course.follow("100")
    course.end(Ended.CLOSED, 300)
    for _ in range(10):
        assert course.end(Ended.CLOSED, 0.1) == ("watch", "100")
        assert course.end(Ended.CLOSED, 0.1) == ("watch", "100")
        assert course.end(Ended.CLOSED, 2) == ("watch", "100")


def test_a_stream_that_falls_silent_is_opened_again_and_one_that_said_nothing_is_listed() -> None:
    course = Course()
    course.follow("100")
    assert course.end(Ended.SILENT, 130) == ("watch", "100")
    assert course.end(Ended.SILENT, 70) == ("watch_list", "100")


def test_it_waits_for_as_long_as_the_server_says_and_some_more() -> None:
    course = Course(uniform=lambda low, high: high)
    course.follow()
    course.end(Ended.FAILED, retry_after=7)
    assert course.after == 7 + 0.8
    course.end(Ended.FAILED, retry_after=1e9)
    assert course.after == 120 + 1.6


def test_waits_double_from_800_ms_to_30_s_and_are_drawn_from_nothing_to_that() -> None:
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    backoff = Backoff(Timing(), uniform)
    waits = [backoff.next_wait() for _ in range(8)]
    assert waits == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert {low for low, _ in bounds} == {0.0}
    backoff.reset()
    assert backoff.next_wait() == 0.8


def test_waits_begin_anew_after_a_minute_of_a_healthy_stream_and_not_before() -> None:
    course = Course(uniform=lambda low, high: high)
    course.follow()
    for _ in range(5):
        course.end(Ended.FAILED)
    course.reflector.saw("101")
    course.end(Ended.BROKEN, 59)
    assert course.after == 25.6
    course.reflector.saw("102")
    course.end(Ended.BROKEN, 60)
    assert course.after == 0.8


def test_an_answer_that_is_waited_for_in_vain_is_not_healthy() -> None:
    course = Course(uniform=lambda low, high: high)
    course.follow()
    course.end(Ended.FAILED, 60)
    course.end(Ended.FAILED, 60)
    assert course.after == 1.6


def test_the_server_is_asked_to_end_watches_after_5_to_10_minutes() -> None:
    reflector = Reflector(Timing(), random.Random(1).uniform)
    seconds = {reflector.next_request().seconds for _ in range(200)}
    assert min(seconds) >= 300
    assert max(seconds) <= 600
    assert len(seconds) > 50


@given(st.lists(st.tuples(st.sampled_from(Ended), st.booleans(), st.booleans(), st.floats(0, 1000)), max_size=60))
def test_whatever_happens_it_never_asks_in_a_tight_loop(
    happened: list[tuple[Ended, bool, bool, float]],
) -> None:
    course = Course(uniform=lambda low, high: high)
    version = 100
    course.begin()
    at_once = 0
    for how, lists, sees, seconds in happened:
        version += 1
        if lists:
            course.reflector.listed(str(version))
        if sees:
            course.reflector.saw(str(version))
        what, asked = course.end(how, seconds)
        assert (what == "watch") <= (asked not in (ANY, NEWEST))
        at_once = at_once + 1 if course.after == 0 and seconds < 1 and not lists else 0
        assert at_once <= 2
