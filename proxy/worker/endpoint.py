"""Connected UDP sockets to a relay's endpoints, and what the kernel says of them.

They decide nothing: errors are given back as numbers of `errno`, or come through the poller.
"""

import errno
import select
import socket
from collections.abc import Callable

from proxy.worker.poller import READABLE, Poller
from proxy.worker.upstream_try import socket_address

MOST_BYTES = 8932
"""What StatsD's documents give for jumbo frames; no client or server is made for more."""
UNKNOWN_PATH = 1400
"""Where the kernel has no MTU for a path: fits all encapsulations in use over 1,500 bytes."""

_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
"""IP_MTU_DISCOVER, IPV6_MTU_DISCOVER (in.h, in6.h)."""
_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
"""IP_MTU, IPV6_MTU: of the route that a connected socket has."""
_DISCOVER_DONT, _DISCOVER_DO = 0, 2
_SMALLEST = 1
"""The kernel makes of it the smallest buffer that it allows."""


class EndpointSocket:
    """A non-blocking UDP socket connected to one endpoint, so that only what comes from there is received.

    `report` is called with what waits: an errno of something sent before, or 0 when there is a datagram to read.
    """

    __slots__ = ("_poller", "_report", "_send", "_sock", "address", "family")

    def __init__(self, address: str, poller: Poller, report: Callable[["EndpointSocket", int], None]) -> None:
        """Open and connect it. Raises OSError."""
        self.address = address
        self._poller = poller
        self._report = report
        self.family, peer = socket_address(address)
        self._sock = socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._send = self._sock.send
        try:
            self._sock.connect(peer)
        except BaseException:
            self._sock.close()
            raise

    def send(self, datagram: bytes) -> int:
        """0 when the kernel took it; else why not: for this one, or for one sent before (ECONNREFUSED)."""
        try:
            self._send(datagram)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def close(self) -> None:
        """Nothing is sent or reported any more."""
        self._poller.remove(self._sock.fileno())
        self._sock.close()

    def _watch(self, events: int) -> None:
        try:
            self._poller.add(self._sock.fileno(), events, self._ready)
        except BaseException:
            self._sock.close()
            raise

    def _ready(self, events: int) -> None:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events & select.EPOLLERR else 0
        self._report(self, error)


class OneWaySocket(EndpointSocket):
    """Sends only, and nothing that the path can't take whole: the kernel refuses that with EMSGSIZE."""

    __slots__ = ("limit",)

    def __init__(self, address: str, poller: Poller, report: Callable[["EndpointSocket", int], None]) -> None:
        super().__init__(address, poller, report)
        level, discover = _DISCOVER[self.family]
        self._sock.setsockopt(level, discover, _DISCOVER_DO)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALLEST)  # what comes back is not read
        self._watch(0)  # errors are reported all the same
        self.limit = self.path_limit()
        """The longest datagram that fits, as far as its owner knows; `path_limit` says what the kernel knows now."""

    def path_limit(self) -> int:
        """The longest datagram that the path takes without fragments: the route's MTU less headers."""
        try:
            mtu = self._sock.getsockopt(*_MTU[self.family])
        except OSError:
            return UNKNOWN_PATH
        return max(1, min(mtu - _HEADERS[self.family], MOST_BYTES))


class TwoWaySocket(EndpointSocket):
    """One session's socket to one endpoint; what is too long for the path leaves in fragments."""

    __slots__ = ("_peer",)

    def __init__(self, address: str, poller: Poller, report: Callable[["EndpointSocket", int], None]) -> None:
        super().__init__(address, poller, report)
        level, discover = _DISCOVER[self.family]
        self._sock.setsockopt(level, discover, _DISCOVER_DONT)
        self._peer = self._sock.getpeername()
        self._watch(READABLE)

    def receive_into(self, buffer: memoryview) -> int | None:
        """The size of one reply, or None for a datagram from somebody else, taken before the socket was connected.

        Raises OSError when nothing waits.
        """
        size, peer = self._sock.recvfrom_into(buffer)
        return size if peer == self._peer else None
