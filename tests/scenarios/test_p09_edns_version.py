"""P9: an EDNS version above 0 is BADVERS, in an OPT of version 0 (RFC 6891 6.1.3, RFC 8906 8.2)."""

import dns.message
import pytest

from tests import wire
from tests.fakes import World, reply

BADVERS = 16
DO = 0x8000


def opt_of(answer: bytes) -> tuple[int, int, int, int]:
    """Extended rcode, version, flags and RDLENGTH of the OPT at the end of an answer that holds no options."""
    assert answer[-11:-8] == b"\0\0\x29"
    return answer[-6], answer[-5], int.from_bytes(answer[-4:-2], "big"), int.from_bytes(answer[-2:], "big")


@pytest.mark.parametrize("version", [1, 2, 100, 255])
@pytest.mark.parametrize("do", [0, DO], ids=["plain", "do"])
@pytest.mark.parametrize("options", [b"", wire.option(wire.COOKIE, bytes(8)) + wire.option(100, b"x")], ids=len)
async def test_a_later_version_is_bad_and_ours_is_0(world: World, version: int, do: int, options: bytes) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    sent = wire.query(wire.opt(1232, options, version=version, flags=do | 0x7FFF))
    answer = await world.exchange_wire(sent)
    assert wire.flags_of(answer) == wire.QR | wire.RD | wire.RA | BADVERS & 15
    assert wire.counts_of(answer) == (1, 0, 0, 1)
    assert opt_of(answer) == (BADVERS >> 4, 0, do, 0)
    assert len(world.upstream.asked) == 1


async def test_a_later_version_over_tcp_is_bad_too_and_the_connection_goes_on(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    stub = await world.tcp_stub()
    stub.send(wire.query(wire.opt(version=1)), wire.query(wire.opt()))
    assert opt_of(await stub.receive())[:2] == (1, 0)
    assert opt_of(await stub.receive())[:2] == (0, 0)


async def test_another_opcode_comes_before_the_version(world: World) -> None:
    await world.start()
    answer = await world.exchange_wire(wire.query(wire.opt(version=1), flags=4 << 11))
    assert (wire.rcode_of(answer), opt_of(answer)[:2]) == (4, (0, 0))


async def test_unknown_flags_do_not_come_back(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for flags in (0x7FFF, 0x7FFF, 0x7FFF, 0x4000):
        assert opt_of(await world.exchange_wire(wire.query(wire.opt(flags=flags)))) == (0, 0, 0, 0)
    assert world.upstream.asked[0].ednsflags == 0


@pytest.mark.usefixtures("in_order")
async def test_badvers_from_an_upstream_stays_between_it_and_us(world: World) -> None:
    await world.start()

    def without_edns(query: dns.message.Message) -> bytes | dns.message.Message:
        if query.edns < 0:
            return reply(query, "www.example 60 A 192.0.2.1")
        wired = bytearray(wire.answering(query.to_wire()) + b"\0\0\x29\4\xd0\1\0\0\0\0\0")
        wired[11] = 1
        return bytes(wired)

    world.upstream.on("www.example", "A", without_edns)
    answer = await world.exchange_wire(wire.query(wire.opt()))
    assert (wire.rcode_of(answer), opt_of(answer)[0], wire.counts_of(answer)[1]) == (0, 0, 1)
    assert [asked.edns for asked in world.upstream.asked] == [0, -1]
