"""Questions to upstreams over TCP: a few pipelined connections each, reused until they idle (RFC 7766 6.2).

Answers are matched by ID in whatever order they come. A connection that dies fails its tries, unless it had
answered before and so may just have been closed as old: then they are asked on a fresh one, once.
"""

import asyncio
import errno
import os
import socket
from dataclasses import dataclass

from proxy.core.counters import ASKED, REJECTED, Counts
from proxy.core.pending import Try
from proxy.worker.poller import Poller
from proxy.worker.stream import MessageStream
from proxy.worker.upstream_try import (
    MIN_MESSAGE,
    OnAnswer,
    OnFailure,
    RandomNumbers,
    failure_reason,
    socket_address,
)

_ASKED = ASKED.slot("tcp")
_WRONG_ID = REJECTED.slot("id")
_MALFORMED = REJECTED.slot("malformed")
_NOT_A_RESPONSE = REJECTED.slot("not_a_response")


@dataclass(frozen=True, slots=True)
class TcpUpstreamLimits:
    """Bounds of the connections to upstreams; times in seconds."""

    connections: int = 4
    """Per upstream. More than one: many servers answer the questions of a connection one after another."""
    outstanding: int = 64
    """Questions without an answer per connection; with every connection full a try gets `no_socket`."""
    connect: float = 2.0
    """For a SYN that nobody answers: no client waits longer for its answer (Linux would try for 127 s)."""
    idle: float = 10.0
    """Without a question in flight: seconds, as RFC 7766 6.2.3 advises; servers hang up about then too."""


TCP_UPSTREAM_LIMITS = TcpUpstreamLimits()


