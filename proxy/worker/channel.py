"""What control and a worker say to each other, as JSON over a SOCK_SEQPACKET pair with descriptors beside it.

Control trusts nothing that a worker sends: it takes no descriptors, bounds every message and treats nonsense
as a dead channel. The end of file on the worker's side means that control is gone.
"""

import asyncio
import errno
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from proxy.core.policy import DnsPolicy, RelayPolicy


class Listener(msgspec.Struct, frozen=True):
    """One listening socket; `id` stays the same as long as control keeps it open."""

    id: int
    address: str
    transport: Literal["udp", "tcp", "unixgram"]
    relay: str = ""
    """The name of the relay that it belongs to."""


class Configure(msgspec.Struct, frozen=True, tag=True):
    """All that a dns worker should serve from now on, whole. Sockets that are no longer listed get closed.

    The descriptors that ride along belong to the ids in `new`, in the same order.
    """

    policy: DnsPolicy
    listeners: list[Listener]
    new: list[int]


class ConfigureRelays(msgspec.Struct, frozen=True, tag=True):
    """The same for a relay worker; it comes again, whole, with every change of the endpoints."""

    relays: list[RelayPolicy]
    listeners: list[Listener]
    new: list[int]


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Take nothing new, finish what was taken for up to 2 s, say `Drained`, exit 0.

    `last`: nobody else reads the sockets, so what waits in them is taken, too.
    """

    last: bool = False


class Explain(msgspec.Struct, frozen=True, tag=True):
    """Ask one question through the running resolver and tell each step."""

    request: int
    name: str
    qtype: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The first `Configure` is carried out: every socket is being read."""


class UpstreamReport(msgspec.Struct, frozen=True):
    zone: str
    address: str
    state: Literal["up", "down"]
    rtt_ms: float | None


class Report(msgspec.Struct, frozen=True, tag=True):
    """What a worker knows that no counter holds; sent when it has changed, at most every 500 ms."""

    upstreams: list[UpstreamReport]


class FoldedValue(msgspec.Struct, frozen=True):
    """One value that waits for an endpoint, as people read it."""

    name: str
    kind: str
    value: str
    suffix: str
    """What followed the value: type, rate, tags."""
    lines: int


class RelayState(msgspec.Struct, frozen=True):
    name: str
    ejected: list[str]
    """Endpoints that refused and are left out for now."""
    limits: dict[str, int]
    """The longest datagram that each endpoint's path takes."""
    folded: list[FoldedValue]
    """Some of what is folded, the newest last."""
    malformed: list[str]
    """The last lines that made no sense, printable."""


class RelayReport(msgspec.Struct, frozen=True, tag=True):
    """What a relay worker knows that no counter holds; sent when it has changed, at most every 500 ms."""

    relays: list[RelayState]


class Explained(msgspec.Struct, frozen=True, tag=True):
    """The steps of one question and the answer that its client would have got, if any."""

    request: int
    steps: list[str]
    answer: bytes = b""


class Drained(msgspec.Struct, frozen=True, tag=True):
    """Nothing is in flight any more; the worker exits now."""


ToWorker = Configure | ConfigureRelays | Drain | Explain
ToControl = Ready | Report | RelayReport | Explained | Drained

PACKET_BYTES = 64_000
"""Well under the default SO_SNDBUF of 212,992, so that a packet can always be queued whole."""
PACKET_FDS = 250
"""SCM_MAX_FD is 253."""
MESSAGE_BYTES = 16 * 1024 * 1024

_MORE, _LAST = b"+", b"."
_FD_BYTES = array("i").itemsize


