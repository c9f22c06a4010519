"""Fates, outages and timelines from what senders and receivers wrote down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lab.outcome import (
    Arrival,
    Mark,
    Membership,
    Question,
    Sent,
    quantile,
    tally,
    tally_questions,
    timeline,
    waits_us,
    worst_outage_ms,
)

MS = 1_000_000


def members(*names: str) -> Membership:
    membership = Membership()
    for name in names:
        membership.add(name, 0)
    return membership


def test_each_datagram_has_one_fate() -> None:
    sent = [Sent(number, number * 10 * MS) for number in range(4)]
    arrivals = [Arrival(0, 0, MS, "a"), Arrival(1, 10 * MS, 11 * MS, "stranger"), Arrival(3, 30 * MS, 31 * MS, "a")]
    outcome = tally(sent, arrivals, members("a"))
    assert (outcome.sent, outcome.delivered, outcome.misdelivered, outcome.lost) == (4, 2, 1, 1)


def test_a_copy_at_a_stranger_is_misdelivered_wherever_else_it_came() -> None:
    arrivals = [Arrival(1, 0, 1, "a"), Arrival(1, 0, 2, "stranger")]
    outcome = tally([Sent(1, 0)], arrivals, members("a"))
    assert (outcome.delivered, outcome.misdelivered, outcome.lost) == (0, 1, 0)
    assert outcome.notes == ("1 arrived twice",)


def test_what_arrives_without_having_been_sent_is_the_labs_own_mistake() -> None:
    with pytest.raises(ValueError, match="a received number 2"):
        tally([Sent(1, 0)], [Arrival(2, 0, 1, "a")], members("a"))
    with pytest.raises(ValueError, match="one number"):
        tally([Sent(1, 0), Sent(1, 5)], [], members("a"))
    with pytest.raises(ValueError, match="nothing was sent"):
        tally([], [], members("a"))


def test_errors_of_sending_are_told_and_lost() -> None:
    outcome = tally([Sent(1, 0, "ECONNREFUSED"), Sent(2, 5)], [Arrival(2, 5, 6, "a")], members("a"))
    assert (outcome.lost, outcome.notes) == (1, ("sending failed 1 times: ECONNREFUSED",))


def test_what_was_kept_is_late_and_delivered() -> None:
    outcome = tally(
        [Sent(1, 0), Sent(2, 0)], [Arrival(1, 0, 1001 * MS, "a"), Arrival(2, 0, 999 * MS, "a")], members("a")
    )
    assert (outcome.delivered, outcome.late) == (2, 1)


@pytest.mark.parametrize(
    ("sent", "arrived", "right"),
    [
        (5, 15, True),  # it became an endpoint meanwhile: a relay kept the line
        (15, 16, True),
        (19, 25, True),  # was on its way when it ceased to be one
        (21, 22, False),
        (5, 6, False),
        (35, 36, True),
    ],
)
def test_a_receiver_is_right_while_it_is_an_endpoint_between_sending_and_arrival(
    sent: int, arrived: int, right: bool
) -> None:
    membership = Membership()
    membership.add("a", 10)
    membership.add("a", 12)  # it is one already
    membership.remove("a", 20)
    membership.remove("a", 22)
    membership.add("a", 30)
    assert membership.covers("a", sent, arrived) is right
    assert not membership.covers("b", sent, arrived)


def test_the_worst_outage_counts_from_the_first_sending_to_the_last() -> None:
    sent = [number * 100 * MS for number in range(11)]
    assert worst_outage_ms(sent, []) == 1000
    assert worst_outage_ms(sent, [500 * MS]) == 500
    assert worst_outage_ms(sent, [100 * MS, 900 * MS]) == 800
    assert worst_outage_ms(sent, [100 * MS, 200 * MS]) == 800  # none until the end
    assert worst_outage_ms(sent, [5000 * MS]) == 1000  # came when nobody sent any more


def test_a_timeline_counts_by_100_ms_from_the_first_sending() -> None:
    line = timeline([50 * MS, 149 * MS, 150 * MS], [51 * MS, 260 * MS], [350 * MS], [Mark(170 * MS, "scaled")])
    assert line.sent == (2, 1, 0, 0)
    assert line.delivered == (1, 0, 1, 0)
    assert line.misdelivered == (0, 0, 0, 1)
    assert line.marks == ((120.0, "scaled"),)


@given(st.data())
def test_fates_add_up_and_a_timeline_loses_nothing(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    sent = [Sent(number, data.draw(st.integers(0, 5000 * MS))) for number in range(count)]
    arrivals = [
        Arrival(
            one.number, one.at_ns, one.at_ns + data.draw(st.integers(0, 3000 * MS)), data.draw(st.sampled_from("ab"))
        )
        for one in data.draw(st.lists(st.sampled_from(sent), max_size=60))
    ]
    membership = Membership()
    membership.add("a", 1000 * MS)
    membership.remove("a", 3000 * MS)
    outcome = tally(sent, arrivals, membership)
    assert outcome.timeline
    assert sum(outcome.timeline.sent) == outcome.sent == outcome.delivered + outcome.misdelivered + outcome.lost
    assert sum(outcome.timeline.delivered) == outcome.delivered >= outcome.late
    assert sum(outcome.timeline.misdelivered) == outcome.misdelivered
    assert outcome.lost == len({one.number for one in sent} - {one.number for one in arrivals})
    assert 0 <= outcome.worst_outage_ms <= (max(s.at_ns for s in sent) - min(s.at_ns for s in sent)) / MS


def question(number: int, answered_ms: float | None = 1, rcode: int = 0, answers: int = 1) -> Question:
    at_ns = number * 100 * MS
    if answered_ms is None:
        return Question(number, "A", at_ns, 0, -1, 0, 0)
    return Question(number, "A", at_ns, at_ns + round(answered_ms * MS), rcode, answers, 60)


def test_errors_silence_and_late_answers_are_lost_questions() -> None:
    asked = [question(1), question(2, 1, rcode=2), question(3, None), question(4, 2500), question(5, 3)]
    outcome = tally_questions(asked, within=2)
    assert (outcome.sent, outcome.delivered, outcome.lost) == (5, 2, 3)
    assert outcome.notes == ("1 were answered with an error", "2 had no answer within 2 s")
    assert outcome.figures == {"p50 ms": 2, "p99 ms": 3, "slowest ms": 3}


def test_what_a_good_answer_is_can_be_said() -> None:
    outcome = tally_questions([question(1, answers=0), question(2)], within=2, good=lambda one: one.answers > 0)
    assert outcome.delivered == 1
    with pytest.raises(ValueError, match="nothing was asked"):
        tally_questions([], within=1)


def test_waits_are_told_of_what_came() -> None:
    sent = [Sent(number, 5000) for number in range(201)]
    arrivals = [Arrival(number, 5000, 5000 + number * 1000, "a") for number in range(200)]
    assert waits_us(sent, [*arrivals, Arrival(999, 0, 7, "a")]) == {"p50 µs": 99.5, "p99 µs": 197.0}
    assert waits_us(sent[200:], arrivals) == {}


def test_a_quantile_is_one_of_the_numbers() -> None:
    assert [quantile(list(range(1, 101)), share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert quantile([7], 0.99) == 7
