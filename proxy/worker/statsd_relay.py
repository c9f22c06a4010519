"""A relay in `statsd` mode: datagrams from listeners to the router, what it packs to the endpoints' sockets.

The router decides which line goes where; this decides nothing but what an error of the kernel means for a socket.
"""

import errno
from collections.abc import Sequence
from dataclasses import replace

from proxy.core.batches import Outgoing
from proxy.core.counters import Counts
from proxy.core.ledger import COUNTED
from proxy.core.policy import RelayPolicy
from proxy.core.statsd_router import StatsdRouter
from proxy.worker.arrivals import Arrivals
from proxy.worker.channel import FoldedValue, RelayState
from proxy.worker.clock import Clock
from proxy.worker.endpoint import EndpointSocket, OneWaySocket
from proxy.worker.poller import Poller
from proxy.worker.relay_mode import QUEUE_FULL, QUEUE_FULL_WAIT, UNREACHABLE_WAIT, Relay

MOST_FOLDED = 100
"""Values that a report shows."""
PATH_AGE = 60.0
"""Between two looks at the routes: the kernel forgets a lowered path MTU after 10 min."""
REFUSALS_IN_TURN = 16
"""Turns of sending in one wake-up after which an endpoint that still refuses, and can't be left out, has to wait."""

_DATAGRAMS_SENT = COUNTED["datagrams_sent"]
_PATH_LOWERED = COUNTED["path_lowered"]


class StatsdRelay(Relay):
    """Sends each datagram on in the wake-up that brought it."""

    def __init__(self, policy: RelayPolicy, counts: Counts, poller: Poller, clock: Clock) -> None:
        super().__init__(policy, counts, poller, clock)
        self._router = StatsdRouter(policy, counts)
        self._sockets: dict[str, OneWaySocket] = {}
        self._sendable: dict[str, OneWaySocket] = {}
        self._told: tuple[str, ...] | None = None
        self._paths_seen = 0.0
        self.configure(policy)

    def configure(self, policy: RelayPolicy) -> None:
        super().configure(policy)
        now = self._clock.now()
        for address in self._sockets.keys() - set(policy.endpoints):
            self._sockets.pop(address).close()
        self._router.configure(policy)
        self._by_source = bool(policy.spread == "source" or policy.datagrams_per_second or policy.lines_per_second)
        self._told = None
        self._look_at_paths(now)
        self._follow_ejection(now)
        self._finish(now)

    @property
    def releasing(self) -> bool:
        return bool(self._told) and self._router.deadline() is not None

    def forget(self, arrivals: Arrivals) -> None:
        """Nothing goes back in this mode."""

    def close(self) -> None:
        self._alarm.cancel()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        # A fold that has no room evicts, and so counts, what is in it.
        self._router.configure(replace(self._policy, endpoints=(), fold_bytes=0))
        self._router.take()  # nothing, which it shows in the ledger

    def write_gauges(self) -> None:
        now = self._clock.now()
        if now >= self._paths_seen + PATH_AGE:
            self._look_at_paths(now)

    def state(self) -> RelayState:
        return RelayState(
            self._policy.name,
            list(self._ejection.ejected),
            {address: sock.limit for address, sock in self._sockets.items()},
            [
                FoldedValue(folded.name, folded.kind, folded.value, folded.suffix, folded.lines)
                for folded in self._router.folded(MOST_FOLDED)
            ],
            self._router.malformed(),
        )

    def _receive(self, arrivals: Arrivals, datagrams: list[bytes], numbers: Sequence[int], now: float) -> None:
        receive = self._router.receive
        if self._by_source:
            for i in numbers:
                receive(datagrams[i], arrivals.source(i), now)
        else:
            for i in numbers:
                receive(datagrams[i], "", now)

    def _finish(self, now: float) -> None:
        turns = 0
        while waiting := self._router.take():
            turns += 1
            failed: set[str] = set()
            for outgoing in waiting:
                # What follows a datagram that was not taken must not overtake it: a gauge's last value counts.
                if outgoing.endpoint in failed or not self._send(outgoing, turns, now):
                    failed.add(outgoing.endpoint)
                    self._router.unsent(outgoing, now)
        self._alarm.ring_at(self._ejection.deadline())
        self._alarm.ring_at(self._router.deadline())

    def _send(self, outgoing: Outgoing, turn: int, now: float) -> bool:
        """Whether the kernel took it."""
        # Since it was packed, its endpoint may have failed, or its path turned out to take less.
        sock = self._sendable.get(outgoing.endpoint)
        if sock is not None and len(outgoing.payload) <= sock.limit:
            error = sock.send(outgoing.payload)
            if not error:
                self._counts[_DATAGRAMS_SENT] += 1
                self._router.sent(outgoing)
                if sock.address in self._ejection.on_trial:
                    self._ejection.sent(sock.address, now)
                    self._follow_ejection(now)
                return True
            self._learn(sock, error, turn, now)
        return False

    def _learn(self, sock: OneWaySocket, error: int, turn: int, now: float) -> None:
        """See to it that what the kernel did not take is not tried in the same way again."""
        if error == errno.EMSGSIZE and self._path_is_lower(sock):
            return
        if error == errno.ECONNREFUSED and turn < REFUSALS_IN_TURN:
            self._refused(sock.address, now)  # an earlier datagram: this one will be taken
        elif error in QUEUE_FULL or error == errno.ECONNREFUSED:
            self._ejection.pause([sock.address], now + QUEUE_FULL_WAIT, now)
        else:
            # A socket's own address may be gone: it gets a new socket.
            self._sockets.pop(sock.address).close()
            self._ejection.pause([sock.address], now + UNREACHABLE_WAIT, now)
        self._follow_ejection(now)

    def _reported(self, sock: EndpointSocket, error: int) -> None:
        now = self._clock.now()
        assert isinstance(sock, OneWaySocket)
        if error == errno.EMSGSIZE:
            self._path_is_lower(sock)
        elif error:
            self._refused(sock.address, now)
        self._follow_ejection(now)
        self._finish(now)

    def _expire(self) -> None:
        now = self._clock.now()
        self._ejection.expire(now)
        self._follow_ejection(now)
        self._router.expire(now)
        self._finish(now)

    def _follow_ejection(self, now: float) -> None:
        """Have a socket to every endpoint that is usable, and tell the router which ones are."""
        if self._ejection.usable is self._told:
            return
        missing = [address for address in self._ejection.usable if address not in self._sockets]
        failed = [address for address in missing if not self._open(address)]
        if failed:
            self._ejection.pause(failed, now + UNREACHABLE_WAIT, now)
        self._told = usable = self._ejection.usable
        self._sendable = {address: self._sockets[address] for address in usable}
        self._router.set_usable(usable)

    def _open(self, address: str) -> bool:
        try:
            sock = OneWaySocket(address, self._poller, self._reported)
        except OSError:
            return False
        self._sockets[address] = sock
        self._router.set_limit(address, sock.limit)
        return True

    def _look_at_paths(self, now: float) -> None:
        self._paths_seen = now
        for sock in self._sockets.values():
            if not self._path_is_lower(sock):
                sock.limit = sock.path_limit()
                self._router.set_limit(sock.address, sock.limit)

    def _path_is_lower(self, sock: OneWaySocket) -> bool:
        """Whether the kernel knows of a shorter limit than we did; the router then knows it, too."""
        limit = sock.path_limit()
        if limit >= sock.limit:
            return False
        sock.limit = limit
        self._counts[_PATH_LOWERED] += 1
        self._router.set_limit(sock.address, limit)
        return True
