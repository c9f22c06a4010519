"""A zone whose upstreams are a Service's endpoints: they come, go and are replaced under questions in flight."""

from proxy.core.message import Ede
from proxy.core.policy import DnsPolicy, Zone
from tests.fakes import ScriptedUpstream, World, ede_codes, reply

ANSWER = "www.example 60 A 192.0.2.1"


def endpoints(world: World, *upstreams: ScriptedUpstream, fallback: tuple[str, ...] = ()) -> None:
    """The Service has these endpoints from now on."""
    addresses = tuple(upstream.address for upstream in upstreams)
    world.worker.configure(DnsPolicy((Zone(".", addresses, fallback, service=True),)))


async def test_a_question_in_flight_to_an_endpoint_that_is_gone_goes_to_its_successor(world: World) -> None:
    await world.start(upstreams=2)
    old, new = world.upstreams
    endpoints(world, old)
    old.silent("www.example")
    new.answer("www.example", "A", ANSWER)
    stub = world.send("www.example")
    await old.received(1)
    endpoints(world, new)
    world.clock.advance(0.25)
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.1"
    assert len(old.asked) == 1


async def test_it_asks_none_that_is_gone(world: World) -> None:
    await world.start(upstreams=2)
    old, new = world.upstreams
    endpoints(world, old)
    new.on_any(lambda query: reply(query, f"{query.question[0].name} 60 A 192.0.2.1"))
    endpoints(world, new)
    for number in range(20):
        assert (await world.ask(f"n{number}.example")).answer
    assert old.asked == []


async def test_without_an_endpoint_the_fallback_is_asked_at_once(world: World) -> None:
    await world.start(upstreams=2)
    old, service = world.upstreams
    service.answer("www.example", "A", ANSWER)
    endpoints(world, fallback=(service.address,))
    assert (await world.ask("www.example")).answer
    assert old.asked == []


async def test_without_anybody_to_ask_it_says_so_and_asks_the_first_endpoint_that_comes(world: World) -> None:
    await world.start()
    endpoints(world)
    assert ede_codes(await world.ask("www.example", use_edns=0)) == [Ede.NOT_READY]
    world.upstream.answer("www.example", "A", ANSWER)
    endpoints(world, world.upstream)
    assert (await world.ask("www.example")).answer
