"""P2: own random ID and port upstream; only a reply that matches address, ID and question counts (RFC 5452 9).

What doesn't match is passed over, and the waiting goes on.
"""

import socket
from collections.abc import Callable
from itertools import pairwise

import dns.message
import dns.name
import pytest

from proxy.core.counters import REJECTED
from tests import wire
from tests.fakes import World, question, reply

GOOD = "www.example 60 A 192.0.2.1"
BAD = "www.example 60 A 192.0.2.66"


async def test_questions_in_flight_have_ids_and_ports_of_their_own(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: None)
    stub = world.stub()
    for number in range(60):
        stub.send(question(f"n{number}.example", id=number).to_wire())
    await world.upstream.received(60)
    ids = [asked.id for asked in world.upstream.asked]
    assert len(set(ids)) == 60
    assert len({(b - a) % 65536 for a, b in pairwise(ids)}) > 30
    assert len({port for _, port in world.upstream.sources}) >= 8


async def test_the_client_s_id_is_not_used_upstream(world: World) -> None:
    await world.start()
    for number in range(20):
        await world.exchange(question(f"n{number}.example", id=7))
    assert [asked.id for asked in world.upstream.asked].count(7) < 3


def wrong_id(query: dns.message.Message) -> bytes:
    wired = reply(query, BAD).to_wire()
    return (query.id ^ 1).to_bytes(2, "big") + wired[2:]


def other_name(query: dns.message.Message) -> bytes:
    return reply(question("wwx.example", id=query.id), BAD).to_wire()


def longer_name(query: dns.message.Message) -> bytes:
    return reply(question("www.example.com", id=query.id), BAD).to_wire()


def other_type(query: dns.message.Message) -> bytes:
    return reply(question("www.example", "AAAA", id=query.id), BAD).to_wire()


def other_class(query: dns.message.Message) -> bytes:
    return reply(question("www.example", rdclass="CH", id=query.id)).to_wire()


def no_question(query: dns.message.Message) -> bytes:
    return wire.header(query.id, wire.QR | wire.RA, qd=0)


def no_question_nxdomain(query: dns.message.Message) -> bytes:
    return wire.header(query.id, wire.QR | wire.RA | 3, qd=0)


def no_question_but_an_answer(query: dns.message.Message) -> bytes:
    answer = wire.record(b"\3www\7example\0", 1, 60, b"\1\1\1\1")
    return wire.header(query.id, wire.QR | wire.RA, qd=0, an=1) + answer


def two_questions(query: dns.message.Message) -> bytes:
    asked = query.to_wire()[12 : 12 + 17]
    return wire.header(query.id, wire.QR | wire.RA, qd=2) + asked + asked


def reflected(query: dns.message.Message) -> bytes:
    return query.to_wire()


def answer_without_qr(query: dns.message.Message) -> bytes:
    wired = bytearray(reply(query, BAD).to_wire())
    wired[2] &= 0x7F
    return bytes(wired)


def other_opcode(query: dns.message.Message) -> bytes:
    wired = bytearray(reply(query, BAD).to_wire())
    wired[2] |= 4 << 3
    return bytes(wired)


def soup(query: dns.message.Message) -> bytes:
    return query.id.to_bytes(2, "big") + b"\x81\x80" + bytes(range(7, 90))


def short(query: dns.message.Message) -> bytes:
    return query.to_wire()[:11]


def nothing(query: dns.message.Message) -> bytes:
    return b""


MISMATCHES = [
    wrong_id,
    other_name,
    longer_name,
    other_type,
    other_class,
    no_question,
    no_question_nxdomain,
    no_question_but_an_answer,
    two_questions,
    reflected,
    answer_without_qr,
    other_opcode,
    soup,
    short,
    nothing,
]


@pytest.mark.parametrize("mismatch", MISMATCHES, ids=lambda f: f.__name__)
async def test_what_does_not_match_is_passed_over(
    world: World, mismatch: Callable[[dns.message.Message], bytes]
) -> None:
    await world.start()
    world.upstream.on("www.example", "A", lambda query: [mismatch(query), reply(query, GOOD).to_wire()])
    for _ in range(2):
        assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"
    assert len(world.upstream.asked) == 1
    assert sum(count for _, count in REJECTED.samples(world.counts)) == 1


