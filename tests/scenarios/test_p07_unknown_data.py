"""P7: types nobody knows and their data pass byte for byte; SVCB and HTTPS too (RFC 3597, RFC 9460)."""

import dns.message
import pytest

from tests import wire
from tests.fakes import World

LIKE_POINTERS = b"\xc0\x0c\xc0\xff\x3fabc\0\0"
ALIAS = b"\0\0" + b"\2lb\0"
HTTPS = b"\0\1" + b"\0" + b"\0\1\0\3\2h2" + b"\0\4\0\4\1\2\3\4"
DUPLICATE_KEYS = b"\0\1" + b"\0" + b"\0\1\0\3\2h2" + b"\0\1\0\3\2h3"
KEYS_OUT_OF_ORDER = b"\0\1" + b"\0" + b"\0\4\0\4\1\2\3\4" + b"\0\1\0\3\2h2"
INNER_OVERRUN = b"\0\1" + b"\0" + b"\0\1\0\xff\2h2"

DATA = {
    "TYPE1000": (1000, LIKE_POINTERS),
    "TYPE1000 of no bytes": (1000, b""),
    "TYPE65280": (65280, bytes(range(256))),
    "TYPE65534": (65534, b"\xff" * 300),
    "HTTPS": (65, HTTPS),
    "HTTPS as an alias": (65, ALIAS),
    "HTTPS with a key twice": (65, DUPLICATE_KEYS),
    "HTTPS with keys out of order": (65, KEYS_OUT_OF_ORDER),
    "HTTPS with a parameter that overruns": (65, INNER_OVERRUN),
    "SVCB": (64, HTTPS),
    "TXT": (16, b"\3foo\0\5C:\\up"),
    "TXT that overruns": (16, b"\xffshort"),
    "NULL": (10, LIKE_POINTERS),
    "CAA without a value": (257, b"\0\5issue"),
    "NAPTR": (35, b"\0\1\0\1\1u\7E2U+sip\0\0"),
    "LOC": (29, bytes(16)),
    "DS": (43, bytes(36)),
}


@pytest.mark.parametrize(("rtype", "rdata"), DATA.values(), ids=DATA.keys())
async def test_the_data_passes_byte_for_byte_fresh_and_cached(world: World, rtype: int, rdata: bytes) -> None:
    await world.start()
    record = wire.record(b"\xc0\x0c", rtype, 60, rdata)
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), record))
    for spelled in ("www.example", "www.example", "www.example", "WWW.example"):
        sent = wire.query(name=spelled, rtype=rtype)
        assert (await world.exchange_wire(sent))[len(sent) :] == record
    assert len(world.upstream.asked) == 1


async def test_data_ages_only_where_the_ttl_is(world: World) -> None:
    await world.start()
    ttl = (60).to_bytes(4, "big")
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), wire.record(b"\xc0\x0c", 1000, 60, ttl * 4)))
    sent = wire.query(rtype=1000)
    await world.exchange_wire(sent)
    for age in (1, 2, 3):
        world.clock.advance(1)
        aged = wire.record(b"\xc0\x0c", 1000, 60 - age, ttl * 4)
        assert (await world.exchange_wire(sent))[len(sent) :] == aged


async def test_an_unknown_class_in_an_answer_passes(world: World) -> None:
    await world.start()
    record = wire.record(b"\xc0\x0c", 1, 60, b"\1\2\3\4")
    odd = wire.record(b"\xc0\x0c", 1000, 60, LIKE_POINTERS, rclass=0xFF01)
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), record, odd))
    sent = wire.query()
    for _ in range(3):
        assert (await world.exchange_wire(sent))[len(sent) :] == record + odd


async def test_an_unknown_type_may_be_denied(world: World) -> None:
    await world.start()
    soa = "example. 60 SOA ns.example. host.example. 1 2 3 4 60"
    world.upstream.answer("www.example", "TYPE1000", authority=[soa])
    for _ in range(2):
        answer = await world.ask("www.example", "TYPE1000")
        assert (answer.rcode(), answer.answer, len(answer.authority)) == (0, [], 1)
    assert len(world.upstream.asked) == 1


@pytest.mark.parametrize(
    ("rtype", "rdata"),
    [(1, b"\1\2\3"), (1, b"\1\2\3\4\5"), (1, b""), (28, bytes(48)), (28, bytes(4))],
    ids=["A of 3", "A of 5", "A of 0", "AAAA of 48", "AAAA of 4"],
)
@pytest.mark.usefixtures("in_order")
async def test_an_address_of_a_wrong_size_is_no_answer(world: World, rtype: int, rdata: bytes) -> None:
    await world.start(upstreams=2, serialize=False)
    good = wire.record(b"\xc0\x0c", rtype, 60, bytes(4 if rtype == 1 else 16))
    bad = wire.record(b"\xc0\x0c", rtype, 60, rdata)
    world.upstreams[0].on_any(lambda query: wire.answering(query.to_wire(), good, bad))
    world.upstreams[1].on_any(lambda query: wire.answering(query.to_wire(), good))
    stub = world.stub()
    sent = wire.query(rtype=rtype)
    stub.send(sent)
    await world.upstreams[0].received(1)
    await world.settle()
    world.clock.advance(0.25)
    assert (await stub.receive())[len(sent) :] == good


async def test_names_in_old_types_keep_their_compression(world: World) -> None:
    await world.start()
    exchanger = wire.record(b"\xc0\x0c", 15, 60, b"\0\x0a\4mail\xc0\x10")
    address = wire.record(b"\xc0\x2b", 1, 60, b"\1\2\3\4")

    def answering(query: dns.message.Message) -> bytes:
        wired = bytearray(wire.answering(query.to_wire(), exchanger, address))
        wired[6:12] = b"\0\1\0\0\0\1"
        return bytes(wired)

    world.upstream.on("www.example", "MX", answering)
    for spelled in ("www.example", "www.example", "WWW.EXAMPLE"):
        answer = await world.ask(spelled, "MX")
        assert answer.answer[0][0].to_text().lower() == "10 mail.example."
        assert answer.additional[0].name.to_text().lower() == "mail.example."
