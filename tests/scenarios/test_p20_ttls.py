"""P20: TTLs age on a monotonic clock, 0 is not kept, absurd ones are capped, an RRset has one (RFC 2181)."""

import struct

import dns.flags
import dns.message

from tests.fakes import World, question, reply, soa, ttls


async def test_a_ttl_falls_with_every_whole_second_and_never_shows_0(world: World) -> None:
    await world.start(stale=0, prefetch=False)
    world.upstream.answer("www.example", "A", "www.example 10 A 192.0.2.1")
    shown = []
    for seconds in (0, 5, 3, 1, 0.9):
        world.clock.advance(seconds)
        shown += ttls(await world.ask("www.example"))
    assert shown == [10, 5, 2, 1, 1]
    assert len(world.upstream.questions()) == 1


async def test_an_answer_is_over_when_its_age_reaches_its_ttl(world: World) -> None:
    await world.start(stale=0, prefetch=False)
    world.upstream.answer("www.example", "A", "www.example 10 A 192.0.2.1")
    for _ in range(3):
        await world.ask("www.example")
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    world.clock.advance(10)
    assert (await world.ask("www.example")).rcode() == 2


async def test_a_ready_made_answer_ages_like_any_other(world: World) -> None:
    await world.start(prefetch=False)
    world.upstream.answer("www.example", "A", "www.example 10 A 192.0.2.1")
    wire = question("www.example").to_wire()
    shown = []
    for _ in range(10):
        shown += ttls(dns.message.from_wire(await world.exchange_wire(wire)))
        world.clock.advance(0.99)
    assert shown == [10, 10, 9, 8, 7, 6, 5, 4, 3, 2]


async def test_ttl_0_is_passed_on_and_not_kept(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 0 A 192.0.2.1")
    for _ in range(3):
        assert ttls(await world.ask("www.example")) == [0]
    assert len(world.upstream.questions()) == 3


async def test_a_cap_shows_in_the_first_answer_already(world: World) -> None:
    await world.start(max_ttl=100)
    world.upstream.answer("www.example", "A", "www.example 86400 A 192.0.2.1")
    assert ttls(await world.ask("www.example")) == [100]
    assert ttls(await world.ask("www.example")) == [100]


async def test_a_ttl_with_the_top_bit_is_capped(world: World) -> None:
    await world.start(max_ttl=100)

    def huge(query: dns.message.Message) -> bytes:
        wire = reply(query, "www.example 16909060 A 192.0.2.1").to_wire()
        return wire.replace(struct.pack(">I", 0x01020304), struct.pack(">I", 0x80000001))

    world.upstream.on("www.example", "A", huge)
    assert ttls(await world.ask("www.example")) == [100]
    world.clock.advance(99)
    assert ttls(await world.ask("www.example")) == [1]


async def test_an_rrset_has_its_lowest_ttl(world: World) -> None:
    await world.start()
    world.upstream.answer(
        "www.example", "A", "www.example 60 A 192.0.2.1", "www.example 20 A 192.0.2.2", "www.example 40 A 192.0.2.3"
    )
    for _ in range(2):
        answer = await world.exchange_wire(question("www.example").to_wire())
        parsed = dns.message.from_wire(answer, one_rr_per_rrset=True)
        assert [rrset.ttl for rrset in parsed.answer] == [20, 20, 20]


async def test_different_rrsets_keep_their_own_ttls(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 20 CNAME lb.example.", "lb.example 50 A 192.0.2.1")
    await world.ask("www.example")
    world.clock.advance(10)
    assert ttls(await world.ask("www.example")) == [10, 40]


async def test_no_section_shows_more_than_it_has_left(world: World) -> None:
    await world.start(stale=0)
    world.upstream.answer(
        "www.example",
        "A",
        "www.example 120 A 192.0.2.1",
        authority=["example 30 NS ns.example."],
        additional=["ns.example 90 A 192.0.2.9"],
    )
    await world.ask("www.example")
    for seconds in (29, 5, 60):
        world.clock.advance(seconds)
        answer = await world.ask("www.example")
        assert all(r.ttl <= 120 for s in (answer.answer, answer.authority, answer.additional) for r in s)


async def test_the_ttl_field_of_an_opt_does_not_age(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example", want_dnssec=True)
    world.clock.advance(30)
    answer = await world.ask("www.example", want_dnssec=True)
    assert (answer.edns, answer.ednsflags) == (0, dns.flags.DO)


async def test_a_negative_ttl_shows_in_the_first_answer_and_ages(world: World) -> None:
    await world.start(negative_max_ttl=30)
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa(ttl=3600, minimum=3600)])
    assert ttls(await world.ask("no.example")) == [30]
    world.clock.advance(5)
    assert ttls(await world.ask("no.example")) == [25]


async def test_an_answer_for_another_name_never_touches_an_entry(world: World) -> None:
    await world.start()
    world.upstream.answer("a.example", "A", "a.example 10 A 192.0.2.1")
    world.upstream.answer("b.example", "A", "b.example 60 A 192.0.2.2", additional=["a.example 9999 A 192.0.2.66"])
    await world.ask("a.example")
    await world.ask("b.example")
    world.clock.advance(5)
    answer = await world.ask("a.example")
    assert (ttls(answer), answer.answer[0][0].to_text()) == ([5], "192.0.2.1")
