"""P21: failures are remembered, for 1 s at first and longer while they last, and tries are bounded (RFC 9520)."""

import pytest

from proxy.core.message import Ede
from tests.fakes import World, ede_codes


async def test_a_failure_is_remembered_for_a_second(world: World) -> None:
    await world.start()
    assert (await world.ask("www.example")).rcode() == 2
    world.clock.advance(0.9)
    again = await world.ask("www.example", use_edns=0)
    assert (again.rcode(), ede_codes(again)) == (2, [Ede.CACHED_ERROR])
    assert len(world.upstream.questions()) == 1
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    world.clock.advance(0.1)
    assert (await world.ask("www.example")).answer


async def test_an_upstream_s_silence_is_remembered_too(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.send("www.example")
    await world.upstream.received(1)
    world.clock.advance(2)
    assert (await stub.answer()).rcode() == 2
    await world.settle()
    asked = len(world.upstream.questions())
    assert (await world.ask("www.example")).rcode() == 2
    await world.settle()
    assert len(world.upstream.questions()) == asked


async def test_the_pause_doubles_up_to_30_seconds(world: World) -> None:
    await world.start()
    pauses = [1, 2, 4, 8, 16, 30, 30]
    for number, pause in enumerate(pauses, 1):
        await world.ask("www.example")
        world.clock.advance(pause - 0.001)
        await world.ask("www.example")
        assert len(world.upstream.questions()) == number
        world.clock.advance(0.001)


async def test_success_ends_the_doubling(world: World) -> None:
    await world.start(stale=0)
    for _ in range(3):
        await world.ask("www.example")
        world.clock.advance(8)
    world.upstream.answer("www.example", "A", "www.example 1 A 192.0.2.1")
    await world.ask("www.example")
    world.clock.advance(1)
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    await world.ask("www.example")
    world.clock.advance(1)
    asked = len(world.upstream.questions())
    await world.ask("www.example")
    assert len(world.upstream.questions()) == asked + 1


async def test_a_silent_upstream_is_asked_three_times_at_most(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.send("www.example")
    for tries, pause in ((1, 0.25), (2, 0.5), (3, 1.25)):
        await world.upstream.received(tries)
        world.clock.advance(pause)
    assert (await stub.answer()).rcode() == 2
    await world.settle()
    assert len(world.upstream.asked) == 3


async def test_a_lost_question_is_asked_again_under_another_id(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.send("www.example")
    await world.upstream.received(1)
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    world.clock.advance(0.25)
    assert (await stub.answer()).answer
    assert world.upstream.sources[0] != world.upstream.sources[1]


async def test_a_failure_of_one_type_or_do_hides_nothing_under_another(world: World) -> None:
    await world.start(serialize=False)
    world.upstream.answer("www.example", "AAAA", "www.example 60 AAAA 2001:db8::1")
    assert (await world.ask("www.example", "A")).rcode() == 2
    assert (await world.ask("www.example", "AAAA")).answer
    assert (await world.ask("www.example", "AAAA")).answer
    world.upstream.answer("www.example", "AAAA", rcode="SERVFAIL")
    await world.ask("www.example", "MX", want_dnssec=True)
    world.upstream.answer("www.example", "MX", "www.example 60 MX 1 mx.example.")
    assert (await world.ask("www.example", "MX")).answer


async def test_fresh_data_stays_when_another_do_fails(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    world.upstream.answer("www.example", "A", rcode="SERVFAIL")
    assert (await world.ask("www.example", want_dnssec=True)).rcode() == 2
    assert (await world.ask("www.example")).answer


async def test_a_failure_is_never_stale(world: World) -> None:
    await world.start()
    await world.ask("www.example")
    world.clock.advance(5)
    again = await world.ask("www.example", use_edns=0)
    assert Ede.STALE_ANSWER not in ede_codes(again)
    assert len(world.upstream.questions()) == 2


@pytest.mark.usefixtures("in_order")
async def test_a_failure_with_records_is_no_answer(world: World) -> None:
    await world.start(upstreams=2)
    chain = ("www.example 60 CNAME lb.example.",)
    world.upstreams[0].answer("www.example", "A", *chain, rcode="SERVFAIL")
    world.upstreams[1].answer("www.example", "A", rcode="REFUSED")
    answer = await world.ask("www.example")
    assert (answer.rcode(), answer.answer) == (2, [])
    assert len(world.upstreams[1].asked) == 1


async def test_a_broken_answer_is_followed_by_an_answer(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", lambda query: query.to_wire()[:2] + b"\x81\x80" + b"\xff" * 40)
    stub = world.send("www.example")
    await world.upstream.received(1)
    world.upstream.answer("good.example", "A", "good.example 60 A 192.0.2.1")
    assert (await world.ask("good.example")).answer
    world.clock.advance(2)
    assert (await stub.answer()).rcode() == 2
