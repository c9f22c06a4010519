"""A failed try goes to the next endpoint, then fallback, then stale data, then SERVFAIL; always within 2 s."""

import dns.flags
import pytest

from proxy.core.counters import HEDGED, UPSTREAM_FAILED
from proxy.core.message import Ede
from proxy.core.upstreams import Upstream
from tests.control.eventually import eventually
from tests.fakes import ScriptedUpstream, World, ede_codes, reply

pytestmark = pytest.mark.usefixtures("in_order")

NAME = "www.example"


def record(number: int, ttl: int = 60) -> str:
    return f"{NAME} {ttl} A 192.0.2.{number}"


def asked(world: World) -> list[int]:
    """How often each upstream was asked for anything."""
    return [len(upstream.asked) for upstream in world.upstreams]


def state(world: World, upstream: ScriptedUpstream) -> Upstream:
    """What the resolver knows of it."""
    return next(u for u in world.worker.resolver.zones.upstreams if u.address == upstream.address)


async def answer_all(world: World, pauses: int = 8) -> None:
    """Let 2 s pass, with everything read on the way."""
    for _ in range(pauses):
        await world.settle()
        world.clock.advance(2.0 / pauses)
    await world.settle()


# In which order


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"])
async def test_a_failing_rcode_is_followed_by_the_next_endpoint_at_once(world: World, rcode: str) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].answer(NAME, "A", rcode=rcode)
    world.upstreams[1].answer(NAME, "A", record(2))
    assert (await world.ask(NAME)).answer[0][0].to_text() == "192.0.2.2"


async def test_an_icmp_refusal_is_followed_by_the_next_endpoint_at_once(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].stop_udp()
    world.upstreams[1].answer(NAME, "A", record(2))
    assert (await world.ask(NAME)).answer[0][0].to_text() == "192.0.2.2"
    assert world.count(UPSTREAM_FAILED, "refused") == 1


async def test_silence_is_followed_by_the_next_endpoint_after_250_ms(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].silent(NAME)
    world.upstreams[1].answer(NAME, "A", record(2))
    stub = world.send(NAME)
    await world.upstreams[0].received(1)
    world.clock.advance(0.249)
    await world.settle()
    assert asked(world) == [1, 0]
    world.clock.advance(0.001)
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.2"
    assert world.count(HEDGED) == 1


async def test_a_broken_answer_does_not_end_the_waiting(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].on(NAME, "A", lambda query: query.to_wire()[:2] + b"\x81\x80" + b"\xff" * 30)
    world.upstreams[1].answer(NAME, "A", record(2))
    stub = world.send(NAME)
    await world.upstreams[0].received(1)
    await world.settle()
    world.clock.advance(0.25)
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.2"


async def test_the_fallback_comes_after_every_endpoint(world: World) -> None:
    await world.start(upstreams=2, fallbacks=1)
    world.upstreams[2].answer(NAME, "A", record(3))
    assert (await world.ask(NAME)).answer[0][0].to_text() == "192.0.2.3"
    assert asked(world) == [1, 1, 1]


async def test_the_fallback_is_left_alone_while_an_endpoint_answers(world: World) -> None:
    await world.start(upstreams=2, fallbacks=1)
    world.upstreams[1].answer(NAME, "A", record(2))
    await world.ask(NAME)
    assert asked(world) == [1, 1, 0]


async def test_stale_data_comes_after_the_fallback(world: World) -> None:
    await world.start(upstreams=1, fallbacks=1)
    world.upstream.answer(NAME, "A", record(1))
    await world.ask(NAME)
    world.clock.advance(60)
    world.upstream.answer(NAME, "A", rcode="SERVFAIL")
    answer = await world.ask(NAME, use_edns=0)
    assert (len(answer.answer), ede_codes(answer)) == (1, [Ede.STALE_ANSWER])
    assert asked(world) == [2, 1]


async def test_servfail_with_the_reason_comes_last(world: World) -> None:
    await world.start(upstreams=2, fallbacks=1)
    answer = await world.ask(NAME, use_edns=0)
    assert (answer.rcode(), ede_codes(answer)) == (2, [Ede.NO_REACHABLE_AUTHORITY])
    assert asked(world) == [1, 1, 1]


async def test_who_refused_is_not_asked_again_for_the_same_question(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].silent(NAME)
    stub = world.send(NAME)
    await answer_all(world)
    assert (await stub.answer()).rcode() == 2
    assert asked(world) == [2, 1]


