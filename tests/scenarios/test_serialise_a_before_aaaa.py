"""An AAAA waits for its A, at most 250 ms, and the two never tell different tales of a name."""

import dns.message
import pytest

from proxy.core.counters import HELD
from tests.fakes import UdpStub, World, reply, soa

A_RECORD = "www.example 60 A 192.0.2.1"
AAAA_RECORD = "www.example 60 AAAA 2001:db8::1"
A_FIRST = [("www.example", "A"), ("www.example", "AAAA")]


async def ask_both(world: World, **keywords: int) -> tuple[UdpStub, UdpStub]:
    """A and then AAAA of www.example are on their way, neither is answered."""
    world.upstream.silent("www.example")
    a = world.send("www.example", "A", **keywords)
    await world.upstream.received(1)
    aaaa = world.send("www.example", "AAAA", **keywords)
    await world.settle()
    return a, aaaa


def send(world: World, at: int, *answer: str, rcode: str = "NOERROR", soa_of: str = "") -> None:
    """The upstream answers the question that came as number `at`."""
    authority = [soa(soa_of)] if soa_of else []
    world.upstream.send(at, reply(world.upstream.asked[at], *answer, rcode=rcode, authority=authority))


def verdict(answer: dns.message.Message) -> tuple[int, int]:
    """Rcode and number of answers."""
    return answer.rcode(), len(answer.answer)


# Holding


