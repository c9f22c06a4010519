"""P17: a negative answer without a SOA is passed on but not kept (RFC 2308 5, 8)."""

import dns.flags
import dns.message
import pytest

from tests.fakes import World, reply


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
async def test_it_is_passed_on_and_asked_again(world: World, rcode: str) -> None:
    await world.start()
    world.upstream.answer("bare.example", "A", rcode=rcode)
    for _ in range(2):
        answer = await world.ask("bare.example")
        assert (answer.rcode(), answer.answer) == (0 if rcode == "NOERROR" else 3, [])
    assert len(world.upstream.questions("bare.example")) == 2


async def test_an_nxdomain_without_soa_denies_no_other_type(world: World) -> None:
    await world.start()
    world.upstream.answer("bare.example", "A", rcode="NXDOMAIN")
    world.upstream.answer("bare.example", "TXT", 'bare.example 60 TXT "here"')
    await world.ask("bare.example", "A")
    assert (await world.ask("bare.example", "TXT")).answer


async def test_it_is_never_served_stale(world: World) -> None:
    await world.start()
    world.upstream.answer("bare.example", "A", rcode="NXDOMAIN")
    await world.ask("bare.example")
    world.upstream.answer("bare.example", "A", rcode="SERVFAIL")
    assert (await world.ask("bare.example")).rcode() == 2


async def test_a_soa_in_the_wrong_section_does_not_count(world: World) -> None:
    await world.start()
    line = "example 300 SOA ns.example. host.example. 1 3600 600 86400 60"
    world.upstream.answer("bare.example", "A", additional=[line])
    await world.ask("bare.example")
    await world.ask("bare.example")
    assert len(world.upstream.questions()) == 2


@pytest.mark.usefixtures("in_order")
async def test_a_referral_without_recursion_is_a_failed_try(world: World) -> None:
    await world.start(upstreams=2)

    def refer(query: dns.message.Message) -> dns.message.Message:
        referral = reply(query, authority=["example 60 NS ns.example."])
        referral.flags &= ~dns.flags.RA
        return referral

    world.upstreams[0].on_any(refer)
    world.upstreams[1].answer("www.example", "A", "www.example 60 A 192.0.2.1")
    assert (await world.ask("www.example")).answer
    assert world.upstreams[0].questions() == [("www.example", "A")]
