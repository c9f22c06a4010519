"""The UDP side of the dns worker: datagrams in, answers out, and the loop that answers from ready variants.

It never parses a question: what is not byte for byte a known one goes to `receive`.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise
from socket import MSG_DONTWAIT
from typing import Final, Protocol

from proxy.core.counters import DROPPED, RECEIVED, REQUEST_SECONDS, TRUNCATED, UNDELIVERED, Counts
from proxy.worker.mmsg import (
    DatagramSlots,
    Peer,
    ask_for_destination,
    batches_work,
    is_wildcard,
    receive_into,
    send_from,
)

SLOT_SIZE = 2048
"""Bytes kept of a datagram: a query padded to 128-byte blocks with cookie and client subnet stays below 1 KiB, and an
answer over UDP, at most 1,232 bytes (RFC 9715), is built in the same place."""

BATCH = 32
WAKE_UP_LIMIT = 128
"""Datagrams after which timers and other sockets get their turn: 0.5 ms of hits."""
LOOK_EVERY = 16
"""Wake-ups between two looks for more, while they find nothing."""
LONE_BATCHES, SINGLY = 3, 64
"""After so many batches of one in a row, so many datagrams are taken one by one, which is cheaper."""

_HEADER_SIZE = 12
_QR = 0x80

_RECEIVED = RECEIVED.slot("udp")
_TRUNCATED = TRUNCATED.slot()
_SHORT = DROPPED.slot("short")
_RESPONSE = DROPPED.slot("response")
_PORT_ZERO = DROPPED.slot("port_zero")
_UNSENDABLE = UNDELIVERED.slot("unsendable")


class Variant(Protocol):
    """A ready answer to one exact query: `body` without the ID, usable while now < `until`, counted in `slot`.

    With the ID it is no longer than `SLOT_SIZE`.
    """

    body: bytes
    until: float
    slot: int


class UdpClient:
    """Who asked, and which of our addresses: equal for two datagrams that differ in nothing but content."""

    __slots__ = ("_listener", "_peer", "_pktinfo")

    proto: Final = "udp"

    def __init__(self, listener: "UdpListener", peer: Peer, pktinfo: bytes) -> None:
        self._listener = listener
        self._peer = peer
        self._pktinfo = pktinfo

    @property
    def address(self) -> tuple[str, int]:
        """The client's IP and port."""
        return self._peer[0], self._peer[1]

    def reply(self, message: bytes) -> bool:
        """Send an answer now; False, and counted as undelivered, when the kernel refuses it."""
        return self._listener.send(message, self._peer, self._pktinfo)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, UdpClient)
            and self._peer == other._peer
            and self._pktinfo == other._pktinfo
            and self._listener is other._listener
        )

    def __hash__(self) -> int:
        return hash(self._peer)


Receive = Callable[[bytes, UdpClient], bytes | None]
"""Takes a query and its client; gives the answer to send at once, or None when it comes later or never."""


