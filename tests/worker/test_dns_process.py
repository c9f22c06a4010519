"""A dns worker as control starts it, over real sockets: what becomes of questions that are under way in a drain."""

import asyncio
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from proxy.core import counters
from proxy.core.policy import DnsPolicy, Zone
from proxy.worker.channel import Configure, Drain, Drained, Explain, Explained, Listener, Ready, control_end
from tests.fakes import WAIT, question

POLICY = DnsPolicy((Zone(".", ("127.0.0.1:9",)),))
QUESTION = question("localhost").to_wire()
"""Answered without an upstream."""


class Sockets(NamedTuple):
    """What control keeps open, whatever becomes of workers."""

    udp: socket.socket
    tcp: socket.socket


class Worker:
    """The process, and control's end of its channel."""

    def __init__(self, sockets: Sockets) -> None:
        self.memory_fd = os.memfd_create("counters")
        self.journal_fd = os.memfd_create("journal")
        os.ftruncate(self.memory_fd, counters.SLOTS * 8)
        os.ftruncate(self.journal_fd, 4 * 1024 * 1024)
        self.memory = mmap.mmap(self.memory_fd, counters.SLOTS * 8)
        self.counts = memoryview(self.memory).cast("Q")
        self.said: list[Any] = []
        self._heard = asyncio.Event()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = {"channel": theirs.fileno(), "counters": self.memory_fd, "journal": self.journal_fd}
        options = [word for name, fd in fds.items() for word in (f"--{name}", str(fd))]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proxy.worker", "--name", "dns-0", "--log-format", "json", *options],
            pass_fds=tuple(fds.values()),
        )
        theirs.close()
        self.channel = control_end(ours, self._hear, self._heard.set)
        listeners = [Listener(1, "", "udp"), Listener(2, "", "tcp")]
        self.channel.send(Configure(POLICY, listeners, [1, 2]), [sock.fileno() for sock in sockets])

    def _hear(self, message: Any) -> None:
        self.said.append(message)
        self._heard.set()

    async def heard(self, kind: type) -> None:
        async with asyncio.timeout(WAIT):
            while not any(isinstance(message, kind) for message in self.said):
                self._heard.clear()
                await self._heard.wait()

    async def drain(self, *, last: bool) -> None:
        """Comes back once the drain has begun: messages are carried out in their order."""
        self.channel.send(Drain(last=last))
        self.channel.send(Explain(1, "localhost", "A"))
        await self.heard(Explained)

    async def ended(self) -> int:
        await self.heard(Drained)
        return await asyncio.to_thread(self.process.wait, WAIT)

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.counts.release()
        self.memory.close()
        os.close(self.memory_fd)
        os.close(self.journal_fd)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        yield Sockets(udp, tcp)


@pytest.fixture
async def start(sockets: Sockets) -> AsyncIterator[Callable[[], Any]]:
    with ExitStack() as stack:

        async def begin() -> Worker:
            worker = Worker(sockets)
            stack.callback(worker.close)
            await worker.heard(Ready)
            return worker

        yield begin


class Client:
    """A TCP connection, each call off the loop."""

    def __init__(self, sockets: Sockets) -> None:
        self.sock = socket.create_connection(sockets.tcp.getsockname(), WAIT)

    def send(self) -> None:
        self.sock.sendall(len(QUESTION).to_bytes(2, "big") + QUESTION)

    async def answer(self) -> bytes:
        """The ID and the first byte of the flags; empty at the end of the stream."""
        return (await asyncio.to_thread(self.sock.recv, 4096))[2:5]

    async def asked(self) -> bytes:
        self.send()
        return await self.answer()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def connect(sockets: Sockets) -> Iterator[Callable[[], Client]]:
    with ExitStack() as stack:

        def make() -> Client:
            client = Client(sockets)
            stack.callback(client.close)
            return client

        yield make


ANSWER = QUESTION[:2] + b"\x81"


@pytest.mark.parametrize("last", [False, True])
async def test_a_connection_that_was_accepted_is_answered_while_the_worker_drains(
    start: Any, connect: Callable[[], Client], last: bool
) -> None:
    worker = await start()
    client = connect()
    assert await client.asked() == ANSWER
    await worker.drain(last=last)
    assert await client.asked() == ANSWER
    client.close()
    assert await worker.ended() == 0


async def test_a_connection_without_a_question_yet_is_answered_while_the_worker_drains(
    start: Any, connect: Callable[[], Client]
) -> None:
    worker = await start()
    silent, witness = connect(), connect()
    assert await witness.asked() == ANSWER  # so the one that was queued before it is accepted as well
    await worker.drain(last=False)
    assert await silent.asked() == ANSWER


async def test_a_connection_that_goes_quiet_does_not_hold_up_the_drain(
    start: Any, connect: Callable[[], Client]
) -> None:
    worker = await start()
    client = connect()
    assert await client.asked() == ANSWER
    await worker.drain(last=False)
    assert await client.answer() == b""
    assert await worker.ended() == 0


async def test_the_last_worker_answers_what_waits_in_its_queues(
    start: Any, connect: Callable[[], Client], sockets: Sockets
) -> None:
    worker = await start()
    os.kill(worker.process.pid, signal.SIGSTOP)
    worker.channel.send(Drain(last=True))
    clients = [connect() for _ in range(40)]  # more than are accepted in a turn
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.settimeout(WAIT)
        asking.sendto(QUESTION, sockets.udp.getsockname())
        for client in clients:
            client.send()
        os.kill(worker.process.pid, signal.SIGCONT)
        assert [await client.answer() for client in clients] == [ANSWER] * len(clients)
        assert (await asyncio.to_thread(asking.recv, 4096))[:3] == ANSWER
    for client in clients:
        client.close()
    assert await worker.ended() == 0


async def test_what_waits_in_a_shared_queue_is_left_to_the_other_worker(
    start: Any, connect: Callable[[], Client]
) -> None:
    first = await start()
    second = await start()
    os.kill(second.process.pid, signal.SIGSTOP)
    accepted = connect()
    assert await accepted.asked() == ANSWER
    await first.drain(last=False)
    received = first.counts[counters.RECEIVED.slot("tcp")]
    queued = [connect() for _ in range(5)]
    for client in queued:
        client.send()
    accepted.close()
    assert await first.ended() == 0
    assert first.counts[counters.RECEIVED.slot("tcp")] == received
    os.kill(second.process.pid, signal.SIGCONT)
    assert [await client.answer() for client in queued] == [ANSWER] * 5
