"""FORMERR or NOTIMP to a question with EDNS: once more without, remembered only when that worked (RFC 6891 7)."""

import dns.flags
import dns.message
import pytest

from proxy.core.upstreams import NO_EDNS_FOR
from tests.fakes import Handler, World, reply


def without_edns(rcode: str = "FORMERR") -> Handler:
    """A server that chokes on EDNS and knows an address for every name."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        if query.edns >= 0:
            query.use_edns(False)
            return reply(query, rcode=rcode)
        return reply(query, f"{query.question[0].name} 60 A 192.0.2.1")

    return answer


def bare_formerr(query: dns.message.Message) -> bytes | dns.message.Message:
    """A server that returns nothing but a header when it meets EDNS."""
    if query.edns >= 0:
        return query.to_wire()[:2] + b"\x81\x81" + bytes(8)
    return reply(query, f"{query.question[0].name} 60 A 192.0.2.1")


def opts(world: World, upstream: int = 0) -> list[int]:
    """How many additional records (all OPTs) each question to that upstream had."""
    return [wire[11] for wire in world.upstreams[upstream].wires]


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
async def test_the_question_is_asked_once_more_without_edns(world: World, rcode: str) -> None:
    await world.start()
    world.upstream.on_any(without_edns(rcode))
    assert (await world.ask("www.example")).answer
    assert opts(world) == [1, 0]


async def test_badvers_is_a_reason_too(world: World) -> None:
    await world.start()

    def answer(query: dns.message.Message) -> dns.message.Message:
        if query.edns >= 0:
            return reply(query, rcode="BADVERS")
        return reply(query, "www.example 60 A 192.0.2.1")

    world.upstream.on_any(answer)
    assert (await world.ask("www.example")).answer
    assert opts(world) == [1, 0]


async def test_a_bare_header_is_enough_of_a_formerr(world: World) -> None:
    await world.start()
    world.upstream.on_any(bare_formerr)
    assert (await world.ask("www.example")).answer
    assert opts(world) == [1, 0]


async def test_success_without_edns_is_remembered_for_a_while(world: World) -> None:
    await world.start()
    world.upstream.on_any(without_edns())
    for number in range(3):
        assert (await world.ask(f"n{number}.example")).answer
    assert opts(world) == [1, 0, 0, 0]
    world.clock.advance(NO_EDNS_FOR)
    assert (await world.ask("later.example")).answer
    assert opts(world)[4:] == [1, 0]


async def test_what_fails_without_edns_as_well_is_not_remembered(world: World) -> None:
    await world.start()
    world.upstream.answer("bad.example", "A", rcode="FORMERR")
    assert (await world.ask("bad.example")).rcode() == 2
    assert opts(world) == [1, 0]
    world.upstream.answer("good.example", "A", "good.example 60 A 192.0.2.1")
    assert (await world.ask("good.example")).answer
    assert opts(world) == [1, 0, 1]


async def test_it_is_remembered_for_that_upstream_only(world: World, in_order: None) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].on_any(without_edns())
    world.upstreams[1].answer("b.example", "A", "b.example 60 A 192.0.2.2")
    assert (await world.ask("a.example")).answer
    world.upstreams[0].answer("b.example", "A", rcode="SERVFAIL")
    assert (await world.ask("b.example")).answer
    assert opts(world, 1) == [1]


async def test_servfail_and_refused_are_no_reason_to_leave_edns_out(world: World) -> None:
    await world.start()
    for rcode in ("SERVFAIL", "REFUSED"):
        world.upstream.answer(f"{rcode}.example", "A", rcode=rcode)
        assert (await world.ask(f"{rcode}.example")).rcode() == 2
    assert opts(world) == [1, 1]


async def test_no_question_carries_two_opts_whatever_came_before(world: World, in_order: None) -> None:
    await world.start(upstreams=3)
    world.upstreams[0].answer("www.example", "A", rcode="FORMERR")
    world.upstreams[1].answer("www.example", "A", flags=dns.flags.TC)
    world.upstreams[2].answer("www.example", "A", "www.example 60 A 192.0.2.1")
    assert (await world.ask("www.example", want_dnssec=True)).rcode() == 0
    assert [opts(world, number) for number in range(3)] == [[1, 0], [1, 1], [1]]
    for upstream in world.upstreams:
        assert {wire[12:].split(b"\0\1\0\1")[0] for wire in upstream.wires} == {b"\3www\7example\0"}


async def test_the_client_s_opt_is_there_and_do_echoed_all_the_same(world: World) -> None:
    await world.start()
    world.upstream.on_any(without_edns())
    for _ in range(2):
        answer = await world.ask("www.example", want_dnssec=True)
        assert (answer.edns, answer.ednsflags, len(answer.answer)) == (0, dns.flags.DO, 1)


async def test_what_was_asked_without_do_is_not_kept_for_do(world: World) -> None:
    await world.start()
    world.upstream.on_any(without_edns())
    await world.ask("www.example", want_dnssec=True)
    asked = len(world.upstream.asked)
    await world.ask("www.example", want_dnssec=True)
    assert len(world.upstream.asked) > asked