@pytest.mark.parametrize("mismatch", MISMATCHES, ids=lambda f: f.__name__)
async def test_what_does_not_match_leaves_nothing_in_the_cache(
    world: World, mismatch: Callable[[dns.message.Message], bytes]
) -> None:
    await world.start()
    world.upstream.on("www.example", "A", mismatch)
    stub = world.send("www.example")
    await world.upstream.received(1)
    await world.settle()
    assert not stub.has_answer()
    world.clock.advance(2)
    assert (await stub.answer()).rcode() == 2
    world.upstream.answer("www.example", "A", GOOD)
    world.clock.advance(1)
    assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"


async def test_a_reply_from_elsewhere_is_passed_over(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = world.send("www.example")
    await world.upstream.received(1)
    forged = reply(world.upstream.asked[0], BAD).to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.bind((world.upstream.ip, 0))
        forger.sendto(forged, world.upstream.sources[0])
        forger.sendto(forged, world.upstream.sources[0])
    await world.settle()
    assert not stub.has_answer()
    world.upstream.send(0, reply(world.upstream.asked[0], GOOD))
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.1"


async def test_an_answer_to_another_question_in_flight_is_passed_over(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: None)
    first, second = world.send("www.example"), world.send("other.example")
    await world.upstream.received(2)
    places = {asked.question[0].name.to_text(): at for at, asked in enumerate(world.upstream.asked)}
    www, other = places["www.example."], places["other.example."]
    crossed = reply(world.upstream.asked[other], "other.example 60 A 192.0.2.66")
    world.upstream.send(www, crossed)
    world.upstream.send(www, reply(world.upstream.asked[www], GOOD))
    assert (await first.answer()).answer[0][0].to_text() == "192.0.2.1"
    await world.settle()
    assert not second.has_answer()


@pytest.mark.parametrize("rcode", [1, 2, 4, 5], ids=["FORMERR", "SERVFAIL", "NOTIMP", "REFUSED"])
@pytest.mark.usefixtures("in_order")
async def test_an_error_without_a_question_ends_that_try_at_once(world: World, rcode: int) -> None:
    await world.start(upstreams=2)
    refusal = wire.QR | wire.RA | rcode
    world.upstreams[0].on_any(lambda query: wire.header(query.id, refusal, qd=0))
    world.upstreams[1].answer("www.example", "A", GOOD)
    answer = await world.ask("www.example")
    assert answer.answer[0][0].to_text() == "192.0.2.1"
    assert answer.question[0].name.to_text() == "www.example."


async def test_a_bare_formerr_starts_the_fallback_without_edns(world: World) -> None:
    await world.start()

    def old(query: dns.message.Message) -> bytes | dns.message.Message:
        return wire.header(query.id, wire.QR | 1, qd=0) if query.edns >= 0 else reply(query, GOOD)

    world.upstream.on("www.example", "A", old)
    assert (await world.ask("www.example")).answer
    assert [asked.edns for asked in world.upstream.asked] == [0, -1]


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize(
    "mismatch", [other_name, no_question, reflected, soup, other_opcode], ids=lambda f: f.__name__
)
async def test_a_mismatch_over_tcp_fails_the_try_or_is_passed_over(
    world: World, mismatch: Callable[[dns.message.Message], bytes]
) -> None:
    await world.start(upstreams=2)

    def bad_over_tcp(query: dns.message.Message) -> bytes:
        truncated = len(world.upstreams[0].asked) == 1
        return reply(query, flags=0x0200).to_wire() if truncated else mismatch(query)

    world.upstreams[0].on("www.example", "A", bad_over_tcp)
    world.upstreams[1].answer("www.example", "A", GOOD)
    stub = world.send("www.example")
    await world.upstreams[0].received(2)
    await world.settle()
    world.clock.advance(0.25)
    assert (await stub.answer()).answer[0][0].to_text() == "192.0.2.1"
    assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"
