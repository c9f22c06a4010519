"""The channel between control and a worker, over a real socket pair."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.core.policy import DnsPolicy, Zone
from proxy.worker.channel import (
    PACKET_BYTES,
    PACKET_FDS,
    Channel,
    Configure,
    Drain,
    Explained,
    Listener,
    Ready,
    Report,
    control_end,
    worker_end,
)

POLICY = DnsPolicy((Zone(".", ("192.0.2.1:53",), fallback=("[2001:db8::1]:53",)),), timeout=1.5)


class End:
    """One end of a channel and what it heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.fds: list[int] = []
        self.closed = asyncio.Event()
        self.channel: Channel

    def hear(self, message: Any, fds: list[int] | None = None) -> None:
        self.fds += fds or []
        self.heard.put_nowait(message)

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            return await self.heard.get()


class Pair:
    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control, self.worker = End(), End()
        self.control.channel = control_end(ours, self.control.hear, self.control.closed.set)
        self.worker.channel = worker_end(self.theirs, self.worker.hear, self.worker.closed.set)

    def close(self) -> None:
        self.control.channel.close()
        self.worker.channel.close()
        for fd in self.worker.fds:
            os.close(fd)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


async def test_a_configuration_arrives_as_it_was_sent(pair: Pair) -> None:
    sent = Configure(POLICY, [Listener(3, "127.0.0.1:53", "udp")], [])
    pair.control.channel.send(sent)
    assert await pair.worker.next() == sent


async def test_messages_keep_their_order_in_both_directions(pair: Pair) -> None:
    for number in range(50):
        pair.worker.channel.send(Explained(number, ["step"]))
    assert [(await pair.control.next()).request for _ in range(50)] == list(range(50))


async def test_descriptors_ride_along_and_work(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        pair.control.channel.send(Configure(POLICY, [Listener(1, "x", "udp")], [1]), [sock.fileno()])
        address = sock.getsockname()
    await pair.worker.next()
    with socket.socket(fileno=os.dup(pair.worker.fds[0])) as received:
        assert received.getsockname() == address
    assert not os.get_inheritable(pair.worker.fds[0])


async def test_more_descriptors_than_one_packet_takes_arrive_together(pair: Pair) -> None:
    reading, writing = os.pipe()
    many = PACKET_FDS * 2 + 1
    pair.control.channel.send(Configure(POLICY, [], list(range(many))), [writing] * many)
    os.close(writing)
    message = await pair.worker.next()
    assert len(message.new) == len(pair.worker.fds) == many
    os.close(reading)


async def test_a_worker_without_room_for_a_descriptor_ends_and_keeps_none(pair: Pair) -> None:
    """Else it would go on without a listener that control believes it to have."""
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair.control.channel.send(Configure(POLICY, [], [1, 2]), [0, 0])
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        async with asyncio.timeout(20):
            await pair.worker.closed.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pair.worker.heard.empty()
    assert set(os.listdir("/proc/self/fd")) < before


async def test_a_message_longer_than_the_socket_buffer_arrives_whole(pair: Pair) -> None:
    steps = ["x" * PACKET_BYTES] * 40
    pair.worker.channel.send(Explained(1, steps))
    assert pair.worker.channel.backlog > 0
    pair.worker.channel.send(Ready())
    assert (await pair.control.next()).steps == steps
    assert await pair.control.next() == Ready()
    assert pair.worker.channel.backlog == 0


async def test_the_end_of_control_closes_the_worker_after_all_was_heard(pair: Pair) -> None:
    pair.control.channel.send(Drain())
    pair.control.channel.close()
    assert await pair.worker.next() == Drain()
    async with asyncio.timeout(20):
        await pair.worker.closed.wait()


async def test_sending_to_a_closed_end_is_silent(pair: Pair) -> None:
    pair.worker.channel.close()
    pair.control.channel.send(Drain())
    async with asyncio.timeout(20):
        await pair.control.closed.wait()
    pair.control.channel.send(Drain())


@pytest.mark.parametrize("packet", [b".{", b'.{"type":"Drain"}', b'.{"type":"Report","upstreams":3}', b".", b"x"])
async def test_nonsense_from_a_worker_ends_the_channel(pair: Pair, packet: bytes) -> None:
    pair.theirs.send(packet)
    async with asyncio.timeout(20):
        await pair.control.closed.wait()
    assert pair.control.heard.empty()


async def test_control_takes_no_descriptors_from_a_worker(pair: Pair) -> None:
    before = set(os.listdir("/proc/self/fd"))
    reading, writing = os.pipe()
    socket.send_fds(pair.theirs, [b'.{"type":"Report","upstreams":[]}'], [writing])
    os.close(writing)
    assert await pair.control.next() == Report([])
    assert os.read(reading, 1) == b""  # no copy of the writing end is left anywhere
    os.close(reading)
    assert set(os.listdir("/proc/self/fd")) == before
