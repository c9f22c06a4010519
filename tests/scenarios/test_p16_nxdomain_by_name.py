"""P16: NXDOMAIN is kept by name and class, NODATA by name, type and class (RFC 2308 5)."""

from proxy.core.counters import HELD
from tests.fakes import World, question, reply, soa


async def test_nxdomain_of_a_answers_aaaa_without_asking(world: World) -> None:
    await world.start()
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa()])
    first = await world.ask("no.example", "A")
    second = await world.ask("no.example", "AAAA")
    assert [first.rcode(), second.rcode()] == [3, 3]
    assert world.upstream.questions() == [("no.example", "A")]


async def test_nodata_of_a_leaves_aaaa_to_be_asked(world: World) -> None:
    await world.start()
    world.upstream.answer("half.example", "A", authority=[soa()])
    world.upstream.answer("half.example", "AAAA", "half.example 60 AAAA 2001:db8::1")
    assert not (await world.ask("half.example", "A")).answer
    assert (await world.ask("half.example", "AAAA")).answer
    assert world.upstream.questions() == [("half.example", "A"), ("half.example", "AAAA")]


async def test_an_aaaa_that_waits_is_answered_along_with_its_a(world: World) -> None:
    await world.start()
    held: list[bytes] = []
    world.upstream.on("no.example", "A", lambda query: None)
    a, aaaa = world.stub(), world.stub()
    a.send(question("no.example", "A").to_wire())
    await world.upstream.received(1)
    aaaa.send(question("no.example", "AAAA").to_wire())
    query = world.upstream.asked[0]
    held.append(reply(query, rcode="NXDOMAIN", authority=[soa()]).to_wire())
    await world.exchange(question("localhost"))  # the AAAA before it has been read
    world.upstream.udp.sendto(held[0], world.upstream.sources[0])
    assert (await a.receive())[3] & 15 == 3
    assert (await aaaa.receive())[3] & 15 == 3
    assert world.upstream.questions() == [("no.example", "A")]
    assert world.count(HELD, "nxdomain") == 1
