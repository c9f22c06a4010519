"""P25: a question without RD is answered from fresh data or refused; nobody is asked for it (RFC 1034 4.3.1)."""

import dns.flags
import dns.message

from proxy.core.message import Ede
from tests.fakes import World, ede_codes, question


def without_rd(name: str, rtype: str = "A") -> dns.message.Message:
    query = question(name, rtype, use_edns=0)
    query.flags &= ~dns.flags.RD
    return query


async def test_it_is_refused_with_nothing_in_the_cache(world: World) -> None:
    await world.start()
    answer = await world.exchange(without_rd("www.example"))
    assert (answer.rcode(), ede_codes(answer)) == (5, [Ede.NOT_AUTHORITATIVE])
    assert not answer.flags & dns.flags.RD
    assert world.upstream.asked == []


async def test_it_is_answered_from_the_cache(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    for _ in range(3):
        answer = await world.exchange(without_rd("www.example"))
        assert answer.answer
        assert not answer.flags & dns.flags.RD
    assert (await world.ask("www.example")).flags & dns.flags.RD


async def test_it_is_answered_where_nobody_has_to_be_asked(world: World) -> None:
    await world.start()
    assert (await world.exchange(without_rd("localhost"))).answer
    assert (await world.exchange(without_rd("x.invalid"))).rcode() == 3


async def test_it_never_gets_stale_data(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    world.clock.advance(60)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    assert (await world.ask("www.example")).answer
    assert (await world.exchange(without_rd("www.example"))).rcode() == 5


async def test_it_is_refused_after_a_failure(world: World) -> None:
    await world.start()
    await world.ask("www.example")
    assert (await world.exchange(without_rd("www.example"))).rcode() == 5


async def test_it_starts_no_prefetch(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    wire = without_rd("www.example").to_wire()
    for _ in range(4):
        await world.exchange_wire(wire)
    world.clock.advance(57)
    for _ in range(4):
        await world.exchange_wire(wire)
    await world.settle()
    assert len(world.upstream.asked) == 1
