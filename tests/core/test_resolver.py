"""What scenarios on sockets can't show of the resolver: bounds, ready answers, names of our own."""

import dns.edns
import dns.message
import pytest

from proxy.core import resolver as module
from proxy.core.counters import COALESCED, DROPPED, LOOPED, OVERLOADED, PREFETCHED
from proxy.core.message import Rcode
from proxy.core.policy import DnsPolicy, Zone
from tests.core.asking import MARKER, POLICY, Asking, FakeClient
from tests.fakes import ede_codes, question, reply


def address(query: dns.message.Message) -> dns.message.Message:
    return reply(query, f"{query.question[0].name} 10 A 192.0.2.1")


def test_too_many_different_questions_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LOOKUPS", 3)
    asking = Asking()
    for number in range(3):
        assert asking.ask(f"n{number}.example") is None
    response = asking.ask("n3.example", use_edns=0)
    assert response is not None
    assert (response.rcode(), ede_codes(response)) == (Rcode.SERVFAIL, [0])
    assert asking.count(OVERLOADED) == 1
    assert asking.ask("n0.example", number=8) is None


def test_a_zone_with_too_many_questions_leaves_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LOOKUPS_OF_ZONE", 2)
    asking = Asking(DnsPolicy((Zone(".", ("192.0.2.1:53",)), Zone("cluster.local", ("192.0.2.2:53",)))))
    assert asking.ask("n0.example") is None
    assert asking.ask("n1.example") is None
    assert asking.ask("n2.example") is not None
    assert asking.ask("web.cluster.local") is None
    asking.fail()
    assert asking.ask("n3.example") is None
    asking.wait(2.0)
    assert {zone.lookups for zone in map(asking.resolver.zones.find, (b"\0", b"\7cluster\5local\0")) if zone} == {0}


def test_too_many_clients_of_one_question_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITERS", 3)
    asking = Asking()
    for number in range(3):
        assert asking.ask("a.example", number=number) is None
    response = asking.ask("a.example", number=3)
    assert response is not None
    assert response.rcode() == Rcode.SERVFAIL


def test_the_same_question_again_from_the_same_client_is_a_duplicate() -> None:
    asking = Asking()
    first, again, tcp = FakeClient(), FakeClient(), FakeClient(proto="tcp")
    asking.ask("a.example", client=first)
    asking.ask("a.example", client=again)
    asking.ask("a.example", client=tcp)
    asking.ask("a.example", client=tcp)
    asking.answer(address)
    assert [len(c.replies) for c in (first, again, tcp)] == [1, 0, 2]
    assert asking.count(DROPPED, "duplicate") == 1
    assert len(asking.tries) == 0
    assert asking.count(COALESCED) >= 2


def test_who_waits_holds_no_more_of_a_question_than_its_answer_needs() -> None:
    """A pod's 100 connections may have 100 questions each in flight, of 64 KiB of padding each."""
    asking = Asking()
    client = FakeClient(proto="tcp")
    asking.ask("a.example", client=client, options=[dns.edns.GenericOption(12, bytes(500))], number=9)
    [lookup] = asking.resolver._lookups.values()
    [waiter] = lookup.waiters.values()
    assert len(waiter.query.wire) < 100
    asking.answer(address)
    [message] = client.replies
    response = dns.message.from_wire(message)
    assert (response.id, response.edns, response.question[0].name.to_text()) == (9, 0, "a.example.")


def test_an_answer_becomes_ready_when_it_is_asked_for_again() -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.answer(address)
    variants = asking.resolver.cache.variants
    for number in range(3):
        response = asking.ask("a.example", number=number)
        assert response is not None
        assert len(variants) == (number > 0)


