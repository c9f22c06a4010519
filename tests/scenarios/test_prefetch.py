"""A popular answer is asked again in the last tenth of its life; nobody waits, and a failure changes nothing."""

import pytest

from proxy.core.counters import PREFETCHED
from tests.fakes import World, ede_codes, question, reply, ttls

NAME = "www.example"


async def make_popular(world: World, ttl: int = 100) -> None:
    """Kept, asked for several times, and in the last tenth of its life."""
    world.upstream.answer(NAME, "A", f"{NAME} {ttl} A 192.0.2.1")
    for _ in range(4):
        await world.ask(NAME)
    world.clock.advance(ttl * 0.95)
    assert len(world.upstream.asked) == 1


async def test_the_hit_that_starts_it_gets_the_old_data_at_once(world: World) -> None:
    await world.start()
    await make_popular(world)
    world.upstream.silent(NAME, "A")
    assert ttls(await world.ask(NAME)) == [5]
    await world.upstream.received(2)
    assert world.count(PREFETCHED) == 1


async def test_later_hits_get_the_new_data(world: World) -> None:
    await world.start()
    await make_popular(world)
    world.upstream.answer(NAME, "A", f"{NAME} 100 A 192.0.2.2")
    await world.ask(NAME)
    await world.upstream.received(2)
    await world.settle()
    answer = await world.ask(NAME)
    assert (answer.answer[0][0].to_text(), ttls(answer)) == ("192.0.2.2", [100])


async def test_it_is_started_once_however_many_hits_there_are(world: World) -> None:
    await world.start()
    await make_popular(world)
    world.upstream.silent(NAME, "A")
    for _ in range(20):
        await world.ask(NAME)
    await world.settle()
    assert len(world.upstream.asked) == 2


async def test_it_is_started_over_tcp_too(world: World) -> None:
    await world.start()
    await make_popular(world)
    await world.ask_tcp(question(NAME))
    await world.upstream.received(2)


async def test_an_unpopular_answer_is_left_to_expire(world: World) -> None:
    await world.start()
    world.upstream.answer(NAME, "A", f"{NAME} 100 A 192.0.2.1")
    await world.ask(NAME)
    world.clock.advance(95)
    await world.ask(NAME)
    await world.settle()
    assert len(world.upstream.asked) == 1


async def test_it_is_not_done_before_the_last_tenth(world: World) -> None:
    await world.start()
    world.upstream.answer(NAME, "A", f"{NAME} 100 A 192.0.2.1")
    for _ in range(5):
        await world.ask(NAME)
    world.clock.advance(89)
    await world.ask(NAME)
    await world.settle()
    assert len(world.upstream.asked) == 1


async def test_it_can_be_turned_off(world: World) -> None:
    await world.start(prefetch=False)
    await make_popular(world)
    await world.ask(NAME)
    await world.settle()
    assert len(world.upstream.asked) == 1


async def test_hits_go_on_with_a_falling_ttl_when_it_fails(world: World) -> None:
    await world.start()
    await make_popular(world)
    world.upstream.answer(NAME, "A", rcode="SERVFAIL")
    for left in (5, 4, 3, 2, 1):
        answer = await world.ask(NAME, use_edns=0)
        assert (answer.rcode(), ttls(answer), ede_codes(answer)) == (0, [left], [])
        await world.settle()
        world.clock.advance(1)


async def test_it_is_not_repeated_with_every_hit_when_it_fails(world: World) -> None:
    await world.start()
    await make_popular(world)
    world.upstream.answer(NAME, "A", rcode="SERVFAIL")
    for asked in (2, 3):
        for _ in range(10):
            await world.ask_tcp(question(NAME))
            await world.settle()
        assert len(world.upstream.asked) == asked
        world.clock.advance(1)


async def test_its_failure_does_not_stop_hits_when_upstreams_are_silent(world: World) -> None:
    await world.start()
    await make_popular(world)
    world.upstream.silent(NAME, "A")
    for left in (5, 4, 3, 2, 1):
        assert ttls(await world.ask(NAME)) == [left]
        await world.settle()
        world.clock.advance(1)


async def test_a_client_that_comes_after_expiry_joins_it(world: World) -> None:
    await world.start()
    await make_popular(world, ttl=10)
    world.upstream.silent(NAME, "A")
    await world.ask(NAME)
    await world.upstream.received(2)
    world.clock.advance(0.5)
    stub = world.send(NAME)
    await world.settle()
    world.upstream.send(1, reply(world.upstream.asked[1], f"{NAME} 10 A 192.0.2.2"))
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.2"


@pytest.mark.parametrize("dnssec", [False, True])
async def test_it_keeps_do(world: World, dnssec: bool) -> None:
    await world.start()
    world.upstream.answer(NAME, "A", f"{NAME} 100 A 192.0.2.1")
    for _ in range(4):
        await world.ask(NAME, want_dnssec=dnssec)
    world.clock.advance(95)
    await world.ask(NAME, want_dnssec=dnssec)
    await world.upstream.received(2)
    assert [bool(asked.ednsflags) for asked in world.upstream.asked] == [dnssec, dnssec]
