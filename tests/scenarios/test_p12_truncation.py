"""P12: an answer fits its client's buffer, cut at whole records with TC; TC from upstream is asked again over TCP.

RFC 2181 9, RFC 1035 7.4, RFC 7766. What is truncated is never kept.
"""

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests import wire
from tests.fakes import ScriptedUpstream, World, question, reply, soa

TC = 0x0200
WWW = "www.example 60 A 192.0.2.1"


def addresses(count: int) -> list[str]:
    """16 bytes each in an answer that compresses its owners."""
    return [f"www.example 60 A 192.0.2.{number}" for number in range(1, count + 1)]


def truncated_over_udp(upstream: ScriptedUpstream, *lines: str) -> None:
    """Answer www.example A with TC over UDP and with these records over TCP."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        return reply(query, flags=TC) if upstream.protocols[-1] == "udp" else reply(query, *lines)

    upstream.on("www.example", "A", answer)


@pytest.mark.parametrize("size", [None, 512, 700, 1232])
async def test_an_answer_is_cut_at_whole_records_and_fits(world: World, size: int | None) -> None:
    await world.start()
    truncated_over_udp(world.upstream, *addresses(100))
    additional = [] if size is None else [wire.opt(size)]
    room = (size or 512) - len(wire.query(*additional))
    for _ in range(3):
        answered = await world.exchange_wire(wire.query(*additional))
        answer = dns.message.from_wire(answered)
        assert len(answered) <= (size or 512)
        assert [rdata.to_text() for rdata in answer.answer[0]] == [f"192.0.2.{n}" for n in range(1, room // 16 + 1)]
        assert answer.flags & dns.flags.TC
        assert (answer.edns, answer.question[0].name.to_text()) == (-1 if size is None else 0, "www.example.")


async def test_what_fits_to_the_last_byte_is_whole(world: World) -> None:
    await world.start()
    truncated_over_udp(world.upstream, *addresses(30))
    whole = len(wire.query()) + 30 * 16
    assert whole == 509
    assert not (await world.ask("www.example")).flags & dns.flags.TC
    padded = wire.record(b"\xc0\x0c", 16, 60, b"\2ab" + b"\1a" * 240)
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), padded[:10] + b"\1\xd7" + bytes(471)))
    answer = await world.exchange_wire(wire.query(rtype=16))
    assert (len(answer), wire.flags_of(answer) & TC) == (512, 0)
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), padded[:10] + b"\1\xd8" + bytes(472)))
    answer = await world.exchange_wire(wire.query(name="www.exampla", rtype=16))
    assert (len(answer), wire.flags_of(answer) & TC) == (29, TC)


async def test_one_entry_serves_every_size_whoever_came_first(world: World) -> None:
    await world.start()
    truncated_over_udp(world.upstream, *addresses(60))
    whole = len(addresses(60))
    for size in (None, 1232, None, 700, 1232, None, 1232):
        answer = await world.exchange(question("www.example", payload=size, use_edns=-1 if size is None else 0))
        assert bool(answer.flags & dns.flags.TC) == (size != 1232)
        assert (len(answer.answer[0]) == whole) == (size == 1232)
    [over_tcp] = await world.ask_tcp(question("www.example"))
    assert (len(over_tcp.answer[0]), over_tcp.flags & dns.flags.TC) == (whole, 0)
    assert world.upstream.protocols == ["udp", "tcp"]


async def test_additional_records_go_first_and_without_tc(world: World) -> None:
    await world.start()
    glue = [f"ns{number}.example 60 A 192.0.2.{number}" for number in range(40)]
    world.upstream.answer("www.example", "A", *addresses(4), additional=glue)
    for _ in range(3):
        answer = await world.ask("www.example")
        assert (len(answer.answer[0]), answer.flags & dns.flags.TC) == (4, 0)
        assert 0 < len(answer.additional) < 40


async def test_no_pointer_leads_into_what_was_cut(world: World) -> None:
    await world.start()
    chain = [f"n{number}.a.long.name.example 60 CNAME n{number + 1}.a.long.name.example." for number in range(90)]
    world.upstream.answer("n0.a.long.name.example", "A", *chain, "n90.a.long.name.example 60 A 192.0.2.1")
    for size in (512, 600, 700, 1232):
        query = question("n0.a.long.name.example", use_edns=0, payload=size)
        answer = await world.exchange(query)
        assert answer.flags & dns.flags.TC
        assert [rrset.name.to_text() for rrset in answer.answer] == [
            f"n{number}.a.long.name.example." for number in range(len(answer.answer))
        ]


async def test_a_denial_that_does_not_fit_keeps_its_rcode(world: World) -> None:
    await world.start()
    proof = [f"n{number}.example 60 TXT {'x' * 60}" for number in range(20)]
    world.upstream.answer("www.example", "A", rcode="NXDOMAIN", authority=[soa(), *proof])
    for _ in range(3):
        answer = await world.ask("www.example")
        assert (answer.rcode(), bool(answer.flags & dns.flags.TC)) == (3, True)
        assert answer.authority[0].rdtype == 6


async def test_tc_from_upstream_is_asked_again_over_tcp_and_never_kept(world: World) -> None:
    await world.start()
    truncated_over_udp(world.upstream, WWW)
    for _ in range(3):
        answer = await world.ask("www.example")
        assert (len(answer.answer), answer.flags & dns.flags.TC) == (1, 0)
    assert world.upstream.protocols == ["udp", "tcp"]


async def test_records_in_a_truncated_reply_are_not_the_answer(world: World) -> None:
    await world.start()

    def answer(query: dns.message.Message) -> dns.message.Message:
        if world.upstream.protocols[-1] == "udp":
            return reply(query, *addresses(2), flags=TC)
        return reply(query, *addresses(9))

    world.upstream.on("www.example", "A", answer)
    for _ in range(2):
        assert len((await world.ask("www.example")).answer[0]) == 9


async def test_a_truncated_denial_is_asked_again_over_tcp(world: World) -> None:
    await world.start()

    def answer(query: dns.message.Message) -> dns.message.Message:
        if world.upstream.protocols[-1] == "udp":
            return reply(query, rcode="NXDOMAIN", flags=TC)
        return reply(query, WWW)

    world.upstream.on("www.example", "A", answer)
    assert (await world.ask("www.example")).rcode() == 0


def tc_everywhere(query: dns.message.Message) -> dns.message.Message:
    return reply(query, *addresses(3), flags=TC)


@pytest.mark.usefixtures("in_order")
async def test_tc_over_tcp_too_is_a_failed_try_and_the_next_upstream_is_asked(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].on("www.example", "A", tc_everywhere)
    world.upstreams[1].answer("www.example", "A", WWW)
    answer = await world.ask("www.example")
    assert (len(answer.answer[0]), answer.flags & dns.flags.TC) == (1, 0)
    assert world.upstreams[0].protocols == ["udp", "tcp"]


async def test_with_nothing_but_tc_a_udp_client_gets_what_there_is_with_tc(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", tc_everywhere)
    answer = await world.ask("www.example")
    assert (answer.rcode(), len(answer.answer[0]), bool(answer.flags & dns.flags.TC)) == (0, 3, True)


async def test_with_nothing_but_tc_a_tcp_client_gets_servfail(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", tc_everywhere)
    [answer] = await world.ask_tcp(question("www.example"))
    assert (answer.rcode(), answer.flags & dns.flags.TC) == (dns.rcode.SERVFAIL, 0)


async def test_both_kinds_of_clients_waiting_for_one_tc_get_what_suits_them(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    udp, tcp = world.send("www.example"), await world.tcp_stub()
    await world.upstream.received(1)
    tcp.send(question("www.example").to_wire())
    await world.settle()
    world.upstream.on("www.example", "A", tc_everywhere)
    world.upstream.send(0, tc_everywhere(world.upstream.asked[0]))
    over_udp, over_tcp = await udp.answer(), await tcp.answer()
    assert (over_udp.rcode(), bool(over_udp.flags & dns.flags.TC)) == (0, True)
    assert (over_tcp.rcode(), bool(over_tcp.flags & dns.flags.TC)) == (2, False)


async def test_tc_is_not_remembered_so_the_next_question_tries_again(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", tc_everywhere)
    await world.ask("www.example")
    truncated_over_udp(world.upstream, WWW)
    answer = await world.ask("www.example")
    assert (answer.rcode(), len(answer.answer[0]), answer.flags & dns.flags.TC) == (0, 1, 0)


@pytest.mark.usefixtures("in_order")
async def test_tc_with_a_dead_tcp_port_goes_to_the_next_upstream(world: World) -> None:
    await world.start(upstreams=2)
    world.upstreams[0].on("www.example", "A", tc_everywhere)
    world.upstreams[0].stop_tcp()
    world.upstreams[1].answer("www.example", "A", WWW)
    answer = await world.ask("www.example")
    assert (len(answer.answer[0]), answer.flags & dns.flags.TC) == (1, 0)


async def test_tc_with_a_dead_tcp_port_everywhere_is_passed_on_filled(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", tc_everywhere)
    world.upstream.stop_tcp()
    answer = await world.ask("www.example")
    assert (len(answer.answer[0]), bool(answer.flags & dns.flags.TC)) == (3, True)
    [over_tcp] = await world.ask_tcp(question("www.example"))
    assert (over_tcp.rcode(), bool(over_tcp.flags & dns.flags.TC)) == (2, False)


async def test_tc_with_a_silent_tcp_port_is_passed_on_within_two_seconds(world: World) -> None:
    await world.start()

    def answer(query: dns.message.Message) -> dns.message.Message | None:
        return tc_everywhere(query) if world.upstream.protocols[-1] == "udp" else None

    world.upstream.on("www.example", "A", answer)
    stub = world.send("www.example")
    await world.upstream.received(2)
    world.clock.advance(2)
    answered = await stub.answer()
    assert (len(answered.answer[0]), bool(answered.flags & dns.flags.TC)) == (3, True)


async def test_stale_data_is_better_than_a_truncated_answer(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", *addresses(5))
    await world.ask("www.example")
    world.clock.advance(61)
    world.upstream.on("www.example", "A", tc_everywhere)
    answer = await world.ask("www.example")
    assert (len(answer.answer[0]), answer.flags & dns.flags.TC) == (5, 0)


@pytest.mark.parametrize("count", [1200, 4090])
async def test_64_kib_pass_over_tcp_whole_and_from_the_cache(world: World, count: int) -> None:
    await world.start()
    lines = [f"www.example 60 A 10.0.{number // 256}.{number % 256}" for number in range(count)]
    truncated_over_udp(world.upstream, *lines)
    for _ in range(2):
        [answer] = await world.ask_tcp(question("www.example", use_edns=0))
        assert (len(answer.answer[0]), answer.edns) == (count, 0)
        assert (await world.ask("www.example")).flags & dns.flags.TC
    assert world.upstream.protocols == ["udp", "tcp"]


async def test_an_opt_never_makes_a_message_longer_than_its_length_can_say(world: World) -> None:
    await world.start()
    room = 65535 - len(wire.query())
    filler = wire.record(b"\xc0\x0c", 16, 60, bytes(room - 12))

    def full(query: dns.message.Message) -> bytes | dns.message.Message:
        if world.upstream.protocols[-1] == "udp":
            return reply(query, flags=TC)
        return wire.answering(query.to_wire(), filler)

    world.upstream.on("www.example", "TXT", full)
    plain, with_edns = await world.tcp_stub(), await world.tcp_stub()
    plain.send(wire.query(rtype=16))
    assert len(await plain.receive()) == 65535
    with_edns.send(wire.query(wire.opt(), rtype=16))
    answer = await with_edns.receive()
    assert len(answer) < 100
    assert answer.endswith(wire.opt(1232))


async def test_an_answer_over_tcp_is_no_larger_than_the_upstream_s(world: World) -> None:
    await world.start()
    chain = [f"n{number}.a.long.name.example 60 CNAME n{number + 1}.a.long.name.example." for number in range(60)]
    sent = []

    def answer(query: dns.message.Message) -> bytes:
        sent.append(reply(query, *chain).to_wire(max_size=65535))
        return sent[-1]

    world.upstream.on("n0.a.long.name.example", "A", answer)
    stub = await world.tcp_stub()
    stub.send(wire.query(name="n0.a.long.name.example"))
    assert len(await stub.receive()) == len(sent[0]) - len(wire.opt())
