"""P29: a question that comes back is answered SERVFAIL, and the process goes on (NodeLocal DNSCache exits)."""

import asyncio

import dns.message

from proxy.core.counters import LOOPED
from proxy.core.policy import DnsPolicy, Zone
from tests.fakes import World, question


async def test_our_own_try_is_recognised_at_once(world: World) -> None:
    await world.start()
    world.worker.configure(DnsPolicy((Zone(".", ("{}:{}".format(*world.server),)),)))
    assert (await world.ask("www.example")).rcode() == 2
    assert world.count(LOOPED) >= 1


async def test_a_loop_over_another_server_ends_in_servfail(world: World) -> None:
    await world.start()
    forwarder = world.stub("127.0.0.9")

    def send_back(query: dns.message.Message) -> None:
        forwarder.send(question(query.question[0].name.to_text(), id=query.id ^ 1).to_wire())

    world.upstream.on_any(send_back)
    stub = world.send("www.example")
    for tries, pause in ((1, 0.25), (2, 0.5), (3, 1.25)):
        await world.upstream.received(tries)
        await world.settle()
        world.clock.advance(pause)
    assert (await stub.answer()).rcode() == 2
    await world.settle()
    assert len(world.upstream.asked) == 3


async def test_a_probe_that_comes_back_is_recognised_and_keeps_its_upstream_down(world: World) -> None:
    await world.start()
    forwarder = world.stub("127.0.0.9")

    def send_back(query: dns.message.Message) -> None:
        forwarder.send(question(query.question[0].name.to_text()).to_wire())

    world.upstream.silent("www.example")
    stub = world.send("www.example")
    await world.upstream.received(1)
    world.clock.advance(2.5)
    await stub.receive()
    (upstream,) = world.worker.resolver.zones.upstreams
    assert upstream.down
    world.upstream.on_any(send_back)
    await world.settle()
    world.clock.advance(1)
    assert (await forwarder.answer()).rcode() == 2
    assert world.count(LOOPED) == 1
    assert upstream.down


async def test_other_names_go_on_meanwhile(world: World) -> None:
    await world.start()
    good = world.upstream
    good.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    own = "{}:{}".format(*world.server)
    world.worker.configure(DnsPolicy((Zone("loop", (own,)), Zone(".", (good.address,)))))
    answers = await asyncio.gather(*(world.ask(name) for name in ("a.loop", "www.example", "b.loop")))
    assert [answer.rcode() for answer in answers] == [2, 0, 2]
