"""P6: labels to 63 octets, names to 255, pointers only backwards and bounded; the rest is FORMERR (RFC 1035).

Sections 2.3.4 and 4.1.4. From an upstream it is no answer at all.
"""

import dns.message
import pytest

from tests import wire
from tests.fakes import World, reply

LONGEST = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"
ONE_TOO_LONG = (b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"b" * 62 + b"\0"
MOST_LABELS = b"\1a" * 127 + b"\0"

WRONG_NAMES = {
    "name of 256": ONE_TOO_LONG,
    "name of 257": b"\1a" * 128 + b"\0",
    "label of 64": b"\x40" + b"a" * 64 + b"\0",
    "label type 10": b"\x80" + b"a" * 64 + b"\0",
    "pointer to itself": b"\xc0\x0c",
    "pointer into the header": b"\xc0\x00",
    "pointer forward": b"\xc0\x20",
    "label and pointer back to it": b"\3www\xc0\x0c",
    "extended label": b"\x41\x20" + b"a" * 4 + b"\0",
}


@pytest.mark.parametrize("name", WRONG_NAMES.values(), ids=WRONG_NAMES.keys())
async def test_a_wrong_name_in_a_question_is_a_format_error(world: World, name: bytes) -> None:
    await world.start()
    stub = world.stub()
    for _ in range(2):
        stub.send(wire.header() + wire.asked(name))
        answer = await stub.receive()
        assert (wire.rcode_of(answer), len(answer)) == (1, 12)
    assert world.upstream.asked == []


@pytest.mark.parametrize("name", [LONGEST, MOST_LABELS, b"\0"], ids=["255 octets", "127 labels", "root"])
async def test_the_longest_and_the_shortest_names_are_fine(world: World, name: bytes) -> None:
    await world.start()
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), wire.record(b"\xc0\x0c", 1, 60, b"\1\2\3\4")))
    sent = wire.header() + wire.asked(name)
    for _ in range(3):
        answer = await world.exchange_wire(sent)
        assert (wire.counts_of(answer), answer[12 : len(sent)]) == ((1, 1, 0, 0), sent[12:])
    assert len(world.upstream.asked) == 1


async def test_a_zero_byte_or_a_dot_in_a_label_is_no_boundary(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), wire.record(b"\xc0\x0c", 1, 60, b"\1\2\3\4")))
    names = (b"\7www.foo\0", b"\3www\3foo\0", b"\7www\0foo\0", b"\7\xff\xc0\x0cabcd\0")
    for name in names:
        sent = wire.header() + wire.asked(name)
        assert (await world.exchange_wire(sent))[12 : len(sent)] == sent[12:]
    assert len(world.upstream.asked) == len(names)


# The question ends at 29 (name at 12, 13 octets with its end; type; class), so the first answer's owner is at 29.
A_RDATA = b"\1\2\3\4"
WRONG_RECORDS = {
    "owner points at itself": wire.record(b"\xc0\x1d", 1, 60, A_RDATA),
    "owner points forward": wire.record(b"\xc0\x40", 1, 60, A_RDATA),
    "owner points past the end": wire.record(b"\xff\xff", 1, 60, A_RDATA),
    "owner points into the header": wire.record(b"\xc0\x04", 1, 60, A_RDATA),
    "owner is a label and a pointer to it": wire.record(b"\1a\xc0\x1d", 1, 60, A_RDATA),
    "owner of 256": wire.record(ONE_TOO_LONG, 1, 60, A_RDATA),
    "owner becomes too long by its pointer": wire.record(LONGEST[:-1] + b"\xc0\x0c", 1, 60, A_RDATA),
    "owner has a label of 64": wire.record(b"\x40" + b"a" * 64 + b"\0", 1, 60, A_RDATA),
    "target points at itself": wire.record(b"\xc0\x0c", 5, 60, b"\xc0\x29"),
    "target points forward": wire.record(b"\xc0\x0c", 5, 60, b"\xc0\x50"),
    "target runs past its record": wire.record(b"\xc0\x0c", 5, 60, b"\3www") + bytes(20),
    "target ends before its record": wire.record(b"\xc0\x0c", 5, 60, b"\3www\0\0"),
    "target of 256": wire.record(b"\xc0\x0c", 5, 60, ONE_TOO_LONG),
    "record runs past the message": wire.record(b"\xc0\x0c", 1, 60, A_RDATA)[:-1],
    "mail exchanger without a name": wire.record(b"\xc0\x0c", 15, 60, b"\0\1"),
    "start of authority without timers": wire.record(b"\xc0\x0c", 6, 60, b"\0\0"),
}  # fmt: skip


