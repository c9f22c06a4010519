"""P18: NXDOMAIN after a CNAME speaks of the chain's end, and may be kept (RFC 6604, RFC 2308 2.1)."""

import dns.rcode

from tests.fakes import World, soa, ttls

CHAIN = ("www.example 50 CNAME lb.example.", "lb.example 40 CNAME gone.example.")


async def test_it_is_kept_with_its_chain(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", *CHAIN, rcode="NXDOMAIN", authority=[soa()])
    for _ in range(2):
        answer = await world.ask("www.example")
        assert (answer.rcode(), len(answer.answer), len(answer.authority)) == (3, 2, 1)
    assert len(world.upstream.questions()) == 1


async def test_it_lives_no_longer_than_any_link_of_its_chain(world: World) -> None:
    await world.start(stale=0)
    chain = ("www.example 5 CNAME gone.example.",)
    world.upstream.answer("www.example", "A", *chain, rcode="NXDOMAIN", authority=[soa()])
    await world.ask("www.example")
    world.clock.advance(4)
    assert ttls(await world.ask("www.example")) == [1]
    world.clock.advance(1)
    await world.ask("www.example")
    assert len(world.upstream.questions()) == 2


async def test_a_chain_that_ends_in_nodata_is_nodata_of_the_question(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", CHAIN[0], authority=[soa()])
    world.upstream.answer("lb.example", "A", "lb.example 60 A 192.0.2.1")
    for _ in range(2):
        answer = await world.ask("www.example")
        assert (answer.rcode(), len(answer.answer), len(answer.authority)) == (0, 1, 1)
    assert (await world.ask("lb.example")).answer
    assert len(world.upstream.questions("www.example")) == 1


async def test_yxdomain_reaches_the_client_but_is_not_kept(world: World) -> None:
    await world.start(upstreams=2)
    dname = "example 60 DNAME a.very.long.name.example.net."
    for upstream in world.upstreams:
        upstream.answer("www.example", "A", dname, rcode="YXDOMAIN")
    for _ in range(2):
        answer = await world.ask("www.example")
        assert (answer.rcode(), len(answer.answer)) == (dns.rcode.YXDOMAIN, 1)
    assert sum(len(upstream.asked) for upstream in world.upstreams) == 2


async def test_other_rcodes_are_no_answers(world: World) -> None:
    await world.start()
    for rcode in ("NOTAUTH", "NOTZONE", "YXRRSET"):
        world.upstream.answer(f"{rcode}.example", "A", rcode=rcode)
        assert (await world.ask(f"{rcode}.example")).rcode() == dns.rcode.SERVFAIL


async def test_the_upper_bits_of_an_extended_rcode_are_not_lost(world: World) -> None:
    await world.start()
    world.upstream.answer("cookie.example", "A", "cookie.example 60 A 192.0.2.1", rcode="BADCOOKIE")
    answer = await world.ask("cookie.example", use_edns=0)
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
