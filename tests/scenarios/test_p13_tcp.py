"""P13: many questions on a TCP connection, answered in any order, within limits (RFC 7766, RFC 9210, RFC 7828).

Toward clients and toward upstreams.
"""

import asyncio
import socket
from collections import defaultdict

import dns.flags
import dns.message
import pytest

from proxy.worker.tcp_connection import TCP_LIMITS
from proxy.worker.upstream_tcp import TCP_UPSTREAM_LIMITS
from tests import wire
from tests.fakes import WAIT, World, question, reply

WWW = "www.example 60 A 192.0.2.1"
TC = 0x0200


def everything(query: dns.message.Message) -> dns.message.Message:
    return reply(query, f"{query.question[0].name} 60 A 192.0.2.1")


async def test_a_hundred_pipelined_questions_are_all_answered(world: World) -> None:
    await world.start()
    world.upstream.on_any(everything)
    queries = [question(f"n{number}.example", id=number) for number in range(1, 101)]
    answers = await world.ask_tcp(*queries)
    assert {(answer.id, len(answer.answer)) for answer in answers} == {(number, 1) for number in range(1, 101)}


async def test_more_questions_than_may_be_in_flight_are_all_answered_in_the_end(world: World) -> None:
    await world.start()
    world.upstream.on_any(lambda query: None)
    stub = await world.tcp_stub()
    count = TCP_LIMITS.outstanding + 50
    stub.send(*(question(f"n{number}.example", id=number).to_wire() for number in range(count)))
    await world.upstream.received(TCP_LIMITS.outstanding)
    await world.settle()
    assert len(world.upstream.asked) == TCP_LIMITS.outstanding
    world.upstream.on_any(everything)
    for at in range(TCP_LIMITS.outstanding):
        world.upstream.send(at, everything(world.upstream.asked[at]))
    assert {(await stub.answer()).id for _ in range(count)} == set(range(count))


async def test_a_quick_answer_overtakes_a_slow_one(world: World) -> None:
    await world.start()
    world.upstream.silent("slow.example")
    world.upstream.answer("www.example", "A", WWW)
    stub = await world.tcp_stub()
    stub.send(question("slow.example", id=1).to_wire(), question("www.example", id=2).to_wire())
    assert (await stub.answer()).id == 2
    at = [asked.question[0].name.to_text() for asked in world.upstream.asked].index("slow.example.")
    world.upstream.send(at, everything(world.upstream.asked[at]))
    assert (await stub.answer()).id == 1


