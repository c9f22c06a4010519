"""What an endpoint's refusals do to the endpoints that are used."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.ejection import TRIAL_WAIT, Ejection

A, B, C, D = (f"192.0.2.{number}:8125" for number in range(1, 5))
SECONDS = 5.0


def ejection(*endpoints: str) -> Ejection:
    made = Ejection()
    made.configure(endpoints, SECONDS, 0.0)
    return made


def test_it_uses_all_of_them_in_the_order_given():
    made = ejection(B, A, C, A)
    assert made.usable == (B, A, C)
    assert made.ejected == ()
    assert made.deadline() is None


def test_it_ejects_at_once_what_refuses():
    made = ejection(A, B, C)
    assert made.refused(B, 1.0)
    assert made.usable == (A, C)
    assert made.ejected == (B,)
    assert made.deadline() == 6.0


def test_it_never_ejects_more_than_half():
    made = ejection(A, B, C)
    assert made.refused(A, 1.0)
    assert not made.refused(B, 1.0)
    assert made.usable == (B, C)


def test_it_never_ejects_the_only_one():
    made = ejection(A)
    assert not made.refused(A, 1.0)
    assert made.usable == (A,)


def test_it_ejects_again_when_another_is_back():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.heard(A, 2.0)
    assert made.refused(B, 2.0)
    assert made.usable == (A,)


def test_it_learns_nothing_from_refusals_of_what_was_sent_before():
    made = ejection(A, B)
    made.refused(A, 1.0)
    assert not made.refused(A, 4.0)
    assert made.deadline() == 6.0


def test_it_tries_with_exactly_one_datagram_when_the_time_is_up():
    made = ejection(A, B)
    made.refused(A, 1.0)
    assert not made.expire(5.9)
    assert made.expire(6.0)
    assert made.usable == (A, B)
    assert made.on_trial == {A}
    assert made.ejected == (A,)
    assert made.deadline() is None  # it waits for a datagram
    made.sent(A, 7.0)
    assert made.usable == (B,)
    assert made.on_trial == set()
    assert made.deadline() == 7.0 + TRIAL_WAIT


def test_it_takes_back_what_does_not_refuse_the_trial():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.expire(6.0)
    made.sent(A, 7.0)
    assert made.expire(7.0 + TRIAL_WAIT)
    assert made.usable == (A, B)
    assert made.ejected == ()
    assert made.deadline() is None


def test_it_ejects_again_what_refuses_the_trial():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.expire(6.0)
    made.sent(A, 7.0)
    assert made.refused(A, 7.01)
    assert made.usable == (B,)
    assert made.deadline() == 7.01 + SECONDS


def test_it_takes_back_what_answers():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.heard(A, 1.5)
    made.heard(B, 1.5)
    assert made.usable == (A, B)
    assert made.ejected == ()


def test_it_knows_nothing_of_what_was_sent_to_those_in_use():
    made = ejection(A, B)
    made.sent(A, 1.0)
    assert made.usable == (A, B)
    assert made.deadline() is None


def test_it_forgets_what_is_no_longer_there():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.configure((B, C), SECONDS, 2.0)
    made.configure((A, B, C), SECONDS, 3.0)
    assert made.usable == (A, B, C)
    assert not made.refused(D, 4.0)


def test_it_keeps_what_is_out_while_others_come_and_go():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.configure((A, B, C), SECONDS, 2.0)
    assert made.usable == (B, C)


def test_it_takes_back_the_longest_ejected_first_when_there_are_too_few_left():
    made = ejection(A, B, C, D)
    made.refused(C, 1.0)
    made.refused(A, 2.0)
    made.configure((A, B, C), SECONDS, 3.0)
    assert made.usable == (B, C)
    made.configure((A,), SECONDS, 4.0)
    assert made.usable == (A,)


def test_an_ejection_lasts_as_long_as_the_policy_says_when_it_begins():
    made = ejection(A, B)
    made.configure((A, B), 1.0, 0.0)
    made.refused(A, 1.0)
    assert made.deadline() == 2.0


def test_it_pauses_any_number_of_them():
    made = ejection(A, B)
    made.pause([A], 2.0, 1.0)
    made.pause([B, C], 3.0, 1.0)
    assert made.usable == ()
    assert made.ejected == ()
    assert made.deadline() == 2.0
    assert made.expire(2.0)
    assert made.usable == (A,)
    assert made.expire(3.0)
    assert made.usable == (A, B)


def test_a_trial_waits_for_the_end_of_a_pause():
    made = ejection(A, B)
    made.refused(A, 1.0)
    made.pause([A], 10.0, 1.0)
    assert not made.expire(6.0)
    assert made.deadline() == 10.0
    made.expire(10.0)
    assert made.on_trial == {A}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["refused", "sent", "heard", "pause", "expire", "configure"]),
        st.sampled_from([A, B, C, D]),
        st.floats(0.0, 6.0),
        st.sets(st.sampled_from([A, B, C, D])),
    )
)


@given(STEPS)
def test_it_never_leaves_out_more_than_half_nor_for_ever(steps):
    made, now = ejection(A, B, C, D), 0.0
    for what, address, seconds, endpoints in steps:
        now += seconds
        match what:
            case "configure":
                made.configure(sorted(endpoints), SECONDS, now)
            case "pause":
                made.pause([address], now + seconds, now)
            case "expire":
                made.expire(now)
            case _:
                getattr(made, what)(address, now)
        assert len(made.ejected) <= len(made.endpoints) // 2
        assert set(made.usable) <= set(made.endpoints)
        assert made.on_trial <= set(made.usable) & set(made.ejected)
    looks = 0
    while (deadline := made.deadline()) is not None or made.on_trial:
        now = now if deadline is None else max(now, deadline)
        made.expire(now)
        for address in made.on_trial:
            made.sent(address, now)
        looks += 1
        assert looks < 20
    assert made.usable == made.endpoints
