"""Supervision, with real processes and sockets and a worker that only pretends to resolve."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from proxy.control.dns_workers import DnsWorkers
from proxy.control.sockets import ListenSockets
from proxy.control.workers import backoff
from proxy.core import counters
from proxy.core.policy import DnsPolicy, Zone
from proxy.worker.channel import Explained
from tests.control.eventually import eventually

FAKE_WORKER = (sys.executable, "-P", "-m", "tests.control.fake_worker")
POLICY = DnsPolicy((Zone(".", ("192.0.2.1:53",)),))
QUERY = bytes.fromhex("12340100000100000000000009 6c6f63616c686f7374 00 0001 0001".replace(" ", ""))


def free_address() -> str:
    """An address whose port is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{port}"


class Client:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((host, int(port)))

    def send(self, number: int = 0) -> None:
        self.sock.send(number.to_bytes(2, "big") + QUERY[2:])

    async def answers(self, count: int) -> set[int]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            return {int.from_bytes((await loop.sock_recv(self.sock, 512))[:2], "big") for _ in range(count)}

    def close(self) -> None:
        self.sock.close()


class Run:
    """Workers under supervision on one address."""

    def __init__(self) -> None:
        self.address = free_address()
        self.sockets = ListenSockets()
        self.workers = DnsWorkers(self.sockets, "json", FAKE_WORKER)
        self.client = Client(self.address)

    async def start(self, count: int = 1) -> None:
        self.sockets.open([self.address], count)
        self.workers.configure(POLICY, count)
        self.task = asyncio.ensure_future(self.workers.run())
        await self.workers.wait_ready()

    @property
    def pid(self) -> int:
        child = self.workers.slots[0].child
        assert child is not None
        return child.pid

    async def stop(self) -> None:
        self.workers.kill()
        await self.task
        self.workers.close()
        self.sockets.close()
        self.client.close()


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    run = Run()
    yield run
    await run.stop()


async def test_a_killed_worker_is_replaced_and_nothing_in_the_queue_is_lost(run: Run) -> None:
    await run.start()
    for round_number in range(2):
        first = run.pid
        os.kill(first, signal.SIGSTOP)
        for number in range(100):
            run.client.send(number)
        os.kill(first, signal.SIGKILL)
        assert await run.client.answers(100) == set(range(100))
        assert run.pid != first
        assert run.workers.slots[0].restarts == round_number + 1


async def test_counters_go_on_over_a_restart(run: Run) -> None:
    await run.start()
    slot = run.workers.slots[0]
    run.client.send()
    await run.client.answers(1)
    os.kill(run.pid, signal.SIGKILL)
    run.client.send()
    await run.client.answers(1)
    await eventually(lambda: slot.counts[counters.RECEIVED.slot("udp")] == 2)


async def test_a_worker_that_stands_still_is_replaced(run: Run) -> None:
    await run.start()
    stopped = run.pid
    os.kill(stopped, signal.SIGSTOP)
    run.client.send(7)
    assert await run.client.answers(1) == {7}
    assert run.pid != stopped


async def test_a_worker_that_talks_nonsense_is_replaced(run: Run) -> None:
    await run.start()
    child = run.workers.slots[0].child
    assert child is not None
    child.channel._receive = None  # type: ignore[assignment]
    child.channel._decoder = __import__("msgspec").json.Decoder(int)
    await child.exited
    await run.workers.wait_ready()
    assert run.pid != child.pid


async def test_draining_ends_with_workers_that_exit_by_themselves(run: Run) -> None:
    await run.start(2)
    children = [slot.child for slot in run.workers.slots if slot.child]
    await run.workers.drain(last=True)
    await run.task
    assert [child.exited.result() for child in children] == [0, 0]


async def test_fewer_workers_go_on_serving_every_socket(run: Run) -> None:
    await run.start(3)
    clients = [Client(run.address) for _ in range(24)]
    run.workers.configure(POLICY, 1)
    await eventually(lambda: all(slot.child is None for slot in run.workers.slots[1:]))
    for number, client in enumerate(clients):
        client.send(number)
    assert [await client.answers(1) for client in clients] == [{number} for number in range(24)]
    assert [slot.restarts for slot in run.workers.slots] == [0, 0, 0]
    for client in clients:
        client.close()


async def test_more_workers_share_the_address(run: Run) -> None:
    await run.start(1)
    run.sockets.open([run.address], 2)
    run.workers.configure(POLICY, 2)
    await run.workers.wait_ready()
    clients = [Client(run.address) for _ in range(64)]
    for client in clients:
        client.send()
    for client in clients:
        await client.answers(1)
        client.close()
    received = counters.RECEIVED.slot("udp")
    await eventually(lambda: all(slot.counts[received] for slot in run.workers.slots))


async def test_explaining_asks_a_running_worker(run: Run) -> None:
    await run.start()
    assert await run.workers.explain("example.com", "A") == Explained(1, ["asked example.com A"])


async def test_a_worker_that_cannot_start_is_tried_again_ever_later() -> None:
    sockets = ListenSockets()
    workers = DnsWorkers(sockets, "json", (sys.executable, "-c", "raise SystemExit(3)"))
    workers.configure(POLICY, 1)
    task = asyncio.ensure_future(workers.run())
    await eventually(lambda: workers.slots and workers.slots[0].restarts >= 3)
    await workers.drain(last=True)
    await task
    workers.close()


def test_the_first_restart_is_immediate_and_later_ones_wait() -> None:
    assert [backoff(failures) for failures in (1, 2, 3, 20)] == [0.0, 0.05, 0.1, 1.0]
