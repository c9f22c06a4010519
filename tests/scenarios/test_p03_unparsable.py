"""P3: no reply to an answer or to less than a header; FORMERR to anything else that can't be parsed (RFC 8906)."""

import asyncio

import pytest

from proxy.core.counters import DROPPED
from proxy.worker.udp import SLOT_SIZE
from tests import wire
from tests.fakes import World

WWW = "www.example 60 A 192.0.2.1"
FORMERR, NOTIMP = 1, 4


@pytest.mark.parametrize("message", [b"", b"\0", wire.query()[:11], wire.query()[:2]], ids=len)
async def test_less_than_a_header_gets_no_reply(world: World, message: bytes) -> None:
    await world.start()
    stub = world.stub()
    stub.send(message)
    await world.settle()
    assert not stub.has_answer()
    assert world.count(DROPPED, "short") == 1


@pytest.mark.parametrize(
    "message",
    [
        wire.query(flags=wire.QR | wire.RD),
        wire.header(flags=wire.QR, qd=0),
        wire.query(flags=wire.QR | 0x7800),
        wire.header(flags=wire.QR, qd=9) + b"\xff" * 40,
    ],
    ids=["question", "header", "opcode", "soup"],
)
async def test_an_answer_gets_no_reply(world: World, message: bytes) -> None:
    await world.start()
    stub = world.stub()
    stub.send(message)
    await world.settle()
    assert not stub.has_answer()
    assert (world.count(DROPPED, "response"), world.upstream.asked) == (1, [])


async def test_an_answer_that_looks_like_a_known_question_gets_no_reply(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for _ in range(3):
        await world.exchange_wire(wire.query())
    stub = world.stub()
    stub.send(wire.query(flags=wire.QR | wire.RD))
    await world.settle()
    assert not stub.has_answer()


UNPARSABLE = {
    "header only": wire.header(qd=0),
    "header that promises a question": wire.header(),
    "name cut short": wire.header() + b"\3ww",
    "name without end": wire.header() + b"\3www\7example",
    "no type": wire.header() + b"\3www\7example\0",
    "half a type": wire.header() + b"\3www\7example\0\0",
    "no class": wire.header() + b"\3www\7example\0\0\1",
    "half a class": wire.header() + b"\3www\7example\0\0\1\0",
    "no additional record": wire.header(ar=1) + wire.asked(),
    "additional record cut short": (wire.header(ar=1) + wire.asked() + wire.opt())[:-1],
    "additional record overruns": wire.header(ar=1) + wire.asked() + wire.opt()[:-1] + b"\1",
    "additional owner is a loop": wire.query(b"\xc0\x1d" + bytes(10)),
    "soup": wire.header(qd=1, ar=1) + bytes(range(60, 160)),
}


@pytest.mark.parametrize("message", UNPARSABLE.values(), ids=UNPARSABLE.keys())
async def test_anything_else_unparsable_is_a_format_error(world: World, message: bytes) -> None:
    await world.start()
    answer = await world.exchange_wire(message)
    assert (answer[:2], wire.rcode_of(answer)) == (message[:2], FORMERR)
    assert wire.flags_of(answer) & wire.QR
    assert wire.counts_of(answer)[1:3] == (0, 0)
    assert world.upstream.asked == []


async def test_an_unreadable_question_gets_empty_sections(world: World) -> None:
    await world.start()
    for message in (wire.header(qd=0), wire.header(), wire.header() + b"\3www", wire.header() + b"\3www\7example\0"):
        answer = await world.exchange_wire(message)
        assert (len(answer), wire.counts_of(answer)) == (12, (0, 0, 0, 0))


async def test_the_next_question_is_answered(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    stub = world.stub()
    for message in UNPARSABLE.values():
        stub.send(message)
        assert wire.rcode_of(await stub.receive()) == FORMERR
        stub.send(wire.query())
        assert (await stub.answer()).answer


async def test_a_header_with_another_opcode_is_not_implemented(world: World) -> None:
    await world.start()
    answer = await world.exchange_wire(wire.header(flags=0x7800, qd=0))
    assert (wire.rcode_of(answer), wire.flags_of(answer) & 0x7800) == (NOTIMP, 0x7800)


async def test_trailing_bytes_never_reach_an_upstream_or_an_answer(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for _ in range(3):
        answer = await world.exchange_wire(wire.query() + b"trailing bytes")
        assert (b"trailing" in answer, wire.rcode_of(answer)) == (False, FORMERR)
        assert (await world.ask("www.example")).answer
    assert [len(asked) for asked in world.upstream.wires] == [len(wire.query(wire.opt()))]


async def test_tc_in_a_question_is_not_an_error_and_not_copied(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for _ in range(3):
        answer = await world.exchange_wire(wire.query(flags=wire.RD | 0x0200))
        assert (wire.flags_of(answer) & 0x020F, wire.counts_of(answer)[1]) == (0, 1)


async def test_over_tcp_the_connection_survives_them_all(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    stub = await world.tcp_stub()
    stub.send(b"", b"\0\1", wire.query(flags=wire.QR), wire.query())
    assert (await stub.answer()).answer
    for message in UNPARSABLE.values():
        stub.send(message)
        assert wire.rcode_of(await stub.receive()) == FORMERR
        stub.send(wire.query())
        assert (await stub.answer()).answer


async def test_a_message_cut_short_by_the_end_of_the_stream_gets_no_reply(world: World) -> None:
    await world.start()
    stub = await world.tcp_stub()
    whole = wire.query()
    stub.writer.write(len(whole).to_bytes(2, "big") + whole[:-1])
    stub.writer.write_eof()
    async with asyncio.timeout(10):
        assert await stub.reader.read() == b""


async def test_a_datagram_whose_beginning_is_a_whole_question_is_still_unparsable(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    shorter = wire.query(wire.opt(1232, wire.option(12)))
    whole = wire.query(wire.opt(1232, wire.option(12, bytes(SLOT_SIZE - len(shorter)))))
    assert len(whole) == SLOT_SIZE
    assert wire.rcode_of(await world.exchange_wire(whole)) == 0
    answer = await world.exchange_wire(whole + b"behind")
    assert wire.rcode_of(answer) == FORMERR
    assert wire.counts_of(answer) == (0, 0, 0, 0)
