"""P23: clients with EDNS are told why: 3 and 19 stale, 13 a cached failure, 22 and 23 nobody there, 14 not ready."""

from proxy.core.message import Ede
from proxy.core.policy import DnsPolicy, Zone
from tests.fakes import World, ede_codes, soa


async def test_an_upstream_that_fails_is_22(world: World) -> None:
    await world.start()
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (2, [Ede.NO_REACHABLE_AUTHORITY])


async def test_an_upstream_that_cannot_be_reached_is_23(world: World) -> None:
    await world.start()
    world.upstream.stop_udp()
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (2, [Ede.NETWORK_ERROR])


async def test_an_upstream_that_is_silent_is_22(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.send("www.example", use_edns=0)
    await world.upstream.received(1)
    world.clock.advance(2)
    assert ede_codes(await stub.answer()) == [Ede.NO_REACHABLE_AUTHORITY]


async def test_a_failure_from_the_cache_is_13(world: World) -> None:
    await world.start()
    await world.ask("www.example")
    assert ede_codes(await world.ask("www.example", use_edns=0)) == [Ede.CACHED_ERROR]


async def test_a_zone_whose_service_has_no_endpoints_is_14(world: World) -> None:
    await world.start()
    world.worker.configure(DnsPolicy((Zone(".", (), service=True),)))
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (2, [Ede.NOT_READY])


async def test_stale_data_outlives_the_last_endpoint(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    world.worker.configure(DnsPolicy((Zone(".", (), service=True),)))
    world.clock.advance(60)
    answer = await world.ask("www.example", use_edns=0)
    assert (len(answer.answer), ede_codes(answer)) == (1, [Ede.STALE_ANSWER])


async def test_stale_data_and_a_stale_denial_are_told_apart(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    world.upstream.answer("no.example", "A", rcode="NXDOMAIN", authority=[soa()])
    names = ("www.example", "no.example")
    for name in names:
        await world.ask(name)
        world.upstream.answer(name, "A", rcode="SERVFAIL")
    world.clock.advance(60)
    for _ in range(2):
        codes = [ede_codes(await world.ask(name, use_edns=0)) for name in names]
        assert codes == [[Ede.STALE_ANSWER], [Ede.STALE_NXDOMAIN]]


async def test_a_client_without_edns_gets_no_opt_with_any_error(world: World) -> None:
    await world.start()
    for _ in range(2):
        assert (await world.ask("www.example")).edns == -1
    assert (await world.ask("www.example", "AXFR")).edns == -1


async def test_a_client_with_edns_gets_an_opt_with_every_error(world: World) -> None:
    await world.start()
    for rtype in ("A", "A", "AXFR", "OPT"):
        answer = await world.ask("www.example", rtype, use_edns=0)
        assert (answer.edns, answer.payload) == (0, 1232)


async def test_good_answers_carry_none(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for _ in range(3):
        assert ede_codes(await world.ask("www.example", use_edns=0)) == []
