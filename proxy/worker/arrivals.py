"""What arrives at a relay's listener: some datagrams at a time, who sent them, and the way back to them.

It never looks into a datagram. The socket stays the caller's to close.
"""

import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import cast

from proxy.worker.mmsg import (
    DatagramSlots,
    Peer,
    ask_for_destination,
    batches_work,
    is_wildcard,
    receive_into,
    send_from,
)

BATCH = 32
"""What was taken dies with its worker, so it is no more than saves most system calls."""
_UDP_BYTES = 65_536
_UNIX_BYTES = 256 * 1024
"""More than net.core.wmem_default (212,992) lets a sender of Unix datagrams send, and what is taken at a time."""
_CREDENTIALS = struct.Struct("3i")
_MOST_SOURCES = 4096


class Sender:
    """Who sent a datagram, and to which of our addresses; None for a Unix socket without a name."""

    __slots__ = ("peer", "pktinfo")

    def __init__(self, peer: Peer | str | bytes | None, pktinfo: bytes = b"") -> None:
        self.peer = peer
        self.pktinfo = pktinfo


class Arrivals(ABC):
    """One bound socket; `take` moves on, the other methods are about what it gave last."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.cut = 0
        """Datagrams so far that were longer than anybody reads, and so were cut by the kernel."""

    @abstractmethod
    def take(self) -> list[bytes]:
        """The datagrams that wait, `BATCH` at most; none when nothing waits or the socket is broken."""

    @abstractmethod
    def source(self, i: int) -> str:
        """Whose datagram number `i` is, for limits: its IP without the port, or `uid:` and the user."""

    @abstractmethod
    def key(self, i: int) -> Hashable:
        """The same for two datagrams of one sender to one of our addresses, and for no others."""

    @abstractmethod
    def sender(self, i: int) -> Sender:
        """Who it is."""

    def reply(self, datagram: bytes, sender: Sender) -> bool:
        """Send to a sender, from the address that it sent to; whether the kernel took it."""
        if sender.peer is None:
            return False
        try:
            if isinstance(sender.peer, tuple):
                send_from(self._sock, datagram, sender.peer, sender.pktinfo)
            else:
                self._sock.sendto(datagram, sender.peer)
        except OSError:
            return False
        return True


class BatchedArrivals(Arrivals):
    """A system call for a batch of UDP datagrams."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        # 2 MiB of which only pages that datagrams were written to are ever there.
        self._slots = DatagramSlots(sock, BATCH, _UDP_BYTES)
        self._sources: dict[bytes, str] = {}
        self._ip = slice(8, 24) if sock.family == socket.AF_INET6 else slice(4, 8)

    def take(self) -> list[bytes]:
        slots = self._slots
        received = slots.receive()
        if received < 1:
            return []
        memory = slots.memory
        return [
            memory[start : start + length]
            for start, length in zip(slots.starts[:received], slots.lengths, strict=False)
        ]

    def source(self, i: int) -> str:
        ip = self._slots.name(i)[self._ip]
        source = self._sources.get(ip)
        if source is None:
            if len(self._sources) >= _MOST_SOURCES:
                self._sources.clear()
            source = self._sources[ip] = self._slots.peer(i)[0]
        return source

    def key(self, i: int) -> Hashable:
        return self._slots.name(i) + self._slots.pktinfo(i)

    def sender(self, i: int) -> Sender:
        return Sender(self._slots.peer(i), self._slots.pktinfo(i))


class PlainArrivals(Arrivals):
    """A system call for each UDP datagram, with nothing but the standard library."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._buffer = memoryview(bytearray(_UDP_BYTES))
        self._senders: list[tuple[Peer, bytes]] = []
        self._wildcard = is_wildcard(sock)
        if self._wildcard:
            ask_for_destination(sock)

    def take(self) -> list[bytes]:
        datagrams: list[bytes] = []
        self._senders.clear()
        while len(datagrams) < BATCH:
            try:
                size, peer, pktinfo, _ = receive_into(self._sock, self._buffer, self._wildcard)
            except OSError:
                break
            datagrams.append(bytes(self._buffer[:size]))
            self._senders.append((peer, pktinfo))
        return datagrams

    def source(self, i: int) -> str:
        return self._senders[i][0][0]

    def key(self, i: int) -> Hashable:
        return self._senders[i]

    def sender(self, i: int) -> Sender:
        return Sender(*self._senders[i])


class UnixArrivals(Arrivals):
    """Datagrams of a Unix socket, each with the user who sent it (SO_PASSCRED)."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._buffer = memoryview(bytearray(_UNIX_BYTES))
        self._senders: list[tuple[str | bytes | None, int]] = []

    def take(self) -> list[bytes]:
        datagrams: list[bytes] = []
        self._senders.clear()
        size_bytes = 0
        while len(datagrams) < BATCH and size_bytes < _UNIX_BYTES:
            try:
                size, control, flags, name = self._sock.recvmsg_into(
                    [self._buffer], socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                break
            size_bytes += size
            if flags & socket.MSG_TRUNC:
                self.cut += 1
                continue
            datagrams.append(bytes(self._buffer[:size]))
            self._senders.append((cast("str | bytes | None", name) or None, _user(control)))
        return datagrams

    def source(self, i: int) -> str:
        return f"uid:{self._senders[i][1]}"

    def key(self, i: int) -> Hashable:
        return self._senders[i]

    def sender(self, i: int) -> Sender:
        return Sender(self._senders[i][0])


def open_arrivals(sock: socket.socket) -> Arrivals:
    """Read a bound UDP or Unix socket, in batches where the system has them."""
    if sock.family == socket.AF_UNIX:
        return UnixArrivals(sock)
    return BatchedArrivals(sock) if batches_work() else PlainArrivals(sock)


def _user(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack_from(content)[1])
    return -1