async def test_the_aaaa_is_not_asked_while_its_a_is_in_flight(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    assert world.upstream.questions() == [("www.example", "A")]
    world.upstream.answer("www.example", "AAAA", AAAA_RECORD)
    send(world, 0, A_RECORD)
    assert verdict(await a.answer()) == (0, 1)
    assert verdict(await aaaa.answer()) == (0, 1)
    assert world.upstream.questions() == A_FIRST
    assert world.count(HELD, "answer") == 1


async def test_it_is_asked_after_250_ms_at_the_latest(world: World) -> None:
    await world.start()
    await ask_both(world)
    world.clock.advance(0.249)
    await world.settle()
    assert world.upstream.questions() == [("www.example", "A")]
    world.clock.advance(0.001)
    await world.settle()
    assert ("www.example", "AAAA") in world.upstream.questions()
    assert world.count(HELD, "timeout") == 1


async def test_the_hold_is_the_policy_s(world: World) -> None:
    await world.start(hold=0.1)
    await ask_both(world)
    world.clock.advance(0.1)
    await world.upstream.received(2)
    assert world.upstream.questions() == A_FIRST


async def test_it_is_asked_at_once_where_serialising_is_off(world: World) -> None:
    await world.start(serialize=False)
    await ask_both(world)
    assert world.upstream.questions() == A_FIRST


async def test_an_aaaa_before_its_a_holds_nothing(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    world.send("www.example", "AAAA")
    await world.upstream.received(1)
    world.send("www.example", "A")
    await world.upstream.received(2)


async def test_an_aaaa_of_another_name_is_not_held(world: World) -> None:
    await world.start()
    await ask_both(world)
    world.send("other.example", "AAAA")
    await world.upstream.received(2)
    assert world.upstream.questions()[1] == ("other.example", "AAAA")


async def test_it_is_asked_when_its_a_fails(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", AAAA_RECORD)
    send(world, 0, rcode="SERVFAIL")
    assert verdict(await a.answer()) == (2, 0)
    assert verdict(await aaaa.answer()) == (0, 1)
    assert world.count(HELD, "failure") == 1


async def test_several_clients_wait_together(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    others = [world.send("www.example", "AAAA") for _ in range(5)]
    await world.settle()
    world.upstream.answer("www.example", "AAAA", AAAA_RECORD)
    send(world, 0, A_RECORD)
    for stub in (a, aaaa, *others):
        assert verdict(await stub.answer()) == (0, 1)
    assert world.upstream.questions() == A_FIRST


async def test_pairs_with_and_without_do_are_held_apart(world: World) -> None:
    await world.start()
    await ask_both(world)
    world.send("www.example", "AAAA", want_dnssec=True)
    await world.upstream.received(2)
    assert world.upstream.questions() == A_FIRST


# NXDOMAIN


async def test_nxdomain_of_the_a_answers_both(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    send(world, 0, rcode="NXDOMAIN", soa_of="example.")
    for stub in (a, aaaa):
        answer = await stub.answer()
        assert (answer.rcode(), len(answer.authority)) == (3, 1)
    assert world.upstream.questions() == [("www.example", "A")]
    assert world.count(HELD, "nxdomain") == 1


async def test_nxdomain_of_an_a_that_may_not_be_kept_answers_both_too(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    send(world, 0, rcode="NXDOMAIN")
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(3, 0), (3, 0)]


async def test_nxdomain_of_the_a_answers_an_aaaa_that_was_asked_already(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.clock.advance(0.25)
    await world.settle()
    send(world, 0, rcode="NXDOMAIN", soa_of="example.")
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(3, 0), (3, 0)]
    at = world.upstream.questions().index(("www.example", "AAAA"))
    send(world, at, AAAA_RECORD)
    await world.settle()
    assert [verdict(await world.ask("www.example", rtype)) for rtype in ("A", "AAAA")] == [(3, 0), (3, 0)]


@pytest.mark.parametrize("ttl", [60, 0])
async def test_nxdomain_of_the_aaaa_is_nodata_where_the_a_is_there(world: World, ttl: int) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="NXDOMAIN", authority=[soa()])
    send(world, 0, f"www.example {ttl} A 192.0.2.1")
    assert verdict(await a.answer()) == (0, 1)
    answer = await aaaa.answer()
    assert (answer.rcode(), answer.answer, len(answer.authority)) == (0, [], 1)


async def test_a_nodata_of_the_a_outranks_nxdomain_of_the_aaaa_as_well(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="NXDOMAIN", authority=[soa()])
    send(world, 0, soa_of="example.")
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(0, 0), (0, 0)]


async def test_that_nodata_is_kept_with_its_soa_and_the_a_stays(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", A_RECORD)
    world.upstream.answer("www.example", "AAAA", rcode="NXDOMAIN", authority=[soa()])
    for _ in range(3):
        assert verdict(await world.ask("www.example", "A")) == (0, 1)
        answer = await world.ask("www.example", "AAAA")
        assert (answer.rcode(), len(answer.authority)) == (0, 1)
    assert world.upstream.questions() == A_FIRST


async def test_nxdomain_behind_an_alias_is_nodata_too_where_the_a_is_there(world: World) -> None:
    await world.start()
    alias = "www.example 60 CNAME lb.example."
    world.upstream.answer("www.example", "A", alias, "lb.example 60 A 192.0.2.1")
    world.upstream.answer("www.example", "AAAA", alias, rcode="NXDOMAIN", authority=[soa()])
    assert verdict(await world.ask("www.example", "A")) == (0, 2)
    for _ in range(2):
        assert verdict(await world.ask("www.example", "AAAA")) == (0, 1)


async def test_nxdomain_of_an_aaaa_is_said_only_when_its_a_is_known(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="NXDOMAIN", authority=[soa()])
    world.clock.advance(0.25)
    await world.settle()
    assert ("www.example", "AAAA") in world.upstream.questions()
    assert not aaaa.has_answer()
    send(world, 0, A_RECORD)
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(0, 1), (0, 0)]


async def test_it_denies_the_name_when_the_a_says_so_as_well(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="NXDOMAIN", authority=[soa()])
    world.clock.advance(0.25)
    await world.settle()
    send(world, 0, rcode="NXDOMAIN", soa_of="example.")
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(3, 0), (3, 0)]


@pytest.mark.parametrize("rcode", ["SERVFAIL", None])
async def test_it_denies_both_when_the_a_fails(world: World, rcode: str | None) -> None:
    await world.start(hold=0.1)
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="NXDOMAIN", authority=[soa()])
    world.clock.advance(0.1)
    await world.settle()
    if rcode:
        send(world, 0, rcode=rcode)
    else:
        world.clock.advance(2)
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(3, 0), (3, 0)]


async def test_a_name_that_vanished_is_denied_for_both(world: World) -> None:
    await world.start(stale=0)
    world.upstream.answer("www.example", "A", A_RECORD)
    world.upstream.answer("www.example", "AAAA", "www.example 3600 AAAA 2001:db8::1")
    await world.ask("www.example", "A")
    await world.ask("www.example", "AAAA")
    world.clock.advance(60)
    world.upstream.answer("www.example", "A", rcode="NXDOMAIN", authority=[soa()])
    assert verdict(await world.ask("www.example", "A")) == (3, 0)
    assert verdict(await world.ask("www.example", "AAAA")) == (3, 0)