@pytest.mark.parametrize("keywords", [{"proto": "tcp"}, {"options": True}])
def test_what_will_not_come_again_in_the_same_bytes_is_not_made_ready(keywords: dict[str, object]) -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.answer(address)
    options = [dns.edns.CookieOption(b"12345678", b"")] if "options" in keywords else None
    client = FakeClient(proto=str(keywords.get("proto", "udp")))
    for number in range(3):
        assert asking.ask("a.example", client=client, number=number, options=options) is not None
    assert not asking.resolver.cache.variants


def test_a_ready_answer_ages_with_every_second() -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.answer(address)
    seen = []
    for number in range(6):
        response = asking.ask("a.example", number=number)
        assert response is not None
        seen.append(response.answer[0].ttl)
        asking.wait(1.0)
    assert seen == [10, 9, 8, 7, 6, 5]


def test_a_popular_name_is_asked_again_before_it_expires() -> None:
    asking = Asking()
    asking.ask("a.example")
    asking.answer(address)
    for number in range(3):
        asking.ask("a.example", number=number)
    assert not asking.tries
    asking.wait(9.0)
    assert asking.ask("a.example") is not None
    assert asking.count(PREFETCHED) == 1
    asking.answer(address)
    asking.wait(2.0)
    response = asking.ask("a.example")
    assert response is not None
    assert response.answer[0].ttl == 8


@pytest.mark.parametrize(("ttl", "asked"), [(1, 2), (2, 1), (5, 1), (100, 1)])
def test_a_short_life_is_not_spent_asking_again(ttl: int, asked: int) -> None:
    """An upstream that caches gives the last second of an answer's life as TTL 1, again and again."""
    asking = Asking()
    asking.ask("a.example")
    asking.answer(lambda query: reply(query, f"a.example {ttl} A 192.0.2.1"))
    for _ in range(ttl * 20 - 1):
        for number in range(3):
            assert asking.ask("a.example", number=number) is not None
        if asking.tries:
            asking.answer(lambda query: reply(query, f"a.example {ttl} A 192.0.2.1"))
        asking.wait(0.05)
    assert asking.count(PREFETCHED) <= asked


def test_nothing_is_asked_again_where_that_is_turned_off() -> None:
    asking = Asking(DnsPolicy(POLICY.zones, prefetch=False))
    asking.ask("a.example")
    asking.answer(address)
    for number in range(3):
        asking.ask("a.example", number=number)
    asking.wait(9.5)
    asking.ask("a.example")
    assert not asking.tries


def test_a_question_of_our_own_that_comes_back_is_a_loop() -> None:
    asking = Asking()
    wire = question("a.example", use_edns=0).to_wire()
    response = dns.message.from_wire(asking.resolver.receive_own_query(wire, FakeClient()))
    assert response.rcode() == Rcode.SERVFAIL
    assert asking.count(LOOPED) == 1


def test_an_upstream_that_hands_our_probe_back_stays_down() -> None:
    asking = Asking(DnsPolicy((Zone(".", ("192.0.2.1:53",)),)))
    for number in range(3):
        asking.ask(f"n{number}.example")
        asking.fail()
        asking.wait(0.001)
    while asking.tries:
        asking.fail()
    asking.wait(1.1)
    upstream, message = asking.probes.pop()
    assert b"sidestep-" + MARKER in message
    back = asking.resolver.receive_query(message, FakeClient(), asking.now)
    assert back is not None
    assert back[3] & 15 == Rcode.SERVFAIL
    asking.resolver.receive_probe(upstream, address(dns.message.from_wire(message)).to_wire(), asking.now)
    assert upstream.down


def test_a_new_policy_keeps_what_is_cached_and_in_flight() -> None:
    asking = Asking()
    waiting = FakeClient()
    asking.ask("a.example")
    asking.answer(address)
    asking.ask("b.example", client=waiting)
    asking.resolver.configure(DnsPolicy((Zone(".", ("192.0.2.2:53",)),)))
    assert asking.ask("a.example") is not None
    asking.answer(address)
    assert len(waiting.replies) == 1
    asking.ask("c.example")
    assert asking.tries[-1].address == "192.0.2.2:53"
