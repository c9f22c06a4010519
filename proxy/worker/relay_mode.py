"""What relays of both modes have in common: reading listeners, control's probe, and which endpoints are usable."""

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence

from proxy.core.counters import Counts
from proxy.core.ejection import Ejection
from proxy.core.ledger import COUNTED, DROPPED, RECEIVED
from proxy.core.policy import RelayPolicy
from proxy.worker.arrivals import BATCH, Arrivals
from proxy.worker.channel import RelayState
from proxy.worker.clock import Alarm, Clock
from proxy.worker.endpoint import EndpointSocket
from proxy.worker.poller import Poller

WAKE_UP_LIMIT = 256
"""Datagrams after which they are sent on, and timers and other sockets get their turn: some 1 ms with a line each."""
WAKE_UP_BYTES = 65_536
"""The same by what they hold: 2,000 lines, or 4 ms."""
QUEUE_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
QUEUE_FULL_WAIT = 0.01
"""Seconds for which nothing is sent to an endpoint whose socket's queue is full: a device empties it sooner."""
UNREACHABLE_WAIT = 1.0
"""The same where this node has no route to it, or a rule against it."""

_DATAGRAMS_RECEIVED = COUNTED["datagrams_received"]
_REFUSED, _EJECTED = COUNTED["refused"], COUNTED["ejected"]
_OVERSIZE = DROPPED["oversize"]


class Relay(ABC):
    """One UDP service: from its listeners to its endpoints."""

    def __init__(self, policy: RelayPolicy, counts: Counts, poller: Poller, clock: Clock) -> None:
        """`counts` is its block of the ledger."""
        self._policy = policy
        self._counts = counts
        self._poller = poller
        self._clock = clock
        self._ejection = Ejection()
        self._alarm = Alarm(clock, self._expire)
        self._probe = policy.probe.encode()

    def follows(self, policy: RelayPolicy) -> bool:
        """Whether `configure` can make this policy of it, or another relay is needed."""
        return (policy.mode, policy.block) == (self._policy.mode, self._policy.block)

    def configure(self, policy: RelayPolicy) -> None:
        """Follow a new policy; when this returns, nothing is sent to an endpoint that it doesn't have."""
        self._policy = policy
        self._probe = policy.probe.encode()
        self._ejection.configure(policy.endpoints, policy.eject, self._clock.now())

    def read(self, arrivals: Arrivals) -> bool:
        """Relay what waits at a listener, up to a bound; False when nothing waited."""
        now = self._clock.now()
        counts = self._counts
        taken = size_bytes = 0
        full = True
        while full and taken < WAKE_UP_LIMIT and size_bytes < WAKE_UP_BYTES:
            datagrams = arrivals.take()
            full = len(datagrams) == BATCH
            taken += len(datagrams)
            size_bytes += sum(map(len, datagrams))
            numbers: Sequence[int] = range(len(datagrams))
            # One comparison a datagram, and nearly all end with the length.
            if self._probe in datagrams:
                numbers = self._without_probes(arrivals, datagrams)
            counts[_DATAGRAMS_RECEIVED] += len(numbers)
            self._receive(arrivals, datagrams, numbers, now)
        if arrivals.cut:
            taken += arrivals.cut
            counts[_DATAGRAMS_RECEIVED] += arrivals.cut
            counts[RECEIVED] += arrivals.cut
            counts[_OVERSIZE] += arrivals.cut
            arrivals.cut = 0
        self._finish(now)
        return taken > 0

    @property
    @abstractmethod
    def releasing(self) -> bool:
        """Whether something that was kept is on its way out."""

    @abstractmethod
    def forget(self, arrivals: Arrivals) -> None:
        """Nothing can go back over this listener any more."""

    @abstractmethod
    def close(self) -> None:
        """Close every socket; account for what is still kept."""

    @abstractmethod
    def write_gauges(self) -> None:
        """Put into shared memory what is no counter."""

    @abstractmethod
    def state(self) -> RelayState:
        """What no counter holds."""

    @abstractmethod
    def _receive(self, arrivals: Arrivals, datagrams: list[bytes], numbers: Sequence[int], now: float) -> None:
        """Take these of the datagrams that just arrived."""

    @abstractmethod
    def _finish(self, now: float) -> None:
        """All that this wake-up brings was taken."""

    @abstractmethod
    def _expire(self) -> None:
        """Something's time has come."""

    def _without_probes(self, arrivals: Arrivals, datagrams: list[bytes]) -> list[int]:
        """Answer control's probes; the numbers of the others."""
        if not self._probe:
            return list(range(len(datagrams)))
        others = []
        for i, datagram in enumerate(datagrams):
            if datagram == self._probe:
                arrivals.reply(datagram, arrivals.sender(i))
            else:
                others.append(i)
        return others

    def _refused(self, endpoint: str, now: float) -> None:
        self._counts[_REFUSED] += 1
        if self._ejection.refused(endpoint, now):
            self._counts[_EJECTED] += 1

    @abstractmethod
    def _reported(self, sock: EndpointSocket, error: int) -> None:
        """An error of something sent before, or 0: there is something to read."""