# Failures of the AAAA


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
@pytest.mark.parametrize("ttl", [60, 0])
async def test_an_aaaa_that_fails_is_asked_once_more_and_then_nodata(world: World, rcode: str, ttl: int) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode=rcode)
    send(world, 0, f"www.example {ttl} A 192.0.2.1")
    assert verdict(await a.answer()) == (0, 1)
    assert verdict(await aaaa.answer()) == (0, 0)
    assert world.upstream.questions() == [*A_FIRST, ("www.example", "AAAA")]


async def test_asking_once_more_may_bring_the_answer(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", A_RECORD)
    answers = iter(("SERVFAIL", "NOERROR"))

    def recover(query: dns.message.Message) -> dns.message.Message:
        rcode = next(answers)
        return reply(query, *([AAAA_RECORD] if rcode == "NOERROR" else []), rcode=rcode)

    world.upstream.on("www.example", "AAAA", recover)
    await world.ask("www.example", "A")
    assert verdict(await world.ask("www.example", "AAAA")) == (0, 1)


async def test_that_nodata_is_not_kept(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", A_RECORD)
    world.upstream.answer("www.example", "AAAA", rcode="SERVFAIL")
    await world.ask("www.example", "A")
    assert verdict(await world.ask("www.example", "AAAA")) == (0, 0)
    world.upstream.answer("www.example", "AAAA", AAAA_RECORD)
    assert verdict(await world.ask("www.example", "AAAA")) == (0, 1)


async def test_an_aaaa_that_fails_before_its_a_is_known_waits_for_it(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="SERVFAIL")
    world.clock.advance(0.25)
    await world.settle()
    assert not aaaa.has_answer()
    send(world, 0, A_RECORD)
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(0, 1), (0, 0)]


async def test_it_fails_when_its_a_fails_too(world: World) -> None:
    await world.start(hold=0.1)
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="SERVFAIL")
    world.clock.advance(0.1)
    await world.settle()
    send(world, 0, rcode="SERVFAIL")
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(2, 0), (2, 0)]


async def test_it_does_not_exist_when_its_a_does_not(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.upstream.answer("www.example", "AAAA", rcode="SERVFAIL")
    world.clock.advance(0.25)
    await world.settle()
    send(world, 0, rcode="NXDOMAIN", soa_of="example.")
    assert [verdict(await stub.answer()) for stub in (a, aaaa)] == [(3, 0), (3, 0)]


async def test_an_aaaa_that_nobody_answers_is_nodata_within_2_seconds(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", A_RECORD)
    world.upstream.silent("www.example", "AAAA")
    await world.ask("www.example", "A")
    stub = world.send("www.example", "AAAA")
    await world.upstream.received(2)
    world.clock.advance(2)
    assert verdict(await stub.answer()) == (0, 0)


async def test_a_silence_that_is_remembered_is_nodata_at_once(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", A_RECORD)
    world.upstream.silent("www.example", "AAAA")
    await world.ask("www.example", "A")
    stub = world.send("www.example", "AAAA")
    await world.upstream.received(2)
    world.clock.advance(2)
    await stub.answer()
    await world.settle()
    asked = len(world.upstream.asked)
    assert verdict(await world.ask("www.example", "AAAA")) == (0, 0)
    await world.settle()
    assert len(world.upstream.asked) == asked


async def test_a_remembered_failure_of_the_aaaa_is_nodata_once_the_a_is_there(world: World) -> None:
    await world.start()
    assert verdict(await world.ask("www.example", "AAAA")) == (2, 0)
    world.upstream.answer("www.example", "A", A_RECORD)
    assert verdict(await world.ask("www.example", "A")) == (0, 1)
    assert verdict(await world.ask("www.example", "AAAA")) == (0, 0)


async def test_both_fail_alike_where_everything_fails(world: World) -> None:
    await world.start()
    a, aaaa = await ask_both(world)
    world.clock.advance(2)
    assert verdict(await a.answer()) == (2, 0)
    world.clock.advance(0.25)
    assert verdict(await aaaa.answer()) == (2, 0)


async def test_an_aaaa_beside_an_a_that_is_only_refreshed_is_asked_at_once(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 10 A 192.0.2.1")
    world.upstream.answer("www.example", "AAAA", "www.example 10 AAAA 2001:db8::1")
    for _ in range(3):
        await world.ask("www.example", "A")
    world.clock.advance(9.5)
    world.upstream.silent("www.example", "A")
    await world.ask("www.example", "A")
    await world.upstream.received(2)
    assert (await world.ask("www.example", "AAAA")).answer