async def test_nxdomain_is_an_answer_not_a_failure(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].answer(NAME, "A", rcode="NXDOMAIN")
    assert (await world.ask(NAME)).rcode() == 3
    assert asked(world) == [1, 0]


# Every try stays open


@pytest.mark.parametrize("late", [0, 1])
async def test_the_first_valid_reply_wins_also_a_late_one(world: World, late: int) -> None:
    await world.start(upstreams=2)
    for upstream in world.upstreams:
        upstream.silent(NAME)
    stub = world.send(NAME)
    await world.upstreams[0].received(1)
    world.clock.advance(0.25)
    await world.upstreams[1].received(1)
    world.clock.advance(0.75)
    await world.settle()
    upstream = world.upstreams[late]
    upstream.send(0, reply(upstream.asked[0], record(late + 1)))
    assert (await stub.answer()).answer[0][0].to_text() == f"192.0.2.{late + 1}"


async def test_an_upstream_that_takes_1_8_s_is_still_heard(world: World) -> None:
    await world.start()
    world.upstream.silent(NAME)
    stub = world.send(NAME)
    for pause in (0.25, 0.5, 1.05):
        await world.settle()
        world.clock.advance(pause)
    world.upstream.send(0, reply(world.upstream.asked[0], record(1)))
    assert (await stub.answer()).answer


async def test_another_s_failure_does_not_close_a_try(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].silent(NAME)
    stub = world.send(NAME)
    await world.upstreams[0].received(1)
    world.clock.advance(0.25)
    await world.settle()
    world.upstreams[0].send(0, reply(world.upstreams[0].asked[0], record(1)))
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.1"


async def test_the_loser_of_a_hedge_is_not_sent_to_the_client(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].silent(NAME)
    world.upstreams[1].answer(NAME, "A", record(2))
    stub = world.send(NAME)
    await world.upstreams[0].received(1)
    world.clock.advance(0.25)
    await stub.receive()
    world.upstreams[0].send(0, reply(world.upstreams[0].asked[0], record(1)))
    await world.settle()
    assert not stub.has_answer()
    assert (await world.ask(NAME)).answer[0][0].to_text() == "192.0.2.2"


# Hedging and its bounds


async def test_the_hedge_comes_at_the_95th_percentile_once_20_answers_are_known(world: World) -> None:
    await world.start(upstreams=2)
    first, second = world.upstreams
    first.on_any(lambda query: None)
    for number in range(20):
        stub = world.send(f"n{number}.example")
        await first.received(number + 1)
        world.clock.advance(0.04)
        first.send(number, reply(first.asked[number], f"n{number}.example 60 A 192.0.2.1"))
        await stub.receive()
    second.answer(NAME, "A", record(2))
    state(world, second).srtt = 0.05  # known and about as fast, so that the order stays
    stub = world.send(NAME)
    await first.received(21)
    world.clock.advance(0.039)
    await world.settle()
    assert asked(world) == [21, 0]
    world.clock.advance(0.002)
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.2"


async def test_19_answers_are_not_enough_for_it(world: World) -> None:
    await world.start(upstreams=2)
    first = world.upstreams[0]
    first.on_any(lambda query: reply(query, f"{query.question[0].name} 60 A 192.0.2.1"))
    for number in range(19):
        await world.ask(f"n{number}.example")
    first.silent(NAME)
    world.send(NAME)
    await first.received(20)
    world.clock.advance(0.249)
    await world.settle()
    assert asked(world) == [20, 0]


async def test_the_same_endpoint_is_asked_again_no_sooner_than_250_ms(world: World) -> None:
    await world.start()
    world.upstream.silent(NAME)
    world.send(NAME)
    await world.upstream.received(1)
    world.clock.advance(0.249)
    await world.settle()
    assert asked(world) == [1]
    world.clock.advance(0.001)
    await world.upstream.received(2)


async def test_a_quick_failure_elsewhere_brings_no_early_repeat(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].answer(NAME, "A", rcode="SERVFAIL")
    world.upstreams[1].silent(NAME)
    world.send(NAME)
    await world.upstreams[1].received(1)
    world.clock.advance(0.249)
    await world.settle()
    assert asked(world) == [1, 1]
    world.clock.advance(0.001)
    await world.upstreams[1].received(2)


