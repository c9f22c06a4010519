"""P4: a query has exactly one question and nothing but additional records besides, or it is a FORMERR (RFC 9619)."""

import pytest

from tests import wire
from tests.fakes import World

MALFORMED = {
    "none": wire.header(qd=0),
    "none, but bytes for one": wire.header(qd=0) + wire.asked(),
    "none with EDNS": wire.header(qd=0, ar=1) + wire.opt(),
    "none with a cookie": wire.header(qd=0, ar=1) + wire.opt(1232, wire.option(wire.COOKIE, bytes(8))),
    "two": wire.header(qd=2) + wire.asked("www.example") + wire.asked("other.example"),
    "two alike": wire.header(qd=2) + wire.asked() + wire.asked(),
    "two promised": wire.header(qd=2) + wire.asked(),
    "65,535": wire.header(qd=65535) + wire.asked(),
    "an answer": wire.header(an=1) + wire.asked() + wire.record(b"\xc0\x0c", 1, 60, b"\1\1\1\1"),
    "an authority": wire.header(ns=1) + wire.asked() + wire.record(b"\xc0\x0c", 2, 60, b"\0"),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_anything_but_one_question_is_a_format_error(world: World, message: bytes, proto: str) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    if proto == "udp":
        answer = await world.exchange_wire(message)
    else:
        stub = await world.tcp_stub()
        stub.send(message)
        answer = await stub.receive()
    assert (answer[:2], wire.rcode_of(answer), wire.counts_of(answer)) == (message[:2], 1, (0, 0, 0, 0))
    assert len(world.upstream.asked) == 1


async def test_an_additional_record_that_is_no_opt_does_no_harm(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    sent = wire.query(wire.record(b"\3foo\0", 16, 0, b"\1a"), wire.opt())
    for _ in range(3):
        assert wire.counts_of(await world.exchange_wire(sent)) == (1, 1, 0, 1)
    assert b"\3foo" not in world.upstream.wires[0]
