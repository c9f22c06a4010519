"""A relay worker between clients and endpoints, all on loopback sockets, with time moved by hand."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.core import ledger
from proxy.core.policy import RelayPolicy
from proxy.worker.channel import Listener, RelayState
from proxy.worker.relay import RelayWorker
from tests.fakes import WAIT, ManualClock

PROBE = "\0sidestep-probe:0123456789abcdef"


class Peer:
    """A UDP or Unix datagram socket that keeps what comes to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.got: list[bytes] = []
        self.sources: list[Any] = []
        self._arrived = asyncio.Event()
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self.read)

    @property
    def address(self) -> str:
        ip, port = self.sock.getsockname()[:2]
        return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    def read(self) -> None:
        """Take all that has come."""
        try:
            while self.sock.fileno() >= 0:
                datagram, source = self.sock.recvfrom(300_000)
                self.got.append(datagram)
                self.sources.append(source)
                self._arrived.set()
        except OSError:
            pass  # nothing more, or a refusal

    async def received(self, count: int) -> list[bytes]:
        """All that came, as soon as there are so many."""
        async with asyncio.timeout(WAIT):
            while len(self.got) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.got

    @property
    def lines(self) -> list[bytes]:
        return [line for datagram in self.got for line in datagram.splitlines()]

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.sock.fileno())
            self.sock.close()


def bound(ip: str, port: int = 0, **options: int) -> socket.socket:
    """A UDP socket with a large queue."""
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((ip, port))
    return sock


class Relaying:
    """One relay worker with one relay, which is block 3 of the ledger, and up to a few listeners."""

    def __init__(self, mode: str, **policy: Any) -> None:
        self.clock = ManualClock()
        self.memory = memoryview(bytearray(ledger.SLOTS * 8)).cast("Q")
        self.block = ledger.block(self.memory, 3)
        self.worker = RelayWorker(asyncio.get_running_loop(), self.clock, self.memory)
        spread = "name" if mode == "statsd" else "source"
        self.policy = RelayPolicy(
            **{"name": "r", "block": 3, "mode": mode, "spread": spread, "probe": PROBE, **policy}
        )
        self.listeners: list[Listener] = []
        self.peers: list[Peer] = []
        self._closed = False
        self.configure()

    def configure(self, *endpoints: "Peer | str", **changes: Any) -> None:
        """These endpoints from now on, and other changes of the policy."""
        addresses = tuple(one if isinstance(one, str) else one.address for one in endpoints)
        self.policy = replace(self.policy, endpoints=addresses, **changes)
        self.worker.configure([self.policy], self.listeners)

    def listen(self, ip: str = "127.0.0.1", asked_at: str | None = None) -> tuple[str, int]:
        """Open a listener; where clients reach it."""
        return self.listen_on(bound(ip), asked_at or ip)

    def listen_on(self, sock: socket.socket, asked_at: str) -> tuple[str, int]:
        port = sock.getsockname()[1]
        listener = Listener(len(self.listeners) + 1, f"{asked_at}:{port}", "udp", "r")
        self.listeners.append(listener)
        self.worker.listen(listener, sock)
        return asked_at, port

    def listen_unix(self, path: Path) -> str:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(path))
        self.listeners.append(Listener(len(self.listeners) + 1, f"unix:{path}", "unixgram", "r"))
        self.worker.listen(self.listeners[-1], sock)
        return str(path)

    def peer(self, ip: str = "127.0.0.1", port: int = 0) -> Peer:
        """An endpoint, or somebody else."""
        return self._keep(Peer(bound(ip, port)))

    def client(self, server: tuple[str, int], ip: str = "127.0.0.1") -> Peer:
        """Connected, so that it hears only what comes from the address that it sent to."""
        client = self.peer(ip)
        client.sock.connect(server)
        return client

    def unix_client(self, path: str, own: Path | None = None) -> Peer:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if own is not None:
            sock.bind(str(own))
        sock.connect(path)
        return self._keep(Peer(sock))

    async def settle(self, server: tuple[str, int]) -> None:
        """Return when everything sent to a listener before has been read, and what it led to has arrived."""
        stub = self.client(server, "::1" if ":" in server[0] else "127.0.0.1")
        for turn in range(3):  # a refusal is read in a turn of its own
            stub.sock.send(PROBE.encode())
            await stub.received(turn + 1)
        self._forget(stub)
        for peer in self.peers:
            peer.read()

    def count(self, name: str) -> int:
        """What the ledger has under this name."""
        first = {"received": ledger.RECEIVED, "forwarded": ledger.FORWARDED, "folded": ledger.FOLDED}
        return self.block[(first | ledger.DROPPED | ledger.COUNTED | ledger.LEVEL)[name]]

    @property
    def ledger(self) -> dict[str, int]:
        """What ended where, without the zeros."""
        names = ["received", "forwarded", "folded", *ledger.DROPPED]
        return {name: self.count(name) for name in names if self.count(name)}

    @property
    def unaccounted(self) -> int:
        return ledger.unaccounted(self.block)

    @property
    def state(self) -> RelayState:
        return self.worker.states()[0]

    async def stop(self) -> None:
        """What SIGTERM does."""
        await self.worker.drain(last=True)
        self._close_worker()

    def close(self) -> None:
        """Close everything."""
        self._close_worker()
        for peer in self.peers:
            peer.close()

    def _close_worker(self) -> None:
        if not self._closed:
            self._closed = True
            self.worker.close()

    def _keep(self, peer: Peer) -> Peer:
        self.peers.append(peer)
        return peer

    def _forget(self, peer: Peer) -> None:
        self.peers.remove(peer)
        peer.close()
