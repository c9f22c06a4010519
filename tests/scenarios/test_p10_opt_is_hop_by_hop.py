"""P10: each hop has its own OPT: ours towards the upstream, ours towards a client that sent one, and no options.

RFC 6891 6.2 and 7, RFC 9715.
"""

import dns.edns
import dns.flags
import dns.message
import pytest

from tests import wire
from tests.fakes import World, question, reply

WWW = "www.example 60 A 192.0.2.1"
MANY = [wire.record(b"\xc0\x0c", 16, 60, b"\1a")] * 90
"""14 bytes each."""
FOREIGN = [
    wire.option(wire.NSID, b"ns1"),
    wire.option(wire.ECS, b"\0\1\x18\0\x0a\1\2"),
    wire.option(wire.COOKIE, bytes(24)),
    wire.option(wire.KEEPALIVE, b"\0\x64"),
    wire.option(wire.PADDING, bytes(40)),
    wire.option(wire.EDE, b"\0\x10abc"),
    wire.option(65001, b"local"),
]


def with_foreign_opt(query: dns.message.Message) -> bytes:
    """An answer whose OPT says 4,096 bytes and holds options."""
    wired = bytearray(wire.answering(query.to_wire(), wire.record(b"\xc0\x0c", 1, 60, b"\1\2\3\4")))
    wired[11] = 1
    return bytes(wired) + wire.opt(4096, *FOREIGN, flags=0x4000)


async def test_no_opt_for_a_client_without_edns(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", with_foreign_opt)
    for name in ("www.example", "www.example", "www.example", "localhost", "fails.example"):
        answer = await world.exchange_wire(wire.query(name=name))
        assert wire.counts_of(answer)[3] == 0
    nothing = await world.exchange_wire(wire.query(name="www.example", rtype=252))
    assert wire.counts_of(nothing)[3] == 0


@pytest.mark.parametrize("size", [0, 512, 1232, 4096, 65535])
async def test_an_own_opt_for_a_client_with_edns(world: World, size: int) -> None:
    await world.start()
    world.upstream.on("www.example", "A", with_foreign_opt)
    for name in ("www.example", "www.example", "www.example", "localhost"):
        answer = await world.exchange_wire(wire.query(wire.opt(size), name=name))
        assert answer.endswith(wire.opt(1232))
        assert wire.counts_of(answer)[3] == 1


@pytest.mark.parametrize(
    "sent",
    [
        wire.query(wire.opt(), name="fails.example"),
        wire.query(wire.opt(), rtype=252),
        wire.query(wire.opt(), flags=0),
        wire.query(wire.opt(), wire.opt()),
        wire.query(wire.opt(), flags=4 << 11),
    ],
    ids=["SERVFAIL", "AXFR", "RD=0", "FORMERR", "NOTIMP"],
)
async def test_errors_carry_an_own_opt_too(world: World, sent: bytes) -> None:
    await world.start()
    answer = dns.message.from_wire(await world.exchange_wire(sent))
    assert (answer.edns, answer.payload, answer.rcode() > 0) == (0, 1232, True)


async def test_our_question_has_our_size_and_no_option_of_the_client_s(world: World) -> None:
    await world.start()
    world.upstream.on("www.example", "A", with_foreign_opt)
    await world.exchange_wire(wire.query(wire.opt(4096, *FOREIGN, flags=0x7FFF)))
    assert world.upstream.wires[0].endswith(wire.asked() + wire.opt(1232))


async def test_a_client_without_edns_is_asked_for_with_edns(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    await world.exchange_wire(wire.query())
    assert world.upstream.wires[0].endswith(wire.asked() + wire.opt(1232))


async def test_clients_with_and_without_edns_share_an_entry(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for additional in ([], [wire.opt()], [wire.opt(4096)], [wire.opt(0, *FOREIGN)], []):
        answer = await world.exchange_wire(wire.query(*additional))
        assert wire.counts_of(answer) == (1, 1, 0, len(additional))
    assert len(world.upstream.asked) == 1


@pytest.mark.parametrize(
    ("size", "most"), [(None, 512), (0, 512), (511, 512), (513, 513), (1232, 1232), (65535, 1232)]
)
async def test_the_size_that_a_client_takes_lies_within_512_and_1232(
    world: World, size: int | None, most: int
) -> None:
    await world.start()
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), *MANY))
    additional = [] if size is None else [wire.opt(size)]
    for _ in range(3):
        answer = await world.exchange_wire(wire.query(*additional, rtype=16))
        assert most - 14 < len(answer) <= most
        assert wire.flags_of(answer) & dns.flags.TC