@pytest.mark.parametrize(("upstreams", "fallbacks"), [(1, 0), (2, 0), (1, 1), (3, 2)])
async def test_each_upstream_is_asked_at_most_three_times(world: World, upstreams: int, fallbacks: int) -> None:
    await world.start(upstreams, fallbacks)
    for upstream in world.upstreams:
        upstream.silent(NAME)
    stub = world.send(NAME)
    await answer_all(world, pauses=40)
    assert (await stub.answer()).rcode() == 2
    assert all(1 <= times <= 3 for times in asked(world))


async def test_late_formerrs_bring_no_fourth_try(world: World) -> None:
    await world.start()
    world.upstream.silent(NAME)
    stub = world.send(NAME)
    for tries, pause in ((1, 0.25), (2, 0.5), (3, 0.0)):
        await world.upstream.received(tries)
        world.clock.advance(pause)
    for number in range(3):
        query = world.upstream.asked[number]
        world.upstream.send(number, reply(query, rcode="FORMERR"))
    assert (await stub.answer()).rcode() == 2
    assert asked(world) == [3]


async def test_late_truncated_answers_bring_at_most_three_tries_over_tcp(world: World) -> None:
    await world.start()
    world.upstream.silent(NAME)
    world.send(NAME)
    for tries, pause in ((1, 0.25), (2, 0.5), (3, 0.0)):
        await world.upstream.received(tries)
        world.clock.advance(pause)
    world.upstream.on(NAME, "A", lambda query: reply(query, rcode="FORMERR"))
    for number in range(3):
        world.upstream.send(number, reply(world.upstream.asked[number], flags=dns.flags.TC))
    await eventually(lambda: world.worker.resolver.in_flight == 0)
    assert world.upstream.protocols.count("udp") == 3
    assert world.upstream.protocols.count("tcp") == 3


async def test_asking_an_aaaa_once_more_stays_within_three_tries(world: World) -> None:
    await world.start()
    world.upstream.answer(NAME, "A", record(1))
    await world.ask(NAME)
    world.upstream.silent(NAME, "AAAA")
    stub = world.send(NAME, "AAAA")
    for tries, pause in ((2, 0.25), (3, 0.5), (4, 0.0)):
        await world.upstream.received(tries)
        world.clock.advance(pause)
    for number in (1, 2, 3):
        world.upstream.send(number, reply(world.upstream.asked[number], rcode="SERVFAIL"))
    assert (await stub.answer()).rcode() == 0
    assert asked(world) == [4]


# Within 2 seconds


@pytest.mark.parametrize(("upstreams", "fallbacks"), [(1, 0), (4, 2)])
async def test_silence_everywhere_is_answered_within_2_s(world: World, upstreams: int, fallbacks: int) -> None:
    await world.start(upstreams, fallbacks)
    for upstream in world.upstreams:
        upstream.silent(NAME)
    stub = world.send(NAME)
    await world.upstream.received(1)
    world.clock.advance(1.999)
    assert (await stub.answer()).rcode() == 2


async def test_who_joins_late_is_answered_with_the_others(world: World) -> None:
    await world.start()
    world.upstream.silent(NAME)
    first = world.send(NAME)
    await world.upstream.received(1)
    world.clock.advance(1.5)
    second = world.send(NAME)
    await world.settle()
    world.clock.advance(0.499)
    assert [(await stub.answer()).rcode() for stub in (first, second)] == [2, 2]


async def test_the_policy_s_timeout_is_kept(world: World) -> None:
    await world.start(timeout=1.0)
    world.upstream.silent(NAME)
    stub = world.send(NAME)
    await world.upstream.received(1)
    world.clock.advance(0.999)
    assert (await stub.answer()).rcode() == 2


async def test_the_third_of_three_endpoints_answers_when_two_are_silent(world: World) -> None:
    await world.start(upstreams=3)
    for upstream in world.upstreams[:2]:
        upstream.silent(NAME)
    world.upstreams[2].answer(NAME, "A", record(3))
    stub = world.send(NAME)
    await answer_all(world)
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.3"


# Down and up again


async def test_three_tries_without_an_answer_take_an_upstream_down_within_3_s(world: World) -> None:
    await world.start()
    world.upstream.silent(NAME)
    stub = world.send(NAME)
    await answer_all(world)
    await stub.receive()
    world.clock.advance(1)
    assert state(world, world.upstream).down