async def test_length_and_message_come_in_one_write(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    stub = await world.tcp_stub()
    for _ in range(5):
        stub.send(wire.query())
        async with asyncio.timeout(WAIT):
            segment = await stub.reader.read(65535)
        assert int.from_bytes(segment[:2], "big") == len(segment) - 2


async def test_a_connection_may_idle_for_some_seconds(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    assert TCP_LIMITS.idle >= 5
    stub = await world.tcp_stub()
    for _ in range(3):
        stub.send(wire.query())
        assert (await stub.answer()).answer
        world.clock.advance(30)
        await world.settle()


async def test_errors_leave_the_connection_open(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    stub = await world.tcp_stub()
    for _ in range(5):
        for sent, rcode in (
            (wire.query(name="fails.example"), 2),
            (wire.query(rtype=252), 5),
            (wire.query(flags=0, name="unknown.example"), 5),
            (wire.header(qd=0), 1),
            (wire.query(flags=4 << 11), 4),
            (wire.query(), 0),
        ):
            stub.send(sent)
            assert wire.rcode_of(await stub.receive()) == rcode


async def test_a_half_closed_connection_gets_its_answers(world: World) -> None:
    await world.start()
    world.upstream.silent("slow.example")
    world.upstream.answer("www.example", "A", WWW)
    stub = await world.tcp_stub()
    stub.send(question("www.example", id=1).to_wire(), question("slow.example", id=2).to_wire())
    stub.writer.write_eof()
    assert (await stub.answer()).id == 1
    await world.upstream.received(2)
    at = [asked.question[0].name.to_text() for asked in world.upstream.asked].index("slow.example.")
    world.upstream.send(at, everything(world.upstream.asked[at]))
    assert (await stub.answer()).id == 2
    async with asyncio.timeout(WAIT):
        assert await stub.reader.read() == b""


async def test_a_message_in_pieces_is_a_message(world: World) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    stub = await world.tcp_stub()
    framed = len(wire.query()).to_bytes(2, "big") + wire.query()
    for cut in (1, 2, 3, 14, len(framed) - 1):
        stub.writer.write(framed[:cut])
        await stub.writer.drain()
        await world.settle()
        stub.writer.write(framed[cut:])
        assert (await stub.answer()).answer


async def test_the_same_question_twice_is_answered_twice_and_asked_once(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    stub = await world.tcp_stub()
    stub.send(wire.query(), wire.query())
    await world.upstream.received(1)
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], WWW))
    assert [(await stub.answer()).id for _ in range(2)] == [0x1234] * 2
    assert len(world.upstream.asked) == 1


async def test_a_client_that_does_not_read_loses_nothing_and_holds_up_nobody(world: World) -> None:
    await world.start()
    text = " ".join(f'"{"x" * 255}"' for _ in range(100))
    world.upstream.answer("big.example", "TXT", f"big.example 60 TXT {text}")
    await world.ask("big.example", "TXT")
    stub = await world.tcp_stub()
    count = 400
    stub.send(*(question("big.example", "TXT", id=number).to_wire() for number in range(count)))
    await stub.writer.drain()
    await world.settle()
    assert (await world.ask("big.example", "TXT")).flags & dns.flags.TC
    for number in range(count):
        answer = await stub.receive()
        assert (int.from_bytes(answer[:2], "big"), len(answer) > 25600) == (number, True)


@pytest.mark.parametrize("value", [b"", b"\0\x64"], ids=["empty", "not empty"])
async def test_edns_tcp_keepalive_is_answered_by_no_option(world: World, value: bytes) -> None:
    await world.start()
    world.upstream.answer("www.example", "A", WWW)
    sent = wire.query(wire.opt(1232, wire.option(wire.KEEPALIVE, value)))
    stub = await world.tcp_stub()
    for _ in range(2):
        stub.send(sent)
        assert (await stub.receive()).endswith(wire.opt(1232))
    assert (await world.exchange_wire(sent)).endswith(wire.opt(1232))


async def test_a_client_that_vanishes_takes_nobody_along(world: World) -> None:
    await world.start()
    world.upstream.silent("www.example")
    first, second = await world.tcp_stub(), await world.tcp_stub()
    first.send(question("www.example", id=1).to_wire())
    await world.upstream.received(1)
    second.send(question("www.example", id=2).to_wire())
    await world.settle()
    first.writer.transport.abort()
    await world.settle()
    world.upstream.send(0, reply(world.upstream.asked[0], WWW))
    assert (await second.answer()).id == 2


# Toward upstreams


async def test_upstream_connections_are_shared_and_kept(world: World) -> None:
    await world.start()
    world.upstream.on_any(
        lambda query: reply(query, flags=TC) if world.upstream.protocols[-1] == "udp" else everything(query)
    )
    for number in range(10):
        assert (await world.ask(f"n{number}.example")).answer
    over_tcp = [s for s, p in zip(world.upstream.sources, world.upstream.protocols, strict=True) if p == "tcp"]
    assert (len(over_tcp), len(set(over_tcp))) == (10, 1)


async def test_replies_in_reverse_order_on_a_connection_find_their_questions(world: World) -> None:
    await world.start()
    count = 2 * TCP_UPSTREAM_LIMITS.connections
    held: dict[tuple[str, int], list[dns.message.Message]] = defaultdict(list)

    def in_pairs_over_tcp(query: dns.message.Message) -> list[bytes]:
        """The first of each pair follows the second, and a reply that nobody asked for goes ahead of both."""
        if world.upstream.protocols[-1] == "udp":
            return [reply(query, flags=TC).to_wire()]
        pair = held[world.upstream.sources[-1]]
        pair.append(query)
        if len(pair) < 2:
            return []
        unasked = next(number for number in range(9) if number not in (query.id, pair[0].id))
        return [everything(q).to_wire() for q in (question("other.example", id=unasked), query, pair[0])]

    world.upstream.on_any(in_pairs_over_tcp)
    stubs = {f"n{number}.example.": world.send(f"n{number}.example") for number in range(count)}
    for name, stub in stubs.items():
        assert (await stub.answer()).answer[0].name.to_text() == name


async def test_a_kept_connection_that_was_closed_meanwhile_is_opened_anew_unseen(world: World) -> None:
    await world.start()
    world.upstream.on_any(
        lambda query: reply(query, flags=TC) if world.upstream.protocols[-1] == "udp" else everything(query)
    )
    assert (await world.ask("a.example")).answer
    world.upstream.hang_up()
    assert (await world.ask("b.example")).answer
    assert world.upstream.protocols == ["udp", "tcp"] * 2
    assert [upstream.failures for upstream in world.worker.resolver.zones.upstreams] == [0]


@pytest.mark.usefixtures("in_order")
async def test_questions_on_a_connection_that_breaks_go_to_the_next_upstream(world: World) -> None:
    await world.start(upstreams=2)
    first, second = world.upstreams

    def breaking(query: dns.message.Message) -> dns.message.Message | None:
        if first.protocols[-1] == "udp":
            return reply(query, flags=TC)
        if first.protocols.count("tcp") == 5:
            asyncio.get_running_loop().call_soon(first.hang_up)
        return None

    first.on_any(breaking)
    second.on_any(everything)
    stubs = [world.send(f"n{number}.example") for number in range(5)]
    for stub in stubs:
        assert (await stub.answer()).answer


@pytest.mark.usefixtures("in_order")
async def test_swallowed_connects_leave_time_for_the_next_upstream(world: World) -> None:
    await world.start(upstreams=3)
    held = []
    for upstream in world.upstreams[:2]:
        upstream.on_any(lambda query: reply(query, flags=TC))
        upstream.stop_tcp()
        held += full_listener(upstream.ip, upstream.port)
    world.upstreams[2].on_any(everything)
    stub = world.send("www.example")
    started = world.clock.now()
    for upstream in world.upstreams:
        await upstream.received(1)
        await world.settle()
        world.clock.advance(0.25)
    assert (await stub.answer()).answer
    assert world.clock.now() - started < 2
    for sock in held:
        sock.close()


def full_listener(ip: str, port: int) -> list[socket.socket]:
    """A TCP port whose queue is full, so that the kernel drops every further SYN; and who fills it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ip, port))
    listener.listen(0)
    return [listener, socket.create_connection((ip, port))]