class UpstreamTcp:
    """The open tries over TCP and their connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        on_answer: OnAnswer,
        on_failure: OnFailure,
        counts: Counts,
        limits: TcpUpstreamLimits = TCP_UPSTREAM_LIMITS,
    ) -> None:
        self.loop = loop
        self.poller = poller
        self.on_answer = on_answer
        self.counts = counts
        self.limits = limits
        self.random = RandomNumbers()
        self._on_failure = on_failure
        self._tries: dict[Try, _Asked] = {}
        self._connections: dict[str, list[_Connection]] = {}

    def ask(self, try_: Try) -> None:
        """Put the question on a connection; a failure is reported after this call, never within it."""
        asked = self._tries[try_] = _Asked(try_)
        self._put(asked)

    def forget(self, try_: Try) -> None:
        """Wait no longer; nothing is called for this try any more. Unknown tries are fine."""
        asked = self._tries.pop(try_, None)
        if asked is None:
            return
        if asked.failing is not None:
            asked.failing.cancel()
        if asked.connection is not None:
            asked.connection.forget(asked)

    def sent_by_us(self, port: int, message_id: int) -> bool:
        """Whether an open try has this source port and ID."""
        return any(
            connection.asked.get(message_id) is not None and connection.stream.local_port() == port
            for connections in self._connections.values()
            for connection in connections
        )

    def close(self) -> None:
        """Close every connection; open tries end without a call."""
        for asked in list(self._tries.values()):
            self.forget(asked.try_)
        for connections in list(self._connections.values()):
            for connection in connections.copy():
                connection.close()

    def answered(self, asked: "_Asked") -> None:
        """The try ended with an accepted answer."""
        self._tries.pop(asked.try_, None)

    def lost(self, connection: "_Connection", unanswered: "list[_Asked]", reason: str) -> None:
        """A connection is gone: ask its tries again where that may help, otherwise report them."""
        for asked in unanswered:
            if self._tries.get(asked.try_) is not asked:
                continue  # forgotten by the callback of another one
            if connection.messages_read and not asked.again:
                asked.again = True
                self._put(asked)
            else:
                self._fail(asked, reason)

    def gone(self, connection: "_Connection") -> None:
        """A connection closed."""
        connections = self._connections[connection.address]
        connections.remove(connection)
        if not connections:
            del self._connections[connection.address]

    def _put(self, asked: "_Asked") -> None:
        try:
            connection = self._choose(asked.try_.address, fresh=asked.again)
        except OSError as error:
            asked.failing = self.loop.call_soon(self._fail, asked, failure_reason(error))
            return
        connection.ask(asked)
        self.counts[_ASKED] += 1

    def _choose(self, address: str, *, fresh: bool) -> "_Connection":
        usable = [connection for connection in self._connections.get(address, ()) if not connection.suspect]
        free = [
            connection
            for connection in usable
            if len(connection.asked) < self.limits.outstanding and not (fresh and connection.messages_read)
        ]
        least = min(free, key=lambda connection: len(connection.asked), default=None)
        if least is not None and (not least.asked or len(usable) >= self.limits.connections):
            return least
        if len(usable) < self.limits.connections or fresh:
            opened = _Connection(self, address)
            self._connections.setdefault(address, []).append(opened)
            return opened
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def _fail(self, asked: "_Asked", reason: str) -> None:
        del self._tries[asked.try_]
        self._on_failure(asked.try_, reason)


class _Asked:
    __slots__ = ("again", "connection", "failing", "message_id", "messages_read_before", "try_")

    def __init__(self, try_: Try) -> None:
        self.try_ = try_
        self.connection: _Connection | None = None
        self.message_id = 0
        self.messages_read_before = 0
        self.again = False
        self.failing: asyncio.Handle | None = None


class _Connection:
    __slots__ = (
        "_connecting",
        "_timer",
        "_upstreams",
        "address",
        "asked",
        "messages_read",
        "stream",
        "suspect",
    )

    def __init__(self, upstreams: UpstreamTcp, address: str) -> None:
        """Start to connect. Raises OSError when that is impossible at once."""
        family, peer = socket_address(address)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            error = sock.connect_ex(peer)
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
        except BaseException:
            sock.close()
            raise
        self.address = address
        self.asked: dict[int, _Asked | None] = {}
        """By ID. None: forgotten, but the answer may still come, so its ID stays taken."""
        self.messages_read = 0
        self.suspect = False
        """Silent since a question that was given up: it may be cut off, so it gets no new ones."""
        self._upstreams = upstreams
        self.stream = MessageStream(upstreams.poller, sock, self._read, self._write, self._read)
        self._connecting = True
        self.stream.await_writable()
        self._timer = upstreams.loop.call_later(upstreams.limits.connect, self._lost, "unreachable")

    def ask(self, asked: _Asked) -> None:
        while (message_id := self._upstreams.random.next()) in self.asked:
            pass
        asked.connection = self
        asked.message_id = message_id
        asked.messages_read_before = self.messages_read
        self.asked[message_id] = asked
        self.stream.queue(message_id.to_bytes(2, "big") + asked.try_.message[2:])
        if not self._connecting:
            self._timer.cancel()
            # Not sent from here: an error must not reach the resolver while it asks.
            self.stream.await_writable()

    def forget(self, asked: _Asked) -> None:
        self.asked[asked.message_id] = None
        asked.connection = None
        if self.messages_read == asked.messages_read_before or len(self.asked) == self._upstreams.limits.outstanding:
            self.suspect = True
        self._rest()

    def close(self) -> None:
        if not self.stream.closed:
            self._timer.cancel()
            self.stream.close()
            self._upstreams.gone(self)

    def _rest(self) -> None:
        if self.stream.closed or any(self.asked.values()):
            return
        if self.suspect:
            self.close()
        else:
            self._timer.cancel()
            self._timer = self._upstreams.loop.call_later(self._upstreams.limits.idle, self.close)

    def _lost(self, reason: str) -> None:
        unanswered = [asked for asked in self.asked.values() if asked is not None]
        for asked in unanswered:
            asked.connection = None
        self.close()
        self._upstreams.lost(self, unanswered, reason)

    def _write(self) -> None:
        try:
            if self._connecting:
                error = self.stream.connect_error()
                if error:
                    raise OSError(error, os.strerror(error))
                self._connecting = False
                self._timer.cancel()
                self.stream.start_reading()
            self.stream.flush()
        except OSError as error:
            self._lost(_loss_reason(error))

    def _read(self) -> None:
        try:
            open_ = self.stream.read()
        except OSError as error:
            self._lost(_loss_reason(error))
            return
        while (message := self.stream.take()) is not None:
            if not self._receive(message):
                self._upstreams.counts[_MALFORMED] += 1
                self._lost("malformed")
                return
            if self.stream.closed:
                return
        if not open_:
            self._lost("refused")

    def _receive(self, message: bytes) -> bool:
        """False when the stream makes no sense any more."""
        if len(message) < MIN_MESSAGE:
            return False
        message_id = message[0] << 8 | message[1]
        if not message[2] & 0x80:
            self._upstreams.counts[_NOT_A_RESPONSE] += 1
        elif message_id not in self.asked:
            self._upstreams.counts[_WRONG_ID] += 1
        else:
            self.messages_read += 1
            asked = self.asked[message_id]
            if asked is not None and self._upstreams.on_answer(asked.try_, message):
                self._upstreams.answered(asked)
                self.asked[message_id] = None
                self._rest()
            if self.asked[message_id] is None:
                del self.asked[message_id]
        return True


def _loss_reason(error: OSError) -> str:
    """An upstream that accepts and then hangs up refuses as much as one that does not accept."""
    return "refused" if error.errno in (errno.ECONNRESET, errno.EPIPE) else failure_reason(error)
