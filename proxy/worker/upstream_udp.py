"""Questions to upstreams over UDP: for each a fresh connected socket, a random port and ID (RFC 5452 9).

Never decides whether a reply fits its question.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from proxy.core.counters import ASKED, REJECTED, Counts
from proxy.core.pending import Try
from proxy.worker.poller import READABLE, Poller
from proxy.worker.upstream_try import (
    MIN_MESSAGE,
    OnAnswer,
    OnFailure,
    RandomNumbers,
    failure_reason,
    socket_address,
)

_ASKED = ASKED.slot("udp")
_WRONG_ID = REJECTED.slot("id")
_MALFORMED = REJECTED.slot("malformed")
_NOT_A_RESPONSE = REJECTED.slot("not_a_response")


@dataclass(frozen=True, slots=True)
class UdpLimits:
    """Bounds of the upstream sockets."""

    sockets: int = 512
    """Open at once, or a quarter of the descriptors where they are few; past it questions share sockets."""
    sockets_per_upstream: int = 16
    """What an upstream may open even then, so that its source ports stay hard to guess (RFC 5452 9.2)."""
    tries: int = 32_768
    """In flight at once: half of all IDs, so that a free one is found in two draws."""

    @classmethod
    def within(cls, descriptors: int) -> "UdpLimits":
        """Ours, for a process that may open so many."""
        return cls(min(UDP_LIMITS.sockets, descriptors // 4))


UDP_LIMITS = UdpLimits()


class UpstreamUdp:
    """The open tries over UDP and their sockets."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        on_answer: OnAnswer,
        on_failure: OnFailure,
        counts: Counts,
        limits: UdpLimits = UDP_LIMITS,
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._counts = counts
        self._limits = limits
        self._random = RandomNumbers()
        self._asked_by_id: dict[int, _Asked] = {}
        self._asked_by_try: dict[Try, _Asked] = {}
        self._failing: dict[Try, asyncio.Handle] = {}
        self._sockets: set[_Socket] = set()
        self._sockets_by_address: dict[str, list[_Socket]] = {}
        self._buffer = memoryview(bytearray(65_536))

    def ask(self, try_: Try) -> None:
        """Send the question; a failure is reported after this call, never within it."""
        try:
            used = self._socket_for(try_.address)
        except OSError as error:
            self._fail_soon(try_, failure_reason(error))
            return
        message_id = self._free_id()
        asked = _Asked(try_, message_id, used)
        self._asked_by_id[message_id] = asked
        self._asked_by_try[try_] = asked
        used.asked.append(asked)
        try:
            used.sock.send(message_id.to_bytes(2, "big") + try_.message[2:])
        except OSError as error:
            # On a shared socket this may be the refusal of an earlier question: same upstream, same verdict.
            self.forget(try_)
            self._fail_soon(try_, failure_reason(error))
            return
        self._counts[_ASKED] += 1

    def forget(self, try_: Try) -> None:
        """Wait no longer; nothing is called for this try any more. Unknown tries are fine."""
        asked = self._asked_by_try.pop(try_, None)
        if asked is None:
            failing = self._failing.pop(try_, None)
            if failing is not None:
                failing.cancel()
            return
        del self._asked_by_id[asked.message_id]
        used = asked.used
        used.asked.remove(asked)
        if not used.asked:
            self._close(used)

    def sent_by_us(self, port: int, message_id: int) -> bool:
        """Whether an open try has this source port and ID."""
        asked = self._asked_by_id.get(message_id)
        return asked is not None and asked.used.sock.getsockname()[1] == port

    def close(self) -> None:
        """Close every socket; open tries end without a call."""
        for used in list(self._sockets):
            self._close(used)
        for failing in self._failing.values():
            failing.cancel()
        self._failing.clear()
        self._asked_by_id.clear()
        self._asked_by_try.clear()

    def _socket_for(self, address: str) -> "_Socket":
        open_ones = self._sockets_by_address.get(address)
        if len(self._asked_by_id) >= self._limits.tries:
            raise OSError(errno.ENOBUFS, "too many upstream questions in flight")
        if open_ones is None:
            open_ones = self._sockets_by_address[address] = []
        elif len(self._sockets) >= self._limits.sockets and len(open_ones) >= self._limits.sockets_per_upstream:
            return open_ones[self._random.next() % len(open_ones)]
        try:
            opened = _Socket(address, self._poller, self._receive)
        except OSError:
            if not open_ones:
                del self._sockets_by_address[address]
            raise
        self._sockets.add(opened)
        opened.place = len(open_ones)
        open_ones.append(opened)
        return opened

    def _close(self, used: "_Socket") -> None:
        self._sockets.remove(used)
        open_ones = self._sockets_by_address[used.address]
        last = open_ones.pop()
        if last is not used:
            open_ones[used.place] = last
            last.place = used.place
        elif not open_ones:
            del self._sockets_by_address[used.address]
        self._poller.remove(used.sock.fileno())
        used.sock.close()

    def _free_id(self) -> int:
        while (message_id := self._random.next()) in self._asked_by_id:
            pass
        return message_id

    def _fail_soon(self, try_: Try, reason: str) -> None:
        self._failing[try_] = self._loop.call_soon(self._fail, try_, reason)

    def _fail(self, try_: Try, reason: str) -> None:
        del self._failing[try_]
        self._on_failure(try_, reason)

    def _receive(self, used: "_Socket") -> None:
        try:
            size = used.sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            reason = failure_reason(error)
            for asked in used.asked.copy():
                if self._asked_by_try.get(asked.try_) is asked:
                    self.forget(asked.try_)
                    self._on_failure(asked.try_, reason)
            return
        buffer = self._buffer
        if size < MIN_MESSAGE:
            self._counts[_MALFORMED] += 1
            return
        if not buffer[2] & 0x80:
            self._counts[_NOT_A_RESPONSE] += 1
            return
        answered = self._asked_by_id.get(buffer[0] << 8 | buffer[1])
        if answered is None or answered.used is not used:
            self._counts[_WRONG_ID] += 1
            return
        if self._on_answer(answered.try_, bytes(buffer[:size])):
            self.forget(answered.try_)


class _Socket:
    __slots__ = ("_receive", "address", "asked", "place", "sock")

    def __init__(self, address: str, poller: Poller, receive: "Callable[[_Socket], None]") -> None:
        """Open and connect. Raises OSError."""
        self.address = address
        self.asked: list[_Asked] = []
        self.place = 0
        """Its index among the sockets to `address`."""
        self._receive = receive
        family, peer = socket_address(address)
        self.sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # An unbound socket gets its port here. Linux starts at get_random_u32() and goes on in random
            # steps (udp_lib_get_port), so no port can be told from earlier ones.
            self.sock.connect(peer)
            poller.add(self.sock.fileno(), READABLE, self._ready)
        except BaseException:
            self.sock.close()
            raise

    def _ready(self, events: int) -> None:
        self._receive(self)


class _Asked:
    __slots__ = ("message_id", "try_", "used")

    def __init__(self, try_: Try, message_id: int, used: _Socket) -> None:
        self.try_ = try_
        self.message_id = message_id
        self.used = used