@pytest.mark.parametrize("broken", WRONG_RECORDS.values(), ids=WRONG_RECORDS.keys())
async def test_a_wrong_name_from_an_upstream_makes_its_answer_none(world: World, broken: bytes) -> None:
    await world.start()
    good = "www.example 60 A 192.0.2.1"
    world.upstream.on(
        "www.example", "A", lambda query: [wire.answering(query.to_wire(), broken), reply(query, good).to_wire()]
    )
    for _ in range(2):
        assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"
    assert len(world.upstream.asked) == 1


async def test_a_long_chain_of_pointers_costs_no_more_than_its_answer(world: World) -> None:
    await world.start()

    def chained(query: dns.message.Message) -> bytes:
        """Each owner is a pointer to the pointer before it."""
        records, at, target = [], 29, 12
        for _ in range(1000):
            records.append(wire.record((0xC000 | target).to_bytes(2, "big"), 1, 60, A_RDATA))
            target, at = at, at + 16
        return wire.answering(query.to_wire(), *records)

    def truncated_first(query: dns.message.Message) -> bytes:
        return reply(query, flags=0x0200).to_wire() if len(world.upstream.asked) == 1 else chained(query)

    world.upstream.on("www.example", "A", truncated_first)
    stub = world.send("www.example")
    await world.upstream.received(2)
    await world.settle()
    world.upstream.answer("other.example", "A", "other.example 60 A 192.0.2.1")
    assert (await world.ask("other.example")).answer
    world.clock.advance(2)
    assert (await stub.answer()).rcode() in (0, 2)


@pytest.mark.parametrize("rtype", [2, 5, 12], ids=["NS", "CNAME", "PTR"])
async def test_names_that_point_backwards_resolve_fresh_and_cached(world: World, rtype: int) -> None:
    await world.start()
    first = wire.record(b"\xc0\x0c", rtype, 60, b"\3foo\xc0\x10")
    second = wire.record(b"\xc0\x29", 16, 60, b"\1a")
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), first, second))
    for spelled in ("www.example", "www.eXample", "www.eXample"):
        answer = dns.message.from_wire(await world.exchange_wire(wire.query(name=spelled, rtype=rtype)))
        suffix = spelled.partition(".")[2]
        assert answer.answer[0][0].to_text() == f"foo.{suffix}."
        assert answer.answer[1].name.to_text() == f"foo.{suffix}."
    assert len(world.upstream.asked) == 1


async def test_a_name_that_lies_in_the_type_of_its_question_is_none(world: World) -> None:
    """A denial answers every type: the name would become another with each."""
    await world.start()
    rooted_in_type = wire.record(b"\xc0\x19", 6, 60, b"\0\0" + bytes(19) + b"\x3c")

    def denying(query: dns.message.Message) -> bytes:
        wired = bytearray(wire.answering(query.to_wire(), rooted_in_type, flags=wire.QR | wire.RA | 3))
        wired[6:10] = b"\0\0\0\1"
        return bytes(wired)

    good = "www.example 60 A 192.0.2.1"
    world.upstream.on("www.example", "A", lambda query: [denying(query), reply(query, good).to_wire()])
    assert (await world.ask("www.example")).answer
