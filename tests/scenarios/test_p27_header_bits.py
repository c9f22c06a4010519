"""P27: AA=0 on forwarded and cached data, RA=1 on every response; the header's other bits are never an upstream's."""

import dns.flags
import dns.message

from tests.fakes import World, question, reply, soa

Z = 0x0040


async def test_an_upstream_s_bits_do_not_leak_fresh_or_cached(world: World) -> None:
    await world.start()

    def odd(query: dns.message.Message) -> bytes:
        response = reply(query, "www.example 60 A 192.0.2.1", flags=dns.flags.AA | dns.flags.CD)
        response.flags &= ~(dns.flags.RA | dns.flags.RD)
        wire = bytearray(response.to_wire())
        wire[3] |= Z
        return bytes(wire)

    world.upstream.on("www.example", "A", odd)
    for _ in range(3):
        wire = await world.exchange_wire(question("www.example").to_wire())
        assert int.from_bytes(wire[2:4], "big") == dns.flags.QR | dns.flags.RD | dns.flags.RA


async def test_ra_is_set_on_every_kind_of_response(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa()])
    world.upstream.answer("none.example", "A", authority=[soa()])
    for name in ("www.example", "no.example", "none.example", "fails.example", "localhost", "x.invalid"):
        for _ in range(3):
            answer = await world.ask(name)
            assert answer.flags & (dns.flags.RA | dns.flags.AA) == dns.flags.RA
    for rtype in ("AXFR", "ANY", "OPT"):
        assert (await world.ask("www.example", rtype)).flags & dns.flags.RA
    for wire in (bytes(12), b"\0\0\x28\0" + bytes(8), question("www.example").to_wire() + b"x"):
        assert (await world.exchange_wire(wire))[3] & 0x80


async def test_ra_is_set_on_stale_data(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1", flags=dns.flags.AA)
    await world.ask("www.example")
    world.clock.advance(60)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    answer = await world.ask("www.example")
    assert (bool(answer.answer), answer.flags & (dns.flags.RA | dns.flags.AA)) == (True, dns.flags.RA)


async def test_aa_tc_and_z_of_a_query_are_not_copied(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    query = question("www.example")
    query.flags |= dns.flags.AA
    wire = bytearray(query.to_wire())
    wire[3] |= Z
    for _ in range(3):
        flags = int.from_bytes((await world.exchange_wire(bytes(wire)))[2:4], "big")
        assert flags == dns.flags.QR | dns.flags.RD | dns.flags.RA


async def test_upstreams_get_clean_headers(world: World) -> None:
    await world.start()
    query = question("www.example")
    query.flags |= dns.flags.AA
    await world.exchange(query)
    flags = int.from_bytes(world.upstream.wires[0][2:4], "big")
    assert flags == dns.flags.RD | dns.flags.AD
