"""P14: "no such name" and "no such data" stay apart, each with its SOA, also from the cache (RFC 2308 2, 6)."""

import dns.message
import dns.rdatatype
import pytest

from tests.fakes import World, reply, soa, ttls

NOERROR, NXDOMAIN = 0, 3
RCODES = {"NOERROR": NOERROR, "NXDOMAIN": NXDOMAIN}


@pytest.mark.parametrize("rcode", RCODES)
@pytest.mark.parametrize("edns", [-1, 0], ids=["plain", "edns"])
async def test_a_denial_keeps_its_rcode_and_its_soa_from_the_cache(world: World, rcode: str, edns: int) -> None:
    await world.start()
    world.upstream.answer("www.example", "MX", rcode=rcode, authority=[soa(ttl=20, minimum=20)])
    for age in (0, 1, 1, 5):
        world.clock.advance(age)
        answer = await world.ask("www.example", "MX", use_edns=edns)
        assert (answer.rcode(), answer.answer) == (RCODES[rcode], [])
        assert [(s.name.to_text(), s.rdtype) for s in answer.authority] == [("example.", dns.rdatatype.SOA)]
    assert ttls(answer) == [13]
    assert len(world.upstream.questions()) == 1


async def test_nodata_of_one_type_says_nothing_of_another(world: World) -> None:
    await world.start(serialize=False)
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    world.upstream.answer("www.example", "AAAA", authority=[soa()])
    world.upstream.answer("www.example", "MX", authority=[soa()])
    world.upstream.answer("www.example", "TXT", "www.example 60 TXT text")
    for _ in range(3):
        for rtype, there in (("AAAA", 0), ("A", 1), ("MX", 0), ("TXT", 1)):
            answer = await world.ask("www.example", rtype)
            assert (answer.rcode(), len(answer.answer)) == (NOERROR, there)
    assert len(world.upstream.questions()) == 4


async def test_nodata_of_a_parent_says_nothing_of_a_child(world: World) -> None:
    await world.start()
    world.upstream.answer("example", "A", authority=[soa()])
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("example")
    assert (await world.ask("www.example")).answer


async def test_the_soa_shows_what_is_left_and_nothing_else_of_it_changes(world: World) -> None:
    await world.start()
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa(ttl=25, minimum=300)])
    first = await world.ask("no.example")
    world.clock.advance(7)
    for _ in range(3):
        aged = await world.ask("no.example")
        assert (ttls(first), ttls(aged)) == ([25], [18])
        assert first.authority[0][0] == aged.authority[0][0]


async def test_proofs_beside_the_soa_come_along_fresh_and_cached(world: World) -> None:
    await world.start()
    proof = "example 300 NSEC a.example. A NS SOA"
    signature = "example 300 RRSIG SOA 8 1 300 20300101000000 20200101000000 1 example. AAAA"
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa(), signature, proof])
    for _ in range(3):
        answer = await world.ask("no.example", want_dnssec=True)
        assert [rrset.rdtype for rrset in answer.authority] == [6, 46, 47]


async def test_a_denial_may_become_the_other_one_or_an_answer(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "MX", rcode="NXDOMAIN", authority=[soa(minimum=5)])
    assert (await world.ask("www.example", "MX")).rcode() == NXDOMAIN
    world.clock.advance(5)
    world.upstream.answer("www.example", "MX", authority=[soa(minimum=5)])
    assert (await world.ask("www.example", "MX")).rcode() == NOERROR
    world.clock.advance(5)
    world.upstream.answer("www.example", "MX", "www.example 60 MX 1 mx.example.")
    assert (await world.ask("www.example", "MX")).answer
    world.upstream.answer("www.example", "TXT", "www.example 60 TXT text")
    assert (await world.ask("www.example", "TXT")).answer


@pytest.mark.parametrize("denial", ["NXDOMAIN", "NOERROR"])
async def test_an_answer_of_ttl_0_displaces_a_denial_for_good(world: World, denial: str) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", rcode=denial, authority=[soa(minimum=5)])
    await world.ask("www.example")
    world.clock.advance(5)
    world.upstream.answer("www.example", "A", "www.example 0 A 192.0.2.1")
    for _ in range(2):
        assert (await world.ask("www.example")).answer
    assert len(world.upstream.questions()) == 3
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    answer = await world.ask("www.example")
    assert (answer.rcode(), answer.authority) == (2, [])
    assert (await world.ask("www.example", "TXT")).rcode() == 2


async def test_a_cname_to_nodata_is_nodata_of_the_question_alone(world: World) -> None:
    await world.start(stale=0)
    world.upstream.answer(
        "alias.example", "A", "alias.example 20 CNAME t.example.", authority=[soa(ttl=60, minimum=60)]
    )
    world.upstream.answer("t.example", "A", "t.example 60 A 192.0.2.1")
    for _ in range(3):
        answer = await world.ask("alias.example")
        assert (answer.rcode(), [s.rdtype for s in answer.answer], len(answer.authority)) == (NOERROR, [5], 1)
    assert len(world.upstream.questions()) == 1
    direct = await world.ask("t.example")
    assert [rrset.name.to_text() for rrset in direct.answer] == ["t.example."]
    world.clock.advance(20)
    await world.ask("alias.example")
    assert world.upstream.questions("alias.example") == [("alias.example", "A")] * 2


@pytest.mark.parametrize("rcode", RCODES)
async def test_denials_are_alike_over_tcp(world: World, rcode: str) -> None:
    await world.start()
    world.upstream.answer("www.example", "MX", rcode=rcode, authority=[soa(ttl=20)])
    await world.ask("www.example", "MX")
    world.clock.advance(3)
    [answer] = await world.ask_tcp(dns.message.make_query("www.example", "MX"))
    assert (answer.rcode(), ttls(answer)) == (RCODES[rcode], [17])


async def test_an_soa_in_another_section_makes_no_denial(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", lambda query: reply(query, rcode="NXDOMAIN", additional=[soa()]))
    for asked in (1, 2):
        assert (await world.ask("www.example")).rcode() == NXDOMAIN
        assert len(world.upstream.questions()) == asked
