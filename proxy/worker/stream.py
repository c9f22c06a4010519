"""DNS messages over one non-blocking TCP socket, each behind its length (RFC 1035 4.2.2).

Owns the socket and its two buffers; never decides about limits, order or when to close.
"""

import socket
import struct
from collections.abc import Callable

from proxy.worker.poller import READABLE, WRITABLE, Poller

READ_SIZE = 16 * 1024
"""One recv; enough for a few hundred questions, and small enough to take turns."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class MessageStream:
    """A connected (or connecting) socket that carries length-prefixed messages.

    `on_readable` is called after `start_reading`; `on_writable` while output waits or after `await_writable`;
    `on_broken` when the connection is reset while neither is awaited.
    """

    __slots__ = (
        "_events",
        "_incoming",
        "_on_broken",
        "_on_readable",
        "_on_writable",
        "_outgoing",
        "_poller",
        "_sock",
    )

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        on_readable: Callable[[], None],
        on_writable: Callable[[], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._sock = sock
        self._on_readable = on_readable
        self._on_writable = on_writable
        self._on_broken = on_broken
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._events = 0
        poller.add(sock.fileno(), 0, self._ready)

    @property
    def closed(self) -> bool:
        """No descriptor any more."""
        return self._sock.fileno() < 0

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._outgoing)

    @property
    def has_partial(self) -> bool:
        """Some bytes of a message that is not complete."""
        return bool(self._incoming) and not self.has_message

    @property
    def has_message(self) -> bool:
        """`take` would return a message."""
        incoming = self._incoming
        return len(incoming) >= 2 and len(incoming) - 2 >= (incoming[0] << 8 | incoming[1])

    def start_reading(self) -> None:
        """Call `on_readable` while bytes or an end wait in the kernel. Idempotent."""
        self._await(self._events | READABLE)

    def stop_reading(self) -> None:
        """Leave what arrives in the kernel, whose window then holds the peer back. Idempotent."""
        self._await(self._events & ~READABLE)

    def await_writable(self) -> None:
        """Call `on_writable` when the socket can be written, or its connect has ended. Idempotent."""
        self._await(self._events | WRITABLE)

    def read(self) -> bool:
        """Take what one recv gives; False at the end of the stream. Raises OSError when it broke."""
        try:
            received = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return True
        self._incoming += received
        return bool(received)

    def take(self) -> bytes | None:
        """The next complete message without its length (it may be empty), or None."""
        incoming = self._incoming
        if len(incoming) < 2:
            return None
        end = (incoming[0] << 8 | incoming[1]) + 2
        if len(incoming) < end:
            return None
        message = bytes(incoming[2:end])
        # A bytearray drops its front by moving a pointer: taking many messages from one buffer stays linear.
        del incoming[:end]
        return message

    def queue(self, message: bytes) -> None:
        """Add a message of at most 65,535 bytes to the output, its length in the same write (RFC 7766 8)."""
        self._outgoing += len(message).to_bytes(2, "big") + message

    def flush(self) -> int:
        """Give the kernel what it takes now; how many bytes that was. Raises OSError when it broke."""
        sent = 0
        outgoing = self._outgoing
        if outgoing:
            try:
                sent = self._sock.send(outgoing)
            except (BlockingIOError, InterruptedError):
                pass
            del outgoing[:sent]
        self._await(self._events | WRITABLE if outgoing else self._events & ~WRITABLE)
        return sent

    def connect_error(self) -> int:
        """Why the connect failed, as an errno; 0 when it succeeded."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def local_port(self) -> int:
        """Our side's port number."""
        port: int = self._sock.getsockname()[1]
        return port

    def close(self, *, reset: bool = False) -> None:
        """Close. With `reset` what the peer has not read is thrown away, its memory freed. Idempotent."""
        if self._sock.fileno() < 0:
            return
        self._poller.remove(self._sock.fileno())
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()
        self._events = 0
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def _await(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._poller.change(self._sock.fileno(), events)

    def _ready(self, events: int) -> None:
        awaited = self._events
        if awaited & WRITABLE and events & ~READABLE:
            self._on_writable()
        elif not awaited:
            self._on_broken()
        if self._events & READABLE and events & ~WRITABLE and not self.closed:
            self._on_readable()
