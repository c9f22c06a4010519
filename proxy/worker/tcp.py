"""The DNS over TCP server towards clients (RFC 7766, 9210): who may hold a connection, and for how long."""

import asyncio
import errno
import logging
import socket

from proxy.core.counters import TCP_CLIENTS, TCP_REFUSED, Counts
from proxy.worker.poller import Poller
from proxy.worker.tcp_connection import TCP_LIMITS, Receive, TcpConnection, TcpLimits

logger = logging.getLogger(__name__)

_CLIENT_CAP = TCP_REFUSED.slot("client")
_TOTAL_CAP = TCP_REFUSED.slot("total")

_ACCEPTS_PER_WAKEUP = 16
_EXPIRE_INTERVAL = 0.5
_WARNING_INTERVAL = 60.0
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class TcpClients:
    """All client connections of a worker, over all its listeners: caps and time limits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counts: Counts, limits: TcpLimits = TCP_LIMITS) -> None:
        self.limits = limits
        self.poller = Poller(loop)
        self._loop = loop
        self._counts = counts
        self._connections: dict[TcpConnection, None] = {}
        self._connections_by_ip: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, ip: str) -> bool:
        """Whether one more connection of this client may stay; counted when not.

        At the cap of all the connection that idles longest makes room: a server may close idle ones when it
        must (RFC 7766 6.2.3), and their clients ask again. With none idle the client with the most connections
        gives up its most silent one, if that is fair: so a few busy or dripping clients keep nobody out.
        """
        if self._connections_by_ip.get(ip, 0) >= self.limits.connections_per_client:
            self._counts[_CLIENT_CAP] += 1
            return False
        if len(self._connections) >= self.limits.connections and not (
            self.close_longest_idle() or self._close_one_of_greediest(ip)
        ):
            self._counts[_TOTAL_CAP] += 1
            return False
        return True

    def close_longest_idle(self) -> bool:
        """Close the connection without work that was silent longest; False when all have work."""
        return _close_most_silent([connection for connection in self._connections if connection.idle])

    def _close_one_of_greediest(self, ip: str) -> bool:
        by_ip = self._connections_by_ip
        greediest = max(by_ip, key=by_ip.__getitem__, default=ip)
        if by_ip.get(greediest, 0) <= by_ip.get(ip, 0) + 1:
            return False
        return _close_most_silent([c for c in self._connections if c.address[0] == greediest])

    def add(self, connection: TcpConnection) -> None:
        """Count a connection that was admitted."""
        ip = connection.address[0]
        self._connections[connection] = None
        self._connections_by_ip[ip] = self._connections_by_ip.get(ip, 0) + 1
        self._counts[TCP_CLIENTS] = len(self._connections)
        if self._timer is None:
            self._timer = self._loop.call_later(_EXPIRE_INTERVAL, self._expire)

    def remove(self, connection: TcpConnection) -> None:
        """A connection closed."""
        ip = connection.address[0]
        del self._connections[connection]
        self._connections_by_ip[ip] -= 1
        if not self._connections_by_ip[ip]:
            del self._connections_by_ip[ip]
        self._counts[TCP_CLIENTS] = len(self._connections)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def expire(self, now: float) -> None:
        """Close every connection that is over a time limit at `now`, a time of the loop."""
        for connection in list(self._connections):
            connection.expire(now)

    def close(self) -> None:
        """Close every connection at once; the listeners are closed before."""
        for connection in list(self._connections):
            connection.close()
        self.poller.close()

    def _expire(self) -> None:
        self._timer = self._loop.call_later(_EXPIRE_INTERVAL, self._expire)
        self.expire(self._loop.time())


class TcpListener:
    """A listening socket, inherited and perhaps shared with other workers, and its connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        receive: Receive,
        counts: Counts,
        clients: TcpClients,
    ) -> None:
        """Accept from now on; `sock` becomes ours, all listeners of a worker share `clients`."""
        self._loop = loop
        self._sock = sock
        self._receive = receive
        self._counts = counts
        self._clients = clients
        self._connections: set[TcpConnection] = set()
        self._accepting = True
        self._retry: asyncio.TimerHandle | None = None
        self._next_warning = 0.0
        sock.setblocking(False)
        # Accepted sockets inherit it: no answer may wait for the ACK of the one before (Nagle).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(sock.fileno(), self._accept)

    @property
    def connected(self) -> bool:
        """Some connection is open."""
        return bool(self._connections)

    def stop_accepting(self) -> None:
        """Leave new connections in the kernel's queue, for another worker. Idempotent."""
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._sock.fileno())
            if self._retry is not None:
                self._retry.cancel()

    def stop_reading(self) -> None:
        """Read no question any more but what has arrived: connections close once that is answered."""
        for connection in list(self._connections):
            connection.finish()

    def finish_quiet(self, since: float) -> None:
        """The same for each connection that has no work and was silent since then, a time of the loop."""
        for connection in list(self._connections):
            if connection.idle and connection.active_at <= since:
                connection.finish()

    def close(self) -> None:
        """Give up our descriptor of the listening socket; connections get their last answers, then close."""
        self.stop_accepting()
        self.stop_reading()
        self._sock.close()

    def _accept(self) -> None:
        for accepted in range(_ACCEPTS_PER_WAKEUP):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return  # nothing left, or another worker was quicker
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    # The kernel wants a descriptor before it looks whether anyone waits: only the first
                    # accept of a wake-up knows that somebody does.
                    if not accepted:
                        self._pause_accepting(error)
                    return
                continue  # what befell one connection while it was queued (accept(2))
            if self._clients.admit(address[0]):
                self._serve(sock, address[:2])
            else:
                sock.close()

    def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setblocking(False)
        connection = TcpConnection(
            self._loop,
            self._clients.poller,
            sock,
            address,
            self._receive,
            self._counts,
            self._clients.limits,
            self._closed,
        )
        self._connections.add(connection)
        self._clients.add(connection)

    def _closed(self, connection: TcpConnection) -> None:
        self._connections.remove(connection)
        self._clients.remove(connection)

    def _pause_accepting(self, error: OSError) -> None:
        # The connection stays queued and the socket readable: to go on waiting for it would spin.
        self._loop.remove_reader(self._sock.fileno())
        self._retry = self._loop.call_later(self._clients.limits.retry_accept, self._resume_accepting)
        self._counts[_TOTAL_CAP] += 1
        self._clients.close_longest_idle()
        if self._loop.time() >= self._next_warning:
            self._next_warning = self._loop.time() + _WARNING_INTERVAL
            logger.warning("cannot accept TCP clients, trying again: %s", error)

    def _resume_accepting(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._accept)


def _close_most_silent(connections: list[TcpConnection]) -> bool:
    if not connections:
        return False
    min(connections, key=lambda connection: connection.active_at).close()
    return True