class Channel:
    """One end of the pair, on the running loop. Messages arrive whole and in order until `closed` is called.

    `send` never blocks: what the socket does not take waits here. `receive` owns the descriptors it is given.
    """

    def __init__(
        self,
        sock: socket.socket,
        incoming: Any,
        receive: Callable[[Any, list[int]], None],
        closed: Callable[[], None],
        *,
        takes_fds: bool,
    ) -> None:
        self._sock = sock
        self._decoder = msgspec.json.Decoder(incoming)
        self._receive = receive
        self._closed = closed
        self._takes_fds = takes_fds
        self._parts: list[bytes] = []
        self._fds: list[int] = []
        self._backlog: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read)

    @property
    def backlog(self) -> int:
        """Packets that wait for the other side to read; while there are any, mere news can be left out."""
        return len(self._backlog)

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Queue a message; the descriptors may be closed as soon as this returns. Silent once closed."""
        if not self._open:
            return
        idle = not self._backlog
        self._backlog += ((packet, [os.dup(fd) for fd in riders]) for packet, riders in _packets(message, fds))
        if idle:
            self._write()

    def close(self) -> None:
        """Close this end without calling `closed`; what is still queued is lost."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, riders in self._backlog:
            _close_all(riders)
        self._backlog.clear()
        _close_all(self._fds)
        self._fds = []

    def _write(self) -> None:
        while self._backlog:
            packet, riders = self._backlog[0]
            try:
                socket.send_fds(self._sock, [packet], riders)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError:
                # The other side is gone; the reader sees its end of file after what it still had to say.
                for _, unsent in self._backlog:
                    _close_all(unsent)
                self._backlog.clear()
                break
            self._backlog.popleft()
            _close_all(riders)
        self._loop.remove_writer(self._sock.fileno())

    def _read(self) -> None:
        try:
            packet = self._read_packet()
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._end()
            return
        self._parts.append(packet[1:])
        if sum(map(len, self._parts)) > MESSAGE_BYTES:
            self._end()
            return
        if packet[:1] == _MORE:
            return
        payload, fds = b"".join(self._parts), self._fds
        self._parts, self._fds = [], []
        try:
            message = self._decoder.decode(payload)
        except msgspec.MsgspecError:
            _close_all(fds)
            self._end()
            return
        self._receive(message, fds)

    def _read_packet(self) -> bytes:
        if not self._takes_fds:
            return self._sock.recv(PACKET_BYTES + 1)
        return _receive_packet(self._sock, self._fds)

    def _end(self) -> None:
        self.close()
        self._closed()


def control_end(sock: socket.socket, receive: Callable[[ToControl], None], closed: Callable[[], None]) -> Channel:
    """Control's end of the pair: hears `ToControl`; the kernel discards any descriptor sent along."""
    return Channel(sock, ToControl, lambda message, _: receive(message), closed, takes_fds=False)


def worker_end(
    sock: socket.socket, receive: Callable[[ToWorker, list[int]], None], closed: Callable[[], None]
) -> Channel:
    """A worker's end of the pair: hears `ToWorker`; `closed` means that control is gone: exit."""
    return Channel(sock, ToWorker, receive, closed, takes_fds=True)


def send_message(sock: socket.socket, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
    """The same as `Channel.send` on a blocking socket, where there is no loop. Raises OSError."""
    for packet, riders in _packets(message, fds):
        socket.send_fds(sock, [packet], riders)


def receive_message(sock: socket.socket, incoming: Any) -> tuple[Any, list[int]]:
    """One whole message and the descriptors that came with it, on a blocking socket.

    Raises OSError (also at the end of file), and ValueError for what makes no sense.
    """
    parts: list[bytes] = []
    fds: list[int] = []
    try:
        while not parts or parts[-1][:1] == _MORE:
            parts.append(_receive_packet(sock, fds))
            if not parts[-1] or sum(map(len, parts)) > MESSAGE_BYTES:
                raise ConnectionResetError("the other side has hung up or talks nonsense")
        return msgspec.json.decode(b"".join(part[1:] for part in parts), type=incoming), fds
    except BaseException:
        _close_all(fds)
        raise


def _packets(message: msgspec.Struct, fds: Sequence[int]) -> Iterator[tuple[bytes, Sequence[int]]]:
    """A message cut to what a packet may hold, with the descriptors that ride on each."""
    payload = msgspec.json.encode(message)
    count = max(-(-len(payload) // PACKET_BYTES), -(-len(fds) // PACKET_FDS), 1)
    for number in range(count):
        part = payload[number * PACKET_BYTES : (number + 1) * PACKET_BYTES]
        mark = _LAST if number == count - 1 else _MORE
        yield mark + part, fds[number * PACKET_FDS : (number + 1) * PACKET_FDS]


def _receive_packet(sock: socket.socket, fds: list[int]) -> bytes:
    """One packet; descriptors that ride on it are added to `fds`. Raises OSError, also when they don't all fit."""
    # Not socket.recv_fds: before Python 3.12 it forgets its flags, and the descriptors would be inheritable.
    space = socket.CMSG_LEN(PACKET_FDS * _FD_BYTES)
    packet, ancillary, flags, _ = sock.recvmsg(PACKET_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array("i")
            received.frombytes(data[: len(data) - len(data) % _FD_BYTES])
            fds += received
    if flags & socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, "descriptors were lost on the way")
    return packet


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
