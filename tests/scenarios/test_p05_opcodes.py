"""P5: an opcode other than QUERY is NOTIMP, with that opcode, and never forwarded (RFC 1035 4.1.1, 8906 3.1.4)."""

import pytest

from tests import wire
from tests.fakes import World

NOTIMP = 4


@pytest.mark.parametrize("opcode", range(1, 16))
@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
async def test_any_other_opcode_is_not_implemented(world: World, opcode: int, edns: bool) -> None:
    await world.start()
    additional = [wire.opt()] if edns else []
    sent = wire.query(*additional, flags=opcode << 11 | wire.RD)
    answer = await world.exchange_wire(sent)
    assert wire.flags_of(answer) == wire.QR | opcode << 11 | wire.RD | wire.RA | NOTIMP
    assert wire.counts_of(answer) == (1, 0, 0, int(edns))
    assert answer[12:29] == sent[12:29]
    assert world.upstream.asked == []


@pytest.mark.parametrize("flags", [0, wire.RD])
async def test_a_known_question_under_another_opcode_is_no_hit(world: World, flags: int) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for _ in range(3):
        await world.exchange_wire(wire.query())
        answer = await world.exchange_wire(wire.query(flags=4 << 11 | flags))
        assert wire.rcode_of(answer) == NOTIMP


UPDATE = (
    wire.header(flags=5 << 11, ns=1, ar=1)
    + wire.asked("example", 6)
    + wire.record(b"\3www\xc0\x0c", 1, 60, b"\1\2\3\4")
    + wire.record(b"\3key\0", 250, 0, b"signature", 255)
)
NOTIFY = (
    wire.header(flags=4 << 11, an=1) + wire.asked("example", 6) + wire.record(b"\xc0\x0c", 6, 60, b"\0\0" + bytes(20))
)


@pytest.mark.parametrize("message", [UPDATE, NOTIFY, wire.header(flags=6 << 11, qd=7) + b"\xff" * 50])
@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_what_else_such_a_message_holds_does_not_matter(world: World, message: bytes, proto: str) -> None:
    await world.start()
    if proto == "udp":
        answer = await world.exchange_wire(message)
    else:
        stub = await world.tcp_stub()
        stub.send(message)
        answer = await stub.receive()
    assert (answer[:2], wire.rcode_of(answer)) == (message[:2], NOTIMP)
    assert wire.flags_of(answer) & 0x7800 == wire.flags_of(message) & 0x7800
    assert world.upstream.asked == []