class UdpListener(ABC):
    """One bound socket, which stays the caller's to close; `drain` is the `loop.add_reader` callback."""

    def __init__(
        self,
        sock: socket.socket,
        variants: Mapping[bytes, Variant],
        receive: Receive,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        """`variants` is keyed by the query without its ID; `clock` gives monotonic seconds."""
        sock.setblocking(False)
        self._sock = sock
        self._variants = variants
        self._receive = receive
        self._counts = counts
        self._clock = clock

    @abstractmethod
    def drain(self) -> None:
        """Answer what waits, up to a bound. Socket errors are counted, never raised."""

    def send(self, message: bytes, peer: Peer, pktinfo: bytes) -> bool:
        """Send one datagram; False, and counted as undelivered, when the kernel refuses it."""
        try:
            send_from(self._sock, message, peer, pktinfo)
        except OSError:
            self._counts[_UNSENDABLE] += 1
            return False
        return True

    def _ask(self, query: bytes, peer: Peer, pktinfo: bytes, truncated: bool, now: float) -> None:
        """What no variant answers: drop what must get no reply, leave the rest to `receive`."""
        if len(query) < _HEADER_SIZE:
            self._counts[_SHORT] += 1
        elif query[2] & _QR:
            self._counts[_RESPONSE] += 1
        elif peer[1] == 0:
            self._counts[_PORT_ZERO] += 1
        else:
            if truncated:
                self._counts[_TRUNCATED] += 1
                query = query[:_HEADER_SIZE]  # what is left may look whole, but isn't what was sent
            answer = self._receive(query, UdpClient(self, peer, pktinfo))
            if answer is not None:
                self.send(answer, peer, pktinfo)
                REQUEST_SECONDS.observe(self._counts, self._clock() - now)


class BatchedListener(UdpListener):
    """Replies are built where their questions lie; many share two system calls, a lone one has cheaper ones."""

    def __init__(
        self,
        sock: socket.socket,
        variants: Mapping[bytes, Variant],
        receive: Receive,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(sock, variants, receive, counts, clock)
        self._slots = slots = DatagramSlots(sock, BATCH, SLOT_SIZE)
        self._receive_one, self._send_one, self._memory = slots.receive_one, slots.send_one, slots.memory
        self._find = variants.get
        self._wake_ups = 0
        self._more_came = False
        self._singly = 1

    def drain(self) -> None:
        # The first one goes alone: mostly it is the only one, and where it isn't, its client gets busy while we
        # read the others.
        if self._drain_singly():
            # A look for more costs a call when nothing came, and saves a whole wake-up when something did.
            self._wake_ups += 1
            if self._more_came or self._wake_ups % LOOK_EVERY == 0:
                self._more_came = self._drain_batches()

    def _drain_singly(self) -> bool:
        """Answer one datagram, or some one by one while batches bring one each; whether there may be more."""
        memory, counts, limit = self._memory, self._counts, self._singly
        taken = hits = length = 0
        begun = self._clock()
        while taken < limit and (length := self._receive_one()) >= 0:
            taken += 1
            variant = self._find(memory[2:length])
            if variant is None or begun >= variant.until:
                break
            body = variant.body
            end = 2 + len(body)
            memory[2:end] = body
            counts[variant.slot] += 1
            if not self._send_one(end):
                counts[_UNSENDABLE] += 1
            hits += 1
        counts[_RECEIVED] += taken
        if hits:
            REQUEST_SECONDS.observe(counts, (self._clock() - begun) / hits, hits)
        if hits < taken:
            self._ask_slot(0, length, begun)
        elif taken < limit:
            self._singly = 1
            return False
        return True

    def _drain_batches(self) -> bool:
        """Answer until nothing waits, at most about `WAKE_UP_LIMIT`; whether there was anything.

        Every answer counts with the mean time of the batches.
        """
        slots, counts = self._slots, self._counts
        memory, starts, lengths, sizes = slots.memory, slots.starts, slots.lengths, slots.sizes
        find, receive, send_first = self._find, slots.receive, slots.send_first
        batches = total = 0
        misses: list[int] = []
        begun = self._clock()
        # A miss takes long: its batch is the last one, so that other sockets and timers get their turn.
        while total < WAKE_UP_LIMIT and not misses and (received := receive()) > 0:
            for i in range(received):
                start = starts[i]
                variant = find(memory[start + 2 : start + lengths[i]])
                if variant is None or begun >= variant.until:
                    misses.append(i)
                else:
                    body = variant.body
                    end = 2 + len(body)
                    memory[start + 2 : start + end] = body
                    sizes[i] = end
                    counts[variant.slot] += 1
            sent = 0 if misses else send_first(received, MSG_DONTWAIT)
            if sent != received:
                self._send_rest(max(sent, 0), misses, received)
            batches += 1
            total += received
            if batches == total == LONE_BATCHES:
                self._singly = SINGLY
                break
        counts[_RECEIVED] += total
        hits = total - len(misses)
        if hits:
            REQUEST_SECONDS.observe(counts, (self._clock() - begun) / batches, hits)
        for i in misses:
            self._ask_slot(i, lengths[i], begun)
        return total > 0

    def _send_rest(self, first: int, misses: list[int], received: int) -> None:
        """Send the slots from `first` on that lie between the misses."""
        for before, end in pairwise([first - 1, *misses, received]):
            self._counts[_UNSENDABLE] += self._slots.send(before + 1, end)

    def _ask_slot(self, i: int, length: int, now: float) -> None:
        slots = self._slots
        query = slots.memory[slots.starts[i] : slots.starts[i] + min(length, SLOT_SIZE)]
        self._ask(query, slots.peer(i), slots.pktinfo(i), length > SLOT_SIZE, now)


class PlainListener(UdpListener):
    """One system call for a question and one for its answer, with nothing but the standard library."""

    def __init__(
        self,
        sock: socket.socket,
        variants: Mapping[bytes, Variant],
        receive: Receive,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(sock, variants, receive, counts, clock)
        self._buffer = memoryview(bytearray(SLOT_SIZE))
        self._wildcard = is_wildcard(sock)
        if self._wildcard:
            ask_for_destination(sock)

    def drain(self) -> None:
        for _ in range(WAKE_UP_LIMIT):
            try:
                size, peer, pktinfo, truncated = receive_into(self._sock, self._buffer, self._wildcard)
            except OSError:
                return
            now = self._clock()
            self._counts[_RECEIVED] += 1
            query = bytes(self._buffer[:size])
            variant = self._variants.get(query[2:])
            if variant is None or now >= variant.until:
                self._ask(query, peer, pktinfo, truncated, now)
            else:
                self._counts[variant.slot] += 1
                self.send(query[:2] + variant.body, peer, pktinfo)
                REQUEST_SECONDS.observe(self._counts, self._clock() - now)


def open_listener(
    sock: socket.socket,
    variants: Mapping[bytes, Variant],
    receive: Receive,
    counts: Counts,
    clock: Callable[[], float],
    kind: type[UdpListener] | None = None,
) -> UdpListener:
    """Listen on a bound socket, in batches where the system has them unless `kind` says otherwise."""
    if kind is None:
        kind = BatchedListener if batches_work() else PlainListener
    return kind(sock, variants, receive, counts, clock)
