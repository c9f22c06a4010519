"""Probes of listeners: what is an answer, what is not, and which listeners are asked. On loopback, as root."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from proxy.control.lease_probes import LeaseProbe, LeaseProbes
from proxy.node.table import NodeListener
from tests.control.eventually import eventually
from tests.fakes import ManualClock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="SO_MARK takes root")
SECRET = "\0secret"


class Answering(asyncio.DatagramProtocol):
    """Answers what `answer` makes of each datagram, unless that is None."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.asked: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        reply = self.answer(data)
        if reply is not None:
            self._transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[str, Answering]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Answering(answer), local_addr=("127.0.0.1", 0)
    )
    try:
        yield f"127.0.0.1:{transport.get_extra_info('sockname')[1]}", protocol
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def probing(listener: NodeListener) -> AsyncIterator[LeaseProbe]:
    probe = LeaseProbe(listener, SECRET.encode(), ManualClock().now)
    task = asyncio.ensure_future(probe.run(0.01))
    try:
        yield probe
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def as_answer(query: bytes) -> bytes:
    return query[:2] + b"\x80" + query[3:]


async def test_any_answer_of_dns_is_one() -> None:
    async with answering(as_answer) as (address, asked), probing(NodeListener(address, "udp")) as probe:
        await eventually(lambda: probe.answered >= 0)
    assert asked.asked[0][12:] == b"\x09localhost\x00\x00\x01\x00\x01"


@pytest.mark.parametrize("relay", [False, True])
async def test_nonsense_is_no_answer(relay: bool) -> None:
    async with answering(lambda _: b"?") as (address, _), probing(NodeListener(address, "udp", relay=relay)) as probe:
        await eventually(lambda: probe.failure == "the answer was not one to our question")
        assert probe.answered < 0


async def test_a_relay_sends_the_secret_back() -> None:
    async with answering(bytes) as (address, asked), probing(NodeListener(address, "udp", relay=True)) as probe:
        await eventually(lambda: probe.answered >= 0)
    assert set(asked.asked) == {SECRET.encode()}


async def test_silence_and_refusal_are_told_and_an_answer_ends_them() -> None:
    silent = True
    answer = answering(lambda query: None if silent else as_answer(query))
    async with answer as (address, _), probing(NodeListener(address, "udp")) as probe:
        await eventually(lambda: probe.failure == "no answer within 0.01 s")
        silent = False
        await eventually(lambda: probe.answered >= 0)
    async with probing(NodeListener(address, "udp")) as probe:
        await eventually(lambda: probe.failure == "Connection refused")


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


async def test_over_tcp_each_question_has_a_connection_of_its_own(listening: socket.socket) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            reply = as_answer(query)
            # In pieces, as TCP may bring it.
            for piece in (len(reply).to_bytes(2, "big")[:1], len(reply).to_bytes(2, "big")[1:] + reply):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, sock=listening):
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        async with probing(NodeListener(address, "tcp")) as probe:
            await eventually(lambda: probe.answered >= 0 and connections >= 3)


async def test_over_tcp_a_connection_that_is_closed_is_no_answer(listening: socket.socket) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    listener = NodeListener(f"127.0.0.1:{listening.getsockname()[1]}", "tcp")
    async with await asyncio.start_server(close, sock=listening), probing(listener) as probe:
        await eventually(lambda: probe.failure in ("EOFError", "Connection reset by peer"))
        assert probe.answered < 0


async def test_those_without_a_lease_are_not_asked_and_those_that_stay_not_anew() -> None:
    probes = LeaseProbes(SECRET, ManualClock().now)
    stays = NodeListener("192.0.2.1:53", "udp")
    probes.follow([stays, NodeListener("0.0.0.0:53", "udp"), NodeListener("192.0.2.2:53", "udp")], 0.01)
    assert probes.answers().keys() == {"192.0.2.1:53/udp", "192.0.2.2:53/udp"}
    before = set(probes._running)
    probes.follow([NodeListener("192.0.2.1:53", "udp", fallback=("10.0.0.1:53",))], 0.01)
    assert probes.answers().keys() == {"192.0.2.1:53/udp"}
    assert set(probes._running) < before
    await probes.close()
    assert probes.answers() == {}
