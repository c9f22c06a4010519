"""Whom a question is sent to next, and what a reply says of its sender."""

from collections.abc import Callable
from itertools import pairwise

import dns.flags
import dns.message
import pytest

from proxy.core.counters import REJECTED, UPSTREAM_FAILED
from proxy.core.pending import MOST_TRIES, TRY_LIFETIME
from proxy.core.policy import DnsPolicy, Zone
from proxy.core.upstreams import NO_EDNS_FOR
from tests.core.asking import Asking, FakeClient
from tests.fakes import question, reply

TWO = DnsPolicy((Zone(".", ("192.0.2.1:53", "192.0.2.2:53")),))


def refusing(rcode: str) -> Callable[[dns.message.Message], dns.message.Message]:
    return lambda query: reply(query, rcode=rcode)


def address(query: dns.message.Message) -> dns.message.Message:
    return reply(query, f"{query.question[0].name} 10 A 192.0.2.1")


def test_a_silent_upstream_is_asked_at_most_so_often() -> None:
    asking = Asking()
    asking.ask("a.example")
    sent = [asking.now]
    known = len(asking.tries)
    while asking.resolver.in_flight:
        asking.wait(0.01)
        if len(asking.tries) > known:
            known = len(asking.tries)
            sent.append(asking.now)
    assert len(sent) <= MOST_TRIES
    assert min(after - before for before, after in pairwise(sent)) > 0.24


def test_a_second_upstream_is_asked_when_the_first_is_slow_and_the_first_answer_wins() -> None:
    asking = Asking(TWO)
    client = FakeClient()
    asking.ask("a.example", client=client)
    asking.wait(0.3)
    assert len({attempt.address for attempt in asking.tries}) == 2
    asking.answer(address, which=0)
    assert len(client.replies) == 1
    assert len(asking.tries) == 1
    asking.answer(address)
    assert len(client.replies) == 1


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_who_refuses_is_followed_at_once_by_the_next(rcode: str) -> None:
    asking = Asking(TWO)
    asking.ask("a.example")
    first = asking.tries[0].address
    asking.answer(refusing(rcode))
    assert [attempt.address != first for attempt in asking.tries] == [True]


def test_one_broken_name_does_not_take_an_upstream_down() -> None:
    asking = Asking()
    for _ in range(10):
        asking.ask("broken.example")
        while asking.tries:
            asking.answer(refusing("SERVFAIL"))
        asking.wait(61.0)
    assert not asking.resolver.zones.upstreams[0].down


def test_an_upstream_that_chokes_on_edns_is_remembered_for_a_while() -> None:
    asking = Asking()
    client = FakeClient()
    asking.ask("a.example", client=client)
    asking.answer(refusing("FORMERR"))
    assert not asking.tries[0].edns
    asking.answer(address)
    assert len(client.replies) == 1
    asking.ask("b.example")
    assert not asking.tries[0].edns
    asking.answer(address)
    asking.wait(NO_EDNS_FOR)
    asking.ask("c.example")
    assert asking.tries[0].edns


def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    asking = Asking()
    client = FakeClient()
    asking.ask("a.example", client=client)
    asking.answer(lambda query: reply(query, flags=dns.flags.TC))
    assert [attempt.proto for attempt in asking.tries] == ["tcp"]
    asking.answer(address)
    assert len(client.replies) == 1


def test_a_reply_to_another_question_is_no_reply() -> None:
    asking = Asking()
    asking.ask("a.example")
    assert not asking.answer(lambda query: address(question("b.example")))
    assert asking.count(REJECTED, "question") == 1
    assert asking.answer(address)


def test_a_broken_reply_ends_a_try_over_tcp_alone() -> None:
    asking = Asking()
    asking.ask("a.example")
    attempt = asking.tries[0]
    assert not asking.resolver.receive_answer(attempt, bytes(attempt.message)[:2] + b"\x81\x80", asking.now)
    assert asking.count(REJECTED, "malformed") == 1
    asking.answer(lambda query: reply(query, flags=dns.flags.TC))
    attempt = asking.tries[0]
    assert asking.resolver.receive_answer(attempt, b"\0\0", asking.now)
    assert asking.count(UPSTREAM_FAILED, "malformed") == 1


def test_three_silent_questions_take_an_upstream_down_and_a_late_answer_brings_it_back() -> None:
    asking = Asking()
    for number in range(3):
        asking.ask(f"n{number}.example")
    asking.wait(TRY_LIFETIME + 0.1)
    assert asking.resolver.zones.upstreams[0].down
    asking.answer(address)
    assert not asking.resolver.zones.upstreams[0].down


def test_nobody_is_asked_more_often_for_being_late_with_a_format_error() -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.wait(1.0)
    assert len(asking.tries) == MOST_TRIES
    while asking.tries:
        asking.answer(refusing("FORMERR"))
        assert len(asking.tries) < MOST_TRIES


def test_nobody_is_asked_more_often_over_tcp() -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.wait(1.0)
    for _ in range(MOST_TRIES):
        asking.answer(lambda query: reply(query, flags=dns.flags.TC))
    assert [attempt.proto for attempt in asking.tries] == ["tcp"] * MOST_TRIES
    asking.answer(refusing("FORMERR"))
    assert len(asking.tries) == MOST_TRIES - 1


@pytest.mark.parametrize(("reason", "down"), [("no_socket", False), ("refused", True)])
def test_only_what_is_the_upstream_s_fault_takes_it_down(reason: str, down: bool) -> None:
    asking = Asking()
    for number in range(3):
        asking.ask(f"n{number}.example")
        asking.resolver.receive_failure(asking.tries[-1], reason, asking.now)
    assert asking.resolver.zones.upstreams[0].down is down
