"""P1: an answer comes from the address that was asked, with ID, opcode, RD, CD and question as they were sent.

RFC 1035 4.1.1, RFC 4343, RFC 5625.
"""

import asyncio
import socket

import dns.flags
import dns.message
import pytest

from tests import wire
from tests.fakes import UdpStub, World, question, reply


async def test_a_wildcard_socket_answers_from_the_address_that_was_asked(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("0.0.0.0", 0))
    world.worker.listen(3, "udp", listener)
    port = listener.getsockname()[1]
    for ip in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.2"):
        stub = UdpStub((ip, port))  # connected: the kernel gives it nothing from another address
        stub.send(question("www.example").to_wire())
        assert (await stub.answer()).answer
        stub.close()


async def test_an_ipv6_socket_answers_too(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    listener.bind(("::1", 0))
    world.worker.listen(3, "udp", listener)
    stub = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    stub.setblocking(False)
    stub.connect(listener.getsockname())
    for _ in range(3):
        stub.send(question("www.example").to_wire())
        async with asyncio.timeout(10):
            answer = dns.message.from_wire(await asyncio.get_running_loop().sock_recv(stub, 4096))
        assert answer.answer
    stub.close()


async def test_the_letter_case_comes_back_fresh_and_cached(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for spelled in ("WwW.ExAmPlE", "www.example", "WwW.ExAmPlE", "WWW.EXAMPLE", "wWW.example"):
        sent = wire.query(name=spelled)
        answer = await world.exchange_wire(sent)
        assert answer[12 : len(sent)] == sent[12:]
    assert len(world.upstream.questions()) == 1


async def test_owners_that_point_at_the_question_show_the_asker_s_case(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    for _ in range(2):
        answer = await world.ask("WWW.Example")
        assert answer.answer[0].name.to_text() == "WWW.Example."


async def test_an_upstream_that_changes_the_case_is_understood(world: World) -> None:
    await world.start()

    def shouting(query: dns.message.Message) -> bytes:
        wired = reply(query, "www.example 60 A 192.0.2.1").to_wire()
        return wired.replace(b"\3www\7example", b"\3WWW\7EXAMPLE")

    world.upstream.on("www.example", "A", shouting)
    sent = wire.query(name="wwW.example")
    for _ in range(3):
        answer = await world.exchange_wire(sent)
        assert answer[12 : len(sent)] == sent[12:]
        assert len(dns.message.from_wire(answer).answer) == 1
    assert len(world.upstream.questions()) == 1


async def test_an_owner_that_is_spelt_out_is_understood(world: World) -> None:
    await world.start()
    owner = b"\3WWW\7example\0"
    world.upstream.on(
        "www.example", "A", lambda query: wire.answering(query.to_wire(), wire.record(owner, 1, 60, b"\1\2\3\4"))
    )
    for spelled in ("www.example", "wwW.example", "wwW.example"):
        assert (await world.ask(spelled)).answer[0].to_rdataset()[0].to_text() == "1.2.3.4"
    assert len(world.upstream.questions()) == 1


@pytest.mark.parametrize("message_id", [0, 1, 0x8000, 0xFFFF])
async def test_every_id_comes_back(world: World, message_id: int) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    for _ in range(4):
        answer = await world.exchange_wire(wire.header(message_id) + wire.asked())
        assert int.from_bytes(answer[:2], "big") == message_id


@pytest.mark.parametrize("cd", [0, dns.flags.CD])
@pytest.mark.parametrize("name", ["www.example", "fails.example", "localhost"])
async def test_rd_and_cd_come_back_and_nothing_else(world: World, name: str, cd: int) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1", flags=dns.flags.AA)
    for _ in range(4):
        sent = wire.query(name=name, flags=wire.RD | cd | dns.flags.AA | dns.flags.TC | dns.flags.AD | 0x0040)
        flags = wire.flags_of(await world.exchange_wire(sent))
        assert flags & ~15 == wire.QR | wire.RA | wire.RD | cd


async def test_rd_stays_off_where_it_was_off(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", "www.example 60 A 192.0.2.1")
    await world.ask("www.example")
    for name in ("www.example", "www.example", "unknown.example", "localhost"):
        assert not wire.flags_of(await world.exchange_wire(wire.query(name=name, flags=0))) & wire.RD


async def test_bits_of_the_upstream_s_header_do_not_come_through(world: World) -> None:
    await world.start()

    def odd(query: dns.message.Message) -> bytes:
        wired = bytearray(reply(query, "www.example 60 A 192.0.2.1").to_wire())
        wired[2:4] = (wire.QR | dns.flags.AA | dns.flags.CD | 0x0040).to_bytes(2, "big")
        return bytes(wired)

    world.upstream.on("www.example", "A", odd)
    for _ in range(3):
        assert wire.flags_of(await world.exchange_wire(wire.query())) == wire.QR | wire.RD | wire.RA
