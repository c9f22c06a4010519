"""One client's TCP connection: reads while the client keeps up, answers in any order (RFC 7766).

Never accepts and never counts its siblings; never looks past a message's header.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from proxy.core.counters import DROPPED, RECEIVED, UNDELIVERED, Counts
from proxy.worker.poller import Poller
from proxy.worker.stream import MessageStream

_RECEIVED = RECEIVED.slot("tcp")
_SHORT = DROPPED.slot("short")
_RESPONSE = DROPPED.slot("response")
_CLIENT_GONE = UNDELIVERED.slot("client_gone")
_UNSENDABLE = UNDELIVERED.slot("unsendable")

_HEADER = 12
_MAX_MESSAGE = 65_535
_MESSAGES_PER_WAKEUP = 32
"""Hits are answered as they are read: a connection full of them takes turns with UDP and the timers."""


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """What clients may hold of a worker; times in seconds, sizes in bytes."""

    connections: int = 400
    """In all, or a quarter of the descriptors where they are few: questions upstream need some, too."""
    connections_per_client: int = 100
    """Of one IP: a pod with `use-vc` opens one for each lookup, and no pod may take them all."""
    outstanding: int = 100
    """Questions per connection without an answer; beyond it we stop reading."""
    unsent: int = 64 * 1024
    """Answers that the client has not taken; beyond it we stop reading its questions."""
    unsent_at_most: int = 256 * 1024
    """The same when answers to earlier questions still come: beyond it the connection is reset."""
    idle: float = 10.0
    """Without a byte in or out (RFC 7766 6.2.3: "on the order of a few seconds")."""
    message: float = 5.0
    """From a message's first byte to its last: nobody on this node needs longer for one segment."""
    answer: float = 10.0
    """For the client to take what waited for it: a reader by drips frees nothing before."""
    retry_accept: float = 0.25
    """Pause after the kernel gave no descriptor."""

    @classmethod
    def within(cls, descriptors: int) -> "TcpLimits":
        """Ours, for a process that may open so many."""
        connections = min(TCP_LIMITS.connections, descriptors // 4)
        return cls(connections, min(TCP_LIMITS.connections_per_client, connections // 2))


TCP_LIMITS = TcpLimits()


class TcpClient:
    """Who asked one question over TCP, and the way back."""

    __slots__ = ("_connection",)

    proto = "tcp"

    def __init__(self, connection: "TcpConnection") -> None:
        self._connection = connection

    @property
    def address(self) -> tuple[str, int]:
        """IP and port."""
        return self._connection.address

    def reply(self, message: bytes) -> bool:
        """Send the answer, once; False when it cannot be sent, which is counted here."""
        return self._connection.reply(message)


Receive = Callable[[bytes, TcpClient], bytes | None]
"""Takes a question; returns its whole answer, or None when `client.reply` follows."""


class TcpConnection:
    """A connection from accept to close; `on_close` is called once, however it ends."""

    __slots__ = (
        "_counts",
        "_ended",
        "_limits",
        "_loop",
        "_must_send",
        "_must_send_by",
        "_on_close",
        "_outstanding",
        "_partial_since",
        "_receive",
        "_scheduled",
        "_sent",
        "_stream",
        "_working",
        "active_at",
        "address",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        sock: socket.socket,
        address: tuple[str, int],
        receive: Receive,
        counts: Counts,
        limits: TcpLimits,
        on_close: Callable[["TcpConnection"], None],
    ) -> None:
        self.address = address
        self.active_at = loop.time()
        """When the last bytes went in or out."""
        self._loop = loop
        self._receive = receive
        self._counts = counts
        self._limits = limits
        self._on_close = on_close
        self._ended = False
        """No more questions will be read: the client has shut down its side, or we drain."""
        self._outstanding = 0
        self._working = False
        self._scheduled = False
        self._partial_since: float | None = None
        self._sent = 0
        self._must_send = 0
        self._must_send_by: float | None = None
        self._stream = MessageStream(poller, sock, self._read, self._write, self.close)
        self._stream.start_reading()

    @property
    def settled(self) -> bool:
        """Every question that was read is answered and every answer is with the kernel."""
        return not self._outstanding and not self._stream.unsent and not self._stream.has_message

    @property
    def idle(self) -> bool:
        """Settled, and not in the middle of a message."""
        return self.settled and not self._stream.has_partial

    def finish(self) -> None:
        """Take what has arrived, read no more, answer what was read, then close."""
        if not self._ended:
            self._read()
        self._ended = True
        self._go_on()

    def expire(self, now: float) -> None:
        """Close if a time limit has passed at `now`, a time of the loop."""
        limits = self._limits
        if self._must_send_by is not None and now > self._must_send_by:
            self.close(reset=True)
        elif now > self.active_at + limits.idle:
            self.close(reset=self._stream.unsent > 0)
        elif self._partial_since is not None and now > self._partial_since + limits.message:
            self.close()

    def reply(self, message: bytes) -> bool:
        """Send one outstanding answer; False when it cannot be sent (counted)."""
        self._outstanding -= 1
        if not self._stream.closed and self._queue(message) and not self._working:
            self._flush()
            self._go_on()
        if self._stream.closed:
            self._counts[_CLIENT_GONE] += 1
            return False
        return len(message) <= _MAX_MESSAGE

    def close(self, *, reset: bool = False) -> None:
        """Close now; later replies are counted as `client_gone`. Idempotent."""
        if not self._stream.closed:
            self._stream.close(reset=reset)
            self._on_close(self)

    def _read(self) -> None:
        try:
            if not self._stream.read():
                self._ended = True
        except OSError:
            self.close()
            return
        self.active_at = self._loop.time()
        self._work()

    def _write(self) -> None:
        self._flush()
        self._go_on()

    def _work(self) -> None:
        self._scheduled = False
        self._working = True
        try:
            for _ in range(_MESSAGES_PER_WAKEUP):
                if not self._may_take or (message := self._stream.take()) is None:
                    break
                self._partial_since = None
                self._ask(message)
        finally:
            self._working = False
        self._flush()
        self._go_on()

    @property
    def _may_take(self) -> bool:
        return self._outstanding < self._limits.outstanding and self._stream.unsent <= self._limits.unsent

    def _ask(self, message: bytes) -> None:
        counts = self._counts
        counts[_RECEIVED] += 1
        if len(message) < _HEADER:  # a length of 0 among them: harmless, so the connection goes on
            counts[_SHORT] += 1
        elif message[2] & 0x80:
            counts[_RESPONSE] += 1
        else:
            self._outstanding += 1
            answer = self._receive(message, TcpClient(self))
            if answer is not None:
                self._outstanding -= 1
                self._queue(answer)

    def _queue(self, message: bytes) -> bool:
        if len(message) > _MAX_MESSAGE:
            self._counts[_UNSENDABLE] += 1
            return False
        self._stream.queue(message)
        return True

    def _flush(self) -> None:
        """Send what the kernel takes, and set the time by which the rest must be gone."""
        stream = self._stream
        try:
            sent = stream.flush()
        except OSError:
            self.close()
            return
        unsent = stream.unsent
        self._sent += sent
        if sent:
            self.active_at = self._loop.time()
        if not unsent:
            self._must_send_by = None
        elif unsent > self._limits.unsent_at_most:
            self.close(reset=True)
        elif self._must_send_by is None or self._sent >= self._must_send:
            self._must_send = self._sent + unsent
            self._must_send_by = self._loop.time() + self._limits.answer

    def _go_on(self) -> None:
        """Decide what comes next: messages at hand, more bytes, waiting for answers, or the end."""
        stream = self._stream
        if stream.closed:
            return
        if stream.has_message:
            stream.stop_reading()
            if self._may_take and not self._scheduled:
                # Later, not now: the resolver may be in the middle of giving us an answer.
                self._scheduled = True
                self._loop.call_soon(self._work)
        elif self._ended:
            stream.stop_reading()
            if self.settled:
                self.close()
        elif self._may_take:
            stream.start_reading()
            if not stream.has_partial:
                self._partial_since = None
            elif self._partial_since is None:
                self._partial_since = self._loop.time()
        else:
            stream.stop_reading()
            self._partial_since = None  # it is we who do not read on
