"""P28: a question in flight is asked once and answered once per client; identical ones share it, within bounds."""

import pytest

from proxy.core.counters import COALESCED, DROPPED
from proxy.core.message import Ede
from tests.fakes import World, ede_codes, question, reply

ANSWER = "www.example 60 A 192.0.2.1"


async def test_200_clients_cost_one_upstream_question(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stubs = [world.send("www.example") for _ in range(200)]
    await world.upstream.received(1)
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], ANSWER))
    for stub in stubs:
        assert (await stub.answer()).answer
    assert len(world.upstream.asked) == 1
    assert world.count(COALESCED) == 199


async def test_each_gets_its_own_id_and_spelling_and_size(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    queries = [
        question("www.example"),
        question("WWW.example", use_edns=0),
        question("www.EXAMPLE", use_edns=0, payload=4096),
    ]
    stubs = [world.stub() for _ in queries]
    for stub, query in zip(stubs, queries, strict=True):
        stub.send(query.to_wire())
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], ANSWER))
    for stub, query in zip(stubs, queries, strict=True):
        answer = await stub.answer()
        assert (answer.id, answer.edns) == (query.id, query.edns)
        assert answer.question[0].name.to_text() == query.question[0].name.to_text()
    assert len(world.upstream.asked) == 1


async def test_a_stub_that_sends_again_while_it_waits_gets_one_answer(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.stub()
    wire = question("www.example").to_wire()
    for _ in range(3):
        stub.send(wire)
    await world.upstream.received(1)
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], ANSWER))
    assert (await stub.answer()).answer
    await world.settle()
    assert not stub.has_answer()
    assert world.count(DROPPED, "duplicate") == 2
    assert len(world.upstream.asked) == 1


async def test_a_stub_that_sends_again_after_the_answer_gets_another(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 0 A 192.0.2.1")
    stub = world.stub()
    wire = question("www.example").to_wire()
    for _ in range(2):
        stub.send(wire)
        assert (await stub.receive())[:2] == wire[:2]


async def test_one_client_with_two_ids_gets_two_answers(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.stub()
    for number in (1, 2):
        stub.send(question("www.example", id=number).to_wire())
    await world.upstream.received(1)
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], ANSWER))
    assert {(await stub.answer()).id, (await stub.answer()).id} == {1, 2}


async def test_equal_questions_on_one_tcp_connection_are_answered_each(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", ANSWER)
    answers = await world.ask_tcp(question("www.example", id=7), question("www.example", id=7))
    assert [answer.id for answer in answers] == [7, 7]
    assert len(world.upstream.asked) == 1


async def test_do_and_cd_do_not_share_a_flight_with_plain_questions(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    world.send("www.example")
    world.send("www.example", want_dnssec=True)
    await world.upstream.received(2)


async def test_past_the_bound_of_waiters_it_is_servfail_never_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.core.resolver.MOST_WAITERS", 2)
    await world.start()
    world.upstream.silent("www.example")
    waiting = [world.send("www.example") for _ in range(2)]
    await world.upstream.received(1)
    await world.settle()
    answer = await world.ask("www.example", use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (2, [Ede.OTHER])
    world.upstream.send(0, reply(world.upstream.asked[0], ANSWER))
    for stub in waiting:
        assert (await stub.answer()).answer