async def test_over_tcp_the_size_does_not_matter(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: wire.answering(query.to_wire(), *MANY))
    stub = await world.tcp_stub()
    for size in (0, 512, 4096):
        stub.send(wire.query(wire.opt(size), rtype=16))
        answer = await stub.receive()
        assert wire.counts_of(answer) == (1, len(MANY), 0, 1)
        assert not wire.flags_of(answer) & dns.flags.TC


async def test_thousands_of_options_are_one_ordinary_question(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    options = [wire.option(wire.COOKIE, bytes(24))] * 2300
    stub = await world.tcp_stub()
    stub.send(wire.query(wire.opt(1232, *options)))
    answer = await stub.receive()
    assert answer.endswith(wire.opt(1232))
    assert len(world.upstream.wires[0]) == len(wire.query(wire.opt()))


async def test_an_opt_before_other_additional_records_is_found(world: World) -> None:
    await world.start()

    def opt_first(query: dns.message.Message) -> bytes:
        records = [wire.record(b"\xc0\x0c", 15, 60, b"\0\1\2mx\xc0\x0c"), wire.opt(4096, *FOREIGN)]
        glue = wire.record(b"\xc0\x2b", 1, 60, b"\1\2\3\4")
        wired = bytearray(wire.answering(query.to_wire(), *records, glue))
        wired[6:12] = b"\0\1\0\0\0\2"
        return bytes(wired)

    world.upstream.on("www.example", "MX", opt_first)
    for _ in range(3):
        answer = await world.ask("www.example", "MX")
        assert (answer.edns, answer.answer[0][0].to_text()) == (-1, "1 mx.www.example.")
    answer = await world.ask("www.example", "MX", use_edns=0)
    assert (answer.edns, answer.payload, answer.options) == (0, 1232, ())


async def test_ecs_of_one_client_does_not_split_the_cache(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for net in range(20):
        subnet = dns.edns.ECSOption(f"10.{net}.0.0", 16)
        answer = await world.exchange(question("www.example", use_edns=0, options=[subnet]))
        assert (len(answer.answer), answer.options) == (1, ())
    assert len(world.upstream.asked) == 1


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
async def test_an_upstream_that_chokes_on_edns_is_asked_without_and_that_is_remembered(
    world: World, rcode: str
) -> None:
    await world.start()

    def old(query: dns.message.Message) -> dns.message.Message:
        if query.edns >= 0:
            return reply(query, rcode=rcode)
        return reply(query, f"{query.question[0].name} 60 A 192.0.2.1")

    world.upstream.on_any(old)
    for name in ("a.example", "b.example"):
        answer = await world.ask(name, use_edns=0)
        assert (answer.edns, len(answer.answer)) == (0, 1)
    assert [asked.edns for asked in world.upstream.asked] == [0, -1, -1]
    world.clock.advance(900)
    await world.ask("c.example")
    assert [asked.edns for asked in world.upstream.asked][3:] == [0, -1]


async def test_one_name_that_is_always_malformed_degrades_nobody(world: World) -> None:
    await world.start()
    world.upstream.answer("bad.example", "A", rcode="FORMERR")
    world.upstream.answer("www.example", "A", WWW)
    assert (await world.ask("bad.example")).rcode() == 2
    assert (await world.ask("www.example")).answer
    assert [asked.edns for asked in world.upstream.asked] == [0, -1, 0]


async def test_an_answer_without_edns_never_stands_for_do(world: World) -> None:
    await world.start()
    world.upstream.on(
        "www.example", "A", lambda query: reply(query, rcode="FORMERR") if query.edns >= 0 else reply(query, WWW)
    )
    for asked in (2, 3):
        answer = await world.ask("www.example", want_dnssec=True)
        assert (len(answer.answer), answer.ednsflags) == (1, dns.flags.DO)
        assert len(world.upstream.asked) == asked
