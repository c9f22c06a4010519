"""A worker that speaks the channel and answers every question NOERROR with no records; for tests of control.

Run as `python -m tests.control.fake_worker` with a worker's options.
"""

import argparse
import asyncio
import mmap
import os
import socket
import sys
import time

from proxy.core import counters
from proxy.worker.channel import (
    Configure,
    Drain,
    Drained,
    Explain,
    Explained,
    Ready,
    Report,
    ToWorker,
    UpstreamReport,
    worker_end,
)


class FakeWorker:
    def __init__(self, options: argparse.Namespace) -> None:
        memory = mmap.mmap(options.counters, counters.SLOTS * 8)
        self.counts = memoryview(memory).cast("Q")
        self.loop = asyncio.get_running_loop()
        self.sockets: dict[int, tuple[socket.socket, asyncio.Server | None]] = {}
        self.done = asyncio.Event()
        channel = socket.socket(fileno=options.channel)
        self.channel = worker_end(channel, self.receive, lambda: os._exit(0))
        self.configured = False

    def receive(self, message: ToWorker, fds: list[int]) -> None:
        match message:
            case Configure():
                transports = {listener.id: listener.transport for listener in message.listeners}
                for number in [number for number in self.sockets if number not in transports]:
                    self.close(number)
                for number, fd in zip(message.new, fds, strict=True):
                    self.open(number, transports[number], socket.socket(fileno=fd))
                self.policy = message.policy
                if not self.configured:
                    self.configured = True
                    self.channel.send(Ready())
            case Explain():
                self.channel.send(Explained(message.request, [f"asked {message.name} {message.qtype}"]))
            case Drain():
                for number in list(self.sockets):
                    self.close(number)
                self.channel.send(Drained())
                self.done.set()

    def open(self, number: int, transport: str, sock: socket.socket) -> None:
        self.sockets[number] = sock, None
        if transport == "udp":
            self.loop.add_reader(sock.fileno(), self.read_datagram, sock)
        else:
            self.loop.add_reader(sock.fileno(), self.accept, sock)

    def close(self, number: int) -> None:
        sock, _ = self.sockets.pop(number)
        self.loop.remove_reader(sock.fileno())
        sock.close()

    def read_datagram(self, sock: socket.socket) -> None:
        query, client = sock.recvfrom(4096)
        self.counts[counters.RECEIVED.slot("udp")] += 1
        sock.sendto(answer(query), client)
        self.counts[counters.answered_slot("udp", "local", 1, 0)] += 1

    def accept(self, sock: socket.socket) -> None:
        connection, _ = sock.accept()
        with connection:
            connection.setblocking(True)
            length = int.from_bytes(connection.recv(2), "big")
            reply = answer(connection.recv(length))
            connection.sendall(len(reply).to_bytes(2, "big") + reply)

    async def live(self) -> None:
        while not self.done.is_set():
            self.counts[counters.HEARTBEAT] = time.monotonic_ns()
            if self.configured:
                self.channel.send(Report([UpstreamReport(".", "192.0.2.1:53", "up", 0.4)]))
            try:
                await asyncio.wait_for(self.done.wait(), 0.1)
            except TimeoutError:
                pass


def answer(query: bytes) -> bytes:
    return query[:2] + b"\x81\x80" + query[4:]


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("channel", "counters", "journal", "uid", "gid"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--role")
    parser.add_argument("--name")
    parser.add_argument("--log-format")
    await FakeWorker(parser.parse_args()).live()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
