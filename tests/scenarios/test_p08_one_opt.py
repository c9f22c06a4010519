"""P8: at most one OPT, in its place and well-formed, or it is a FORMERR (RFC 6891 6.1.1)."""

import dns.message
import pytest

from tests import wire
from tests.fakes import World, reply

WWW = "www.example 60 A 192.0.2.1"

WRONG = {
    "two": [wire.opt(), wire.opt()],
    "two with something between": [wire.opt(), wire.record(b"\0", 16, 0, b"\1a"), wire.opt(512)],
    "two versions": [wire.opt(), wire.opt(version=1)],
    "owner is not the root": [wire.opt(owner=b"\3www\0")],
    "owner is a pointer to the question": [wire.opt(owner=b"\xc0\x0c")],
    "option runs past the record": [wire.opt(1232, b"\0\x0a\0\x09" + bytes(8))],
    "option header cut short": [wire.opt(1232, b"\0\x0a\0")],
    "a byte behind the last option": [wire.opt(1232, wire.option(wire.NSID), b"\0")],
}


@pytest.mark.parametrize("additional", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_a_wrong_opt_is_a_format_error(world: World, additional: list[bytes], proto: str) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    await world.ask("www.example", use_edns=0)
    sent = wire.query(*additional)
    if proto == "udp":
        answer = await world.exchange_wire(sent)
    else:
        stub = await world.tcp_stub()
        stub.send(sent)
        answer = await stub.receive()
    assert (answer[:2], wire.rcode_of(answer), wire.counts_of(answer)[1:3]) == (sent[:2], 1, (0, 0))
    assert len(world.upstream.asked) == 1


@pytest.mark.parametrize("section", ["an", "ns"])
async def test_an_opt_in_another_section_is_a_format_error(world: World, section: str) -> None:
    await world.start()
    answer = await world.exchange_wire(wire.header(**{section: 1}) + wire.asked() + wire.opt())
    assert wire.rcode_of(answer) == 1


async def test_an_opt_need_not_be_the_last_record(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    for _ in range(3):
        answer = await world.exchange_wire(wire.query(wire.opt(), wire.record(b"\0", 16, 0, b"\1a")))
        assert (wire.rcode_of(answer), wire.counts_of(answer)) == (0, (1, 1, 0, 1))


@pytest.mark.parametrize("section", ["answer", "two"])
async def test_an_upstream_s_wrong_opt_makes_its_answer_none(world: World, section: str) -> None:
    await world.start()
    address = wire.record(b"\xc0\x0c", 1, 60, b"\6\6\6\6")

    def wrong(query: dns.message.Message) -> bytes:
        wired = bytearray(wire.answering(query.to_wire(), address, wire.opt(), wire.opt()))
        wired[6:12] = b"\0\1\0\0\0\2" if section == "two" else b"\0\2\0\0\0\1"
        return bytes(wired)

    world.upstream.on("www.example", "A", lambda query: [wrong(query), reply(query, WWW).to_wire()])
    assert (await world.ask("www.example")).answer[0][0].to_text() == "192.0.2.1"


@pytest.mark.usefixtures("in_order")
async def test_every_question_upstream_has_at_most_one(world: World) -> None:
    await world.start(upstreams=4)
    for upstream, rcode in zip(world.upstreams, ("SERVFAIL", "REFUSED", "FORMERR"), strict=False):
        upstream.answer("www.example", "A", rcode=rcode)
    world.upstreams[3].on(
        "www.example", "A", lambda query: reply(query, WWW, flags=0x0200 * (len(world.upstreams[3].asked) == 1))
    )
    options = wire.opt(4096, wire.option(wire.COOKIE, bytes(8)), wire.option(wire.NSID))
    assert wire.counts_of(await world.exchange_wire(wire.query(options))) == (1, 1, 0, 1)
    asked = [wired for upstream in world.upstreams for wired in upstream.wires]
    assert [wire.counts_of(wired)[3] for wired in asked] == [1, 1, 1, 0, 1, 1]
    assert {wired[12:29] for wired in asked} == {wire.asked()}
    assert len({wired[:2] for wired in asked}) > 1
