"""P22: stale data only after a refresh failed or 1.8 s passed, TTL 30, and for a bounded time (RFC 8767)."""

import pytest

from proxy.core.message import Ede
from tests.fakes import World, ede_codes, reply, soa, ttls

DAY = 86400


async def expire_www(world: World, ttl: int = 60) -> None:
    """Keep an answer for www.example and let it expire."""
    world.upstream.answer("www.example", "A", f"www.example {ttl} A 192.0.2.1")
    await world.ask("www.example")
    world.clock.advance(ttl)


async def test_it_is_served_when_every_upstream_fails(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    answer = await world.ask("www.example", use_edns=0)
    assert (ttls(answer), ede_codes(answer)) == ([30], [Ede.STALE_ANSWER])


async def test_it_is_not_served_while_an_upstream_answers(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.2")
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.answer[0][0].to_text(), ede_codes(answer)) == ("192.0.2.2", [])


async def test_it_comes_after_1_8_seconds_of_silence(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.silent("www.example", "A")
    stub = world.send("www.example", use_edns=0)
    await world.upstream.received(2)
    world.clock.advance(1.79)
    await world.settle()
    assert not stub.has_answer()
    world.clock.advance(0.01)
    assert ede_codes(await stub.answer()) == [Ede.STALE_ANSWER]


async def test_its_ttl_is_30_whatever_it_was(world: World) -> None:
    await world.start()
    await expire_www(world, ttl=5)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    for _ in range(2):
        assert ttls(await world.ask("www.example")) == [30]


async def test_the_late_answer_reaches_the_cache_but_not_the_client_who_has_one(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.silent("www.example", "A")
    stub = world.send("www.example")
    for tries, pause in ((2, 0.25), (3, 0.5), (4, 1.06)):
        await world.upstream.received(tries)
        world.clock.advance(pause)
    assert ttls(await stub.answer()) == [30]
    late = reply(world.upstream.asked[-1], "www.example 60 A 192.0.2.2")
    world.upstream.send(len(world.upstream.asked) - 1, late)
    await world.settle()
    assert not stub.has_answer()
    answer = await world.ask("www.example")
    assert (answer.answer[0][0].to_text(), ttls(answer)) == ("192.0.2.2", [60])


async def test_who_asks_after_stale_was_sent_gets_the_late_answer(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.silent("www.example", "A")
    first = world.send("www.example")
    await world.upstream.received(2)
    world.clock.advance(1.8)
    await first.answer()
    second = world.send("www.example")
    await world.settle()
    last = len(world.upstream.asked) - 1
    world.upstream.send(last, reply(world.upstream.asked[last], "www.example 60 A 192.0.2.2"))
    assert (await second.answer()).answer[0][0].to_text() == "192.0.2.2"


async def test_after_a_failed_refresh_it_comes_at_once_for_30_seconds(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    await world.ask("www.example")
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.2")
    world.clock.advance(29.9)
    assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"
    assert len(world.upstream.questions()) == 2
    world.clock.advance(0.1)
    assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.2"
    assert len(world.upstream.questions()) == 3


async def test_it_is_over_after_its_longest_age(world: World) -> None:
    await world.start(stale=DAY)
    await expire_www(world)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    world.clock.advance(DAY - 1)
    assert (await world.ask("www.example")).answer
    world.clock.advance(31)
    assert (await world.ask("www.example")).rcode() == 2


async def test_a_failed_refresh_does_not_lengthen_its_life(world: World) -> None:
    await world.start(stale=60)
    await expire_www(world)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    world.clock.advance(59)
    assert (await world.ask("www.example")).answer
    world.clock.advance(1)
    assert (await world.ask("www.example")).rcode() == 2


async def test_too_old_data_does_not_end_the_waiting(world: World) -> None:
    await world.start(stale=60)
    await expire_www(world)
    world.clock.advance(60)
    world.upstream.silent("www.example", "A")
    stub = world.send("www.example")
    await world.upstream.received(2)
    world.clock.advance(0.25)
    await world.upstream.received(3)
    world.clock.advance(1.6)
    await world.settle()
    assert not stub.has_answer()
    at = len(world.upstream.asked) - 1
    world.upstream.send(at, reply(world.upstream.asked[at], "www.example 60 A 192.0.2.2"))
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.2"


async def test_stale_0_turns_it_off(world: World) -> None:
    await world.start(stale=0)
    await expire_www(world)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    assert (await world.ask("www.example")).rcode() == 2


async def test_a_fresh_nxdomain_replaces_it(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.answer("www.example", "A", rcode="NXDOMAIN", authority=[soa(minimum=5)])
    assert (await world.ask("www.example")).rcode() == 3
    world.clock.advance(6)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer), ttls(answer)) == (3, [Ede.STALE_NXDOMAIN], [30])


async def test_an_uncached_answer_replaces_it(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.answer("www.example", "A", "www.example 0 A 192.0.2.2")
    await world.ask("www.example")
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    assert (await world.ask("www.example")).rcode() == 2


@pytest.mark.parametrize("dnssec", [False, True], ids=["plain", "do"])
async def test_do_has_stale_data_of_its_own(world: World, dnssec: bool) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example", want_dnssec=dnssec)
    world.clock.advance(60)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    assert (await world.ask("www.example", want_dnssec=not dnssec)).rcode() == 2
    assert (await world.ask("www.example", want_dnssec=dnssec)).answer


async def test_a_failing_answer_with_records_does_not_replace_it(world: World) -> None:
    await world.start()
    await expire_www(world)
    world.upstream.answer("www.example", "A", "www.example 60 CNAME lb.example.", rcode="SERVFAIL")
    assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"
