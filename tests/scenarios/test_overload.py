"""Past the bound of questions in flight: what is kept, else SERVFAIL with the reason, never REFUSED."""

import pytest

from proxy.core.counters import OVERLOADED
from proxy.core.message import Ede
from tests.fakes import UdpStub, World, ede_codes, question, reply


@pytest.fixture(autouse=True)
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.core.resolver.MOST_LOOKUPS", 2)


async def fill(world: World) -> list[UdpStub]:
    """Two questions in flight: no room for a third."""
    stubs = []
    before = len(world.upstream.asked)
    for number in (1, 2):
        world.upstream.silent(f"n{number}.example")
        stubs.append(world.send(f"n{number}.example"))
    await world.upstream.received(before + 2)
    return stubs


async def test_one_more_is_servfail_with_the_reason(world: World) -> None:
    await world.start()
    await fill(world)
    answer = await world.ask("n3.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (2, [Ede.OTHER])
    assert world.count(OVERLOADED) == 1
    assert "n3.example" not in [name for name, _ in world.upstream.questions()]


async def test_it_is_servfail_over_tcp_too(world: World) -> None:
    await world.start()
    await fill(world)
    assert (await world.ask_tcp(question("n3.example")))[0].rcode() == 2


async def test_that_servfail_is_not_remembered(world: World) -> None:
    await world.start()
    await fill(world)
    assert (await world.ask("n3.example")).rcode() == 2
    world.upstream.answer("n3.example", "A", "n3.example 60 A 192.0.2.3")
    world.upstream.send(0, reply(world.upstream.asked[0], "n1.example 60 A 192.0.2.1"))
    await world.settle()
    assert (await world.ask("n3.example")).answer


async def test_who_is_in_flight_is_answered_all_the_same(world: World) -> None:
    await world.start()
    first, second = await fill(world)
    await world.ask("n3.example")
    for at, name in ((1, "n2.example"), (0, "n1.example")):
        world.upstream.send(at, reply(world.upstream.asked[at], f"{name} 60 A 192.0.2.1"))
    assert (await first.answer()).answer
    assert (await second.answer()).answer


async def test_identical_questions_still_join(world: World) -> None:
    await world.start()
    await fill(world)
    joined = world.send("n1.example")
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], "n1.example 60 A 192.0.2.1"))
    assert (await joined.answer()).answer


async def test_hits_and_local_names_are_not_affected(world: World) -> None:
    await world.start()
    world.upstream.answer("kept.example", "A", "kept.example 60 A 192.0.2.1")
    await world.ask("kept.example")
    await fill(world)
    for _ in range(3):
        assert (await world.ask("kept.example")).answer
        assert (await world.ask("localhost")).answer


async def test_stale_data_comes_before_servfail(world: World) -> None:
    await world.start()
    world.upstream.answer("kept.example", "A", "kept.example 60 A 192.0.2.1")
    await world.ask("kept.example")
    world.clock.advance(60)
    await fill(world)
    answer = await world.ask("kept.example", use_edns=0)
    assert (len(answer.answer), ede_codes(answer)) == (1, [Ede.STALE_ANSWER])


async def test_an_aaaa_beside_a_good_a_is_nodata(world: World) -> None:
    await world.start()
    world.upstream.answer("kept.example", "A", "kept.example 60 A 192.0.2.1")
    await world.ask("kept.example")
    await fill(world)
    answer = await world.ask("kept.example", "AAAA")
    assert (answer.rcode(), answer.answer) == (0, [])


async def test_prefetching_stops_before_clients_are_turned_away(world: World) -> None:
    await world.start()
    world.upstream.answer("kept.example", "A", "kept.example 100 A 192.0.2.1")
    for _ in range(4):
        await world.ask("kept.example")
    world.clock.advance(95)
    await fill(world)
    await world.ask("kept.example")
    await world.settle()
    assert len(world.upstream.questions("kept.example")) == 1


async def test_many_different_questions_are_all_answered_within_the_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.core.resolver.MOST_LOOKUPS", 50)
    await world.start()
    world.upstream.on_any(lambda query: None)
    stubs = [world.send(f"n{number}.example") for number in range(80)]
    await world.upstream.received(50)
    await world.settle()
    world.clock.advance(2)
    assert [(await stub.answer()).rcode() for stub in stubs] == [2] * 80
    assert world.count(OVERLOADED) == 30
    assert world.worker.resolver.in_flight == 0