async def test_three_refusals_take_an_upstream_down(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].stop_udp()
    world.upstreams[1].on_any(lambda query: reply(query, f"{query.question[0].name} 60 A 192.0.2.2"))
    for number in range(3):
        assert not state(world, world.upstreams[0]).down
        assert (await world.ask(f"n{number}.example")).answer
    assert state(world, world.upstreams[0]).down


async def test_the_silent_loser_of_hedges_goes_down_too(world: World) -> None:
    await world.start(upstreams=2)
    first, second = world.upstreams
    first.on_any(lambda query: None)
    second.on_any(lambda query: reply(query, f"{query.question[0].name} 60 A 192.0.2.2"))
    for number in range(3):
        stub = world.send(f"n{number}.example")
        await first.received(number + 1)
        world.clock.advance(0.25)
        assert (await stub.answer()).answer
    assert not state(world, first).down
    world.clock.advance(1.5)
    assert state(world, first).down
    assert (await world.ask("last.example")).answer
    assert "last.example" not in [name for name, _ in first.questions()]


async def test_a_loser_that_was_only_slower_stays_up(world: World) -> None:
    await world.start(upstreams=2)
    first, second = world.upstreams
    first.on_any(lambda query: None)
    second.on_any(lambda query: reply(query, f"{query.question[0].name} 60 A 192.0.2.2"))
    stubs = [world.send(f"n{number}.example") for number in range(4)]
    await first.received(4)
    world.clock.advance(0.25)
    for number, stub in enumerate(stubs):
        await stub.receive()
        first.send(number, reply(first.asked[number], f"{first.asked[number].question[0].name} 60 A 192.0.2.1"))
    await world.settle()
    world.clock.advance(3)
    assert not state(world, first).down


async def test_one_broken_name_does_not_take_its_upstream_down(world: World) -> None:
    await world.start(stale=0)
    world.upstream.on_any(lambda query: reply(query, rcode="SERVFAIL"))
    for _ in range(10):
        for rtype in ("A", "AAAA", "MX"):
            await world.ask("broken.example", rtype)
        world.clock.advance(31)
    assert not state(world, world.upstream).down


async def test_one_name_that_is_never_answered_does_not_take_its_upstream_down(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: reply(query, f"{query.question[0].name} 0 A 192.0.2.1"))
    world.upstream.silent("black.example")
    for _ in range(3):
        stub = world.send("black.example")
        for _ in range(8):
            await world.settle()
            world.clock.advance(0.3)
            assert (await world.ask("good.example")).answer
        await stub.receive()
        world.clock.advance(31)
    assert not state(world, world.upstream).down


async def test_a_down_upstream_is_asked_last_but_still_asked(world: World) -> None:
    await world.start(upstreams=2)
    state(world, world.upstreams[0]).down = True
    world.upstreams[0].answer(NAME, "A", record(1))
    assert (await world.ask(NAME)).answer[0][0].to_text() == "192.0.2.1"
    assert asked(world) == [1, 1]
    assert not state(world, world.upstreams[0]).down


async def take_down(world: World) -> Upstream:
    """Three questions without an answer, and everything that is due settled."""
    world.upstream.silent(NAME)
    stub = world.send(NAME)
    for pause in (0.25, 0.5, 1.15, 0.4):
        await world.settle()
        world.clock.advance(pause)
    await stub.receive()
    upstream = state(world, world.upstream)
    assert upstream.down
    return upstream


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
async def test_a_probe_that_is_answered_brings_it_up_again(world: World, rcode: str) -> None:
    await world.start()
    upstream = await take_down(world)
    world.upstream.on_any(lambda query: reply(query, rcode=rcode))
    world.clock.advance(1)
    await eventually(lambda: not upstream.down)
    assert world.upstream.questions()[-1][0].startswith("sidestep-")


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_probe_that_fails_leaves_it_down_and_is_repeated_later(world: World, rcode: str) -> None:
    await world.start()
    upstream = await take_down(world)
    world.upstream.on_any(lambda query: reply(query, rcode=rcode))
    tries = len(world.upstream.asked)
    for number, pause in enumerate((1, 2, 4), 1):
        world.clock.advance(pause)
        await world.upstream.received(tries + number)
        await eventually(lambda: not upstream.probing)
        assert upstream.down
    world.upstream.on_any(lambda query: reply(query))
    world.clock.advance(8)
    await eventually(lambda: not upstream.down)
